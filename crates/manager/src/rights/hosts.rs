//! What of a service would reach beyond its containers into the hosts that run it: that takes an admin.

use model::{ServiceSpec, confine::is_near};

/// Returns an error if containers of this service would reach beyond themselves into their host.
pub(super) fn stays_off_hosts(spec: &ServiceSpec) -> Result<(), String> {
    let logs = || {
        let driver = spec.task.log_driver.as_ref()?;
        let address = driver.options.values().find(|value| is_of_the_host(value))?;
        Some(format!("a log driver that writes to {address}"))
    };
    match spec.task.container.reach().or_else(logs) {
        Some(what) => Err(format!("{what} reaches into the host: that takes role admin")),
        None => Ok(()),
    }
}

/// Returns true for the address of a log service that only the host itself reaches: a socket of a file, or one that
/// listens on loopback. Names that mean such addresses are refused on the node, which looks them up.
fn is_of_the_host(address: &str) -> bool {
    let Some((scheme, rest)) = address.split_once("://") else { return false };
    if scheme.trim().to_ascii_lowercase().starts_with("unix") {
        return true;
    }
    let host = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, _)) => v6,
        None => rest.split([':', '/']).next().unwrap_or_default(),
    };
    let lower = host.trim_end_matches('.').to_ascii_lowercase();
    lower == "localhost" || lower.ends_with(".localhost") || host.parse().is_ok_and(is_near)
}
