//! Networks, ports and the endpoint tables.

use super::{Field, Invalid, enums, messages, public, take};
use crate::types;
use model::TaskId;

messages! {
    model::NetworkSpec => NetworkSpec
    model::Network => Network
    model::NetworkAllocation => NetworkAllocation
    model::EndpointSpec => EndpointSpec
    model::PortConfig => PortConfig
    model::IngressBackend => IngressBackend
}

enums! {
    NetworkDriver { Overlay, Host, None, Bridge, Ingress }
    NodeNetwork { Host, None, Bridge }
    EndpointMode { Vip, DnsRr = Dnsrr }
    Protocol { Tcp, Udp, Sctp }
    PublishMode { Ingress, Host }
}

public! {
    model::NetworkTable => types::NetworkTable,
    model::IngressTable => types::IngressTable,
}

impl Field<types::NetworkTable> for model::NetworkTable {
    fn put(&self) -> types::NetworkTable {
        types::NetworkTable {
            network: self.network.put(),
            name: self.name.clone(),
            version: self.version,
            allocation: self.allocation.put(),
            internal: self.internal,
            mtu_bytes: self.mtu_bytes,
            endpoints: self.endpoints.iter().map(|(task, e)| endpoint_to_wire(*task, e)).collect(),
            services: self
                .services
                .iter()
                .map(|(service, s)| types::NetworkService {
                    service: service.put(),
                    name: s.name.clone(),
                    vip: s.vip.put(),
                    aliases: s.aliases.clone(),
                })
                .collect(),
        }
    }
    fn take(wire: types::NetworkTable) -> Result<Self, Invalid> {
        Ok(Self {
            network: take("network", wire.network)?,
            name: wire.name,
            version: wire.version,
            allocation: take("allocation", wire.allocation)?,
            internal: wire.internal,
            mtu_bytes: wire.mtu_bytes,
            endpoints: wire
                .endpoints
                .into_iter()
                .map(endpoint_from_wire)
                .collect::<Result<_, _>>()
                .map_err(|e| e.within("endpoints"))?,
            services: wire
                .services
                .into_iter()
                .map(|s| {
                    let vip = take("vip", s.vip)?;
                    let service = model::NetworkService { name: s.name, vip, aliases: s.aliases };
                    Ok((take("service", s.service)?, service))
                })
                .collect::<Result<_, Invalid>>()
                .map_err(|e| e.within("services"))?,
        })
    }
}

fn endpoint_to_wire(task: TaskId, e: &model::NetworkEndpoint) -> types::NetworkEndpoint {
    types::NetworkEndpoint {
        task: task.put(),
        address: e.address.put(),
        node: e.node.put(),
        vtep: e.vtep.put(),
        service: e.service.put(),
        names: e.names.clone(),
        ready: e.ready,
        lost: e.lost,
    }
}

fn endpoint_from_wire(e: types::NetworkEndpoint) -> Result<(TaskId, model::NetworkEndpoint), Invalid> {
    let endpoint = model::NetworkEndpoint {
        address: take("address", e.address)?,
        node: take("node", e.node)?,
        vtep: take("vtep", e.vtep)?,
        service: take("service", e.service)?,
        names: e.names,
        ready: e.ready,
        lost: e.lost,
    };
    Ok((take("task", e.task)?, endpoint))
}

impl Field<types::IngressTable> for model::IngressTable {
    fn put(&self) -> types::IngressTable {
        types::IngressTable {
            version: self.version,
            nodes: self
                .nodes
                .iter()
                .map(|(node, m)| types::MeshNode {
                    node: node.put(),
                    index: u32::from(m.index),
                    vtep: m.vtep.put(),
                })
                .collect(),
            ports: self
                .ports
                .iter()
                .map(|((protocol, port), backends)| types::IngressPort {
                    protocol: protocol.put(),
                    port: u32::from(*port),
                    backends: backends.put(),
                })
                .collect(),
            lost: self.lost.iter().map(|node| node.put()).collect(),
        }
    }
    fn take(wire: types::IngressTable) -> Result<Self, Invalid> {
        Ok(Self {
            version: wire.version,
            nodes: wire
                .nodes
                .into_iter()
                .map(|m| {
                    let member =
                        model::MeshNode { index: take("index", m.index)?, vtep: take("vtep", m.vtep)? };
                    Ok((take("node", m.node)?, member))
                })
                .collect::<Result<_, Invalid>>()
                .map_err(|e| e.within("nodes"))?,
            ports: wire
                .ports
                .into_iter()
                .map(|p| {
                    let key = (take("protocol", p.protocol)?, take("port", p.port)?);
                    Ok((key, take("backends", p.backends)?))
                })
                .collect::<Result<_, Invalid>>()
                .map_err(|e| e.within("ports"))?,
            lost: wire.lost.into_iter().map(|node| take("lost", node)).collect::<Result<_, Invalid>>()?,
        })
    }
}
