//! One host, no swarm: containers by hand.

use crate::{SOON, lab, load_hello};
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};
use testkit::{Lab, wait_for};

/// Asks as a script would: one request, and whatever comes until the connection is closed. `typed` is sent once there
/// is an answer.
fn ask(lab: &Lab, path: &str, body: &str, typed: &[u8]) -> (String, Vec<u8>) {
    let mut stream = UnixStream::connect(lab.socket(1)).expect("the daemon listens");
    stream.set_read_timeout(Some(SOON)).expect("a limit");
    let length = body.len();
    write!(
        stream,
        "POST /v1.44{path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .expect("a request");
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a whole head");
        head.push(byte[0]);
    }
    stream.write_all(typed).expect("it still listens");
    let head = String::from_utf8(head).expect("text");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("it ends");
    (head, rest)
}

/// Makes something and returns its id.
fn make(lab: &Lab, path: &str, body: &str) -> String {
    let (head, answer) = ask(lab, path, body, b"");
    let answer = String::from_utf8(answer).expect("text");
    let id = answer.split('"').find(|word| word.len() == 64);
    id.unwrap_or_else(|| panic!("{head}{answer}")).to_owned()
}

#[test]
fn attach_and_exec_go_without_an_upgrade() {
    let lab = lab(1);
    load_hello(&lab, 1);
    let id = make(
        &lab,
        "/containers/create?name=web",
        r#"{"Image":"rswarm/hello","Cmd":["web"],"Tty":true,"OpenStdin":true}"#,
    );
    ask(&lab, "/containers/web/start", "", b"");

    // Who starts it says whether he reads frames.
    for (terminal, framed) in [(false, true), (true, false), (true, true)] {
        let exec =
            format!(r#"{{"Cmd":["/hello"],"AttachStdout":true,"AttachStderr":true,"Tty":{terminal}}}"#);
        let exec = make(&lab, "/containers/web/exec", &exec);
        let (head, said) =
            ask(&lab, &format!("/exec/{exec}/start"), &format!(r#"{{"Tty":{}}}"#, !framed), b"");
        assert!(head.starts_with("HTTP/1.0 200 OK"), "{head}");
        assert!(head.contains("application/vnd.docker.raw-stream"), "{head}");
        let stream = if terminal { 1 } else { 2 };
        assert_eq!(said.starts_with(&[stream, 0, 0, 0]), framed, "{said:?}");
        assert!(String::from_utf8_lossy(&said).contains("usage: hello"), "{said:?}");
    }
    let exec = make(&lab, "/containers/web/exec", r#"{"Cmd":["/hello"]}"#);
    let (head, said) = ask(&lab, &format!("/exec/{exec}/start"), r#"{"ConsoleSize":[1,2]}"#, b"");
    assert!(head.contains(" 400 ") && String::from_utf8_lossy(&said).contains("tty"), "{head}{said:?}");

    // Its terminal is left with the usual keys, or those that are asked for; it goes on.
    for (query, keys) in
        [("stdout=1", &b"\x10\x11"[..]), ("", b"\x10\x11"), ("detachKeys=x,ctrl-a", b"x\x01")]
    {
        let (head, _) = ask(&lab, &format!("/containers/web/attach?stream=1&stdin=1&{query}"), "{}", keys);
        assert!(head.starts_with("HTTP/1.0 200 OK"), "{head}");
    }
    let (head, _) = ask(&lab, "/containers/web/attach?stream=1&detachKeys=alt-x", "", b"");
    assert!(head.contains(" 400 "), "{head}");
    let running = lab.rswarm(1, &["ps", "-q"]).ok();
    assert!(!running.trim().is_empty() && id.starts_with(running.trim()), "{running}");
}

#[test]
fn samples_of_a_container_end_with_it_and_not_a_sample_later() {
    let lab = lab(1);
    load_hello(&lab, 1);
    // Samples are a second apart. A busy machine may take that long to remove a container: it has some tries.
    let late: Vec<Duration> = (0..5).map_while(|_| end_of_samples(&lab).err()).collect();
    assert!(late.len() < 5, "they ended only when the next one was due, this long after the last: {late:?}");
}

/// Removes a container while its samples are read. Fails with the time from the last one to their end, when the next
/// would have come by then.
fn end_of_samples(lab: &Lab) -> Result<(), Duration> {
    let run = r#"{"Image":"rswarm/hello","Cmd":["web"]}"#;
    let id = make(lab, "/containers/create", run);
    ask(lab, &format!("/containers/{id}/start"), "", b"");
    let mut stream = UnixStream::connect(lab.socket(1)).expect("the daemon listens");
    stream.set_read_timeout(Some(SOON)).expect("a limit");
    write!(stream, "GET /v1.44/containers/{id}/stats HTTP/1.0\r\nHost: d\r\n\r\n").expect("a request");
    let mut samples = BufReader::new(stream);
    let mut line = String::new();
    while !line.starts_with('{') {
        line.clear();
        assert_ne!(samples.read_line(&mut line).expect("it goes on"), 0, "a sample comes");
    }
    let last = Instant::now();
    lab.rswarm(1, &["rm", "--force", &id]).ok();
    let mut rest = String::new();
    samples.read_to_string(&mut rest).expect("it ends");
    let until = last.elapsed();
    if rest.contains('{') || until > Duration::from_millis(900) { Err(until) } else { Ok(()) }
}

#[test]
fn a_container_runs_prints_and_gives_its_exit_code() {
    let lab = lab(1);
    load_hello(&lab, 1);
    let ran = lab.rswarm(1, &["run", "--rm", "rswarm/hello"]);
    assert_eq!(ran.code, 1, "{ran:?}{}", lab.daemon_logs());
    assert!(ran.stderr.contains("usage: hello"), "{ran:?}");
    assert_eq!(lab.rswarm(1, &["ps", "-a", "-q"]).ok(), "");
}

#[test]
fn a_published_port_reaches_a_container_and_logs_tell_of_it() {
    let mut lab = lab(1);
    load_hello(&lab, 1);
    lab.rswarm(
        1,
        &["run", "-d", "--name", "web", "-p", "8090:80", "-e", "COUNTER=127.0.0.1:1", "rswarm/hello", "web"],
    )
    .ok();
    let refused = wait_for("the port to answer", crate::SOON, || match lab.http(1, 8090) {
        Err(text) if text.contains("No counter") => Ok(text),
        other => Err(format!("{other:?}")),
    });
    assert!(refused.contains("503"), "{refused}");
    assert!(lab.rswarm(1, &["logs", "web"]).ok().contains("listening on port 80"));

    let exec = lab.rswarm(1, &["exec", "web", "/hello", "check", "127.0.0.1:80"]);
    assert_eq!(exec.code, 0, "{exec:?}");
    let exec = lab.rswarm(1, &["exec", "web", "/hello", "check", "127.0.0.1:81"]);
    assert_eq!(exec.code, 1, "{exec:?}");

    lab.rswarm(1, &["rm", "-f", "web"]).ok();
    assert_eq!(lab.rswarm(1, &["ps", "-a", "-q"]).ok(), "");
}

#[test]
fn what_does_not_exist_is_refused_in_dockers_words() {
    let lab = lab(1);
    let error = lab.rswarm(1, &["rm", "nobody"]).fails();
    assert!(error.contains("No such container: nobody"), "{error}");
    let error = lab.rswarm(1, &["service", "ls"]).fails();
    assert!(error.contains("This node is not a swarm manager"), "{error}");
}

#[test]
fn a_stack_file_that_is_wrong_changes_nothing_and_says_where() {
    let lab = lab(1);
    lab.rswarm(1, &["swarm", "init", "--advertise-addr", &testkit::Lab::address(1)]).ok();
    let file = lab.dir().join("bad.yml");
    for (text, said) in [
        ("services:\n  web:\n    image: x\n    immage: y\n", "immage"),
        ("services:\n  web:\n   image: [x\n", "bad.yml"),
        ("services:\n  web:\n    image: ${NOT_SET:?set it}\n", "set it"),
        ("services:\n  web:\n    image: x\n    env_file: nope.env\n", "nope.env"),
    ] {
        std::fs::write(&file, text).expect("a file");
        let error = lab.rswarm(1, &["deploy", "--name", "bad", file.to_str().expect("a path")]).fails();
        assert!(error.contains(said), "{text}: {error}");
    }
    assert_eq!(lab.rswarm(1, &["service", "ls", "-q"]).ok(), "");
    let left = lab.rswarm(1, &["network", "ls", "-f", "driver=overlay", "--format", "{{.Name}}"]).ok();
    assert_eq!(left.trim(), "ingress", "the routing mesh alone");
}
