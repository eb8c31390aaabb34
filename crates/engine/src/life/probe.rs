//! Runs healthchecks: one exec at a time, its first 4096 bytes of output kept.

use crate::{
    ask::execs::ExecConfig,
    error::{Error, Result},
    life::{
        exec, health,
        owner::Owner,
        owner::Probe,
        streams::{self, Wanted},
    },
    seen::container::{HealthProbe, HealthStatus, Status},
};
use model::Timestamp;
use std::{sync::atomic::Ordering::Relaxed, time::Duration};
use tokio::{io::AsyncReadExt, net::UnixStream, sync::oneshot, time::Instant};

/// Output that a background process of the probe holds open is not waited for longer than this.
const LAST_OUTPUT: Duration = Duration::from_millis(200);

impl Owner {
    pub(crate) async fn start_probe(&mut self) {
        let Some(plan) = self.health.clone() else { return };
        if self.container.state.status != Status::Running || self.probe.is_some() {
            // A paused container is asked again later.
            self.probe_at = self.container.state.is_running().then(|| Instant::now() + plan.interval);
            return;
        }
        let begun = crate::now();
        match self.run_probe(&plan).await {
            Ok((id, output)) => {
                let deadline = Instant::now() + plan.timeout;
                self.probe = Some(Probe { id, begun, deadline, output });
            }
            Err(e) => self.judge(begun, -1, e.to_string()).await,
        }
    }

    async fn run_probe(&mut self, plan: &health::Plan) -> Result<(String, oneshot::Receiver<Vec<u8>>)> {
        let config = ExecConfig { cmd: plan.command.clone(), ..ExecConfig::default() };
        let process = exec::process(&self.inner, &self.container, &config, None).await?;
        let failed = || Error::io("make socket pair for", &self.container.id);
        let wanted = Wanted { stdin: false, stdout: true, stderr: false };
        let (ours, mut ends) = streams::pair(wanted, false).map_err(failed())?;
        // Both streams into one, in the order they were written.
        ends.stderr =
            ends.stdout.as_ref().map(std::os::fd::OwnedFd::try_clone).transpose().map_err(failed())?;
        let id = crate::random_id();
        let plan = runtime::ExecPlan { id: id.clone(), process, stdio: ends.attached(true) };
        self.with_shim("probe", move |shim| shim.exec(plan)).await?;
        let (sender, output) = oneshot::channel();
        if let Some(stream) = ours.stdout {
            self.inner.tasks.spawn(collect(stream, sender));
        }
        Ok((id, output))
    }

    pub(crate) async fn probe_ended(&mut self, code: i32) {
        let Some(probe) = self.probe.take() else { return };
        let output = tokio::time::timeout(LAST_OUTPUT, probe.output).await;
        let output = output.ok().and_then(Result::ok).unwrap_or_default();
        self.judge(probe.begun, code, String::from_utf8_lossy(&output).into_owned()).await;
    }

    /// Too slow: it counts as failed, and its process is not left behind.
    pub(crate) async fn probe_timed_out(&mut self) {
        let Some(probe) = self.probe.take() else { return };
        let id = probe.id.clone();
        if let Err(e) = self.with_shim("kill probe in", move |shim| shim.signal_exec(&id, 9)).await {
            tracing::debug!(container.id = %self.container.id, error = %e, "probe had ended");
        }
        let timeout = self.health.as_ref().map(|p| p.timeout).unwrap_or_default();
        self.judge(probe.begun, -1, format!("Health check exceeded timeout ({timeout:?})")).await;
    }

    async fn judge(&mut self, start: Timestamp, exit_code: i32, output: String) {
        let (Some(plan), Some(before)) = (self.health.clone(), self.container.state.health.take()) else {
            return;
        };
        let ran_for = self.started.map(|s| s.elapsed()).unwrap_or_default();
        let old = before.status;
        let counting = &self.inner.counting;
        counting.health_checks.fetch_add(1, Relaxed);
        counting.health_checks_failed.fetch_add(u64::from(exit_code != 0), Relaxed);
        let probe = HealthProbe { start, end: crate::now(), exit_code, output };
        let health = health::judge(before, probe, &plan, ran_for);
        let new = health.status;
        self.probe_at = Some(Instant::now() + plan.pause(new, ran_for));
        self.container.state.health = Some(health);
        if new == old {
            return self.publish();
        }
        self.note().await;
        self.event(format!("health_status: {}", new.as_str()), []);
        if new == HealthStatus::Unhealthy {
            tracing::warn!(container.id = %self.container.id, "container unhealthy");
        }
    }
}

/// Reads to the end, keeps the beginning.
async fn collect(mut stream: UnixStream, sender: oneshot::Sender<Vec<u8>>) {
    let mut kept = Vec::new();
    let mut chunk = [0u8; 4096];
    while let Ok(n @ 1..) = stream.read(&mut chunk).await {
        let room = health::OUTPUT_BYTES.saturating_sub(kept.len());
        kept.extend_from_slice(&chunk[..n.min(room)]);
    }
    drop(sender.send(kept));
}
