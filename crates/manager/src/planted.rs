//! Where tests plant mistakes in what a manager does, to see that they are found. None of it is in the program.

use model::{Batch, NodeId, Tables};
use std::{
    cell::RefCell,
    sync::{Arc, Mutex, PoisonError},
};

/// A mistake in what managers write.
pub(crate) type InBatch = Box<dyn FnMut(&Tables, Batch) -> Batch + Send>;
/// Tells whether a member stays in Raft that is to go, by the node that it is of.
pub(crate) type Stays = Box<dyn FnMut(&Tables, Option<NodeId>) -> bool + Send>;

/// What all managers of a thread do wrong.
#[derive(Default)]
pub(crate) struct Planted {
    pub(crate) in_batch: Option<InBatch>,
    /// Who takes a member out of Raft is told that it is out.
    pub(crate) stays: Option<Stays>,
    /// Who takes a manager into Raft is told that it is in.
    pub(crate) nobody_joins: bool,
    /// Each manager answers by its own replica.
    pub(crate) reads_of_its_own: bool,
}

thread_local! {
    static HERE: RefCell<Option<Arc<Mutex<Planted>>>> = const { RefCell::new(None) };
}

/// Has all managers of this thread do this wrong from now on; `None`: nothing.
pub(crate) fn plant(planted: Option<Planted>) {
    HERE.set(planted.map(|planted| Arc::new(Mutex::new(planted))));
}

fn asked<T>(ask: impl FnOnce(&mut Planted) -> T) -> Option<T> {
    let here = HERE.with_borrow(Clone::clone)?;
    let mut planted = here.lock().unwrap_or_else(PoisonError::into_inner);
    Some(ask(&mut planted))
}

pub(crate) fn in_batch(view: &Tables, batch: Batch) -> Batch {
    let mut batch = Some(batch);
    let made = asked(|planted| Some(planted.in_batch.as_mut()?(view, batch.take()?))).flatten();
    made.or(batch).expect("it was given")
}

pub(crate) fn stays_in_raft(view: &Tables, node: Option<NodeId>) -> bool {
    asked(|planted| planted.stays.as_mut().is_some_and(|stays| stays(view, node))).unwrap_or(false)
}

pub(crate) fn nobody_joins() -> bool {
    asked(|planted| planted.nobody_joins).unwrap_or(false)
}

pub(crate) fn reads_of_its_own() -> bool {
    asked(|planted| planted.reads_of_its_own).unwrap_or(false)
}
