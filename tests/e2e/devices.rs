//! GPUs and other things that hosts have: each belongs to one task of a swarm; on one host containers share them.

use crate::{SOON, clis::Cli, lab, load_hello, swarm};
use std::{collections::BTreeSet, fs};
use testkit::{Lab, wait_for};

/// Gives host `n` GPUs as a vendor describes them, and what its operator says besides.
fn equip(lab: &mut Lab, n: u8, gpus: &[&str], seats: u32) {
    let folder = lab.dir().join(format!("h{n}/cdi"));
    fs::create_dir_all(&folder).expect("a folder");
    let device = |name: &&str| {
        format!(
            "- {{name: {name}, containerEdits: {{deviceNodes: [{{path: /dev/{name}, hostPath: /dev/null}}]}}}}\n"
        )
    };
    // The kernel's name of a device tells two apart.
    let devices: String =
        gpus.iter().zip(["null", "zero", "full"]).map(|(gpu, of)| device(gpu).replace("null", of)).collect();
    let text = format!("cdiVersion: 0.6.0\nkind: example.com/gpu\ndevices:\n{devices}");
    fs::write(folder.join("example.yaml"), text).expect("a description");
    let settings = format!(
        "cdi-spec-dirs = [{:?}]\nnode-generic-resources = [\"seat={seats}\"]\n",
        folder.display().to_string()
    );
    fs::write(lab.dir().join(format!("h{n}/daemon.toml")), settings).expect("the settings");
    lab.tell(&format!("kill-daemon {n}")).expect("the daemon to be killed");
    lab.tell(&format!("start-daemon {n}")).expect("the daemon to be started");
    lab.wait_for_daemon(n).expect("the daemon");
}

/// Returns what the tasks of a service on host `n` are told of the GPUs that are theirs.
fn given(lab: &Lab, n: u8, service: &str) -> BTreeSet<String> {
    let ids = lab.rswarm(n, &["ps", "-q", "-f", &format!("name={service}")]).ok();
    let mut all = BTreeSet::new();
    for id in ids.lines() {
        let env = lab.rswarm(n, &["inspect", "--format", "{{json .Config.Env}}", id]).ok();
        let env: Vec<String> = serde_json::from_str(&env).expect("a list");
        let gpus =
            env.iter().find_map(|line| line.strip_prefix("DOCKER_RESOURCE_EXAMPLE.COM/GPU=")).expect("a GPU");
        assert!(all.insert(gpus.to_owned()), "twice: {env:?}");
        let asked = lab.rswarm(n, &["inspect", "--format", "{{json .HostConfig.DeviceRequests}}", id]).ok();
        for gpu in gpus.split(',') {
            assert!(asked.contains(&format!("\"example.com/gpu={gpu}\"")), "{asked}");
        }
    }
    all
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

const GPUS: &str = "
name: gpu
services:
  train:
    image: rswarm/hello
    command: [web]
    gpus: [{count: 1}]
    deploy: {replicas: 3}
  seats:
    image: rswarm/hello
    command: [web]
    deploy:
      resources: {reservations: {generic_resources: [{discrete_resource_spec: {kind: seat, value: 2}}]}}
";

#[test]
fn each_gpu_of_a_swarm_belongs_to_one_task() {
    let mut lab = swarm(3, 1);
    load_hello(&lab, 1);
    equip(&mut lab, 2, &["g0", "g1"], 1);
    equip(&mut lab, 3, &["g0"], 2);
    for (n, expected) in [(2, ["g1", "\"Value\":1"]), (3, ["g0", "\"Value\":2"])] {
        wait_for("the node to tell", SOON, || {
            let has = lab.rswarm(
                1,
                &["node", "inspect", "--format", "{{json .Description.Resources}}", &format!("host{n}")],
            );
            if expected.iter().all(|e| has.stdout.contains(e)) { Ok(()) } else { Err(format!("{has:?}")) }
        });
    }
    let file = lab.dir().join("gpu.yml");
    fs::write(&file, GPUS).expect("a file");
    let file = file.to_str().expect("a path");
    lab.rswarm(1, &["deploy", file]).ok();
    assert_eq!(given(&lab, 2, "gpu_train"), set(&["g0", "g1"]));
    assert_eq!(given(&lab, 3, "gpu_train"), set(&["g0"]));
    assert_eq!(lab.rswarm(3, &["ps", "-q", "-f", "name=gpu_seats"]).ok().lines().count(), 1);
    lab.rswarm(1, &["deploy", "--plan", file]).ok();

    lab.rswarm(1, &["service", "scale", "--detach", "gpu_train=4"]).ok();
    wait_for("the fourth to be told why it waits", SOON, || {
        let tasks = lab.rswarm(1, &["service", "ps", "--no-trunc", "gpu_train"]);
        if tasks.stdout.contains("insufficient resources on 3 nodes") {
            Ok(())
        } else {
            Err(format!("{tasks:?}"))
        }
    });
}

#[test]
fn containers_of_one_host_share_its_gpus() {
    let mut lab = lab(1);
    load_hello(&lab, 1);
    equip(&mut lab, 1, &["g0", "g1"], 1);
    let info = lab.rswarm(1, &["info", "--format", "{{json .DiscoveredDevices}}"]).ok();
    assert!(info.contains("\"example.com/gpu=g0\"") && info.contains("\"example.com/gpu=g1\""), "{info}");
    fs::write(lab.dir().join("h1/cdi/broken.json"), "{").expect("a file");
    let info = lab.rswarm(1, &["info"]);
    let told = format!("{}{}", info.stdout, info.stderr);
    assert!(told.contains("  example.com/gpu=g1\n"), "{told}");
    assert!(told.contains("WARNING: devices are not known") && told.contains("broken.json: EOF"), "{told}");
    let run = |flags: &[&str]| {
        let words = [&["run", "-d"], flags, &["rswarm/hello", "web"]].concat();
        lab.rswarm(1, &words)
    };
    run(&["--gpus", "all"]).ok();
    run(&["--gpus", "device=g1"]).ok();
    run(&["--device", "example.com/gpu=g0"]).ok();
    let none = run(&["--gpus", "driver=other"]).fails();
    assert!(none.contains("could not select device driver \"other\" with capabilities: [[gpu]]"), "{none}");

    let folder = lab.dir().join("app");
    fs::create_dir_all(&folder).expect("a folder");
    let text = "services: {web: {image: rswarm/hello, command: [web], gpus: all}}";
    fs::write(folder.join("compose.yml"), text).expect("a file");
    let file = folder.join("compose.yml").display().to_string();
    lab.rswarm(1, &["compose", "-f", &file, "up", "-d"]).ok();
    let asked =
        lab.rswarm(1, &["inspect", "--format", "{{json .HostConfig.DeviceRequests}}", "app-web-1"]).ok();
    assert!(asked.contains("\"Count\":-1") && asked.contains("gpu"), "{asked}");
}

#[test]
fn devices_and_generic_resources_are_asked_for_by_hand() {
    ask_for_devices(Cli::Ours);
}

pub(crate) fn ask_for_devices(cli: Cli) {
    let mut lab = swarm(1, 1);
    load_hello(&lab, 1);
    equip(&mut lab, 1, &["g0", "g1"], 3);
    let info = cli.run(&lab, 1, &["info"]).ok();
    let told = ["example.com/gpu=g0", "CDI spec directories"].iter().any(|words| info.contains(words));
    assert!(told, "{info}");
    cli.run(&lab, 1, &["run", "-d", "--gpus", "all", "rswarm/hello", "web"]).ok();
    cli.run(&lab, 1, &["run", "-d", "--device", "example.com/gpu=g1", "rswarm/hello", "web"]).ok();
    wait_for("the node to tell", SOON, || {
        let has =
            cli.run(&lab, 1, &["node", "inspect", "--format", "{{json .Description.Resources}}", "self"]);
        if has.stdout.contains("seat") { Ok(()) } else { Err(format!("{has:?}")) }
    });
    let create =
        ["service", "create", "--name", "seated", "--generic-resource", "seat=2", "rswarm/hello", "web"];
    cli.run(&lab, 1, &create).ok();
    let of = |format: &str| cli.run(&lab, 1, &["service", "inspect", "--format", format, "seated"]).ok();
    let wanted = of("{{json .Spec.TaskTemplate.Resources.Reservations}}");
    assert!(wanted.contains(r#"{"DiscreteResourceSpec":{"Kind":"seat","Value":2}}"#), "{wanted}");
    cli.change(
        &lab,
        1,
        &["service", "update", "--generic-resource-rm", "seat", "--generic-resource-add", "gpu=2", "seated"],
    )
    .ok();
    assert_eq!(given(&lab, 1, "seated"), set(&["g0,g1"]));
    let task = cli.run(&lab, 1, &["service", "ps", "-q", "-f", "desired-state=running", "seated"]).ok();
    let task = cli.run(&lab, 1, &["inspect", "--format", "{{json .GenericResources}}", task.trim()]).ok();
    assert!(task.contains(r#"{"NamedResourceSpec":{"Kind":"example.com/gpu","Value":"g0"}}"#), "{task}");
}
