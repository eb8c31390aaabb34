//! The two command lines that people have: ours, and Docker's. What a person does is written once: a test has it done
//! with ours, and `docker_cli`, the oracle, with Docker's.

use crate::SOON;
use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    thread,
};
use testkit::{Lab, Output, wait_for};

/// Whose command line is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cli {
    Ours,
    Dockers,
}

impl Cli {
    pub(crate) fn program(self) -> &'static Path {
        match self {
            Self::Ours => crate::program(),
            Self::Dockers => testkit::peer("docker"),
        }
    }

    /// Returns what a daemon says as this command line tells it: ours has its own name where Docker's has Docker's.
    pub(crate) fn tells(self, said: &str) -> String {
        match self {
            Self::Ours => said.replace("\"docker ", "\"rswarm "),
            Self::Dockers => said.to_owned(),
        }
    }

    /// Runs it with these words against host `n`.
    pub(crate) fn run(self, lab: &Lab, n: u8, args: &[&str]) -> Output {
        match self {
            Self::Ours => lab.rswarm(n, args),
            Self::Dockers => lab.docker(n, args),
        }
    }

    /// The same, for words that change an object: again when the swarm changed it between its reading and its
    /// writing, which ours does by itself.
    pub(crate) fn change(self, lab: &Lab, n: u8, args: &[&str]) -> Output {
        wait_for("the change to be taken", SOON, || {
            let said = self.run(lab, n, args);
            if said.stderr.contains("update out of sequence") { Err(said.stderr) } else { Ok(said) }
        })
    }

    /// The same, with a line of input.
    pub(crate) fn told(self, lab: &Lab, n: u8, args: &[&str], input: &str) -> Output {
        let mut child = Command::new(self.program())
            .args(args)
            .env("DOCKER_HOST", format!("unix://{}", lab.socket(n).display()))
            .env_remove("RSWARM_HOST")
            .env("HOME", lab.dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a command line");
        writeln!(child.stdin.take().expect("a pipe"), "{input}").expect("input to be taken");
        let output = child.wait_with_output().expect("its end");
        Output {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// What is judged, and under which name its failures are told.
pub(crate) type Subject = (&'static str, fn());

/// Judges all subjects, as many beside each other as tests are, each on a thread that has its name; tells of every one
/// that fails, not only of the first.
pub(crate) fn judge_all(subjects: &[Subject]) {
    let beside_each_other = thread::available_parallelism().map_or(1, usize::from);
    let mut failed = Vec::new();
    for some in subjects.chunks(beside_each_other) {
        let judged = some.iter().map(|(name, judge)| {
            let thread = thread::Builder::new().name((*name).to_owned());
            (*name, thread.spawn(*judge).expect("a thread"))
        });
        // All of them run before the first is waited for.
        let judged: Vec<_> = judged.collect();
        failed.extend(judged.into_iter().filter_map(|(name, thread)| thread.join().err().map(|_| name)));
    }
    assert!(failed.is_empty(), "{} of {}: {}", failed.len(), subjects.len(), failed.join("; "));
}
