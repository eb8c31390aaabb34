//! Numbers of this daemon for whoever watches it from outside (`metrics-addr`): OpenMetrics, `/healthz`, `/readyz`.
//!
//! ```text
//!  GET /metrics --> serve --> Sources::look: engine, containers, swarm, process --> Families --> text
//! ```
//!
//! Names are Docker's where Docker has the number (`engine_daemon_...`, `swarm_...`), cAdvisor's for containers
//! (`container_...`), Prometheus' own for the process (`process_...`), and begin with `rswarm_` otherwise. Everything is
//! looked at when it is asked for, by one look at a time; nothing is kept. How many rows there are is bounded: containers by
//! [`CONTAINERS_MAX`], the rest by what a swarm has of managers and states.
//!
//! *Invariant:* no row has what a person wrote but names of containers, images, services, projects and nodes: no label of
//! another kind, no environment, no reason, no path of a volume.

mod containers;
mod engine;
mod families;
mod process;
mod ready;
mod serve;
mod swarm;

pub(crate) use serve::serve;

use crate::swarm::NodeSwarm;
use families::Families;
use std::{path::PathBuf, sync::Arc};

/// *Limit* of containers that have rows of their own; those that run for longest do.
const CONTAINERS_MAX: usize = 500;

/// What numbers are taken of.
#[derive(Clone)]
pub(crate) struct Sources {
    pub(crate) engine: ::engine::Engine,
    pub(crate) swarm: NodeSwarm,
    pub(crate) data_root: PathBuf,
    /// One look at a time: who asks for many waits.
    pub(crate) turn: Arc<tokio::sync::Mutex<()>>,
}

impl Sources {
    /// Looks at everything.
    async fn look(&self) -> Families {
        let _turn = self.turn.lock().await;
        let mut families = Families::default();
        process::look(&mut families);
        engine::look(self, &mut families).await;
        swarm::look(&self.swarm, &mut families);
        containers::look(&self.engine, CONTAINERS_MAX, &mut families).await;
        families
    }
}
