//! Requests that are as much work as a request can be: whoever asks for little beside them does not wait for them.

use crate::{lab, load_hello};
use std::{
    fmt::Write as _,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use testkit::{on_a_shared_machine, wait_for};

/// How long anything may take: far more than it does, on a machine that has other things to do.
const LIMIT: Duration = Duration::from_secs(60);
/// How long a ping may take there. Measured with a debug program on two processors that had much else to do: median
/// 0.2 ms, p99 92 ms.
const PING_LIMIT: Duration = on_a_shared_machine(Duration::from_secs(3));
/// At least so many pings, and as long as it takes for each kind of work to be done so often beside them.
const PINGS: usize = 200;
const ROUNDS: usize = 3;

/// Sends bytes and returns the status of the answer; 0: the daemon hung up, as on a head that is too long.
fn send(socket: &Path, request: &[u8]) -> u16 {
    let mut stream = UnixStream::connect(socket).expect("the socket");
    stream.set_read_timeout(Some(LIMIT)).expect("a limit");
    drop(stream.write_all(request));
    let mut head = [0; 64];
    let count = stream.read(&mut head).unwrap_or(0);
    let text = String::from_utf8_lossy(&head[..count]).into_owned();
    text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

fn post(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST /v1.51{path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

fn get(path: &str, header: &str) -> Vec<u8> {
    format!("GET /v1.51{path} HTTP/1.1\r\nHost: x\r\n{header}Connection: close\r\n\r\n").into_bytes()
}

fn variables(count: usize) -> String {
    (0..count).fold(String::new(), |mut text, n| {
        let comma = if n == 0 { "" } else { "," };
        write!(text, "{comma}\"VARIABLE_{n}={n}\"").expect("writing to a String");
        text
    })
}

/// What is sent over and over, and a status that shows that it was understood.
fn heavy() -> Vec<(&'static str, Vec<u8>, u16)> {
    let create = format!(r#"{{"Image":"rswarm/hello","Env":[{}]}}"#, variables(100_000));
    let labels: Vec<String> = (0..990).map(|n| format!("\"label{n}=x\"")).collect();
    let filters = format!(r#"{{"label":[{}]}}"#, labels.join(","));
    let escaped: String = filters.bytes().fold(String::new(), |mut text, byte| {
        write!(text, "%{byte:02X}").expect("writing to a String");
        text
    });
    let header = format!("X-Much: {}\r\n", "a".repeat(1 << 20));
    vec![
        ("a container of 100,000 variables", post("/containers/create", &create), 201),
        ("a thousand filters", get(&format!("/containers/json?all=1&filters={escaped}"), ""), 200),
        ("a head of 1 MiB", get("/info", &header), 0),
        ("containers", post("/containers/create", r#"{"Image":"rswarm/hello","HostConfig":{}}"#), 201),
    ]
}

#[test]
fn a_ping_does_not_wait_for_what_is_much_work() {
    let lab = lab(1);
    load_hello(&lab, 1);
    let socket: PathBuf = lab.socket(1);
    let over = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = heavy()
        .into_iter()
        .map(|(what, request, good)| {
            let done = Arc::new(AtomicUsize::new(0));
            let (socket, over, count) = (socket.clone(), Arc::clone(&over), Arc::clone(&done));
            let thread = thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let status = send(&socket, &request);
                    // A head that is too long is answered or cut off, as the kernel has it.
                    let fine = status == good || (good == 0 && matches!(status, 400 | 431));
                    assert!(fine, "{what}: {status}");
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
            (what, done, thread)
        })
        .collect();
    let all_began = || match workers.iter().find(|(_, done, _)| done.load(Ordering::Relaxed) == 0) {
        None => Ok(()),
        Some((what, ..)) => Err((*what).to_owned()),
    };
    wait_for("each kind of work to be done once", LIMIT, all_began);
    let mut took: Vec<Duration> = Vec::new();
    let end = Instant::now() + LIMIT;
    let enough = || workers.iter().all(|(_, done, _)| done.load(Ordering::Relaxed) > ROUNDS);
    while took.len() < PINGS || !enough() {
        let began = Instant::now();
        assert!(began < end, "the work does not get on");
        assert_eq!(send(&socket, &get("/_ping", "")), 200);
        took.push(began.elapsed());
    }
    over.store(true, Ordering::Relaxed);
    for (what, done, thread) in workers {
        println!("{what}: {} times", done.load(Ordering::Relaxed));
        thread.join().expect("the work was understood");
    }
    took.sort_unstable();
    let (count, worst) = (took.len(), took[took.len() - 1]);
    let (median, p99) = (took[count / 2], took[count * 99 / 100]);
    println!("{count} pings: median {median:?}, p99 {p99:?}, worst {worst:?}");
    assert!(worst < PING_LIMIT, "a ping took {worst:?}");
}
