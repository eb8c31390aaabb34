//! The change feed as people see it.

use super::redacted;
use crate::shared::Shared;
use futures::{StreamExt as _, stream, stream::BoxStream};
use model::{Event, Object};
use proto::{
    control::{WatchEvent, watch_event::Action},
    types::ObjectKind,
};
use std::collections::VecDeque;
use tonic::Status;

/// Returns the changes after `since` (0: from now on) of these kinds (none: all), until the caller leaves.
pub(super) fn follow(
    shared: &Shared,
    since: u64,
    kinds: Vec<ObjectKind>,
) -> BoxStream<'static, Result<WatchEvent, Status>> {
    let after = if since == 0 { shared.store.view().index } else { since };
    let feed = shared.store.feed(after);
    let cancel = shared.cancel.clone();
    let state = (feed, cancel, VecDeque::new(), kinds, false);
    stream::unfold(state, |(mut feed, cancel, mut ready, kinds, over)| async move {
        loop {
            if over {
                return None;
            }
            if let Some(event) = ready.pop_front() {
                return Some((Ok(event), (feed, cancel, ready, kinds, false)));
            }
            let next = tokio::select! {
                () = cancel.cancelled() => return None,
                next = feed.next() => next,
            };
            match next {
                Ok(Some((index, events))) => {
                    let wanted = events.iter().filter(|e| kinds.is_empty() || kinds.contains(&kind_of(e)));
                    ready.extend(wanted.map(|event| to_wire(index, event)));
                }
                Ok(None) => return None,
                Err(lagged) => {
                    let status = Status::out_of_range(lagged.to_string());
                    return Some((Err(status), (feed, cancel, ready, kinds, true)));
                }
            }
        }
    })
    .boxed()
}

fn kind_of(event: &Event) -> ObjectKind {
    match event.key() {
        model::ObjectRef::Cluster => ObjectKind::Cluster,
        model::ObjectRef::Node(_) => ObjectKind::Node,
        model::ObjectRef::Service(_) => ObjectKind::Service,
        model::ObjectRef::Task(_) => ObjectKind::Task,
        model::ObjectRef::Network(_) => ObjectKind::Network,
        model::ObjectRef::Secret(_) => ObjectKind::Secret,
        model::ObjectRef::Config(_) => ObjectKind::Config,
        model::ObjectRef::Stack(_) => ObjectKind::Stack,
    }
}

fn to_wire(index: u64, event: &Event) -> WatchEvent {
    let wire = |object: &Object| Some((&redacted(object.clone())).into());
    let (action, object, old) = match event {
        Event::Created(new) => (Action::Created, wire(new), None),
        Event::Updated(old, new) => (Action::Updated, wire(new), wire(old)),
        Event::Deleted(old) => (Action::Deleted, wire(old), None),
    };
    WatchEvent { index, action: action as i32, object, old }
}
