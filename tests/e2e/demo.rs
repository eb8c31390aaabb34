//! `rswarm demo` as a person runs it: what CI's own run of it does not show.

use crate::{SOON, program};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
};
use testkit::wait_for;

#[test]
fn a_demo_that_is_kept_answers_a_browser_and_is_gone_after_ctrl_c() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut demo = Command::new(program())
        .args(["demo", "--keep", "--hosts", "2"])
        .env("TMPDIR", folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a demo");
    let mut lines = BufReader::new(demo.stdout.take().expect("its output")).lines();
    let browser = lines.find_map(|line| {
        let line = line.expect("a line");
        Some(line.split_once("http://")?.1.split_once('/')?.0.to_owned())
    });
    let browser = browser.expect("where a browser finds it");
    let answer = wait_for("an answer", SOON, || {
        let mut stream = TcpStream::connect(&browser).map_err(|e| e.to_string())?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").map_err(|e| e.to_string())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(|e| e.to_string())?;
        if answer.contains("Hello world!") { Ok(answer) } else { Err(answer) }
    });
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let process = Pid::from_raw(demo.id().try_into().expect("a process id"));
    kill(process, Signal::SIGINT).expect("Ctrl-C");
    let ended = demo.wait().expect("its end");
    assert!(ended.success(), "{ended}");
    let left: Vec<_> = std::fs::read_dir(folder.path()).expect("the folder").collect();
    assert!(left.is_empty(), "{left:?}");
}
