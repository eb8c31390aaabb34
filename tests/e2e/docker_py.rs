//! docker-py and testcontainers of PyPI against our front door; their own words are in `docker_py.py` and
//! `testcontainers_py.py`.

use crate::{SOON, docker_engine::host};
use std::path::Path;
use testkit::Lab;

/// Runs a script of this folder on the host itself, where `localhost` has the published ports.
#[track_caller]
fn python(lab: &mut Lab, script: &str, last: &str) {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let root = root.canonicalize().expect("the workspace").display().to_string();
    let python = format!("{root}/target/oracle-venv/bin/python");
    assert!(Path::new(&python).exists(), "{python} is missing: run `cargo xtask oracles`");
    let (host, home) =
        (format!("DOCKER_HOST=unix://{}", lab.socket(1).display()), format!("HOME={}", lab.dir().display()));
    let script = format!("{root}/tests/e2e/{script}");
    // Ryuk is a container of testcontainers that has to come from Docker Hub.
    let command = ["/usr/bin/env", &host, &home, "TESTCONTAINERS_RYUK_DISABLED=true", &python, &script];
    let said = lab.exec(1, &command).expect("python starts").wait(SOON * 2).expect("python ends");
    assert!(said.code == 0 && said.stdout.contains(last), "{}{}", said.stdout, lab.daemon_logs());
}

#[test]
#[ignore = "oracle: docker, busybox, docker-py"]
fn docker_py_works_unchanged() {
    python(&mut host(), "docker_py.py", "ok swarm");
}

#[test]
#[ignore = "oracle: docker, busybox, testcontainers"]
fn testcontainers_works_unchanged() {
    python(&mut host(), "testcontainers_py.py", "ok image");
}
