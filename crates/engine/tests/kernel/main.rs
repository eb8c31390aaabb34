//! The engine on a real kernel, by its public calls. As root with cgroups; as an ordinary user in a user namespace
//! with one uid, where what needs a cgroup or a second uid asks for the warning or the squashed id instead.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

mod adoption;
mod build;
mod copies;
mod devices;
mod escape;
mod exec;
mod full_disk;
mod health;
mod inventory;
mod killed;
mod kit;
mod leftovers;
mod life;
mod limits;
mod networks;
mod remap;
mod run;
mod volume_archive;
mod volumes;
