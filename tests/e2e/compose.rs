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
pub(crate) fn project(lab: &Lab, name: &str, text: &str) -> PathBuf {
    let folder = lab.dir().join(name);
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("compose.yaml"), text).expect("a file");
    folder
}

pub(crate) fn compose(lab: &Lab, folder: &Path, args: &[&str]) -> Output {
    let file = folder.join("compose.yaml").display().to_string();
    lab.rswarm(1, &[&["compose", "-f", &file], args].concat())
}

/// Returns the project's containers: name and id.
pub(crate) fn containers(lab: &Lab, folder: &Path) -> BTreeMap<String, String> {
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

    // What ended while others were still being started is shown with all that it said.
    let text = "
services:
  first: {image: rswarm/hello, command: [no-such-word]}
  slow:
    image: rswarm/hello
    command: [web]
    healthcheck: {test: [CMD, /hello, check, '127.0.0.1:80'], interval: 300ms}
  second: {image: rswarm/hello, command: [no-such-word], depends_on: {first: {condition: service_started}, slow: {condition: service_healthy}}}
";
    let early = project(&lab, "early", text);
    let both = compose(&lab, &early, &["up", "--abort-on-container-exit"]);
    let shown = |said: &Output, name: &str| {
        let lines = format!("{}{}", said.stdout, said.stderr);
        lines.lines().any(|line| line.starts_with(name) && line.contains("usage: hello"))
    };
    assert!(shown(&both, "first-1 "), "{both:?}");
    let alone = compose(&lab, &early, &["up", "--no-deps", "first", "second"]);
    assert!(shown(&alone, "first-1 ") && shown(&alone, "second-1 "), "{alone:?}");

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
    let told = |error: String| format!("{error}; the watch said:\n{}", watch.said());
    wait_for("a changed file", SOON, || {
        write("src/file", "two").and_then(|()| reads("/src/file", "two")).map_err(told)
    });
    fs::create_dir(folder.join("src/deep")).expect("a folder");
    wait_for("a file in a new folder", SOON, || {
        write("src/deep/x.tmp", "no")?;
        write("src/deep/new", "yes").and_then(|()| reads("/src/deep/new", "yes"))
    });
    assert!(inside("/src/deep/x.tmp").is_ok(), "a pattern with no slash is of the folder itself");
    assert_eq!(containers(&lab, &folder)["live-web-1"], id, "only its files have changed");
    write("built", "two").expect("a file");
    wait_for("another image", SOON, || reads("/built", "two").map_err(told));
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
        reads("/built", "three").map_err(told)
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
    let rehearsed = swarm(&["--dry-run", "up"]).ok();
    assert!(rehearsed.contains("both_counter"), "{rehearsed}");
    assert_eq!(lab.rswarm(1, &["service", "ls", "-q"]).ok(), "", "it was not deployed");
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
    for (word, told) in
        [("restart", "Service both_web  Would be restarted"), ("down", "Service both_web  Removed")]
    {
        let rehearsed = swarm(&["--dry-run", word]);
        assert!(
            rehearsed.code == 0 && rehearsed.stderr.contains(&format!("DRY-RUN MODE -  {told}")),
            "{rehearsed:?}"
        );
    }
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
fn a_network_that_changed_is_made_anew_and_its_containers_move() {
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
    assert_eq!(before, after, "the same containers, which were stopped and started");
    assert_eq!(volume(), kept);
    let found = compose(&lab, &folder, &["exec", "-T", "web", "/hello", "check", "web:80"]);
    assert_eq!(found.code, 0, "it has its name on the new network: {found:?}");
    compose(&lab, &folder, &["up", "-d"]).ok();
    assert_eq!(containers(&lab, &folder), after, "nothing has changed");

    // One that is off its network is not as the file says.
    lab.rswarm(1, &["network", "disconnect", "nets_own", "nets-web-1"]).ok();
    compose(&lab, &folder, &["up", "-d"]).ok();
    let anew = address();
    assert!(anew.starts_with("10.123.2."), "{anew}");
    assert_eq!(volume(), kept, "its anonymous volume stays");
}

/// As [`compose`], in a folder, with variables of the shell.
pub(crate) fn compose_in(lab: &Lab, folder: &Path, env: &[(&str, &str)], args: &[&str]) -> Output {
    let mut command = Command::new(program());
    command.arg("compose").args(args).current_dir(folder).envs(env.iter().copied());
    let said = command.env("DOCKER_HOST", format!("unix://{}", lab.socket(1).display())).output();
    let said = said.expect("rswarm runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Output { code: said.status.code().unwrap_or(-1), stdout: text(&said.stdout), stderr: text(&said.stderr) }
}

#[test]
fn every_word_reaches_the_containers_of_a_project() {
    let lab = lab(1);
    load_hello(&lab, 1);
    let text = "
services:
  web: {image: rswarm/hello, command: [web], volumes: ['data:/data'], depends_on: [db]}
  db: {image: rswarm/hello, command: [web]}
  once: {image: rswarm/hello, command: [no-such-word], profiles: [once]}
volumes: {data: }
";
    let folder = project(&lab, "words", text);
    compose(&lab, &folder, &["up", "-d", "web"]).ok();

    compose(&lab, &folder, &["scale", "web=3"]).ok();
    let states = || compose(&lab, &folder, &["ps", "-a", "--format", "{{.Name}} {{.State}}"]).ok();
    assert_eq!(
        states(),
        "words-db-1 running\nwords-web-1 running\nwords-web-2 running\nwords-web-3 running\n"
    );

    // What is copied into a service reaches all of its containers, or one.
    let (note, back) = (folder.join("note").display().to_string(), folder.join("back"));
    fs::write(&note, "hi").expect("a file");
    compose(&lab, &folder, &["cp", &note, "web:/note"]).ok();
    compose(&lab, &folder, &["cp", "--index", "2", &note, "web:/second"]).ok();
    let copied = |index: &str, path: &str| {
        let to = back.display().to_string();
        compose(&lab, &folder, &["cp", "--index", index, &format!("web:{path}"), &to]).code
    };
    assert_eq!(["1", "2", "3"].map(|index| copied(index, "/note")), [0, 0, 0]);
    assert_eq!((copied("2", "/second"), copied("3", "/second")), (0, 1));
    assert_eq!(fs::read_to_string(&back).expect("the file"), "hi");

    compose(&lab, &folder, &["commit", "--index", "2", "-m", "as it is", "web", "kept:1"]).ok();
    assert!(lab.rswarm(1, &["images"]).ok().contains("kept"));
    let tar = folder.join("web.tar").display().to_string();
    compose(&lab, &folder, &["export", "-o", &tar, "web"]).ok();
    assert!(fs::metadata(&tar).expect("an archive").len() > 512);
    assert_eq!(compose(&lab, &folder, &["volumes", "-q"]).ok(), "words_data\n");
    assert_eq!(compose(&lab, &folder, &["volumes", "-q", "db"]).ok(), "");
    let used = compose(&lab, &folder, &["stats", "--no-stream", "--format", "{{.Name}}", "db"]).ok();
    assert_eq!(used, "words-db-1\n");
    let pinned = compose(&lab, &folder, &["exec", "--index", "7", "web", "/hello"]).fails();
    assert!(pinned.contains("service \"web\" is not running container #7"), "{pinned}");

    let later = compose(&lab, &folder, &["up", "-d", "once"]);
    assert_eq!(later.code, 0, "{later:?}");
    let ended = compose(&lab, &folder, &["wait", "once"]);
    assert_eq!((ended.code, ended.stdout.contains("exited with status code 1")), (1, true), "{ended:?}");
    let events =
        compose(&lab, &folder, &["events", "--json", "--since", "10m", "--until", "0s", "once"]).ok();
    assert!(events.lines().any(|l| l.contains("\"action\":\"die\"")), "{events}");
    assert!(!events.contains("\"service\":\"web\""), "{events}");
    let version = compose(&lab, &folder, &["version", "--short"]).ok();
    assert_eq!(version.trim(), env!("CARGO_PKG_VERSION"));

    // By its name alone it is known as well: what each service needs stands in its labels.
    let named = |args: &[&str]| lab.rswarm(1, &[&["compose", "-p", "words"], args].concat());
    named(&["stop"]).ok();
    let started = named(&["start", "web"]);
    assert!(started.stderr.contains("words-db-1  Started"), "{started:?}");
    compose(&lab, &folder, &["wait", "--down-project", "once"]).fails();
    assert_eq!(lab.rswarm(1, &["ps", "-aq"]).ok(), "");
    named(&["down", "-v"]).ok();
    let nothing = named(&["down"]);
    assert_eq!(nothing.code, 0, "{nothing:?}");
    assert!(nothing.stderr.contains("No resource found to remove"), "{nothing:?}");
}

#[test]
fn shell_files_of_variables_and_flags_say_which_project_is_meant() {
    let lab = lab(1);
    load_hello(&lab, 1);
    let folder = project(&lab, "named", "services: {web: {image: rswarm/hello, command: [web]}}");
    fs::create_dir_all(folder.join("deep")).expect("a folder");
    let other = "
services:
  other: {image: rswarm/hello, command: [no-such-word], environment: {WHO: '${WHO:-nobody}'}}
  extra: {image: rswarm/hello, command: [web], profiles: [extra]}
";
    fs::write(folder.join("deep/other.yaml"), other).expect("a file");
    let config = |folder: &Path, env: &[(&str, &str)], args: &[&str]| {
        compose_in(&lab, folder, env, &[args, &["config"]].concat()).ok()
    };
    let is = |text: String, wanted: &[&str], unwanted: &[&str]| {
        wanted.iter().for_each(|line| assert!(text.contains(line), "{line:?} is missing: {text}"));
        unwanted.iter().for_each(|line| assert!(!text.contains(line), "{line:?} is there: {text}"));
    };
    // The nearest file above, unless a variable names others; `.env` says it as the shell does, and the shell wins.
    is(config(&folder.join("deep"), &[], &[]), &["name: named\n", "  web:"], &["other:"]);
    let shell =
        [("COMPOSE_FILE", "deep/other.yaml@compose.yaml"), ("COMPOSE_PATH_SEPARATOR", "@"), ("WHO", "shell")];
    is(config(&folder, &shell, &[]), &["name: deep\n", "web:", "other:", "WHO: shell"], &["extra:"]);
    fs::write(
        folder.join(".env"),
        "COMPOSE_FILE=deep/other.yaml\nCOMPOSE_PROJECT_NAME=said\nCOMPOSE_PROFILES=extra\nWHO=dotenv\n",
    )
    .expect("a file");
    is(config(&folder, &[], &[]), &["name: said\n", "other:", "extra:", "WHO: dotenv"], &["web:"]);
    is(config(&folder, &[("WHO", "shell")], &["-p", "flag"]), &["name: flag\n", "WHO: shell"], &[]);
    fs::write(folder.join("a.env"), "WHO=a\nCOMPOSE_FILE=deep/other.yaml\n").expect("a file");
    fs::write(folder.join("b.env"), "WHO=b\n").expect("a file");
    is(config(&folder, &[], &["--env-file", "a.env", "--env-file", "b.env"]), &["WHO: b"], &["extra:"]);
    is(config(&folder, &[("COMPOSE_ENV_FILES", "a.env")], &[]), &["WHO: a"], &["extra:"]);

    // `run -e NAME` is the shell's, else that of the files.
    let run = |env: &[(&str, &str)], more: &[&str]| {
        let args =
            [&["--env-file", "a.env", "-p", "run", "run", "-d", "-e", "WHO"], more, &["other"]].concat();
        let name = compose_in(&lab, &folder, env, &args).ok();
        lab.rswarm(1, &["inspect", "--format", "{{json .Config.Env}}", name.trim()]).ok()
    };
    assert!(run(&[], &[]).contains("WHO=a"));
    assert!(run(&[("WHO", "shell")], &[]).contains("WHO=shell"));
    assert!(run(&[], &["--env-from-file", "b.env", "-e", "WHO=flag"]).contains("WHO=flag"));

    // What `run` left is an orphan once it has ended: told of, ignored or removed.
    let up = |env: &[(&str, &str)]| {
        compose_in(&lab, &folder, env, &["--env-file", "a.env", "-p", "run", "up", "-d"])
    };
    wait_for("the end of what runs once", SOON, || match lab.rswarm(1, &["ps", "-q"]).ok() {
        running if running.is_empty() => Ok(()),
        running => Err(running),
    });
    assert!(up(&[]).stderr.contains("orphan containers"));
    assert!(!up(&[("COMPOSE_IGNORE_ORPHANS", "true")]).stderr.contains("orphan"));
    assert!(up(&[("COMPOSE_IGNORE_ORPHANS", "perhaps")]).fails().contains("want true or false"));
    up(&[("COMPOSE_REMOVE_ORPHANS", "1")]).ok();
    assert!(!lab.rswarm(1, &["ps", "-a"]).ok().contains("run-other-run-"));

    // A name without a file is enough, though a folder above has one; and what is told can be left away.
    let down = compose_in(&lab, &folder, &[], &["--progress", "quiet", "-p", "run", "down"]);
    assert_eq!((down.code, down.stderr.as_str()), (0, ""), "{down:?}");
    assert_eq!(lab.rswarm(1, &["ps", "-aq"]).ok(), "");
}

#[test]
fn what_fails_on_the_way_is_an_exit_code() {
    let lab = lab(1);
    load_hello(&lab, 1);
    let text = "
services:
  bad: {image: rswarm/hello, command: [web], post_start: [{command: [/hello, no-such-word]}], profiles: [bad]}
  last: {image: rswarm/hello, command: [web], pre_stop: [{command: [/hello, no-such-word]}]}
  fine:
    image: rswarm/hello
    command: [web]
    depends_on: {never: {condition: service_healthy, required: false}}
  never: {image: rswarm/hello, command: [no-such-word], healthcheck: {test: [CMD, /hello, check, '127.0.0.1:80']}}
  twin: {image: rswarm/hello, container_name: same, profiles: [twins]}
  twin2: {image: rswarm/hello, container_name: same, profiles: [twins]}
  outside: {image: rswarm/hello, networks: [far], profiles: [outside]}
networks: {far: {external: true}}
";
    let folder = project(&lab, "fails", text);
    let failed = compose(&lab, &folder, &["up", "-d", "bad"]).fails();
    assert!(failed.contains("bad hook exited with status 1"), "{failed}");
    let optional = compose(&lab, &folder, &["up", "-d", "fine", "last"]);
    assert_eq!(optional.code, 0, "{optional:?}");
    assert!(optional.stderr.contains("optional dependency \"never\" failed to start"), "{optional:?}");
    let twins = compose(&lab, &folder, &["--profile", "twins", "up", "-d", "twin", "twin2"]).fails();
    assert!(twins.contains("container name \"same\" is already in use"), "{twins}");
    let outside = compose(&lab, &folder, &["up", "-d", "outside"]).fails();
    assert!(outside.contains("network far declared as external, but could not be found"), "{outside}");
    assert!(compose(&lab, &folder, &["up", "--menu", "-d"]).fails().contains("--menu"));

    // All goes, and what failed is told.
    let gone = compose(&lab, &folder, &["down"]).fails();
    assert!(gone.contains("last hook exited with status 1"), "{gone}");
    assert_eq!(lab.rswarm(1, &["ps", "-aq"]).ok(), "");
}

#[test]
fn scale_keeps_what_is_new_and_ports_of_a_range_do_not_meet() {
    let lab = lab(1);
    load_hello(&lab, 1);
    let text = |name: &str, owner: &str| {
        format!(
            "
services:
  web: {{image: rswarm/hello, command: [web], environment: {{NAME: {name}}}, ports: ['6005-6009:80'], volumes: ['data:/data']}}
volumes: {{data: {{labels: {{owner: {owner}}}}}}}
"
        )
    };
    let folder = project(&lab, "many", &text("one", "ann"));
    compose(&lab, &folder, &["up", "-d", "--scale", "web=2"]).ok();
    project(&lab, "many", &text("two", "ann"));
    compose(&lab, &folder, &["up", "-d", "--no-recreate", "--scale", "web=4"]).ok();
    let ports = compose(&lab, &folder, &["ps", "--format", "{{.Ports}}"]).ok();
    let mut ports: Vec<&str> = ports.lines().filter_map(|l| l.split("->").next()).collect();
    ports.sort_unstable();
    assert_eq!(ports, ["0.0.0.0:6005", "0.0.0.0:6006", "0.0.0.0:6007", "0.0.0.0:6008"]);
    compose(&lab, &folder, &["up", "-d", "--scale", "web=2"]).ok();
    let left: Vec<String> = containers(&lab, &folder).into_keys().collect();
    assert_eq!(left, ["many-web-3", "many-web-4"]);
    let full = compose(&lab, &folder, &["up", "-d", "--scale", "web=6"]).fails();
    assert!(full.contains("port is already allocated"), "{full}");

    // A volume is made anew only with leave: what is in it goes.
    project(&lab, "many", &text("two", "bob"));
    let owner = || lab.rswarm(1, &["volume", "inspect", "--format", "{{json .Labels}}", "many_data"]).ok();
    let asked = compose(&lab, &folder, &["up", "-d", "--scale", "web=1"]);
    assert!(asked.stderr.contains("volume many_data stays as it was; hint: --yes"), "{asked:?}");
    assert!(owner().contains("ann"));
    compose(&lab, &folder, &["up", "-d", "--yes", "--scale", "web=1"]).ok();
    assert!(owner().contains("bob"), "{}", owner());
    compose(&lab, &folder, &["down", "-v"]).ok();
}
