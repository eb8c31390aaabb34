//! Daemons with names: ours and Docker's CLI keep them in the same store.

use crate::{lab, load_hello, program};
use std::{path::Path, process::Command};
use testkit::{Lab, Output};

/// Runs a program as a person for whom no variable names a daemon.
fn run(lab: &Lab, program: &Path, args: &[&str]) -> Output {
    let output = Command::new(program)
        .args(args)
        .env("HOME", lab.dir())
        .env_remove("DOCKER_HOST")
        .env_remove("RSWARM_HOST")
        .env_remove("DOCKER_CONTEXT")
        .env_remove("DOCKER_CONFIG")
        .current_dir(lab.dir())
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn a_daemon_has_a_name_and_commands_go_to_the_one_in_use() {
    let lab = lab(2);
    let rswarm = |args: &[&str]| run(&lab, program(), args);
    let host = |n: u8| format!("host=unix://{}", lab.socket(n).display());
    let said = rswarm(&["context", "create", "one", "--docker", &host(1), "--description", "the first"]);
    assert_eq!((said.stdout.as_str(), said.stderr.trim()), ("one\n", "Successfully created context \"one\""));
    rswarm(&["context", "create", "two", "--docker", &host(2)]).ok();
    let asked = |args: &[&str]| rswarm(&[args, &["info", "--format", "{{.Name}}"]].concat()).ok();
    assert_eq!((asked(&["--context", "one"]), asked(&["-c", "two"])), ("host1\n".into(), "host2\n".into()));
    rswarm(&["context", "use", "two"]).ok();
    assert_eq!(rswarm(&["context", "show"]).ok(), "two\n");
    assert_eq!(asked(&[]), "host2\n");
    let list = rswarm(&["context", "ls", "--format", "{{.Name}} {{.Current}} {{.Description}}"]).ok();
    let lines: Vec<&str> = list.lines().collect();
    assert!(lines.contains(&"one false the first") && lines.contains(&"two true "), "{list}");

    // Typed hosts and variables are stronger than what is in use, and a typed name is stronger than variables.
    let there = format!("unix://{}", lab.socket(1).display());
    assert_eq!(asked(&["-H", &there]), "host1\n");
    let variable = |args: &[&str]| lab.rswarm(1, &[args, &["info", "--format", "{{.Name}}"]].concat()).ok();
    assert_eq!((variable(&[]), variable(&["--context", "two"])), ("host1\n".into(), "host2\n".into()));
    assert!(
        lab.rswarm(1, &["context", "use", "one"])
            .stderr
            .contains("DOCKER_HOST environment variable overrides")
    );

    let refused = |args: &[&str]| rswarm(args).fails();
    assert!(refused(&["-H", &there, "--context", "one", "ps"]).contains("both --host and --context"));
    assert!(refused(&["--context", "nope", "ps"]).contains("context \"nope\": context not found"));
    assert!(refused(&["context", "rm", "one"]).contains("is in use, set -f flag"));
    assert!(refused(&["context", "rm", "default"]).contains("cannot be removed"));
    assert!(refused(&["--context", "one", "daemon"]).contains("the daemon itself takes -H"));
    let hosts = refused(&["service", "create", "--host", "db:10.1.2.3", "rswarm/hello"]);
    assert!(hosts.contains("hint: --add-host") && hosts.contains("unable to parse"), "{hosts}");
    rswarm(&["context", "update", "two", "--docker", &host(1)]).ok();
    assert_eq!(asked(&["-c", "two"]), "host1\n");

    rswarm(&["context", "export", "two"]).ok();
    assert!(
        refused(&["context", "export", "two"]).contains("cannot write two.dockercontext"),
        "it is not overwritten"
    );
    rswarm(&["context", "import", "three", "two.dockercontext"]).ok();
    assert_eq!(asked(&["-c", "three"]), "host1\n");
    rswarm(&["context", "rm", "-f", "one", "two", "three"]).ok();
    assert_eq!(rswarm(&["context", "ls", "-q"]).ok(), "default\n");
}

/// Judged with Docker's own CLI, as [`crate::docker_cli`] has it.
pub(crate) fn dockers_cli_and_ours_see_the_same_contexts() {
    let lab = lab(1);
    load_hello(&lab, 1);
    let (docker, host) = (testkit::peer("docker"), format!("host=unix://{}", lab.socket(1).display()));
    let both = [program(), docker];
    for (maker, name) in both.into_iter().zip(["ours", "theirs"]) {
        run(&lab, maker, &["context", "create", name, "--docker", &host, "--description", "d"]).ok();
    }
    for (maker, name) in both.into_iter().zip(["theirs", "ours"]) {
        run(&lab, maker, &["context", "use", name]).ok();
        for asker in both {
            assert_eq!(run(&lab, asker, &["context", "show"]).ok().trim(), name);
            assert!(run(&lab, asker, &["images", "-q"]).ok().lines().count() == 1, "{}", asker.display());
        }
    }
    let inspected = both.map(|asker| {
        let text = run(&lab, asker, &["context", "inspect", "ours", "theirs"]).ok();
        // Docker shows a host's TLS folder whether it is there or not, as ours does.
        text.split_whitespace().collect::<String>()
    });
    let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
    assert_eq!(value(&inspected[0]), value(&inspected[1]));
    for (maker, reader, name) in [(program(), docker, "a1"), (docker, program(), "b1")] {
        let file = format!("{name}.tar");
        run(&lab, maker, &["context", "export", "ours", &file]).ok();
        run(&lab, reader, &["context", "import", name, &file]).ok();
        assert_eq!(run(&lab, program(), &["-c", name, "info", "--format", "{{.Name}}"]).ok(), "host1\n");
    }
    run(&lab, program(), &["context", "rm", "-f", "ours"]).ok();
    assert!(!run(&lab, docker, &["context", "ls", "-q"]).ok().contains("ours"));
}
