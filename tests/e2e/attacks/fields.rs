//! Hostile values for every field of what a host's engine is asked, every query parameter and every part of a path: none is
//! answered by a fault of ours, and the daemon goes on.
//!
//! Fields are found by asking our own reader (`testkit::hostile`), routes and parameters in the sources of the front door,
//! so a new one is attacked without a word here. What reaches the managers is attacked in
//! `crates/manager/src/tests/hostile.rs`, without a daemon.

use crate::{SOON, load_hello, swarm};
use docker_api::types::{self, Wire};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};
use testkit::{
    Lab,
    hostile::{self, Field},
    wait_for,
};

/// How long one answer may take, on a machine that has other things to do.
const LIMIT: Duration = Duration::from_secs(60);
/// How many ask at once.
const CLIENTS: usize = 4;
/// *Limit* of what is read of an answer. *Unit:* bytes.
const ANSWER_MAX: usize = 1 << 20;

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docker-api/src")
}

fn fields_of<T: Wire>() -> Vec<Field> {
    hostile::fields(&|json| types::parse::<T>(json).is_ok(), &hostile::vocabulary(&sources().join("types")))
}

/// Where the daemon is asked.
struct Door(PathBuf);

/// What was answered: the status, and the body as far as it came with the head or belongs to a refusal.
struct Answer {
    status: u16,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// Returns what is wrong with it, if anything is: a request must be taken, or refused in words for what it asks.
    fn fault(&self) -> Option<String> {
        let refused = (400..500).contains(&self.status) && self.json()["message"].is_string();
        let fine = matches!(self.status, 101 | 200..=399 | 501) || refused;
        (!fine).then(|| format!("{} {:.300}", self.status, self.body))
    }
}

impl Door {
    /// Asks, and reads the head of the answer; what would go on for ever is not waited for.
    fn ask(&self, method: &str, path: &str, body: &str) -> Result<Answer, String> {
        let mut stream = UnixStream::connect(&self.0).map_err(|e| format!("connecting: {e}"))?;
        stream.set_read_timeout(Some(LIMIT)).expect("a deadline");
        stream.set_write_timeout(Some(LIMIT)).expect("a deadline");
        let length = body.len();
        let request = format!(
            "{method} /v1.51{path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{body}"
        );
        // Who refuses a long body need not read it to its end.
        stream.write_all(request.as_bytes()).ok();
        let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
        let head = loop {
            let read = stream.read(&mut piece).map_err(|e| format!("no answer: {e}"))?;
            answer.extend_from_slice(&piece[..read]);
            match answer.windows(4).position(|four| four == b"\r\n\r\n") {
                Some(end) => break end,
                None if read == 0 => return Err("the connection ended without an answer".to_owned()),
                None => {}
            }
        };
        let text = String::from_utf8_lossy(&answer[..head]).into_owned();
        let status = text.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or_default();
        let mut body = answer.split_off(head + 4);
        // Refusals and what was made have an end; streams need not have one.
        let length = text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
        });
        while body.len() < length.unwrap_or(0).min(ANSWER_MAX) {
            match stream.read(&mut piece) {
                Ok(0) | Err(_) => break,
                Ok(read) => body.extend_from_slice(&piece[..read]),
            }
        }
        Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
    }
}

/// Has several clients do all of this work, and returns what each piece of it came to.
fn by_all<T: Send, R: Send>(work: Vec<T>, each: impl Fn(T) -> R + Sync) -> Vec<R> {
    let (work, done) = (Mutex::new(work.into_iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                loop {
                    let next = work.lock().expect("no panic meanwhile").next();
                    let Some(next) = next else { break };
                    let outcome = each(next);
                    done.lock().expect("no panic meanwhile").push(outcome);
                }
            });
        }
    });
    done.into_inner().expect("no panic meanwhile")
}

/// A request, and what becomes of what it makes.
struct Target {
    what: &'static str,
    path: String,
    /// What is in the body beside the hostile field.
    base: Value,
    fields: Vec<Field>,
    /// Where what was made is seen and removed, by its `Id` or `Name`.
    made: Option<&'static str>,
}

/// Sends everything; returns how much was sent and taken, and what was answered by a fault.
fn attack(door: &Door, target: &Target) -> (usize, usize, Vec<String>) {
    let bodies: Vec<_> = hostile::bodies(&target.base, &target.fields).into_iter().enumerate().collect();
    let sent = bodies.len();
    let outcomes = by_all(bodies, |(number, mut body)| {
        if target.base["Name"].is_string() && body.json["Name"] == target.base["Name"] {
            body.json["Name"] = json!(format!("{}{number}", target.what));
        }
        let mut faults = Vec::new();
        let taken = match door.ask("POST", &target.path, &body.json.to_string()) {
            Ok(answer) => {
                faults.extend(answer.fault());
                let taken = (200..300).contains(&answer.status);
                if let Some(folder) = target.made.filter(|_| taken) {
                    faults.extend(unmake(door, folder, &answer.json()).err());
                }
                taken
            }
            Err(why) => {
                faults.push(why);
                false
            }
        };
        let faults: Vec<_> =
            faults.into_iter().map(|fault| format!("{} {body}: {fault}", target.what)).collect();
        (taken, faults)
    });
    let taken = outcomes.iter().filter(|(taken, _)| *taken).count();
    (sent, taken, outcomes.into_iter().flat_map(|(_, faults)| faults).collect())
}

/// Looks at what was made, and removes it.
fn unmake(door: &Door, folder: &str, made: &Value) -> Result<(), String> {
    let id = made["Id"].as_str().or(made["Name"].as_str()).unwrap_or_default();
    let shown =
        if folder == "/containers" { format!("{folder}/{id}/json") } else { format!("{folder}/{id}") };
    let seen = door.ask("GET", &shown, "")?;
    let gone = door.ask("DELETE", &format!("{folder}/{id}?force=1&v=1"), "")?;
    if seen.status == 200 && (200..300).contains(&gone.status) {
        return Ok(());
    }
    Err(format!(
        "made {id}: seen {} {:.200}, removed {} {:.200}",
        seen.status, seen.body, gone.status, gone.body
    ))
}

/// A host with a container that runs, one that does not, and one of each other object.
struct Host {
    lab: Lab,
    door: Door,
    runs: String,
    still: String,
}

impl Host {
    fn new() -> Self {
        let lab = swarm(1, 1);
        load_hello(&lab, 1);
        let made = |args: &[&str]| lab.rswarm(1, args).ok().trim().to_owned();
        let runs =
            made(&["run", "-d", "--network", "none", "-e", "COUNTER=127.0.0.1:1", "rswarm/hello", "web"]);
        let still = made(&["create", "--network", "none", "rswarm/hello", "web"]);
        made(&["network", "create", "mine"]);
        made(&["volume", "create", "mine"]);
        let door = Door(lab.socket(1));
        Self { lab, door, runs, still }
    }

    /// The daemon answers, nothing in it panicked, and what it ran runs on.
    fn goes_on(&self) {
        self.lab.api(1, "/_ping").expect("the daemon goes on");
        let logs = self.lab.daemon_logs();
        assert!(!logs.contains("panicked"), "{logs}");
        wait_for("the container to run on", SOON, || {
            let state = self.lab.rswarm(1, &["inspect", "--format", "{{.State.Running}}", &self.runs]).stdout;
            if state.trim() == "true" { Ok(()) } else { Err(state) }
        });
    }
}

#[test]
fn no_value_of_a_hosts_fields_is_answered_by_a_fault() {
    let host = Host::new();
    let of = |what, path: String, base, made, fields| Target { what, path, base, fields, made };
    let mount = json!({"Type": "volume", "Source": "vv", "Target": "/v"});
    let runs = &host.runs;
    let targets = [
        of(
            "container",
            "/containers/create".into(),
            json!({"Image": "rswarm/hello", "HostConfig": {"NetworkMode": "none", "Mounts": [mount]}}),
            Some("/containers"),
            fields_of::<types::ContainerCreate>(),
        ),
        of(
            "update",
            format!("/containers/{}/update", host.still),
            json!({}),
            None,
            fields_of::<types::ContainerUpdate>(),
        ),
        of(
            "exec",
            format!("/containers/{runs}/exec"),
            json!({"Cmd": ["x"]}),
            None,
            fields_of::<types::ExecCreate>(),
        ),
        of(
            "network",
            "/networks/create".into(),
            json!({"Name": "n"}),
            Some("/networks"),
            fields_of::<types::NetworkCreate>(),
        ),
        of(
            "connect",
            "/networks/mine/connect".into(),
            json!({"Container": "nobody"}),
            None,
            fields_of::<types::NetworkConnect>(),
        ),
        of(
            "volume",
            "/volumes/create".into(),
            json!({"Name": "v"}),
            Some("/volumes"),
            fields_of::<types::VolumeCreate>(),
        ),
    ];
    let shown: Vec<String> = targets.iter().flat_map(|t| t.fields.iter().map(ToString::to_string)).collect();
    for field in [
        ".HostConfig.Mounts[].VolumeOptions.DriverConfig.Options.Zq9",
        ".NetworkingConfig.EndpointsConfig.Zq9.Aliases[]",
        ".IPAM.Config[].Subnet",
    ] {
        assert!(shown.iter().any(|found| found == field), "{field} is not found in {shown:#?}");
    }
    let mut faults = Vec::new();
    for target in &targets {
        let began = std::time::Instant::now();
        let (sent, taken, bad) = attack(&host.door, target);
        let took = began.elapsed();
        println!("{}: {} fields, {sent} values, {taken} taken, {took:.1?}", target.what, target.fields.len());
        // Much of what is hostile to one field is harmless in another.
        assert!(
            taken < sent && (taken > 0 || target.what == "connect"),
            "{}: {taken} of {sent} taken",
            target.what
        );
        faults.extend(bad);
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    host.goes_on();
}

/// A route with its method and the query parameters that its handler reads.
#[derive(Debug)]
struct Route {
    method: String,
    path: String,
    params: BTreeSet<String>,
}

fn name_at(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// Returns the names of query parameters that a piece of a source reads.
fn params_of(source: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for after in source.split("params").skip(1) {
        let Some(call) = after.trim_start().strip_prefix('.') else { continue };
        match name_at(call) {
            name @ ("filters" | "version") => drop(found.insert(name.to_owned())),
            _ => {
                let arguments = call.split_once('(').map_or("", |(_, arguments)| arguments.trim_start());
                let quoted = arguments.strip_prefix('"').and_then(|quoted| quoted.split_once('"'));
                found.extend(quoted.map(|(name, _)| name.to_owned()));
            }
        }
    }
    found
}

/// Returns the functions of a source that are no methods, with their texts.
fn functions(source: &str) -> BTreeMap<&str, &str> {
    let mut found = BTreeMap::new();
    let starts = source.match_indices('\n').map(|(at, _)| &source[at + 1..]);
    for text in starts.filter(|text| !text.starts_with([' ', '/', '#'])) {
        let line = text.lines().next().unwrap_or_default();
        let Some((before, rest)) = line.split_once("fn ") else { continue };
        if before.split(' ').all(|word| word.is_empty() || word == "async" || word.starts_with("pub")) {
            found.insert(name_at(rest), text.split_once("\n}").map_or(text, |(body, _)| body));
        }
    }
    found
}

/// Returns the routes that a source of the front door has.
fn routes_of(source: &str) -> Vec<Route> {
    let mut routes = Vec::new();
    let functions = functions(source);
    for text in source.split(".route(\"").skip(1) {
        let (path, rest) = text.split_once('"').expect("the end of a path");
        let mut open = 1;
        let end = rest.find(|c| {
            open += i32::from(c == '(') - i32::from(c == ')');
            open == 0
        });
        let handlers = &rest[..end.expect("the end of a route")];
        for method in ["get", "post", "put", "delete", "head"] {
            let Some(at) = handlers.find(&format!("{method}(")) else { continue };
            let handler = &handlers[at + method.len() + 1..];
            let handler = name_at(handler.strip_prefix("door(").unwrap_or(handler));
            let body = functions.get(handler).copied().unwrap_or_default();
            // What others read for it, too.
            let others = functions.iter().filter(|(name, _)| body.contains(&format!("{name}(")));
            let params = others.flat_map(|(_, body)| params_of(body)).chain(params_of(body)).collect();
            routes.push(Route { method: method.to_uppercase(), path: path.to_owned(), params });
        }
    }
    routes
}

fn routes() -> Vec<Route> {
    let mut folders = vec![sources().join("server")];
    let mut routes = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                routes.extend(routes_of(&std::fs::read_to_string(path).expect("a source")));
            }
        }
    }
    // What one handler tells apart by the end of the path.
    let several = [
        (
            "/containers/{id}/{action}",
            ["start", "stop", "kill", "restart", "pause", "rename", "resize"].as_slice(),
        ),
        ("/images/{*rest}", &["json", "history", "get", "tag", "push"]),
    ];
    for (path, ends) in several {
        let (folder, _) = path.rsplit_once('/').expect("a folder");
        let folder = if folder == "/images" { "/images/{name}" } else { folder };
        let like: Vec<_> =
            routes.iter().filter(|r| r.path == path).map(|r| (r.method.clone(), r.params.clone())).collect();
        for end in ends {
            routes.extend(like.iter().map(|(method, params)| Route {
                method: method.clone(),
                path: format!("{folder}/{end}"),
                params: params.clone(),
            }));
        }
    }
    routes
}

/// These change what the swarm of the test is, or ask others than this host.
fn is_left_out(route: &Route, param: &str) -> bool {
    let path = route.path.as_str();
    let swarms = ["/swarm/leave", "/swarm/init", "/swarm/join", "/rswarm/swarm/"];
    swarms.iter().any(|start| path.starts_with(start))
        || ["/images/create", "/images/search", "/distribution/", "/auth"]
            .iter()
            .any(|start| path.starts_with(start))
        || path.ends_with("/push")
        || param == "remote"
}

fn encoded(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

/// As long as heads of requests may be.
fn texts() -> Vec<String> {
    hostile::texts().into_iter().map(|text| text.chars().take(1000).collect()).collect()
}

#[test]
fn no_part_of_a_path_and_no_parameter_is_answered_by_a_fault() {
    let host = Host::new();
    let routes = routes();
    let params: usize = routes.iter().map(|r| r.params.len()).sum();
    assert!(routes.len() > 110 && params > 150, "only {} routes with {params} parameters", routes.len());
    let has = |path: &str, param: &str| routes.iter().any(|r| r.path == path && r.params.contains(param));
    for (path, param) in [
        ("/containers/{id}/logs", "since"),
        ("/containers/{id}/stop", "t"),
        ("/images/json", "filters"),
        ("/services/{id}/update", "version"),
        ("/build", "memory"),
    ] {
        assert!(has(path, param), "{path} has no {param}");
    }
    let fill = |path: &str, with: &dyn Fn(&str) -> String| {
        let parts =
            path.split('/').map(|part| if part.starts_with('{') { with(part) } else { part.to_owned() });
        parts.collect::<Vec<_>>().join("/")
    };
    let mut requests = BTreeSet::new();
    for route in routes.iter().filter(|route| route.path.contains('{')) {
        for text in texts() {
            requests.insert((route.method.clone(), fill(&route.path, &|_| encoded(&text))));
        }
    }
    let filters =
        [r#"{"id":"#, r#"{"label":{"a=b":true},"id":["x"]}"#, r#"{"id":{"a":"b"}}"#, r#"{"since":["NaN"]}"#];
    for route in &routes {
        let live = |path: &str| {
            let ends = |all: &[&str]| all.iter().any(|end| path.ends_with(end));
            match path.split('/').nth(1) {
                // What is removed is not there. One that got another's name would be met by that.
                _ if route.method == "DELETE" => "nobody".to_owned(),
                // One that comes up and goes takes seconds each time.
                Some("containers") if ends(&["/start", "/restart"]) => "nobody".to_owned(),
                Some("containers") if ends(&["/stop", "/kill", "/pause", "/rename", "/wait"]) => {
                    host.still.clone()
                }
                Some("containers") => host.runs.clone(),
                Some("images") => encoded("rswarm/hello"),
                Some("nodes") => "self".to_owned(),
                _ => "mine".to_owned(),
            }
        };
        let path = fill(&route.path, &|_| live(&route.path));
        for param in route.params.iter().filter(|param| !is_left_out(route, param)) {
            let more = filters.iter().filter(|_| param == "filters").map(|text| (*text).to_owned());
            for text in texts().into_iter().chain(more) {
                requests.insert((route.method.clone(), format!("{path}?{param}={}", encoded(&text))));
            }
        }
    }
    let began = std::time::Instant::now();
    let count = requests.len();
    let answers = by_all(requests.into_iter().collect(), |(method, path)| {
        let fault = match host.door.ask(&method, &path, "") {
            Ok(answer) => answer.fault(),
            Err(why) => Some(why),
        };
        fault.map(|fault| format!("{method} {path:.150}: {fault}"))
    });
    println!("{count} requests in {:.1?}", began.elapsed());
    let faults: Vec<String> = answers.into_iter().flatten().collect();
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    host.goes_on();
}
