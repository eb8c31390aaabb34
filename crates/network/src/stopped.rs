//! Which ports and ways of ours another firewall of this host stops: ufw, firewalld, a dockerd beside us, rules by hand.
//! What is published is still led to its container, and dropped on the way there without a word.

use crate::{
    desired::MESH_LINK,
    disk::Disk,
    nft::{Fate, Foreign, Hook, Packet, old_tables},
    rt::Rt,
    spec::Error,
    state::{State, routed_link},
    worker::underlay,
};
use model::Protocol;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

/// Flows that are followed at one look; the rest is not said.
const FLOWS_MAX: usize = 1024;

/// Something that another firewall does not let through.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stopped {
    /// `port 8080/tcp`, or a way in words.
    pub what: String,
    /// The rule, its chain and its table.
    pub by: String,
    /// False: only some of it, or it cannot be told, as where it depends on who asks.
    pub certain: bool,
    /// What lets it through, for `nft`.
    pub remedy: String,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.certain { "stops" } else { "may stop" };
        write!(f, "{} {verb} {}", self.by, self.what)
    }
}

/// What other firewalls do to us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OtherFirewalls {
    /// Sorted.
    pub stopped: Vec<Stopped>,
    /// The old xtables filter here, and what they do is not followed.
    pub old_tables: bool,
}

/// Looks for tables of others that stop what is published or sent by containers of the records, in the network namespace
/// of the calling thread. IPv4 only. `state_dir`: as in [`Options`](crate::Options).
///
/// # Errors
/// Records or kernel cannot be read; for the latter a process needs `CAP_NET_ADMIN`.
pub fn other_firewalls(state_dir: &Path) -> Result<OtherFirewalls, Error> {
    let mut rt = Rt::open_shared().map_err(Error::kernel("read the host's network"))?;
    let mut state = Disk::at(state_dir).load()?;
    (state.underlay_mtu, state.underlay_link) = underlay(&mut rt, &state)?;
    look(&state)
}

/// The same, of a state at hand.
pub(crate) fn look(state: &State) -> Result<OtherFirewalls, Error> {
    let mut foreign = Foreign::read().map_err(Error::kernel("read the tables of other firewalls"))?;
    let mut found: BTreeMap<(String, String), Stopped> = BTreeMap::new();
    let mut passes = BTreeSet::new();
    let flows = if foreign.is_empty() { Vec::new() } else { flows(state) };
    for (what, packet, accept) in flows.into_iter().take(FLOWS_MAX) {
        let (stop, certain) = match foreign.fate(&packet) {
            Fate::Passes => {
                passes.insert(what);
                continue;
            }
            Fate::MayStop(stop) => (stop, false),
            Fate::Stops(stop) => (stop, true),
        };
        let (by, remedy) = (stop.to_string(), format!("nft insert rule {} {accept} accept", stop.base()));
        let entry = found.entry((what.clone(), by.clone()));
        entry.and_modify(|s| s.certain &= certain).or_insert(Stopped { what, by, certain, remedy });
    }
    let mut stopped: Vec<Stopped> = found.into_values().collect();
    // One of several backends is reached.
    stopped.iter_mut().for_each(|s| s.certain &= !passes.contains(&s.what));
    Ok(OtherFirewalls { stopped, old_tables: old_tables() })
}

/// The first packets of what must get through, each with what it is called and the words of `nft` for it.
fn flows(state: &State) -> Vec<(String, Packet, String)> {
    let mut all = Vec::new();
    let inward = |port: String, protocol: Protocol, to: (Ipv4Addr, u16), oif: String| {
        let accept = format!("oifname {oif:?} ct status dnat");
        let packet = Packet {
            hook: Hook::Forward,
            iif: state.underlay_link.clone(),
            oif: Some(oif),
            protocol: Some(number(protocol)),
            destination: Some(to.0),
            port: Some(to.1),
            translated: true,
        };
        (port, packet, accept)
    };
    let mut outward: Vec<String> = Vec::new();
    for (id, sandbox) in &state.sandboxes {
        let bridges = sandbox.ways_out(state).filter(|(_, bridge)| bridge.spec.macvlan.is_none());
        let bridge = bridges.map(|(_, bridge)| bridge.interface.clone()).next();
        let link = if sandbox.gateway().is_some() { Some(routed_link(id)) } else { bridge };
        let (Some(address), Some(link)) = (sandbox.published_address(state), link) else { continue };
        outward.push(link.clone());
        for binding in &sandbox.spec.ports {
            let Some(port) = binding.host_port else { continue };
            if binding.host_ip.is_some_and(|ip| ip.is_loopback()) {
                continue;
            }
            let name = format!("port {port}/{}", word(binding.protocol));
            all.push(inward(name, binding.protocol, (address, binding.container_port), link.clone()));
        }
    }
    if let Some(identity) = &state.identity {
        let here = |address: Ipv4Addr| {
            let its = state.sandboxes.iter().find(|(_, sandbox)| sandbox.gateway() == Some(address));
            its.map(|(id, _)| routed_link(id))
        };
        for ((protocol, port), backends) in &state.published {
            if state.withheld.contains(&(*protocol, *port)) {
                continue;
            }
            for (address, target) in backends.members() {
                let link = here(*address).unwrap_or_else(|| MESH_LINK.to_owned());
                let name = format!("port {port}/{}", word(*protocol));
                all.push(inward(name, *protocol, (*address, *target), link));
            }
        }
        let destination = match identity.data_addr {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => None,
        };
        let packet = Packet {
            hook: Hook::Input,
            iif: state.underlay_link.clone(),
            oif: Some(String::new()),
            protocol: Some(number(Protocol::Udp)),
            destination,
            port: Some(identity.data_port),
            translated: false,
        };
        let accept = format!("udp dport {}", identity.data_port);
        all.push((format!("tunnels of other nodes (port {}/udp)", identity.data_port), packet, accept));
    }
    outward.sort();
    outward.dedup();
    for link in outward {
        let packet = Packet {
            hook: Hook::Forward,
            oif: state.underlay_link.clone(),
            protocol: None,
            destination: None,
            port: None,
            translated: false,
            iif: Some(link.clone()),
        };
        // One finding for all links that are treated alike.
        all.push(("what containers send to the outside".to_owned(), packet, format!("iifname {link:?}")));
    }
    all
}

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}
