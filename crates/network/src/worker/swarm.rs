//! The swarm's side: identity, tables of overlay networks, the mesh, and flows that must end.

use super::{Condemned, DATA, Worker};
use crate::{
    address,
    conntrack::{self, Flow},
    netns,
    spec::{Error, NodeIdentity},
    state::Sandbox,
};
use model::{IngressTable, NetworkId, NetworkTable, TaskId};
use std::{collections::BTreeSet, net::IpAddr};
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
        let backends = |table: &IngressTable| -> BTreeSet<IpAddr> {
            let all = table.ports.values().flatten();
            all.map(|b| b.address).collect()
        };
        let stopping = backends(&before.0).difference(&backends(&table)).copied().collect();
        self.condemn(&BTreeSet::from([String::new()]), &Condemned { stopping, gone: BTreeSet::new() });
        self.disk.put_ingress(&table)
    }

    pub(crate) fn tables(&mut self) -> Vec<(NetworkId, u64)> {
        self.state.tables.iter().map(|(id, overlay)| (*id, overlay.table.version)).collect()
    }

    pub(super) fn condemn(&mut self, sandboxes: &BTreeSet<String>, more: &Condemned) {
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
    pub(super) fn forget_some_flows(&mut self) {
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
            if let Some(address) = endpoint.map(|e| e.address) {
                let condemned = Condemned { stopping: [address].into(), gone: BTreeSet::new() };
                let touched = self.on_overlay(*network);
                self.condemn(&touched, &condemned);
            }
        }
        let backends = self.state.ingress.ports.values().flatten().filter(|b| b.task == task);
        let stopping = backends.map(|b| b.address).collect();
        let host = BTreeSet::from([String::new()]);
        self.condemn(&host, &Condemned { stopping, gone: BTreeSet::new() });
        while !self.condemned.is_empty() {
            self.forget_some_flows();
        }
        Ok(())
    }
}

/// Whose flows end between two tables of a network.
fn condemned(before: &NetworkTable, after: &NetworkTable) -> Condemned {
    let addresses = |table: &NetworkTable, ready: bool| -> BTreeSet<IpAddr> {
        let some = table.endpoints.values().filter(|e| e.ready || !ready);
        some.map(|e| e.address).collect()
    };
    let leaving = |ready| addresses(before, ready).difference(&addresses(after, ready)).copied().collect();
    Condemned { stopping: leaving(true), gone: leaving(false) }
}
