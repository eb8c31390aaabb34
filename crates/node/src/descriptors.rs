//! The descriptors of the daemon: as many as it may have, shared out so that containers always have theirs.
//!
//! Of all there are, three eighths are for other nodes and strangers ([`pki::tls::Limits`]), a quarter is for clients
//! of the front door; the rest is for containers, images and the cluster's log.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// *Limit* of clients' connections, however many descriptors there are.
const CLIENTS_MAX: u64 = 4096;

/// Raises the soft limit to the hard one and returns what it was before.
pub(crate) fn raise() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let before = limit.current.unwrap_or(u64::MAX);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
    {
        tracing::warn!(%error, limit = before, "cannot raise the limit of descriptors");
    }
    before
}

/// Returns how many there may be.
pub(crate) fn count() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Returns how many clients of the front door may be connected.
pub(crate) fn for_clients() -> usize {
    usize::try_from((count() / 4).min(CLIENTS_MAX)).unwrap_or(usize::MAX)
}
