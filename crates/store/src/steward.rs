//! What a manager does whose disk is full: it gives leadership away, and looks whether there is room again.

use crate::{leadership::leader_now, members::Members, space::Reserve};
use model::Duration;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Between two looks at a disk that was full.
const LOOK: Duration = Duration::from_secs(1);
const GIVE_AWAY: Duration = Duration::from_secs(10);

pub(crate) async fn run(
    members: Members,
    low: watch::Sender<bool>,
    reserve: Reserve,
    cancel: CancellationToken,
) {
    let mut changed = low.subscribe();
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            found = changed.wait_for(|low| *low) => if found.is_err() { return },
        }
        if leader_now(&members.raft).me {
            match timeout(GIVE_AWAY, members.transfer(None)).await {
                Ok(Ok(())) => tracing::warn!("leadership was given away: the disk of this manager is full"),
                Ok(Err(error)) => tracing::debug!(%error, "nobody takes leadership over"),
                Err(_) => {}
            }
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = sleep(LOOK) => {}
        }
        let kept = reserve.clone();
        if tokio::task::spawn_blocking(move || kept.restore()).await.is_ok_and(|restored| restored) {
            tracing::info!("there is room on the disk again: this manager takes changes");
            low.send_replace(false);
        }
    }
}
