//! What containers wrote: where the shim puts it (`driver`), and how it is read again (`read`).

pub(crate) mod driver;
pub(crate) mod read;
