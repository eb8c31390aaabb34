//! `rswarm compose`: a file's containers on one host. Held beside Docker Compose in `plugins`.

use crate::{SOON, lab, load_hello, program, swarm};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use testkit::{Lab, Output, wait_for};

/// A folder of the lab with a compose file in it.
fn project(lab: &Lab, name: &str, text: &str) -> PathBuf {
    let folder = lab.dir().join(name);
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("compose.yaml"), text).expect("a file");
    folder
}

fn compose(lab: &Lab, folder: &Path, args: &[&str]) -> Output {
    let file = folder.join("compose.yaml").display().to_string();
    lab.rswarm(1, &[&["compose", "-f", &file], args].concat())
}

/// Returns the project's containers: name and id.
fn containers(lab: &Lab, folder: &Path) -> BTreeMap<String, String> {
    let shown = compose(lab, folder, &["ps", "-a", "--format", "{{.Name}} {{.ID}}"]).ok();
    shown
        .lines()
        .filter_map(|l| l.split_once(' '))
        .map(|(name, id)| (name.to_owned(), id.to_owned()))
        .collect()
}

#[test]
fn containers_follow_their_file() {
    let mut lab = lab(1);
    load_hello(&lab, 1);
    let text = |name: &str, more: &str| {
        format!(
            "
services:
  web:
    image: rswarm/hello
    command: [web]
    environment: {{NAME: {name}}}
    ports: ['127.0.0.1:8090:80', '8091:80']
    depends_on: [counter]
    configs: [{{source: motd, target: /motd}}]
  counter: {{image: rswarm/hello, command: [counter], volumes: ['visits:/data']}}
{more}
volumes: {{visits: }}
configs: {{motd: {{content: 'hi {name}'}}}}
"
        )
    };
    let folder = project(&lab, "shop", &text("one", "  old: {image: rswarm/hello, command: [counter]}"));
    let said = compose(&lab, &folder, &["up", "-d"]);
    assert_eq!(said.code, 0, "{said:?}");
    for line in
        ["Network shop_default  Created", "Volume shop_visits  Created", "Container shop-web-1  Started"]
    {
        assert!(said.stderr.contains(line), "{line} is missing in {}", said.stderr);
    }
    let answer = wait_for("the service", SOON, || lab.http(1, 8091));
    assert!(answer.contains("Hello one!") && answer.contains("Visits: 1"), "{answer}");
    let first = containers(&lab, &folder);
    assert_eq!(
        first.keys().map(String::as_str).collect::<Vec<_>>(),
        ["shop-counter-1", "shop-old-1", "shop-web-1"]
    );
    compose(&lab, &folder, &["up", "-d"]).ok();
    assert_eq!(containers(&lab, &folder), first, "nothing has changed");

    // One service says something else, one is gone.
    project(&lab, "shop", &text("two", ""));
    let said = compose(&lab, &folder, &["up", "-d"]);
    assert!(said.stderr.contains("shop-old-1; hint: --remove-orphans"), "{}", said.stderr);
    let second = containers(&lab, &folder);
    assert_eq!(first["shop-counter-1"], second["shop-counter-1"]);
    assert_ne!(first["shop-web-1"], second["shop-web-1"]);
    let answer = wait_for("the service", SOON, || lab.http(1, 8091));
    assert!(answer.contains("Hello two!") && answer.contains("Visits: 2"), "the volume stays: {answer}");
    let motd = folder.join("motd").display().to_string();
    compose(&lab, &folder, &["cp", "web:/motd", &motd]).ok();
    assert_eq!(fs::read_to_string(&motd).expect("the config"), "hi two");

    let scaled = ["up", "-d", "--remove-orphans", "--scale", "counter=3"];
    compose(&lab, &folder, &scaled).ok();
    assert_eq!(
        containers(&lab, &folder).into_keys().collect::<Vec<_>>(),
        ["shop-counter-1", "shop-counter-2", "shop-counter-3", "shop-web-1"]
    );
    assert_eq!(compose(&lab, &folder, &["port", "web", "80"]).ok().trim(), "127.0.0.1:8090");
    let logs = compose(&lab, &folder, &["logs"]).ok();
    assert!(logs.lines().any(|l| l == "web-1      | listening on port 80"), "{logs}");
    compose(&lab, &folder, &["stop", "counter"]).ok();
    assert_eq!(compose(&lab, &folder, &["ps", "--services"]).ok(), "web\n");
    compose(&lab, &folder, &["start"]).ok();
    assert_eq!(compose(&lab, &folder, &["ps", "--services"]).ok(), "counter\nweb\n");

    compose(&lab, &folder, &["down", "-v"]).ok();
    assert_eq!(lab.rswarm(1, &["ps", "-aq"]).ok().trim(), "");
    assert_eq!(lab.rswarm(1, &["volume", "ls", "-q"]).ok().trim(), "");
    assert!(!lab.rswarm(1, &["network", "ls"]).ok().contains("shop"));
}

#[test]
fn a_service_waits_for_what_it_needs() {
    let lab = lab(1);
    load_hello(&lab, 1);
    let text = |check: &str| {
        format!(
            "
services:
  db:
    image: rswarm/hello
    command: [web]
    healthcheck: {{test: [CMD, /hello, check, '127.0.0.1:{check}'], interval: 200ms, retries: 2}}
  init: {{image: rswarm/hello, command: [check, 'db:80'], depends_on: {{db: {{condition: service_healthy}}}}}}
  web:
    image: rswarm/hello
    command: [web]
    depends_on: {{init: {{condition: service_completed_successfully}}}}
    post_start: [{{command: [/hello, check, 'db:80']}}]
  side: {{image: rswarm/hello, command: [counter], network_mode: 'service:web'}}
"
        )
    };
    let good = project(&lab, "good", &text("80"));
    compose(&lab, &good, &["up", "-d", "--wait", "--wait-timeout", "60"]).ok();
    let states = compose(&lab, &good, &["ps", "-a", "--format", "{{.Service}} {{.State}} {{.Health}}"]).ok();
    assert_eq!(states, "db running healthy\ninit exited \nside running \nweb running \n");
    // In the network of another service.
    compose(&lab, &good, &["exec", "-T", "side", "/hello", "check", "127.0.0.1:80"]).ok();
    compose(&lab, &good, &["down"]).ok();

    let bad = project(&lab, "bad", &text("81"));
    let failed = compose(&lab, &bad, &["up", "-d"]).fails();
    assert!(failed.contains("container bad-db-1 is unhealthy"), "{failed}");
    assert_eq!(compose(&lab, &bad, &["ps", "--services"]).ok(), "db\n", "nothing that needs it was started");
    let unknown = compose(&lab, &bad, &["up", "-d", "wbe"]).fails();
    assert!(unknown.contains("no such service: wbe"), "{unknown}");
}

#[test]
fn up_and_run_end_with_what_ends_in_them() {
    let lab = lab(1);
    load_hello(&lab, 1);
    let text = "
services:
  web: {image: rswarm/hello, command: [web], volumes: [/scratch]}
  test: {image: rswarm/hello, command: [check, 'web:81'], depends_on: [web]}
  tool: {image: rswarm/hello, command: [no-such-word], profiles: [tools]}
";
    let folder = project(&lab, "ends", text);
    let ended = compose(&lab, &folder, &["up", "--exit-code-from", "test"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stdout.contains("test-1 exited with code 1"), "{}", ended.stdout);
    assert_eq!(compose(&lab, &folder, &["ps", "-q"]).ok(), "", "all are stopped");

    let run = compose(&lab, &folder, &["run", "--rm", "-T", "test", "check", "web:80"]);
    assert_eq!(run.code, 0, "{run:?}");
    let run = compose(&lab, &folder, &["run", "--rm", "-T", "tool"]);
    assert_eq!(run.code, 1, "its profile comes with it: {run:?}");
    assert!(run.stdout.contains("usage: hello") || run.stderr.contains("usage: hello"), "{run:?}");
    assert!(!compose(&lab, &folder, &["config", "--services"]).ok().contains("tool"));

    // What has no name is kept over a replacement.
    compose(&lab, &folder, &["up", "-d", "web"]).ok();
    let volumes = || lab.rswarm(1, &["volume", "ls", "-q"]).ok();
    let before = volumes();
    compose(&lab, &folder, &["up", "-d", "--force-recreate", "web"]).ok();
    assert_eq!(volumes(), before);
    compose(&lab, &folder, &["down", "-v"]).ok();
    assert_eq!(volumes(), "");
}

#[test]
fn watched_files_reach_the_container() {
    let mut lab = lab(1);
    load_hello(&lab, 1);
    let text = "
services:
  web:
    build: {context: ., dockerfile_inline: \"FROM rswarm/hello\\nCOPY src /src\\nCOPY built part /\\n\"}
    command: [web]
    develop:
      watch:
        - {action: sync, path: src, target: /src, ignore: ['*.tmp']}
        - {action: rebuild, path: built}
";
    let folder = project(&lab, "live", text);
    fs::create_dir(folder.join("src")).expect("a folder");
    fs::write(folder.join("src/file"), "one").expect("a file");
    fs::write(folder.join("built"), "one").expect("a file");
    fs::write(folder.join("part"), "one").expect("a file");
    let file = folder.join("compose.yaml").display().to_string();
    let socket = format!("unix://{}", lab.socket(1).display());
    let watch = lab.exec(1, &["-H", &socket, "compose", "-f", &file, "watch"]).expect("a watch");
    let inside = |path: &str| {
        let copy = folder.join("copy").display().to_string();
        let copied = compose(&lab, &folder, &["cp", &format!("web:{path}"), &copy]);
        if copied.code == 0 {
            fs::read_to_string(copy).map_err(|e| e.to_string())
        } else {
            Err(copied.stderr)
        }
    };
    let reads = |path: &str, text: &str| match inside(path) {
        Ok(found) if found == text => Ok(()),
        other => Err(format!("{path}: {other:?}")),
    };
    wait_for("the service", SOON, || reads("/src/file", "one"));
    let id = containers(&lab, &folder)["live-web-1"].clone();
    // The watch may begin a little later than the container: each look writes again.
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).map_err(|e| e.to_string());
    wait_for("a changed file", SOON, || write("src/file", "two").and_then(|()| reads("/src/file", "two")));
    fs::create_dir(folder.join("src/deep")).expect("a folder");
    wait_for("a file in a new folder", SOON, || {
        write("src/deep/x.tmp", "no")?;
        write("src/deep/new", "yes").and_then(|()| reads("/src/deep/new", "yes"))
    });
    assert!(inside("/src/deep/x.tmp").is_ok(), "a pattern with no slash is of the folder itself");
    assert_eq!(containers(&lab, &folder)["live-web-1"], id, "only its files have changed");
    write("built", "two").expect("a file");
    wait_for("another image", SOON, || {
        reads("/built", "two").map_err(|error| format!("{error}; the watch said:\n{}", watch.said()))
    });
    assert_ne!(containers(&lab, &folder)["live-web-1"], id);

    fs::remove_file(folder.join("part")).expect("a file");
    write("built", "three").expect("a file");
    wait_for("a failed rebuild", SOON, || match watch.said() {
        said if said.contains("tried again with the next change") => Ok(()),
        said => Err(said),
    });
    write("part", "two").expect("a file that no rule names");
    wait_for("what has failed, with the next change", SOON, || {
        write("src/file", "three")?;
        reads("/built", "three").map_err(|error| format!("{error}; the watch said:\n{}", watch.said()))
    });
    lab.tell("kill 1").expect("the host ends, and the watch with it");
    drop(watch);
}

#[test]
fn the_same_words_reach_a_stack_on_all_hosts() {
    let lab = swarm(2, 1);
    load_hello(&lab, 1);
    let text = "
name: both
services:
  web: {image: rswarm/hello, command: [web], deploy: {mode: global}}
  counter: {image: rswarm/hello, command: [counter], environment: {A: '1'}, volumes: ['/data']}
";
    let folder = project(&lab, "both", text);
    let swarm = |args: &[&str]| compose(&lab, &folder, &[&["--swarm"], args].concat());
    swarm(&["up", "-d"]).ok();
    assert_eq!(swarm(&["ps", "--format", "{{.Name}}"]).ok().lines().count(), 3);
    let logs = wait_for("lines of all tasks", SOON, || {
        let logs = swarm(&["logs"]).ok();
        if logs.lines().count() == 3 { Ok(logs) } else { Err(logs) }
    });
    assert!(logs.lines().any(|l| l == "web      | listening on port 80"), "{logs}");
    // Wherever it is.
    swarm(&["exec", "-T", "counter", "/hello", "check", "web:80"]).ok();
    let once = swarm(&["run", "counter", "check", "web:80"]);
    assert_eq!(once.code, 0, "{once:?}");
    let failed = swarm(&["run", "counter", "check", "web:1"]);
    assert_eq!(failed.code, 1, "{failed:?}");
    swarm(&["restart", "counter"]).ok();
    assert_eq!(
        lab.rswarm(1, &["service", "ls", "--format", "{{.Name}}"]).ok().lines().count(),
        2,
        "no job is left"
    );
    // A file that can be read only once.
    let piped = Command::new(program())
        .args(["compose", "--swarm", "-f", "-", "up", "-d"])
        .env("DOCKER_HOST", format!("unix://{}", lab.socket(1).display()))
        .stdin(fs::File::open(folder.join("compose.yaml")).expect("the file"))
        .output()
        .expect("rswarm runs");
    let said = String::from_utf8_lossy(&piped.stdout);
    assert!(piped.status.success() && said.contains("No changes."), "{piped:?}");
    swarm(&["down"]).ok();
    assert_eq!(lab.rswarm(1, &["service", "ls", "-q"]).ok(), "");
}

#[test]
fn a_network_that_changed_is_made_anew_with_its_containers() {
    let lab = lab(1);
    load_hello(&lab, 1);
    let text = |subnet: &str| {
        format!(
            "
services:
  web: {{image: rswarm/hello, command: [web], networks: [own], volumes: [/data]}}
  apart: {{image: rswarm/hello, command: [web]}}
networks:
  own: {{ipam: {{config: [{{subnet: {subnet}}}]}}}}
"
        )
    };
    let folder = project(&lab, "nets", &text("10.123.1.0/24"));
    compose(&lab, &folder, &["up", "-d"]).ok();
    let address = || {
        let format = "{{.NetworkSettings.Networks.nets_own.IPAddress}}";
        lab.rswarm(1, &["inspect", "--format", format, "nets-web-1"]).ok().trim().to_owned()
    };
    let volume = || lab.rswarm(1, &["inspect", "--format", "{{json .Mounts}}", "nets-web-1"]).ok();
    assert_eq!(address(), "10.123.1.2");
    let (before, kept) = (containers(&lab, &folder), volume());
    project(&lab, "nets", &text("10.123.2.0/24"));

    // Somebody else's container is not torn off its network.
    let visitor = ["run", "-d", "--name", "visitor", "--network", "nets_own", "rswarm/hello", "web"];
    lab.rswarm(1, &visitor).ok();
    let refused = compose(&lab, &folder, &["up", "-d"]).fails();
    assert!(refused.contains("container visitor, which is not among the services"), "{refused}");
    assert_eq!(address(), "10.123.1.2");
    lab.rswarm(1, &["rm", "-f", "visitor"]).ok();

    let told = compose(&lab, &folder, &["up", "-d", "--no-recreate"]);
    assert!(told.stderr.contains("network nets_own stays as it was"), "{told:?}");
    compose(&lab, &folder, &["up", "-d"]).ok();
    assert_eq!(address(), "10.123.2.2");
    let after = containers(&lab, &folder);
    assert_eq!(before["nets-apart-1"], after["nets-apart-1"]);
    assert_ne!(before["nets-web-1"], after["nets-web-1"]);
    assert_eq!(volume(), kept, "its anonymous volume stays");
    compose(&lab, &folder, &["up", "-d"]).ok();
    assert_eq!(containers(&lab, &folder), after, "nothing has changed");
}
