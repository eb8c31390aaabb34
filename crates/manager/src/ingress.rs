//! The network `ingress`: the routing mesh as people see it, and their say in whether there is one.
//!
//! Every node routes published ports by itself, through links that no task is on, so the network is an object without
//! allocation: its subnet is the one that nodes have their addresses in. Removing it takes the mesh away from services to
//! come, as in Docker, and is refused while one publishes a port through it. *Source:* swarmkit
//! `manager/controlapi/network.go`, `service.go`.

use ipnet::IpNet;
use model::{
    Change, Cluster, INGRESS_LEVEL, Meta, Network, NetworkDriver, NetworkId, NetworkSpec, Object, ObjectRef,
    PublishMode, ServiceSpec, Tables,
};
use std::sync::Arc;
use tonic::Status;

const NAME: &str = "ingress";

/// Returns the network of a swarm that nobody has said anything else of.
pub(crate) fn usual(id: NetworkId, cluster: &Cluster) -> Network {
    with_subnet(id, NetworkSpec::new(NAME, NetworkDriver::Ingress), cluster)
}

/// Returns the network for a swarm that an earlier version made, and that has come to this level.
pub(crate) fn of_earlier(view: &Tables, cluster: &Cluster, id: NetworkId) -> Option<Network> {
    let is_taken = view.networks.values().any(|n| n.spec.name == NAME) || present(view).is_some();
    (cluster.feature_level >= INGRESS_LEVEL && !cluster.ingress_removed && !is_taken)
        .then(|| usual(id, cluster))
}

/// Returns what makes a network of somebody's own the routing mesh.
///
/// # Errors
/// There is one, or it is to be what a mesh cannot be.
pub(crate) fn creation(view: &Tables, id: NetworkId, spec: NetworkSpec) -> Result<Vec<Change>, Status> {
    let cluster = view.cluster.as_ref().ok_or_else(|| Status::unavailable("the swarm is not ready"))?;
    if cluster.feature_level < INGRESS_LEVEL {
        return Err(Status::failed_precondition(format!(
            "an ingress network is not understood by every manager: the swarm is at feature level {}, and \
             {INGRESS_LEVEL} is needed; hint: install this version on all managers",
            cluster.feature_level
        )));
    }
    if let Some(there) = present(view) {
        return Err(Status::failed_precondition(format!(
            "ingress network ({}) is already present",
            there.spec.name
        )));
    }
    let mesh = cluster.mesh_subnet;
    let refused = [
        ("Attachable", spec.attachable),
        ("Internal", spec.internal),
        ("EnableIPv6", spec.ipv6),
        ("Options", !spec.options.is_empty() || spec.encrypted),
        ("IPAM.Config.Gateway", spec.gateway.is_some()),
        ("IPAM.Config.IPRange", spec.ip_range.is_some()),
        ("IPAM.Config.Subnet", spec.subnet.is_some_and(|subnet| subnet.trunc() != IpNet::V4(mesh))),
    ];
    if let Some((key, _)) = refused.iter().find(|(_, asked)| *asked) {
        return Err(Status::invalid_argument(format!(
            "{key}: an ingress network is the routing mesh, which has the subnet {mesh} and no options"
        )));
    }
    let network = Object::Network(Arc::new(with_subnet(id, spec, cluster)));
    Ok(vec![Change::Put(network), said(cluster, false)])
}

/// Returns what takes the mesh away.
///
/// # Errors
/// A service depends on it.
pub(crate) fn removal(view: &Tables, network: &Network) -> Result<Vec<Change>, Status> {
    let depends = view.services.values().find(|s| !s.pending_delete && needs(&s.spec));
    if let Some(service) = depends {
        return Err(Status::failed_precondition(format!(
            "ingress network cannot be removed because service {} depends on it",
            service.id
        )));
    }
    let delete = Change::Delete { key: ObjectRef::Network(network.id), version: network.meta.version };
    Ok(std::iter::once(delete).chain(view.cluster.as_ref().map(|cluster| said(cluster, true))).collect())
}

/// Refuses a service that needs a mesh in a swarm whose people have removed it.
pub(crate) fn check(view: &Tables, spec: &ServiceSpec) -> Result<(), Status> {
    if view.cluster.as_ref().is_some_and(|cluster| cluster.ingress_removed) && needs(spec) {
        return Err(Status::failed_precondition(
            "service needs ingress network, but no ingress network is present; hint: docker network create --ingress \
             --driver overlay ingress",
        ));
    }
    Ok(())
}

fn needs(spec: &ServiceSpec) -> bool {
    spec.endpoint.ports.iter().any(|port| port.mode == PublishMode::Ingress)
}

fn present(view: &Tables) -> Option<&Arc<Network>> {
    view.networks.values().find(|network| network.spec.driver == NetworkDriver::Ingress)
}

fn with_subnet(id: NetworkId, spec: NetworkSpec, cluster: &Cluster) -> Network {
    let spec = NetworkSpec { subnet: Some(cluster.mesh_subnet.into()), ..spec };
    Network { id, meta: Meta::default(), spec, allocation: None, pending_delete: false }
}

fn said(cluster: &Arc<Cluster>, ingress_removed: bool) -> Change {
    Change::Put(Object::Cluster(Arc::new(Cluster { ingress_removed, ..Cluster::clone(cluster) })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::state::{service_spec, state};
    use model::{Batch, PortConfig, Protocol, ServiceId, Timestamp};

    fn after(view: &Tables, changes: Vec<Change>) -> Tables {
        let mut tables = view.clone();
        tables.apply(view.index + 1, &Batch { at: Timestamp(1), changes }).unwrap();
        tables
    }

    fn asked(name: &str) -> NetworkSpec {
        NetworkSpec::new(name, NetworkDriver::Ingress)
    }

    #[test]
    fn there_is_one_mesh_and_who_has_removed_it_publishes_nothing_through_it() {
        let view = state().cluster().tables();
        let cluster = view.cluster.as_ref().unwrap();
        let made = of_earlier(&view, cluster, NetworkId(7)).unwrap();
        let view = after(&view, vec![Change::Put(Object::Network(Arc::new(made)))]);
        assert_eq!(of_earlier(&view, cluster, NetworkId(8)), None, "it is there");
        let twice = creation(&view, NetworkId(8), asked("other")).unwrap_err();
        assert_eq!(twice.message(), "ingress network (ingress) is already present");

        let mut web = service_spec("web");
        check(&view, &web).unwrap();
        web.endpoint.ports.push(PortConfig {
            name: String::new(),
            protocol: Protocol::Tcp,
            target: 80,
            published: 80,
            mode: PublishMode::Ingress,
        });
        check(&view, &web).unwrap();
        let network = Arc::clone(present(&view).unwrap());
        let view = after(&view, removal(&view, &network).unwrap());
        assert_eq!(of_earlier(&view, view.cluster.as_ref().unwrap(), NetworkId(8)), None, "it is not wanted");
        let refused = check(&view, &web).unwrap_err();
        assert!(refused.message().contains("needs ingress network"), "{refused}");
        let host = ServiceSpec {
            endpoint: model::EndpointSpec {
                ports: vec![PortConfig { mode: PublishMode::Host, ..web.endpoint.ports[0].clone() }],
                ..web.endpoint.clone()
            },
            ..web.clone()
        };
        check(&view, &host).unwrap();

        let view = after(&view, creation(&view, NetworkId(9), asked("mesh")).unwrap());
        check(&view, &web).unwrap();
        let network = present(&view).unwrap();
        assert_eq!(network.spec.subnet, Some(view.cluster.as_ref().unwrap().mesh_subnet.into()));
    }

    #[test]
    fn a_mesh_that_a_service_publishes_through_stays() {
        let view = state().cluster().service(1, &[], &[(80, 8080)]).tables();
        let network = usual(NetworkId(7), view.cluster.as_ref().unwrap());
        let refused = removal(&view, &network).unwrap_err();
        assert!(refused.message().contains(&ServiceId(1).to_string()), "{refused}");
        let leaving = state()
            .cluster()
            .service(1, &[], &[(80, 8080)])
            .change_service(1, |service| service.pending_delete = true)
            .tables();
        assert!(removal(&leaving, &network).is_ok());
    }

    #[test]
    fn what_a_mesh_cannot_be_is_refused_by_its_key() {
        type Edit = fn(&mut NetworkSpec);
        let view = state().cluster().tables();
        let cases: [(&str, Edit); 6] = [
            ("Attachable", |s| s.attachable = true),
            ("Internal", |s| s.internal = true),
            ("EnableIPv6", |s| s.ipv6 = true),
            ("Options", |s| drop(s.options.insert("a".into(), "b".into()))),
            ("Subnet", |s| s.subnet = Some("10.7.0.0/16".parse().unwrap())),
            ("Gateway", |s| s.gateway = Some("10.254.0.1".parse().unwrap())),
        ];
        for (key, change) in cases {
            let mut spec = asked("mesh");
            change(&mut spec);
            let refused = creation(&view, NetworkId(7), spec).unwrap_err();
            assert!(refused.message().contains(key), "{refused}");
        }
    }

    #[test]
    fn managers_of_an_earlier_version_are_not_told_of_it() {
        let view = state().cluster().tables();
        let mut cluster = Cluster::clone(view.cluster.as_ref().unwrap());
        (cluster.meta, cluster.feature_level) = (Meta::default(), INGRESS_LEVEL - 1);
        let older = state().put(Object::Cluster(Arc::new(cluster.clone()))).tables();
        assert_eq!(of_earlier(&older, &cluster, NetworkId(7)), None);
        let refused = creation(&older, NetworkId(7), asked("mesh")).unwrap_err();
        assert!(refused.message().contains("install this version on all managers"), "{refused}");
    }
}
