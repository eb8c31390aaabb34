//! Containers on a real kernel. As root with cgroups; as an ordinary user in a user namespace with one uid, where
//! what needs a cgroup or a second uid asks for the warning or the squashed id instead.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

mod cgroups;
mod kit;
mod life;
mod oci;
mod security;
mod streams;
mod users;
