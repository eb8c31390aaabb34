//! Bringing a namespace from what it holds to what it must hold.
//!
//! [`change`] carries out the difference of two [`Desired`] values. `from` is what was applied last, or,
//! for an audit, what [`held`] makes of a dump: the same code mends and changes.

use crate::{
    desired::Desired,
    rt::{Dump, Kind, LOOPBACK, Link, Object, Rt},
    spec::Error,
};
use nix::libc;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::BorrowedFd,
};

/// How links come into being in a namespace.
pub(crate) trait LinkMaker {
    fn make(&mut self, rt: &mut Rt, link: &Link) -> Result<(), Error>;
}

/// What a change did, one line per object, and what it could not do.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) done: Vec<String>,
    pub(crate) errors: Vec<Error>,
    /// Sandboxes whose interfaces are new.
    pub(crate) reborn: BTreeSet<String>,
    /// Links wait to be deleted in this namespace.
    pub(crate) buried: bool,
    /// Links that could not be made or changed; a name of theirs may be somebody else's.
    pub(crate) unmade: BTreeSet<String>,
}

impl Outcome {
    fn note(&mut self, what: String, result: io::Result<()>, harmless: &[i32]) -> bool {
        match result {
            Err(e) if !e.raw_os_error().is_some_and(|e| harmless.contains(&e)) => {
                self.errors.push(Error::kernel(what)(e));
                false
            }
            _ => {
                self.done.push(what);
                true
            }
        }
    }
}

/// Gone already, in the words of each family.
const GONE: [i32; 6] =
    [libc::ENOENT, libc::ESRCH, libc::ENODEV, libc::ENXIO, libc::EADDRNOTAVAIL, libc::EINVAL];
const THERE: [i32; 1] = [libc::EEXIST];

/// Carries out what differs, goes on after errors.
pub(crate) fn change(rt: &mut Rt, maker: &mut impl LinkMaker, from: &Desired, to: &Desired) -> Outcome {
    let mut outcome = Outcome::default();
    let fits = |link: &Link| from.links.get(&link.name).is_some_and(|before| before.kind == link.kind);
    let mut fresh: BTreeSet<&str> = to.links.values().filter(|l| !fits(l)).map(|l| l.name.as_str()).collect();
    let leaving: BTreeSet<&str> = from
        .links
        .values()
        .filter(|l| to.links.get(&l.name).is_none_or(|after| after.kind != l.kind))
        .map(|l| l.name.as_str())
        .collect();
    for object in from.objects.difference(&to.objects).collect::<Vec<_>>().into_iter().rev() {
        let dies_with_link = object.link().is_some_and(|link| leaving.contains(link));
        // Setting a port anew changes it in place.
        let replaced = to.objects.iter().any(|after| replaces(after, object));
        if !dies_with_link && !replaced {
            let result = rt.delete(object);
            outcome.note(format!("remove {object}"), result, &GONE);
        }
    }
    for name in &leaving {
        let veth = matches!(&from.links[*name].kind, Kind::Veth { sandbox, .. } if !sandbox.is_empty());
        if veth && rt.bury_link(name).is_ok() {
            outcome.buried = true;
            outcome.done.push(format!("remove link {name}"));
            continue;
        }
        let result = rt.delete_link(name);
        outcome.note(format!("remove link {name}"), result, &GONE);
    }
    for link in to.links.values() {
        if fresh.contains(link.name.as_str()) {
            match maker.make(rt, link) {
                Ok(()) => outcome.done.push(format!("make link {}", link.name)),
                Err(e) => {
                    outcome.errors.push(e);
                    outcome.unmade.insert(link.name.clone());
                }
            }
            if let Kind::Veth { sandbox, .. } = &link.kind {
                outcome.reborn.insert(sandbox.clone());
            }
        } else if from.links.get(&link.name) != Some(link) {
            let result = rt.set_link(link);
            if !outcome.note(format!("set link {}", link.name), result, &[]) {
                outcome.unmade.insert(link.name.clone());
            }
        }
    }
    // A new bridge has lost its ports, and with them what hangs on them.
    for object in &to.objects {
        if let Object::Port { link, bridge, .. } = object
            && fresh.contains(bridge.as_str())
        {
            fresh.insert(link);
        }
    }
    for object in &to.objects {
        if object.link().is_some_and(|link| outcome.unmade.contains(link)) {
            continue;
        }
        let anew = object.link().is_some_and(|link| fresh.contains(link));
        if anew || !from.objects.contains(object) {
            let result = rt.add(object);
            outcome.note(format!("add {object}"), result, &THERE);
        }
    }
    outcome
}

/// True when adding `after` overwrites `before`, so that removing it first would only tear a hole.
fn replaces(after: &Object, before: &Object) -> bool {
    match (after, before) {
        (Object::Port { link: a, .. }, Object::Port { link: b, .. }) => a == b,
        (Object::Neighbour { link: a, address: x, .. }, Object::Neighbour { link: b, address: y, .. }) => {
            a == b && x == y
        }
        (Object::Route(a), Object::Route(b)) => a.table == b.table && a.to == b.to && a.metric == b.metric,
        _ => false,
    }
}

/// Who else is in a namespace.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Scope {
    /// The host's: ours is what is marked.
    Shared,
    /// The data namespace: everything.
    Own,
}

/// Reads a dump as if it had been applied by us: our objects, and links as far as they are as they should be.
pub(crate) fn held(dump: Dump, to: &Desired, scope: Scope) -> Desired {
    let mut from = Desired::default();
    let own = matches!(scope, Scope::Own);
    for (name, row) in &dump.links {
        match to.links.get(name) {
            // Has a name that we want, and is somebody else's all the same.
            _ if !row.ours && !own => {}
            Some(link) if row.is(link) && row.set_as(link) => {
                drop(from.links.insert(name.clone(), link.clone()))
            }
            // Only settings differ.
            Some(link) if row.is(link) => {
                drop(from.links.insert(name.clone(), Link { mtu: 0, ..link.clone() }));
            }
            Some(_) => drop(from.links.insert(name.clone(), wrong(name))),
            None if name != LOOPBACK => drop(from.links.insert(name.clone(), wrong(name))),
            None => {}
        }
    }
    let ours = |link: &str| from.links.contains_key(link);
    let on_lo = |object: &Object| match object {
        // Those that an earlier release put there have no mark.
        Object::Address { link, address, .. } if link == LOOPBACK => {
            dump.own_addresses.contains(address) || to.objects.contains(object)
        }
        _ => false,
    };
    from.objects = dump
        .objects
        .into_iter()
        .filter(|object| match object {
            // Marked as ours one by one.
            Object::Route(_) | Object::Rule { .. } => true,
            object => object.link().is_some_and(ours) || on_lo(object),
        })
        .collect();
    from
}

/// Stands for a link that must go: of no kind we make.
fn wrong(name: &str) -> Link {
    let kind =
        Kind::Veth { sandbox: String::new(), peer: String::new(), peer_mac: crate::address::Mac([0; 6]) };
    Link { name: name.to_owned(), kind, mtu: 0, mac: None }
}

/// Adds what a sandbox lacks and never removes: a container may have routes of its own.
pub(crate) fn add_missing(rt: &mut Rt, wanted: &BTreeSet<Object>, known: &BTreeSet<Object>) -> Outcome {
    let mut outcome = Outcome::default();
    for object in wanted.difference(known) {
        let result = rt.add(object);
        outcome.note(format!("add {object}"), result, &THERE);
    }
    outcome
}

/// Makes links of one namespace whose veths lead into sandboxes.
pub(crate) struct Maker<'a> {
    /// Makes VXLANs in the host's namespace, where their sockets stay, and has them born elsewhere.
    pub(crate) vxlan_from: Option<(&'a mut Rt, BorrowedFd<'a>)>,
    pub(crate) sandboxes: BTreeMap<&'a str, BorrowedFd<'a>>,
}

impl LinkMaker for Maker<'_> {
    fn make(&mut self, rt: &mut Rt, link: &Link) -> Result<(), Error> {
        let made = match (&link.kind, &mut self.vxlan_from) {
            (Kind::Vxlan { .. }, Some((host, data))) => host.add_link(link, Some(*data), None),
            (Kind::Veth { sandbox, .. }, _) => match self.sandboxes.get(sandbox.as_str()) {
                Some(netns) => rt.add_link(link, None, Some(*netns)),
                None => Err(io::Error::from_raw_os_error(libc::ENOENT)),
            },
            _ => rt.add_link(link, None, None),
        };
        let taken = |rt: &mut Rt| rt.link(&link.name).is_ok_and(|row| !row.ours);
        made.map_err(|e| match e.raw_os_error() {
            Some(libc::EEXIST) if taken(rt) => Error::ForeignLink(link.name.clone()),
            _ => Error::kernel(format!("make link {}", link.name))(e),
        })
    }
}
