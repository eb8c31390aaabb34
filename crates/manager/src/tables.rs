//! What nodes must know of networks, computed from the state and nothing else.

use model::{
    EndpointMode, IngressBackend, IngressTable, MTU_OPTION, MeshNode, NetworkAttachmentSpec, NetworkEndpoint,
    NetworkId, NetworkService, NetworkTable, Node, NodeId, NodeState, PublishMode, Service, ServiceId,
    Tables, Task, TaskState,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// *Unit:* bytes. 1500 less VXLAN's 50.
const MTU_BYTES: u32 = 1450;

/// Returns the table of every allocated network, stamped with the index of the state.
pub fn networks(tables: &Tables) -> BTreeMap<NetworkId, NetworkTable> {
    let mut all: BTreeMap<NetworkId, NetworkTable> = tables
        .networks
        .values()
        .filter_map(|network| {
            let table = NetworkTable {
                network: network.id,
                name: network.spec.name.clone(),
                version: tables.index,
                allocation: network.allocation?,
                internal: network.spec.internal,
                mtu_bytes: network
                    .spec
                    .options
                    .get(MTU_OPTION)
                    .and_then(|text| model::mtu_bytes(text))
                    .unwrap_or(MTU_BYTES),
                endpoints: BTreeMap::new(),
                services: BTreeMap::new(),
            };
            Some((network.id, table))
        })
        .collect();
    let mut aliases = Aliases::new();
    for task in tables.tasks.values() {
        add_endpoints(&mut all, &mut aliases, tables, task);
    }
    // One that is being removed is not asked for by its name any more, which another may have taken.
    for service in tables.services.values().filter(|s| !s.pending_delete) {
        add_service(&mut all, &mut aliases, service);
    }
    for ((network, service), names) in aliases {
        if let Some(entry) = all.get_mut(&network).and_then(|table| table.services.get_mut(&service)) {
            entry.aliases = names.into_iter().cloned().collect();
        }
    }
    all
}

/// Other names of services, by network: those of its tasks as they were made, and its own.
type Aliases<'a> = BTreeMap<(NetworkId, ServiceId), BTreeSet<&'a String>>;

/// Adds a task to the networks it is on. It leaves them when it has ended or released its addresses; a task that
/// is being stopped stays reachable but is not `ready`.
fn add_endpoints<'a>(
    all: &mut BTreeMap<NetworkId, NetworkTable>,
    aliases: &mut Aliases<'a>,
    tables: &Tables,
    task: &'a Task,
) {
    if task.attachments.is_empty() || !task.may_hold_resources() {
        return;
    }
    let Some((node, vtep)) = home(tables, task) else { return };
    for attachment in &task.attachments {
        let Some(table) = all.get_mut(&attachment.network) else { continue };
        let endpoint = NetworkEndpoint {
            address: attachment.address.addr(),
            node: node.id,
            vtep,
            service: task.service,
            names: match task.attaches {
                Some(_) => vec![task.name()],
                None => vec![task.container_name(), task.name()],
            },
            ready: is_ready(node, task),
            lost: !answers(node),
        };
        table.endpoints.insert(task.id, endpoint);
        // Named even after its service is gone from the state.
        table.services.entry(task.service).or_insert_with(|| NetworkService {
            name: task.service_name.clone(),
            vip: None,
            aliases: Vec::new(),
        });
        aliases.entry((attachment.network, task.service)).or_default().extend(&attachment.aliases);
    }
}

fn add_service<'a>(
    all: &mut BTreeMap<NetworkId, NetworkTable>,
    aliases: &mut Aliases<'a>,
    service: &'a Service,
) {
    let vips: BTreeMap<NetworkId, IpAddr> =
        service.endpoint.vips.iter().rev().map(|vip| (vip.network, vip.address)).collect();
    // A virtual address on another network is still its own, but nobody is to send to it any more.
    for NetworkAttachmentSpec { network, aliases: own, driver_opts: _ } in &service.spec.task.networks {
        let Some(table) = all.get_mut(network) else { continue };
        let entry = table.services.entry(service.id).or_insert_with(|| NetworkService {
            name: String::new(),
            vip: None,
            aliases: Vec::new(),
        });
        entry.name.clone_from(&service.spec.name);
        entry.vip = match service.spec.endpoint.mode {
            EndpointMode::Vip => vips.get(network).copied(),
            EndpointMode::DnsRr => None,
        };
        aliases.entry((*network, service.id)).or_default().extend(own);
    }
}

/// Returns the routing mesh: every node that can be reached, and the ready tasks behind each published port.
pub fn ingress(tables: &Tables) -> IngressTable {
    let mut mesh = IngressTable { version: tables.index, ..IngressTable::default() };
    for node in tables.nodes.values() {
        if let Some(vtep) = vtep(node) {
            mesh.nodes.insert(node.id, MeshNode { index: node.index, vtep });
            if !answers(node) {
                mesh.lost.insert(node.id);
            }
        }
    }
    for service in tables.services.values() {
        let ports: Vec<_> = service
            .endpoint
            .ports
            .iter()
            .filter(|p| p.mode == PublishMode::Ingress && p.published != 0)
            .collect();
        if ports.is_empty() {
            continue;
        }
        let ready: Vec<(&Task, NodeId, IpAddr)> = tables
            .tasks_of_service(service.id)
            .filter_map(|task| {
                let (node, _) = home(tables, task)?;
                is_ready(node, task).then_some((&**task, node.id, task.gateway_address?))
            })
            .collect();
        for port in ports {
            let backends = mesh.ports.entry((port.protocol, port.published)).or_default();
            backends.extend(ready.iter().map(|(task, node, address)| IngressBackend {
                task: task.id,
                node: *node,
                address: *address,
                port: port.target,
            }));
        }
    }
    mesh
}

/// Returns the node of a task and its tunnel end point, once both are known.
fn home<'a>(tables: &'a Tables, task: &Task) -> Option<(&'a Node, IpAddr)> {
    let node = tables.nodes.get(&task.node()?)?;
    Some((node, vtep(node)?))
}

fn vtep(node: &Node) -> Option<IpAddr> {
    node.description.as_ref().map(|d| d.data_addr)
}

/// Returns true if new connections of its service may go to the task.
pub fn is_ready(node: &Node, task: &Task) -> bool {
    answers(node) && task.status.state == Some(TaskState::Running) && task.desired < model::Desired::Shutdown
}

/// Whether a node's containers are still to be reached, as far as the managers know.
fn answers(node: &Node) -> bool {
    match node.status.state {
        NodeState::Ready | NodeState::Unknown | NodeState::Away => true,
        NodeState::Down | NodeState::Disconnected => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::state::{State, state};
    use model::{Desired, Protocol, TaskId};

    const RUNNING: Option<TaskState> = Some(TaskState::Running);

    fn two_tasks() -> State {
        state()
            .node(1)
            .node(2)
            .network(1)
            .service(1, &[1], &[(80, 8080)])
            .task(1, 1, 1, RUNNING)
            .task(2, 1, 2, RUNNING)
    }

    fn ready(tables: &Tables) -> Vec<(u128, bool)> {
        networks(tables)[&NetworkId(1)].endpoints.iter().map(|(id, e)| (id.0, e.ready)).collect()
    }

    fn backends(tables: &Tables) -> Vec<u128> {
        ingress(tables).ports[&(Protocol::Tcp, 80)].iter().map(|b| b.task.0).collect()
    }

    #[test]
    fn running_tasks_are_ready_on_the_network_and_behind_the_published_port() {
        let tables = two_tasks().tables();
        assert_eq!(ready(&tables), [(1, true), (2, true)]);
        assert_eq!(backends(&tables), [1, 2]);
        let table = &networks(&tables)[&NetworkId(1)];
        let service = &table.services[&ServiceId(1)];
        assert_eq!((service.name.as_str(), service.vip.is_some()), ("service1", true));
        assert_eq!(table.endpoints[&TaskId(2)].vtep, IpAddr::from([192, 0, 2, 2]));
        assert_eq!(table.mtu_bytes, 1450);
    }

    #[test]
    fn a_task_that_starts_has_an_address_but_takes_no_connections() {
        let tables = two_tasks().task(3, 1, 1, Some(TaskState::Starting)).task(4, 1, 1, None).tables();
        assert_eq!(ready(&tables), [(1, true), (2, true), (3, false), (4, false)]);
        assert_eq!(backends(&tables), [1, 2]);
    }

    #[test]
    fn a_task_that_is_stopped_leaves_the_maps_first_and_the_table_when_it_ended() {
        let stopping = two_tasks().change_task(1, |t| t.desired = Desired::Shutdown).tables();
        assert_eq!(ready(&stopping), [(1, false), (2, true)]);
        assert_eq!(backends(&stopping), [2]);
        let ended = two_tasks().change_task(1, |t| t.status.state = Some(TaskState::Failed)).tables();
        assert_eq!(ready(&ended), [(2, true)]);
    }

    #[test]
    fn tasks_of_a_node_that_is_down_take_no_connections() {
        let tables = two_tasks().change_node(2, |n| n.status.state = NodeState::Down).tables();
        assert_eq!(ready(&tables), [(1, true), (2, false)]);
        assert_eq!(backends(&tables), [1]);
        let endpoints = &networks(&tables)[&NetworkId(1)].endpoints;
        assert_eq!(endpoints.values().map(|e| e.lost).collect::<Vec<_>>(), [false, true]);
        assert_eq!(ingress(&tables).lost, [NodeId(2)].into());
    }

    #[test]
    fn a_published_port_without_tasks_is_there_without_backends() {
        let tables = state().node(1).service(1, &[], &[(80, 8080)]).tables();
        assert_eq!(backends(&tables), Vec::<u128>::new());
        assert_eq!(ingress(&tables).nodes.len(), 1);
    }

    #[test]
    fn dnsrr_services_have_no_virtual_address() {
        let tables = two_tasks()
            .change_service(1, |s| std::sync::Arc::make_mut(&mut s.spec).endpoint.mode = EndpointMode::DnsRr)
            .tables();
        assert_eq!(networks(&tables)[&NetworkId(1)].services[&ServiceId(1)].vip, None);
    }

    /// Of a service that was there before there was a limit of them.
    #[test]
    fn other_names_of_a_service_are_those_of_its_tasks_and_its_own_each_once() {
        let aliases =
            |from: usize, to: usize| (from..to).rev().map(|n| format!("a{n:05}")).collect::<Vec<_>>();
        let with = |task: u128, names: Vec<String>| {
            move |s: State| s.change_task(task, move |t| t.attachments[0].aliases = names)
        };
        let own = |s: &mut Service| {
            let spec = std::sync::Arc::make_mut(&mut s.spec);
            std::sync::Arc::make_mut(&mut spec.task).networks[0].aliases = aliases(20_000, 60_000);
        };
        let world = with(2, aliases(0, 10))(with(1, aliases(0, 40_000))(two_tasks()));
        let tables = world.change_service(1, own).tables();
        let begun = std::time::Instant::now();
        let mut all = aliases(0, 60_000);
        all.reverse();
        assert!(networks(&tables)[&NetworkId(1)].services[&ServiceId(1)].aliases == all);
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "each is compared with each");
    }
}
