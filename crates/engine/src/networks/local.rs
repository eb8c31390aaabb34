//! Records of the networks of this host: the predefined `bridge`, `host` and `none`, and user-defined bridges and
//! macvlans. One each is kept under `DATA_ROOT/networks`.

use crate::{
    disk::{folders, persist},
    error::{Error, Result},
    seen::container::Endpoint,
};
use ipnet::{Ipv4Net, Ipv6Net};
use model::{MTU_BYTES, MTU_OPTION, Timestamp};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Source: Docker API `NetworkCreate`.
#[derive(Debug, Clone, Default)]
pub struct NetworkConfig {
    pub name: String,
    /// `bridge` (also when empty) or `macvlan`.
    pub driver: String,
    pub subnet: Option<Ipv4Net>,
    pub gateway: Option<IpAddr>,
    pub ip_range: Option<Ipv4Net>,
    pub ipv6: bool,
    /// `None` with `ipv6` = one of RFC 4193.
    pub subnet6: Option<Ipv6Net>,
    pub gateway6: Option<Ipv6Addr>,
    pub ip_range6: Option<Ipv6Net>,
    /// Were options of IPAM given? There are none to give; Docker shows that there were to be some.
    pub ipam_options: bool,
    /// Addresses of other machines on it, by a name of no meaning.
    pub aux_addresses: BTreeMap<String, IpAddr>,
    pub internal: bool,
    pub attachable: bool,
    pub labels: BTreeMap<String, String>,
    /// Docker's `com.docker.network.*` options; `bridge.name`, `bridge.enable_icc`,
    /// `bridge.host_binding_ipv4` and `driver.mtu` are obeyed, others that would shut it off are refused. Of a
    /// macvlan `parent` and `macvlan_mode`.
    pub options: BTreeMap<String, String>,
}

/// A network of this host. Source: Docker API `Network`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalNetwork {
    /// 64 hex digits.
    pub id: String,
    pub name: String,
    #[serde(with = "persist::nanos")]
    pub created_at: Timestamp,
    /// `bridge`, `macvlan`, `host` or `null`.
    pub driver: String,
    #[serde(with = "net_option")]
    pub subnet: Option<Ipv4Net>,
    pub gateway: Option<IpAddr>,
    #[serde(with = "net_option")]
    pub ip_range: Option<Ipv4Net>,
    /// `None` = it has no IPv6.
    #[serde(default, with = "net_option")]
    pub subnet6: Option<Ipv6Net>,
    #[serde(default)]
    pub gateway6: Option<Ipv6Addr>,
    #[serde(default, with = "net_option")]
    pub ip_range6: Option<Ipv6Net>,
    #[serde(default)]
    pub ipam_options: bool,
    #[serde(default)]
    pub aux_addresses: BTreeMap<String, IpAddr>,
    pub internal: bool,
    pub attachable: bool,
    pub labels: BTreeMap<String, String>,
    pub options: BTreeMap<String, String>,
    /// Running containers on it, by id. Filled in by [`crate::Engine::network`] and [`crate::Engine::networks`].
    #[serde(skip)]
    pub containers: BTreeMap<String, NetworkMember>,
}

impl LocalNetwork {
    /// Returns true for `bridge`, `host` and `none`.
    pub fn is_predefined(&self) -> bool {
        is_predefined(&self.name)
    }

    /// Returns true when containers have interfaces on it.
    pub(crate) fn has_interfaces(&self) -> bool {
        matches!(self.driver.as_str(), "bridge" | "macvlan")
    }
}

/// A container on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkMember {
    pub name: String,
    pub endpoint: Endpoint,
}

mod net_option {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::{fmt::Display, str::FromStr};

    pub(super) fn serialize<N: Display, S: Serializer>(net: &Option<N>, s: S) -> Result<S::Ok, S::Error> {
        net.as_ref().map(N::to_string).serialize(s)
    }

    pub(super) fn deserialize<'de, N: FromStr<Err: Display>, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Option<N>, D::Error> {
        Option::<String>::deserialize(d)?.map(|t| t.parse().map_err(serde::de::Error::custom)).transpose()
    }
}

pub(crate) fn is_predefined(name: &str) -> bool {
    matches!(name, "bridge" | "host" | "none")
}

/// The records; its calls are blocking and short.
#[derive(Debug)]
pub(crate) struct LocalNetworks {
    root: PathBuf,
    known: Mutex<BTreeMap<String, LocalNetwork>>,
}

impl LocalNetworks {
    pub(crate) fn open(root: PathBuf) -> Result<Self> {
        folders::close(&root, folders::PRIVATE_MODE)?;
        let mut known = BTreeMap::new();
        for entry in fs::read_dir(&root).map_err(Error::io("list", &root))? {
            let path = entry.map_err(Error::io("list", &root))?.path();
            if path.extension().is_some_and(|e| e == "json")
                && let Some(network) = persist::read_or_set_aside::<LocalNetwork>(&path)
            {
                known.insert(network.id.clone(), network);
            }
        }
        let networks = Self { root, known: Mutex::new(known) };
        for (name, driver) in [("bridge", "bridge"), ("host", "host"), ("none", "null")] {
            if networks.lock().values().all(|n| n.name != name) {
                networks.insert(predefined(name, driver))?;
            }
        }
        Ok(networks)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, LocalNetwork>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn insert(&self, network: LocalNetwork) -> Result<()> {
        persist::write_json(&self.root.join(format!("{}.json", network.id)), &network)?;
        self.lock().insert(network.id.clone(), network);
        Ok(())
    }

    pub(crate) fn forget(&self, id: &str) -> Result<()> {
        let path = self.root.join(format!("{id}.json"));
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("remove", path)(e)),
            _ => {}
        }
        self.lock().remove(id);
        Ok(())
    }

    /// Finds by name, full id, or unique prefix of an id.
    pub(crate) fn find(&self, wanted: &str) -> Result<LocalNetwork> {
        let known = self.lock();
        if let Some(n) = known.get(wanted).or_else(|| known.values().find(|n| n.name == wanted)) {
            return Ok(n.clone());
        }
        let mut matching = known.values().filter(|n| !wanted.is_empty() && n.id.starts_with(wanted));
        match (matching.next(), matching.next()) {
            (Some(n), None) => Ok(n.clone()),
            (None, _) => Err(Error::NoSuchNetwork(wanted.to_owned())),
            (Some(_), Some(_)) => Err(Error::AmbiguousPrefix(wanted.to_owned())),
        }
    }

    pub(crate) fn subnets(&self) -> Vec<Ipv4Net> {
        self.lock().values().filter_map(|n| n.subnet).collect()
    }

    pub(crate) fn all(&self) -> Vec<LocalNetwork> {
        self.lock().values().cloned().collect()
    }
}

pub(crate) fn predefined(name: &str, driver: &str) -> LocalNetwork {
    let mut network = LocalNetwork {
        id: crate::random_id(),
        name: name.into(),
        created_at: crate::now(),
        driver: driver.into(),
        subnet: None,
        gateway: None,
        ip_range: None,
        subnet6: None,
        gateway6: None,
        ip_range6: None,
        ipam_options: false,
        aux_addresses: BTreeMap::new(),
        internal: false,
        attachable: false,
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
        containers: BTreeMap::new(),
    };
    if driver == "bridge" {
        network.subnet = Ipv4Net::new(Ipv4Addr::new(172, 17, 0, 0), 16).ok();
        network.gateway = Some(Ipv4Addr::new(172, 17, 0, 1).into());
        network.options = [
            ("com.docker.network.bridge.default_bridge", "true"),
            ("com.docker.network.bridge.enable_icc", "true"),
            ("com.docker.network.bridge.enable_ip_masquerade", "true"),
            ("com.docker.network.bridge.host_binding_ipv4", "0.0.0.0"),
            ("com.docker.network.bridge.name", "docker0"),
            ("com.docker.network.driver.mtu", "1500"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
    }
    network
}

pub(crate) fn overlaps(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

pub(crate) fn bridge_spec(network: &LocalNetwork) -> Result<network::BridgeSpec> {
    let subnet = network.subnet.ok_or_else(|| Error::NoSuchNetwork(network.name.clone()))?;
    let option = |key: &str| network.options.get(key).map(String::as_str);
    let mtu = option(MTU_OPTION);
    Ok(network::BridgeSpec {
        id: network.id.clone(),
        name: network.name.clone(),
        subnet,
        gateway: network.gateway,
        ip_range: network.ip_range,
        ipv6: network.subnet6.map(|subnet| network::BridgeIpv6 {
            subnet,
            gateway: network.gateway6,
            ip_range: network.ip_range6,
        }),
        aux_addresses: network.aux_addresses.values().copied().collect(),
        macvlan: (network.driver == "macvlan").then(|| macvlan(&network.options)).transpose()?,
        internal: network.internal,
        icc: option("com.docker.network.bridge.enable_icc").and_then(truth) != Some(false),
        mtu_bytes: mtu
            .map(|m| m.parse().map_err(|_| Error::invalid(format!("invalid value {m:?} for driver.mtu"))))
            .transpose()?,
        interface: option("com.docker.network.bridge.name").map(str::to_owned),
    })
}

/// *Limit* below which a link has no IPv6. *Unit:* bytes. *Source:* RFC 8200, section 5.
const MTU_BYTES_OF_IPV6: u32 = 1280;

/// Refuses addresses and sizes that do not go together.
pub(crate) fn judge_addresses(network: &LocalNetwork) -> Result<()> {
    let bad = |what: String| Err(Error::invalid(what));
    if let Some(range) = network.ip_range
        && !network.subnet.is_some_and(|subnet| subnet.contains(&range))
    {
        return bad(format!("invalid IPAM.Config.IPRange: {range} is not in the subnet"));
    }
    if let Some(range) = network.ip_range6
        && !network.subnet6.is_some_and(|subnet| subnet.contains(&range))
    {
        return bad(format!("invalid IPAM.Config.IPRange: {range} is not in the subnet"));
    }
    for address in network.aux_addresses.values() {
        let is_in = match address {
            IpAddr::V4(v4) => network.subnet.is_none_or(|subnet| subnet.contains(v4)),
            IpAddr::V6(v6) => network.subnet6.is_none_or(|subnet| subnet.contains(v6)),
        };
        if !is_in {
            return bad(format!("invalid IPAM.Config.AuxiliaryAddresses: {address} is not in the subnet"));
        }
    }
    let mtu = network.options.get(MTU_OPTION).and_then(|mtu| mtu.parse().ok());
    if network.subnet6.is_some() && mtu.is_some_and(|mtu: u32| mtu < MTU_BYTES_OF_IPV6) {
        return bad(format!("network option {MTU_OPTION}: IPv6 takes {MTU_BYTES_OF_IPV6} bytes at least"));
    }
    Ok(())
}

/// Refuses options that would shut a network off, and are not honoured here: who asks for them counts on them. What does
/// nothing here and harms nobody is kept, as Docker's drivers keep what they do not know.
pub(crate) fn judge_options(options: &BTreeMap<String, String>) -> Result<()> {
    for (key, value) in options {
        if key == MTU_OPTION && model::mtu_bytes(value).is_none() {
            let (least, most) = (MTU_BYTES.start(), MTU_BYTES.end());
            let value: String = value.chars().take(40).collect();
            return Err(Error::invalid(format!(
                "network option {key}={value:?}: it is no number of bytes from {least} to {most}"
            )));
        }
        let Some(option) = key.strip_prefix("com.docker.network.bridge.") else { continue };
        let why = match option {
            "enable_icc" if truth(value).is_none() => "it is neither true nor false",
            "enable_ip_masquerade" if truth(value) != Some(true) => {
                "addresses are always translated here; hint: an internal network has no way out"
            }
            "host_binding_ipv4" if value.parse::<Ipv4Addr>().is_err() => "it is no IPv4 address",
            "host_binding_ipv6"
                if !value.parse::<Ipv6Addr>().is_ok_and(|address| address.is_unspecified()) =>
            {
                "ports are published on all addresses unless each says otherwise; hint: --publish [::1]:8080:80"
            }
            "gateway_mode_ipv4" | "gateway_mode_ipv6" if value != "nat" => {
                "nat is the only mode here; hint: an internal network has no way out"
            }
            "trusted_host_interfaces" => "it is not supported",
            _ => continue,
        };
        return Err(Error::invalid(format!("network option {key}={value:?}: {why}")));
    }
    Ok(())
}

/// Returns the address on which ports of a network are published that name none themselves; `None`: on all.
pub(crate) fn host_binding(network: &LocalNetwork) -> Option<IpAddr> {
    let binding = network.options.get("com.docker.network.bridge.host_binding_ipv4")?;
    let address: Ipv4Addr = binding.parse().ok()?;
    (!address.is_unspecified()).then_some(address.into())
}

/// Source: Go `strconv.ParseBool`, by which Docker reads such options.
fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Reads the options of Docker's driver `macvlan`.
pub(crate) fn macvlan(options: &BTreeMap<String, String>) -> Result<network::Macvlan> {
    let parent = options.get("parent").filter(|parent| !parent.is_empty()).cloned().ok_or_else(|| {
        Error::invalid("a macvlan network needs an interface of this host; hint: --opt parent=eth0")
    })?;
    let mode = match options.get("macvlan_mode").map_or("", String::as_str) {
        "" | "bridge" => network::MacvlanMode::Bridge,
        "private" => network::MacvlanMode::Private,
        "vepa" => network::MacvlanMode::Vepa,
        "passthru" => network::MacvlanMode::Passthru,
        other => {
            return Err(Error::invalid(format!(
                "unknown macvlan_mode {other:?}; hint: bridge, private, vepa or passthru"
            )));
        }
    };
    Ok(network::Macvlan { parent, mode })
}

/// Makes a subnet of its own for a network. Source: RFC 4193, section 3.2; the id is random.
pub(crate) fn unique_local_subnet(id: &str) -> Option<Ipv6Net> {
    let global = u64::from_str_radix(id.get(..10)?, 16).ok()?;
    Ipv6Net::new(Ipv6Addr::from((0xfd << 120) | (u128::from(global) << 80)), 64).ok()
}

pub(crate) fn failed(operation: impl Into<String>) -> impl FnOnce(network::Error) -> Error {
    let operation = operation.into();
    move |source| Error::Network { operation, source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn predefined_networks_keep_their_ids_over_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let ids = |n: &LocalNetworks| n.all().into_iter().map(|n| (n.name, n.id)).collect::<BTreeMap<_, _>>();
        let first = ids(&LocalNetworks::open(dir.path().to_owned()).unwrap());
        assert_eq!(first.keys().map(String::as_str).collect::<Vec<_>>(), ["bridge", "host", "none"]);
        assert_eq!(ids(&LocalNetworks::open(dir.path().to_owned()).unwrap()), first);
    }

    #[test]
    fn addresses_and_sizes_of_a_network_go_together() {
        let judged = |change: fn(&mut LocalNetwork)| {
            let mut network = predefined("n", "bridge");
            network.options.clear();
            network.subnet6 = "fd00:9::/64".parse().ok();
            change(&mut network);
            judge_addresses(&network).map_err(|e| e.to_string())
        };
        assert_eq!(judged(|_| {}), Ok(()));
        assert_eq!(judged(|n| n.ip_range = "172.17.8.0/24".parse().ok()), Ok(()));
        assert_eq!(judged(|n| drop(n.options.insert(MTU_OPTION.into(), "1280".into()))), Ok(()));
        for (change, said) in [
            (
                (|n| n.ip_range = "172.18.0.0/24".parse().ok()) as fn(&mut LocalNetwork),
                "IPRange: 172.18.0.0/24",
            ),
            (|n| n.ip_range = "172.16.0.0/12".parse().ok(), "IPRange"),
            (|n| (n.subnet, n.ip_range) = (None, "172.17.8.0/24".parse().ok()), "IPRange"),
            (|n| n.ip_range6 = "fd00:8::/96".parse().ok(), "IPRange: fd00:8::/96"),
            (|n| n.aux_addresses = [("a".into(), Ipv4Addr::new(172, 18, 0, 1).into())].into(), "172.18.0.1"),
            (|n| n.aux_addresses = [("a".into(), Ipv6Addr::LOCALHOST.into())].into(), "::1"),
            (|n| drop(n.options.insert(MTU_OPTION.into(), "1279".into())), "IPv6 takes 1280"),
        ] {
            let refused = judged(change).unwrap_err();
            assert!(refused.contains(said), "{said}: {refused}");
        }
    }

    #[test]
    fn an_option_that_shuts_a_network_off_is_honoured_or_refused() {
        let judged = |option: &str, value: &str| {
            let options = [(format!("com.docker.network.{option}"), value.to_owned())].into();
            judge_options(&options).map_err(|e| e.to_string())
        };
        for (option, value, fits) in [
            ("bridge.enable_icc", "false", true),
            ("bridge.enable_icc", "0", true),
            ("bridge.enable_icc", "no", false),
            ("bridge.enable_ip_masquerade", "true", true),
            ("bridge.enable_ip_masquerade", "false", false),
            ("bridge.host_binding_ipv4", "0.0.0.0", true),
            ("bridge.host_binding_ipv4", "127.0.0.1", true),
            ("bridge.host_binding_ipv6", "::1", false),
            ("bridge.host_binding_ipv4", "999.1.1.1", false),
            ("bridge.gateway_mode_ipv4", "nat", true),
            ("bridge.gateway_mode_ipv4", "isolated", false),
            ("bridge.name", "br-mine", true),
            ("driver.mtu", "1400", true),
            ("driver.mtu", "68", true),
            ("driver.mtu", "67", false),
            ("driver.mtu", "65536", false),
            ("driver.mtu", "-1", false),
            ("driver.mtu", "9000x", false),
            ("container_iface_prefix", "net", true),
        ] {
            let judged = judged(option, value);
            assert_eq!(judged.is_ok(), fits, "{option}={value}: {judged:?}");
        }
        assert_eq!([truth("F"), truth("True"), truth("")], [Some(false), Some(true), None]);
    }
}
