//! Whether an operator's defaults can be used: their values have the judges that a container's and a network's have, as
//! if somebody had typed them there.

use crate::{
    ask::{
        config::ContainerConfig,
        defaults::{ContainerDefaults, Defaults},
    },
    error::{Error, Result},
};

/// Tells whether these can be used.
///
/// # Errors
/// `InvalidParameter` with the key that cannot be.
pub fn check(defaults: &Defaults) -> Result<()> {
    for pool in &defaults.address_pools {
        if !(pool.base.prefix_len()..=30).contains(&pool.size) {
            return Err(Error::invalid(format!(
                "default-address-pools: size {} is not between the prefix length of {} and 30",
                pool.size, pool.base
            )));
        }
    }
    if let Some(bridge) = defaults.bridge
        && (bridge.addr() == bridge.network() || bridge.prefix_len() > 30)
    {
        return Err(Error::invalid(format!(
            "bip: {bridge} is not an address of the bridge in its network, as in 172.17.0.1/16"
        )));
    }
    containers(&defaults.containers)?;
    for (driver, options) in &defaults.network_options {
        crate::networks::local::judge_options(options)
            .map_err(|e| Error::invalid(format!("default-network-opts: {driver}: {e}")))?;
    }
    crate::logs::driver::check(&defaults.log)
        .map_err(|e| Error::invalid(format!("log-driver, log-opts: {e}")))
}

/// Each of them alone, for the error to name it.
fn containers(defaults: &ContainerDefaults) -> Result<()> {
    let ContainerDefaults {
        dns_search, dns_options, seccomp, shm_size_bytes, ipc_mode, cgroupns_mode, ..
    } = defaults.clone();
    let no = ContainerDefaults::default;
    for (key, alone) in [
        ("dns-search", ContainerDefaults { dns_search, ..no() }),
        ("dns-opts", ContainerDefaults { dns_options, ..no() }),
        ("seccomp-profile", ContainerDefaults { seccomp, ..no() }),
        ("default-shm-size", ContainerDefaults { shm_size_bytes, ..no() }),
        ("default-ipc-mode", ContainerDefaults { ipc_mode, ..no() }),
        ("default-cgroupns-mode", ContainerDefaults { cgroupns_mode, ..no() }),
    ] {
        let mut typed = ContainerConfig { image: "any".to_owned(), ..ContainerConfig::default() };
        alone.fill(&mut typed.host);
        crate::ask::gate::check(&typed).map_err(|e| Error::invalid(format!("{key}: {e}")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::defaults::AddressPool;

    #[test]
    fn what_cannot_be_used_is_named_by_its_key() {
        let pools = |size| {
            let pool = AddressPool { base: "10.9.0.0/16".parse().unwrap(), size };
            Defaults { address_pools: vec![pool], ..Defaults::default() }
        };
        let of = |containers| Defaults { containers, ..Defaults::default() };
        let no = ContainerDefaults::default;
        check(&Defaults::default()).unwrap();
        check(&pools(24)).unwrap();
        check(&of(ContainerDefaults { init: true, no_new_privileges: true, ..no() })).unwrap();
        for (defaults, key) in [
            (pools(15), "default-address-pools"),
            (pools(31), "default-address-pools"),
            (Defaults { bridge: "10.1.0.0/16".parse().ok(), ..Defaults::default() }, "bip"),
            (of(ContainerDefaults { ipc_mode: "sharing".to_owned(), ..no() }), "default-ipc-mode"),
            (of(ContainerDefaults { seccomp: Some("{".to_owned()), ..no() }), "seccomp-profile"),
            (of(ContainerDefaults { dns_options: vec!["a b".to_owned()], ..no() }), "dns-opts"),
        ] {
            let error = check(&defaults).unwrap_err().to_string();
            assert!(error.starts_with(key), "{error}");
        }
    }
}
