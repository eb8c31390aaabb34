//! Ways to a daemon other than its socket.

use crate::{lab, load_hello};
use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};
use testkit::Lab;

/// An `ssh` that is at the far host at once: it runs what comes after `-- HOST`, `docker` being our program there.
/// Returns the PATH that has it first.
fn fake_ssh(lab: &Lab) -> String {
    let folder = lab.dir().join("fake");
    fs::create_dir(&folder).expect("a folder");
    let script = format!(
        "#!/bin/sh\nwhile [ \"$1\" != -- ]; do shift; done\ncase $2 in far | me@far) shift 3 ;; *) exit 255 ;; esac\n\
         unset DOCKER_HOST; RSWARM_HOST=unix://{} exec {} \"$@\"\n",
        lab.socket(1).display(),
        env!("CARGO_BIN_EXE_rswarm"),
    );
    fs::write(folder.join("ssh"), script).expect("a script");
    fs::set_permissions(folder.join("ssh"), fs::Permissions::from_mode(0o755)).expect("a program");
    format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default())
}

#[test]
fn our_cli_reaches_a_daemon_through_ssh() {
    let lab = lab(1);
    load_hello(&lab, 1);
    let path = fake_ssh(&lab);
    let far = |args: &[&str]| {
        let args = [&["-H", "ssh://me@far"], args].concat();
        lab.rswarm_with(1, &[("PATH", path.as_str())], &args)
    };
    assert!(far(&["images", "--format", "{{.Repository}}"]).ok().contains("rswarm/hello"));
    let ran = far(&["run", "--rm", "rswarm/hello"]);
    assert!(ran.code == 1 && ran.stderr.contains("usage: hello"), "{ran:?}");
    let nowhere = lab.rswarm_with(1, &[("PATH", path.as_str())], &["-H", "ssh://you@near", "ps"]);
    assert_eq!(nowhere.code, 1, "{nowhere:?}");
    let without = lab.rswarm_with(1, &[("PATH", "/nowhere")], &["-H", "ssh://me@far", "ps"]).fails();
    assert!(without.contains("cannot start ssh"), "{without}");
}

#[test]
#[ignore = "oracle: docker"]
fn dockers_cli_reaches_our_daemon_through_ssh() {
    let lab = lab(1);
    load_hello(&lab, 1);
    let path = fake_ssh(&lab);
    let docker = |args: &[&str]| {
        let said = Command::new("docker")
            .env("PATH", &path)
            .env("DOCKER_HOST", "ssh://me@far")
            .env("HOME", lab.dir())
            .args(args)
            .output()
            .expect("docker runs");
        (
            said.status.code(),
            String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr),
        )
    };
    let (code, said) = docker(&["images", "--format", "{{.Repository}}"]);
    assert!(code == Some(0) && said.contains("rswarm/hello"), "{said}");
    let (code, said) = docker(&["run", "--rm", "rswarm/hello"]);
    assert!(code == Some(1) && said.contains("usage: hello"), "{said}");
}
