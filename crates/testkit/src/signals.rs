//! Signals to a host's daemon, as somebody who is logged in there would send them.

use crate::{Lab, traces::daemon_of};
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

impl Lab {
    fn daemon_pid(&self, n: u8) -> Result<(Pid, PathBuf)> {
        let root = self.dir().join(format!("h{n}"));
        let (process, _) = daemon_of(&root).with_context(|| format!("host {n} has no daemon"))?;
        let number = process.file_name().and_then(|name| name.to_str()?.parse().ok());
        let pid = number.and_then(Pid::from_raw).context("a process without a number")?;
        Ok((pid, process))
    }

    fn signal(&self, n: u8, signal: Signal) -> Result<PathBuf> {
        let (pid, process) = self.daemon_pid(n)?;
        kill_process(pid, signal).with_context(|| format!("cannot signal the daemon of host {n}"))?;
        Ok(process)
    }

    /// Asks the daemon of host `n` to end (SIGTERM) and waits until it has; its containers run on.
    ///
    /// # Errors
    /// It has not after 30 s, or there is none.
    pub fn stop_daemon(&self, n: u8) -> Result<()> {
        let process = self.signal(n, Signal::TERM)?;
        let end = Instant::now() + Duration::from_secs(30);
        while process.join("exe").exists() {
            if Instant::now() > end {
                bail!("the daemon of host {n} does not end{}", self.daemon_logs());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Sends the daemon of host `n` a signal that it lives on with, and returns its process id.
    ///
    /// # Errors
    /// There is none.
    pub fn signal_daemon(&self, n: u8, signal: Signal) -> Result<i32> {
        self.signal(n, signal)?;
        Ok(self.daemon_pid(n)?.0.as_raw_pid())
    }

    /// Keeps the daemon of host `n` from running (SIGSTOP): it is there, and does nothing.
    ///
    /// # Errors
    /// There is none.
    pub fn freeze_daemon(&self, n: u8) -> Result<()> {
        self.signal(n, Signal::STOP).map(drop)
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    /// There is none.
    pub fn thaw_daemon(&self, n: u8) -> Result<()> {
        self.signal(n, Signal::CONT).map(drop)
    }
}
