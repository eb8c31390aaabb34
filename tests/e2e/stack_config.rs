//! `rswarm stack config` beside `docker stack config`: the same meaning, or both refuse.

use std::{path::Path, process::Command};

/// Each once alone, and then laid over the first.
const FILES: &[&str] = &[
    "services: {web: {image: a, ports: ['80:80'], command: top, volumes: ['.:/x'], environment: {A: 1, B: }}}",
    "services: {web: {image: 'a:${TAG-x}', ports: ['8000-8002:80', '90-91:90-91/udp', '127.0.0.1:7:7', 5]}}",
    "services: {web: {image: a, ports: [{target: 80}, {target: 81, published: 80, mode: host, protocol: udp}]}}",
    "services: {web: {image: a, volumes: ['v:/v:nocopy', '~/h:/h', '../up:/up:ro,rshared', 'c:/w:/w', '/only', a]}}\nvolumes: {v: }",
    "services: {web: {image: a, volumes: [{type: tmpfs, target: /t, tmpfs: {size: 4}}, {type: bind, source: q, target: /q}]}}",
    "services: {web: {image: a, env_file: e.env, environment: ['C', 'D=', 'HOME=', 'K=own']}}",
    "services: {web: {image: a, command: \"sh -c 'a b' \\\"c d\\\" # no\", entrypoint: [x, y], init: false, tty: false}}",
    "services: {web: {image: a, deploy: {mode: global, labels: [a=b, c], placement: {constraints: [x, x]}}}}",
    "services: {web: {image: a, deploy: {replicas: 0, update_config: {parallelism: 0, delay: 0s}, rollback_config: {}, resources: {limits: {}, reservations: {memory: 1.5g, generic_resources: [{discrete_resource_spec: {kind: g, value: 2}}]}}, restart_policy: {condition: any, delay: 100ms, max_attempts: 0, window: 1h}}}}",
    "services: {web: {image: a, healthcheck: {test: [CMD, x], interval: 1500ms, retries: 0, disable: false}}}",
    "services: {web: {image: a, logging: {driver: x, options: {a: 1, b: , c: 1.0}}, extra_hosts: ['a:1.2.3.4', 'b=::1', 'c:[::2]']}}",
    "services: {web: {image: a, networks: {default: , n: {aliases: [q], ipv4_address: 1.2.3.4}}}}\nnetworks: {n: {driver_opts: {a: 1}, ipam: {config: [{subnet: 10.0.0.0/24}]}}}",
    "services: {web: {image: a, secrets: [s, {source: t, target: /t, uid: '1', mode: 0440}], configs: [c]}}\nsecrets: {s: {file: f}, t: {external: true}}\nconfigs: {c: {external: {name: other}}}",
    "services: {web: {image: a, ulimits: {n: 0, m: 5, o: {soft: 0, hard: 2}}, sysctls: [a=1], tmpfs: /x, dns: 1.1.1.1}}",
    "services: {web: {build: ., image: a}, other: {build: {context: ., args: [A, B=1], nonsense: 1}, image: b}}",
    "version: '3.3'\nservices: {web: {image: a, init: true}}",
    "version: '3.7'\nx-top: {a: 1}\nservices: {web: {image: a, x-own: [1]}}\nnetworks: {n: {x-a: 1}}",
    "version: 3.8\nservices: {web: {image: a}}",
    "version: '2'\nservices: {web: {image: a}}",
    "name: shop\nservices: {web: {image: a}}",
    "services: {web: {image: a, mem_limit: 1g}}",
    "services: {web: {image: a, profiles: [x]}}",
    "services: {web: {image: a, depends_on: {b: {condition: service_healthy}}}}",
    "services: {web: {image: a, environment: {A: true}}}",
    "services: {web: {image: a, cap_add: [A, A]}}",
    "services: {web: {image: a, stop_grace_period: 1d}}",
    "services: {web: {image: a, ports: ['1:2:3']}}",
    "services: {web: {image: '${A:?no}'}}",
    "services: {web: {image: '${A:-b}$$c', hostname: '$NOPE-rest', labels: {a: '${X:-${Y}}'}}}",
    "services: {web: {image: a, privileged: '${YES}', tty: '${YES}'}}",
    "services: {web: {image: }}",
    "services: {web: }",
    "a: [",
    "",
];

fn run(program: &Path, folder: &Path, files: &[&str]) -> Option<serde_json::Value> {
    let mut command = Command::new(program);
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.args(["stack", "config"]).current_dir(folder).env_clear().env("PATH", path);
    if program == crate::program() {
        command.arg("--docker");
    }
    command.envs([("HOME", "/home/me"), ("C", "c"), ("YES", "yes")]);
    for file in files {
        command.args(["-c", file]);
    }
    let output = command.output().unwrap_or_else(|e| panic!("cannot run {}: {e}", program.display()));
    if output.status.success() {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let value: Option<serde_json::Value> = serde_yaml::from_str(&text).expect("YAML");
        return value;
    }
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!error.trim().is_empty(), "{} refuses {files:?} and does not say why", program.display());
    None
}

/// Judged with Docker's own CLI, as [`crate::docker_cli`] has it.
pub(crate) fn stack_config_means_what_dockers_means() {
    let dir = tempfile::tempdir().expect("a file of the test");
    std::fs::write(dir.path().join("e.env"), "K=file\n# no\nONLY\nHOME\n  L = no\nM=a b \n")
        .expect("a file of the test");
    std::fs::write(dir.path().join("a"), "A=1\n").expect("a file of the test");
    for (number, text) in FILES.iter().enumerate() {
        std::fs::write(dir.path().join(format!("{number}.yml")), text).expect("a file of the test");
    }
    let (docker, ours) = (testkit::peer("docker"), crate::program());
    let (mut same, mut refused) = (0, 0);
    for (number, text) in FILES.iter().enumerate() {
        let name = format!("{number}.yml");
        for files in [vec![name.as_str()], vec!["0.yml", &name]] {
            let (theirs, mine) = (run(docker, dir.path(), &files), run(ours, dir.path(), &files));
            assert_eq!(mine, theirs, "{files:?}: {text}");
            if theirs.is_some() { same += 1 } else { refused += 1 }
        }
    }
    println!("{same} times the same meaning, {refused} times refused by both");
    assert!(same > 30 && refused > 20);
}

#[test]
fn what_deploy_takes_is_shown_also_where_dockers_cli_refuses_it() {
    let dir = tempfile::tempdir().unwrap();
    let files = [
        ("both.yml", "services: {web: {image: a, ports: ['80:80']}}"),
        ("ours.yml", "name: shop\nservices: {web: {image: 'a:${TAG:-1}', mem_limit: 1g}}"),
        ("neither.yml", "name: shop\nservices: {web: {image: a, nonsense: 1}}"),
    ];
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let config = |args: &[&str]| {
        let mut command = Command::new(crate::program());
        command.args(["stack", "config"]).args(args).current_dir(dir.path()).env_remove("TAG");
        // A secret of an example.
        command.env("LESSON4_PASSWORD", "hunter2");
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    };
    let strict = config(&["--docker", "-c", "both.yml"]);
    assert!(strict.0 && strict.2.is_empty(), "{strict:?}");
    assert_eq!(config(&["-c", "both.yml"]), strict, "what both take is shown as Docker shows it");

    let (done, shown, told) = config(&["-c", "ours.yml"]);
    assert!(done && shown.contains("name: shop") && shown.contains("image: a:1"), "{shown}{told}");
    assert!(told.contains("WARNING: shown as `rswarm deploy` reads it"), "{told}");
    let (done, shown, _) = config(&["--skip-interpolation", "-c", "ours.yml"]);
    assert!(done && shown.contains("${TAG:-1}"), "{shown}");
    let (done, shown, told) = config(&["--docker", "-c", "ours.yml"]);
    assert!(!done && shown.is_empty() && told.contains("ours.yml:1"), "{told}");
    let (done, _, told) = config(&["-c", "neither.yml"]);
    assert!(!done && told.contains("nonsense"), "{told}");

    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    for entry in std::fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "yaml") {
            let (done, shown, told) = config(&["-c", path.to_str().unwrap()]);
            assert!(done && shown.contains("name: lesson"), "{}: {told}", path.display());
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}
