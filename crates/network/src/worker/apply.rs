//! From the state to the kernel: host, data namespace, sandboxes, names.

use super::{DATA, Data, From, Locks, Worker};
use crate::{
    desired::{self, Desired},
    dns, firewall,
    netns::{self, Netns, sysctl},
    nft::{self, Family, Nft, Owner, Ruleset},
    reconcile::{Maker, Outcome, Scope, add_missing, change, held},
    rt::{Kind, Link, Object, Rt},
    spec::{Error, Macvlan},
    state::{Leg, Sandbox},
};
use model::{NetworkId, with_causes};
use nix::libc;
use std::{collections::BTreeSet, io, os::fd::AsFd, sync::Arc};
use tracing::{debug, info, warn};

impl Worker {
    /// Brings the kernel to the state. `touched` = sandboxes whose names or rules may have changed.
    pub(super) fn apply(&mut self, touched: &BTreeSet<String>) -> Result<(), Error> {
        let outcome = self.apply_from(From::LastApplied, touched);
        if outcome.errors.is_empty() {
            return Ok(());
        }
        // Somebody has been at it: look, then try again.
        for error in &outcome.errors {
            debug!(error = %with_causes(error), "the kernel is not as we left it");
        }
        let everything = self.live.keys().cloned().collect();
        let known = self.unmade.clone();
        let mut outcome = self.apply_from(From::Kernel, &everything);
        for repair in &outcome.done {
            debug!(repair, "put right on the way");
        }
        // One network whose name is taken must not be in the way of the others.
        outcome.errors.retain(|e| !matches!(e, Error::ForeignLink(name) if known.contains(name)));
        if outcome.errors.is_empty() { Ok(()) } else { Err(outcome.errors.swap_remove(0)) }
    }

    pub(super) fn apply_from(&mut self, from: From, touched: &BTreeSet<String>) -> Outcome {
        let mut outcome = Outcome::default();
        self.hold_published();
        // Rules are there before the links that they are about, and as long as these: nothing passes meanwhile.
        self.apply_host_rules(from, Phase::BeforeLinks, &mut outcome);
        let wanted = self.wanted_locks();
        self.lock_more(&wanted, from, &mut outcome);
        self.apply_host(from, &mut outcome);
        self.apply_data(from, &mut outcome);
        self.lock_no_more(wanted, from, &mut outcome);
        self.apply_host_rules(from, Phase::AfterLinks, &mut outcome);
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

    pub(super) fn apply_host(&mut self, from: From, outcome: &mut Outcome) {
        let to = desired::of_host(&self.state);
        let before = match from {
            From::LastApplied => std::mem::take(&mut self.applied),
            From::Kernel => match self.rt.dump() {
                Ok(dump) => held(dump, &to, Scope::Shared),
                Err(e) => return outcome.errors.push(Error::kernel("read the host's network")(e)),
            },
        };
        let sandboxes = self.live.iter().map(|(id, live)| (id.as_str(), live.netns.file.as_fd())).collect();
        let mut maker = Maker { vxlan_from: None, sandboxes };
        let changed = change(&mut self.rt, &mut maker, &before, &to);
        if changed.buried {
            self.reaper.empty(Rt::open_shared());
        }
        if from == From::Kernel {
            self.unmade.clear();
        }
        self.unmade.extend(changed.unmade.iter().cloned());
        self.unmade.retain(|name| to.links.contains_key(name));
        merge(outcome, changed);
        if !to.links.is_empty() {
            self.host_settings(&before, &to, outcome);
        }
        self.applied = to;
    }

    /// Settings go with links, so those of links that are new, or all when read from the kernel.
    pub(super) fn host_settings(&self, before: &Desired, to: &Desired, outcome: &mut Outcome) {
        let mut settings = vec![("net.ipv4.ip_forward".to_owned(), "1")];
        let fresh =
            |link: &&Link| before.links.get(&link.name) != Some(*link) && !self.unmade.contains(&link.name);
        for link in to.links.values().filter(fresh) {
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
        if self.state.bridges.values().any(|b| b.spec.ipv6.is_some() && b.spec.macvlan.is_none()) {
            netns::keep_router_advertisements();
            settings.push(("net.ipv6.conf.all.forwarding".to_owned(), "1"));
        }
        for (key, value) in settings {
            match sysctl(&key, value) {
                Err(e) if self.options.rootless => {
                    warn!(key, error = %with_causes(&e), "a network setting is withheld from this user");
                }
                Err(e) => outcome.errors.push(e),
                Ok(()) => {}
            }
        }
    }

    pub(super) fn apply_data(&mut self, from: From, outcome: &mut Outcome) {
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
        if changed.buried {
            self.reaper.empty(data.netns.within(&self.home, Rt::open).flatten());
        }
        merge(outcome, changed);
        data.applied = to;
    }

    /// Opens the data namespace, making it when `needed`.
    pub(super) fn ensure_data(&mut self, needed: bool) -> Result<(), Error> {
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
                Netns::create(&path, None)?
            }
        };
        let opened = netns.within(&self.home, || {
            // Bridged frames must never meet a firewall; absent where br_netfilter is.
            for table in ["iptables", "ip6tables", "arptables"] {
                drop(sysctl(&format!("net.bridge.bridge-nf-call-{table}"), "0"));
            }
            // No addresses in here. IPv6 stays on: neighbour entries need it.
            drop(sysctl("net.ipv6.conf.default.addr_gen_mode", "1"));
            Ok((Rt::open()?, Locks::open()?))
        });
        let opened: io::Result<(Rt, Locks)> = opened.flatten();
        let (rt, locks) = opened.map_err(Error::kernel("open a netlink socket in the data namespace"))?;
        self.data = Some(Data { netns, rt, locks, applied: Desired::default() });
        Ok(())
    }

    /// Holds the published ports of the swarm; leaves those alone that somebody else on this host has.
    fn hold_published(&mut self) {
        self.reservations.data_port = self.state.identity.as_ref().map(|identity| identity.data_port);
        let published = self.state.published.iter().filter(|(_, slots)| slots.count() > 0);
        let wanted = published.map(|(port, _)| *port).filter(|_| self.state.identity.is_some()).collect();
        let refused = self.reservations.hold_ingress(&wanted, &self.state.withheld);
        for (port, error) in &refused {
            if !self.state.withheld.contains(port) {
                warn!(error = with_causes(error), "a published port of the swarm leads nowhere on this node");
            }
        }
        for (protocol, port) in self.state.withheld.iter().filter(|port| !refused.contains_key(port)) {
            info!(
                port = format!("{port}/{protocol}"),
                "a published port of the swarm is no longer in the way of another"
            );
        }
        let withheld = refused.into_keys().collect();
        if self.state.withheld != withheld {
            self.state.withheld = withheld;
            self.condemn_on_host();
        }
    }

    fn apply_host_rules(&mut self, from: From, phase: Phase, outcome: &mut Outcome) {
        // Nothing to rule over: leave no table behind.
        let needed = desired::any_link_on_host(&self.state);
        if needed == (phase == Phase::BeforeLinks) {
            let to = needed.then(|| firewall::of_host(&self.state));
            bring(&mut self.nft, &mut self.rules, to, from, outcome);
        }
    }

    fn wanted_locks(&self) -> WantedLocks {
        let lock = |mut ports: Ports<'_>| -> Option<Ruleset> {
            let first = ports.next()?;
            Some(firewall::of_ports(&self.state, std::iter::once(first).chain(ports)))
        };
        WantedLocks {
            local: lock(Box::new(self.state.local_ports())),
            overlay: lock(Box::new(self.state.overlay_ports())),
        }
    }

    /// Holds the ports of local bridges, and those of overlay networks, to what their containers may say: those that
    /// come, beside those that go.
    fn lock_more(&mut self, wanted: &WantedLocks, from: From, outcome: &mut Outcome) {
        self.locks.bring_more(wanted.local.as_ref(), from, outcome);
        if let Err(e) = self.ensure_data(wanted.overlay.is_some()) {
            return outcome.errors.push(e);
        }
        if let Some(Data { locks, .. }) = &mut self.data {
            locks.bring_more(wanted.overlay.as_ref(), from, outcome);
        }
    }

    /// Lets those go whose links are gone.
    fn lock_no_more(&mut self, wanted: WantedLocks, from: From, outcome: &mut Outcome) {
        self.locks.bring(wanted.local, from, outcome);
        if let Some(Data { locks, .. }) = &mut self.data {
            locks.bring(wanted.overlay, from, outcome);
        }
    }

    /// A sandbox's own side: addresses, routes, rules, names.
    pub(super) fn apply_sandbox(&mut self, id: &str, from: From, outcome: &mut Outcome) {
        if let Err(e) = self.make_macvlans(id) {
            return outcome.errors.push(e);
        }
        let (Some(sandbox), Some(live)) = (self.state.sandboxes.get(id), self.live.get_mut(id)) else {
            return;
        };
        let objects = desired::of_sandbox(&self.state, sandbox);
        let rules = sandbox.has_network().then(|| firewall::of_sandbox(&self.state, sandbox));
        let (known, applied, socket) = (&live.objects, &mut live.rules, &mut live.nft);
        let inside = || -> io::Result<Outcome> {
            let mut inner = Outcome::default();
            if *known != objects || from == From::Kernel {
                let mut rt = Rt::open()?;
                rt.set_up("lo")?;
                // A veth's end cannot be born up: its peer does not exist yet then (ENOTCONN).
                for object in &objects {
                    if let Object::Address { link, address, .. } = object {
                        if address.is_ipv6() {
                            // With a network that has IPv6 comes an address of the link. Nice to have.
                            drop(sysctl(&format!("net.ipv6.conf.{link}.addr_gen_mode"), "0"));
                        }
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
                // A macvlan has no outer end that it goes away with; others are gone already.
                let used: BTreeSet<&str> = objects.iter().filter_map(Object::link).collect();
                for link in known.iter().filter_map(Object::link).filter(|link| !used.contains(link)) {
                    drop(rt.delete_link(link));
                }
                // The inner ends of new veths are born down.
                let links: BTreeSet<&str> = objects.difference(&known).filter_map(Object::link).collect();
                links.into_iter().try_for_each(|link| rt.set_up(link))?;
                merge(&mut inner, add_missing(&mut rt, &objects, &known));
            }
            if let Some(rules) = rules
                && (applied.as_ref() != Some(&rules) || from == From::Kernel)
            {
                let nft = match socket {
                    Some(nft) => nft,
                    None => socket.insert(Nft::open(Family::Inet)?),
                };
                if from == From::Kernel {
                    *applied = nft.read()?;
                }
                settle(nft, applied, rules, from, &mut inner);
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

    /// Makes the links to parents of the host that a sandbox lacks.
    fn make_macvlans(&mut self, id: &str) -> Result<(), Error> {
        let (Some(sandbox), Some(live)) = (self.state.sandboxes.get(id), self.live.get(id)) else {
            return Ok(());
        };
        for leg in &sandbox.legs {
            let Some(bridge) = leg.bridge().and_then(|network| self.state.bridges.get(network)) else {
                continue;
            };
            let Some(macvlan) = &bridge.spec.macvlan else { continue };
            let failed = || Error::kernel(format!("make a macvlan of {} in sandbox {id}", macvlan.parent));
            let name = leg.interface();
            let there =
                live.netns.within(&self.home, || Rt::open().is_ok_and(|mut rt| rt.index(&name).is_ok()));
            if !there.map_err(failed())? {
                parent(&mut self.rt, macvlan)?;
                let shape = (self.state.mac(leg), bridge.spec.mtu_bytes);
                let made = self.rt.add_macvlan(&name, macvlan, shape, live.netns.file.as_fd());
                made.map_err(failed())?;
            }
        }
        Ok(())
    }

    /// Makes zones of all networks anew, and tells every sandbox.
    pub(super) fn refresh_zones(&mut self) {
        let overlays = self.state.tables.keys().map(ToString::to_string);
        let networks: BTreeSet<String> = overlays.chain(self.state.bridges.keys().cloned()).collect();
        self.zones.retain(|id, _| networks.contains(id));
        let everybody = self.live.keys().cloned().collect();
        self.refresh_zones_of(&networks, &everybody);
    }

    /// Makes zones of networks anew; tells the sandboxes that are on one that changed, and `touched`.
    pub(super) fn refresh_zones_of(&mut self, networks: &BTreeSet<String>, touched: &BTreeSet<String>) {
        let mut changed = BTreeSet::new();
        for id in networks {
            let overlay = id.parse().ok().and_then(|id: NetworkId| self.state.tables.get(&id));
            let zone = match overlay {
                Some(overlay) => dns::zone_of_overlay(&self.state, overlay),
                None if self.state.bridges.contains_key(id) => dns::zone_of_bridge(&self.state, id),
                None => continue,
            };
            if self.zones.get(id).is_none_or(|old| **old != zone) {
                self.zones.insert(id.clone(), Arc::new(zone));
                changed.insert(id.as_str());
            }
        }
        for (id, live) in &self.live {
            let (Some(server), Some(sandbox)) = (&live.names, self.state.sandboxes.get(id)) else { continue };
            let concerned = || sandbox.legs.iter().any(|leg| changed.contains(leg.network().as_str()));
            if touched.contains(id) || (!changed.is_empty() && concerned()) {
                server.show(self.view(sandbox));
            }
        }
    }

    pub(super) fn view(&self, sandbox: &Sandbox) -> dns::View {
        let zones = sandbox.legs.iter().filter_map(|leg| self.zones.get(&leg.network()).cloned()).collect();
        let links = sandbox.legs.iter().flat_map(|leg| {
            let zone = self.zones.get(&leg.network());
            let links = leg.options().into_iter().flat_map(|options| &options.links);
            links.filter_map(move |(name, alias)| {
                Some((alias.to_ascii_lowercase(), Arc::clone(zone?), name.to_ascii_lowercase()))
            })
        });
        let service = sandbox.legs.iter().find_map(|leg| self.state.service_of(leg));
        let service = service.map(str::to_ascii_lowercase).unwrap_or_default();
        dns::View {
            zones,
            links: links.collect(),
            servers: sandbox.spec.dns.servers.clone(),
            service,
            outside: sandbox.has_way_out(&self.state),
        }
    }

    /// Makes the sockets of a sandbox's name server and serves them.
    pub(super) fn serve_names(&mut self, id: &str) -> Result<(), Error> {
        let (Some(sandbox), Some(live)) = (self.state.sandboxes.get_mut(id), self.live.get_mut(id)) else {
            return Ok(());
        };
        if !sandbox.has_network() || live.names.is_some() {
            return Ok(());
        }
        let wanted = sandbox.dns_port;
        let failed = || Error::kernel(format!("open name server sockets of sandbox {id}"));
        let kept = self.options.name_sockets.remove(id).and_then(|kept| {
            let kept = dns::Sockets::kept(&kept);
            kept.inspect_err(|error| warn!(container.id = %id, %error, "kept sockets not used")).ok()
        });
        let sockets = match kept {
            Some(sockets) => sockets,
            None => {
                let sockets = live.netns.within(&self.home, || {
                    Rt::open()?.set_up("lo")?;
                    dns::Sockets::open(wanted)
                });
                let sockets = sockets.flatten().map_err(failed())?;
                live.fresh = Some(sockets.copies().map_err(failed())?);
                sockets
            }
        };
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

    /// Applies the state after it was put back; returns the error that made it necessary.
    pub(super) fn undo(&mut self, cause: Error) -> Error {
        self.refresh_zones();
        let everything = self.live.keys().cloned().collect();
        for error in self.apply_from(From::Kernel, &everything).errors {
            warn!(error = %with_causes(&error), "cannot go back to the network as it was");
        }
        cause
    }
}

/// Checks the link of the host that macvlans hang on: there, and not one of ours, whose traffic they would see.
pub(super) fn parent(rt: &mut Rt, macvlan: &Macvlan) -> Result<(), Error> {
    let row = rt.link(&macvlan.parent).map_err(|e| match e.raw_os_error() {
        Some(nix::libc::ENODEV) => Error::NoParent(macvlan.parent.clone()),
        _ => Error::kernel(format!("find interface {}", macvlan.parent))(e),
    })?;
    if row.ours { Err(Error::OwnParent(macvlan.parent.clone())) } else { Ok(()) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    BeforeLinks,
    AfterLinks,
}

/// What the ports of bridges are to be held to; `None` where there are none.
#[derive(Debug)]
struct WantedLocks {
    /// In the host's namespace.
    local: Option<Ruleset>,
    /// In the data namespace.
    overlay: Option<Ruleset>,
}

impl Locks {
    /// Adds what `to` has on top; a port that goes stays locked until it is gone.
    fn bring_more(&mut self, to: Option<&Ruleset>, from: From, outcome: &mut Outcome) {
        let Some(to) = to else { return };
        if from == From::LastApplied && self.applied.as_ref().is_some_and(|before| before.has(to)) {
            return;
        }
        let mut to = to.clone();
        self.applied.iter().for_each(|before| to.keep(before));
        self.bring(Some(to), from, outcome);
    }

    fn bring(&mut self, to: Option<Ruleset>, from: From, outcome: &mut Outcome) {
        if self.unavailable {
            return;
        }
        let errors = outcome.errors.len();
        bring(&mut self.nft, &mut self.applied, to, from, outcome);
        let unsupported = |e: &Error| {
            matches!(e, Error::Kernel { source, .. }
                if matches!(source.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT)))
        };
        if outcome.errors.len() > errors && outcome.errors.last().is_some_and(unsupported) {
            outcome.errors.truncate(errors);
            self.unavailable = true;
            warn!(
                "containers on one network can pass for each other: this kernel has no nftables for bridges"
            );
        }
    }
}

type Ports<'a> = Box<dyn Iterator<Item = (&'a str, &'a Leg)> + 'a>;

/// Brings a table of a namespace that others have tables in, too, to `to`; `None` = to nothing.
fn bring(
    nft: &mut Nft,
    applied: &mut Option<Ruleset>,
    to: Option<Ruleset>,
    from: From,
    outcome: &mut Outcome,
) {
    if from == From::Kernel {
        match nft.read() {
            Ok(Some(read)) if read.owner == Owner::SomebodyElse => {
                *applied = None;
                if to.is_some() {
                    outcome.errors.push(Error::ForeignTable(nft.name()));
                }
                return;
            }
            Ok(read) => *applied = read,
            Err(e) => return outcome.errors.push(Error::kernel("read nftables")(e)),
        }
    }
    match to {
        Some(to) => settle(nft, applied, to, from, outcome),
        None => {
            if applied.take().is_some()
                && let Err(refused) = nft.delete_table()
            {
                outcome.errors.push(refuse(refused));
            }
        }
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
