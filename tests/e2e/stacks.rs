//! A stack as a transaction: seen before it happens, changed as seen, put back when it fails; and what it builds
//! reaches every host.

use crate::{SOON, ask, load_hello, swarm};
use testkit::{Lab, Output, wait_for};

/// A stack file in the lab's folder.
fn write(lab: &Lab, name: &str, text: &str) -> String {
    let path = lab.dir().join(name);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    std::fs::write(&path, text).expect("a file");
    path.to_str().expect("a readable path").to_owned()
}

fn plan(lab: &Lab, file: &str) -> Output {
    lab.rswarm(1, &["deploy", "--plan", file])
}

fn image_of(lab: &Lab, service: &str, template: &str) -> String {
    let format = format!("{{{{.Spec.TaskTemplate.ContainerSpec.{template}}}}}");
    lab.rswarm(1, &["service", "inspect", "--format", &format, service]).ok().trim().to_owned()
}

const SHOP: &str = "
name: shop
services:
  web:
    image: rswarm/hello
    command: [web]
    environment: {NAME: one}
    configs: [motd]
    secrets: [key]
  still: {image: rswarm/hello, command: [web], volumes: ['data:/data'], networks: [back]}
networks: {back: {internal: true, labels: {a: b}, ipam: {config: [{subnet: 10.77.0.0/24}]}}}
volumes: {data: {}}
configs: {motd: {file: ./motd}}
secrets: {key: {environment: SHOP_KEY}}
";

#[test]
fn what_a_plan_says_is_what_happens() {
    let lab = swarm(1, 1);
    load_hello(&lab, 1);
    let file = write(&lab, "shop.yml", SHOP);
    write(&lab, "motd", "hello");
    let deploy = |key: &str, args: &[&str]| {
        let args = [&["deploy"], args, &[&file]].concat();
        lab.rswarm_with(1, &[("SHOP_KEY", key)], &args)
    };

    let first = deploy("k1", &["--plan"]);
    assert_eq!(first.code, 2, "{first:?}");
    for line in [
        "+ network shop_default",
        "+ config shop_motd",
        "+ secret shop_key",
        "+ volume shop_data",
        "+ service shop_web",
    ] {
        assert!(first.stdout.contains(line), "{}", first.stdout);
    }
    assert_eq!(lab.rswarm(1, &["stack", "ls", "-q"]).ok().trim(), "", "a plan changes nothing");

    deploy("k1", &["--yes"]).ok();
    let again = deploy("k1", &["--plan"]);
    assert_eq!((again.code, again.stdout.trim(), again.stderr.as_str()), (0, "No changes.", ""));
    write(&lab, "shop.yml", &SHOP.replace("10.77", "10.78"));
    let other = deploy("k1", &["--plan"]);
    assert_eq!((other.code, other.stdout.trim()), (0, "No changes."));
    let told = "WARNING: network shop_back stays as it is, though the file says otherwise now (subnet)";
    assert!(other.stderr.contains(told), "{other:?}");
    write(&lab, "shop.yml", SHOP);

    // Another content: another config, and only the service that has it is replaced.
    write(&lab, "motd", "good morning");
    let json = deploy("k1", &["--plan", "--format", "json"]);
    assert_eq!(json.code, 2);
    let seen: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    let changes: Vec<String> = seen["changes"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|c| format!("{} {} {}", c["action"], c["kind"], c["replacesTasks"]).replace('"', ""))
        .collect();
    assert_eq!(changes, ["create config false", "update service true"], "{}", json.stdout);
    let still = lab.rswarm(1, &["service", "ps", "-q", "shop_still"]).ok();
    deploy("k1", &[]).ok();
    assert_eq!(lab.rswarm(1, &["service", "ps", "-q", "shop_still"]).ok(), still);
    deploy("k2", &[]).ok();
    let secrets = lab.rswarm(1, &["secret", "ls", "--format", "{{.Name}}"]).ok();
    assert!(secrets.lines().any(|name| name.starts_with("shop_key-")), "{secrets}");
    assert!(!secrets.contains("k2"));

    let history =
        lab.rswarm(1, &["stack", "history", "shop", "--format", "{{.Revision}} {{.Services}}"]).ok();
    assert_eq!(history.lines().collect::<Vec<_>>(), ["3 2", "2 2", "1 2"]);
    lab.rswarm(1, &["stack", "rollback", "shop", "1"]).ok();
    let configs = image_of(&lab, "shop_web", "Configs");
    assert!(configs.contains("shop_motd") && !configs.contains("shop_motd-"), "{configs}");
    let note = lab.rswarm(1, &["stack", "history", "shop", "--format", "{{.Note}}"]).ok();
    assert_eq!(note.lines().next(), Some("puts 1 back"));
    let refused = lab.rswarm(1, &["stack", "rollback", "shop", "77"]).fails();
    assert!(refused.contains("has no revision 77"), "{refused}");
    lab.rswarm(1, &["stack", "rm", "shop"]).ok();
    assert_eq!(lab.rswarm(1, &["config", "ls", "-q"]).ok(), "");
    assert_eq!(lab.rswarm(1, &["secret", "ls", "-q"]).ok(), "");
}

#[test]
fn a_stack_whose_new_tasks_fail_goes_back_as_a_whole() {
    let lab = swarm(1, 1);
    load_hello(&lab, 1);
    let text = |name: &str, command: &str| {
        format!(
            "
name: shop
services:
  a: {{image: rswarm/hello, command: [web], environment: {{NAME: {name}}}}}
  b:
    image: rswarm/hello
    command: [{command}]
    deploy: {{restart_policy: {{delay: 100ms}}, update_config: {{failure_action: pause, monitor: 2s}}}}
"
        )
    };
    let file = write(&lab, "shop.yml", &text("one", "web"));
    lab.rswarm(1, &["deploy", &file]).ok();
    write(&lab, "shop.yml", &text("two", "no-such-word"));
    let failed = lab.rswarm(1, &["deploy", "--timeout", "30s", &file]);
    assert_ne!(failed.code, 0);
    let told = &failed.stderr;
    for words in
        ["of service shop_b failed with exit code 1", "usage: hello web", "is as it was at revision 1"]
    {
        assert!(told.contains(words), "{told}");
    }
    assert!(image_of(&lab, "shop_a", "Env").contains("NAME=one"), "the other service went back, too");
    // Twice: what failed is no place to go back to.
    assert!(
        lab.rswarm(1, &["deploy", "--timeout", "30s", &file]).fails().contains("as it was at revision 3")
    );
    let history =
        lab.rswarm(1, &["stack", "history", "--format", "{{.Revision}} {{.Status}} {{.Note}}", "shop"]);
    let expected = ["5 came up puts 3 back", "4 failed ", "3 came up puts 1 back", "2 failed ", "1 came up "];
    assert_eq!(history.ok().lines().collect::<Vec<_>>(), expected);
    assert_eq!(plan(&lab, &write(&lab, "shop.yml", &text("one", "web"))).code, 0, "nothing is left of it");
}

#[test]
fn an_image_whose_digest_nobody_can_tell_is_told_and_replaces_nothing() {
    let lab = swarm(1, 1);
    load_hello(&lab, 1);
    let image = "127.0.0.1:9/hello:1";
    lab.rswarm(1, &["tag", "rswarm/hello", image]).ok();
    let text = format!("name: shop\nservices: {{a: {{image: '{image}', command: [web]}}}}\n");
    let file = write(&lab, "shop.yml", &text);
    let deploy = |args: &[&str]| {
        let done = lab.rswarm(1, &[&["deploy"], args, &[&file]].concat());
        (done.code, done.stderr.contains(&format!("WARNING: no digest of image {image} can be told")), done)
    };
    let (code, told, done) = deploy(&[]);
    assert!(code == 0 && !told, "{done:?}");
    let running = image_of(&lab, "shop_a", "Image");
    assert!(running.contains("@sha256:"), "{running}");

    lab.rswarm(1, &["rmi", "-f", image]).ok();
    let (code, told, done) = deploy(&["--plan"]);
    assert!(code == 0 && told && done.stdout.contains("No changes."), "{done:?}");
    let (code, told, done) = deploy(&[]);
    assert!(code == 0 && told && image_of(&lab, "shop_a", "Image") == running, "{done:?}");
    let new = lab.rswarm(1, &["service", "create", "--detach", "--name", "new", image]);
    assert!(new.code == 0 && new.stderr.contains("may run different versions"), "{new:?}");
}

#[test]
fn hooks_run_beside_the_task_and_a_failing_one_fails_it() {
    let lab = swarm(1, 1);
    load_hello(&lab, 1);
    let text = |hook: &str| {
        format!(
            "
name: hooked
services:
  web: {{image: rswarm/hello, command: [web]}}
  alone: {{image: rswarm/hello, command: [web], network_mode: none}}
  after:
    image: rswarm/hello
    command: [web]
    depends_on: [web]
    post_start: [{{command: [/hello, {hook}], environment: {{A: 1}}}}]
    pre_stop: [{{command: /hello no-such-word}}]
    deploy: {{restart_policy: {{condition: none}}}}
"
        )
    };
    let good = write(&lab, "good.yml", &text("check, 'web:80'"));
    lab.rswarm(1, &["deploy", &good]).ok();
    let alone = lab.rswarm(1, &["ps", "-q", "-f", "name=hooked_alone"]).ok();
    let check = |address| lab.rswarm(1, &["exec", alone.trim(), "/hello", "check", address]).code;
    assert_eq!((check("127.0.0.1:80"), check("web:80")), (0, 1), "it has itself alone");
    let mode = ["inspect", "--format", "{{.HostConfig.NetworkMode}}", alone.trim()];
    assert_eq!(lab.rswarm(1, &mode).ok().trim(), "none", "its host's loopback would look the same");
    lab.rswarm(1, &["stack", "rm", "hooked"]).ok();
    let bad = write(&lab, "bad.yml", &text("no-such-word"));
    let failed = lab.rswarm(1, &["deploy", "--timeout", "1m", &bad]).fails();
    assert!(failed.contains("post_start hook \"/hello no-such-word\" failed with exit code 1"), "{failed}");
}

#[test]
fn of_two_deploys_from_one_state_the_second_is_refused() {
    let lab = swarm(1, 1);
    load_hello(&lab, 1);
    let text = |name: &str| {
        format!(
            "name: shop\nservices: {{a: {{image: rswarm/hello, command: [web], environment: {{NAME: {name}}}}}}}\n"
        )
    };
    let one = write(&lab, "one.yml", &text("one"));
    lab.rswarm(1, &["deploy", &one]).ok();
    let files: Vec<String> =
        (0..6).map(|n| write(&lab, &format!("{n}.yml"), &text(&format!("n{n}")))).collect();
    let outcomes: Vec<Output> = std::thread::scope(|scope| {
        let deploys: Vec<_> =
            files.iter().map(|f| scope.spawn(|| lab.rswarm(1, &["deploy", "--detach", f]))).collect();
        deploys.into_iter().map(|d| d.join().expect("a deploy")).collect()
    });
    let done = outcomes.iter().filter(|o| o.code == 0).count();
    assert!(done >= 1, "{outcomes:?}");
    for refused in outcomes.iter().filter(|o| o.code != 0) {
        assert!(
            refused.stderr.contains("was changed by somebody else since the plan was made"),
            "{refused:?}"
        );
    }
    let revisions = lab.rswarm(1, &["stack", "history", "shop", "-q"]).ok();
    assert_eq!(revisions.lines().count(), done + 1, "each that was done is a revision, and no other is");
}

#[test]
fn a_client_that_is_killed_leaves_one_revision_or_the_other() {
    let lab = swarm(1, 1);
    load_hello(&lab, 1);
    let text = |name: usize| {
        let service = |key: &str| {
            format!(
                "  {key}: {{image: rswarm/hello, command: [web], environment: {{NAME: n{name}}}, deploy: {{replicas: 0}}}}\n"
            )
        };
        format!("name: shop\nservices:\n{}", ["a", "b", "c", "d", "e"].map(service).concat())
    };
    let first = write(&lab, "shop.yml", &text(0));
    let whole = std::time::Instant::now();
    lab.rswarm(1, &["deploy", &first]).ok();
    let whole = whole.elapsed();
    let socket = format!("unix://{}", lab.socket(1).display());
    let mut seen = std::collections::BTreeSet::new();
    for round in 1..=21 {
        let file = write(&lab, "shop.yml", &text(round));
        let mut client = std::process::Command::new(crate::program())
            .args(["-H", &socket, "deploy", &file])
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("a client");
        // Over the time that it takes, and some more; the last one is left alone.
        if round <= 20 {
            std::thread::sleep(whole.mul_f64(f64::from(u32::try_from(round).expect("small")) / 10.0));
            // It may have ended by itself.
            drop(client.kill());
        }
        client.wait().expect("its end");
        // In one request: what the client sent may take effect between two.
        let services = lab.api(1, "/services").expect("the services");
        let services: Vec<serde_json::Value> = serde_json::from_str(&services).expect("JSON");
        let names: Vec<String> = services
            .iter()
            .map(|service| service["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"].to_string())
            .collect();
        assert_eq!(names.len(), 5, "round {round}: {names:?}");
        assert!(names.iter().all(|name| *name == names[0]), "round {round}: {names:?}");
        seen.insert(names[0].clone());
    }
    assert!(seen.len() > 1, "some deploys came through: {seen:?}");
}

#[test]
fn what_a_stack_builds_runs_on_every_host_without_a_registry() {
    let lab = swarm(3, 1);
    load_hello(&lab, 1);
    let file = write(
        &lab,
        "app/compose.yml",
        "
name: app
services:
  web:
    build: {context: ., args: {WHO: builder}, labels: {made: here}}
    command: [web]
    container_name: frontdoor
    deploy: {mode: global}
",
    );
    write(&lab, "app/Dockerfile", "FROM rswarm/hello\nARG WHO\nENV NAME=$WHO\n");
    let before = plan(&lab, &file);
    assert!(before.code == 2 && before.stderr.contains("images are built only by a deploy"), "{before:?}");
    assert!(!before.stderr.contains("no digest"), "{}", before.stderr);
    lab.rswarm(1, &["deploy", &file]).ok();
    for n in 1..=3 {
        wait_for("a task on every host", SOON, || {
            let here = lab.rswarm(n, &["ps", "-q"]).ok();
            if here.lines().count() == 1 { Ok(()) } else { Err(here) }
        });
        let here = lab.rswarm(n, &["ps", "-q"]).ok();
        let env = lab.rswarm(n, &["inspect", "--format", "{{.Config.Env}}", here.trim()]).ok();
        assert!(env.contains("NAME=builder"), "{env}");
    }
    let again = plan(&lab, &file);
    assert_eq!((again.code, again.stdout.trim()), (0, "No changes."));
}

#[test]
fn the_history_says_when_who_why_and_of_which_commit_and_what_changed() {
    let lab = swarm(1, 1);
    load_hello(&lab, 1);
    let commit = "0123456789abcdef0123456789abcdef01234567";
    write(&lab, ".git/HEAD", commit);
    let text = |name: &str| {
        format!(
            "name: shop\nservices: {{web: {{image: rswarm/hello, command: [web], environment: {{NAME: {name}}}}}}}"
        )
    };
    for (name, message) in [("one", "first"), ("two", "new logo")] {
        let file = write(&lab, "shop.yml", &text(name));
        lab.rswarm(1, &["deploy", "--yes", "--detach", "--message", message, &file]).ok();
    }
    let json = lab.rswarm(1, &["stack", "history", "--format", "json", "shop"]).ok();
    let newest: serde_json::Value = serde_json::from_str(json.lines().next().expect("a line")).expect("JSON");
    assert_eq!((&newest["Message"], &newest["Git"]), (&"new logo".into(), &commit.into()), "{json}");
    assert!(newest["Author"].as_str().is_some_and(|author| author.starts_with("root@")), "{json}");
    let at = newest["DeployedAt"].as_str().expect("a time");
    let at = time::OffsetDateTime::parse(at, &time::format_description::well_known::Rfc3339).expect("a time");
    let age = time::OffsetDateTime::now_utc() - at;
    assert!(age.whole_seconds().abs() < 600, "{json}");
    let table = lab.rswarm(1, &["stack", "history", "shop"]).ok();
    assert!(table.contains("012345678 ") && !table.contains(commit), "{table}");

    let diff = ["stack", "diff", "shop", "1"];
    let wanted = "~ service web\n    environment.NAME: \"one\" -> \"two\"\n";
    assert_eq!(lab.rswarm(1, &diff).ok(), wanted);
    assert_eq!(lab.rswarm(1, &[&diff[..], &["2"]].concat()).ok(), wanted);
    assert_eq!(lab.rswarm(1, &[&diff[..], &["1"]].concat()).ok(), "No differences.\n");
    let json = lab.rswarm(1, &["stack", "diff", "--format", "json", "shop", "2", "1"]).ok();
    let seen: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(seen["changes"][0]["fields"][0]["new"], "one", "{json}");
    assert!(
        lab.rswarm(1, &["stack", "diff", "shop", "1", "9"]).fails().contains("no revision 9; there are 1, 2")
    );
    assert!(lab.rswarm(1, &["stack", "diff", "nothing", "1"]).fails().contains("nothing"));
}

#[test]
fn on_a_network_of_two_stacks_each_finds_its_own_services_first() {
    let mut lab = swarm(1, 1);
    load_hello(&lab, 1);
    lab.rswarm(1, &["network", "create", "--driver", "overlay", "shared"]).ok();
    for (stack, port) in [("one", 8081), ("two", 8082)] {
        let text = format!(
            "name: {stack}
services:
  web: {{image: rswarm/hello, command: [web], ports: ['{port}:80'], networks: [shared]}}
  counter: {{image: rswarm/hello, command: [counter], volumes: ['visits:/data'], networks: [shared]}}
networks: {{shared: {{external: true}}}}
volumes: {{visits: {{}}}}
"
        );
        let file = write(&lab, &format!("{stack}.yml"), &text);
        lab.rswarm(1, &["deploy", &file]).ok();
    }
    let mut count = |port| {
        let greeting = ask(&mut lab, 1, port);
        let counted = greeting.trim().rsplit_once("Visits: ").and_then(|(_, n)| n.parse::<u64>().ok());
        counted.unwrap_or_else(|| panic!("{greeting}"))
    };
    // Each count is that of the own counter alone: names of both would take turns.
    for visits in 1..=6 {
        assert_eq!((count(8081), count(8082)), (visits, visits));
    }
}

#[test]
fn a_service_may_be_on_a_network_of_its_node_alone() {
    let mut lab = swarm(2, 1);
    load_hello(&lab, 1);
    for name in ["host", "none", "bridge"] {
        let create = ["service", "create", "--name", name, "--mode", "global", "--network", name];
        lab.rswarm(1, &[&create[..], &["rswarm/hello", "web"]].concat()).ok();
        for n in 1..=2 {
            let filter = format!("label=com.docker.swarm.service.name={name}");
            let id = lab.rswarm(n, &["ps", "-q", "-f", &filter]).ok();
            let mode = ["inspect", "--format", "{{.HostConfig.NetworkMode}}", id.trim()];
            assert_eq!(lab.rswarm(n, &mode).ok().trim(), name);
        }
    }
    // The host's own port.
    wait_for("the task to answer", SOON, || lab.http_path(2, 80, "/healthz"));
    let publish = ["--publish", "mode=host,target=80,published=8085", "rswarm/hello", "web"];
    let create = ["service", "create", "--name", "shown", "--network", "bridge"];
    lab.rswarm(1, &[&create[..], &publish].concat()).ok();
    let on = lab.rswarm(1, &["service", "ps", "shown", "--format", "{{.Node}}"]).ok();
    let n = if on.contains("host1") { 1 } else { 2 };
    wait_for("the task to answer", SOON, || lab.http_path(n, 8085, "/healthz"));

    // As Docker's CLI asks before it makes a service.
    let found = lab.api(1, "/v1.51/networks/host?scope=swarm").expect("it is there");
    assert!(found.contains(r#""Scope":"swarm""#), "{found}");

    lab.rswarm(1, &["network", "create", "--driver", "overlay", "back"]).ok();
    let refused = |args: &[&str]| {
        lab.rswarm(1, &[&["service", "create", "--name", "x"], args, &["rswarm/hello", "web"]].concat())
            .fails()
    };
    assert!(refused(&["--network", "host", "--network", "back"]).contains("no other goes with it"));
    assert!(refused(&["--network", "none", "-p", "8086:80"]).contains("cannot publish ports"));
    assert!(refused(&["--network", "bridge", "-p", "8086:80"]).contains("mode host alone"));
}
