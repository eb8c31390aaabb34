//! Turns at work that takes a processor for long, such as looking ahead: whoever may ask for it may ask a thousand times,
//! and the leader's own planning must not wait behind that.

use std::{sync::Arc, time::Duration};
use tokio::{sync::Semaphore, time::timeout};
use tonic::Status;

/// Works that are done at once.
const AT_ONCE: usize = 2;
/// *Limit* of those who have asked and have no answer yet.
const ASKED_MAX: usize = 16;
/// How long one waits for his turn.
const WAIT: Duration = Duration::from_secs(30);

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Turns {
    asked: Arc<Semaphore>,
    at_work: Arc<Semaphore>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { asked: Arc::new(Semaphore::new(ASKED_MAX)), at_work: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl Turns {
    /// Does some work beside the runtime's threads when its turn has come, and returns what it makes.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED: too many have asked, or the turn does not come. Those of the work.
    ///
    /// # Cancel safety
    /// Work that has begun goes on, and keeps its turn until it is done.
    pub(crate) async fn take<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let busy =
            || Status::resource_exhausted("too many ask for this at once; hint: try again in a moment");
        let asked = Arc::clone(&self.asked).try_acquire_owned().map_err(|_| busy())?;
        let turn = timeout(WAIT, Arc::clone(&self.at_work).acquire_owned()).await.map_err(|_| busy())?;
        let turn = turn.expect("the turns are never closed");
        let worked = tokio::task::spawn_blocking(move || {
            let made = work();
            drop((turn, asked));
            made
        });
        worked.await.map_err(|e| Status::internal(e.to_string()))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use tokio::task::JoinSet;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn few_work_some_wait_and_the_others_are_told_so() {
        let turns = Turns::default();
        let (began, begun) = mpsc::sync_channel(ASKED_MAX);
        let mut asked = JoinSet::new();
        let mut ends = Vec::new();
        for _ in 0..ASKED_MAX {
            let (end, ended) = mpsc::sync_channel::<()>(1);
            let (turns, began) = (turns.clone(), began.clone());
            ends.push(end);
            asked.spawn(async move {
                let work = move || {
                    began.send(()).ok();
                    ended.recv().ok();
                    Ok(())
                };
                turns.take(work).await
            });
        }
        for _ in 0..AT_ONCE {
            begun.recv_timeout(Duration::from_secs(20)).expect("it has its turn");
        }
        while turns.asked.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let refused = turns.take(|| Ok(())).await.expect_err("one too many");
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert!(begun.try_recv().is_err(), "no more than these work");
        drop(ends);
        while let Some(done) = asked.join_next().await {
            done.unwrap().unwrap();
        }
        turns.take(|| Ok(())).await.expect("there is room again");
    }

    #[tokio::test]
    async fn who_has_gone_keeps_his_turn_until_his_work_is_done() {
        let turns = Turns::default();
        let (end, ended) = mpsc::sync_channel::<()>(1);
        let mut asking = Box::pin(turns.take(move || {
            ended.recv().ok();
            Ok(())
        }));
        while turns.at_work.available_permits() == AT_ONCE {
            assert!(futures::poll!(&mut asking).is_pending());
        }
        drop(asking);
        assert_eq!(turns.at_work.available_permits(), AT_ONCE - 1);
        drop(end);
        while turns.at_work.available_permits() < AT_ONCE {
            tokio::task::yield_now().await;
        }
        assert_eq!(turns.asked.available_permits(), ASKED_MAX);
    }
}
