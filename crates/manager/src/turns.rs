//! Turns at work that takes a processor for long, such as looking ahead: whoever may ask for it may ask a thousand times,
//! and neither the leader's own planning nor others who ask must wait behind that.

use crate::under_way::{Account, Shares};
use std::{sync::Arc, time::Duration};
use tokio::{sync::Semaphore, time::timeout};
use tonic::Status;

/// Works that are done at once.
const AT_ONCE: usize = 2;
/// *Limit* of what was asked and has no answer yet; of one person at most half of it.
const ASKED_MAX: usize = 16;
/// How long one waits for his turn.
const WAIT: Duration = Duration::from_secs(30);

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Turns {
    asked: Shares,
    at_work: Arc<Semaphore>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { asked: Shares::new(ASKED_MAX), at_work: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl Turns {
    /// Does some work beside the runtime's threads when its turn has come, and returns what it makes.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED: too many have asked, he as often as all others may yet, or the turn does not come. Those of the
    /// work.
    ///
    /// # Cancel safety
    /// Work that has begun goes on, and keeps its turn until it is done.
    pub(crate) async fn take<T: Send + 'static>(
        &self,
        account: Account,
        work: impl FnOnce() -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let busy =
            || Status::resource_exhausted("too many ask for this at once; hint: try again in a moment");
        let asked = self.asked.take(account).map_err(|has| match has {
            0 => busy(),
            _ => Status::resource_exhausted(format!(
                "you have asked for this {has} times and have no answer yet; hint: wait for these"
            )),
        })?;
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

    fn user(id: u128) -> Account {
        Account::User(model::UserId(id))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn few_work_some_wait_and_the_others_are_told_so() {
        let turns = Turns::default();
        let (began, begun) = mpsc::sync_channel(ASKED_MAX);
        let mut asked = JoinSet::new();
        let mut ends = Vec::new();
        for _ in 0..ASKED_MAX / 2 {
            let (end, ended) = mpsc::sync_channel::<()>(1);
            let (turns, began) = (turns.clone(), began.clone());
            ends.push(end);
            asked.spawn(async move {
                let work = move || {
                    began.send(()).ok();
                    ended.recv().ok();
                    Ok(())
                };
                turns.take(user(1), work).await
            });
        }
        for _ in 0..AT_ONCE {
            begun.recv_timeout(Duration::from_secs(20)).expect("it has its turn");
        }
        while turns.asked.taken() < ASKED_MAX / 2 {
            tokio::task::yield_now().await;
        }
        let refused = turns.take(user(1), || Ok(())).await.expect_err("one too many");
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert!(refused.message().contains("8 times"), "{refused}");
        let mut other = Box::pin(turns.take(user(2), || Ok(())));
        assert!(futures::poll!(&mut other).is_pending(), "another one waits for his turn");
        assert!(begun.try_recv().is_err(), "no more than these work");
        drop(ends);
        while let Some(done) = asked.join_next().await {
            done.unwrap().unwrap();
        }
        other.await.expect("his turn");
        turns.take(user(1), || Ok(())).await.expect("there is room again");
    }

    #[tokio::test]
    async fn who_has_gone_keeps_his_turn_until_his_work_is_done() {
        let turns = Turns::default();
        let (end, ended) = mpsc::sync_channel::<()>(1);
        let mut asking = Box::pin(turns.take(user(1), move || {
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
        while turns.asked.taken() > 0 {
            tokio::task::yield_now().await;
        }
    }
}
