//! The real `docker` CLI against our front door. Needs `docker` (Debian: docker.io or docker-cli); its daemon is
//! not used.

use crate::{
    SOON, ask, attachable, attacks,
    clis::{Cli, Subject, judge_all},
    cluster_commands, contexts, devices, docker_flags, load_hello, private_registry, sockets, stack_config,
    survival, swarm, swarm_ca, wait_for_replicas, wait_for_update,
};
use testkit::wait_for;

/// What is done with Docker's CLI; where ours has the same words, a test has done it with ours.
const SUBJECTS: &[Subject] = &[
    ("a stack from its file to its end", deploy_scale_update_and_look),
    ("a host in no swarm", cluster_commands::refuse_without_a_swarm),
    ("the swarm and its nodes", cluster_commands::swarm_and_nodes),
    ("services", cluster_commands::services),
    ("secrets, configs and networks", cluster_commands::secrets_configs_and_networks),
    ("stacks", cluster_commands::stacks),
    ("the lock", || swarm_ca::lock(Cli::Dockers)),
    ("leaving while locked", || swarm_ca::leave_while_locked(Cli::Dockers)),
    ("the lock on, off, and with another key", || swarm_ca::turn_the_lock(Cli::Dockers)),
    ("the swarm's settings", || swarm_ca::set(Cli::Dockers)),
    ("another root certificate", || swarm_ca::replace_the_root(Cli::Dockers)),
    ("a new cluster of one manager", || survival::force_new_cluster(Cli::Dockers)),
    ("containers on the swarm's networks", || attachable::attach(Cli::Dockers)),
    ("networks of a running container", || attachable::connect_and_disconnect(Cli::Dockers)),
    ("networks that are not to be had", || attachable::attach_what_may_not_be(Cli::Dockers)),
    ("devices and generic resources", || devices::ask_for_devices(Cli::Dockers)),
    ("a user with a certificate or a token", attacks::dockers_cli_is_a_user),
    ("an account at a registry for the workers", || private_registry::give_an_account(Cli::Dockers)),
    ("a daemon behind ssh", sockets::dockers_cli_comes_through_ssh),
    ("a daemon on TCP", sockets::dockers_cli_comes_over_tcp_with_its_certificates),
    ("each of its flags", docker_flags::each_flag_of_dockers_cli_is_ours_or_named_with_the_reason),
    ("services by the same flags", docker_flags::services_are_what_dockers_cli_makes_of_the_same_flags),
    ("contexts in one store", contexts::dockers_cli_and_ours_see_the_same_contexts),
    ("stack files", stack_config::stack_config_means_what_dockers_means),
];

#[test]
#[ignore = "oracle: docker"]
fn dockers_own_cli_does_what_ours_does() {
    judge_all(SUBJECTS);
}

fn deploy_scale_update_and_look() {
    let cli = Cli::Dockers;
    let mut lab = swarm(2, 1);
    load_hello(&lab, 1);
    let version = cli.run(&lab, 1, &["version", "--format", "{{.Server.Version}}"]).ok();
    assert_eq!(version.trim(), env!("CARGO_PKG_VERSION"));
    assert_eq!(cli.run(&lab, 1, &["node", "ls", "-q"]).ok().lines().count(), 2);

    let stack = lab.dir().join("stack.yml");
    let text = "services:\n  web:\n    image: rswarm/hello\n    command: [web]\n    ports: ['8080:80']\n    \
                environment: {NAME: docker, COUNTER: 'counter:6379'}\n    deploy: {replicas: 2}\n  counter:\n    \
                image: rswarm/hello\n    command: [counter]\n    volumes: ['visits:/data']\nvolumes: {visits: {}}\n";
    std::fs::write(&stack, text).expect("a file");
    let stack = stack.to_str().expect("a path");
    let deployed = cli.run(&lab, 1, &["stack", "deploy", "-c", stack, "--detach=true", "app"]);
    assert_eq!(deployed.code, 0, "{deployed:?}{}", lab.daemon_logs());
    wait_for_replicas(&lab, 1, "app_web", "2/2");
    wait_for_replicas(&lab, 1, "app_counter", "1/1");
    for n in [1, 2] {
        assert!(ask(&mut lab, n, 8080).contains("Hello docker!"));
    }

    cli.change(&lab, 1, &["service", "scale", "--detach", "app_web=4"]).ok();
    wait_for_replicas(&lab, 1, "app_web", "4/4");
    cli.change(&lab, 1, &["service", "update", "--detach", "--env-add", "NAME=again", "app_web"]).ok();
    wait_for("the new environment", SOON, || match lab.http(1, 8080) {
        Ok(text) if text.contains("Hello again!") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    cli.change(&lab, 1, &["service", "rollback", "--detach", "app_web"]).ok();
    wait_for("the old environment", SOON, || match lab.http(2, 8080) {
        Ok(text) if text.contains("Hello docker!") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    wait_for_update(&lab, "app_web", "rollback_completed");

    assert!(cli.run(&lab, 1, &["stack", "ls", "--format", "{{.Name}} {{.Services}}"]).ok().contains("app 2"));
    assert!(cli.run(&lab, 1, &["stack", "ps", "app", "--format", "{{.Name}}"]).ok().contains("app_web.1"));
    let logs = cli.run(&lab, 1, &["service", "logs", "app_web"]).ok();
    assert!(logs.contains("listening on port 80"), "{logs}");

    // A container of the other host, by the id that its task shows.
    let task = cli
        .run(&lab, 1, &["service", "ps", "app_web", "-f", "desired-state=running", "-q", "--no-trunc"])
        .ok();
    for task in task.lines() {
        let container =
            cli.run(&lab, 1, &["inspect", "--format", "{{.Status.ContainerStatus.ContainerID}}", task]).ok();
        let checked = cli.run(&lab, 1, &["exec", container.trim(), "/hello", "check", "127.0.0.1:80"]);
        assert_eq!(checked.code, 0, "{checked:?}{}", lab.daemon_logs());
    }
    cli.run(&lab, 1, &["stack", "rm", "app"]).ok();
    wait_for("the stack to be gone", SOON, || {
        let left = cli.run(&lab, 1, &["service", "ls", "-q"]).ok();
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}
