//! Numbers for Prometheus, and whether a daemon lives and is ready: what they say follows what happens.

use crate::{SOON, lab, load_hello, swarm, wait_for_replicas};
use nix::sched::{CloneFlags, setns};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::TcpStream,
    os::unix::net::UnixStream,
    process::{Child, Command},
};
use testkit::{Lab, wait_for};

const PORT: u16 = 9323;
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Has each host's daemon serve its numbers on its own loopback.
fn serve(lab: &mut Lab, hosts: u8) {
    serve_at(lab, hosts, "127.0.0.1");
}

fn serve_at(lab: &mut Lab, hosts: u8, address: &str) {
    for n in 1..=hosts {
        let settings = format!("metrics-addr = \"{address}:{PORT}\"\n");
        fs::write(lab.dir().join(format!("h{n}/daemon.toml")), settings).expect("the settings");
        lab.tell(&format!("kill-daemon {n}")).expect("its daemon to end");
        lab.tell(&format!("start-daemon {n}")).expect("a daemon");
        lab.wait_for_daemon(n).expect("the daemon");
    }
}

/// Opens the network namespace of a host.
fn network_of(lab: &Lab, n: u8) -> Result<File, String> {
    let socket = UnixStream::connect(lab.socket(n)).map_err(|e| e.to_string())?;
    let pid = rustix::net::sockopt::socket_peercred(&socket).map_err(|e| e.to_string())?.pid;
    File::open(format!("/proc/{}/ns/net", pid.as_raw_pid())).map_err(|e| e.to_string())
}

/// Asks the loopback address of a host, from there.
///
/// # Errors
/// It does not answer 200; what it did answer.
fn ask(lab: &mut Lab, n: u8, path: &str) -> Result<String, String> {
    let headers = format!("Accept: {OPEN_METRICS}\r\n");
    let (head, body) = get(network_of(lab, n)?, PORT, path, &headers)?;
    if path == "/metrics" && !head.contains(OPEN_METRICS) {
        return Err(format!("another type than was asked for: {head}"));
    }
    if head.split(' ').nth(1) == Some("200") { Ok(body) } else { Err(head + &body) }
}

/// Asks a port of the loopback address in a network namespace; returns head and body of what it answers.
fn get(network: File, port: u16, path: &str, headers: &str) -> Result<(String, String), String> {
    let request = format!("GET {path} HTTP/1.0\r\nHost: x\r\n{headers}\r\n");
    let from_there = move || -> io::Result<String> {
        setns(network, CloneFlags::CLONE_NEWNET)?;
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(SOON))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = std::thread::spawn(from_there).join().expect("an answer").map_err(|e| e.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    Ok((head.to_owned(), body.to_owned()))
}

/// What a text says, by row: `name{label="value",...}`.
type Rows = BTreeMap<String, f64>;

/// Reads OpenMetrics as strictly as its specification has it, as far as we use it.
///
/// # Errors
/// The line that is wrong, and why.
fn read(text: &str) -> Result<Rows, String> {
    let (mut rows, mut families) = (Rows::new(), BTreeMap::<String, String>::new());
    let (mut family, mut ended) = (String::new(), false);
    for line in text.lines() {
        let wrong = |why: &str| format!("{why}: {line}");
        if ended {
            return Err(wrong("it goes on behind its end"));
        }
        if line == "# EOF" {
            ended = true;
            continue;
        }
        if let Some(comment) = line.strip_prefix("# ") {
            let words: Vec<&str> = comment.splitn(3, ' ').collect();
            match words[..] {
                ["HELP", name, _] => family = name.to_owned(),
                ["TYPE", name, kind] => {
                    if name != family || families.insert(name.to_owned(), kind.to_owned()).is_some() {
                        return Err(wrong("a family is described in pieces"));
                    }
                }
                _ => return Err(wrong("neither HELP nor TYPE")),
            }
            continue;
        }
        let (row, value) = line.rsplit_once(' ').ok_or_else(|| wrong("no value"))?;
        let name = row.split('{').next().unwrap_or_default();
        let suffixes: &[&str] = match families.get(&family).map(String::as_str) {
            Some("counter") => &["_total"],
            Some("gauge") => &[""],
            Some("histogram") => &["_bucket", "_sum", "_count"],
            other => return Err(wrong(&format!("of no kind that is known: {other:?}"))),
        };
        if !suffixes.iter().any(|suffix| name == format!("{family}{suffix}")) {
            return Err(wrong("not of the family that it stands in"));
        }
        if let Some(labels) = row.strip_prefix(name).filter(|labels| !labels.is_empty()) {
            labels_are_well(labels).map_err(|why| wrong(&why))?;
        }
        let value = value.replace("+Inf", "inf").parse().map_err(|_| wrong("no number"))?;
        if rows.insert(row.to_owned(), value).is_some() {
            return Err(wrong("twice"));
        }
    }
    if ended { Ok(rows) } else { Err("it has no end".to_owned()) }
}

fn labels_are_well(labels: &str) -> Result<(), String> {
    let mut rest = labels.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).ok_or("no braces")?;
    while !rest.is_empty() {
        let (name, behind) = rest.split_once("=\"").ok_or("a label without a value")?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(is_name) || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(format!("{name:?} is no label"));
        }
        let mut end = None;
        let mut chars = behind.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' if !matches!(chars.next(), Some((_, '\\' | '"' | 'n'))) => {
                    return Err("a bad escape".to_owned());
                }
                '"' => {
                    end = Some(at);
                    break;
                }
                _ => {}
            }
        }
        let end = end.ok_or("a value without an end")?;
        rest = &behind[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    Ok(())
}

fn rows(lab: &mut Lab, n: u8) -> Rows {
    let text = ask(lab, n, "/metrics").expect("its numbers");
    read(&text).unwrap_or_else(|why| panic!("{why}\n{text}"))
}

/// Returns the row of a name that has all of these words among its labels.
fn value(rows: &Rows, name: &str, words: &[&str]) -> Option<f64> {
    let of =
        |row: &&String| row.split('{').next() == Some(name) && words.iter().all(|word| row.contains(word));
    rows.keys().find(of).map(|row| rows[row])
}

#[test]
fn a_reader_of_such_texts_finds_what_is_wrong_with_them() {
    let good = "# HELP a A.\n# TYPE a counter\na_total{x=\"\\\"\"} 1\n# EOF\n";
    assert_eq!(read(good).expect("well").len(), 1);
    for (from, to) in [
        ("a_total{", "a{"),
        ("} 1", "} one"),
        ("# EOF\n", ""),
        ("x=", "1x="),
        ("\\\"", "\\q"),
        ("# TYPE a", "# TYPE b"),
        ("\n# EOF", "\na_total{x=\"\\\"\"} 1\n# EOF"),
    ] {
        let bad = good.replace(from, to);
        assert!(read(&bad).is_err(), "{bad}");
    }
}

#[test]
fn numbers_of_a_host_follow_what_happens_on_it_and_keep_its_secrets() {
    let mut lab = lab(1);
    load_hello(&lab, 1);
    serve(&mut lab, 1);
    let states = |rows: &Rows, state: &str| {
        value(rows, "engine_daemon_container_states_containers", &[&format!("state=\"{state}\"")])
            .expect("a state")
    };
    let before = rows(&mut lab, 1);
    assert_eq!((states(&before, "running"), states(&before, "stopped")), (0.0, 0.0));
    let run = [
        "run",
        "-d",
        "--memory",
        "64m",
        "--env",
        "PASSWORD=hunter2",
        "--label",
        "secret=hunter2",
        "--name",
        "web",
    ];
    lab.rswarm(1, &[&run[..], &["rswarm/hello", "web"]].concat()).ok();
    lab.rswarm(1, &["run", "--name", "once", "rswarm/hello", "true"]);
    let after = rows(&mut lab, 1);
    assert_eq!((states(&after, "running"), states(&after, "stopped")), (1.0, 1.0));
    let started =
        |rows: &Rows| value(rows, "engine_daemon_container_actions_seconds_count", &["action=\"start\""]);
    assert!(started(&after) > started(&before), "{:?}", started(&after));
    let events = |rows: &Rows| value(rows, "engine_daemon_events_total", &[]).expect("events");
    assert!(events(&after) > events(&before));
    let web = ["name=\"web\"", "image=\"rswarm/hello"];
    let memory = value(&after, "container_memory_usage_bytes", &web);
    // Without control groups of our own (no root) there is nothing to be measured.
    assert!(memory.is_some_and(|bytes| bytes < 64e6), "{memory:?}");
    assert_eq!(value(&after, "container_spec_memory_limit_bytes", &web), Some(f64::from(64 << 20)));
    assert!(value(&after, "container_cpu_usage_seconds_total", &web).is_some());
    assert!(
        value(&after, "container_network_receive_bytes_total", &["name=\"web\"", "interface=\"eth0\""])
            .is_some()
    );
    assert_eq!(value(&after, "container_memory_usage_bytes", &["name=\"once\""]), None, "it does not run");
    assert_eq!(value(&after, "rswarm_containers_not_measured", &[]), Some(0.0));
    assert_eq!(value(&after, "rswarm_images", &[]), Some(1.0));
    assert!(value(&after, "rswarm_disk_free_bytes", &[]) <= value(&after, "rswarm_disk_bytes", &[]));
    assert!(value(&after, "process_resident_memory_bytes", &[]) > Some(1e6));
    let text = ask(&mut lab, 1, "/metrics").expect("its numbers");
    assert!(!text.contains("hunter2"), "{text}");

    assert_eq!(ask(&mut lab, 1, "/healthz").as_deref(), Ok("ok\n"));
    assert_eq!(ask(&mut lab, 1, "/readyz").as_deref(), Ok("ok\n"));
    let refused = ask(&mut lab, 1, "/containers/json").expect_err("not the front door");
    assert!(refused.contains("404"), "{refused}");
    lab.rswarm(1, &["rm", "-f", "web"]).ok();
    assert_eq!(value(&rows(&mut lab, 1), "container_memory_usage_bytes", &web), None);
}

#[test]
fn numbers_of_a_swarm_are_those_of_its_managers_and_a_manager_without_others_is_not_ready() {
    let mut lab = swarm(3, 2);
    (1..=3).for_each(|n| load_hello(&lab, n));
    serve(&mut lab, 3);
    wait_for("every daemon to be ready", SOON, || {
        (1..=3)
            .try_for_each(|n| ask(&mut lab, n, "/readyz").map(drop))
            .map_err(|e| format!("{e}{}", lab.daemon_logs()))
    });
    lab.rswarm(1, &["service", "create", "--name", "web", "--replicas", "3", "rswarm/hello", "web"]).ok();
    wait_for_replicas(&lab, 1, "web", "3/3");
    let all: Vec<Rows> = (1..=3).map(|n| rows(&mut lab, n)).collect();
    let of = |n: usize, name: &str, words: &[&str]| value(&all[n - 1], name, words);
    let manager = |n| of(n, "swarm_node_manager", &[]);
    assert_eq!([1, 2, 3].map(manager), [Some(1.0), Some(1.0), Some(0.0)]);
    let leaders = [1, 2].map(|n| of(n, "swarm_manager_leader", &[]).expect("a manager"));
    assert_eq!(leaders.iter().sum::<f64>(), 1.0, "{leaders:?}");
    let leader = if leaders[0] == 1.0 { 1 } else { 2 };
    assert_eq!(of(leader, "swarm_manager_tasks_total", &["state=\"running\""]), Some(3.0));
    assert_eq!(of(leader, "swarm_manager_services_total", &[]), Some(1.0));
    assert_eq!(of(leader, "swarm_manager_nodes", &["state=\"ready\""]), Some(3.0));
    assert!(of(leader, "swarm_raft_transaction_latency_seconds_count", &[]) > Some(0.0));
    assert!(of(leader, "rswarm_raft_fsync_seconds_count", &[]) > Some(0.0));
    assert!(of(leader, "swarm_scheduler_latency_seconds_count", &[]) > Some(0.0));
    let sessions = [1, 2].map(|n| of(n, "rswarm_dispatcher_sessions", &[]).expect("a manager"));
    assert_eq!(sessions.iter().sum::<f64>(), 3.0, "{sessions:?}");
    assert_eq!(of(3, "swarm_manager_leader", &[]), None, "a worker knows nothing of it");
    let task =
        |rows: &Rows| value(rows, "container_cpu_usage_seconds_total", &["swarm_service_name=\"web\""]);
    assert!(all.iter().any(|rows| task(rows).is_some()), "tasks by their service");

    lab.tell("kill-daemon 2").expect("its daemon to end");
    let why = wait_for("the one manager not to be ready", SOON, || match ask(&mut lab, 1, "/readyz") {
        Err(why) if why.contains("503") => Ok(why),
        other => Err(format!("{other:?}")),
    });
    assert!(why.contains("does not hear") || why.contains("no manager"), "{why}");
    assert_eq!(ask(&mut lab, 1, "/healthz").as_deref(), Ok("ok\n"), "it lives all the same");
    lab.tell("start-daemon 2").expect("a daemon");
    wait_for("it to be ready again", SOON, || ask(&mut lab, 1, "/readyz"));
}

#[test]
fn an_address_that_cannot_be_had_keeps_the_daemon_from_starting_and_is_named() {
    let mut lab = lab(1);
    lab.stop_daemon(1).expect("its daemon to end");
    fs::write(lab.dir().join("h1/daemon.toml"), "metrics-addr = \"192.0.2.77:9323\"\n")
        .expect("the settings");
    lab.tell("start-daemon 1").expect("a daemon");
    wait_for("its reason", SOON, || {
        let log = lab.daemon_logs();
        if log.contains("metrics-addr: cannot listen on 192.0.2.77:9323") { Ok(()) } else { Err(log) }
    });
}

/// Prometheus on a host, asked by its API.
struct Prometheus {
    process: Child,
    network: File,
}

impl Prometheus {
    /// Starts it as `deploy/prometheus.yml` has it, but for the socket and shorter waits.
    fn start(lab: &Lab, n: u8) -> Self {
        let dir = lab.dir().join("prometheus");
        fs::create_dir(&dir).expect("a folder");
        let socket = format!("unix://{}", lab.socket(n).display());
        let settings = include_str!("../../deploy/prometheus.yml")
            .replace("unix:///run/rswarm/docker.sock", &socket)
            .replace(": 15s", ": 1s")
            .replace(": 30s", ": 1s");
        assert!(settings.contains(&socket), "the example names the socket");
        fs::write(dir.join("prometheus.yml"), settings).expect("the settings");
        fs::write(dir.join("alerts.yml"), include_str!("../../deploy/alerts.yml")).expect("the alerts");
        fs::write(dir.join("alerts_test.yml"), include_str!("alerts_test.yml")).expect("their tests");
        for args in [["check", "config", "prometheus.yml"], ["test", "rules", "alerts_test.yml"]] {
            let told = Command::new("promtool").args(args).current_dir(&dir).output().expect("promtool");
            assert!(told.status.success(), "{args:?}: {told:?}");
        }
        let network = network_of(lab, n).expect("its network");
        let there = network.try_clone().expect("a descriptor");
        let log = File::create(dir.join("log")).expect("a log");
        let started = std::thread::spawn(move || {
            setns(there, CloneFlags::CLONE_NEWNET).expect("its network");
            Command::new("prometheus")
                .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
                .args(["--web.listen-address=127.0.0.1:9090"])
                .current_dir(dir)
                .stderr(log)
                .spawn()
                .expect("prometheus")
        });
        Self { process: started.join().expect("it starts"), network }
    }

    fn get(&self, path: &str) -> Result<serde_json::Value, String> {
        let network = self.network.try_clone().map_err(|e| e.to_string())?;
        let (head, body) = get(network, 9090, path, "")?;
        let json: serde_json::Value = serde_json::from_str(&body).map_err(|e| format!("{head}: {e}"))?;
        if json["status"] == "success" { Ok(json["data"].clone()) } else { Err(json.to_string()) }
    }

    /// Returns what an expression is now: labels and value of each row.
    fn query(&self, expression: &str) -> Result<Vec<serde_json::Value>, String> {
        let escaped: String = expression.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let found = self.get(&format!("/api/v1/query?query={escaped}"))?;
        found["result"].as_array().cloned().ok_or_else(|| found.to_string())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Returns all expressions of a board, with all hosts chosen.
fn expressions(board: &serde_json::Value) -> Vec<String> {
    let panels = board["panels"].as_array().expect("panels").iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    targets.map(|target| target["expr"].as_str().expect("an expression").replace("$instance", ".*")).collect()
}

#[test]
#[ignore = "oracle: prometheus"]
fn prometheus_finds_three_hosts_by_their_swarm_and_all_of_the_board_has_something_to_show() {
    let mut lab = swarm(3, 2);
    (1..=3).for_each(|n| load_hello(&lab, n));
    serve_at(&mut lab, 3, "0.0.0.0");
    let service = ["service", "create", "--name", "web", "--replicas", "3", "--limit-memory", "64m"];
    let service = [&service[..], &["--limit-cpu", "0.5", "rswarm/hello", "web"]].concat();
    wait_for("a service", SOON, || {
        let made = lab.rswarm(1, &service);
        if made.code == 0 { Ok(()) } else { Err(made.stderr) }
    });
    wait_for_replicas(&lab, 1, "web", "3/3");
    let prometheus = Prometheus::start(&lab, 1);
    let names = |expression: &str, label: &str| -> Result<Vec<String>, String> {
        let rows = prometheus.query(expression)?;
        let name = |row: &serde_json::Value| row["metric"][label].as_str().unwrap_or_default().to_owned();
        let mut names: Vec<String> = rows.iter().map(name).collect();
        names.sort();
        Ok(names)
    };
    wait_for("every host to be looked at", SOON, || match names("up{job=\"rswarm\"} == 1", "instance") {
        Ok(names) if names == ["host1", "host2", "host3"] => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(names("up{role=\"manager\"}", "instance").expect("rows"), ["host1", "host2"]);

    let board: serde_json::Value =
        serde_json::from_str(include_str!("../../deploy/grafana.json")).expect("a board");
    let expressions = expressions(&board);
    assert!(expressions.len() > 20, "{expressions:?}");
    wait_for("all of the board", SOON, || {
        let empty = expressions.iter().map(|expression| (expression, prometheus.query(expression)));
        let empty: Vec<_> =
            empty.filter(|(_, found)| found.as_ref().map_or(true, |rows| rows.is_empty())).collect();
        if empty.is_empty() { Ok(()) } else { Err(format!("{empty:?}")) }
    });
    wait_for("every alert to be judged", SOON, || {
        let rules = prometheus.get("/api/v1/rules")?;
        let all = rules["groups"][0]["rules"].as_array().ok_or("no rules")?;
        let odd: Vec<_> =
            all.iter().filter(|rule| rule["health"] != "ok" || rule["state"] == "firing").collect();
        if odd.is_empty() && all.len() > 10 { Ok(()) } else { Err(format!("{odd:?}")) }
    });

    lab.tell("kill-daemon 3").expect("its daemon to end");
    wait_for("the host whose daemon is gone", SOON, || match names("up == 0", "instance") {
        Ok(names) if names == ["host3"] => Ok(()),
        other => Err(format!("{other:?}")),
    });
}
