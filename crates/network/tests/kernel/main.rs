//! The network service on a real kernel, by its public calls: hosts are network namespaces. As root, or as uid 0 of a
//! user namespace. No other program is needed: what `ip`, `nft` and the like would be asked for is said by netlink
//! ([`by_hand`], [`nft`]), and [`oracle`] holds that against these programs.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod attacks;
mod bridge;
mod by_hand;
mod firewalls;
mod flows;
mod ipv6;
mod lab;
mod macvlan;
mod mesh;
mod netlink;
mod nft;
mod oracle;
mod overlay;
mod upkeep;
