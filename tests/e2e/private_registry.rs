//! A registry that wants a password: workers pull with the account of whoever deploys, if he gives it to them, and the
//! password is nowhere to be read.

use crate::{
    SOON, join_all, lab, load_hello,
    reasons::{AT_ONCE, Running},
    wait_for_replicas,
};
use std::fs;
use testkit::{Lab, Output, wait_for};

const PASSWORD: &str = "correct-horse-battery";
/// The password as htpasswd(1) keeps it, bcrypt.
const HTPASSWD: &str = "ann:$2b$05$1kY5hN.1UA17vcdenB7ZLOSC2PVfFws79OMZ36JmQ5Uh1kzi4wKLC\n";

/// Starts two hosts whose daemons take a registry in clear text, and that registry on host 1; no swarm yet.
fn hosts_with_a_registry() -> (Lab, String) {
    let mut lab = lab(2);
    let registry = format!("{}:5000", Lab::address(1));
    let folder = lab.dir().join("registry");
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join("htpasswd"), HTPASSWD).expect("a file");
    let config = format!(
        "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nhttp: {{addr: \"{registry}\"}}\n\
         storage: {{filesystem: {{rootdirectory: {f}/data}}}}\n\
         auth: {{htpasswd: {{realm: test, path: {f}/htpasswd}}}}\n",
        f = folder.display()
    );
    let path = folder.join("config.yml");
    fs::write(&path, config).expect("a file");
    for n in [1, 2] {
        let settings = format!("insecure-registries = [\"{registry}\"]\n");
        fs::write(lab.dir().join(format!("h{n}/daemon.toml")), settings).expect("the settings");
        lab.tell(&format!("kill-daemon {n}")).expect("the daemon to be killed");
        lab.tell(&format!("start-daemon {n}")).expect("the daemon to be started");
        lab.wait_for_daemon(n).expect("the daemon");
    }
    let program = ["/usr/bin/docker-registry", "serve", path.to_str().expect("a readable path")];
    let running =
        lab.exec(1, &program).expect("docker-registry is installed (Debian package docker-registry)");
    wait_for("the registry to answer", SOON, || {
        let said = login(&lab, PASSWORD);
        if said.code == 0 { Ok(()) } else { Err(format!("{said:?}{}", running.said())) }
    });
    (lab, registry)
}

fn login(lab: &Lab, password: &str) -> Output {
    let registry = format!("{}:5000", Lab::address(1));
    lab.rswarm(1, &["login", "-u", "ann", "-p", password, &registry])
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
#[ignore = "oracle: docker-registry"]
fn workers_pull_with_the_account_of_who_deploys_if_he_gives_it_to_them() {
    let (lab, registry) = hosts_with_a_registry();
    assert!(login(&lab, "wrong").fails().contains("unauthorized"));
    login(&lab, PASSWORD).ok();
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

    // As Docker's own client says it; the account goes with the service, whoever scales it.
    lab.docker(1, &["stack", "deploy", "--detach=true", "--with-registry-auth", "-c", file, "shop"]).ok();
    wait_for_replicas(&lab, 1, "shop_web", "1/1");
    lab.rswarm(1, &["service", "update", "--detach", "--env-add", "A=1", "shop_web"]).ok();
    wait_for_replicas(&lab, 1, "shop_web", "1/1");

    let tasks = lab.docker(1, &["service", "ps", "-q", "--no-trunc", "shop_web"]).ok();
    let mut shown = lab.docker(1, &["inspect", "shop_web"]).ok();
    shown += &lab.docker(1, &["info"]).ok();
    for task in tasks.lines() {
        shown += &lab.docker(1, &["inspect", task]).ok();
    }
    for n in [1, 2] {
        for container in lab.docker(n, &["ps", "-aq"]).ok().lines() {
            shown += &lab.docker(n, &["inspect", container]).ok();
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
#[ignore = "oracle: docker-registry"]
fn a_tag_that_its_registry_does_not_have_is_told_at_once_and_not_waited_for() {
    let (lab, registry) = hosts_with_a_registry();
    login(&lab, PASSWORD).ok();
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
