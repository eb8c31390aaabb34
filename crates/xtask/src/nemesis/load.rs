//! Clients, which go on through every fault: requests to the published port of each host; a register that is read and
//! written by compare-and-swap through each manager; configs; and a service that is scaled, updated and made anew.
//!
//! Each client is a thread. While the swarm is looked at, those that write rest ([`Load::rest`]).

use super::{
    draw::Draw,
    hosts::{Swarm, WAIT, millis, until},
};
use anyhow::{Context, Error, Result, bail};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use testkit::{
    Door, Failure, NoAnswer,
    history::{Asked, Operation, Told, linearize},
    request,
};

/// Between two requests of one client. The machine has other things to do.
const PACE: Duration = Duration::from_millis(50);
/// Between two changes of the service that is changed all the time.
const CHURN: Duration = Duration::from_millis(1500);
/// A client waits so long for an answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Clients of the register at each manager.
const CLIENTS: usize = 2;
const LABEL: &str = "value";

/// Of so many requests that failed in a step the words are kept.
const TOLD: usize = 20;

/// A request to the published port that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failed {
    /// That was asked.
    pub(super) host: u8,
    pub(super) how: Failure,
    /// When it was asked. *Unit:* milliseconds since 1970.
    pub(super) at: u64,
    /// How long it took to fail.
    pub(super) took: Duration,
    /// Whose port, and what the kernel said; of the first ones only.
    pub(super) why: String,
}

/// What became of requests to the published port.
#[derive(Debug, Clone, Default)]
pub(super) struct Requests {
    pub(super) asked: u64,
    pub(super) failed: Vec<Failed>,
}

impl Requests {
    pub(super) fn count(&self, how: Failure) -> usize {
        self.failed.iter().filter(|failed| failed.how == how).count()
    }
}

/// What the last change of the service that was acknowledged asked for; `None` after one that was not.
type Expected = Option<(u64, String)>;

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    rests: AtomicBool,
    /// Held for reading by whoever writes something.
    turn: RwLock<()>,
    /// Held for reading by whoever asks a published port.
    asking: RwLock<()>,
    requests: Mutex<Requests>,
    operations: Mutex<Vec<Operation>>,
    made: Mutex<BTreeSet<String>>,
    expected: Mutex<Expected>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Does `round` again and again, that long apart, but while writers rest; `round` holds its turn.
    fn rounds(&self, apart: Duration, mut round: impl FnMut(u64)) {
        for number in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            if !self.rests.load(Ordering::Relaxed) {
                let _turn = self.turn.read().unwrap_or_else(PoisonError::into_inner);
                round(number);
            }
            std::thread::sleep(apart);
        }
    }
}

/// What was written until a step's end, and is explained.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Judged {
    pub(super) operations: usize,
    pub(super) replaced: usize,
    pub(super) configs: usize,
}

#[derive(Debug)]
pub(super) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    start: Instant,
    managers: Vec<PathBuf>,
    /// Id of the register, and what it held when it was judged last.
    register: (String, (u64, u64)),
    /// Writes of which nobody knows yet what became of them.
    open: Vec<Operation>,
    /// Configs that were removed; none may come back.
    removed: BTreeSet<String>,
}

impl Load {
    /// Begins with the clients. What the service's changes are follows from `seed`.
    ///
    /// # Errors
    /// The register cannot be made.
    pub(super) fn begin(swarm: &Swarm, seed: u64) -> Result<Self> {
        let managers = swarm.front_doors();
        let first = managers.first().context("a manager")?;
        let body = json!({"Name": "register", "Labels": {LABEL: "0"}, "Data": "eA=="});
        let id = match request(first, "POST", "/configs/create", &body.to_string(), PATIENCE)? {
            (201, made) => serde_json::from_str::<Value>(&made)?["ID"].as_str().context("an id")?.to_owned(),
            (status, said) => bail!("the register: {status} {said}"),
        };
        let (_, version, value) = read(first, &id).context("the register cannot be read")?;
        let (shared, start) = (Arc::new(Shared::default()), Instant::now());
        let mut threads = Vec::new();
        for (n, door) in swarm.doors() {
            let shared = shared.clone();
            threads.push(std::thread::spawn(move || ask(&shared, n, &door)));
        }
        for (client, socket) in managers.iter().cycle().take(CLIENTS * managers.len()).enumerate() {
            let (shared, socket, id) = (shared.clone(), socket.clone(), id.clone());
            threads.push(std::thread::spawn(move || write(&shared, client, &socket, &id, start)));
        }
        let template = swarm.get(1, "/services/churn").map_err(Error::msg)?["Spec"].take();
        let (churned, sockets) = (shared.clone(), managers.clone());
        threads.push(std::thread::spawn(move || churn(&churned, &sockets, &template, Draw::new(seed))));
        let register = (id, (version, value));
        Ok(Self { shared, threads, start, managers, register, open: Vec::new(), removed: BTreeSet::new() })
    }

    /// Has the clients that write rest, or go on.
    pub(super) fn rest(&self, rest: bool) {
        self.shared.rests.store(rest, Ordering::Relaxed);
    }

    /// Returns what became of requests that began since it was asked last: waits for those that are under way, which are
    /// of what was until now and not of what comes.
    pub(super) fn requests(&self) -> Requests {
        let _ended = self.shared.asking.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *lock(&self.shared.requests))
    }

    /// Judges what clients were told since it was judged last, by what is there now. The swarm is whole, and clients rest.
    ///
    /// # Errors
    /// Something that was acknowledged is not there, or no order explains what clients saw.
    pub(super) fn judge(&mut self) -> Result<Judged> {
        let shared = self.shared.clone();
        let _quiet = shared.turn.write().unwrap_or_else(PoisonError::into_inner);
        let mut operations = std::mem::take(&mut self.open);
        operations.append(&mut lock(&shared.operations));
        let mut holds = None;
        for (n, socket) in self.managers.iter().enumerate() {
            // Everything was as asked a moment ago; on a machine with much else to do there may be an election since.
            let what = format!("host {} to say what the register holds", n + 1);
            let (began, (told, version, value)) = until(&what, WAIT, || {
                let began = nanos(self.start);
                read(socket, &self.register.0).map(|read| (began, read)).ok_or_else(|| "no answer".to_owned())
            })?;
            let (asked, client, ended) = (Asked::Read, usize::MAX - n, nanos(self.start));
            operations.push(Operation { client, began, ended, asked, told });
            holds = Some((version, value));
        }
        let holds = holds.context("no manager was asked")?;
        name_versions(&mut operations);
        if let Err(unexplained) = linearize(self.register.1, &operations) {
            bail!("the register's history: {unexplained}");
        }
        self.register.1 = holds;
        let replaced = operations.iter().filter(|o| matches!(o.told, Told::Replaced { .. })).count();
        // What was not answered may still be done, but not over another version.
        self.open = operations.iter().copied().filter(|o| is_open(o, holds.0)).collect();
        let configs = self.judge_configs()?;
        self.judge_service()?;
        Ok(Judged { operations: operations.len(), replaced, configs })
    }

    /// Looks whether all configs are there that were made, and none that was removed; and removes all.
    fn judge_configs(&mut self) -> Result<usize> {
        let socket = self.managers.first().context("a manager")?;
        let list = until("the configs", WAIT, || ask_for(socket, "/configs"))?;
        let named = |config: &Value| {
            let name = config["Spec"]["Name"].as_str()?.to_owned();
            (name != "register").then(|| Some((name, config["ID"].as_str()?.to_owned())))?
        };
        let there: BTreeMap<String, String> =
            list.as_array().context("no list of configs")?.iter().filter_map(named).collect();
        let made = std::mem::take(&mut *lock(&self.shared.made));
        let lost: Vec<&String> = made.iter().filter(|name| !there.contains_key(*name)).collect();
        if !lost.is_empty() {
            bail!("configs that were acknowledged are not there: {lost:?}");
        }
        let back: Vec<&String> = self.removed.iter().filter(|name| there.contains_key(*name)).collect();
        if !back.is_empty() {
            bail!("configs that were removed are there again: {back:?}");
        }
        self.removed.clear();
        for (name, id) in there {
            let removed = request(socket, "DELETE", &format!("/configs/{id}"), "", PATIENCE);
            if removed.is_ok_and(|(status, _)| status == 204) {
                self.removed.insert(name);
            }
        }
        Ok(made.len())
    }

    /// Looks whether the service that is changed is as was acknowledged last.
    fn judge_service(&self) -> Result<()> {
        let Some((replicas, round)) = lock(&self.shared.expected).clone() else { return Ok(()) };
        let socket = self.managers.first().context("a manager")?;
        let service = until("the service that is changed", WAIT, || ask_for(socket, "/services/churn"))?;
        if of_churn(&service) != Some((replicas, round.clone())) {
            bail!(
                "churn was acknowledged with {replicas} replicas and {round:?}, and is {}",
                service["Spec"]
            );
        }
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // One that panicked has said so.
            let _panicked = thread.join();
        }
    }
}

fn nanos(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Asks the published port of a host.
fn ask(shared: &Shared, host: u8, door: &Door) {
    while !shared.stop.load(Ordering::Relaxed) {
        let asking = shared.asking.read().unwrap_or_else(PoisonError::into_inner);
        let (at, began) = (millis(), Instant::now());
        let failed = match door.ask("/healthz") {
            Ok(said) if said == "ok\n" => None,
            Ok(said) => Some(NoAnswer { how: Failure::Wrong, why: format!("{said:?}") }),
            Err(failed) => Some(failed),
        };
        let took = began.elapsed();
        let mut requests = lock(&shared.requests);
        requests.asked += 1;
        if let Some(NoAnswer { how, why }) = failed {
            let why = if requests.failed.len() < TOLD { why } else { String::new() };
            requests.failed.push(Failed { host, how, at, took, why });
        }
        drop((requests, asking));
        std::thread::sleep(PACE);
    }
}

/// Asks a manager for something that is there.
fn ask_for(socket: &Path, path: &str) -> Result<Value, String> {
    match request(socket, "GET", path, "", PATIENCE) {
        Ok((200, body)) => serde_json::from_str(&body).map_err(|error| format!("{error}: {body}")),
        Ok((status, body)) => Err(format!("{status} {body}")),
        Err(error) => Err(format!("{error:#}")),
    }
}

/// Returns what a register holds: as an answer, its version, its value.
fn read(socket: &Path, id: &str) -> Option<(Told, u64, u64)> {
    let (status, body) = request(socket, "GET", &format!("/configs/{id}"), "", PATIENCE).ok()?;
    let config: Value = serde_json::from_str(&body).ok().filter(|_| status == 200)?;
    let version = config["Version"]["Index"].as_u64()?;
    let value = config["Spec"]["Labels"][LABEL].as_str()?.parse().ok()?;
    Some((Told::Holds { version, value }, version, value))
}

/// Puts `value` in place of what `version` names. The answer does not say which version that made.
fn replace(socket: &Path, id: &str, version: u64, value: u64) -> Told {
    let spec = json!({"Name": "register", "Labels": {LABEL: value.to_string()}, "Data": "eA=="});
    let path = format!("/configs/{id}/update?version={version}");
    match request(socket, "POST", &path, &spec.to_string(), PATIENCE) {
        Ok((200, _)) => Told::Replaced { version: UNNAMED },
        Ok((_, said)) if said.contains("out of sequence") => Told::Refused,
        Ok(_) | Err(_) => Told::Unknown,
    }
}

/// A version that nobody has read yet. Above all that are.
const UNNAMED: u64 = u64::MAX;

/// Gives writes the versions that they made, as reads tell. One that no read tells of stays as it is: if that is not the
/// last one, it was lost, and no order explains the history.
fn name_versions(operations: &mut [Operation]) {
    let seen: BTreeMap<u64, u64> = operations
        .iter()
        .filter_map(
            |o| if let Told::Holds { version, value } = o.told { Some((value, version)) } else { None },
        )
        .collect();
    for operation in operations {
        if let (Asked::Replace { value, .. }, Told::Replaced { version: UNNAMED }) =
            (operation.asked, operation.told)
        {
            let version = seen.get(&value).copied().unwrap_or(UNNAMED);
            operation.told = Told::Replaced { version };
        }
    }
}

/// May it still be done over this version?
fn is_open(operation: &Operation, version: u64) -> bool {
    let names = matches!(operation.asked, Asked::Replace { version: named, .. } if named == version);
    names && operation.told == Told::Unknown
}

/// Reads the register and writes it in turns, and makes a config now and then.
fn write(shared: &Shared, client: usize, socket: &Path, id: &str, start: Instant) {
    let mut known = None;
    shared.rounds(PACE, |round| {
        if round % 8 == 7 {
            let name = format!("c{client}-{round}");
            let body = json!({"Name": name, "Data": "eA=="}).to_string();
            let made = request(socket, "POST", "/configs/create", &body, PATIENCE);
            if made.is_ok_and(|(status, _)| status == 201) {
                lock(&shared.made).insert(name);
            }
            return;
        }
        let began = nanos(start);
        let (asked, told) = match known.take() {
            None => {
                let told = read(socket, id);
                known = told.map(|(_, version, _)| version);
                (Asked::Read, told.map_or(Told::Unknown, |(told, _, _)| told))
            }
            Some(version) => {
                let value = (client as u64 + 1) * 1_000_000_000 + round;
                (Asked::Replace { version, value }, replace(socket, id, version, value))
            }
        };
        let ended = nanos(start).max(began + 1);
        lock(&shared.operations).push(Operation { client, began, ended, asked, told });
    });
}

/// Returns how many replicas the service has, and its mark.
fn of_churn(service: &Value) -> Option<(u64, String)> {
    let spec = &service["Spec"];
    let replicas = spec["Mode"]["Replicated"]["Replicas"].as_u64()?;
    Some((replicas, spec["TaskTemplate"]["ContainerSpec"]["Env"][0].as_str().unwrap_or_default().to_owned()))
}

/// Scales the service, gives it another environment, or makes it anew.
fn churn(shared: &Shared, managers: &[PathBuf], template: &Value, mut draw: Draw) {
    // A removal that was not answered may be done until then.
    let mut unsure_until = 0;
    shared.rounds(CHURN, |round| {
        let at = usize::try_from(draw.below(managers.len() as u64)).unwrap_or_default();
        let (replicas, what) = (1 + draw.below(5), draw.below(6));
        let Some(socket) = managers.get(at) else { return };
        let before = lock(&shared.expected).take();
        let expected = match change(socket, round, replicas, what, template) {
            Change::None => before,
            Change::Acknowledged(replicas, mark) => Some((replicas, mark)),
            Change::Unknown => None,
            Change::PerhapsRemoved => {
                unsure_until = round + REMOVAL_ROUNDS;
                None
            }
        };
        *lock(&shared.expected) = expected.filter(|_| round >= unsure_until);
    });
}

/// So many rounds after it was asked a removal is done, or never.
const REMOVAL_ROUNDS: u64 = 20;

/// What became of a change of the service.
enum Change {
    /// Nothing was asked.
    None,
    /// It has so many replicas now, and this mark.
    Acknowledged(u64, String),
    Unknown,
    /// It is unknown whether it is gone, or will be.
    PerhapsRemoved,
}

fn change(socket: &Path, round: u64, replicas: u64, what: u64, template: &Value) -> Change {
    let Ok((status, body)) = request(socket, "GET", "/services/churn", "", PATIENCE) else {
        return Change::None;
    };
    let service: Value = serde_json::from_str(&body).unwrap_or_default();
    let id = service["ID"].as_str().unwrap_or_default();
    let mut spec = match status {
        200 => service["Spec"].clone(),
        404 => template.clone(),
        _ => return Change::None,
    };
    if what > 0 {
        spec["Mode"]["Replicated"]["Replicas"] = replicas.into();
    }
    if what > 2 {
        spec["TaskTemplate"]["ContainerSpec"]["Env"] = json!([format!("ROUND={round}")]);
    }
    let Some((replicas, mark)) = of_churn(&json!({"Spec": spec})) else { return Change::None };
    let mut path = format!("/services/{id}/update?version={}", service["Version"]["Index"]);
    if status == 404 || what == 0 {
        path = "/services/create".to_owned();
    }
    if status == 200 && what == 0 {
        let removed = request(socket, "DELETE", &format!("/services/{id}"), "", PATIENCE);
        if !removed.is_ok_and(|(status, _)| status == 200) {
            return Change::PerhapsRemoved;
        }
    }
    match request(socket, "POST", &path, &spec.to_string(), PATIENCE) {
        Ok((200 | 201, _)) => Change::Acknowledged(replicas, mark),
        Ok(_) | Err(_) => Change::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(client: usize, began: u64, asked: Asked, told: Told) -> Operation {
        Operation { client, began, ended: began + 1, asked, told }
    }

    /// Is a history of a register that held 0 at version 1 explained?
    fn is_explained(operations: &[Operation]) -> bool {
        let mut operations = operations.to_vec();
        name_versions(&mut operations);
        linearize((1, 0), &operations).is_ok()
    }

    #[test]
    fn a_write_that_is_not_told_its_version_is_held_to_what_was_read() {
        let wrote = Told::Replaced { version: UNNAMED };
        let put = |version, value| Asked::Replace { version, value };
        let read = |began, version, value| op(9, began, Asked::Read, Told::Holds { version, value });
        let first = op(0, 0, put(1, 7), wrote);
        assert!(is_explained(&[first, read(5, 3, 7)]));
        assert!(is_explained(&[first, read(5, 3, 7), op(1, 10, put(3, 8), wrote), read(20, 4, 8)]));
        assert!(!is_explained(&[first, read(5, 1, 0)]), "it is not there");
        assert!(!is_explained(&[first, op(1, 10, put(1, 8), wrote), read(20, 4, 8)]), "two writers won");
        let lost = op(1, 10, put(3, 8), Told::Unknown);
        assert!(is_explained(&[first, read(5, 3, 7), lost, read(20, 3, 7)]));
        assert!(is_open(&lost, 3) && !is_open(&lost, 4) && !is_open(&first, 1));
    }
}
