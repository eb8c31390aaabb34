//! `get`, `post` and the like, as axum has them, for handlers that become one type at the door.
//!
//! What axum makes of a handler it makes anew for each handler's type: a service, a boxed and a cloned one, a route, a
//! mapped and a boxed future. With a hundred handlers that was a quarter of a megabyte of code.

use super::State;
use axum::{extract::Request, handler::Handler, response::Response, routing::MethodRouter};
use futures::future::BoxFuture;
use std::sync::Arc;

/// A handler, whichever.
#[derive(Clone)]
pub(super) struct Door(Arc<dyn Fn(Request, State) -> BoxFuture<'static, Response> + Send + Sync>);

/// Returns a handler as one of many; for what is chained: `get(a).delete(door(b))`.
pub(super) fn door<T: 'static>(handler: impl Handler<T, State>) -> Door {
    Door(Arc::new(move |request, state| Box::pin(handler.clone().call(request, state))))
}

impl Handler<(), State> for Door {
    type Future = BoxFuture<'static, Response>;

    fn call(self, request: Request, state: State) -> Self::Future {
        (self.0)(request, state)
    }
}

pub(super) fn get<T: 'static>(handler: impl Handler<T, State>) -> MethodRouter<State> {
    axum::routing::get(door(handler))
}

pub(super) fn post<T: 'static>(handler: impl Handler<T, State>) -> MethodRouter<State> {
    axum::routing::post(door(handler))
}

pub(super) fn delete<T: 'static>(handler: impl Handler<T, State>) -> MethodRouter<State> {
    axum::routing::delete(door(handler))
}
