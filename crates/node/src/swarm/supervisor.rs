//! The running member: started, stopped and started anew as its role, its failures and people's orders say.

use super::{Current, Shared};
use crate::{
    member::{self, Begin, Member, NotTakenIn, Outcome, Start},
    record::Record,
};
use anyhow::Context as _;
use futures::future::BoxFuture;
use model::with_causes;
use pki::{Credentials, CredentialsError};
use std::{
    sync::{Arc, PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// What the supervisor is told.
pub(crate) enum Order {
    Start {
        record: Box<Record>,
        credentials: Credentials,
        begin: Box<Begin>,
        done: oneshot::Sender<anyhow::Result<()>>,
    },
    Leave {
        done: oneshot::Sender<anyhow::Result<()>>,
    },
    /// Stops the member, which stays one; [`Order::Start`] follows.
    Halt {
        done: oneshot::Sender<anyhow::Result<()>>,
    },
}

/// The part of [`super::NodeSwarm`] that runs.
pub(crate) struct Supervisor {
    pub(super) shared: Arc<Shared>,
    pub(super) orders: mpsc::Receiver<Order>,
}

impl Supervisor {
    /// Resumes the membership that is on disk, then does as it is told until cancelled. One that cannot be read is
    /// left as it is and shown (`docker info`); this host's containers run on, and leaving the swarm by force ends it.
    ///
    /// # Errors
    /// The running member could not be stopped.
    pub(crate) async fn run(mut self, cancel: CancellationToken) -> anyhow::Result<()> {
        let mut member: Option<(Member, Start)> = None;
        let (mut pause, mut begun) = (Pause::default(), Instant::now());
        match self.shared.on_disk() {
            Ok(None) => {}
            Ok(Some((record, credentials))) => {
                member = self.resume(&credentials, record, &cancel, Duration::ZERO).await;
            }
            Err(error) if is_locked(&error) => {
                tracing::warn!("the swarm is encrypted; hint: `swarm unlock` opens it");
                self.shared.locked.store(true, Relaxed);
            }
            Err(error) => self.fail(&error),
        }
        loop {
            let order = match &mut member {
                None => tokio::select! {
                    () = cancel.cancelled() => break,
                    order = self.orders.recv() => order,
                },
                Some((running, _)) => {
                    let ended = running.cancel_token();
                    tokio::select! {
                        () = cancel.cancelled() => break,
                        order = self.orders.recv() => order,
                        () = ended.cancelled() => None,
                        () = running.part_ended() => None,
                    }
                }
            };
            match order {
                Some(Order::Start { record, credentials, begin, done }) => {
                    let start = self.shared.start(&credentials, &record);
                    let started = Member::start(start.clone(), *record, *begin).await;
                    let answer = started.map(|running| {
                        self.shared.locked.store(false, Relaxed);
                        self.publish(Some((&running, &start)));
                        member = Some((running, start));
                        begun = Instant::now();
                    });
                    drop(done.send(answer));
                }
                Some(Order::Leave { done }) => {
                    self.publish(None);
                    if let Some((running, _)) = member.take() {
                        running.cancel_token().cancel();
                        drop(running.ended().await);
                    }
                    drop(done.send(self.shared.forget().await));
                }
                Some(Order::Halt { done }) => {
                    self.publish(None);
                    if let Some((running, _)) = member.take() {
                        running.cancel_token().cancel();
                        drop(running.ended().await);
                    }
                    drop(done.send(Ok(())));
                }
                None => {
                    self.publish(None);
                    let Some((running, start)) = member.take() else { continue };
                    let outcome = running.ended().await;
                    if begun.elapsed() > LASTING {
                        pause = Pause::default();
                    }
                    let after = match outcome {
                        Ok(Outcome::Restart) => Duration::ZERO,
                        Ok(Outcome::Cancelled) => {
                            let after = pause.next();
                            tracing::warn!(?after, "the member ended by itself; starting it again");
                            after
                        }
                        Err(error) => {
                            let after = pause.next();
                            self.fail(&error);
                            tracing::error!(
                                error = format!("{error:#}"),
                                ?after,
                                "the member failed; starting it again; containers run on"
                            );
                            after
                        }
                    };
                    match self.shared.parts.folder.load() {
                        Ok(None) => {}
                        Ok(Some(record)) => {
                            member = self.resume(&start.credentials, record, &cancel, after).await;
                            begun = Instant::now();
                        }
                        Err(error) => self.fail(&error),
                    }
                }
            }
        }
        self.publish(None);
        if let Some((running, _)) = member {
            running.cancel_token().cancel();
            running.ended().await?;
        }
        Ok(())
    }

    /// Starts the member from what is on disk after `after`, and again and again until it works or the daemon stops.
    async fn resume(
        &mut self,
        credentials: &Credentials,
        mut record: Record,
        cancel: &CancellationToken,
        mut after: Duration,
    ) -> Option<(Member, Start)> {
        let mut pause = Pause::default();
        loop {
            let order = tokio::select! {
                () = cancel.cancelled() => return None,
                () = tokio::time::sleep(after) => None,
                order = self.orders.recv() => Some(order?),
            };
            match order {
                Some(Order::Leave { done }) => {
                    self.publish(None);
                    drop(done.send(self.shared.forget().await));
                    return None;
                }
                Some(Order::Halt { done }) => {
                    self.publish(None);
                    drop(done.send(Ok(())));
                    return None;
                }
                Some(Order::Start { done, .. }) => {
                    drop(done.send(Err(anyhow::anyhow!("this node is a member of a swarm already"))));
                    continue;
                }
                None => {}
            }
            let start = self.shared.start(credentials, &record);
            let attempt = async {
                let started = Member::start(start.clone(), record.clone(), Begin::Resume).await;
                match started {
                    // It was demoted while it was on its way.
                    Err(error) if error.is::<NotTakenIn>() => {
                        let again = member::certify_anew(&start, record.clone()).await;
                        again
                            .map(Err)
                            .map_err(|why| error.context(format!("not certified anew either: {why:#}")))
                    }
                    started => started.map(Ok),
                }
            };
            let started = tokio::select! {
                () = cancel.cancelled() => return None,
                started = attempt => started,
            };
            match started {
                Ok(Ok(member)) => {
                    self.publish(Some((&member, &start)));
                    return Some((member, start));
                }
                Ok(Err(certified)) => {
                    record = certified;
                    after = PAUSE_CERTIFIED;
                }
                Err(error) => {
                    self.fail(&error);
                    after = pause.next();
                    // What was learnt before it failed (its number in Raft) counts.
                    if let Ok(Some(stored)) = self.shared.parts.folder.load() {
                        record = stored;
                    }
                }
            }
        }
    }

    /// Shows why the member on disk does not run.
    fn fail(&self, error: &anyhow::Error) {
        let text = format!("{error:#}");
        let mut failed = self.shared.failed.write().unwrap_or_else(PoisonError::into_inner);
        if failed.as_ref() != Some(&text) {
            tracing::error!(
                error = text,
                hint = "mend what it names and restart the daemon, or give the membership up: swarm leave --force",
                "cannot take part in the swarm; containers run on"
            );
        }
        *failed = Some(text);
    }

    fn publish(&self, member: Option<(&Member, &Start)>) {
        *self.shared.failed.write().unwrap_or_else(PoisonError::into_inner) = None;
        let current =
            member.map(|(m, s)| Current { view: m.watch(), connections: Arc::clone(&s.connections) });
        *self.shared.current.write().unwrap_or_else(PoisonError::into_inner) = current;
    }
}

/// Waits before a member that failed is started again: longer each time, and short enough that people see it come back
/// soon after they have mended what was wrong.
#[derive(Debug, Default)]
struct Pause(Duration);

/// A member that ran for so long has not failed because of how it began.
const LASTING: Duration = Duration::from_secs(60);
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Before a node that was certified anew tries again: the managers may still be about to change its role.
const PAUSE_CERTIFIED: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(8);

impl Pause {
    fn next(&mut self) -> Duration {
        self.0 = (self.0 * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        self.0
    }
}

/// Tells whether a membership cannot be read for want of its unlock key.
fn is_locked(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(CredentialsError::Locked))
}

impl Shared {
    /// Returns the membership that is on disk.
    pub(super) fn on_disk(&self) -> anyhow::Result<Option<(Record, Credentials)>> {
        let Some(record) = self.parts.folder.load()? else { return Ok(None) };
        let folder = self.parts.folder.credentials();
        let credentials = Credentials::load(&folder, None)
            .with_context(|| format!("the certificate in {} cannot be used", folder.display()))?
            .with_context(|| {
                format!("this node is a member of a swarm but has none in {}", folder.display())
            })?;
        Ok(Some((record, credentials)))
    }

    /// Removes every trace of the membership: containers of tasks, networks, certificate, log.
    pub(super) async fn forget(&self) -> anyhow::Result<()> {
        match self.parts.folder.load() {
            Ok(None) => {}
            Ok(Some(record)) => {
                // Also of a manager that is locked: removing needs no certificate.
                let fetch = |_, _| -> BoxFuture<'static, _> {
                    Box::pin(async { Err("this node leaves the swarm".to_owned()) })
                };
                let executor = self.executor(&record, Arc::new(fetch), None);
                if let Err(errors) = agent::forget(&executor, &self.parts.folder.agent()).await {
                    for error in errors {
                        tracing::warn!(error = with_causes(&error), "something of a task was not removed");
                    }
                }
            }
            Err(error) => tracing::warn!(
                error = format!("{error:#}"),
                hint = "remove them by hand: docker rm -f",
                "containers of tasks stay: the membership is damaged"
            ),
        }
        self.parts
            .engine
            .network_service()
            .leave_swarm()
            .await
            .context("cannot take the overlay networks down")?;
        self.parts.folder.forget()?;
        self.locked.store(false, Relaxed);
        Ok(())
    }
}
