//! Who is here: containers by id, name and prefix. Names are reserved before a container is made.

use crate::{
    error::{Error, Result},
    life::command::Command,
    seen::container::Container,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{mpsc, watch};

/// How the rest of the engine reaches one container's owner.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) view: watch::Receiver<Arc<Container>>,
}

#[derive(Debug, Default)]
struct Known {
    by_id: BTreeMap<String, Handle>,
    /// Name -> id, also of containers that are being made.
    names: BTreeMap<String, String>,
    /// Containers whose records cannot be understood.
    unreadable: Vec<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Registry {
    known: Mutex<Known>,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves a name for a container id.
    pub(crate) fn reserve(&self, name: &str, id: &str) -> Result<()> {
        let mut known = self.lock();
        match known.names.get(name) {
            Some(holder) if holder != id => {
                Err(Error::NameInUse { name: name.to_owned(), holder: holder.clone() })
            }
            _ => {
                known.names.insert(name.to_owned(), id.to_owned());
                Ok(())
            }
        }
    }

    /// Gives a name back, if it is still that container's.
    pub(crate) fn release(&self, name: &str, id: &str) {
        let mut known = self.lock();
        if known.names.get(name).is_some_and(|holder| holder == id) {
            known.names.remove(name);
        }
    }

    /// Remembers the ids of containers whose records cannot be understood.
    pub(crate) fn note_unreadable(&self, ids: Vec<String>) {
        self.lock().unreadable = ids;
    }

    pub(crate) fn forget_unreadable(&self, id: &str) {
        self.lock().unreadable.retain(|known| known != id);
    }

    /// Returns the id of the unreadable container that is meant: by its id or a unique beginning of it.
    pub(crate) fn unreadable(&self, wanted: &str) -> Option<String> {
        let known = self.lock();
        let mut meant = known.unreadable.iter().filter(|id| !wanted.is_empty() && id.starts_with(wanted));
        match (meant.next(), meant.next()) {
            (Some(id), None) => Some(id.clone()),
            _ => None,
        }
    }

    pub(crate) fn insert(&self, id: &str, handle: Handle) {
        self.lock().by_id.insert(id.to_owned(), handle);
    }

    /// Forgets a container and its name.
    pub(crate) fn remove(&self, id: &str) {
        let mut known = self.lock();
        known.by_id.remove(id);
        known.names.retain(|_, holder| holder != id);
    }

    /// Finds by full id, name (with or without `/`), or unique prefix of an id.
    pub(crate) fn find(&self, wanted: &str) -> Result<Handle> {
        let known = self.lock();
        let name = wanted.strip_prefix('/').unwrap_or(wanted);
        let exact =
            known.by_id.get(wanted).or_else(|| known.names.get(name).and_then(|id| known.by_id.get(id)));
        if let Some(handle) = exact {
            return Ok(handle.clone());
        }
        if wanted.is_empty() {
            return Err(Error::NoSuchContainer(wanted.to_owned()));
        }
        let mut matching =
            known.by_id.range(wanted.to_owned()..).take_while(|(id, _)| id.starts_with(wanted));
        match (matching.next(), matching.next()) {
            (Some((_, handle)), None) => Ok(handle.clone()),
            (None, _) => Err(Error::NoSuchContainer(wanted.to_owned())),
            (Some(_), Some(_)) => Err(Error::AmbiguousPrefix(wanted.to_owned())),
        }
    }

    /// Returns those that have links to others.
    pub(crate) fn linked(&self) -> Vec<Arc<Container>> {
        let known = self.lock();
        let all = known.by_id.values().map(|handle| handle.view.borrow().clone());
        all.filter(|container| !container.config.host.links.is_empty()).collect()
    }

    /// Returns the present snapshots, newest first.
    pub(crate) fn snapshots(&self) -> Vec<Arc<Container>> {
        let mut all: Vec<_> = self.lock().by_id.values().map(|h| h.view.borrow().clone()).collect();
        all.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| a.id.cmp(&b.id)));
        all
    }
}
