//! The change feed as people see it.

use super::redacted;
use crate::{
    authorize::{Caller, Method, still},
    shared::Shared,
};
use futures::{StreamExt as _, stream, stream::BoxStream};
use model::{Event, Object};
use proto::{
    control::{WatchEvent, watch_event::Action},
    types::ObjectKind,
};
use std::{collections::VecDeque, sync::Arc};
use tonic::Status;

/// Returns the changes after `since` (0: from now on) of these kinds, until the caller leaves.
pub(super) fn follow(
    shared: &Arc<Shared>,
    caller: Caller,
    since: u64,
    kinds: Vec<ObjectKind>,
) -> BoxStream<'static, Result<WatchEvent, Status>> {
    let after = if since == 0 { shared.store.view().index } else { since };
    let feed = shared.store.feed(after);
    let state = (feed, Watcher { shared: shared.clone(), caller }, VecDeque::new(), kinds, false);
    stream::unfold(state, |(mut feed, watcher, mut ready, kinds, over)| async move {
        loop {
            if over {
                return None;
            }
            if let Some(event) = ready.pop_front() {
                return Some((Ok(event), (feed, watcher, ready, kinds, false)));
            }
            let next = tokio::select! {
                () = watcher.shared.cancel.cancelled() => return None,
                next = feed.next() => next,
            };
            if !watcher.may_still() {
                let status = Status::permission_denied("the rights to watch are gone");
                return Some((Err(status), (feed, watcher, ready, kinds, true)));
            }
            match next {
                Ok(Some((index, events))) => {
                    let wanted = events.iter().filter(|e| kinds.contains(&kind_of(e)));
                    ready.extend(wanted.map(|event| to_wire(index, event)));
                }
                Ok(None) => return None,
                Err(lagged) => {
                    let status = Status::out_of_range(lagged.to_string());
                    return Some((Err(status), (feed, watcher, ready, kinds, true)));
                }
            }
        }
    })
    .boxed()
}

/// Whoever is at the other end of the stream.
struct Watcher {
    shared: Arc<Shared>,
    caller: Caller,
}

impl Watcher {
    fn may_still(&self) -> bool {
        still(Method::Watch, &self.caller, &self.shared.store.view(), (self.shared.clock)())
    }
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
        model::ObjectRef::User(_) => ObjectKind::User,
        model::ObjectRef::Audit(_) => ObjectKind::Audit,
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
