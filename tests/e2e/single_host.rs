//! One host, no swarm: containers by hand.

use crate::{lab, load_hello};
use testkit::wait_for;

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
    assert_eq!(lab.rswarm(1, &["network", "ls", "-q", "-f", "driver=overlay"]).ok(), "");
}
