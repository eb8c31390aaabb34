//! What the kernel of one node holds of the tables it was sent. Pure.
//!
//! ```text
//!  hello: networks it may hold --> [held] <-- sent, sent up to an index, told to drop
//!                                    |  <---- acknowledged: a version, or that it is gone
//!                                    '--> per table: the index up to which the node agrees with the state
//! ```
//! What was given up (an address, an identifier) is free when every node agrees with the state up to the index at
//! which it was given up. So the index must never be too high: an acknowledgement says something of what was *sent*
//! before it, not of what is the newest by then, and a table that a node was told to drop counts until it says that it
//! did.

use crate::presence::Subject;
use model::NetworkId;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug)]
pub(super) struct Held {
    /// Of the view at this index, everything that the node needs was sent.
    sent_up_to: u64,
    tables: BTreeMap<Subject, Table>,
    /// The node says when it has dropped a network; others are taken to have done so at once.
    tells_gone: bool,
}

#[derive(Debug, Default)]
struct Table {
    /// The newest version that was sent in this session.
    sent: Option<u64>,
    acked: u64,
    /// The node was told to drop it, because it is not needed in the state at this index.
    leaving: Option<u64>,
}

impl Held {
    /// A session begins. `networks`: those whose tables the node says it may hold, of any version.
    pub(super) fn new(networks: impl IntoIterator<Item = NetworkId>, tells_gone: bool) -> Self {
        let tables = networks.into_iter().map(|network| (Some(network), Table::default()));
        Self { sent_up_to: 0, tables: tables.collect(), tells_gone }
    }

    /// Returns true if the node must be sent this version of a table.
    pub(super) fn lacks(&self, subject: Subject, version: u64) -> bool {
        self.tables.get(&subject).is_none_or(|table| table.leaving.is_some() || table.sent != Some(version))
    }

    pub(super) fn sent(&mut self, subject: Subject, version: u64) {
        let table = self.tables.entry(subject).or_default();
        (table.sent, table.leaving) = (Some(version), None);
    }

    /// Every table of the view at `index` was sent, or had been.
    pub(super) fn sent_up_to(&mut self, index: u64) {
        self.sent_up_to = index;
    }

    /// Returns the networks that the node needs no more and has not been told to drop.
    pub(super) fn unneeded(&self, needed: &BTreeSet<Subject>) -> Vec<NetworkId> {
        let left = self
            .tables
            .iter()
            .filter(|(subject, table)| table.leaving.is_none() && !needed.contains(*subject));
        left.filter_map(|(subject, _)| *subject).collect()
    }

    /// The node was told to drop a network that is not needed in the state at `index`.
    pub(super) fn told_to_drop(&mut self, network: NetworkId, index: u64) {
        if self.tells_gone {
            self.tables.entry(Some(network)).or_default().leaving = Some(index);
        } else {
            self.tables.remove(&Some(network));
        }
    }

    /// The node's kernel holds this version of a table.
    pub(super) fn acked(&mut self, subject: Subject, version: u64) {
        if let Some(table) = self.tables.get_mut(&subject) {
            table.acked = version;
        }
    }

    /// The node's kernel has dropped a network, as it was told to at `index`.
    pub(super) fn dropped(&mut self, network: NetworkId, index: u64) {
        // It may have been sent another table since, and been told again to drop that.
        let is_last = |table: &Table| table.leaving.is_some_and(|told| index >= told);
        if self.tables.get(&Some(network)).is_some_and(is_last) {
            self.tables.remove(&Some(network));
        }
    }

    /// Returns up to which index the node agrees with the state, by table.
    pub(super) fn acks(&self) -> BTreeMap<Subject, u64> {
        let held = self.tables.iter().map(|(subject, table)| {
            let is_current = table.leaving.is_none() && table.sent.is_some_and(|sent| table.acked >= sent);
            (*subject, if is_current { self.sent_up_to } else { table.acked })
        });
        held.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::VecDeque;

    const NET: NetworkId = NetworkId(1);
    const TABLE: Subject = Some(NET);

    fn index(held: &Held) -> Option<u64> {
        held.acks().get(&TABLE).copied()
    }

    #[test]
    fn an_acknowledgement_counts_for_what_was_sent() {
        let mut held = Held::new([], true);
        held.sent(TABLE, 5);
        held.sent_up_to(9);
        assert_eq!(index(&held), Some(0), "not yet");
        held.acked(TABLE, 5);
        assert_eq!(index(&held), Some(9), "whatever the state is at by now");
        held.sent(TABLE, 12);
        held.sent_up_to(14);
        assert_eq!(index(&held), Some(5));
        held.acked(TABLE, 12);
        assert_eq!(index(&held), Some(14));
    }

    #[test]
    fn what_a_node_was_told_to_drop_counts_until_it_has() {
        let mut held = Held::new([NET], true);
        held.sent_up_to(20);
        assert_eq!(index(&held), Some(0), "it has it from an earlier session");
        assert_eq!(held.unneeded(&BTreeSet::from([None])), [NET]);
        held.told_to_drop(NET, 20);
        assert_eq!((held.unneeded(&BTreeSet::new()), index(&held)), (vec![], Some(0)));
        held.sent(TABLE, 15); // needed again, and the same as ever
        held.dropped(NET, 20); // said before it got that
        held.told_to_drop(NET, 22);
        held.dropped(NET, 20);
        assert_eq!(index(&held), Some(0), "it has dropped another one");
        held.dropped(NET, 22);
        assert_eq!(index(&held), None);
        let mut old = Held::new([], false);
        old.sent(TABLE, 5);
        old.told_to_drop(NET, 6);
        assert_eq!(index(&old), None, "it would never say so");
    }

    /// A node as it is: messages take their time, of queued tables the newest of each network wins.
    #[derive(Default)]
    struct Node {
        wire: VecDeque<(NetworkId, Told)>,
        queue: BTreeMap<NetworkId, Told>,
        kernel: BTreeMap<NetworkId, u64>,
        said: VecDeque<(NetworkId, Told)>,
    }

    #[derive(Clone, Copy)]
    enum Told {
        Hold(u64),
        Drop(u64),
    }

    #[test]
    fn a_node_is_never_believed_to_be_further_than_its_kernel() {
        let mut random = 0x2545_F491_4F6C_DD1D_u64;
        let mut draw = |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            usize::try_from(random % below as u64).unwrap()
        };
        let networks = [NetworkId(1), NetworkId(2), NetworkId(3)];
        for _ in 0..300 {
            let (mut node, mut index) = (Node::default(), 10);
            // Versions of each network's table, by the index at which they became current.
            let mut versions: BTreeMap<NetworkId, Vec<u64>> = networks.map(|n| (n, vec![1])).into();
            let mut needed: BTreeSet<Subject> = networks.map(Some).into();
            node.kernel = networks.iter().filter(|_| draw(2) == 0).map(|n| (*n, 1)).collect();
            let mut held = Held::new(node.kernel.keys().copied(), true);
            for step in 0..400 {
                let network = networks[draw(3)];
                match if step < 300 { draw(6) } else { 2 + step % 4 } {
                    0 => {
                        index += 1;
                        versions.get_mut(&network).unwrap().push(index);
                    }
                    1 => {
                        index += 1;
                        if !needed.remove(&Some(network)) {
                            needed.insert(Some(network));
                        }
                    }
                    2 => {
                        for subject in needed.iter().flatten() {
                            let version = *versions[subject].last().unwrap();
                            if held.lacks(Some(*subject), version) {
                                held.sent(Some(*subject), version);
                                node.wire.push_back((*subject, Told::Hold(version)));
                            }
                        }
                        for network in held.unneeded(&needed) {
                            held.told_to_drop(network, index);
                            node.wire.push_back((network, Told::Drop(index)));
                        }
                        held.sent_up_to(index);
                    }
                    3 => {
                        if let Some((network, told)) = node.wire.pop_front() {
                            node.queue.insert(network, told);
                        }
                    }
                    4 => {
                        // Of which the network is drawn, so that some wait long.
                        let network =
                            if step < 300 { Some(network) } else { node.queue.keys().next().copied() };
                        let Some((network, told)) = network.and_then(|n| node.queue.remove_entry(&n)) else {
                            continue;
                        };
                        match told {
                            Told::Hold(version) => node.kernel.insert(network, version),
                            Told::Drop(_) => node.kernel.remove(&network),
                        };
                        node.said.push_back((network, told));
                    }
                    _ => match node.said.pop_front() {
                        Some((network, Told::Drop(index))) => held.dropped(network, index),
                        Some((network, Told::Hold(version))) => held.acked(Some(network), version),
                        None => {}
                    },
                }
                let acks = held.acks();
                for (network, version) in &node.kernel {
                    let agrees = acks.get(&Some(*network)).expect("what a kernel holds counts");
                    let next = versions[network].iter().find(|v| *v > version);
                    assert!(
                        next.is_none_or(|next| next > agrees),
                        "{network}: {version}, not {agrees}: {held:?}"
                    );
                }
            }
            let agreed: BTreeMap<Subject, u64> = needed.iter().map(|subject| (*subject, index)).collect();
            assert_eq!(held.acks(), agreed, "everything arrived: {held:?}");
        }
    }
}
