//! Networks of this host and of the swarm. Source: Docker API `Network`.

use super::{StringMap, Time};
use std::collections::BTreeMap;

wire! {
    Network {
        name: String = "Name",
        id: String = "Id",
        created: Time = "Created",
        /// `local` or `swarm`.
        scope: String = "Scope",
        driver: String = "Driver",
        enable_ipv4: bool = "EnableIPv4",
        enable_ipv6: bool = "EnableIPv6",
        ipam: Ipam = "IPAM",
        internal: bool = "Internal",
        attachable: bool = "Attachable",
        ingress: bool = "Ingress",
        config_from: ConfigFrom = "ConfigFrom",
        config_only: bool = "ConfigOnly",
        containers: BTreeMap<String, NetworkContainer> = "Containers",
        options: StringMap = "Options",
        labels: StringMap = "Labels",
        services: BTreeMap<String, NetworkService> => "Services",
    }
    ConfigFrom {
        network: String = "Network",
    }
    Ipam {
        driver: String = "Driver",
        options: Option<StringMap> = "Options",
        config: Vec<IpamConfig> = "Config",
    }
    IpamConfig {
        subnet: String => "Subnet",
        ip_range: String => "IPRange",
        gateway: String => "Gateway",
        auxiliary_addresses: StringMap => "AuxiliaryAddresses",
    }
    NetworkContainer {
        name: String = "Name",
        endpoint_id: String = "EndpointID",
        mac_address: String = "MacAddress",
        ipv4_address: String = "IPv4Address",
        ipv6_address: String = "IPv6Address",
    }
    /// With `verbose=true`.
    NetworkService {
        vip: String = "VIP",
        ports: Vec<String> = "Ports",
        local_lb_index: i64 = "LocalLBIndex",
        tasks: Vec<NetworkTask> = "Tasks",
    }
    NetworkTask {
        name: String = "Name",
        endpoint_id: String = "EndpointID",
        endpoint_ip: String = "EndpointIP",
        info: StringMap = "Info",
    }
    NetworkCreate {
        name: String = "Name",
        check_duplicate: bool => "CheckDuplicate",
        driver: String = "Driver",
        scope: String = "Scope",
        enable_ipv4: Option<bool> => "EnableIPv4",
        enable_ipv6: Option<bool> => "EnableIPv6",
        ipam: Option<Ipam> => "IPAM",
        internal: bool = "Internal",
        attachable: bool = "Attachable",
        ingress: bool = "Ingress",
        config_only: bool = "ConfigOnly",
        config_from: Option<ConfigFrom> => "ConfigFrom",
        options: StringMap = "Options",
        labels: StringMap = "Labels",
    }
    NetworkConnect {
        container: String = "Container",
        endpoint_config: Option<super::EndpointSettings> => "EndpointConfig",
    }
    NetworkDisconnect {
        container: String = "Container",
        force: bool = "Force",
    }
    NetworksPruned {
        /// `None`: none.
        networks_deleted: Option<Vec<String>> = "NetworksDeleted",
    }
}
