//! A look at the gates of this host's network as the kernel holds them, beside what the records say: for who examines
//! a host, whether its daemon runs or not. Changes nothing.

use crate::{
    disk::Disk,
    firewall,
    netns::Netns,
    nft::{Family, Nft, Owner, Ruleset},
    rt::Rt,
    spec::Error,
    state::State,
    worker::{DATA, underlay},
};
use std::{path::Path, thread, time::Duration};

/// Whether a gate is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    /// Nothing of ours is up that it would guard.
    NotNeeded,
    InForce,
    /// What the kernel lacks, or has beyond what the records say.
    Broken(String),
}

/// The gates of one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guards {
    /// Published ports, ways out, isolation of networks.
    pub host: Guard,
    /// Who may send packets of the tunnels.
    pub tunnel: Guard,
    /// What containers on bridges may send.
    pub local_ports: Guard,
    /// What containers on overlay networks may send.
    pub overlay_ports: Guard,
}

/// Sets of the host's table that may lack what a record names: a port that a program of this host has is not led away.
const MAY_LACK: [&str; 7] = ["pub", "pub_be", "hostp", "hostp_ip", "hostp6", "hostp6_ip", "open6"];
/// Chains and sets that decide about tunnels, and about nothing else.
const TUNNEL: [&str; 2] = ["tunnel", "vteps"];
/// A change that is under way when we look is over when we look again.
const LOOKS: usize = 5;
const PAUSE: Duration = Duration::from_millis(200);

/// Compares kernel and records, in the network namespace of the calling thread. Takes up to a second when they differ.
/// `state_dir`, `run_root`: as in [`Options`](crate::Options).
///
/// # Errors
/// Records or kernel cannot be read; for the latter a process needs `CAP_NET_ADMIN`.
pub fn look(state_dir: &Path, run_root: &Path) -> Result<Guards, Error> {
    thread::scope(|scope| {
        let looking = thread::Builder::new().name("rswarm-look".into()).spawn_scoped(scope, || {
            let mut left = LOOKS;
            loop {
                left -= 1;
                let guards = look_once(state_dir, run_root)?;
                let all = [&guards.host, &guards.tunnel, &guards.local_ports, &guards.overlay_ports];
                if left == 0 || !all.iter().any(|guard| matches!(guard, Guard::Broken(_))) {
                    return Ok(guards);
                }
                thread::sleep(PAUSE);
            }
        });
        let looking = looking.map_err(Error::kernel("start a thread"))?;
        looking.join().unwrap_or(Err(Error::Stopped))
    })
}

/// Tells whether some table that is not ours drops what this host forwards unless a rule accepts it, in the network
/// namespace of the calling thread. Tables of the old xtables are not seen.
///
/// # Errors
/// As [`look`].
pub fn forward_dropped() -> Result<bool, Error> {
    let dropped = Nft::open(Family::Inet).and_then(|mut nft| nft.forward_dropped());
    dropped.map_err(Error::kernel("read the host's network"))
}

fn look_once(state_dir: &Path, run_root: &Path) -> Result<Guards, Error> {
    let read = || Error::kernel("read the host's network");
    let home = Netns::own()?;
    let netns = |name: &str| {
        let open = Netns::open(&run_root.join("netns").join(name)).ok();
        // A plain file, as after a reboot, cannot be entered.
        open.filter(|netns| netns.within(&home, || ()).is_ok())
    };
    let mut rt = Rt::open_shared().map_err(read())?;
    let mut state = Disk::at(state_dir).load()?;
    state.sandboxes.retain(|id, _| netns(id).is_some());
    (state.underlay_mtu, state.underlay_link) = underlay(&mut rt, &state)?;

    let table = |family| Nft::open(family).and_then(|mut nft| nft.read());
    let up = rt.links().map_err(read())?.values().any(|link| link.ours);
    let held = table(Family::Inet).map_err(read())?;
    let (host, tunnel) = if up {
        let wanted = firewall::of_host(&state);
        let of_tunnels = |name: &str| TUNNEL.contains(&name);
        let tunnel = if state.identity.is_none() {
            Guard::NotNeeded
        } else {
            compare(&wanted, held.as_ref(), Family::Inet, of_tunnels)
        };
        (compare(&wanted, held.as_ref(), Family::Inet, |name| !of_tunnels(name)), tunnel)
    } else {
        (Guard::NotNeeded, Guard::NotNeeded)
    };
    let local_ports = match state.local_ports().next() {
        None => Guard::NotNeeded,
        Some(_) => {
            let wanted = firewall::of_ports(&state, state.local_ports());
            compare(&wanted, table(Family::Bridge).map_err(read())?.as_ref(), Family::Bridge, |_| true)
        }
    };
    Ok(Guards { host, tunnel, local_ports, overlay_ports: overlay_ports(&state, netns(DATA), &home)? })
}

fn overlay_ports(state: &State, data: Option<Netns>, home: &Netns) -> Result<Guard, Error> {
    if state.overlay_ports().next().is_none() {
        return Ok(Guard::NotNeeded);
    }
    let Some(data) = data else {
        return Ok(Guard::Broken("the namespace of overlay networks is gone".to_owned()));
    };
    let held = data.within(home, || Nft::open(Family::Bridge).and_then(|mut nft| nft.read())).flatten();
    let held = held.map_err(Error::kernel("read the data namespace"))?;
    let wanted = firewall::of_ports(state, state.overlay_ports());
    Ok(compare(&wanted, held.as_ref(), Family::Bridge, |_| true))
}

/// Compares those chains and sets whose names `about` picks. Values of maps are not compared: the order of backends is
/// the daemon's own.
fn compare(wanted: &Ruleset, held: Option<&Ruleset>, family: Family, about: impl Fn(&str) -> bool) -> Guard {
    let Some(held) = held else { return Guard::Broken(format!("there is no table {family} rswarm")) };
    if held.owner == Owner::SomebodyElse {
        return Guard::Broken(format!("table {family} rswarm is somebody else's"));
    }
    let chains = wanted.chains.iter().filter(|(name, _)| about(name));
    for (name, chain) in chains {
        if held.chains.get(name) != Some(chain) {
            let gone = if held.chains.contains_key(name) { "is not as we made it" } else { "is gone" };
            return Guard::Broken(format!("chain {name} of table {family} rswarm {gone}"));
        }
    }
    for (name, set) in wanted.sets.iter().filter(|(name, _)| about(name)) {
        let Some(there) = held.sets.get(name) else {
            return Guard::Broken(format!("set {name} of table {family} rswarm is gone"));
        };
        let lacks = set.elements.keys().filter(|key| !there.elements.contains_key(*key)).count();
        let more = there.elements.keys().filter(|key| !set.elements.contains_key(*key)).count();
        if more > 0 || (lacks > 0 && !MAY_LACK.contains(&name.as_str())) {
            return Guard::Broken(format!(
                "set {name} of table {family} rswarm lacks {lacks} elements and has {more} that no record names"
            ));
        }
    }
    Guard::InForce
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::{Chain, IPV4, Set};

    fn wanted() -> Ruleset {
        let mut ports = Set::new(&[IPV4]);
        ports.insert(vec![10, 0, 0, 1]);
        ports.insert(vec![10, 0, 0, 2]);
        Ruleset {
            sets: [("vteps", &ports), ("pub", &ports)]
                .map(|(name, set)| (name.to_owned(), set.clone()))
                .into(),
            chains: [("tunnel".to_owned(), Chain::plain(vec![crate::nft::Rule::new().drop()]))].into(),
            ..Ruleset::default()
        }
    }

    #[track_caller]
    fn broken(held: &Ruleset, words: &str) {
        match compare(&wanted(), Some(held), Family::Inet, |_| true) {
            Guard::Broken(said) => assert!(said.contains(words), "{said}"),
            other => panic!("{other:?}, and no word of {words}"),
        }
    }

    #[test]
    fn what_a_table_lacks_or_has_too_much_is_named() {
        let compared = |held: &Ruleset| compare(&wanted(), Some(held), Family::Inet, |_| true);
        assert_eq!(compared(&wanted()), Guard::InForce);
        let gone = compare(&wanted(), None, Family::Bridge, |_| true);
        assert_eq!(gone, Guard::Broken("there is no table bridge rswarm".to_owned()));
        broken(&Ruleset { owner: Owner::SomebodyElse, ..wanted() }, "somebody else's");
        broken(&Ruleset { chains: [].into(), ..wanted() }, "chain tunnel of table inet rswarm is gone");
        let open = [("tunnel".to_owned(), Chain::plain(vec![]))].into();
        broken(
            &Ruleset { chains: open, ..wanted() },
            "chain tunnel of table inet rswarm is not as we made it",
        );
        broken(&Ruleset { sets: [].into(), ..wanted() }, "set pub of table inet rswarm is gone");
        let changed = |name: &str, change: fn(&mut Set)| {
            let mut held = wanted();
            change(held.sets.get_mut(name).unwrap());
            held
        };
        broken(&changed("vteps", |set| set.insert(vec![6, 6, 6, 6])), "has 1 that no record names");
        broken(&changed("vteps", |set| set.elements.clear()), "lacks 2 elements");
        broken(&changed("pub", |set| set.insert(vec![6, 6, 6, 6])), "has 1 that no record names");
        // A port that a program of this host has.
        assert_eq!(compared(&changed("pub", |set| set.elements.clear())), Guard::InForce);
    }

    #[test]
    fn a_part_of_a_table_is_judged_alone() {
        let held = Ruleset { chains: [].into(), ..wanted() };
        assert_eq!(compare(&wanted(), Some(&held), Family::Inet, |name| name != "tunnel"), Guard::InForce);
    }
}
