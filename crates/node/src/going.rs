//! This host goes down: the swarm hears it and runs its tasks elsewhere, containers get their stop signal and their grace.
//!
//! A daemon that is stopped cannot know why: it may be back in a second, and its containers must not notice. So somebody
//! else says that the host goes: a unit of its own that systemd stops when the host is shut down, and only then
//! (`deploy/rswarm-host.service`), whose command is `rswarm system shutdown`.

use crate::{
    member,
    swarm::{NodeSwarm, Order},
    task_container::LABEL_TASK,
};
use docker_api::server::{ApiError, HostGone};
use proto::dispatcher::DepartRequest;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// How long managers are asked to take note: longer than they elect a leader. The host goes all the same.
const TOLD_LIMIT: Duration = Duration::from_secs(6);
/// How long another manager may take to lead in this one's place.
const SUCCESSION_LIMIT: Duration = Duration::from_secs(3);
/// Between two words to the managers: a leader that is new has not heard of it.
const SAID_AGAIN: Duration = Duration::from_secs(2);
/// What a container may take beyond its grace. *Source:* moby `daemon.ShutdownTimeout`.
const SLACK: Duration = Duration::from_secs(5);

impl NodeSwarm {
    /// Hands this host's part of the swarm over and stops all its containers.
    ///
    /// # Errors
    /// The member could not be stopped; containers were nevertheless.
    pub(crate) async fn go_down(&self) -> Result<HostGone, ApiError> {
        let _changing = self.changing().await;
        let engine = self.engine().clone();
        // As long as the slowest says, and at least as the operator does.
        let limit =
            self.shutdown_timeout().map(|least| least.max(engine.longest_grace().saturating_add(SLACK)));
        tracing::info!(?limit, "the host goes down");
        crate::notify::status("the host goes down: tasks are handed over, containers stop");
        let told = match self.current() {
            None => None,
            Some(current) => {
                let view = current.view.borrow().clone();
                Some(self.hand_over(&view, limit).await)
            }
        };
        let halted = self.order(|done| Order::Halt { done }).await;
        let stopped = match limit {
            None => Ok(engine.stop_for_host().await),
            Some(limit) => timeout(limit, engine.stop_for_host()).await,
        };
        crate::notify::status("the host goes down: containers have stopped");
        if let Err(error) = halted {
            tracing::warn!(error = format!("{error:#}"), "the swarm's part of this daemon is not stopped");
        }
        Ok(match stopped {
            Ok(engine::StoppedForHost { stopped, left }) => HostGone { told, stopped, left },
            Err(_) => {
                let left = running(&engine, |_| true).await;
                let why = |name| (name, "it did not end in time".to_owned());
                HostGone { told, stopped: 0, left: left.into_iter().map(why).collect() }
            }
        })
    }

    /// Has another manager lead, tells the managers until the tasks of this node have ended, or it takes too long.
    /// Returns what kept the managers from being told.
    async fn hand_over(&self, view: &member::View, limit: Option<Duration>) -> Result<(), String> {
        if let Some(store) = view.store.as_ref().filter(|store| store.leader_now().me) {
            // The only manager has nobody to hand it to.
            match timeout(SUCCESSION_LIMIT, store.transfer_leadership(None)).await {
                Ok(Ok(())) => tracing::info!("another manager leads"),
                Ok(Err(error)) => tracing::info!(%error, "no other manager leads in this one's place"),
                Err(_) => tracing::warn!("no other manager leads yet"),
            }
        }
        let process = view.heard.borrow().process;
        let mut events = self.engine().events().1;
        let give_up = limit.and_then(|limit| Instant::now().checked_add(limit));
        let first = Instant::now() + TOLD_LIMIT;
        let mut said = false;
        loop {
            let telling =
                self.work(|mut manager| async move { manager.depart(DepartRequest { process }).await });
            match timeout(TOLD_LIMIT, telling).await {
                Ok(Ok(_)) => said = true,
                Ok(Err(status)) if !said && Instant::now() >= first => {
                    return Err(status.message().to_owned());
                }
                Err(_) if !said => return Err("no manager answers".to_owned()),
                Ok(Err(_)) | Err(_) => {}
            }
            let again = Instant::now() + SAID_AGAIN;
            loop {
                let left = running(self.engine(), |labels| labels.contains_key(LABEL_TASK)).await;
                if said && left.is_empty() || give_up.is_some_and(|at| at <= Instant::now()) {
                    return if said { Ok(()) } else { Err("no manager took note in time".to_owned()) };
                }
                let until = give_up.map_or(again, |at| at.min(again));
                if timeout_at(until, events.recv()).await.is_err() {
                    break;
                }
            }
        }
    }
}

/// Returns the names of containers that run.
async fn running(engine: &engine::Engine, of: impl Fn(&model::Labels) -> bool) -> Vec<String> {
    let all = engine.list(engine::ListOptions::default()).await.unwrap_or_default();
    all.iter().filter(|c| c.state.is_running() && of(&c.config.labels)).map(|c| c.name.clone()).collect()
}
