//! The swarm's side: identity, tables of overlay networks, the mesh, and flows that must end.

use super::{Condemned, DATA, HOST, Worker};
use crate::{
    address,
    conntrack::{self, Flow},
    desired::vips,
    flows::Ways,
    netns, sever,
    spec::{Error, NodeIdentity},
    state::{Overlay, Sandbox, Slots},
};
use model::{IngressTable, NetworkId, NetworkTable, TaskId};
use std::{collections::BTreeSet, io, net::IpAddr};
use tracing::{debug, warn};

impl Worker {
    pub(super) fn on_overlay(&self, network: NetworkId) -> BTreeSet<String> {
        let on = |s: &&Sandbox| s.legs.iter().any(|l| l.overlay() == Some(network));
        self.state.sandboxes.values().filter(on).map(|s| s.spec.id.clone()).collect()
    }

    pub(crate) fn join_swarm(&mut self, identity: NodeIdentity) -> Result<(), Error> {
        address::check(&identity)?;
        if !identity.data_addr.is_ipv4() {
            return Err(Error::Ipv6("the data address"));
        }
        let before = self.state.identity.replace(identity.clone());
        (self.state.underlay_mtu, self.state.underlay_link) = super::underlay(&mut self.rt, &self.state)?;
        if let Err(e) = self.apply(&BTreeSet::new()) {
            self.state.identity = before;
            return Err(self.undo(e));
        }
        self.condemn_on_host();
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
        self.rt.empty_graves().map_err(Error::kernel("delete links that are out of use"))?;
        self.data = None;
        netns::remove(&self.netns_path(DATA))?;
        self.disk.remove_swarm(&networks)?;
        self.condemn(&touched, &Condemned::outdated());
        self.condemn_on_host();
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
        self.refresh_zones_of(&BTreeSet::from([network.to_string()]), &touched);
        if let Err(e) = self.apply(&touched) {
            match before {
                Some(before) => drop(self.state.tables.insert(network, before)),
                None => drop(self.state.tables.remove(&network)),
            }
            return Err(self.undo(e));
        }
        let before = before.as_ref();
        let gone = before.map(|before| gone(&before.table, &table)).unwrap_or_default();
        let leads_elsewhere = self.state.tables.get(&network).is_some_and(|after| {
            vips(after).any(|(vip, members)| {
                let mut known = before.into_iter().flat_map(vips);
                known.find(|(other, _)| *other == vip).is_none_or(|(_, old)| moved(old, members))
            })
        });
        let others = before.is_some_and(|before| {
            before.table.services != table.services || lost(&before.table) != lost(&table)
        });
        let outdated = leads_elsewhere || others;
        self.condemn(&touched, &Condemned { gone, outdated, ..Condemned::default() });
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
        self.condemn(&touched, &Condemned::outdated());
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
        let empty = Slots::default();
        let ports: BTreeSet<_> = before.1.keys().chain(self.state.published.keys()).collect();
        let there = |table: &IngressTable| (table.nodes.clone(), table.lost.clone());
        let nodes = there(&before.0) != there(&self.state.ingress);
        let outdated = nodes
            || ports.into_iter().any(|port| {
                let [old, new] =
                    [&before.1, &self.state.published].map(|all| all.get(port).unwrap_or(&empty));
                moved(old.members(), new.members())
            });
        if outdated {
            self.condemn_on_host();
        }
        self.disk.put_ingress(&table)
    }

    pub(crate) fn tables(&mut self) -> Vec<(NetworkId, u64)> {
        self.state.tables.iter().map(|(id, overlay)| (*id, overlay.table.version)).collect()
    }

    pub(super) fn condemn(&mut self, sandboxes: &BTreeSet<String>, more: &Condemned) {
        if more.stopping.is_empty() && more.gone.is_empty() && !more.outdated {
            return;
        }
        for id in sandboxes {
            self.condemned.entry(id.clone()).or_default().add(more);
        }
    }

    /// Has the host's own namespace forget what leads elsewhere than new flows would.
    pub(super) fn condemn_on_host(&mut self) {
        self.condemn(&BTreeSet::from([HOST.to_owned()]), &Condemned::outdated());
    }

    /// Forgets the flows of one namespace; called while no job waits.
    pub(super) fn forget_some_flows(&mut self) {
        let Some((id, condemned)) = self.condemned.pop_first() else { return };
        let end = |doomed: &dyn Fn(&Flow) -> bool, ways: Option<&Ways>| {
            let forgotten = conntrack::forget(doomed)?;
            let severed = forgotten.iter().filter(|flow| ways.is_some_and(|ways| ways.severed(flow)));
            sever::tcp(severed.flat_map(Flow::ends))?;
            Ok(forgotten.len())
        };
        let forgotten = self.ways(&id, condemned.outdated).and_then(|ways| {
            let doomed = |flow: &Flow| {
                let anew = flow.is_udp() || !flow.answered;
                let stopping = condemned.stopping.contains(&flow.answers) && anew && flow.translated();
                let gone = [flow.source, flow.destination, flow.answers]
                    .iter()
                    .any(|address| condemned.gone.contains(address));
                stopping || gone || ways.as_ref().is_some_and(|ways| ways.outdated(flow))
            };
            match self.live.get(&id) {
                Some(live) => live.netns.within(&self.home, || end(&doomed, ways.as_ref())).flatten(),
                None if id == HOST => end(&doomed, ways.as_ref()),
                None => Ok(0),
            }
        });
        match forgotten {
            Ok(0) => {}
            Ok(count) => debug!(container.id = %id, count, "flows forgotten"),
            Err(error) => {
                warn!(container.id = %id, %error, "flows of tasks that left are forgotten with the next audit");
                self.postponed.entry(id).or_default().add(&condemned);
            }
        }
    }

    /// Where a namespace leads new flows, when that is asked for.
    fn ways(&mut self, id: &str, wanted: bool) -> io::Result<Option<Ways>> {
        if !wanted {
            return Ok(None);
        }
        if id == HOST {
            return Ok(Some(Ways::of_host(&self.state, self.rt.own_addresses()?)));
        }
        Ok(self.state.sandboxes.get(id).map(|sandbox| Ways::of_sandbox(&self.state, sandbox)))
    }

    pub(crate) fn drain(&mut self, task: TaskId) -> Result<(), Error> {
        let of = |stopping: BTreeSet<IpAddr>| Condemned { stopping, ..Condemned::default() };
        let address_on = |(network, overlay): (&NetworkId, &Overlay)| {
            Some((*network, overlay.table.endpoints.get(&task)?.address))
        };
        let left: Vec<(NetworkId, IpAddr)> = self.state.tables.iter().filter_map(address_on).collect();
        for (network, address) in left {
            let touched = self.on_overlay(network);
            self.condemn(&touched, &of([address].into()));
        }
        let backends = self.state.ingress.ports.values().flatten().filter(|b| b.task == task);
        let stopping = backends.map(|b| b.address).collect();
        self.condemn(&BTreeSet::from([HOST.to_owned()]), &of(stopping));
        while !self.condemned.is_empty() {
            self.forget_some_flows();
        }
        Ok(())
    }
}

/// The addresses that nobody has any more after a change of a network's table.
fn gone(before: &NetworkTable, after: &NetworkTable) -> BTreeSet<IpAddr> {
    let addresses =
        |table: &NetworkTable| -> BTreeSet<IpAddr> { table.endpoints.values().map(|e| e.address).collect() };
    addresses(before).difference(&addresses(after)).copied().collect()
}

/// Who is on a node that was given up.
fn lost(table: &NetworkTable) -> BTreeSet<IpAddr> {
    table.endpoints.values().filter(|e| e.lost).map(|e| e.address).collect()
}

/// Whether flows can have come to lead elsewhere than new ones: a backend left, or the first one came.
fn moved<T: Ord>(before: &[T], after: &[T]) -> bool {
    let now: BTreeSet<&T> = after.iter().collect();
    before.is_empty() != after.is_empty() || before.iter().any(|backend| !now.contains(backend))
}
