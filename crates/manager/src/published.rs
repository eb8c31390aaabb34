//! What sessions hand out of a view.

use crate::tables;
use model::{IngressTable, NetworkId, NetworkTable, Role, Tables};
use proto::{
    WireId as _,
    dispatcher::{KnownManager, ManagerList},
};
use std::{collections::BTreeMap, sync::Arc};

/// A view and the tables that follow from it. A table whose content is as before keeps its version.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) view: Arc<Tables>,
    pub(crate) networks: BTreeMap<NetworkId, Arc<NetworkTable>>,
    pub(crate) ingress: Arc<IngressTable>,
    /// Who the managers are, and who is no node any more.
    pub(crate) managers: Arc<ManagerList>,
}

impl Published {
    pub(crate) fn of(view: Arc<Tables>, before: Option<&Self>) -> Self {
        let keep_network = |mut new: NetworkTable| {
            let old = before.and_then(|b| b.networks.get(&new.network));
            let version = new.version;
            match old {
                Some(old) => {
                    new.version = old.version;
                    if **old == new {
                        return old.clone();
                    }
                    new.version = version;
                    Arc::new(new)
                }
                None => Arc::new(new),
            }
        };
        let networks =
            tables::networks(&view).into_iter().map(|(id, table)| (id, keep_network(table))).collect();
        let ingress = tables::ingress(&view);
        let ingress = match before.map(|b| &b.ingress) {
            Some(old) if **old == (IngressTable { version: old.version, ..ingress.clone() }) => old.clone(),
            Some(_) | None => Arc::new(ingress),
        };
        let managers = manager_list(&view);
        let managers = match before.map(|b| &b.managers) {
            Some(old) if **old == managers => old.clone(),
            Some(_) | None => Arc::new(managers),
        };
        Self { view, networks, ingress, managers }
    }
}

fn manager_list(view: &Tables) -> ManagerList {
    let nodes = view.nodes.values().filter(|n| n.spec.role == Role::Manager);
    let managers =
        nodes.filter_map(|n| Some(KnownManager { node: n.id.to_wire(), addr: n.manager?.addr.to_string() }));
    let managers: Vec<KnownManager> = managers.collect();
    ManagerList {
        addrs: managers.iter().map(|m| m.addr.clone()).collect(),
        managers,
        removed: view.cluster.iter().flat_map(|c| &c.removed).map(|r| r.node.to_wire()).collect(),
    }
}
