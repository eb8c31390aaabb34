//! `extra_hosts`: names that a container or a build has beside those of DNS.

use crate::{Error, read::Item};
use std::net::IpAddr;

/// Returns `IP host` lines.
pub(crate) fn hosts(item: &Item<'_>) -> Result<Vec<String>, Error> {
    let mut lines = Vec::new();
    if item.is_map() {
        for (host, addresses, _) in item.entries()? {
            for address in addresses.items_or_one()? {
                lines.push(host_line(&address, host, &address.string()?)?);
            }
        }
        return Ok(lines);
    }
    for entry in item.items()? {
        let text = entry.string()?;
        let (host, address) = text
            .split_once('=')
            .or_else(|| text.split_once(':'))
            .ok_or_else(|| entry.invalid(format!("invalid extra host {text:?}: want HOST:IP")))?;
        lines.push(host_line(&entry, host, address)?);
    }
    Ok(lines)
}

fn host_line(item: &Item<'_>, host: &str, address: &str) -> Result<String, Error> {
    let address = address.trim().trim_start_matches('[').trim_end_matches(']');
    // Each node puts its own in.
    if address == "host-gateway" {
        return Ok(format!("{address} {host}"));
    }
    address.parse::<IpAddr>().map_err(|_| item.invalid(format!("{address:?} is not an IP address")))?;
    Ok(format!("{address} {host}"))
}
