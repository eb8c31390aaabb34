//! The change feed: what each applied entry did, kept for a while so that a reader can catch up.

use model::Event;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// Events kept for slow readers, and how much memory they may hold. *Unit:* bytes.
const KEPT: usize = 64 * 1024;
const KEPT_BYTES: usize = 16 << 20;

/// The feed no longer has what comes next: read a view anew and follow from its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("changes after index {after} are no longer kept: read the state anew")]
pub struct Lagged {
    pub after: u64,
}

/// The Raft index of an applied entry, and what it did.
pub type Applied = (u64, Arc<[Event]>);

#[derive(Debug)]
pub(crate) struct Ring {
    state: Mutex<State>,
    applied: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// Everything behind this index is here.
    floor: u64,
    changes: VecDeque<Kept>,
    events: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    applied: Applied,
    bytes: usize,
}

impl Ring {
    pub(crate) fn new(index: u64) -> Self {
        let state = State { floor: index, ..State::default() };
        Self { state: Mutex::new(state), applied: watch::Sender::new(index) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that `index` is applied and what it did. `bytes`: about how much memory that holds.
    pub(crate) fn push(&self, index: u64, events: Vec<Event>, bytes: usize) {
        if !events.is_empty() {
            let mut state = self.lock();
            state.events += events.len();
            state.bytes += bytes;
            state.changes.push_back(Kept { applied: (index, events.into()), bytes });
            // The newest stays, whatever its size: somebody waits for it.
            while (state.events > KEPT || state.bytes > KEPT_BYTES)
                && state.changes.len() > 1
                && let Some(Kept { applied: (index, events), bytes }) = state.changes.pop_front()
            {
                state.events -= events.len();
                state.bytes -= bytes;
                state.floor = index;
            }
        }
        self.applied.send_replace(index);
    }

    /// Begins anew behind a state that was not reached change by change.
    pub(crate) fn reset(&self, index: u64) {
        *self.lock() = State { floor: index, ..State::default() };
        self.applied.send_replace(index);
    }

    pub(crate) fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    pub(crate) fn follow(self: &Arc<Self>, after: u64) -> Feed {
        Feed { ring: self.clone(), applied: self.applied.subscribe(), after }
    }

    /// Returns all changes that are kept, oldest first.
    pub(crate) fn kept(&self) -> Vec<Applied> {
        self.lock().changes.iter().map(|kept| kept.applied.clone()).collect()
    }

    /// Returns the first changes behind `after`; `None` if there are none yet.
    fn next(&self, after: u64) -> Result<Option<Applied>, Lagged> {
        let state = self.lock();
        if after < state.floor {
            return Err(Lagged { after });
        }
        let position = state.changes.partition_point(|kept| kept.applied.0 <= after);
        Ok(state.changes.get(position).map(|kept| kept.applied.clone()))
    }
}

/// Follows the changes behind an index.
#[derive(Debug)]
pub struct Feed {
    ring: Arc<Ring>,
    applied: watch::Receiver<u64>,
    after: u64,
}

impl Feed {
    /// Returns the index behind which the next changes are looked for.
    pub fn position(&self) -> u64 {
        self.after
    }

    /// Waits for the next applied entry that changed something, and returns its index and what it did. `None` when
    /// the store is shut down.
    ///
    /// # Errors
    /// [`Lagged`]: changes were missed. The feed stays where it is; begin a new one from a fresh view.
    ///
    /// # Cancel safety
    /// Nothing is lost when it is dropped while waiting.
    pub async fn next(&mut self) -> Result<Option<Applied>, Lagged> {
        loop {
            self.applied.borrow_and_update();
            if let Some((index, events)) = self.ring.next(self.after)? {
                self.after = index;
                return Ok(Some((index, events)));
            }
            if self.applied.changed().await.is_err() {
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Object, Secret, SecretBytes, SecretId, SecretSpec};

    fn event(n: u64) -> Event {
        let spec = SecretSpec {
            templated: false,
            name: n.to_string(),
            labels: model::Labels::new(),
            data: SecretBytes::default(),
        };
        Event::Created(Object::Secret(Arc::new(Secret {
            id: SecretId(u128::from(n)),
            meta: model::Meta::default(),
            spec,
        })))
    }

    #[tokio::test]
    async fn a_reader_sees_every_change_behind_its_index_in_order() {
        let ring = Arc::new(Ring::new(3));
        ring.push(4, vec![event(4)], 1);
        ring.push(5, Vec::new(), 1);
        ring.push(6, vec![event(6), event(7)], 1);
        let mut feed = ring.follow(4);
        assert_eq!(feed.next().await.unwrap().unwrap().0, 6);
        ring.push(8, vec![event(8)], 1);
        assert_eq!(feed.next().await.unwrap().unwrap().0, 8);
    }

    #[tokio::test]
    async fn a_reader_too_far_behind_is_told_so() {
        let ring = Arc::new(Ring::new(3));
        assert_eq!(ring.follow(2).next().await, Err(Lagged { after: 2 }));
        for index in 4..10 {
            ring.push(index, (0..KEPT as u64 / 4).map(event).collect(), 1);
        }
        assert!(ring.follow(4).next().await.is_err());
        assert!(ring.follow(9 - 3).next().await.is_ok());
        ring.reset(100);
        assert!(ring.follow(9).next().await.is_err());
    }

    #[tokio::test]
    async fn large_changes_are_kept_for_as_long_as_there_is_memory_for_them() {
        let ring = Arc::new(Ring::new(0));
        for index in 1..=8 {
            ring.push(index, vec![event(index)], KEPT_BYTES / 4);
        }
        assert_eq!(ring.follow(3).next().await, Err(Lagged { after: 3 }));
        assert_eq!(ring.follow(4).next().await.unwrap().unwrap().0, 5);
        ring.push(9, vec![event(9)], KEPT_BYTES * 2);
        assert_eq!(ring.follow(7).next().await, Err(Lagged { after: 7 }));
        assert_eq!(ring.follow(8).next().await.unwrap().unwrap().0, 9, "who keeps up misses nothing");
        ring.push(10, vec![event(10)], 1);
        assert_eq!(ring.follow(9).next().await.unwrap().unwrap().0, 10);
        assert!(ring.follow(8).next().await.is_err(), "then the large one goes");
    }
}
