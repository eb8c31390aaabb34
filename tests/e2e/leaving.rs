//! Somebody in front of a terminal leaves what runs there by keys, and it goes on.

use crate::{SOON, lab, load_hello, program};
use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    process::{Child, Command},
};
use testkit::{Lab, wait_for};

/// A command of ours with a terminal of its own, and the end of it that a person has.
struct Seated {
    child: Child,
    person: File,
}

impl Seated {
    fn start(lab: &Lab, args: &[&str]) -> Self {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let person =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&person).and_then(|()| unlockpt(&person)).expect("the terminal's other end");
        let name = ptsname(&person, Vec::new()).expect("its name").into_string().expect("a path");
        let open =
            || OpenOptions::new().read(true).write(true).open(&name).expect("the terminal's other end");
        let child = Command::new(program())
            .args(args)
            .env("DOCKER_HOST", format!("unix://{}", lab.socket(1).display()))
            .env_remove("RSWARM_HOST")
            .env_remove("DOCKER_CONFIG")
            .env("HOME", lab.dir())
            .stdin(open())
            .stdout(open())
            .stderr(open())
            .spawn()
            .expect("the program");
        Self { child, person: person.into() }
    }

    /// Types when the command has the terminal: before that ctrl-q is the terminal's own.
    fn types(mut self, keys: &[u8]) -> Self {
        wait_for("the terminal to be raw", SOON, || {
            let modes = rustix::termios::tcgetattr(&self.person).expect("its settings").local_modes;
            if modes.contains(rustix::termios::LocalModes::ICANON) {
                Err("it is not".to_owned())
            } else {
                Ok(())
            }
        });
        self.person.write_all(keys).expect("to type");
        self
    }

    fn code(mut self) -> i32 {
        wait_for("the command to end", SOON, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status.code().unwrap_or(-1)),
            other => Err(format!("{other:?}")),
        })
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

#[test]
fn who_leaves_a_terminal_by_keys_has_left_and_what_runs_there_goes_on() {
    let lab = lab(1);
    load_hello(&lab, 1);
    let runs = || lab.rswarm(1, &["inspect", "--format", "{{.State.Running}}", "web"]).ok();
    let run = ["run", "-it", "--name", "web", "rswarm/hello", "web"];
    for (args, keys) in [
        (&run[..], &b"\x10\x11"[..]),
        (&["attach", "web"], b"\x10\x11"),
        (&["attach", "--detach-keys", "ctrl-x,x", "web"], b"\x18x"),
        (&["exec", "-it", "web", "/hello", "deaf"], b"\x10\x11"),
    ] {
        assert_eq!(Seated::start(&lab, args).types(keys).code(), 0, "{args:?}");
        assert_eq!(runs(), "true\n", "{args:?}");
    }
    let refused = lab.rswarm(1, &["attach", "--detach-keys", "ctrl-?", "web"]).fails();
    assert!(refused.contains("Invalid detach keys (ctrl-?)"), "{refused}");

    fs::create_dir(lab.dir().join(".docker")).expect("a folder");
    fs::write(lab.dir().join(".docker/config.json"), r#"{"detachKeys": "ctrl-a"}"#).expect("the settings");
    assert_eq!(Seated::start(&lab, &["attach", "web"]).types(b"\x01").code(), 0);
    assert_eq!(runs(), "true\n");
}
