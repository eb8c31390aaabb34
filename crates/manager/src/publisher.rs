//! Turns each new view into what sessions hand out; what did not change stays the same object.

use crate::{
    published::Published,
    shared::Shared,
    standing::{Known, Standing},
};
use model::Duration;
use std::sync::Arc;

/// How long changes are gathered.
const GATHER: Duration = Duration::from_millis(15);

/// Publishes each new view until the store is shut down.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut applied = shared.store.watch();
    loop {
        applied.borrow_and_update();
        let before = shared.published.borrow().clone();
        let view = shared.store.view();
        if view.index != before.view.index {
            let known = Known::State(&view);
            let retired = shared.is_retired();
            let _ended = shared.sessions.keep(|node| match known.standing(node) {
                Standing::Removed | Standing::Left => false,
                Standing::Unknown | Standing::Worker | Standing::Manager | Standing::Member => !retired,
            });
            shared.published.send_replace(Arc::new(Published::of(view, Some(&before))));
        }
        if applied.changed().await.is_err() {
            return;
        }
        tokio::time::sleep(GATHER).await;
    }
}
