//! The worker thread: owns [`State`] and the sockets to the kernel, runs one job after the other.
//!
//! Every job has the same three steps: change the state, [`Worker::apply`], write the record. When the
//! kernel refuses, the state goes back and is applied again from a dump.

use crate::{
    address,
    conntrack::{self, Flow},
    desired::{self, Desired},
    disk::Disk,
    dns, firewall,
    netns::{self, Netns, sysctl},
    nft::{self, Nft, Ruleset},
    ports::Reservations,
    reconcile::{Maker, Outcome, Scope, add_missing, change, held},
    rt::{Kind, Object, Rt},
    spec::{
        AuditReport, Bridge, BridgeSpec, Error, NodeIdentity, Options, SandboxAttachment, SandboxInfo,
        SandboxSpec,
    },
    state::{Sandbox, State},
};
use model::{IngressTable, NetworkId, NetworkTable, TaskId};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::AsFd,
    path::PathBuf,
    sync::Arc,
    thread,
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
};
use tracing::{debug, info, warn};

pub(crate) type Job = Box<dyn FnOnce(&mut Worker) + Send>;

const JOBS_WAITING: usize = 256;
/// File name of the data namespace beside those of the sandboxes.
const DATA: &str = "rswarm-data";

/// Starts the thread and waits until everything from before is adopted.
pub(crate) async fn start(options: Options) -> Result<mpsc::Sender<Job>, Error> {
    let (jobs, waiting) = mpsc::channel(JOBS_WAITING);
    let (ready, started) = oneshot::channel();
    let runtime = Handle::current();
    let (to_self, period) = (jobs.clone(), options.audit_period);
    thread::Builder::new()
        .name("rswarm-net".into())
        .spawn(move || match Worker::open(options, runtime, to_self) {
            Ok(mut worker) => {
                if ready.send(Ok(())).is_ok() {
                    worker.run(waiting);
                }
            }
            Err(e) => drop(ready.send(Err(e))),
        })
        .map_err(Error::kernel("start a thread"))?;
    started.await.map_err(|_| Error::Stopped)??;
    let auditor = jobs.downgrade();
    // Ends when the worker does.
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(period).await;
            let Some(jobs) = auditor.upgrade() else { return };
            let audit: Job = Box::new(|worker| drop(worker.audit()));
            if jobs.send(audit).await.is_err() {
                return;
            }
        }
    });
    Ok(jobs)
}

/// A sandbox's live parts.
#[derive(Debug)]
struct Live {
    netns: Netns,
    objects: BTreeSet<Object>,
    rules: Option<Ruleset>,
    names: Option<dns::Server>,
}

/// The namespace of overlay networks.
#[derive(Debug)]
struct Data {
    netns: Netns,
    rt: Rt,
    applied: Desired,
}

/// Flows to be forgotten when there is time.
#[derive(Debug, Default, Clone)]
struct Condemned {
    /// Of UDP only: the task still serves what it has.
    stopping: BTreeSet<Ipv4Addr>,
    gone: BTreeSet<Ipv4Addr>,
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
    rules: Option<Ruleset>,
    data: Option<Data>,
    live: BTreeMap<String, Live>,
    reservations: Reservations,
    /// By sandbox; the host's under the empty name.
    condemned: BTreeMap<String, Condemned>,
    zones: BTreeMap<String, Arc<dns::Zone>>,
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
        };
        let mut worker = Self {
            state: disk.load()?,
            disk,
            home: Netns::own()?,
            rt: Rt::open().map_err(Error::kernel("open a netlink socket"))?,
            nft: Nft::open().map_err(Error::kernel("open an nftables socket"))?,
            applied: Desired::default(),
            rules: None,
            data: None,
            live: BTreeMap::new(),
            reservations: Reservations::default(),
            condemned: BTreeMap::new(),
            zones: BTreeMap::new(),
            runtime,
            upstream,
            stopped: false,
            options,
        };
        worker.adopt()?;
        Ok(worker)
    }

    fn run(&mut self, mut jobs: mpsc::Receiver<Job>) {
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
        self.stopped = true;
    }

    fn netns_path(&self, name: &str) -> PathBuf {
        self.options.run_root.join("netns").join(name)
    }

    /// Takes over what an earlier daemon left: live sandboxes keep their traffic, the rest is mended or removed.
    fn adopt(&mut self) -> Result<(), Error> {
        self.state.underlay_mtu = self.underlay_mtu()?;
        let ids: Vec<String> = self.state.sandboxes.keys().cloned().collect();
        for id in ids {
            let netns = Netns::open(&self.netns_path(&id));
            // A plain file, as after a reboot, cannot be entered.
            let alive = netns.ok().filter(|netns| netns.within(&self.home, || ()).is_ok());
            match alive {
                Some(netns) => {
                    let live = Live { netns, objects: BTreeSet::new(), rules: None, names: None };
                    self.live.insert(id, live);
                }
                None => {
                    info!(container.id = %id, "sandbox ended with its host");
                    self.state.sandboxes.remove(&id);
                    self.disk.remove_sandbox(&id)?;
                }
            }
        }
        self.remove_orphan_namespaces();
        for sandbox in self.state.sandboxes.values() {
            for binding in &sandbox.spec.ports {
                if let Err(error) = self.reservations.reserve(&sandbox.spec.id, binding) {
                    warn!(container.id = %sandbox.spec.id, %error, "a published port is taken by somebody else");
                }
            }
        }
        self.refresh_zones();
        let ids: Vec<String> = self.live.keys().cloned().collect();
        for id in ids {
            self.serve_names(&id)?;
        }
        let report = self.audit();
        info!(sandboxes = self.live.len(), repairs = report.repairs.len(), "network adopted");
        Ok(())
    }

    fn remove_orphan_namespaces(&self) {
        let dir = self.options.run_root.join("netns");
        let Ok(entries) = std::fs::read_dir(&dir) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != DATA && !self.live.contains_key(&name) {
                info!(container.id = %name, "removing the namespace of an unknown sandbox");
                if let Err(error) = netns::remove(&entry.path()) {
                    warn!(container.id = %name, %error, "cannot remove the namespace of an unknown sandbox");
                }
            }
        }
    }

    fn underlay_mtu(&mut self) -> Result<u32, Error> {
        const ORDINARY: u32 = 1500;
        let Some(IpAddr::V4(wanted)) = self.state.identity.as_ref().map(|i| i.data_addr) else {
            return Ok(ORDINARY);
        };
        let read = || Error::kernel("read the addresses of this host");
        let holders = self.rt.all_addresses().map_err(read())?;
        let Some((index, ..)) = holders.into_iter().find(|(_, address, _)| *address == wanted) else {
            return Ok(ORDINARY);
        };
        let links = self.rt.links().map_err(read())?;
        let mtu = links.values().find(|l| l.index == index).map_or(ORDINARY, |l| l.mtu);
        // Loopback has 65536; a mesh over it is a test on one machine.
        Ok(mtu.min(9000))
    }

    /// Brings the kernel to the state. `touched` = sandboxes whose names or rules may have changed.
    fn apply(&mut self, touched: &BTreeSet<String>) -> Result<(), Error> {
        let outcome = self.apply_from(From::LastApplied, touched);
        if outcome.errors.is_empty() {
            return Ok(());
        }
        // Somebody has been at it: look, then try again.
        for error in &outcome.errors {
            debug!(error = %chain(error), "the kernel is not as we left it");
        }
        let everything = self.live.keys().cloned().collect();
        let mut outcome = self.apply_from(From::Kernel, &everything);
        for repair in &outcome.done {
            debug!(repair, "put right on the way");
        }
        if outcome.errors.is_empty() { Ok(()) } else { Err(outcome.errors.swap_remove(0)) }
    }

    fn apply_from(&mut self, from: From, touched: &BTreeSet<String>) -> Outcome {
        let mut outcome = Outcome::default();
        self.apply_host(from, &mut outcome);
        self.apply_data(from, &mut outcome);
        self.apply_host_rules(from, &mut outcome);
        let reborn = std::mem::take(&mut outcome.reborn);
        for id in touched.union(&reborn) {
            if reborn.contains(id)
                && let Some(live) = self.live.get_mut(id)
            {
                live.objects.clear();
            }
            self.apply_sandbox(id, from, &mut outcome);
        }
        outcome
    }

    fn apply_host(&mut self, from: From, outcome: &mut Outcome) {
        let to = desired::of_host(&self.state);
        let before = match from {
            From::LastApplied => std::mem::take(&mut self.applied),
            From::Kernel => match self.rt.dump() {
                Ok(dump) => {
                    let task_pool = self.state.identity.as_ref().map(|i| i.task_pool);
                    held(dump, &to, Scope::Shared { task_pool })
                }
                Err(e) => return outcome.errors.push(Error::kernel("read the host's network")(e)),
            },
        };
        let sandboxes = self.live.iter().map(|(id, live)| (id.as_str(), live.netns.file.as_fd())).collect();
        let mut maker = Maker { vxlan_from: None, sandboxes };
        let changed = change(&mut self.rt, &mut maker, &before, &to);
        merge(outcome, changed);
        if !to.links.is_empty() {
            self.host_settings(&before, &to, outcome);
        }
        self.applied = to;
    }

    /// Settings go with links, so those of links that are new, or all when read from the kernel.
    fn host_settings(&self, before: &Desired, to: &Desired, outcome: &mut Outcome) {
        let mut settings = vec![("net.ipv4.ip_forward".to_owned(), "1")];
        for link in to.links.values().filter(|l| before.links.get(&l.name) != Some(l)) {
            let knob = |name| format!("net.ipv4.conf.{}.{name}", link.name.replace('.', "/"));
            match link.kind {
                Kind::Vxlan { .. } => {
                    // Clients' addresses arrive here; the effective value is the larger of all and this.
                    settings.push((knob("rp_filter"), "2"));
                    settings.push((knob("route_localnet"), "1"));
                }
                Kind::Bridge => settings.push((knob("route_localnet"), "1")),
                Kind::Veth { .. } if link.name.starts_with("g-") => {
                    settings.push((knob("route_localnet"), "1"));
                }
                Kind::Veth { .. } => {}
            }
        }
        for (key, value) in settings {
            if let Err(e) = sysctl(&key, value) {
                outcome.errors.push(e);
            }
        }
    }

    fn apply_data(&mut self, from: From, outcome: &mut Outcome) {
        let to = desired::of_data(&self.state);
        if let Err(e) = self.ensure_data(!to.links.is_empty()) {
            return outcome.errors.push(e);
        }
        let Some(data) = &mut self.data else { return };
        let before = match from {
            From::LastApplied => std::mem::take(&mut data.applied),
            From::Kernel => match data.rt.dump() {
                Ok(dump) => held(dump, &to, Scope::Own),
                Err(e) => return outcome.errors.push(Error::kernel("read the data namespace")(e)),
            },
        };
        let sandboxes = self.live.iter().map(|(id, live)| (id.as_str(), live.netns.file.as_fd())).collect();
        let mut maker = Maker { vxlan_from: Some((&mut self.rt, data.netns.file.as_fd())), sandboxes };
        let changed = change(&mut data.rt, &mut maker, &before, &to);
        merge(outcome, changed);
        data.applied = to;
    }

    /// Opens the data namespace, making it when `needed`.
    fn ensure_data(&mut self, needed: bool) -> Result<(), Error> {
        if self.data.is_some() {
            return Ok(());
        }
        let path = self.netns_path(DATA);
        let existing = Netns::open(&path).ok().filter(|netns| netns.within(&self.home, || ()).is_ok());
        let netns = match existing {
            Some(netns) => netns,
            None if !needed => return Ok(()),
            None => {
                netns::remove(&path)?;
                Netns::create(&path)?
            }
        };
        let rt = netns.within(&self.home, || {
            // Bridged frames must never meet a firewall; absent where br_netfilter is.
            for table in ["iptables", "ip6tables", "arptables"] {
                drop(sysctl(&format!("net.bridge.bridge-nf-call-{table}"), "0"));
            }
            // No addresses in here. IPv6 stays on: neighbour entries need it.
            drop(sysctl("net.ipv6.conf.default.addr_gen_mode", "1"));
            Rt::open()
        });
        let rt = rt.flatten().map_err(Error::kernel("open a netlink socket in the data namespace"))?;
        self.data = Some(Data { netns, rt, applied: Desired::default() });
        Ok(())
    }

    fn apply_host_rules(&mut self, from: From, outcome: &mut Outcome) {
        if from == From::Kernel {
            match self.nft.read() {
                Ok(read) => self.rules = read,
                Err(e) => return outcome.errors.push(Error::kernel("read nftables")(e)),
            }
        }
        // Nothing to rule over: leave no table behind.
        if self.applied.links.is_empty() {
            if self.rules.take().is_some()
                && let Err(refused) = self.nft.delete_table()
            {
                outcome.errors.push(refuse(refused));
            }
            return;
        }
        let to = firewall::of_host(&self.state);
        settle(&mut self.nft, &mut self.rules, to, from, outcome);
    }

    /// A sandbox's own side: addresses, routes, rules, names.
    fn apply_sandbox(&mut self, id: &str, from: From, outcome: &mut Outcome) {
        let (Some(sandbox), Some(live)) = (self.state.sandboxes.get(id), self.live.get_mut(id)) else {
            return;
        };
        let objects = desired::of_sandbox(&self.state, sandbox);
        let rules = sandbox.has_network().then(|| firewall::of_sandbox(&self.state, sandbox));
        let (known, applied) = (&live.objects, &mut live.rules);
        let inside = || -> io::Result<Outcome> {
            let mut inner = Outcome::default();
            if *known != objects || from == From::Kernel {
                let mut rt = Rt::open()?;
                rt.set_up("lo")?;
                // A veth's end cannot be born up: its peer does not exist yet then (ENOTCONN).
                for object in &objects {
                    if let Object::Address { link, .. } = object {
                        rt.set_up(link)?;
                    }
                }
                let known = if from == From::Kernel {
                    let held: BTreeSet<Object> = rt.dump()?.objects.into_iter().collect();
                    settled(known, &objects, &held)
                } else {
                    known.clone()
                };
                // A change of address leaves the old one behind otherwise.
                for object in known.difference(&objects).filter(|o| matches!(o, Object::Address { .. })) {
                    drop(rt.delete(object));
                }
                // The inner ends of new veths are born down.
                let links: BTreeSet<&str> = objects.difference(&known).filter_map(Object::link).collect();
                links.into_iter().try_for_each(|link| rt.set_up(link))?;
                merge(&mut inner, add_missing(&mut rt, &objects, &known));
            }
            if let Some(rules) = rules
                && (applied.as_ref() != Some(&rules) || from == From::Kernel)
            {
                let mut nft = Nft::open()?;
                if from == From::Kernel {
                    *applied = nft.read()?;
                }
                settle(&mut nft, applied, rules, from, &mut inner);
            }
            Ok(inner)
        };
        match live.netns.within(&self.home, inside).flatten() {
            Ok(inner) => {
                let clean = inner.errors.is_empty();
                outcome.done.extend(inner.done.into_iter().map(|what| format!("{what} in sandbox {id}")));
                outcome.errors.extend(inner.errors);
                live.objects = if clean { objects } else { BTreeSet::new() };
            }
            Err(e) => outcome.errors.push(Error::kernel(format!("set up sandbox {id}"))(e)),
        }
    }

    /// Makes zones of all networks anew; returns whether sandboxes must be told.
    fn refresh_zones(&mut self) {
        let mut zones = BTreeMap::new();
        for (id, overlay) in &self.state.tables {
            zones.insert(id.to_string(), dns::zone_of_overlay(&self.state, overlay));
        }
        for id in self.state.bridges.keys() {
            zones.insert(id.clone(), dns::zone_of_bridge(&self.state, id));
        }
        self.zones = zones
            .into_iter()
            .map(|(id, zone)| {
                let same = self.zones.get(&id).filter(|old| ***old == zone).cloned();
                (id, same.unwrap_or_else(|| Arc::new(zone)))
            })
            .collect();
        for (id, live) in &self.live {
            if let (Some(server), Some(sandbox)) = (&live.names, self.state.sandboxes.get(id)) {
                server.show(self.view(sandbox));
            }
        }
    }

    fn view(&self, sandbox: &Sandbox) -> dns::View {
        let zones = sandbox.legs.iter().filter_map(|leg| self.zones.get(&leg.network()).cloned()).collect();
        dns::View { zones, servers: sandbox.spec.dns.servers.clone() }
    }

    /// Makes the sockets of a sandbox's name server and serves them.
    fn serve_names(&mut self, id: &str) -> Result<(), Error> {
        let (Some(sandbox), Some(live)) = (self.state.sandboxes.get_mut(id), self.live.get_mut(id)) else {
            return Ok(());
        };
        if !sandbox.has_network() || live.names.is_some() {
            return Ok(());
        }
        let wanted = sandbox.dns_port;
        let sockets = live.netns.within(&self.home, || {
            Rt::open()?.set_up("lo")?;
            dns::Sockets::open(wanted)
        });
        let failed = || Error::kernel(format!("open name server sockets of sandbox {id}"));
        let sockets = sockets.flatten().map_err(failed())?;
        let port = sockets.port().map_err(failed())?;
        if port != wanted {
            sandbox.dns_port = port;
            self.disk.put_sandbox(sandbox)?;
        }
        let sandbox = &self.state.sandboxes[id];
        let view = self.view(sandbox);
        let server = dns::Server::start(&self.runtime, sockets, view, self.upstream.clone())?;
        if let Some(live) = self.live.get_mut(id) {
            live.names = Some(server);
        }
        Ok(())
    }

    fn on_overlay(&self, network: NetworkId) -> BTreeSet<String> {
        let on = |s: &&Sandbox| s.legs.iter().any(|l| l.overlay() == Some(network));
        self.state.sandboxes.values().filter(on).map(|s| s.spec.id.clone()).collect()
    }

    pub(crate) fn join_swarm(&mut self, identity: NodeIdentity) -> Result<(), Error> {
        address::check(&identity)?;
        if !identity.data_addr.is_ipv4() {
            return Err(Error::Ipv6("the data address"));
        }
        let before = self.state.identity.replace(identity.clone());
        self.state.underlay_mtu = self.underlay_mtu()?;
        if let Err(e) = self.apply(&BTreeSet::new()) {
            self.state.identity = before;
            return Err(self.undo(e));
        }
        self.disk.put_identity(&identity)
    }

    pub(crate) fn leave_swarm(&mut self) -> Result<(), Error> {
        let networks: Vec<NetworkId> = self.state.tables.keys().copied().collect();
        self.state.identity = None;
        self.state.ingress = IngressTable::default();
        self.state.published.clear();
        self.state.tables.clear();
        let mut touched = BTreeSet::new();
        for (id, sandbox) in &mut self.state.sandboxes {
            let legs = sandbox.legs.len();
            sandbox.legs.retain(|leg| leg.overlay().is_none());
            sandbox.spec.attachments = sandbox.legs.iter().map(|l| l.attachment.clone()).collect();
            if sandbox.legs.len() < legs {
                touched.insert(id.clone());
                self.disk.put_sandbox(sandbox)?;
            }
        }
        self.refresh_zones();
        let applied = self.apply(&touched);
        self.data = None;
        netns::remove(&self.netns_path(DATA))?;
        self.disk.remove_swarm(&networks)?;
        applied
    }

    pub(crate) fn apply_table(&mut self, table: NetworkTable) -> Result<(), Error> {
        if self.state.identity.is_none() {
            return Err(Error::NotInSwarm);
        }
        let network = table.network;
        let before = self.state.tables.get(&network).cloned();
        if before.as_ref().is_some_and(|b| b.table.version > table.version || b.table == table) {
            return Ok(());
        }
        self.state.put_table(table.clone());
        let touched = self.on_overlay(network);
        self.refresh_zones();
        if let Err(e) = self.apply(&touched) {
            match before {
                Some(before) => drop(self.state.tables.insert(network, before)),
                None => drop(self.state.tables.remove(&network)),
            }
            return Err(self.undo(e));
        }
        if let Some(before) = before {
            let condemned = condemned(&before.table, &table);
            self.condemn(&touched, &condemned);
        }
        self.disk.put_table(&table)
    }

    pub(crate) fn drop_table(&mut self, network: NetworkId) -> Result<(), Error> {
        if self.state.tables.remove(&network).is_none() {
            return self.disk.remove_table(network);
        }
        let touched = self.on_overlay(network);
        for id in &touched {
            if let Some(sandbox) = self.state.sandboxes.get_mut(id) {
                sandbox.legs.retain(|leg| leg.overlay() != Some(network));
                sandbox.spec.attachments = sandbox.legs.iter().map(|l| l.attachment.clone()).collect();
                self.disk.put_sandbox(sandbox)?;
            }
        }
        self.refresh_zones();
        self.apply(&touched)?;
        self.disk.remove_table(network)
    }

    pub(crate) fn apply_ingress(&mut self, table: IngressTable) -> Result<(), Error> {
        if self.state.identity.is_none() {
            return Err(Error::NotInSwarm);
        }
        if self.state.ingress.version > table.version || self.state.ingress == table {
            return Ok(());
        }
        let before = (self.state.ingress.clone(), self.state.published.clone());
        self.state.put_ingress(table.clone());
        if let Err(e) = self.apply(&BTreeSet::new()) {
            (self.state.ingress, self.state.published) = before;
            return Err(self.undo(e));
        }
        let backends = |table: &IngressTable| -> BTreeSet<Ipv4Addr> {
            let all = table.ports.values().flatten();
            all.filter_map(|b| address::v4(b.address, "mesh").ok()).collect()
        };
        let stopping = backends(&before.0).difference(&backends(&table)).copied().collect();
        self.condemn(&BTreeSet::from([String::new()]), &Condemned { stopping, gone: BTreeSet::new() });
        self.disk.put_ingress(&table)
    }

    pub(crate) fn tables(&mut self) -> Vec<(NetworkId, u64)> {
        self.state.tables.iter().map(|(id, overlay)| (*id, overlay.table.version)).collect()
    }

    /// Applies the state after it was put back; returns the error that made it necessary.
    fn undo(&mut self, cause: Error) -> Error {
        self.refresh_zones();
        let everything = self.live.keys().cloned().collect();
        for error in self.apply_from(From::Kernel, &everything).errors {
            warn!(error = %chain(&error), "cannot go back to the network as it was");
        }
        cause
    }

    pub(crate) fn create_sandbox(&mut self, spec: SandboxSpec) -> Result<SandboxInfo, Error> {
        check_name(&spec.id)?;
        let id = spec.id.clone();
        let before = self.state.sandboxes.get(&id).cloned();
        let legs = before.as_ref().map(|b| b.legs.clone()).unwrap_or_default();
        let legs = self.state.plan_legs(&spec, &legs)?;
        if let Some(gateway) = spec.gateway {
            address::v4(gateway.address, "gateways")?;
        }
        let mut spec = spec;
        self.reservations.choose(&id, &mut spec.ports, self.state.bindings(&id))?;
        let dns_port = before.as_ref().map_or(0, |b| b.dns_port);
        self.state.sandboxes.insert(id.clone(), Sandbox { spec, legs, dns_port });
        if let Err(e) = self.build(&id) {
            match before {
                Some(before) => {
                    self.state.sandboxes.insert(id, before);
                    return Err(self.undo(e));
                }
                None => {
                    for error in self.remove_sandbox(&id).err().unwrap_or_default() {
                        warn!(container.id = %id, error = %chain(&error), "cannot clean up a failed sandbox");
                    }
                    return Err(e);
                }
            }
        }
        let sandbox = &self.state.sandboxes[&id];
        Ok(self.state.describe(sandbox, &self.netns_path(&id)))
    }

    /// Brings a sandbox in the state to life.
    fn build(&mut self, id: &str) -> Result<(), Error> {
        if !self.live.contains_key(id) {
            let path = self.netns_path(id);
            netns::remove(&path)?;
            let netns = Netns::create(&path)?;
            let live = Live { netns, objects: BTreeSet::new(), rules: None, names: None };
            self.live.insert(id.to_owned(), live);
            self.sandbox_settings(id)?;
        }
        let sandbox = &self.state.sandboxes[id];
        self.disk.put_sandbox(sandbox)?;
        self.serve_names(id)?;
        self.refresh_zones();
        self.apply(&BTreeSet::from([id.to_owned()]))?;
        // What the container asks for may name its interfaces.
        let (live, sandbox) = (&self.live[id], &self.state.sandboxes[id]);
        let settings = sandbox.spec.sysctls.iter().filter(|(key, _)| key.starts_with("net."));
        live.netns
            .within(&self.home, || settings.into_iter().try_for_each(|(key, value)| sysctl(key, value)))
            .map_err(Error::kernel(format!("enter sandbox {id}")))?
    }

    /// Defaults of every container's namespace, as Docker has them.
    fn sandbox_settings(&self, id: &str) -> Result<(), Error> {
        let settings = [
            ("net.ipv4.ip_unprivileged_port_start", "0"),
            ("net.ipv4.ping_group_range", "0 2147483647"),
            ("net.ipv6.conf.default.addr_gen_mode", "1"),
            ("net.ipv6.conf.default.accept_ra", "0"),
        ];
        self.live[id]
            .netns
            .within(&self.home, || {
                Rt::open()?.set_up("lo")?;
                for (key, value) in settings {
                    // Groups that are not mapped, or a kernel without IPv6: nice to have.
                    if let Err(error) = sysctl(key, value) {
                        debug!(key, error = %chain(&error), "a default setting of containers is not available");
                    }
                }
                Ok(())
            })
            .flatten()
            .map_err(Error::kernel(format!("set up loopback of sandbox {id}")))
    }

    pub(crate) fn connect(&mut self, id: &str, attachment: SandboxAttachment) -> Result<SandboxInfo, Error> {
        let sandbox = self.state.sandboxes.get(id).ok_or_else(|| Error::UnknownSandbox(id.to_owned()))?;
        let mut spec = sandbox.spec.clone();
        spec.attachments.push(attachment);
        self.create_sandbox(spec)
    }

    pub(crate) fn disconnect(&mut self, id: &str, network: &str) -> Result<SandboxInfo, Error> {
        let sandbox = self.state.sandboxes.get(id).ok_or_else(|| Error::UnknownSandbox(id.to_owned()))?;
        let mut spec = sandbox.spec.clone();
        let legs = sandbox.legs.iter().filter(|leg| leg.network() != network);
        spec.attachments = legs.map(|leg| leg.attachment.clone()).collect();
        self.create_sandbox(spec)
    }

    pub(crate) fn remove_sandbox(&mut self, id: &str) -> Result<(), Vec<Error>> {
        let mut errors = Vec::new();
        if let Some(sandbox) = self.state.sandboxes.remove(id) {
            let addresses = sandbox.legs.iter().filter(|l| l.bridge().is_some()).map(|l| l.address);
            let gone: BTreeSet<Ipv4Addr> = addresses.chain(sandbox.gateway()).collect();
            errors.extend(self.apply(&BTreeSet::new()).err());
            if !gone.is_empty() {
                let condemned = Condemned { stopping: BTreeSet::new(), gone };
                self.condemn(&BTreeSet::from([String::new()]), &condemned);
            }
        }
        self.reservations.release(id);
        self.live.remove(id);
        self.condemned.remove(id);
        if !id.contains('/') {
            errors.extend(netns::remove(&self.netns_path(id)).err());
            errors.extend(self.disk.remove_sandbox(id).err());
        }
        self.refresh_zones();
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    pub(crate) fn sandboxes(&mut self) -> Vec<SandboxInfo> {
        let all = self.state.sandboxes.values();
        all.map(|s| self.state.describe(s, &self.netns_path(&s.spec.id))).collect()
    }

    pub(crate) fn create_bridge(&mut self, spec: BridgeSpec) -> Result<Bridge, Error> {
        check_name(&spec.id)?;
        if let Some(there) = self.state.bridges.get(&spec.id).filter(|b| b.spec == spec) {
            return Ok(self.state.describe_bridge(there));
        }
        let bridge = self.state.plan_bridge(spec)?;
        let subnet = bridge.spec.subnet;
        let routes = self.rt.foreign_destinations().map_err(Error::kernel("read the routes of this host"))?;
        if let Some((to, link)) = routes.into_iter().find(|(to, _)| crate::state::overlap(*to, subnet)) {
            return Err(Error::SubnetInUse { subnet, other: format!("route {to} of interface {link}") });
        }
        let id = bridge.spec.id.clone();
        let described = self.state.describe_bridge(&bridge);
        let record = bridge.spec.clone();
        let before = self.state.bridges.insert(id.clone(), bridge);
        self.refresh_zones();
        if let Err(e) = self.apply(&BTreeSet::new()) {
            match before {
                Some(before) => drop(self.state.bridges.insert(id, before)),
                None => drop(self.state.bridges.remove(&id)),
            }
            return Err(self.undo(e));
        }
        self.disk.put_bridge(&record)?;
        Ok(described)
    }

    pub(crate) fn remove_bridge(&mut self, id: &str) -> Result<(), Error> {
        let Some(bridge) = self.state.bridges.get(id) else { return Ok(()) };
        if self.state.on_bridge(id).next().is_some() {
            return Err(Error::NetworkInUse(bridge.spec.name.clone()));
        }
        self.state.bridges.remove(id);
        self.refresh_zones();
        self.disk.remove_bridge(id)?;
        self.apply(&BTreeSet::new())
    }

    pub(crate) fn bridges(&mut self) -> Vec<Bridge> {
        self.state.bridges.values().map(|b| self.state.describe_bridge(b)).collect()
    }

    pub(crate) fn audit(&mut self) -> AuditReport {
        let everything = self.live.keys().cloned().collect();
        let outcome = self.apply_from(From::Kernel, &everything);
        for repair in &outcome.done {
            warn!(repair, "network repaired");
        }
        let errors: Vec<String> = outcome.errors.iter().map(chain).collect();
        for error in &errors {
            warn!(error, "network cannot be repaired yet");
        }
        AuditReport { repairs: outcome.done, errors }
    }

    fn condemn(&mut self, sandboxes: &BTreeSet<String>, more: &Condemned) {
        if more.stopping.is_empty() && more.gone.is_empty() {
            return;
        }
        for id in sandboxes {
            let condemned = self.condemned.entry(id.clone()).or_default();
            condemned.stopping.extend(&more.stopping);
            condemned.gone.extend(&more.gone);
        }
    }

    /// Forgets the flows of one namespace; called while no job waits.
    fn forget_some_flows(&mut self) {
        let Some((id, condemned)) = self.condemned.pop_first() else { return };
        let doomed = |flow: &Flow| {
            let stopping = condemned.stopping.contains(&flow.answers) && flow.is_udp() && flow.translated();
            let gone =
                [flow.source, flow.destination, flow.answers].iter().any(|a| condemned.gone.contains(a));
            stopping || gone
        };
        let forgotten = match self.live.get(&id) {
            Some(live) => live.netns.within(&self.home, || conntrack::forget(doomed)).flatten(),
            None if id.is_empty() => conntrack::forget(doomed),
            None => return,
        };
        match forgotten {
            Ok(count) => debug!(container.id = %id, count, "flows forgotten"),
            Err(error) => warn!(container.id = %id, %error, "cannot forget flows of tasks that left"),
        }
    }

    pub(crate) fn drain(&mut self, task: TaskId) -> Result<(), Error> {
        for (network, overlay) in &self.state.tables.clone() {
            let endpoint = overlay.table.endpoints.get(&task);
            if let Some(address) = endpoint.and_then(|e| address::v4(e.address, "endpoints").ok()) {
                let condemned = Condemned { stopping: [address].into(), gone: BTreeSet::new() };
                let touched = self.on_overlay(*network);
                self.condemn(&touched, &condemned);
            }
        }
        let backends = self.state.ingress.ports.values().flatten().filter(|b| b.task == task);
        let stopping = backends.filter_map(|b| address::v4(b.address, "mesh").ok()).collect();
        let host = BTreeSet::from([String::new()]);
        self.condemn(&host, &Condemned { stopping, gone: BTreeSet::new() });
        while !self.condemned.is_empty() {
            self.forget_some_flows();
        }
        Ok(())
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
        drop(std::fs::remove_dir(self.options.run_root.join("netns")));
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

/// Brings a table to `to` and remembers it.
fn settle(nft: &mut Nft, applied: &mut Option<Ruleset>, to: Ruleset, from: From, outcome: &mut Outcome) {
    if from == From::Kernel {
        outcome.done.extend(nft::differences(applied.as_ref(), &to));
    }
    match nft.change(applied.as_ref(), &to) {
        Ok(()) => *applied = Some(to),
        Err(refused) => outcome.errors.push(refuse(refused)),
    }
}

/// Of what was applied to a sandbox, what counts as there. Routes and neighbours a container may have
/// changed on purpose; they are ours to restore only with their interface's address.
fn settled(known: &BTreeSet<Object>, wanted: &BTreeSet<Object>, held: &BTreeSet<Object>) -> BTreeSet<Object> {
    let addresses = |set: &BTreeSet<Object>| -> BTreeSet<Object> {
        set.iter().filter(|o| matches!(o, Object::Address { .. })).cloned().collect()
    };
    if addresses(wanted).is_subset(held) {
        wanted.union(known).cloned().collect()
    } else {
        held.intersection(wanted).cloned().collect()
    }
}

fn merge(outcome: &mut Outcome, more: Outcome) {
    outcome.done.extend(more.done);
    outcome.errors.extend(more.errors);
    outcome.reborn.extend(more.reborn);
}

fn refuse(refused: nft::Refused) -> Error {
    Error::Kernel { what: refused.step, source: refused.source }
}

/// Whose flows end between two tables of a network.
fn condemned(before: &NetworkTable, after: &NetworkTable) -> Condemned {
    let addresses = |table: &NetworkTable, ready: bool| -> BTreeSet<Ipv4Addr> {
        let some = table.endpoints.values().filter(|e| e.ready || !ready);
        some.filter_map(|e| address::v4(e.address, "endpoints").ok()).collect()
    };
    let leaving = |ready| addresses(before, ready).difference(&addresses(after, ready)).copied().collect();
    Condemned { stopping: leaving(true), gone: leaving(false) }
}

/// Ids become file names.
fn check_name(id: &str) -> Result<(), Error> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if id.is_empty() || id.len() > 128 || id.starts_with('.') || id == DATA || !id.chars().all(fine) {
        return Err(Error::InvalidId(id.to_owned()));
    }
    Ok(())
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
