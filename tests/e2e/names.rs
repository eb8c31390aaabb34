//! A person names a service or a task, on any node, and need not know where its container is or what it is called.

use crate::{SOON, load_hello, swarm, wait_for_replicas};
use std::fs;
use testkit::{Lab, wait_for};

const WEB: &str = "
name: shop
services:
  web:
    image: rswarm/hello
    command: [web]
    deploy: {replicas: 3, placement: {max_replicas_per_node: 1}}
  agent:
    image: rswarm/hello
    command: [web]
    deploy: {mode: global}
  nowhere:
    image: rswarm/hello
    command: [web]
    deploy: {placement: {constraints: [node.labels.disk == ssd]}}
";

/// A swarm of three hosts with a task of `shop_web` on each.
fn shop() -> Lab {
    let lab = swarm(3, 1);
    load_hello(&lab, 1);
    let file = lab.dir().join("shop.yml");
    fs::write(&file, WEB).expect("a file");
    lab.rswarm(1, &["deploy", "--yes", "--detach", file.to_str().expect("a path")]).ok();
    wait_for_replicas(&lab, 1, "shop_web", "3/3");
    wait_for_replicas(&lab, 1, "shop_agent", "3/3");
    lab
}

/// The id of the task that is to run in a slot, and the host that it is on; `None` between two attempts.
fn task(lab: &Lab, slot: u8) -> Option<(String, String)> {
    let format = "{{.ID}} {{.Name}} {{.Node}}";
    let list = ["service", "ps", "--no-trunc", "-f", "desired-state=running", "--format", format, "shop_web"];
    let list = lab.rswarm(1, &list).ok();
    let mut lines = list.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let line = lines.find(|line| line[1].ends_with(&format!(".{slot}")))?;
    Some((line[0].to_owned(), line[2].to_owned()))
}

#[test]
fn a_service_or_task_stands_for_its_container_wherever_that_is() {
    let lab = shop();
    let check = ["/hello", "check", "127.0.0.1:80"];
    let exec = |name: &str| lab.rswarm(1, &[&["exec", name][..], &check].concat());
    let (id, host) = task(&lab, 2).expect("a task in slot 2");
    for name in ["shop_web.1", "shop_web.2", "shop_web.3", &id, &id[..12], &format!("shop_web.2.{id}")] {
        assert_eq!(exec(name).ok(), "", "{name}");
    }
    for host in ["host1", "host2", "host3"] {
        exec(&format!("shop_agent.{host}")).ok();
    }
    let any = exec("shop_web");
    assert!(any.stderr.contains("shop_web has 3 running tasks; this is shop_web.1 on host"), "{any:?}");
    any.ok();

    let note = lab.dir().join("note");
    fs::write(&note, "hello there\n").expect("a file");
    lab.rswarm(1, &["cp", note.to_str().expect("a path"), "shop_web.2:/note"]).ok();
    let back = lab.dir().join("back");
    lab.rswarm(1, &["cp", &format!("{id}:/note"), back.to_str().expect("a path")]).ok();
    assert_eq!(fs::read_to_string(&back).expect("what came back"), "hello there\n");
    let others = lab.rswarm(1, &["cp", "shop_web.3:/note", "-"]).fails();
    assert!(others.contains("/note"), "it is that task's alone: {others}");

    let one = lab.rswarm(1, &["logs", "shop_web.2"]).ok();
    assert!(one.starts_with("listening on port 80\n"), "as of a container: {one}");
    let all = lab.rswarm(1, &["logs", "shop_web"]).ok();
    for slot in 1..=3 {
        let head = format!("shop_web.{slot}.");
        assert!(
            all.lines().any(|line| line.starts_with(&head) && line.ends_with("| listening on port 80")),
            "{all}"
        );
    }
    let one = lab.rswarm(1, &["service", "logs", "shop_web.2"]).ok();
    let head = format!("shop_web.2.{}@{host} ", &id[..12]);
    assert!(!one.is_empty() && one.lines().all(|line| line.starts_with(&head)), "{one}");

    let top = lab.rswarm(1, &["top", "shop_web"]).ok();
    assert_eq!(top.matches("/hello web").count(), 3, "{top}");
    assert!(top.contains(&format!("shop_web.2 on {host}:")), "{top}");
    assert_eq!(lab.rswarm(1, &["top", "shop_web.2"]).ok().matches("/hello web").count(), 1);
    let stats = lab
        .rswarm(1, &["stats", "--no-stream", "--format", "{{.Name}}", "shop_web", "shop_agent.host3"])
        .ok();
    assert_eq!(stats.lines().filter(|name| name.starts_with("shop_web.")).count(), 3, "{stats}");
    assert_eq!(stats.lines().filter(|name| name.starts_with("shop_agent.")).count(), 1, "{stats}");

    assert_eq!(
        lab.rswarm(1, &["inspect", "--format", "{{.Slot}} {{.ID}}", "shop_web.2"]).ok(),
        format!("2 {id}\n")
    );
    let container = [
        "container",
        "inspect",
        "--format",
        "{{index .Config.Labels \"com.docker.swarm.task.id\"}}",
        "shop_web.2",
    ];
    assert_eq!(lab.rswarm(1, &container).ok().trim(), id);

    for verb in ["stop", "kill"] {
        let refused = lab.rswarm(1, &[verb, "shop_web"]).fails();
        assert!(
            refused.contains("shop_web is a service") && refused.contains("rswarm scale shop_web=0"),
            "{refused}"
        );
    }
    lab.rswarm(1, &["kill", "shop_web.2"]).ok();
    wait_for("another task in its slot", SOON, || match task(&lab, 2) {
        Some((now, _)) if now != id => Ok(()),
        other => Err(format!("{other:?}")),
    });

    for (name, words) in [
        ("nobody", "No such container: nobody"),
        ("shop_web.9", "service shop_web has no task shop_web.9"),
        (
            "shop_nowhere",
            "service shop_nowhere has no running task: scheduling constraints not satisfied on 3 nodes",
        ),
        ("shop_nowhere.1", "this task has no container: scheduling constraints not satisfied on 3 nodes"),
    ] {
        let refused = exec(name).fails();
        assert!(refused.contains(words), "{name}: {refused}");
    }
}

#[test]
fn all_nodes_containers_are_one_list_of_what_a_person_may_see() {
    let mut lab = shop();
    load_hello(&lab, 2);
    lab.rswarm(2, &["run", "-d", "--name", "mine", "rswarm/hello", "web"]).ok();
    let list = ["ps", "--all-nodes", "--format", "{{.Node}} {{.Names}}"];
    let count = |text: &str, start: &str| text.lines().filter(|line| line.starts_with(start)).count();
    let seen = lab.rswarm(1, &list).ok();
    for host in ["host1", "host2", "host3"] {
        assert_eq!(count(&seen, &format!("{host} shop_web.")), 1, "{seen}");
        assert_eq!(count(&seen, &format!("{host} shop_agent.")), 1, "{seen}");
    }
    assert_eq!(count(&seen, "host2 mine"), 1, "{seen}");
    let only = lab.rswarm(1, &["ps", "--all-nodes", "-q", "-f", "name=mine"]).ok();
    assert_eq!(only.lines().count(), 1, "{only}");
    let bad = lab.rswarm(1, &["ps", "--all-nodes", "-f", "nonsense=1"]).fails();
    assert!(bad.contains("nonsense"), "{bad}");

    // From a worker: nobody without a token; who only reads sees containers of tasks; an admin sees all.
    let refused = lab.rswarm(2, &list).fails();
    assert!(refused.contains("rswarm user login"), "{refused}");
    let token = |name: &str, role: &str| {
        lab.rswarm(1, &["user", "add", name, "--role", role]).ok();
        lab.rswarm(1, &["user", "token", "create", name, "--label", "test"]).ok().trim().to_owned()
    };
    let (rob, ada, dan) = (token("rob", "read"), token("ada", "admin"), token("dan", "deploy"));
    for n in [1, 2] {
        let rob = lab.rswarm_with(n, &[("RSWARM_TOKEN", &rob)], &list).ok();
        assert_eq!((count(&rob, "host2 mine"), count(&rob, "host")), (0, 6), "{rob}");
        let ada = lab.rswarm_with(n, &[("RSWARM_TOKEN", &ada)], &list).ok();
        assert_eq!((count(&ada, "host2 mine"), count(&ada, "host")), (1, 7), "{ada}");
    }

    // Names stand for containers there as well, for whom managers let in.
    let check = ["/hello", "check", "127.0.0.1:80"];
    let exec = |name: &str, token: &str| {
        lab.rswarm_with(2, &[("RSWARM_TOKEN", token)], &[&["exec", name][..], &check].concat())
    };
    for name in ["shop_web.1", "shop_web.2", "shop_web.3"] {
        exec(name, &dan).ok();
    }
    // Those of host 2 are its root's, whoever he says he is.
    for name in ["shop_agent.host1", "shop_agent.host3"] {
        let refused = exec(name, &rob).fails();
        assert!(refused.contains("takes role admin, or deploy"), "{name}: {refused}");
        let logs = lab.rswarm_with(2, &[("RSWARM_TOKEN", &rob)], &["logs", name]).ok();
        assert!(logs.starts_with("listening on port 80\n"), "{name}: {logs}");
    }
    let nobody = lab.rswarm(2, &["exec", "shop_agent.host1", "/hello"]).fails();
    assert!(
        nobody.contains("No such container: shop_agent.host1") && nobody.contains("rswarm user login"),
        "{nobody}"
    );

    lab.tell("kill-daemon 3").expect("the daemon to be killed");
    wait_for("the daemon to be missed", SOON, || {
        let said = lab.rswarm(1, &list);
        // For a moment the managers think that it is there.
        let told = said.code == 0
            && said.stderr.contains("the containers of host3 are not known: its daemon is away");
        let rest = count(&said.stdout, "host2 mine") == 1 && count(&said.stdout, "host3") == 0;
        if told && rest { Ok(()) } else { Err(format!("{said:?}")) }
    });
}
