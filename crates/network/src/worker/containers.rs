//! The containers' side: sandboxes and local bridges.

use super::{Condemned, DATA, HOST, Live, Worker, apply};
use crate::{
    address,
    netns::{self, Netns, sysctl},
    rt::Rt,
    spec::{Bridge, BridgeSpec, Error, SandboxAttachment, SandboxInfo, SandboxSpec},
    state::{Sandbox, overlap, subnets},
};
use ipnet::IpNet;
use model::with_causes;
use std::{collections::BTreeSet, net::IpAddr, os::fd::OwnedFd};
use tracing::{debug, warn};

impl Worker {
    /// `made`: the namespace of one that is new.
    pub(crate) fn create_sandbox(
        &mut self,
        spec: SandboxSpec,
        made: Option<OwnedFd>,
    ) -> Result<SandboxInfo, Error> {
        check_name(&spec.id)?;
        let id = spec.id.clone();
        if made.is_some()
            && self.live.contains_key(&id)
            && let Some(error) = self.remove_sandbox(&id).err().and_then(|errors| errors.into_iter().next())
        {
            return Err(error);
        }
        let before = self.state.sandboxes.get(&id).cloned();
        let legs = before.as_ref().map(|b| b.legs.clone()).unwrap_or_default();
        let legs = self.state.plan_legs(&spec, &legs)?;
        if let Some(gateway) = spec.gateway {
            address::v4(gateway.address, "gateways")?;
        }
        let dns_port = before.as_ref().map_or(0, |b| b.dns_port);
        let mut sandbox = Sandbox { spec, legs, dns_port };
        let ipv6 = sandbox.published_address6(&self.state).is_some();
        self.reservations.choose(&id, &mut sandbox.spec.ports, ipv6, self.state.bindings(&id))?;
        self.state.sandboxes.insert(id.clone(), sandbox);
        if let Err(e) = self.build(&id, made, before.as_ref()) {
            match before {
                Some(before) => {
                    self.state.sandboxes.insert(id, before);
                    return Err(self.undo(e));
                }
                None => {
                    for error in self.remove_sandbox(&id).err().unwrap_or_default() {
                        warn!(container.id = %id, error = %with_causes(&error), "cannot clean up a failed sandbox");
                    }
                    return Err(e);
                }
            }
        }
        // Who sent to such a port before it led here goes on at the host itself.
        let leads = |sandbox: &Sandbox| !sandbox.spec.ports.is_empty();
        if before.as_ref().is_some_and(leads) || leads(&self.state.sandboxes[&id]) {
            self.condemn_on_host();
        }
        let mut info = self.state.describe(&self.state.sandboxes[&id], &self.netns_path(&id));
        info.name_sockets = self.live.get_mut(&id).and_then(|live| live.fresh.take());
        Ok(info)
    }

    /// Brings a sandbox in the state to life; `before`: what it was.
    pub(super) fn build(
        &mut self,
        id: &str,
        made: Option<OwnedFd>,
        before: Option<&Sandbox>,
    ) -> Result<(), Error> {
        if !self.live.contains_key(id) {
            let path = self.netns_path(id);
            netns::remove(&path)?;
            let netns = Netns::create(&path, made)?;
            self.live.insert(id.to_owned(), Live::new(netns));
            self.sandbox_settings(id)?;
        }
        let sandbox = &self.state.sandboxes[id];
        self.disk.put_sandbox(sandbox)?;
        self.serve_names(id)?;
        let touched = BTreeSet::from([id.to_owned()]);
        let networks =
            self.state.sandboxes[id].networks().chain(before.into_iter().flat_map(Sandbox::networks));
        self.refresh_zones_of(&networks.collect(), &touched);
        self.apply(&touched)?;
        // What the container asks for may name its interfaces.
        let (live, sandbox) = (&self.live[id], &self.state.sandboxes[id]);
        let settings = sandbox.spec.sysctls.iter().filter(|(key, _)| key.starts_with("net."));
        let of_legs = sandbox.legs.iter().flat_map(|leg| {
            let options = leg.options().into_iter().flat_map(|options| &options.sysctls);
            options.map(move |(key, value)| (key.replace("IFNAME", &leg.interface()), value.clone()))
        });
        let mut all = settings.cloned().chain(of_legs);
        live.netns
            .within(&self.home, || all.try_for_each(|(key, value)| sysctl(&key, &value)))
            .map_err(Error::kernel(format!("enter sandbox {id}")))?
    }

    /// Defaults of every container's namespace, as Docker has them.
    pub(super) fn sandbox_settings(&self, id: &str) -> Result<(), Error> {
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
                        debug!(key, error = %with_causes(&error), "a default setting of containers is not available");
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
        self.create_sandbox(spec, None)
    }

    pub(crate) fn disconnect(&mut self, id: &str, network: &str) -> Result<SandboxInfo, Error> {
        let sandbox = self.state.sandboxes.get(id).ok_or_else(|| Error::UnknownSandbox(id.to_owned()))?;
        let mut spec = sandbox.spec.clone();
        let legs = sandbox.legs.iter().filter(|leg| leg.network() != network);
        spec.attachments = legs.map(|leg| leg.attachment.clone()).collect();
        self.create_sandbox(spec, None)
    }

    pub(crate) fn rename(&mut self, id: &str, from: &str, to: &str) -> Result<SandboxInfo, Error> {
        let sandbox = self.state.sandboxes.get(id).ok_or_else(|| Error::UnknownSandbox(id.to_owned()))?;
        let mut spec = sandbox.spec.clone();
        for attachment in &mut spec.attachments {
            let SandboxAttachment::Bridge { names, .. } = attachment else { continue };
            names.iter_mut().filter(|name| *name == from).for_each(|name| to.clone_into(name));
        }
        self.create_sandbox(spec, None)
    }

    pub(crate) fn remove_sandbox(&mut self, id: &str) -> Result<(), Vec<Error>> {
        let mut errors = Vec::new();
        let mut networks = BTreeSet::new();
        if let Some(sandbox) = self.state.sandboxes.remove(id) {
            networks.extend(sandbox.networks());
            let local = sandbox.legs.iter().filter(|l| l.bridge().is_some());
            let addresses =
                local.flat_map(|l| [Some(l.address.into()), l.address6.map(|net| net.addr().into())]);
            let gateway = sandbox.gateway().map(IpAddr::from);
            let gone: BTreeSet<IpAddr> = addresses.chain([gateway]).flatten().collect();
            errors.extend(self.apply(&BTreeSet::new()).err());
            if !gone.is_empty() {
                let condemned = Condemned { gone, outdated: true, ..Condemned::default() };
                self.condemn(&BTreeSet::from([HOST.to_owned()]), &condemned);
            }
        }
        self.reservations.release(id);
        if let Some(live) = self.live.remove(id) {
            self.reaper.drop(live);
        }
        self.condemned.remove(id);
        if !id.contains('/') {
            errors.extend(netns::remove(&self.netns_path(id)).err());
            errors.extend(self.disk.remove_sandbox(id).err());
        }
        self.refresh_zones_of(&networks, &BTreeSet::new());
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
        match &bridge.spec.macvlan {
            Some(macvlan) => apply::parent(&mut self.rt, macvlan)?,
            None => {
                self.check_link(&bridge.interface)?;
                self.check_routes(&bridge.spec)?;
            }
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

    /// A bridge's name must be nobody else's.
    fn check_link(&mut self, name: &str) -> Result<(), Error> {
        match self.rt.link(name) {
            Ok(row) if !row.ours => Err(Error::ForeignLink(name.to_owned())),
            // One of ours without a record is left from an earlier daemon.
            Ok(_) => Ok(()),
            Err(e) if e.raw_os_error() == Some(nix::libc::ENODEV) => Ok(()),
            Err(e) => Err(Error::kernel(format!("find interface {name}"))(e)),
        }
    }

    pub(crate) fn foreign_networks(&mut self) -> Result<Vec<IpNet>, Error> {
        let read = || Error::kernel("read the addresses and routes of this host");
        let routes = self.rt.foreign_destinations().map_err(read())?.into_iter().map(|(to, _)| to);
        let addresses = self.rt.all_addresses().map_err(read())?.into_iter().filter(|row| !row.ours);
        let subnets = addresses.filter_map(|row| IpNet::new(row.address, row.prefix).ok());
        let alone = |net: &IpNet| match net.addr() {
            IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_multicast(),
            IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local() || v6.is_multicast(),
        };
        let all: Vec<IpNet> =
            routes.chain(subnets).map(|net| net.trunc()).filter(|net| !alone(net)).collect();
        let mut all = IpNet::aggregate(&all);
        all.sort_by_key(|net| (net.prefix_len(), *net));
        Ok(all)
    }

    pub(crate) fn swarm_subnets(&mut self) -> Vec<IpNet> {
        let identity = self.state.identity.iter();
        let own = identity.flat_map(|i| [i.mesh_subnet, i.task_pool]).map(IpNet::V4);
        let overlays = self.state.tables.values().map(|overlay| overlay.table.allocation.subnet);
        own.chain(overlays).collect()
    }

    /// A bridge's subnets must be nobody else's.
    fn check_routes(&mut self, spec: &BridgeSpec) -> Result<(), Error> {
        let routes = self.rt.foreign_destinations().map_err(Error::kernel("read the routes of this host"))?;
        for subnet in subnets(spec) {
            if let Some((to, link)) = routes.iter().find(|(to, _)| overlap(*to, subnet)) {
                return Err(Error::SubnetInUse { subnet, other: format!("route {to} of interface {link}") });
            }
        }
        Ok(())
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
}

/// Ids become file names.
fn check_name(id: &str) -> Result<(), Error> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if id.is_empty() || id.len() > 128 || id.starts_with('.') || id == DATA || !id.chars().all(fine) {
        return Err(Error::InvalidId(id.to_owned()));
    }
    Ok(())
}
