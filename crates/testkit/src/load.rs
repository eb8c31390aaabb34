//! Hosts that have little to run on.

use crate::{
    Lab,
    traces::{cgroup_parent, daemon_of},
};
use anyhow::{Context, Result};
use std::{fs, path::Path};

/// *Unit:* microseconds.
const PERIOD: u32 = 100_000;

impl Lab {
    /// Gives the daemon and the containers of host `n` together so many percent of one processor, from now on.
    /// Source: kernel Documentation/admin-guide/cgroup-v2.rst, `cpu.max`; scheduler/sched-bwc.rst.
    ///
    /// # Errors
    /// The daemon cannot be found, or the kernel takes no limit.
    pub fn limit_cpu(&self, n: u8, percent: u32) -> Result<()> {
        let (daemon, arguments) = daemon_of(&self.dir().join(format!("h{n}"))).context("no daemon")?;
        let parent = cgroup_parent(&arguments)?;
        let (first, root) = (Path::new("/sys/fs/cgroup/cpu"), Path::new("/sys/fs/cgroup"));
        let quota = PERIOD / 100 * percent;
        let (folder, limits) = if first.exists() {
            let limits = [("cpu.cfs_period_us", PERIOD.to_string()), ("cpu.cfs_quota_us", quota.to_string())];
            (first.join(parent), limits.to_vec())
        } else {
            (root.join(parent), vec![("cpu.max", format!("{quota} {PERIOD}"))])
        };
        // A leaf of its own: beside others a group of version 2 has no processes.
        let leaf = folder.join("daemon");
        fs::create_dir_all(&leaf).with_context(|| format!("cannot make {}", leaf.display()))?;
        let pid = daemon.file_name().context("a process without a number")?.to_string_lossy().into_owned();
        for (file, content) in limits.into_iter().chain([("daemon/cgroup.procs", pid)]) {
            let path = folder.join(file);
            fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}
