//! What the containers of this host have under way at their name servers here: each question to the outside and each
//! connection is a descriptor of this process, for as long as somebody else is silent.
//!
//! A container may have one more while it has fewer than are left to all others, as people at a manager may (dynamic
//! thresholds of shared buffers, with a factor of 1).

use nix::sys::resource::{Resource, getrlimit};
use std::sync::{Arc, Mutex, PoisonError};

/// *Limit* where descriptors are plenty.
const ASKING_MAX: usize = 4096;

/// Places of all containers; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Asking(Arc<Mutex<usize>>);

impl Asking {
    pub(crate) fn new(places: usize) -> Self {
        Self(Arc::new(Mutex::new(places)))
    }

    /// One of sixteen descriptors that this process may have: the others are for containers, ports, nodes and clients.
    pub(crate) fn for_descriptors() -> Self {
        let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
        Self::new(usize::try_from(soft / 16).unwrap_or(usize::MAX).min(ASKING_MAX))
    }

    /// Returns the share of one container.
    pub(crate) fn share(&self) -> Share {
        Share { free: self.clone(), own: Arc::default() }
    }
}

/// What one container has of them.
#[derive(Debug, Clone)]
pub(crate) struct Share {
    free: Asking,
    own: Arc<Mutex<usize>>,
}

impl Share {
    /// Gives a place until the result is dropped; `None`: it has as many as are left to all others.
    pub(crate) fn begin(&self) -> Option<Asked> {
        let mut free = self.free.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if *own >= *free {
            return None;
        }
        *free -= 1;
        *own += 1;
        Some(Asked(self.clone()))
    }
}

#[derive(Debug)]
pub(crate) struct Asked(Share);

impl Drop for Asked {
    fn drop(&mut self) {
        *self.0.free.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        *self.0.own.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_asks_without_end_leaves_descriptors_to_others() {
        let asking = Asking::new(16);
        let all_of = |share: &Share| std::iter::from_fn(|| share.begin()).collect::<Vec<_>>();
        let shares = [(); 5].map(|()| asking.share());
        let held: Vec<_> = shares.iter().map(all_of).collect();
        assert_eq!(held.iter().map(Vec::len).collect::<Vec<_>>(), [8, 4, 2, 1, 1]);
        assert!(asking.share().begin().is_none(), "there is none any more");
        drop(held);
        assert_eq!(all_of(&shares[4]).len(), 8);
    }
}
