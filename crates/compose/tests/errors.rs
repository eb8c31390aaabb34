//! What people get wrong, and what they are told. Positions are part of the promise.

use compose::{Sources, load};
use std::{collections::BTreeMap, path::PathBuf};

/// Loads `stack.yml` with this text and compares the error.
#[track_caller]
fn check(text: &str, expected: &str) {
    let sources = Sources {
        files: vec![("stack.yml".into(), text.to_owned())],
        project_dir: "/srv/shop".into(),
        ..Sources::default()
    };
    let files = BTreeMap::<PathBuf, Vec<u8>>::new();
    match load(&sources, &files) {
        Ok(_) => panic!("this loads:\n{text}"),
        Err(error) => assert_eq!(error.to_string(), expected, "{text}"),
    }
}

/// The same inside a service.
#[track_caller]
fn check_service(lines: &str, expected: &str) {
    let body: String = lines.lines().map(|l| format!("    {l}\n")).collect();
    check(&format!("services:\n  web:\n    image: nginx\n{body}"), expected);
}

#[test]
fn broken_yaml_is_located() {
    check("services:\n  web: [\n", "stack.yml:2:8: unclosed bracket '['");
    check("services:\n  web:\n    image: a\n    image: b\n", "stack.yml:4:5: duplicate mapping key: image");
    check(
        "services:\n\tweb: 1\n",
        "stack.yml:2:2: tabs disallowed within this context (block indentation)\nhint: indent with spaces",
    );
}

#[test]
fn a_number_of_processes_is_none_below_nothing() {
    check_service(
        "pids_limit: -5",
        "stack.yml:4:17: services.web.pids_limit: want a number of processes, or -1, not -5",
    );
}

#[test]
fn what_becomes_of_mounts_below_a_bind_is_judged() {
    check_service(
        "volumes:\n  - {type: bind, source: /a, target: /b, bind: {recursive: sometimes}}",
        "stack.yml:5:64: services.web.volumes[0].bind.recursive: want one of enabled, disabled, writable, readonly, not \
         \"sometimes\"",
    );
    check_service(
        "volumes:\n  - {type: bind, source: /a, target: /b, bind: {recursive: writable}}",
        "stack.yml:5:64: services.web.volumes[0].bind.recursive: \"writable\" needs read_only: true beside it",
    );
}

#[test]
fn unknown_keys_are_located_and_a_better_one_is_offered() {
    check_service(
        "portz: []",
        "stack.yml:4:5: services.web: unknown key \"portz\"\nhint: did you mean \"ports\"?",
    );
    check_service(
        "enviroment: []",
        "stack.yml:4:5: services.web: unknown key \"enviroment\"\nhint: did you mean \"environment\"?",
    );
    check_service("colour: red", "stack.yml:4:5: services.web: unknown key \"colour\"");
    check(
        "service:\n  web: {image: a}\n",
        "stack.yml:1:1: (file): unknown key \"service\"\nhint: did you mean \"services\"?",
    );
    check_service(
        "deploy:\n  update_config:\n    paralelism: 2",
        "stack.yml:6:9: services.web.deploy.update_config: unknown key \"paralelism\"\nhint: did you mean \"parallelism\"?",
    );
    check(
        "services: {web: {image: a}}\nnetworks:\n  n:\n    atachable: true\n",
        "stack.yml:4:5: networks.n: unknown key \"atachable\"\nhint: did you mean \"attachable\"?",
    );
}

#[test]
fn what_cannot_be_honoured_is_refused_with_the_reason() {
    check_service(
        "models: [llm]",
        "stack.yml:4:5: services.web: \"models\" is not supported: nodes do not run models",
    );
    check_service(
        "pid: 'service:db'",
        "stack.yml:4:10: services.web.pid: \"service:db\" is not possible: tasks of two services may be on two hosts",
    );
    check_service(
        "devices: [vendor.com/net=1]",
        "stack.yml:4:15: services.web.devices[0]: \"vendor.com/net=1\" is no path of a device; CDI names are not implemented yet",
    );
    let network = |keys: &str| format!("services: {{web: {{image: a}}}}\nnetworks:\n  n:\n    {keys}\n");
    check(
        &network("driver_opts: {encrypted: ''}"),
        "stack.yml:4:19: networks.n.driver_opts: \"encrypted\" is not supported: packets between hosts are not encrypted \
         yet",
    );
    check(
        &network("enable_ipv6: true"),
        "stack.yml:4:18: networks.n.enable_ipv6: overlay networks have no IPv6 yet",
    );
    check_service(
        "ports: ['127.0.0.1:80:80']",
        "stack.yml:4:13: services.web.ports[0]: invalid port \"127.0.0.1:80:80\": published ports answer on every address of every host: leave the address out",
    );
}

#[test]
fn values_of_the_wrong_kind_are_refused() {
    check_service(
        "deploy: {replicas: many}",
        "stack.yml:4:24: services.web.deploy.replicas: want a whole number, not \"many\"",
    );
    check_service(
        "deploy: {replicas: -1}",
        "stack.yml:4:24: services.web.deploy.replicas: -1 is out of range",
    );
    check_service("init: maybe", "stack.yml:4:11: services.web.init: want true or false, not \"maybe\"");
    check_service("command: {a: b}", "stack.yml:4:14: services.web.command: want a string, not a mapping");
    check_service(
        "command: \"sh -c 'x\"",
        "stack.yml:4:14: services.web.command: unbalanced quotes in \"sh -c 'x\"",
    );
    check_service(
        "stop_grace_period: 10",
        "stack.yml:4:24: services.web.stop_grace_period: invalid duration \"10\": want a number with a unit, like 1m30s or 500ms",
    );
    check_service(
        "deploy:\n  resources:\n    limits: {memory: lots}",
        "stack.yml:6:26: services.web.deploy.resources.limits.memory: invalid size \"lots\": want bytes, or a number with b, k, m or g",
    );
    check_service(
        "deploy: {mode: sometimes}",
        "stack.yml:4:20: services.web.deploy.mode: want one of replicated, global, replicated-job, global-job, not \"sometimes\"",
    );
    check_service(
        "deploy: {mode: global, replicas: 2}",
        "stack.yml:4:38: services.web.deploy.replicas: replicas can only be used with replicated mode",
    );
    check_service(
        "deploy:\n  placement:\n    constraints: [node.rule == manager]",
        "stack.yml:6:23: services.web.deploy.placement.constraints[0]: invalid constraint \"node.rule == manager\": want KEY==VALUE or KEY!=VALUE with a node.* or engine.labels.* key",
    );
    check_service(
        "volumes: [data]",
        "stack.yml:4:15: services.web.volumes[0]: invalid volume \"data\": the target must be an absolute path",
    );
    check_service(
        "ports: ['80:http']",
        "stack.yml:4:13: services.web.ports[0]: invalid port \"80:http\": want [PUBLISHED:]TARGET[/PROTOCOL]",
    );
    check_service(
        "ports: ['80:80', '80:81']",
        "stack.yml:4:22: services.web.ports[1]: port 80 is published twice, to 80 and 81",
    );
    check_service(
        "healthcheck: {test: [curl]}",
        "stack.yml:4:25: services.web.healthcheck.test: the first word of a test is NONE, CMD or CMD-SHELL",
    );
}

#[test]
fn what_is_not_defined_is_named() {
    check_service("networks: [back]", "stack.yml:4:16: services.web.networks[0]: undefined network \"back\"");
    check_service(
        "volumes: ['data:/d']",
        "stack.yml:4:15: services.web.volumes[0]: undefined volume \"data\"",
    );
    check_service("secrets: [key]", "stack.yml:4:15: services.web.secrets[0]: undefined secret \"key\"");
    check_service(
        "depends_on: [wep]",
        "stack.yml:4:18: services.web.depends_on[0]: undefined service \"wep\"\nhint: did you mean \"web\"?",
    );
    check(
        "services: {web: {image: a, configs: [conf]}}\nconfigs: {config: {content: x}}\n",
        "stack.yml:1:38: services.web.configs[0]: undefined config \"conf\"",
    );
    check("services: {web: {command: x}}", "stack.yml:1:17: services.web: a service needs an image");
    check("name: x", "stack.yml:1:1: (file): the file defines no services");
    check("", "stack.yml:1:1: (file): the file defines no services");
}

#[test]
fn circles_of_dependencies_are_refused() {
    check(
        "services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, depends_on: [c]}\n  c: {image: x, depends_on: [a]}\n",
        "stack.yml:2:29: services.a.depends_on: services depend on each other in a circle: a -> b -> c -> a",
    );
}

#[test]
fn variables_can_be_demanded() {
    check_service(
        "user: ${WHO:?say who}",
        "stack.yml:4:11: services.web.user: required variable WHO is missing a value: say who",
    );
    check_service(
        "user: ${WHO",
        "stack.yml:4:11: services.web.user: invalid interpolation format: \"${WHO\": a closing brace is missing",
    );
}

#[test]
fn missing_files_are_named() {
    check_service(
        "env_file: web.env",
        "stack.yml:4:15: services.web.env_file: env file /srv/shop/web.env not found; hint: `required: false` does without",
    );
    check(
        "services: {web: {image: a}}\nsecrets:\n  key:\n    file: ./key.pem\n",
        "stack.yml:4:11: secrets.key.file: cannot read /srv/shop/key.pem",
    );
    check(
        "services: {web: {image: a}}\nsecrets:\n  key:\n    environment: KEY\n",
        "stack.yml:4:18: secrets.key.environment: undefined environment variable \"KEY\"",
    );
    check(
        "services: {web: {image: a}}\nsecrets:\n  key: {}\n",
        "stack.yml:3:8: secrets.key: want exactly one of file, environment or external",
    );
}

#[test]
fn a_template_driver_that_nobody_knows_is_named() {
    check(
        "services: {web: {image: a}}\nconfigs:\n  app:\n    content: x\n    template_driver: jinja\n",
        "stack.yml:5:22: configs.app.template_driver: unknown template driver \"jinja\": golang is known",
    );
}

#[test]
fn a_stack_needs_a_usable_name() {
    check(
        "name: My Shop\nservices: {web: {image: a}}\n",
        "invalid stack name \"My Shop\": want lower-case letters, digits, '-' and '_', a letter or digit first",
    );
}

#[test]
fn alias_bombs_are_defused() {
    let mut text = String::from("x-a: &a [1,1,1,1,1,1,1,1,1,1]\n");
    for (last, next) in ('a'..='i').zip('b'..='j') {
        text += &format!(
            "x-{next}: &{next} [*{last},*{last},*{last},*{last},*{last},*{last},*{last},*{last},*{last}]\n"
        );
    }
    text += "services: {web: {image: a}}\n";
    let sources = Sources { files: vec![("bomb.yml".into(), text)], ..Sources::default() };
    let error = load(&sources, &BTreeMap::new()).unwrap_err().to_string();
    assert!(error.starts_with("bomb.yml:"), "{error}");
}
