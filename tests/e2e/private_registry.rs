//! A registry that wants a password: workers pull with the account of whoever deploys, if he gives it to them, and the
//! password is nowhere to be read.

use crate::{
    SOON,
    clis::Cli,
    join_all, lab, load_hello,
    reasons::{AT_ONCE, Running},
    registry::Registry,
    wait_for_replicas,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::fs;
use testkit::{Lab, Output, wait_for};
use tokio::runtime::Runtime;

const PASSWORD: &str = "correct-horse-battery";

/// Two hosts whose daemons take a registry in clear text that wants Ann's password; no swarm yet.
struct Hosts {
    lab: Lab,
    registry: String,
    /// The registry answers as long as this.
    _serving: Runtime,
}

fn hosts_with_a_registry() -> Hosts {
    let mut lab = lab(2);
    let account = format!("Basic {}", STANDARD.encode(format!("ann:{PASSWORD}")));
    let serving = Runtime::new().expect("a runtime");
    let registry = Registry::of_account(account).serve_hosts(&mut lab, &serving);
    for n in [1, 2] {
        let settings = format!("insecure-registries = [\"{registry}\"]\n");
        fs::write(lab.dir().join(format!("h{n}/daemon.toml")), settings).expect("the settings");
        lab.tell(&format!("kill-daemon {n}")).expect("the daemon to be killed");
        lab.tell(&format!("start-daemon {n}")).expect("the daemon to be started");
        lab.wait_for_daemon(n).expect("the daemon");
    }
    Hosts { lab, registry, _serving: serving }
}

fn login(lab: &Lab, registry: &str, password: &str) -> Output {
    lab.rswarm(1, &["login", "-u", "ann", "-p", password, registry])
}

/// Every file of a folder that holds the password, in clear text or as base64 has it, wherever that begins.
fn files_with_the_password(folder: &std::path::Path, found: &mut Vec<String>) {
    let words = [
        PASSWORD,
        "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5",
        "NvcnJlY3QtaG9yc2UtYmF0dGVye",
        "jb3JyZWN0LWhvcnNlLWJhdHRlcn",
    ];
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
        if kind.is_dir() {
            files_with_the_password(&path, found);
        } else if kind.is_file() {
            let text = fs::read(&path).unwrap_or_default();
            let has = |word: &str| text.windows(word.len()).any(|part| part == word.as_bytes());
            if words.iter().any(|word| has(word)) {
                found.push(path.display().to_string());
            }
        }
    }
}

#[test]
fn workers_pull_with_the_account_of_who_deploys_if_he_gives_it_to_them() {
    give_an_account(Cli::Ours);
}

pub(crate) fn give_an_account(cli: Cli) {
    let Hosts { lab, registry, _serving } = hosts_with_a_registry();
    assert!(login(&lab, &registry, "wrong").fails().contains("unauthorized"));
    login(&lab, &registry, PASSWORD).ok();
    join_all(&lab, 2, 1);
    load_hello(&lab, 1);
    let image = format!("{registry}/shop/web:1");
    lab.rswarm(1, &["tag", "rswarm/hello", &image]).ok();
    lab.rswarm(1, &["push", &image]).ok();
    // A node that has the image would give it to the others.
    lab.rswarm(1, &["rmi", "-f", &image, "rswarm/hello"]).ok();
    let file = lab.dir().join("shop.yml");
    let text = format!(
        "services:\n  web:\n    image: {image}\n    command: [web]\n    deploy:\n      placement:\n        \
         constraints: [node.hostname==host2]\n"
    );
    fs::write(&file, text).expect("a file");
    let file = file.to_str().expect("a readable path");

    lab.rswarm(1, &["deploy", "--yes", "--detach", "--name", "shop", file]).ok();
    wait_for("the worker's pull to be refused", SOON, || {
        let tasks =
            lab.rswarm(1, &["service", "ps", "--no-trunc", "--format", "{{.Error}}", "shop_web"]).ok();
        let told = tasks.contains("pull access denied") && tasks.contains("no basic auth credentials");
        if told { Ok(()) } else { Err(format!("{tasks}{}", lab.daemon_logs())) }
    });
    lab.rswarm(1, &["deploy", "--yes", "--detach", "--name", "shop", "--with-registry-auth", file]).ok();
    wait_for_replicas(&lab, 1, "shop_web", "1/1");
    lab.rswarm(1, &["stack", "rm", "shop"]).ok();
    wait_for("the image to be free", SOON, || {
        let said = lab.rswarm(2, &["rmi", "-f", &image]);
        if said.code == 0 { Ok(()) } else { Err(format!("{said:?}")) }
    });

    // In Docker's words; the account goes with the service, whoever scales it.
    cli.run(&lab, 1, &["stack", "deploy", "--detach=true", "--with-registry-auth", "-c", file, "shop"]).ok();
    wait_for_replicas(&lab, 1, "shop_web", "1/1");
    lab.rswarm(1, &["service", "update", "--detach", "--env-add", "A=1", "shop_web"]).ok();
    wait_for_replicas(&lab, 1, "shop_web", "1/1");

    let tasks = lab.rswarm(1, &["service", "ps", "-q", "--no-trunc", "shop_web"]).ok();
    let mut shown = lab.rswarm(1, &["inspect", "shop_web"]).ok();
    shown += &lab.rswarm(1, &["info"]).ok();
    for task in tasks.lines() {
        shown += &lab.rswarm(1, &["inspect", task]).ok();
    }
    for n in [1, 2] {
        for container in lab.rswarm(n, &["ps", "-aq"]).ok().lines() {
            shown += &lab.rswarm(n, &["inspect", container]).ok();
        }
    }
    shown += &lab.rswarm(1, &["audit", "--format", "json"]).ok();
    assert!(!shown.contains(PASSWORD) && !shown.contains("RegistryAuth"), "{shown}");
    let mut found = Vec::new();
    for n in [1, 2] {
        files_with_the_password(&lab.dir().join(format!("h{n}")), &mut found);
    }
    assert_eq!(found, [""; 0], "the password is on a disk, or in a log");
}

#[test]
fn a_tag_that_its_registry_does_not_have_is_told_at_once_and_not_waited_for() {
    let Hosts { lab, registry, _serving } = hosts_with_a_registry();
    login(&lab, &registry, PASSWORD).ok();
    join_all(&lab, 2, 1);
    load_hello(&lab, 1);
    let image = format!("{registry}/shop/web");
    lab.rswarm(1, &["tag", "rswarm/hello", &format!("{image}:1")]).ok();
    lab.rswarm(1, &["push", &format!("{image}:1")]).ok();
    // A tag that is not there, and a repository.
    for (name, image) in [("tag", format!("{image}:2")), ("repository", format!("{registry}/shop/nothing:1"))]
    {
        let file = lab.dir().join(format!("{name}.yml"));
        fs::write(&file, format!("name: {name}\nservices: {{web: {{image: '{image}', command: [web]}}}}"))
            .expect("a file");
        let file = file.to_str().expect("a readable path");
        let mut deploy = Running::start(&lab, &["deploy", "--yes", "--with-registry-auth", file]);
        deploy.until("is at revision 1", SOON);
        wait_for("the managers to know", SOON, || {
            let tasks = lab.rswarm(1, &["stack", "ps", "--no-trunc", "--format", "{{.Error}}", name]).ok();
            if tasks.contains("manifest unknown") {
                Ok(())
            } else {
                Err(format!("{tasks}{}", lab.daemon_logs()))
            }
        });
        let told = deploy.until(&format!("{name}_web: image {image} not found"), AT_ONCE);
        assert!(told.contains("(1 task rejected on host"), "{told}");
        let (code, said) = deploy.end(SOON);
        assert_eq!(code, 3, "{said:?}");
        let cannot =
            format!("Error: service {name}_web cannot run: image {image} not found: manifest unknown");
        assert!(said.contains(&cannot), "{said:?}");
        assert!(
            said.iter().any(|line| line.starts_with("hint: name a tag that the registry has")),
            "{said:?}"
        );
    }
}
