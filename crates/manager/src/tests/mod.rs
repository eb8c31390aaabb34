//! What the tests of this room share, and the manager with a real agent over a real store.

pub(crate) mod state;
