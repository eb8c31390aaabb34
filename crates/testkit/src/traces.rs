//! What the daemon of a host has in the kernel and in its roots: compared before and after, it tells what was left.

use crate::Lab;
use anyhow::{Context, Result};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

impl Lab {
    /// Returns processes, mounts, links, cgroups and container folders of host `n`, a line each. Its daemon must run.
    ///
    /// # Errors
    /// When the daemon cannot be found, or ends meanwhile.
    pub fn traces(&self, n: u8) -> Result<BTreeSet<String>> {
        let root = self.dir().join(format!("h{n}"));
        let (daemon, arguments) = daemon_of(&root).context("no daemon")?;
        let mut traces = BTreeSet::new();
        let namespace = fs::read_link(daemon.join("ns/pid"))?;
        for process in processes() {
            if fs::read_link(process.join("ns/pid")).is_ok_and(|its| its == namespace) {
                let line = command_line(&process).join(" ");
                traces.insert(format!("process {line}"));
            }
        }
        for line in fs::read_to_string(daemon.join("mountinfo"))?.lines() {
            let target = line.split(' ').nth(4).unwrap_or_default();
            if Path::new(target).starts_with(&root) {
                traces.insert(format!("mount {target}"));
            }
        }
        for line in fs::read_to_string(daemon.join("net/dev"))?.lines().skip(2) {
            traces.insert(format!("link {}", line.split(':').next().unwrap_or_default().trim()));
        }
        let parent = cgroup_parent(&arguments)?;
        let hierarchies = entries(Path::new("/sys/fs/cgroup")).into_iter().map(|h| h.join(&parent));
        let hierarchies = hierarchies.chain([Path::new("/sys/fs/cgroup").join(&parent)]);
        let folders = ["run/c", "run/secrets", "run/network/netns", "data/containers"].map(|f| root.join(f));
        for folder in hierarchies.chain(folders) {
            for entry in
                entries(&folder).into_iter().filter(|entry| entry.is_dir() || folder.starts_with(&root))
            {
                traces.insert(format!("folder {}", entry.display()));
            }
        }
        Ok(traces)
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn processes() -> impl Iterator<Item = PathBuf> {
    let numbers =
        |path: &PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().parse::<u32>().is_ok());
    entries(Path::new("/proc")).into_iter().filter(numbers)
}

fn command_line(process: &Path) -> Vec<String> {
    let line = fs::read(process.join("cmdline")).unwrap_or_default();
    line.split(|b| *b == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// Returns the cgroup of a daemon's containers, below each hierarchy's root.
pub(crate) fn cgroup_parent(arguments: &[String]) -> Result<String> {
    let parent = arguments.iter().position(|a| a == "--cgroup-parent").and_then(|at| arguments.get(at + 1));
    Ok(parent.context("a daemon without --cgroup-parent")?.trim_matches('/').to_owned())
}

/// Returns the first process inside a lab's namespaces, which holds the switch.
pub(crate) fn lab_of(dir: &Path) -> Option<PathBuf> {
    let dir = dir.display().to_string();
    processes().find(|process| {
        let line = command_line(process);
        line.get(1).is_some_and(|w| w == "lab") && line.iter().any(|w| w == "--inside") && line.contains(&dir)
    })
}

/// Returns the process of the daemon with this folder, and its command line.
pub(crate) fn daemon_of(root: &Path) -> Option<(PathBuf, Vec<String>)> {
    let data = root.join("data").display().to_string();
    processes()
        .map(|p| (p.clone(), command_line(&p)))
        .find(|(_, line)| line.get(1).is_some_and(|w| w == "daemon") && line.contains(&data))
}
