//! Cluster networks.

use super::{Invalid, Result, check_name, invalid};
use crate::types;
use model::{Network, NetworkDriver, NetworkSpec};

/// Option of a network of the swarm that tells its VXLAN network identifier. Source: Docker.
pub const VNI_OPTION: &str = "com.docker.network.driver.overlay.vxlanid_list";

/// Reads a network of the swarm. Local drivers are not for here.
pub fn network_spec(from: types::NetworkCreate) -> Result<NetworkSpec> {
    check_name(&from.name)?;
    let driver = match from.driver.as_str() {
        "overlay" if from.ingress => NetworkDriver::Ingress,
        _ if from.ingress => {
            return invalid("only overlay driver is currently supported for ingress network");
        }
        "overlay" => NetworkDriver::Overlay,
        "host" => NetworkDriver::Host,
        "none" | "null" => NetworkDriver::None,
        other => return invalid(format!("network driver {other:?} is not supported in the swarm")),
    };
    if !matches!(from.scope.as_str(), "" | "swarm") {
        return invalid("Scope: an overlay network is of scope \"swarm\"");
    }
    if from.config_only || from.config_from.is_some_and(|c| !c.network.is_empty()) {
        return invalid("configuration-only networks are not supported in the swarm");
    }
    if from.enable_ipv4 == Some(false) {
        return invalid("an overlay network without IPv4 is not supported");
    }
    let ipam = from.ipam.unwrap_or_default();
    if !matches!(ipam.driver.as_str(), "" | "default") {
        return invalid(format!("IPAM driver {:?} is not supported", ipam.driver));
    }
    if ipam.options.is_some_and(|options| !options.is_empty()) {
        return invalid("IPAM.Options: the default driver has no options");
    }
    let mut configs = ipam.config.into_iter();
    let config = configs.next().unwrap_or_default();
    if configs.next().is_some() {
        return invalid("more than one subnet in a network is not supported");
    }
    if !config.auxiliary_addresses.is_empty() {
        return invalid("auxiliary addresses are not supported in the swarm");
    }
    let encrypted =
        from.options.get("encrypted").is_some_and(|v| !matches!(v.as_str(), "false" | "0" | "no"));
    Ok(NetworkSpec {
        name: from.name,
        labels: from.labels,
        driver,
        subnet: optional(&config.subnet, "invalid CIDR address")?,
        gateway: optional(&config.gateway, "invalid gateway address")?,
        ip_range: optional(&config.ip_range, "invalid CIDR address")?,
        attachable: from.attachable,
        internal: from.internal,
        encrypted,
        ipv6: from.enable_ipv6.unwrap_or(false),
        options: from.options,
    })
}

fn optional<T: std::str::FromStr>(text: &str, what: &str) -> Result<Option<T>> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| Invalid(format!("{what}: {text}")))
}

/// Writes how a network was asked for: what [`network_spec`] reads.
pub fn network_create_json(from: &NetworkSpec) -> types::NetworkCreate {
    let text = |v: Option<String>| v.unwrap_or_default();
    let config = types::IpamConfig {
        subnet: text(from.subnet.map(|s| s.to_string())),
        ip_range: text(from.ip_range.map(|r| r.to_string())),
        gateway: text(from.gateway.map(|g| g.to_string())),
        auxiliary_addresses: types::StringMap::new(),
    };
    types::NetworkCreate {
        name: from.name.clone(),
        driver: driver_word(from.driver).into(),
        scope: "swarm".into(),
        enable_ipv6: from.ipv6.then_some(true),
        ipam: Some(types::Ipam {
            driver: "default".into(),
            options: Some(types::StringMap::new()),
            config: if config == types::IpamConfig::default() { Vec::new() } else { vec![config] },
        }),
        internal: from.internal,
        attachable: from.attachable,
        ingress: from.driver == NetworkDriver::Ingress,
        options: options(from),
        labels: from.labels.clone(),
        ..types::NetworkCreate::default()
    }
}

fn options(from: &NetworkSpec) -> types::StringMap {
    let mut options = from.options.clone();
    if from.encrypted {
        options.entry("encrypted".into()).or_default();
    }
    options
}

fn driver_word(driver: NetworkDriver) -> &'static str {
    match driver {
        NetworkDriver::Overlay | NetworkDriver::Ingress => "overlay",
        NetworkDriver::Host => "host",
        NetworkDriver::None => "null",
        NetworkDriver::Bridge => "bridge",
    }
}

/// Writes a network of the swarm.
pub fn network_json(from: &Network) -> types::Network {
    let spec = &from.spec;
    let mut options = options(spec);
    if let Some(allocation) = from.allocation {
        options.insert(VNI_OPTION.into(), allocation.vni.to_string());
    }
    let config = match from.allocation {
        Some(a) => vec![types::IpamConfig {
            subnet: a.subnet.to_string(),
            gateway: a.gateway.to_string(),
            ip_range: spec.ip_range.map(|r| r.to_string()).unwrap_or_default(),
            auxiliary_addresses: types::StringMap::new(),
        }],
        None => network_create_json(spec).ipam.map(|i| i.config).unwrap_or_default(),
    };
    types::Network {
        name: spec.name.clone(),
        id: from.id.to_string(),
        created: from.meta.created_at.into(),
        scope: "swarm".into(),
        driver: driver_word(spec.driver).into(),
        enable_ipv4: true,
        enable_ipv6: spec.ipv6,
        ipam: types::Ipam { driver: "default".into(), options: Some(types::StringMap::new()), config },
        internal: spec.internal,
        attachable: spec.attachable,
        ingress: spec.driver == NetworkDriver::Ingress,
        options,
        labels: spec.labels.clone(),
        ..types::Network::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_spec_survives_docker_json() {
        let spec = NetworkSpec {
            name: "net".into(),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            driver: NetworkDriver::Overlay,
            options: [("encrypted".to_owned(), String::new())].into(),
            subnet: Some("10.9.0.0/24".parse().unwrap()),
            gateway: Some("10.9.0.1".parse().unwrap()),
            ip_range: Some("10.9.0.128/25".parse().unwrap()),
            attachable: true,
            internal: true,
            encrypted: true,
            ipv6: true,
        };
        let json = serde_json::to_vec(&network_create_json(&spec)).unwrap();
        assert_eq!(network_spec(types::parse(&json).unwrap()), Ok(spec));
        let mesh = NetworkSpec::new("mesh", NetworkDriver::Ingress);
        let json = serde_json::to_vec(&network_create_json(&mesh)).unwrap();
        assert_eq!(network_spec(types::parse(&json).unwrap()), Ok(mesh));
        for other in [
            r#"{"Name":"n","Driver":"host","Ingress":true}"#,
            r#"{"Name":"n","Driver":"overlay","Scope":"local"}"#,
            r#"{"Name":"n","Driver":"overlay","IPAM":{"Options":{"a":"b"}}}"#,
        ] {
            assert!(network_spec(types::parse(other.as_bytes()).unwrap()).is_err(), "{other}");
        }
    }

    #[test]
    fn a_subnet_that_is_none_is_refused() {
        let json = br#"{"Name":"n","Driver":"overlay","IPAM":{"Config":[{"Subnet":"10.0.0.0/99"}]}}"#;
        assert!(network_spec(types::parse(json).unwrap()).is_err());
    }
}
