//! What becomes of a container: made, started, looked after, ended, started again, removed.
//!
//! ```text
//!   create --> registry --- Command ---> owner: one task per container, alone changes its state
//!                                          |-- start       network, files, spec, shim, program
//!                                          |-- operations  stop, kill, pause, rename, update, remove; what follows an exit
//!                                          |-- host        all stop, for the host goes down
//!                                          |-- restart     when and after how long (pure)
//!                                          '-- health, probe; exec: more processes in it
//! ```
//!
//! *Start reading at* `owner::Owner`, then `start`.

pub(crate) mod attach;
pub(crate) mod command;
pub(crate) mod create;
pub(crate) mod exec;
pub(crate) mod health;
pub(crate) mod host;
pub(crate) mod operations;
pub(crate) mod owner;
pub(crate) mod probe;
pub(crate) mod registry;
pub(crate) mod restart;
pub(crate) mod start;
pub(crate) mod streams;
