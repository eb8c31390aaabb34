//! What an operator sets once for all containers and networks of a host. *Source:* dockerd(8), `daemon.json`.

use crate::{
    ask::config::{ContainerConfig, LogConfig},
    error::{Error, Result},
};
use ipnet::{Ipv4Net, Ipv6Net};
use model::{GenericResources, Ulimit};
use std::net::Ipv4Addr;

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
    /// `node-generic-resources`: what tasks of a swarm can reserve here beside vendors' devices.
    pub generic_resources: GenericResources,
    /// `cdi-spec-dirs`; empty = vendors' devices are not looked for.
    pub cdi_spec_dirs: Vec<std::path::PathBuf>,
    /// `builder.gc.defaultKeepStorage`: how much of earlier builds is kept. `None` = a tenth of the disk.
    /// *Unit:* bytes.
    pub build_cache_max_bytes: Option<u64>,
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
    /// # Errors
    /// `InvalidParameter` with the key that cannot be used.
    pub(crate) fn check(&self) -> Result<()> {
        for pool in &self.address_pools {
            if !(pool.base.prefix_len()..=30).contains(&pool.size) {
                return Err(Error::invalid(format!(
                    "default-address-pools: size {} is not between the prefix length of {} and 30",
                    pool.size, pool.base
                )));
            }
        }
        if let Some(bridge) = self.bridge
            && (bridge.addr() == bridge.network() || bridge.prefix_len() > 30)
        {
            return Err(Error::invalid(format!(
                "bip: {bridge} is not an address of the bridge in its network, as in 172.17.0.1/16"
            )));
        }
        crate::logs::driver::check(&self.log)
    }

    /// Fills in what a new container does not say.
    pub(crate) fn fill(&self, config: &mut ContainerConfig) {
        let host = &mut config.host;
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
        for size in [15, 31] {
            let pools = vec![AddressPool { size, ..pool }];
            let error = Defaults { address_pools: pools, ..Defaults::default() }.check().unwrap_err();
            assert!(error.to_string().contains("default-address-pools"), "{error}");
        }
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
}
