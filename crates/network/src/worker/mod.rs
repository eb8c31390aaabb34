//! The worker thread: owns [`State`] and the sockets to the kernel, runs one job after the other.
//!
//! Every job has the same three steps: change the state, [`Worker::apply`], write the record. When the
//! kernel refuses, the state goes back and is applied again from a dump.

mod apply;
mod containers;
mod swarm;

use crate::{
    asking::Asking,
    desired::Desired,
    disk::Disk,
    dns,
    netns::{self, Netns},
    nft::{Family, Nft, Ruleset},
    ports::Reservations,
    rt::{Object, Rt},
    spec::{AuditReport, Error, NameSockets, Options, PortBinding},
    state::State,
    stopped::{self, Stopped},
};
use model::with_causes;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    thread,
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tracing::{debug, info, warn};

pub(crate) type Job = Box<dyn FnOnce(&mut Worker) + Send>;

const JOBS_WAITING: usize = 256;
/// File name of the data namespace beside those of the sandboxes.
pub(crate) const DATA: &str = "rswarm-data";
/// Stands for the host's own namespace among those of sandboxes.
const HOST: &str = "";

/// Starts the thread and waits until everything from before is adopted.
pub(crate) async fn start(options: Options) -> Result<mpsc::Sender<Job>, Error> {
    let (jobs, waiting) = mpsc::channel(JOBS_WAITING);
    let (ready, started) = oneshot::channel();
    let runtime = Handle::current();
    let (to_self, period, to_audit) = (jobs.clone(), options.audit_period, jobs.downgrade());
    thread::Builder::new()
        .name("rswarm-net".into())
        .spawn(move || match Worker::open(options, runtime, to_self) {
            Ok(mut worker) => {
                let mut waiting = waiting;
                if ready.send(Ok(())).is_ok() {
                    // Ends when the worker does.
                    let mut auditor = JoinSet::new();
                    auditor.spawn_on(audit(to_audit, period), &worker.runtime);
                    worker.run(&mut waiting);
                }
                // Who waits for the end (`waiting`) may start another one at once: ports are let go before.
                drop(worker);
            }
            Err(e) => drop(ready.send(Err(e))),
        })
        .map_err(Error::kernel("start a thread"))?;
    started.await.map_err(|_| Error::Stopped)??;
    Ok(jobs)
}

/// Asks the worker to compare with the kernel, again and again.
async fn audit(jobs: mpsc::WeakSender<Job>, period: Duration) {
    loop {
        tokio::time::sleep(period).await;
        let Some(jobs) = jobs.upgrade() else { return };
        let audit: Job = Box::new(|worker| drop(worker.audit()));
        if jobs.send(audit).await.is_err() {
            return;
        }
    }
}

/// A sandbox's live parts.
#[derive(Debug)]
struct Live {
    netns: Netns,
    objects: BTreeSet<Object>,
    rules: Option<Ruleset>,
    /// Kept open: closing one waits for the kernel to tidy up behind its last transaction, some 15 ms.
    nft: Option<Nft>,
    names: Option<dns::Server>,
    /// Of a name server whose sockets nobody keeps yet.
    fresh: Option<NameSockets>,
}

impl Live {
    fn new(netns: Netns) -> Self {
        Self { netns, objects: BTreeSet::new(), rules: None, nft: None, names: None, fresh: None }
    }
}

/// A thread for what takes long and nobody waits for: deleting links, closing nftables sockets.
/// Ends with the worker.
#[derive(Debug)]
struct Reaper(std::sync::mpsc::Sender<Remains>);

enum Remains {
    /// A socket in the namespace whose buried links go.
    Links(Rt),
    Sandbox(Box<Live>),
}

impl Reaper {
    fn start() -> Result<Self, Error> {
        #[expect(
            clippy::disallowed_methods,
            reason = "each entry is the end of a sandbox: there are no more of them than there were sandboxes, and the \
                      worker waits for none"
        )]
        let (sender, remains) = std::sync::mpsc::channel();
        let work = move || {
            for one in remains {
                match one {
                    Remains::Links(mut rt) => {
                        if let Err(error) = rt.empty_graves() {
                            warn!(%error, "cannot delete links that are out of use");
                        }
                    }
                    Remains::Sandbox(live) => drop(live),
                }
            }
        };
        let thread = thread::Builder::new().name("rswarm-reaper".into());
        thread.spawn(work).map_err(Error::kernel("start a thread"))?;
        Ok(Self(sender))
    }

    fn empty(&self, rt: io::Result<Rt>) {
        match rt {
            // The thread lives as long as this sender.
            Ok(rt) => drop(self.0.send(Remains::Links(rt))),
            Err(error) => warn!(%error, "cannot delete links that are out of use"),
        }
    }

    fn drop(&self, live: Live) {
        drop(self.0.send(Remains::Sandbox(Box::new(live))));
    }
}

/// The namespace of overlay networks.
#[derive(Debug)]
struct Data {
    netns: Netns,
    rt: Rt,
    locks: Locks,
    applied: Desired,
}

/// The table of one namespace that holds the ports of bridges to their containers' own addresses.
#[derive(Debug)]
struct Locks {
    nft: Nft,
    applied: Option<Ruleset>,
    /// The kernel cannot.
    unavailable: bool,
}

impl Locks {
    /// Opens a socket in the namespace of the calling thread.
    fn open() -> io::Result<Self> {
        Ok(Self { nft: Nft::open(Family::Bridge)?, applied: None, unavailable: false })
    }
}

/// Flows to be forgotten when there is time.
#[derive(Debug, Default, Clone)]
struct Condemned {
    /// Of UDP only: the task still serves what it has.
    stopping: BTreeSet<IpAddr>,
    gone: BTreeSet<IpAddr>,
    /// All that [`crate::flows`] holds to be out of date, too.
    outdated: bool,
}

impl Condemned {
    /// What new flows of the namespace would not do.
    fn outdated() -> Self {
        Self { outdated: true, ..Self::default() }
    }

    fn add(&mut self, more: &Self) {
        self.stopping.extend(&more.stopping);
        self.gone.extend(&more.gone);
        self.outdated |= more.outdated;
    }
}

#[derive(Debug)]
pub(crate) struct Worker {
    options: Options,
    state: State,
    disk: Disk,
    home: Netns,
    rt: Rt,
    nft: Nft,
    applied: Desired,
    /// Links that cannot be made or set, most of them because their names are somebody else's.
    unmade: BTreeSet<String>,
    rules: Option<Ruleset>,
    locks: Locks,
    data: Option<Data>,
    live: BTreeMap<String, Live>,
    reservations: Reservations,
    reaper: Reaper,
    /// By sandbox, or [`HOST`].
    condemned: BTreeMap<String, Condemned>,
    /// The same, of what the kernel refused to forget: with the next audit.
    postponed: BTreeMap<String, Condemned>,
    zones: BTreeMap<String, Arc<dns::Zone>>,
    /// What was said of other firewalls.
    stopped_by_others: BTreeSet<Stopped>,
    runtime: Handle,
    upstream: dns::Upstream,
    stopped: bool,
}

/// Where to compare from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    LastApplied,
    Kernel,
}

impl Worker {
    fn open(options: Options, runtime: Handle, jobs: mpsc::Sender<Job>) -> Result<Self, Error> {
        if let Some(path) = &options.host_netns {
            Netns::open(path)?.enter()?;
        }
        let disk = Disk::open(&options.state_dir)?;
        let upstream = dns::Upstream {
            resolvers: options.resolvers.clone(),
            worker: options.host_netns.is_some().then_some(jobs),
            asking: Asking::for_descriptors(),
        };
        let mut worker = Self {
            state: disk.load()?,
            disk,
            home: Netns::own()?,
            rt: Rt::open_shared().map_err(Error::kernel("open a netlink socket"))?,
            nft: Nft::open(Family::Inet).map_err(Error::kernel("open an nftables socket"))?,
            locks: Locks::open().map_err(Error::kernel("open an nftables socket"))?,
            applied: Desired::default(),
            unmade: BTreeSet::new(),
            rules: None,
            data: None,
            live: BTreeMap::new(),
            reservations: Reservations::default(),
            reaper: Reaper::start()?,
            condemned: BTreeMap::new(),
            postponed: BTreeMap::new(),
            zones: BTreeMap::new(),
            stopped_by_others: BTreeSet::new(),
            runtime,
            upstream,
            stopped: false,
            options,
        };
        worker.adopt()?;
        Ok(worker)
    }

    fn run(&mut self, jobs: &mut mpsc::Receiver<Job>) {
        while !self.stopped {
            let job = if self.condemned.is_empty() {
                jobs.blocking_recv()
            } else {
                match jobs.try_recv() {
                    Ok(job) => Some(job),
                    Err(mpsc::error::TryRecvError::Empty) => {
                        self.forget_some_flows();
                        continue;
                    }
                    Err(mpsc::error::TryRecvError::Disconnected) => None,
                }
            };
            match job {
                Some(job) => job(self),
                None => return,
            }
        }
    }

    pub(crate) fn stop(&mut self) {
        // What is asked from now on waits for the next daemon.
        self.live.values_mut().for_each(|live| live.names = None);
        self.stopped = true;
    }

    fn netns_path(&self, name: &str) -> PathBuf {
        self.options.run_root.join("netns").join(name)
    }

    /// Takes over what an earlier daemon left: live sandboxes keep their traffic, the rest is mended or removed.
    fn adopt(&mut self) -> Result<(), Error> {
        let graves = || Error::kernel("delete links that are out of use");
        self.rt.empty_graves().map_err(graves())?;
        let ours = |name: &str| name == DATA || self.state.sandboxes.contains_key(name);
        netns::prepare_folder(&self.options.run_root.join("netns"), ours)?;
        self.ensure_data(false)?;
        if let Some(data) = &mut self.data {
            data.rt.empty_graves().map_err(graves())?;
        }
        (self.state.underlay_mtu, self.state.underlay_link) = underlay(&mut self.rt, &self.state)?;
        let ids: Vec<String> = self.state.sandboxes.keys().cloned().collect();
        for id in ids {
            let netns = Netns::open(&self.netns_path(&id));
            // A plain file, as after a reboot, cannot be entered.
            let alive = netns.ok().filter(|netns| netns.within(&self.home, || ()).is_ok());
            match alive {
                Some(netns) => {
                    self.live.insert(id, Live::new(netns));
                }
                None => {
                    info!(container.id = %id, "sandbox ended with its host");
                    self.state.sandboxes.remove(&id);
                    self.disk.remove_sandbox(&id)?;
                }
            }
        }
        self.remove_orphan_namespaces();
        for (id, sandbox) in &self.state.sandboxes {
            let all = sandbox.spec.ports.iter().filter_map(|b| Some((id.clone(), b.protocol, b.host_port?)));
            self.state.lost.extend(all);
        }
        self.regain_ports();
        for (id, protocol, port) in &self.state.lost {
            let port = format!("{port}/{protocol}");
            warn!(container.id = %id, port, "a published port is taken by somebody else and leads nowhere");
        }
        self.refresh_zones();
        let ids: Vec<String> = self.live.keys().cloned().collect();
        for id in ids {
            self.serve_names(&id)?;
        }
        self.options.name_sockets.clear();
        // After a boot everything is missing, and that is no news.
        let outcome = self.apply_from(From::Kernel, &self.live.keys().cloned().collect());
        for repair in &outcome.done {
            debug!(repair, "network put right");
        }
        for error in &outcome.errors {
            warn!(error = with_causes(error), "network cannot be put right yet");
        }
        // Backends may have left while nobody looked.
        let everywhere = self.live.keys().cloned().chain([HOST.to_owned()]).collect();
        self.condemn(&everywhere, &Condemned::outdated());
        info!(sandboxes = self.live.len(), repairs = outcome.done.len(), "network adopted");
        Ok(())
    }

    /// Takes ports of sandboxes again that are not held for them.
    fn regain_ports(&mut self) {
        let lost = std::mem::take(&mut self.state.lost);
        let before = lost.len();
        self.state.lost = lost
            .into_iter()
            .filter(|(id, protocol, port)| {
                let Some(sandbox) = self.state.sandboxes.get(id) else { return false };
                let ipv6 = sandbox.published_address6(&self.state).is_some();
                let fits = |b: &&PortBinding| (b.protocol, b.host_port) == (*protocol, Some(*port));
                let mut bindings = sandbox.spec.ports.iter().filter(fits);
                !bindings.all(|binding| self.reservations.reserve(id, binding, ipv6).is_ok())
            })
            .collect();
        if self.state.lost.len() < before {
            self.condemn_on_host();
        }
    }

    fn remove_orphan_namespaces(&self) {
        let dir = self.options.run_root.join("netns");
        for name in netns::names(&dir) {
            if name != DATA && !self.live.contains_key(&name) {
                info!(container.id = %name, "removing the namespace of an unknown sandbox");
                if let Err(error) = netns::remove(&dir.join(&name)) {
                    warn!(container.id = %name, %error, "cannot remove the namespace of an unknown sandbox");
                }
            }
        }
    }

    /// Says what another firewall stops, each once while it lasts.
    fn look_for_other_firewalls(&mut self) {
        let stopped = match stopped::look(&self.state) {
            Ok(found) => found.stopped,
            Err(error) => {
                debug!(error = with_causes(&error), "cannot read the tables of other firewalls");
                return;
            }
        };
        let now: BTreeSet<Stopped> = stopped.into_iter().filter(|s| s.certain).collect();
        for new in now.difference(&self.stopped_by_others) {
            let hint = format!("let it through there, as with: {}", new.remedy);
            warn!(
                what = new.what,
                by = new.by,
                hint,
                "another firewall of this host stops what we let through"
            );
        }
        for gone in self.stopped_by_others.difference(&now) {
            info!(what = gone.what, by = gone.by, "another firewall stops this no more");
        }
        self.stopped_by_others = now;
    }

    pub(crate) fn audit(&mut self) -> AuditReport {
        let everything = self.live.keys().cloned().collect();
        for (id, condemned) in std::mem::take(&mut self.postponed) {
            self.condemn(&BTreeSet::from([id]), &condemned);
        }
        self.regain_ports();
        let outcome = self.apply_from(From::Kernel, &everything);
        for repair in &outcome.done {
            warn!(repair, "network repaired");
        }
        let errors: Vec<String> = outcome.errors.iter().map(|e| with_causes(e)).collect();
        for error in &errors {
            warn!(error, "network cannot be repaired yet");
        }
        self.look_for_other_firewalls();
        AuditReport { repairs: outcome.done, errors }
    }

    pub(crate) fn destroy(&mut self) -> Result<(), Vec<Error>> {
        let mut errors = Vec::new();
        let ids: Vec<String> = self.state.sandboxes.keys().cloned().collect();
        for id in ids {
            errors.extend(self.remove_sandbox(&id).err().unwrap_or_default());
        }
        let ids: Vec<String> = self.state.bridges.keys().cloned().collect();
        for id in ids {
            errors.extend(self.remove_bridge(&id).err());
        }
        errors.extend(self.leave_swarm().err());
        // What no record knew of.
        errors.extend(self.apply_from(From::Kernel, &BTreeSet::new()).errors);
        self.remove_orphan_namespaces();
        // Only ours; other things may live in these directories.
        netns::remove_folder(&self.options.run_root.join("netns"));
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

/// MTU and name of the interface that holds the data address.
pub(crate) fn underlay(rt: &mut Rt, state: &State) -> Result<(u32, Option<String>), Error> {
    const ORDINARY: u32 = 1500;
    let Some(wanted) = state.identity.as_ref().map(|i| i.data_addr) else {
        return Ok((ORDINARY, None));
    };
    let read = || Error::kernel("read the addresses of this host");
    let holders = rt.all_addresses().map_err(read())?;
    let Some(holder) = holders.into_iter().find(|row| row.address == wanted) else {
        return Ok((ORDINARY, None));
    };
    let links = rt.links().map_err(read())?;
    let link = links.into_values().find(|l| l.index == holder.link);
    let mtu = link.as_ref().map_or(ORDINARY, |l| l.mtu);
    // Loopback has 65536; a mesh over it is a test on one machine.
    Ok((mtu.min(9000), link.map(|l| l.name)))
}
