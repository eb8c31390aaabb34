//! What is known of a host before it is judged.

use super::{Finding, probes::Probes};
use crate::Settings;
use docker_api::{
    client::{Client, Error},
    types,
};
use model::Timestamp;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Where a daemon keeps its things.
#[derive(Debug, Clone)]
pub struct Place {
    pub data_root: PathBuf,
    pub run_root: PathBuf,
    /// The settings file; it need not be there.
    pub config: PathBuf,
    /// Process id of the daemon that answers; `None`: none does, or it cannot be told.
    pub daemon: Option<u32>,
}

/// One answer of the daemon, or why there is none.
pub type Asked<T> = Result<T, String>;

/// What the daemon says.
#[derive(Debug)]
pub struct Answers {
    pub info: Asked<types::Info>,
    /// Those that run.
    pub containers: Asked<Vec<types::ContainerInspect>>,
    pub users: Asked<Vec<types::User>>,
    pub audit: Asked<Vec<types::AuditRecord>>,
    pub nodes: Asked<Vec<types::Node>>,
}

/// A daemon, as far as it answers.
#[derive(Debug)]
pub enum Daemon {
    Up(Box<Answers>),
    /// And why nothing is known of it.
    Down(String),
}

/// Everything that the checks look at.
#[derive(Debug)]
pub struct Host {
    pub(super) place: Place,
    /// `/`, but in tests.
    pub(super) root: PathBuf,
    pub(super) settings: Asked<Settings>,
    pub(super) daemon: Daemon,
    pub(super) guards: Asked<network::Guards>,
    /// Whether some table of another program drops what this host forwards and nobody asked for.
    pub(super) forward_dropped: Asked<bool>,
    pub(super) other_firewalls: Asked<network::OtherFirewalls>,
    pub(super) now: Timestamp,
    /// Kinds of namespaces (as in /proc/PID/ns) in which the daemon is elsewhere than we are.
    pub(super) apart: Vec<&'static str>,
    /// Our own home folder.
    pub(super) home: Option<PathBuf>,
    /// Our own user id.
    pub(super) uid: u32,
    /// What was tried; see [`Host::try_out`].
    pub(super) probes: Option<Probes>,
}

impl Host {
    /// Looks at this host and asks its daemon, if there is one.
    pub async fn look(place: Place, client: &Client) -> Self {
        let daemon = ask(client).await;
        let networks = (place.run_root.join("network"), place.data_root.join("network"));
        let apart = place.daemon.map(apart).unwrap_or_default();
        let looked = tokio::task::spawn_blocking(move || {
            let (run, state) = networks;
            let failed = |e: network::Error| model::with_causes(&e);
            let guards = network::look(&state, &run).map_err(failed);
            let others = network::other_firewalls(&state).map_err(failed);
            (guards, network::forward_dropped().map_err(failed), others)
        });
        let lost = |e: tokio::task::JoinError| (Err(e.to_string()), Err(e.to_string()), Err(e.to_string()));
        let (guards, forward_dropped, other_firewalls) = looked.await.unwrap_or_else(lost);
        let nanos = time::OffsetDateTime::now_utc().unix_timestamp_nanos();
        Self {
            settings: Settings::read_if_there(&place.config).map_err(|e| format!("{e:#}")),
            root: "/".into(),
            daemon,
            guards,
            forward_dropped,
            other_firewalls,
            now: Timestamp(i64::try_from(nanos).unwrap_or(i64::MAX)),
            apart,
            home: std::env::var_os("HOME").map(PathBuf::from),
            uid: rustix::process::geteuid().as_raw(),
            probes: None,
            place,
        }
    }

    /// Returns what the daemon said to one question.
    pub(super) fn answer<T>(&self, of: fn(&Answers) -> &Asked<T>) -> Result<&T, Finding> {
        match &self.daemon {
            Daemon::Down(why) => Err(Finding::unknown(
                format!("needs the daemon: {why}"),
                "systemctl start rswarm, or say where it listens with -H",
            )),
            Daemon::Up(answers) => of(answers).as_ref().map_err(|why| Finding::unknown(why.clone(), "")),
        }
    }

    /// # Errors
    /// The daemon is in another namespace of this kind: what is to be seen here is not its.
    pub(super) fn together(&self, kind: &str) -> Result<(), Finding> {
        if self.apart.contains(&kind) {
            let pid = self.place.daemon.unwrap_or_default();
            return Err(Finding::unknown(
                format!("the daemon is in another {kind} namespace than this command"),
                format!("nsenter --all --target {pid} rswarm doctor, with the words you typed"),
            ));
        }
        Ok(())
    }

    /// Returns a file's path as the checks must open it.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Reads a file of the kernel or of the host; `None`: there is none.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn text(&self, path: &str) -> Result<Option<String>, Finding> {
        match fs::read_to_string(self.path(path)) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.unreadable(Path::new(path), &e)),
        }
    }

    /// Says that something cannot be looked at.
    pub(super) fn unreadable(&self, path: &Path, error: &io::Error) -> Finding {
        let hint = if self.uid == 0 { "" } else { "run this command as root" };
        Finding::unknown(format!("cannot look at {}: {error}", path.display()), hint)
    }

    /// Returns true for a node of a swarm that is a manager.
    ///
    /// # Errors
    /// No daemon says so; this host is in no swarm, or only a worker.
    pub(super) fn manager(&self) -> Result<(), Finding> {
        let swarm = &self.answer(|a| &a.info)?.swarm;
        match swarm.local_node_state.as_str() {
            "inactive" => Err(Finding::none("this host is in no swarm")),
            "locked" => Err(Finding::unknown("the swarm's keys are locked here", "rswarm swarm unlock")),
            _ if swarm.control_available => Ok(()),
            _ => Err(Finding::none("managers keep it, and this host is a worker")),
        }
    }
}

/// Returns the kinds of namespaces in which a process is elsewhere than we are.
fn apart(pid: u32) -> Vec<&'static str> {
    let of = |who: &str, kind: &str| fs::read_link(format!("/proc/{who}/ns/{kind}")).ok();
    let theirs = pid.to_string();
    let mut kinds = vec!["net", "mnt", "pid"];
    kinds.retain(|kind| of("self", kind).zip(of(&theirs, kind)).is_some_and(|(own, its)| own != its));
    kinds
}

async fn ask(client: &Client) -> Daemon {
    let info = match client.info().await {
        Ok(info) => Ok(info),
        Err(error @ Error::Api { .. }) => Err(error.to_string()),
        Err(error) => return Daemon::Down(model::with_causes(&error)),
    };
    let said = |error: Error| model::with_causes(&error);
    Daemon::Up(Box::new(Answers {
        info,
        containers: containers(client).await.map_err(said),
        users: client.users(&[]).await.map_err(said),
        audit: client.audit(&[]).await.map_err(said),
        nodes: client.nodes(&[]).await.map_err(said),
    }))
}

async fn containers(client: &Client) -> Result<Vec<types::ContainerInspect>, Error> {
    let mut all = Vec::new();
    for summary in client.containers(&[]).await? {
        match client.container(&summary.id).await {
            Ok(container) => all.push(container),
            // It ended meanwhile.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}
