//! The real `docker` CLI against our front door. Needs `docker` (Debian: docker.io or docker-cli); its daemon is
//! not used.

use crate::{SOON, ask, docker_changes, load_hello, swarm, wait_for_replicas, wait_for_update};
use testkit::wait_for;

#[test]
#[ignore = "oracle: docker"]
fn dockers_own_cli_deploys_scales_updates_and_looks_into_a_swarm() {
    let mut lab = swarm(2, 1);
    load_hello(&lab, 1);
    let version = lab.docker(1, &["version", "--format", "{{.Server.Version}}"]).ok();
    assert_eq!(version.trim(), env!("CARGO_PKG_VERSION"));
    assert_eq!(lab.docker(1, &["node", "ls", "-q"]).ok().lines().count(), 2);

    let stack = lab.dir().join("stack.yml");
    let text = "services:\n  web:\n    image: rswarm/hello\n    command: [web]\n    ports: ['8080:80']\n    \
                environment: {NAME: docker, COUNTER: 'counter:6379'}\n    deploy: {replicas: 2}\n  counter:\n    \
                image: rswarm/hello\n    command: [counter]\n    volumes: ['visits:/data']\nvolumes: {visits: {}}\n";
    std::fs::write(&stack, text).expect("a file");
    let stack = stack.to_str().expect("a path");
    let deployed = lab.docker(1, &["stack", "deploy", "-c", stack, "--detach=true", "app"]);
    assert_eq!(deployed.code, 0, "{deployed:?}{}", lab.daemon_logs());
    wait_for_replicas(&lab, 1, "app_web", "2/2");
    wait_for_replicas(&lab, 1, "app_counter", "1/1");
    for n in [1, 2] {
        assert!(ask(&mut lab, n, 8080).contains("Hello docker!"));
    }

    docker_changes(&lab, 1, &["service", "scale", "--detach", "app_web=4"]).ok();
    wait_for_replicas(&lab, 1, "app_web", "4/4");
    docker_changes(&lab, 1, &["service", "update", "--detach", "--env-add", "NAME=again", "app_web"]).ok();
    wait_for("the new environment", SOON, || match lab.http(1, 8080) {
        Ok(text) if text.contains("Hello again!") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    docker_changes(&lab, 1, &["service", "rollback", "--detach", "app_web"]).ok();
    wait_for("the old environment", SOON, || match lab.http(2, 8080) {
        Ok(text) if text.contains("Hello docker!") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    wait_for_update(&lab, "app_web", "rollback_completed");

    assert!(lab.docker(1, &["stack", "ls", "--format", "{{.Name}} {{.Services}}"]).ok().contains("app 2"));
    assert!(lab.docker(1, &["stack", "ps", "app", "--format", "{{.Name}}"]).ok().contains("app_web.1"));
    let logs = lab.docker(1, &["service", "logs", "app_web"]).ok();
    assert!(logs.contains("listening on port 80"), "{logs}");

    // A container of the other host, by the id that its task shows.
    let task =
        lab.docker(1, &["service", "ps", "app_web", "-f", "desired-state=running", "-q", "--no-trunc"]).ok();
    for task in task.lines() {
        let container =
            lab.docker(1, &["inspect", "--format", "{{.Status.ContainerStatus.ContainerID}}", task]).ok();
        let checked = lab.docker(1, &["exec", container.trim(), "/hello", "check", "127.0.0.1:80"]);
        assert_eq!(checked.code, 0, "{checked:?}{}", lab.daemon_logs());
    }
    lab.docker(1, &["stack", "rm", "app"]).ok();
    wait_for("the stack to be gone", SOON, || {
        let left = lab.docker(1, &["service", "ls", "-q"]).ok();
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}
