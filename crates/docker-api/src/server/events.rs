//! `/events`: what happened on this host and, on a manager, in its swarm, as lines of JSON.

use super::{
    ApiError, State, filters,
    request::{Params, Use},
    routing::get,
    system::now,
};
use crate::types;
use axum::{
    Router,
    body::Body,
    http::header::CONTENT_TYPE,
    response::{IntoResponse as _, Response},
};
use engine::{Event, EventKind};
use std::{collections::BTreeMap, convert::Infallible, sync::Arc};
use tokio::sync::broadcast::{Receiver, error::RecvError};

pub(super) fn routes() -> Router<State> {
    Router::new().route("/events", get(events))
}

async fn events(Use(state): Use<State>, params: Params) -> Result<Response, ApiError> {
    let (since, until) = (params.moment("since")?, params.moment("until")?);
    if let (Some(since), Some(until)) = (since, until)
        && since > until
    {
        return Err(ApiError::bad_request("`since` time cannot be after `until` time"));
    }
    let filters = params.filters(filters::EVENTS)?.engine();
    let (kept, live) = state.engine()?.events();
    let fits = move |event: &Event| {
        let at = event.at;
        since.is_none_or(|since| at >= since)
            && until.is_none_or(|until| at <= until)
            && event.passes(&filters)
    };
    // Without `since` only what comes is asked for.
    let past: Vec<_> = if since.is_some() || until.is_some() {
        kept.iter().filter(|event| fits(event)).map(|event| line(event)).collect()
    } else {
        Vec::new()
    };
    let end = until.map(|until| {
        let left = until.since(now());
        tokio::time::Instant::now() + left
    });
    let cancel = state.cancel.clone();
    let coming = futures::stream::unfold((live, fits), move |(mut live, fits)| {
        let cancel = cancel.clone();
        async move {
            let next = cancel.run_until_cancelled(next(&mut live, &fits, end)).await.flatten()?;
            Some((line(&next), (live, fits)))
        }
    });
    let lines = futures::StreamExt::chain(futures::stream::iter(past), coming);
    let body = Body::from_stream(futures::StreamExt::map(lines, Ok::<_, Infallible>));
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

/// Returns the next event that fits; `None` at the end of the time asked for.
async fn next(
    live: &mut Receiver<Arc<Event>>,
    fits: &impl Fn(&Event) -> bool,
    end: Option<tokio::time::Instant>,
) -> Option<Arc<Event>> {
    loop {
        let received = match end {
            Some(end) => tokio::time::timeout_at(end, live.recv()).await.ok()?,
            None => live.recv().await,
        };
        match received {
            Ok(event) if fits(&event) => return Some(event),
            // A client this slow misses some, as with Docker.
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return None,
        }
    }
}

fn line(event: &Event) -> Vec<u8> {
    let mut line = types::Text::of(&json(event));
    line.push(b'\n');
    line
}

fn json(event: &Event) -> types::EventMessage {
    let legacy = matches!(event.kind, EventKind::Container | EventKind::Image);
    let from = event.attributes.get("image").cloned().filter(|_| event.kind == EventKind::Container);
    types::EventMessage {
        status: if legacy { event.action.clone() } else { String::new() },
        id: if legacy { event.actor.clone() } else { String::new() },
        from: from.unwrap_or_default(),
        kind: event.kind.as_str().into(),
        action: event.action.clone(),
        actor: types::EventActor { id: event.actor.clone(), attributes: event.attributes.clone() },
        scope: event.scope.into(),
        time: event.at.0.div_euclid(1_000_000_000),
        time_nano: event.at.0,
    }
}

impl State {
    /// Tells of something that was done to an image: `pull tag untag delete load import push save`.
    pub(super) fn image_event(&self, action: &str, actor: &str, name: &str) {
        if let Ok(engine) = self.engine() {
            let attributes = BTreeMap::from([("name".to_owned(), name.to_owned())]);
            engine.publish(Event::now(EventKind::Image, action, actor, attributes));
        }
    }
}
