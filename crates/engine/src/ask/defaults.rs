//! What an operator sets once for all containers and networks of a host. *Source:* dockerd(8), `daemon.json`.

use crate::ask::config::{ContainerConfig, HostConfig, LogConfig, NetworkMode};
use ipnet::{Ipv4Net, Ipv6Net};
use model::{GenericResources, Ulimit};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

/// The operator's choices; each one gives way to what a container or network asks for itself.
#[derive(Debug, Clone, Default)]
pub struct Defaults {
    /// `log-driver`, `log-opts`. The options go with the driver: they are not added to another one.
    pub log: LogConfig,
    /// `default-ulimits`
    pub ulimits: Vec<Ulimit>,
    /// `default-address-pools`; empty = Docker's.
    pub address_pools: Vec<AddressPool>,
    /// `bip`: the network `bridge` with its gateway's address.
    pub bridge: Option<Ipv4Net>,
    /// `ipv6` and `fixed-cidr-v6`: of the network `bridge`.
    pub bridge_ipv6: Option<BridgeIpv6>,
    /// `mtu`: of the network `bridge`. *Unit:* bytes.
    pub bridge_mtu_bytes: Option<u32>,
    /// `icc`: whether containers on the network `bridge` reach each other; `None` = they do.
    pub bridge_icc: Option<bool>,
    /// `ip`: where ports of containers on it are published that name no address; `None` = on all.
    pub bridge_binding: Option<Ipv4Addr>,
    /// `fixed-cidr`: the part of its subnet that containers get addresses from.
    pub bridge_range: Option<Ipv4Net>,
    /// `default-network-opts`: options of networks that are made without them, by driver.
    pub network_options: BTreeMap<String, BTreeMap<String, String>>,
    /// `host-gateway-ips`: what `host-gateway` stands for in /etc/hosts of containers; empty = their gateway.
    pub host_gateway: Vec<IpAddr>,
    pub containers: ContainerDefaults,
    /// `node-generic-resources`: what tasks of a swarm can reserve here beside vendors' devices.
    pub generic_resources: GenericResources,
    /// `cdi-spec-dirs`; empty = vendors' devices are not looked for.
    pub cdi_spec_dirs: Vec<std::path::PathBuf>,
    /// `builder.gc.defaultKeepStorage`: how much of earlier builds is kept. `None` = a tenth of the disk.
    /// *Unit:* bytes.
    pub build_cache_max_bytes: Option<u64>,
}

/// Of containers that do not say otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerDefaults {
    /// `dns-search`, `dns-opts`
    pub dns_search: Vec<String>,
    pub dns_options: Vec<String>,
    /// `init`
    pub init: bool,
    /// `no-new-privileges`
    pub no_new_privileges: bool,
    /// `seccomp-profile`, as `--security-opt` takes it: `unconfined`, or a profile's JSON. Not of those with all
    /// privileges.
    pub seccomp: Option<String>,
    /// `default-shm-size`. *Unit:* bytes.
    pub shm_size_bytes: Option<u64>,
    /// `default-ipc-mode`, `default-cgroupns-mode`
    pub ipc_mode: String,
    pub cgroupns_mode: String,
}

impl ContainerDefaults {
    pub(crate) fn fill(&self, host: &mut HostConfig) {
        let own_names = match host.network_mode {
            NetworkMode::Bridge | NetworkMode::Named(_) | NetworkMode::Swarm => true,
            NetworkMode::Host | NetworkMode::None | NetworkMode::Container(_) => false,
        };
        if own_names && host.dns_search.is_empty() {
            host.dns_search.clone_from(&self.dns_search);
        }
        if own_names && host.dns_options.is_empty() {
            host.dns_options.clone_from(&self.dns_options);
        }
        let says = |options: &[String], what: &str| options.iter().any(|option| option.starts_with(what));
        if self.no_new_privileges && !says(&host.security_opts, "no-new-privileges") {
            host.security_opts.push("no-new-privileges".to_owned());
        }
        if let Some(profile) = &self.seccomp
            && !host.privileged
            && !says(&host.security_opts, "seccomp")
        {
            host.security_opts.push(format!("seccomp={profile}"));
        }
        host.shm_size_bytes = host.shm_size_bytes.filter(|size| *size > 0).or(self.shm_size_bytes);
        // A step of a build is one program, and ends with it.
        if self.init && host.build.is_none() {
            host.init.get_or_insert(true);
        }
        if host.ipc_mode.is_empty() {
            host.ipc_mode.clone_from(&self.ipc_mode);
        }
        if host.cgroupns_mode.is_empty() {
            host.cgroupns_mode.clone_from(&self.cgroupns_mode);
        }
    }
}

/// IPv6 of the network `bridge`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BridgeIpv6 {
    /// One of RFC 4193, made once.
    Any,
    Subnet(Ipv6Net),
}

/// Networks that are made without a subnet get one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressPool {
    pub base: Ipv4Net,
    /// Prefix length of each subnet. *Range:* from the base's to 30.
    pub size: u8,
}

impl Defaults {
    /// Fills in what a new container does not say.
    pub(crate) fn fill(&self, config: &mut ContainerConfig) {
        let host = &mut config.host;
        self.containers.fill(host);
        if host.log.driver.is_empty() {
            host.log.driver.clone_from(&self.log.driver);
            for (key, value) in &self.log.options {
                host.log.options.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        for limit in &self.ulimits {
            if !host.ulimits.iter().any(|own| own.name == limit.name) {
                host.ulimits.push(limit.clone());
            }
        }
    }

    /// Returns the subnets for networks that ask for none, in the order of use.
    pub(crate) fn subnets(&self) -> Box<dyn Iterator<Item = Ipv4Net> + Send> {
        if self.address_pools.is_empty() {
            return Box::new(dockers_pools());
        }
        let pools = self.address_pools.clone();
        Box::new(pools.into_iter().flat_map(|pool| pool.base.subnets(pool.size).into_iter().flatten()))
    }
}

/// Docker's pools for local networks: 172.18/16 .. 172.31/16, then 192.168.0/20 .. 192.168.240/20.
fn dockers_pools() -> impl Iterator<Item = Ipv4Net> {
    let big = (18..=31).map(|n| (Ipv4Addr::new(172, n, 0, 0), 16));
    let small = (0..16).map(|n| (Ipv4Addr::new(192, 168, n * 16, 0), 20));
    big.chain(small).filter_map(|(address, prefix)| Ipv4Net::new(address, prefix).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_dockers_and_do_not_overlap() {
        let all: Vec<_> = Defaults::default().subnets().collect();
        assert_eq!(all[0].to_string(), "172.18.0.0/16");
        assert_eq!(all.len(), 30);
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| !a.contains(b) && !b.contains(a)), "{a}");
        }
    }

    #[test]
    fn an_operators_pools_are_cut_into_subnets() {
        let pool = AddressPool { base: "10.9.0.0/16".parse().unwrap(), size: 24 };
        let defaults = Defaults { address_pools: vec![pool], ..Defaults::default() };
        let all: Vec<_> = defaults.subnets().collect();
        assert_eq!((all.len(), all[1].to_string().as_str()), (256, "10.9.1.0/24"));
    }

    #[test]
    fn a_container_keeps_what_it_says_itself() {
        let ulimit = |name: &str, soft| Ulimit { name: name.into(), soft, hard: soft };
        let defaults = Defaults {
            log: LogConfig { driver: "json-file".into(), options: [("max-size".into(), "1m".into())].into() },
            ulimits: vec![ulimit("nofile", 100), ulimit("nproc", 7)],
            ..Defaults::default()
        };
        let mut config = ContainerConfig::default();
        config.host.ulimits = vec![ulimit("nofile", 5)];
        defaults.fill(&mut config);
        assert_eq!(config.host.ulimits, [ulimit("nofile", 5), ulimit("nproc", 7)]);
        assert_eq!(config.host.log, defaults.log);
        config.host.log = LogConfig { driver: "none".into(), ..LogConfig::default() };
        defaults.fill(&mut config);
        assert!(config.host.log.options.is_empty());
    }

    #[test]
    fn containers_that_do_not_say_otherwise_have_what_the_operator_says() {
        let containers = ContainerDefaults {
            dns_search: vec!["lan".to_owned()],
            init: true,
            no_new_privileges: true,
            seccomp: Some("unconfined".to_owned()),
            shm_size_bytes: Some(1 << 20),
            ipc_mode: "shareable".to_owned(),
            cgroupns_mode: "host".to_owned(),
            ..ContainerDefaults::default()
        };
        let fill = |host: HostConfig| {
            let mut config = ContainerConfig { host, ..ContainerConfig::default() };
            Defaults { containers: containers.clone(), ..Defaults::default() }.fill(&mut config);
            config.host
        };
        let silent = fill(HostConfig::default());
        assert_eq!((silent.init, silent.shm_size_bytes), (Some(true), Some(1 << 20)));
        assert_eq!(silent.security_opts, ["no-new-privileges", "seccomp=unconfined"]);
        assert_eq!((silent.ipc_mode.as_str(), silent.cgroupns_mode.as_str()), ("shareable", "host"));
        assert_eq!(silent.dns_search, ["lan"]);
        let says = HostConfig {
            init: Some(false),
            shm_size_bytes: Some(7),
            ipc_mode: "private".to_owned(),
            dns_search: vec!["own".to_owned()],
            security_opts: vec!["no-new-privileges:false".to_owned(), "seccomp=builtin".to_owned()],
            ..HostConfig::default()
        };
        let said = fill(says.clone());
        assert_eq!((said.init, said.shm_size_bytes), (Some(false), Some(7)));
        assert_eq!((said.ipc_mode, said.dns_search), (says.ipc_mode, says.dns_search));
        assert_eq!(said.security_opts, says.security_opts);
        let host = HostConfig { network_mode: NetworkMode::Host, privileged: true, ..HostConfig::default() };
        let host = fill(host);
        assert!(host.dns_search.is_empty(), "its names are the host's");
        assert_eq!(host.security_opts, ["no-new-privileges"], "all privileges are not held by a profile");
    }
}
