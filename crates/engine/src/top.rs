//! Lists the processes of a container as `ps -ef` does, without running `ps`.
//!
//! Source: Docker API `ContainerTop`; proc(5). A process belongs to the container if it is in its pid namespace or,
//! with `--pid host`, in its cgroup.

use crate::{
    container::{Container, Top},
    engine::Engine,
    error::{Error, Result},
};
use std::{fs, path::Path};

pub(crate) async fn top(_engine: &Engine, container: &Container, ps_args: &str) -> Result<Top> {
    let pid = container.state.pid.ok_or_else(|| Error::NotRunning(container.id.clone()))?;
    let columns = match ps_args.trim().trim_start_matches('-') {
        "" | "ef" => Columns::Full,
        "aux" => Columns::Aux,
        _ => {
            return Err(Error::invalid(format!(
                "ps arguments {ps_args:?} are not supported: use -ef or aux"
            )));
        }
    };
    let (id, shares_pids) = (container.id.clone(), container.config.host.pid_mode == "host");
    crate::blocking(move || {
        let belongs = |other: u32| {
            if shares_pids {
                fs::read_to_string(format!("/proc/{other}/cgroup")).is_ok_and(|c| c.contains(&id))
            } else {
                let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
                namespace(other).is_some_and(|ns| Some(ns) == namespace(pid))
            }
        };
        let mut pids: Vec<u32> = fs::read_dir("/proc")
            .map_err(Error::io("list", "/proc"))?
            .filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid| belongs(*pid))
            .collect();
        pids.sort_unstable();
        let boot_seconds = uptime();
        // One that ended meanwhile is left out.
        let processes =
            pids.into_iter().filter_map(|pid| Process::read(pid, boot_seconds)).collect::<Vec<_>>();
        Ok(columns.table(&processes))
    })
    .await
}

#[derive(Debug, Clone, Copy)]
enum Columns {
    Full,
    Aux,
}

#[derive(Debug)]
struct Process {
    pid: u32,
    parent: u32,
    user: String,
    tty: String,
    state: String,
    cpu_seconds: u64,
    age_seconds: u64,
    virtual_kib: u64,
    resident_kib: u64,
    command: String,
}

/// *Unit:* of the clock ticks in /proc, fixed by the kernel's interface.
const TICKS: u64 = 100;

fn uptime() -> u64 {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split('.').next().and_then(|s| s.parse().ok()).unwrap_or(0)
}

impl Process {
    fn read(pid: u32, uptime_seconds: u64) -> Option<Self> {
        let dir = format!("/proc/{pid}");
        let stat = fs::read_to_string(Path::new(&dir).join("stat")).ok()?;
        let (head, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |n: usize| fields.get(n).and_then(|f| f.parse::<u64>().ok());
        let status = fs::read_to_string(Path::new(&dir).join("status")).ok()?;
        let uid = status.lines().find_map(|l| l.strip_prefix("Uid:")?.split_whitespace().nth(1))?;
        let cmdline = fs::read(Path::new(&dir).join("cmdline")).ok()?;
        let mut command = String::from_utf8_lossy(&cmdline).replace('\0', " ").trim_end().to_owned();
        if command.is_empty() {
            command = format!("[{}]", head.split_once('(').map_or("", |(_, name)| name));
        }
        let tty = match number(4)? {
            0 => "?".to_owned(),
            device => format!("pts/{}", (device & 0xff) | ((device >> 12) & 0xfff00)),
        };
        Some(Self {
            pid,
            parent: u32::try_from(number(1)?).ok()?,
            user: if uid == "0" { "root".into() } else { uid.to_owned() },
            tty,
            state: fields.first()?.to_string(),
            cpu_seconds: (number(11)? + number(12)?) / TICKS,
            age_seconds: uptime_seconds.saturating_sub(number(19)? / TICKS),
            virtual_kib: number(20)? / 1024,
            resident_kib: number(21)? * 4,
            command,
        })
    }

    fn cpu_percent(&self) -> u64 {
        (self.cpu_seconds * 100).checked_div(self.age_seconds).unwrap_or(0)
    }

    fn cpu_time(&self) -> String {
        format!(
            "{:02}:{:02}:{:02}",
            self.cpu_seconds / 3600,
            self.cpu_seconds / 60 % 60,
            self.cpu_seconds % 60
        )
    }

    /// When it started, as `ps` shows it on the first day. *Source:* ps(1), STIME.
    fn started(&self) -> String {
        let at = time::OffsetDateTime::now_utc()
            - time::Duration::seconds(i64::try_from(self.age_seconds).unwrap_or(0));
        format!("{:02}:{:02}", at.hour(), at.minute())
    }
}

impl Columns {
    fn table(self, processes: &[Process]) -> Top {
        let titles: &[&str] = match self {
            Self::Full => &["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"],
            Self::Aux => {
                &["USER", "PID", "%CPU", "%MEM", "VSZ", "RSS", "TTY", "STAT", "START", "TIME", "COMMAND"]
            }
        };
        let row = |p: &Process| match self {
            Self::Full => vec![
                p.user.clone(),
                p.pid.to_string(),
                p.parent.to_string(),
                p.cpu_percent().to_string(),
                p.started(),
                p.tty.clone(),
                p.cpu_time(),
                p.command.clone(),
            ],
            Self::Aux => vec![
                p.user.clone(),
                p.pid.to_string(),
                format!("{}.0", p.cpu_percent()),
                "0.0".into(),
                p.virtual_kib.to_string(),
                p.resident_kib.to_string(),
                p.tty.clone(),
                p.state.clone(),
                p.started(),
                format!("{}:{:02}", p.cpu_seconds / 60, p.cpu_seconds % 60),
                p.command.clone(),
            ],
        };
        Top {
            titles: titles.iter().map(|t| (*t).to_owned()).collect(),
            processes: processes.iter().map(row).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_process_can_be_read() {
        let me = Process::read(std::process::id(), uptime()).unwrap();
        assert_eq!(me.pid, std::process::id());
        let table = Columns::Full.table(&[me]);
        assert_eq!(table.processes[0].len(), table.titles.len());
    }
}
