//! The front door: the Docker Engine REST API of this host and of the swarm, and a client for it.
//!
//! ```text
//!  docker CLI, docker-py, rswarm ---HTTP---> server --.-- engine            containers of this host
//!                                                     |-- Swarm::control    objects of the swarm (gRPC)
//!                                                     '-- Swarm::tunnel     containers of another host (HTTP again)
//! ```
//!
//! [`types`] is Docker's JSON and nothing else; [`detach_keys`] what both ends look for in what is typed; [`convert`] turns it into the nouns of `model` and back;
//! [`server`] answers; [`client`] asks; [`tls`] proves who both are. Docker JSON never travels further inward than `convert`.
//!
//! *Start reading at* [`server::FrontDoor`].
#![recursion_limit = "256"]

pub mod client;
pub mod convert;
pub mod detach_keys;
pub mod server;
pub mod tls;
pub mod types;
