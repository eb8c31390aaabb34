//! Lists the processes of a container as `ps -ef` does, without running `ps`.
//!
//! Source: Docker API `ContainerTop`; proc(5). A process belongs to the container if it is in its pid namespace or,
//! with `--pid host`, in its cgroup.

use crate::{
    error::{Error, Result},
    seen::container::{Container, Top},
};
use std::{fs, path::Path};

pub(crate) async fn top(container: &Container, ps_args: &str) -> Result<Top> {
    let pid = container.state.pid.ok_or_else(|| Error::NotRunning(container.id.clone()))?;
    let columns = Columns::read(ps_args)?;
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

/// One column of `ps`. *Source:* ps(1), "STANDARD FORMAT SPECIFIERS".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    User,
    Pid,
    Parent,
    Cpu,
    Memory,
    Virtual,
    Resident,
    Tty,
    State,
    Started,
    Time,
    Elapsed,
    Command,
    Name,
}

/// What is shown, under which titles.
#[derive(Debug, PartialEq, Eq)]
struct Columns(Vec<(String, Column)>);

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
    /// What the kernel calls it.
    name: String,
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
        let name = head.split_once('(').map_or("", |(_, name)| name).to_owned();
        if command.is_empty() {
            command = format!("[{name}]");
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
            name,
        })
    }

    fn cpu_percent(&self) -> u64 {
        (self.cpu_seconds * 100).checked_div(self.age_seconds).unwrap_or(0)
    }

    /// When it started, as `ps` shows it on the first day. *Source:* ps(1), STIME.
    fn started(&self) -> String {
        let at = time::OffsetDateTime::now_utc()
            - time::Duration::seconds(i64::try_from(self.age_seconds).unwrap_or(0));
        format!("{:02}:{:02}", at.hour(), at.minute())
    }
}

impl Column {
    fn of(specifier: &str) -> Option<(&'static str, Self)> {
        Some(match specifier {
            "user" | "euser" => ("USER", Self::User),
            "uid" | "euid" => ("UID", Self::User),
            "pid" | "tgid" => ("PID", Self::Pid),
            "ppid" => ("PPID", Self::Parent),
            "%cpu" | "pcpu" => ("%CPU", Self::Cpu),
            "c" => ("C", Self::Cpu),
            "%mem" | "pmem" => ("%MEM", Self::Memory),
            "vsz" | "vsize" => ("VSZ", Self::Virtual),
            "rss" | "rsz" => ("RSS", Self::Resident),
            "tty" | "tt" | "tname" => ("TT", Self::Tty),
            "stat" => ("STAT", Self::State),
            "s" | "state" => ("S", Self::State),
            "start" | "lstart" => ("STARTED", Self::Started),
            "stime" | "start_time" | "bsdstart" => ("STIME", Self::Started),
            "time" | "cputime" => ("TIME", Self::Time),
            "etime" => ("ELAPSED", Self::Elapsed),
            "cmd" => ("CMD", Self::Command),
            "args" | "command" => ("COMMAND", Self::Command),
            "comm" | "ucmd" | "ucomm" => ("COMMAND", Self::Name),
            _ => return None,
        })
    }

    fn value(self, p: &Process) -> String {
        match self {
            Self::User => p.user.clone(),
            Self::Pid => p.pid.to_string(),
            Self::Parent => p.parent.to_string(),
            Self::Cpu => p.cpu_percent().to_string(),
            Self::Memory => "0.0".into(),
            Self::Virtual => p.virtual_kib.to_string(),
            Self::Resident => p.resident_kib.to_string(),
            Self::Tty => p.tty.clone(),
            Self::State => p.state.clone(),
            Self::Started => p.started(),
            Self::Time => clock(p.cpu_seconds),
            Self::Elapsed => clock(p.age_seconds),
            Self::Command => p.command.clone(),
            Self::Name => p.name.clone(),
        }
    }
}

fn clock(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

impl Columns {
    /// Reads the arguments of `ps`: `-ef` (also if there are none), `aux`, or with `-o` a list of columns.
    ///
    /// # Errors
    /// `InvalidParameter` for others, and for a list without the process id, which Docker demands.
    fn read(ps_args: &str) -> Result<Self> {
        let full = "user:UID pid ppid c stime tty:TTY time cmd";
        let aux = "user pid %cpu %mem vsz rss tty:TTY stat stime:START time args";
        let mut words = ps_args.split_whitespace();
        let list = match words.next().map(|word| word.trim_start_matches('-')) {
            None | Some("ef") => full.to_owned(),
            Some("aux") => aux.to_owned(),
            Some("o" | "eo" | "axo" | "Ao") => words.collect::<Vec<_>>().join(" "),
            Some(other) if other.starts_with("o") => other[1..].to_owned(),
            Some(_) => {
                return Err(Error::invalid(format!(
                    "ps arguments {ps_args:?} are not supported: use -ef, aux, or -o with a list of columns"
                )));
            }
        };
        let mut columns = Vec::new();
        for word in list.split([' ', ',']).filter(|w| !w.is_empty()) {
            let (specifier, title) = word.split_once([':', '=']).map_or((word, None), |(s, t)| (s, Some(t)));
            let (usual, column) = Column::of(specifier).ok_or_else(|| {
                Error::invalid(format!("ps arguments {ps_args:?}: unknown column {specifier:?}"))
            })?;
            columns.push((title.unwrap_or(usual).to_owned(), column));
        }
        if columns.iter().all(|(_, column)| *column != Column::Pid) {
            return Err(Error::invalid("Couldn't find PID field in ps output"));
        }
        Ok(Self(columns))
    }

    fn table(&self, processes: &[Process]) -> Top {
        let row = |p: &Process| self.0.iter().map(|(_, column)| column.value(p)).collect();
        Top {
            titles: self.0.iter().map(|(title, _)| title.clone()).collect(),
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
        let table = Columns::read("").unwrap().table(&[me]);
        assert_eq!(table.processes[0].len(), table.titles.len());
        assert_eq!(table.titles.join(" "), "UID PID PPID C STIME TTY TIME CMD");
    }

    #[test]
    fn columns_are_chosen_as_with_ps() {
        let titles = |args: &str| Columns::read(args).map(|c| c.table(&[]).titles.join(" "));
        assert_eq!(titles("-eo pid,comm").unwrap(), "PID COMMAND");
        assert_eq!(titles("-o pid,args=WHAT").unwrap(), "PID WHAT");
        assert!(titles("aux").unwrap().starts_with("USER PID %CPU"));
        for bad in ["-o args", "-o pid,nope", "--forest"] {
            assert!(titles(bad).is_err(), "{bad}");
        }
    }
}
