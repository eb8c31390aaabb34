//! Networks of one host: local bridges, overlay networks of the swarm, published ports, virtual
//! addresses of services, and names, for containers that live in *sandboxes* (network namespaces
//! pinned by a file). Speaks netlink only; runs no other program.
//!
//! ```text
//!  engine, node --calls--> Network --closures--> worker thread ("rswarm-net")
//!                                                |  owns State; the only one that does setns
//!     State --pure--> desired objects            |
//!       host::objects  data::objects             v
//!       sandbox::objects  *::ruleset      reconcile: desired - actual -> netlink
//!                                                |
//!  dns tasks (tokio) <--sockets, names-----------'
//! ```
//!
//! Everything the kernel must hold is computed from `state::State` by plain functions as sets of
//! objects and as nftables rulesets. Applying a change compares with what was applied last; an audit and a
//! start compare with a dump of the kernel. So a restarted daemon adopts what is there, and what somebody
//! deleted by hand comes back.
//!
//! Tasks: one OS thread for the kernel; on tokio one timer for audits and, per sandbox, one DNS server.
//!
//! Gates, each with an attacker in `tests/kernel/attacks.rs`: what is not marked as ours is not changed (`rt`, `nft`,
//! `netns`); a container sends frames and packets from its own addresses only (`firewall::of_ports`); tunnels take
//! packets from nodes of the swarm only, and the mesh leads to published ports only (`firewall::of_host`); a port that
//! cannot be bound is not led away from who has it (`ports`). A container on a macvlan network is on the network
//! outside and as free there as a machine of its own.
//!
//! On the host itself: turns on `net.ipv4.ip_forward`, and with a network of IPv6 its forwarding, and leaves them on.
//!
//! Invariants: no tokio thread ever changes its namespace; only the worker thread writes state; established
//! flows are left alone by every change of services.
//!
//! *Start reading at* `worker::apply`, function `Worker::apply`.

mod address;
mod asking;
mod conntrack;
mod desired;
mod disk;
mod dns;
mod firewall;
mod flows;
mod holder;
mod look;
mod netlink;
mod netns;
mod nft;
mod ports;
mod reconcile;
mod rt;
mod sever;
mod spec;
mod state;
mod stopped;
mod worker;

pub use address::{Mac, node_of_task};
pub use look::{Guard, Guards, forward_dropped, look};
pub use spec::{
    AuditReport, Bridge, BridgeEndpoint, BridgeIpv6, BridgeSpec, DnsOptions, Error, Gateway, InterfaceInfo,
    LegOptions, Macvlan, MacvlanMode, NameSockets, NodeIdentity, Options, PortBinding, SandboxAttachment,
    SandboxInfo, SandboxSpec,
};
pub use stopped::{OtherFirewalls, Stopped, other_firewalls};

use ipnet::IpNet;
use model::{IngressTable, NetworkId, NetworkTable, TaskId};
use std::os::fd::OwnedFd;
use tokio::sync::{mpsc, oneshot};
use worker::{Job, Worker};

/// Handle of the network service. Cheap to clone; the service ends with [`Network::shutdown`].
#[derive(Debug, Clone)]
pub struct Network {
    jobs: mpsc::Sender<Job>,
}

impl Network {
    /// Starts the service: reads its records, adopts what the kernel still holds, repairs the rest,
    /// and removes objects that belong to nothing known.
    ///
    /// # Errors
    /// When the roots cannot be written or namespaces and netlink are out of reach.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let jobs = worker::start(options).await?;
        Ok(Self { jobs })
    }

    async fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Worker) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |worker| {
            // The caller may have gone away; the work is done all the same.
            drop(answer.send(job(worker)));
        });
        self.jobs.send(job).await.map_err(|_| Error::Stopped)?;
        answered.await.map_err(|_| Error::Stopped)
    }

    /// Ends the service and leaves every kernel object in place: containers keep their network.
    pub async fn shutdown(&self) {
        if self.call(Worker::stop).await.is_ok() {
            self.jobs.closed().await;
        }
    }

    /// Removes everything this service ever made, records included, then ends it.
    ///
    /// # Errors
    /// All that could not be removed; the rest is gone.
    pub async fn destroy(&self) -> Result<(), Vec<Error>> {
        self.call(Worker::destroy).await.map_err(|e| vec![e])??;
        self.shutdown().await;
        Ok(())
    }

    /// Makes this host a node of the mesh. Safe to repeat, also with another address.
    pub async fn join_swarm(&self, identity: NodeIdentity) -> Result<(), Error> {
        self.call(move |w| w.join_swarm(identity)).await?
    }

    /// Forgets the swarm: mesh, tables, overlay networks. Sandboxes keep their local networks.
    pub async fn leave_swarm(&self) -> Result<(), Error> {
        self.call(Worker::leave_swarm).await?
    }

    /// Brings one overlay network to `table`. An older version than the applied one changes nothing.
    /// `Ok` = the kernel has accepted it.
    pub async fn apply_table(&self, table: NetworkTable) -> Result<(), Error> {
        self.call(move |w| w.apply_table(table)).await?
    }

    /// Removes an overlay network from this host. Sandboxes that still have a leg in it lose it.
    pub async fn drop_table(&self, network: NetworkId) -> Result<(), Error> {
        self.call(move |w| w.drop_table(network)).await?
    }

    /// Brings mesh and published ports to `table`. An older version than the applied one changes nothing.
    pub async fn apply_ingress(&self, table: IngressTable) -> Result<(), Error> {
        self.call(move |w| w.apply_ingress(table)).await?
    }

    /// Versions of the tables in force, by network.
    pub async fn tables(&self) -> Result<Vec<(NetworkId, u64)>, Error> {
        self.call(|w| w.tables()).await
    }

    /// Makes a sandbox, or brings one of the same id to this spec. All or nothing.
    ///
    /// # Errors
    /// `UnknownNetwork` while an overlay's table or a bridge is missing here.
    pub async fn create_sandbox(&self, spec: SandboxSpec) -> Result<SandboxInfo, Error> {
        self.call(move |w| w.create_sandbox(spec, None)).await?
    }

    /// As [`create_sandbox`](Self::create_sandbox), in a network namespace that was made before: one that belongs to a
    /// user namespace. Who has rights in that may then change what is in the sandbox. A sandbox that is there already
    /// is made anew.
    ///
    /// # Errors
    /// As there.
    pub async fn create_sandbox_in(&self, spec: SandboxSpec, netns: OwnedFd) -> Result<SandboxInfo, Error> {
        self.call(move |w| w.create_sandbox(spec, Some(netns))).await?
    }

    /// Removes a sandbox with all that leads to it. Unknown ids are fine.
    pub async fn remove_sandbox(&self, id: &str) -> Result<(), Vec<Error>> {
        let id = id.to_owned();
        self.call(move |w| w.remove_sandbox(&id)).await.map_err(|e| vec![e])?
    }

    /// Puts a running sandbox onto one more network. Source: `docker network connect`.
    pub async fn connect(&self, id: &str, attachment: SandboxAttachment) -> Result<SandboxInfo, Error> {
        let id = id.to_owned();
        self.call(move |w| w.connect(&id, attachment)).await?
    }

    /// Takes a running sandbox off a network (overlay id or local bridge id). Source: `docker network disconnect`.
    pub async fn disconnect(&self, id: &str, network: &str) -> Result<SandboxInfo, Error> {
        let (id, network) = (id.to_owned(), network.to_owned());
        self.call(move |w| w.disconnect(&id, &network)).await?
    }

    /// Has the containers beside it find a running sandbox by another name, on bridge networks.
    pub async fn rename(&self, id: &str, from: &str, to: &str) -> Result<SandboxInfo, Error> {
        let (id, from, to) = (id.to_owned(), from.to_owned(), to.to_owned());
        self.call(move |w| w.rename(&id, &from, &to)).await?
    }

    /// Sandboxes in force, also those adopted from an earlier daemon.
    pub async fn sandboxes(&self) -> Result<Vec<SandboxInfo>, Error> {
        self.call(|w| w.sandboxes()).await
    }

    /// Forgets connection tracking of a task's UDP flows, so that open ones move to other backends.
    pub async fn drain(&self, task: TaskId) -> Result<(), Error> {
        self.call(move |w| w.drain(task)).await?
    }

    /// Makes a bridge network on this host. Safe to repeat with the same spec.
    pub async fn create_bridge(&self, spec: BridgeSpec) -> Result<Bridge, Error> {
        self.call(move |w| w.create_bridge(spec)).await?
    }

    /// Removes a bridge network without containers. Unknown ids are fine.
    pub async fn remove_bridge(&self, id: &str) -> Result<(), Error> {
        let id = id.to_owned();
        self.call(move |w| w.remove_bridge(&id)).await?
    }

    pub async fn bridges(&self) -> Result<Vec<Bridge>, Error> {
        self.call(|w| w.bridges()).await
    }

    /// What links and routes of this host lead to that nobody here made, shortest prefix first: no network of ours
    /// should have such addresses.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub async fn foreign_networks(&self) -> Result<Vec<IpNet>, Error> {
        self.call(Worker::foreign_networks).await?
    }

    /// Subnets of the swarm that this host knows of: its overlay networks, the mesh, the addresses of tasks.
    pub async fn swarm_subnets(&self) -> Result<Vec<IpNet>, Error> {
        self.call(|w| w.swarm_subnets()).await
    }

    /// Compares the kernel with what should be there, puts it right, and tells.
    pub async fn audit_now(&self) -> Result<AuditReport, Error> {
        self.call(Worker::audit).await
    }
}
