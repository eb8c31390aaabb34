//! docker-py (`docker` of PyPI) against our front door; its own words are in `docker_py.py`.

use crate::docker_engine::host;
use std::{path::Path, process::Command};

#[test]
#[ignore = "oracle: docker, busybox, docker-py"]
fn docker_py_works_unchanged() {
    let lab = host();
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let python = root.join("target/oracle-venv/bin/python");
    assert!(python.exists(), "{} is missing: run `cargo xtask oracles`", python.display());
    let said = Command::new(python)
        .arg(root.join("tests/e2e/docker_py.py"))
        .env("DOCKER_HOST", format!("unix://{}", lab.socket(1).display()))
        .env("HOME", lab.dir())
        .output()
        .expect("python runs");
    let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(said.status.success(), "{out}{err}{}", lab.daemon_logs());
    assert!(out.contains("ok swarm"), "{out}{err}");
}
