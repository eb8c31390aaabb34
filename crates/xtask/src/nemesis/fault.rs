//! The kinds of fault: how each begins and passes.

use super::hosts::{HOSTS, MANAGERS, Swarm, WAIT, until};
use anyhow::{Context, Result};
use std::fs;
use testkit::Cut;

/// What a daemon's clock is set ahead by. *Unit:* seconds.
const CLOCK_AHEAD: &str = "3600";

/// A kind of fault. Each hits one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// SIGKILL to the daemon, which is started again later.
    DaemonKilled,
    /// SIGTERM, and started again later.
    DaemonStopped,
    /// SIGSTOP, and SIGCONT later.
    DaemonFrozen,
    /// Stopped, and another program is started at once.
    Upgrade,
    /// Killed, and started with a clock that is an hour ahead; later again with the right one.
    ClockAhead,
    /// Every process of the host ends, and its run folder is gone.
    HostDies,
    /// The same, and its disk forgets what was not written.
    PowerCut,
    /// Nothing comes through, to it or from it.
    WiresCut,
    /// It hears, and is not heard.
    Unheard,
    /// It is heard, and does not hear.
    Deaf,
    /// The leader and one worker on one side, the others on the other.
    LeaderIsolated,
    /// Its data lies on a disk that has no room left.
    DiskFull,
    /// A manager is demoted, and promoted later.
    RoleChange,
    /// Its tasks go elsewhere, and it takes some again later.
    Drain,
}

pub(super) const ALL: [Kind; 14] = [
    Kind::DaemonKilled,
    Kind::DaemonStopped,
    Kind::DaemonFrozen,
    Kind::Upgrade,
    Kind::ClockAhead,
    Kind::HostDies,
    Kind::PowerCut,
    Kind::WiresCut,
    Kind::Unheard,
    Kind::Deaf,
    Kind::LeaderIsolated,
    Kind::DiskFull,
    Kind::RoleChange,
    Kind::Drain,
];

impl Kind {
    /// Returns its name, as `--only` takes it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::DaemonKilled => "daemon-killed",
            Self::DaemonStopped => "daemon-stopped",
            Self::DaemonFrozen => "daemon-frozen",
            Self::Upgrade => "upgrade",
            Self::ClockAhead => "clock-ahead",
            Self::HostDies => "host-dies",
            Self::PowerCut => "power-cut",
            Self::WiresCut => "wires-cut",
            Self::Unheard => "unheard",
            Self::Deaf => "deaf",
            Self::LeaderIsolated => "leader-isolated",
            Self::DiskFull => "disk-full",
            Self::RoleChange => "role-change",
            Self::Drain => "drain",
        }
    }

    /// Can it hit managers only?
    pub(super) fn is_of_managers(self) -> bool {
        match self {
            Self::PowerCut | Self::LeaderIsolated | Self::DiskFull | Self::RoleChange => true,
            Self::DaemonKilled
            | Self::DaemonStopped
            | Self::DaemonFrozen
            | Self::Upgrade
            | Self::ClockAhead
            | Self::HostDies
            | Self::WiresCut
            | Self::Unheard
            | Self::Deaf
            | Self::Drain => false,
        }
    }

    /// Does it leave containers and wires alone, so that no request may fail, whichever host is asked?
    pub(super) fn is_of_daemon(self) -> bool {
        match self {
            Self::DaemonKilled
            | Self::DaemonStopped
            | Self::DaemonFrozen
            | Self::Upgrade
            | Self::ClockAhead
            | Self::DiskFull
            | Self::RoleChange => true,
            Self::HostDies
            | Self::PowerCut
            | Self::WiresCut
            | Self::Unheard
            | Self::Deaf
            | Self::LeaderIsolated
            | Self::Drain => false,
        }
    }

    /// A role cannot be changed while another manager is away, and what tells it waits.
    pub(super) fn may_be_one_of_two(self) -> bool {
        !matches!(self, Self::RoleChange | Self::Drain)
    }

    /// Has it happen to host `n`.
    ///
    /// # Errors
    /// It cannot be made to.
    pub(super) fn begin(self, n: u8, swarm: &mut Swarm) -> Result<()> {
        match self {
            Self::DaemonKilled => swarm.lab.tell(&format!("kill-daemon {n}")),
            Self::DaemonStopped => swarm.lab.stop_daemon(n),
            Self::DaemonFrozen => swarm.lab.freeze_daemon(n),
            Self::Upgrade => {
                let program = swarm.next_program(n);
                swarm.lab.stop_daemon(n)?;
                swarm.lab.tell(&format!("program {n} {program}"))?;
                swarm.lab.tell(&format!("start-daemon {n}"))
            }
            Self::ClockAhead => {
                let program = swarm.program_of(n);
                restart(swarm, n, &format!("{program} --clock-offset {CLOCK_AHEAD}"))
            }
            Self::HostDies => swarm.lab.tell(&format!("kill {n}")),
            Self::PowerCut => swarm.lab.cut_power(&[n]),
            Self::WiresCut => cut(swarm, |from, to| from == n || to == n),
            Self::Unheard => cut(swarm, |from, _| from == n),
            Self::Deaf => cut(swarm, |_, to| to == n),
            Self::LeaderIsolated => {
                let with = MANAGERS + 1;
                let is_apart = |host: u8| host == n || host == with;
                cut(swarm, |from, to| is_apart(from) != is_apart(to))
            }
            Self::DiskFull => swarm.lab.fill_disk(n),
            Self::RoleChange => swarm.change_node(n, "Role", "worker"),
            Self::Drain => swarm.change_node(n, "Availability", "drain"),
        }
    }

    /// Has it be over.
    ///
    /// # Errors
    /// It cannot be made to.
    pub(super) fn end(self, n: u8, swarm: &mut Swarm) -> Result<()> {
        match self {
            Self::DaemonKilled | Self::DaemonStopped => swarm.lab.tell(&format!("start-daemon {n}")),
            Self::DaemonFrozen => swarm.lab.thaw_daemon(n),
            Self::Upgrade => Ok(()),
            Self::ClockAhead => {
                let program = swarm.program_of(n);
                restart(swarm, n, &program)
            }
            Self::HostDies | Self::PowerCut => boot(swarm, n),
            Self::WiresCut | Self::Unheard | Self::Deaf | Self::LeaderIsolated => heal(swarm),
            Self::DiskFull => swarm.lab.free_disk(n),
            Self::RoleChange => swarm.change_node(n, "Role", "manager"),
            Self::Drain => swarm.change_node(n, "Availability", "active"),
        }
    }
}

/// Kills the daemon and starts `program`, words of a command line, in its place.
fn restart(swarm: &mut Swarm, n: u8, program: &str) -> Result<()> {
    swarm.lab.tell(&format!("kill-daemon {n}"))?;
    swarm.lab.tell(&format!("program {n} {program}"))?;
    swarm.lab.tell(&format!("start-daemon {n}"))
}

/// Cuts these wires too.
fn cut(swarm: &mut Swarm, is_cut: impl Fn(u8, u8) -> bool) -> Result<()> {
    let pairs = (1..=HOSTS).flat_map(|from| (1..=HOSTS).map(move |to| (from, to)));
    swarm.cut.extend(pairs.filter(|(from, to)| from != to && is_cut(*from, *to)));
    swarm.lab.cut_wires(&swarm.cut)
}

/// All faults of a step end together: so do all cuts.
fn heal(swarm: &mut Swarm) -> Result<()> {
    swarm.cut = Cut::new();
    swarm.lab.cut_wires(&swarm.cut)
}

/// Starts a host that was killed, once the kernel has let go of what it had.
fn boot(swarm: &mut Swarm, n: u8) -> Result<()> {
    let run = swarm.lab.dir().join(format!("h{n}/run"));
    until("what the host had mounted to be gone", WAIT, || {
        if swarm.has_disk_mounted(n) {
            return Err(format!("the disk of host {n} is mounted"));
        }
        fs::remove_dir_all(&run).map_err(|error| format!("{}: {error}", run.display()))
    })?;
    swarm.lab.tell(&format!("start {n}"))?;
    swarm.ask_udp(n).context("no client of UDP")
}
