//! What is wrong with a network, with a container that is to be on it, and with its removal.

use super::{invalid, node_network_understood};
use ipnet::IpNet;
use model::{MTU_OPTION, NetworkDriver, NetworkId, NetworkSpec, Subnets, Tables, Task, TaskState, confine};
use tonic::Status;

/// Option of an overlay network: its number on the wire. *Source:* moby `libnetwork/netlabel`, `OverlayVxlanIDList`.
const VNI_OPTION: &str = "com.docker.network.driver.overlay.vxlanid_list";

pub(in crate::control) fn network_name(spec: &NetworkSpec) -> Result<(), Status> {
    if spec.name.is_empty() {
        return Err(invalid("meta: name must be provided"));
    }
    confine::object_name("Name", &spec.name).map_err(|e| invalid(e.to_string()))
}

pub(in crate::control) fn network(tables: &Tables, spec: &NetworkSpec) -> Result<(), Status> {
    network_name(spec)?;
    node_network_understood(tables, spec.driver)?;
    network_options(spec)?;
    let Some(subnet) = spec.subnet else {
        if spec.gateway.is_some() || spec.ip_range.is_some() {
            return Err(invalid("a gateway or range needs a subnet"));
        }
        return room_for(tables, [spec]);
    };
    if spec.driver != NetworkDriver::Overlay {
        return Err(invalid("only overlay networks have a subnet"));
    }
    confine::subnet("IPAM.Config.Subnet", subnet).map_err(|e| invalid(e.to_string()))?;
    if subnet.addr().is_ipv6() {
        return Err(invalid(format!(
            "network {}: {subnet}: an overlay network has IPv4 addresses only",
            spec.name
        )));
    }
    if spec.gateway.is_some_and(|gateway| !subnet.contains(&gateway)) {
        return Err(invalid(format!(
            "no matching subnet for gateway {}",
            spec.gateway.map_or_else(String::new, |g| g.to_string())
        )));
    }
    if spec.ip_range.is_some_and(|range| !subnet.contains(&range)) {
        return Err(invalid(format!(
            "no matching subnet for range {}",
            spec.ip_range.map_or_else(String::new, |r| r.to_string())
        )));
    }
    if tables.overlapping_subnet(subnet.trunc(), None, Subnets::Staying).is_some() {
        return Err(invalid("invalid pool request: Pool overlaps with other one on this address space"));
    }
    holds_no_node(tables, subnet)
}

/// Refuses a subnet of which a node's own address is part: containers on such a network would reach no more of the
/// hosts' network, and nobody is told so when it is asked for through Docker's CLI. What a node only has a route to is
/// warned of where it is asked for.
fn holds_no_node(tables: &Tables, subnet: IpNet) -> Result<(), Status> {
    let met = tables.nodes.values().find_map(|node| {
        let description = node.description.as_ref()?;
        let mut own = node.status.addr.into_iter().chain([description.addr.ip(), description.data_addr]);
        Some((own.find(|address| subnet.contains(address))?, description))
    });
    let Some((address, node)) = met else { return Ok(()) };
    Err(invalid(format!(
        "invalid pool request: subnet {subnet} holds {address}, the address of node {}: containers on this network \
         would not reach the hosts' own; hint: take other addresses, or none to have some chosen that no node knows",
        node.hostname
    )))
}

/// Refuses what nodes do not do for a network: whoever asks for it counts on it, most of all on what nobody is to read.
fn network_options(spec: &NetworkSpec) -> Result<(), Status> {
    let refused = [
        ("encrypted", spec.encrypted, "packets between nodes are not encrypted"),
        ("EnableIPv6", spec.ipv6, "an overlay network has IPv4 addresses only"),
        (VNI_OPTION, spec.options.contains_key(VNI_OPTION), "the swarm chooses the number"),
    ];
    if let Some((key, _, why)) = refused.iter().find(|(_, asked, _)| *asked) {
        return Err(invalid(format!("network {}: {key} is not supported: {why}", spec.name)));
    }
    let mtu = spec.options.get(MTU_OPTION);
    if let Some(text) = mtu.filter(|text| model::mtu_bytes(text).is_none()) {
        let (least, most) = (model::MTU_BYTES.start(), model::MTU_BYTES.end());
        let text: String = text.chars().take(40).collect();
        return Err(invalid(format!(
            "network {}: {MTU_OPTION}={text:?}: it is no number of bytes from {least} to {most}",
            spec.name
        )));
    }
    Ok(())
}

/// Refuses networks that the address pools have no subnets for: they would be there and nothing could be on them.
pub(in crate::control) fn room_for<'a>(
    tables: &Tables,
    specs: impl IntoIterator<Item = &'a NetworkSpec>,
) -> Result<(), Status> {
    let wanting = |spec: &&NetworkSpec| spec.subnet.is_none() && spec.driver == NetworkDriver::Overlay;
    let Some((last, wanted)) = specs.into_iter().filter(wanting).zip(1..).last() else { return Ok(()) };
    if tables.room_for_networks(wanted) < wanted {
        return Err(invalid(format!(
            "network {}: could not find an available, non-overlapping IPv4 address pool among the defaults to assign \
             to the network; hint: remove a network that is not needed, or give it a subnet",
            last.name
        )));
    }
    Ok(())
}

/// *Limit* of containers of a node that people have put on networks of the swarm: each is a task that every manager
/// keeps, and more than four times what has an address.
const ATTACHMENTS_MAX: usize = 1024;
/// *Limit* of the names that such a container has. *Unit:* bytes.
const ATTACHMENT_BYTES_MAX: usize = 16 << 10;

/// Refuses what a node may not ask for a container. Source: moby `daemon/cluster/networks.go`; swarmkit
/// `manager/resourceapi/allocator.go`.
pub(crate) fn attachment(tables: &Tables, task: &Task) -> Result<(), Status> {
    if task.attaches.as_ref().is_none_or(String::is_empty) || task.service_name.is_empty() {
        return Err(Status::invalid_argument("an attachment needs the container's id and name"));
    }
    if task.spec.networks.is_empty() {
        return Err(Status::invalid_argument("an attachment needs a network"));
    }
    let aliases = task.spec.networks.iter().flat_map(|network| &network.aliases);
    let names = aliases.chain(&task.attaches).chain([&task.service_name]);
    let bytes: usize = names.map(|name| name.len() + size_of::<String>()).sum();
    if bytes > ATTACHMENT_BYTES_MAX || task.spec.networks.len() > ATTACHMENTS_MAX {
        return Err(Status::invalid_argument(format!(
            "the names of a container on a network of the swarm have at most {ATTACHMENT_BYTES_MAX} bytes"
        )));
    }
    let own = |other: &&std::sync::Arc<Task>| other.attaches.is_some() && other.slot == task.slot;
    if tables.tasks.values().filter(own).count() >= ATTACHMENTS_MAX {
        return Err(Status::resource_exhausted(format!(
            "this node has {ATTACHMENTS_MAX} containers on networks of the swarm, and no more at a time"
        )));
    }
    for wanted in &task.spec.networks {
        let id = wanted.network;
        let network = tables.networks.get(&id).filter(|n| !n.pending_delete);
        let Some(network) = network.filter(|n| n.spec.driver == NetworkDriver::Overlay) else {
            return Err(Status::not_found(format!("network {id} not found")));
        };
        if !network.spec.attachable {
            let name = &network.spec.name;
            return Err(Status::permission_denied(format!("network {name} not manually attachable")));
        }
    }
    Ok(())
}

/// Refuses the removal of a network that a service or a living task uses.
pub(in crate::control) fn network_unused(tables: &Tables, id: NetworkId) -> Result<(), Status> {
    if let Some(user) = tables.user_of_network(id) {
        return Err(Status::failed_precondition(format!("network {id} is in use by {user}")));
    }
    // Tasks of a service that goes are going too, even if the plan has not told them yet.
    let stays = |task: &Task| {
        task.attaches.is_some() || tables.services.get(&task.service).is_some_and(|s| !s.pending_delete)
    };
    let lives = |task: &Task| {
        stays(task)
            && task.desired < model::Desired::Shutdown
            && !task.status.state.is_some_and(TaskState::is_terminal)
    };
    let task = tables.tasks.values().find(|t| lives(t) && t.attachments.iter().any(|a| a.network == id));
    match task {
        Some(task) => Err(Status::failed_precondition(format!("network {id} is in use by task {}", task.id))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::state::state;
    use model::NODE_NETWORK_LEVEL;
    use std::sync::Arc;

    #[test]
    fn what_nodes_do_not_do_for_a_network_is_refused_by_its_name() {
        let tables = state().cluster().tables();
        let told = |change: fn(&mut NetworkSpec)| {
            let mut spec = NetworkSpec::new("back", NetworkDriver::Overlay);
            change(&mut spec);
            network(&tables, &spec).err().map_or_else(String::new, |refused| refused.message().to_owned())
        };
        fn option(spec: &mut NetworkSpec, key: &str, value: &str) {
            spec.options.insert(key.into(), value.into());
        }
        assert_eq!(told(|_| {}), "");
        assert_eq!(told(|n| option(n, MTU_OPTION, "1400")), "");
        for (change, named) in [
            ((|n| n.encrypted = true) as fn(&mut NetworkSpec), "encrypted is not supported"),
            (|n| n.ipv6 = true, "EnableIPv6 is not supported"),
            (|n| option(n, VNI_OPTION, "4097"), "vxlanid_list is not supported"),
            (|n| option(n, MTU_OPTION, "10"), "driver.mtu=\"10\""),
            (|n| option(n, MTU_OPTION, "4294967295"), "from 68 to 65535"),
            (|n| option(n, MTU_OPTION, ""), "driver.mtu=\"\""),
            (|n| n.subnet = "fd00:9::/64".parse().ok(), "IPv4 addresses only"),
        ] {
            let said = told(change);
            assert!(said.starts_with("network back: ") && said.contains(named), "{named}: {said}");
        }
    }

    #[test]
    fn networks_beyond_the_address_pools_are_refused() {
        let cluster = state().cluster().tables().cluster.clone().unwrap();
        let mut cluster = model::Cluster::clone(&cluster);
        cluster.meta = model::Meta::default();
        (cluster.address_pools, cluster.subnet_prefix) = (vec!["10.1.0.0/22".parse().unwrap()], 24);
        // One has its subnet; of the four in the pool three are left.
        let tables = state().network(1).put(model::Object::Cluster(Arc::new(cluster))).tables();
        let specs = |names: &[&str]| -> Vec<NetworkSpec> {
            names.iter().map(|name| NetworkSpec::new(*name, NetworkDriver::Overlay)).collect()
        };
        let told = |names: &[&str]| room_for(&tables, &specs(names)).map_err(|s| s.message().to_owned());
        assert_eq!(told(&["a", "b", "c"]), Ok(()));
        assert!(
            told(&["a", "b", "c", "d"]).unwrap_err().starts_with("network d: could not find an available")
        );
        let given = NetworkSpec {
            subnet: Some("10.9.0.0/24".parse().unwrap()),
            ..NetworkSpec::new("e", NetworkDriver::Overlay)
        };
        let three = specs(&["a", "b", "c"]);
        assert!(room_for(&tables, three.iter().chain([&given])).is_ok());
    }

    #[test]
    fn networks_that_older_agents_take_for_the_hosts_wait_for_the_level() {
        let at = |level| {
            let cluster = state().cluster().tables().cluster.clone().unwrap();
            let cluster =
                model::Cluster { feature_level: level, meta: model::Meta::default(), ..(*cluster).clone() };
            state().put(model::Object::Cluster(Arc::new(cluster))).tables()
        };
        let told = |level, driver| network(&at(level), &NetworkSpec::new("x", driver)).err();
        for driver in [NetworkDriver::None, NetworkDriver::Bridge] {
            let refused = told(NODE_NETWORK_LEVEL - 1, driver).unwrap();
            assert!(refused.message().contains("hint: install this version"), "{refused}");
            assert!(told(NODE_NETWORK_LEVEL, driver).is_none());
        }
        assert!(told(1, NetworkDriver::Host).is_none());
    }

    #[test]
    fn subnets_do_not_overlap() {
        let tables = state().cluster().network(1).tables();
        let mut spec = tables.networks.get(&NetworkId(1)).unwrap().spec.clone();
        spec.name = "other".into();
        for (subnet, fine) in [("10.7.0.0/24", true), ("10.1.0.0/25", false), ("10.254.3.0/24", false)] {
            spec.subnet = Some(subnet.parse().unwrap());
            assert_eq!(network(&tables, &spec).is_ok(), fine, "{subnet}");
        }
    }

    #[test]
    fn a_subnet_that_holds_the_address_of_a_node_is_refused_with_its_name() {
        let tables = state().cluster().node(1).node(2).tables();
        let address = tables.nodes.get(&model::NodeId(2)).unwrap().description.as_ref().unwrap().data_addr;
        let told = |subnet: IpNet| {
            let mut spec = NetworkSpec::new("over", NetworkDriver::Overlay);
            spec.subnet = Some(subnet);
            network(&tables, &spec).map_err(|refused| refused.message().to_owned())
        };
        let host = IpNet::new(address, 24).unwrap();
        for subnet in [host, IpNet::new(address, 16).unwrap()] {
            let refused = told(subnet).unwrap_err();
            assert!(refused.contains("the address of node") && refused.contains("hint:"), "{refused}");
        }
        assert_eq!(told("10.77.0.0/24".parse().unwrap()), Ok(()));
    }

    /// A node may be in others' hands, and each attachment is kept by every manager.
    #[test]
    fn a_node_asks_for_so_many_attachments_and_no_more() {
        let asked = |number: u128, node: u128, aliases: Vec<String>| {
            let networks = vec![model::NetworkAttachmentSpec::new(NetworkId(1), aliases)];
            Task::attachment(model::TaskId(number), "c", "name", model::NodeId(node), networks)
        };
        let mut world = state().cluster().node(1).node(2).network(1);
        world = world.change_network(1, |n| n.spec.attachable = true);
        for number in 0..ATTACHMENTS_MAX as u128 {
            let task = asked(1000 + number, 1, Vec::new());
            world = world.put(model::Object::Task(Arc::new(task)));
        }
        let tables = world.tables();
        let refused = attachment(&tables, &asked(7, 1, Vec::new())).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused}");
        attachment(&tables, &asked(7, 2, vec!["db".into()])).expect("another node has room");
        for aliases in [vec!["x".repeat(20_000)], vec![String::new(); 1000]] {
            let refused = attachment(&tables, &asked(7, 2, aliases)).unwrap_err();
            assert!(refused.message().contains("at most 16384 bytes"), "{refused}");
        }
    }
}
