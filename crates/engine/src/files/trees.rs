//! Who has the files of a container that is down before him. They are mounted for it, and a start mounts them too: an
//! overlay whose upper folder two mounts have is in nobody's hands. *Source:* kernel `filesystems/overlayfs.rst`, "Sharing
//! and copying layers".

use crate::error::{Error, Result};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};
use tokio::{
    sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock},
    time::timeout,
};

/// How long a start waits for those who look.
const LOOKS_LIMIT: Duration = Duration::from_secs(60);

/// By container; nothing is kept of those that nobody looks into or starts.
#[derive(Debug, Default)]
pub(crate) struct Trees(Mutex<BTreeMap<String, Weak<RwLock<()>>>>);

impl Trees {
    fn of(&self, container: &str) -> Arc<RwLock<()>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, gate| gate.strong_count() > 0);
        if let Some(gate) = all.get(container).and_then(Weak::upgrade) {
            return gate;
        }
        let gate = Arc::new(RwLock::new(()));
        all.insert(container.to_owned(), Arc::downgrade(&gate));
        gate
    }

    /// Waits while the container is being started; it is not started before what is returned is dropped.
    pub(crate) async fn look(&self, container: &str) -> OwnedRwLockReadGuard<()> {
        self.of(container).read_owned().await
    }

    /// Waits until nobody looks, and keeps others from it until what is returned is dropped.
    ///
    /// # Errors
    /// `Conflict`: somebody still looks after a minute.
    pub(crate) async fn start(&self, container: &str) -> Result<OwnedRwLockWriteGuard<()>> {
        self.start_within(LOOKS_LIMIT, container).await
    }

    async fn start_within(&self, limit: Duration, container: &str) -> Result<OwnedRwLockWriteGuard<()>> {
        timeout(limit, self.of(container).write_owned()).await.map_err(|_| {
            Error::Conflict(format!(
                "files of container {container} are being copied; hint: start it when that has ended"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_start_waits_for_those_who_look_and_they_for_a_start() {
        let trees = Trees::default();
        let soon = Duration::from_millis(20);
        let (one, other) = (trees.look("a").await, trees.look("a").await);
        assert!(trees.start("b").await.is_ok(), "another container");
        let refused = trees.start_within(soon, "a").await.unwrap_err();
        assert!(refused.to_string().contains("container a are being copied"), "{refused}");
        drop((one, other));
        let starting = trees.start("a").await.unwrap();
        assert!(timeout(soon, trees.look("a")).await.is_err());
        drop(starting);
        drop(trees.look("a").await);
        drop(trees.look("c").await);
        assert_eq!(trees.0.lock().unwrap().len(), 1, "who is not looked into is forgotten");
    }
}
