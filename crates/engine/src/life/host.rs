//! The host goes down: every container is asked to stop, and none is started by this engine any more.

use crate::{
    inner::Inner,
    life::{command::Command, owner::GRACE},
    seen::container::Container,
};
use futures::StreamExt as _;
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

/// What became of the containers of a host that goes down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoppedForHost {
    /// How many have ended.
    pub stopped: usize,
    /// Those that could not be asked to, by name, with the reason.
    pub left: Vec<(String, String)>,
}

fn running(inner: &Inner) -> impl Iterator<Item = Arc<Container>> {
    inner.registry.snapshots().into_iter().filter(|container| container.state.is_running())
}

pub(crate) fn longest_grace(inner: &Inner) -> Duration {
    running(inner).map(|container| container.config.stop_timeout.unwrap_or(GRACE)).max().unwrap_or_default()
}

/// # Cancel safety
/// What was asked to stop does.
pub(crate) async fn stop_all(inner: &Inner) -> StoppedForHost {
    inner.host_goes.store(true, Relaxed);
    let asked = inner.registry.snapshots().into_iter().map(|container| async move {
        let ran = container.state.is_running();
        (container.name.clone(), ran, inner.ask(&container.id, Command::HostGoes).await)
    });
    let mut done = StoppedForHost::default();
    // All at the same time: the slowest says how long it takes.
    let mut answers: futures::stream::FuturesUnordered<_> = asked.collect();
    while let Some((name, ran, answer)) = answers.next().await {
        match answer {
            Ok(()) => done.stopped += usize::from(ran),
            Err(error) if error.kind() == crate::ErrorKind::NotFound => {}
            Err(error) => {
                let reason = model::with_causes(&error);
                tracing::warn!(
                    container.name = name,
                    error = reason,
                    "container is not stopped for its host"
                );
                done.left.push((name, reason));
            }
        }
    }
    done
}
