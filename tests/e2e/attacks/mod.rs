//! What attackers do, and do not get: each file is one of them, with what that one has in hand.

mod damage;
mod fields;
mod flood;
mod host;
mod identity;
mod load;
mod neighbour;
mod people;

pub(crate) use host::post;
pub(crate) use people::dockers_cli_is_a_user;
