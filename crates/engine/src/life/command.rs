//! What the task that owns a container can be asked.

use crate::{
    ask::config::EndpointConfig, error::Result, life::streams::ShimEnds, networks::any::AnyNetwork,
    seen::container::*,
};
use runtime::config::Process;
use tokio::sync::oneshot;

pub(crate) type Reply<T> = oneshot::Sender<Result<T>>;

/// What an owner can be asked.
#[derive(Debug)]
pub(crate) enum Command {
    Start(Reply<()>),
    Stop(StopOptions, Reply<()>),
    /// The host goes down.
    HostGoes(Reply<()>),
    Kill(i32, Reply<()>),
    Restart(StopOptions, Reply<()>),
    Pause(Reply<()>),
    Unpause(Reply<()>),
    Rename(String, Reply<()>),
    Update(Box<Update>, Reply<()>),
    Unlink(String, Reply<()>),
    Remove(RemoveOptions, Reply<()>),
    Attach(ShimEnds, Reply<()>),
    Resize {
        exec: Option<String>,
        rows: u16,
        cols: u16,
        reply: Reply<()>,
    },
    Exec {
        id: String,
        process: Box<Process>,
        ends: ShimEnds,
        reply: Reply<()>,
    },
    Connect(Box<AnyNetwork>, EndpointConfig, Reply<()>),
    Disconnect(Box<AnyNetwork>, Reply<()>),
}

/// Answers; that the asker has gone away meanwhile is no matter.
pub(crate) fn answer<T>(reply: Reply<T>, result: Result<T>) {
    drop(reply.send(result));
}
