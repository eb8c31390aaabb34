//! What stack files mean.

use compose::{Sources, Stack, StackService, Warning, load};
use model::*;
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

struct Given {
    sources: Sources,
    disk: BTreeMap<PathBuf, Vec<u8>>,
}

fn given(text: &str) -> Given {
    let sources = Sources {
        files: vec![("stack.yml".into(), text.to_owned())],
        project_dir: "/srv/shop".into(),
        ..Sources::default()
    };
    Given { sources, disk: BTreeMap::new() }
}

impl Given {
    fn and(mut self, text: &str) -> Self {
        self.sources.files.push(("over.yml".into(), text.to_owned()));
        self
    }
    fn env(mut self, name: &str, value: &str) -> Self {
        self.sources.env.insert(name.into(), value.into());
        self
    }
    fn file(mut self, path: &str, content: &str) -> Self {
        self.disk.insert(path.into(), content.as_bytes().to_vec());
        self
    }
    #[track_caller]
    fn load(self) -> (Stack, Vec<Warning>) {
        load(&self.sources, &self.disk).unwrap_or_else(|e| panic!("{e}"))
    }
    /// The only service, no warnings.
    #[track_caller]
    fn service(self) -> StackService {
        let (mut stack, warnings) = self.load();
        assert_eq!(warnings, []);
        assert_eq!(stack.services.len(), 1);
        stack.services.remove(0)
    }
    #[track_caller]
    fn container(self) -> ContainerSpec {
        self.service().spec.task.container.clone()
    }
}

/// A stack of one service with these lines.
fn web(lines: &str) -> Given {
    let body: String = lines.lines().map(|l| format!("    {l}\n")).collect();
    given(&format!("services:\n  web:\n    image: nginx\n{body}"))
}

#[test]
fn names_and_labels_are_those_of_docker_stack_deploy() {
    let text = "services:\n  web:\n    image: nginx\n    labels: {a: b}\n    deploy: {labels: [c=d]}\n";
    let (stack, _) = given(text).load();
    assert_eq!(stack.name, "shop");
    let service = &stack.services[0];
    assert_eq!((service.key.as_str(), service.spec.name.as_str()), ("web", "shop_web"));
    let labels = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<Labels>()
    };
    assert_eq!(
        service.spec.labels,
        labels(&[("c", "d"), ("com.docker.stack.image", "nginx"), ("com.docker.stack.namespace", "shop")])
    );
    assert_eq!(
        service.spec.task.container.labels,
        labels(&[("a", "b"), ("com.docker.stack.namespace", "shop")])
    );
    assert_eq!(service.networks[0].network, "shop_default");
    assert_eq!(service.networks[0].aliases, ["web"]);
    assert_eq!(stack.networks[0].name, "shop_default");
    assert_eq!(stack.networks[0].spec.as_ref().unwrap().driver, NetworkDriver::Overlay);
}

#[test]
fn the_callers_name_wins_over_the_files() {
    let mut given = given("name: file\nservices: {web: {image: a}}");
    given.sources.name = Some("caller".into());
    assert_eq!(given.load().0.name, "caller");
}

#[test]
fn commands_are_lists_or_split_strings() {
    let c = web("command: sh -c 'echo $$HOME'\nentrypoint: [\"/init\", \"-x\"]").container();
    assert_eq!(c.args, ["sh", "-c", "echo $HOME"]);
    assert_eq!(c.command, ["/init", "-x"]);
}

#[test]
fn environment_comes_from_files_lists_and_the_caller() {
    let c = web("env_file: [a.env, {path: none.env, required: false}]\nenvironment:\n  B: over\n  C:\n  D:\n  N: 1.5\n  T: true")
        .file("/srv/shop/a.env", "A=1\nB=2\nE\n")
        .env("C", "caller")
        .container();
    assert_eq!(c.env, ["A=1", "B=over", "C=caller", "D", "N=1.5", "T=true"]);
    let c = web("environment: [A=x=y, B]").container();
    assert_eq!(c.env, ["A=x=y", "B"]);
}

#[test]
fn dot_env_feeds_variables_but_the_caller_wins() {
    let c = web("image: repo:${TAG}\nuser: ${WHO}".replace("image: ", "hostname: ").as_str())
        .file("/srv/shop/.env", "TAG=7\nWHO=file\n")
        .env("WHO", "me")
        .container();
    assert_eq!((c.hostname.as_deref(), c.user.as_deref()), (Some("repo:7"), Some("me")));
}

#[test]
fn every_form_of_interpolation_works() {
    let check = |template: &str, expected: &str| {
        let text = format!("hostname: \"x{template}y\"");
        let c = web(&text).env("SET", "s").env("EMPTY", "").container();
        assert_eq!(c.hostname.unwrap(), format!("x{expected}y"), "{template}");
    };
    check("$$", "$");
    check("$${SET}", "${SET}");
    check("$SET-", "s-");
    check("${SET}", "s");
    check("${SET:-d}", "s");
    check("${EMPTY:-d}", "d");
    check("${EMPTY-d}", "");
    check("${NONE-d}", "d");
    check("${NONE:-a b:c}", "a b:c");
    check("${SET:?no}", "s");
    check("${EMPTY?no}", "");
    check("${SET:+r}", "r");
    check("${EMPTY:+r}", "");
    check("${EMPTY+r}", "r");
    check("${NONE+r}", "");
    check("${NONE:-${EMPTY:-${SET}}}", "s");
    check("${NONE:-$SET}", "s");
    check("${NONE:-a}b}", "ab}");
}

#[test]
fn unset_variables_are_blank_with_a_warning() {
    let (stack, warnings) = web("hostname: a$NONE").load();
    assert_eq!(stack.services[0].spec.task.container.hostname.as_deref(), Some("a"));
    assert_eq!(
        warnings[0].to_string(),
        "stack.yml:4:15: the \"NONE\" variable is not set, defaulting to a blank string"
    );
}

#[test]
fn numbers_may_come_from_variables() {
    let s = web("deploy: {replicas: \"${N:-4}\"}\ninit: ${I}").env("I", "true").service();
    assert_eq!(s.spec.mode, Mode::Replicated { replicas: 4 });
    assert_eq!(s.spec.task.container.init, Some(true));
}

#[test]
fn anchors_and_merge_keys_are_resolved() {
    let text = "x-base: &base\n  image: nginx\n  environment: {A: one}\nservices:\n  web:\n    <<: *base\n    hostname: h\n  api:\n    <<: [*base]\n    image: api\n";
    let (stack, warnings) = given(text).load();
    assert_eq!(warnings, []);
    let images: Vec<_> = stack.services.iter().map(|s| s.spec.task.container.image.as_str()).collect();
    assert_eq!(images, ["api", "nginx"]);
    assert_eq!(stack.services[1].spec.task.container.env, ["A=one"]);
}

#[test]
fn ports_short_and_long() {
    let s = web("ports:\n- 80\n- \"8080:81\"\n- 53:53/udp\n- 9000-9001:90-91\n- {target: 443, published: \"8443\", protocol: tcp, mode: host, name: tls}").service();
    let seen: Vec<_> =
        s.spec.endpoint.ports.iter().map(|p| (p.published, p.target, p.protocol, p.mode)).collect();
    use Protocol::{Tcp, Udp};
    use PublishMode::{Host, Ingress};
    assert_eq!(
        seen,
        [
            (0, 80, Tcp, Ingress),
            (8080, 81, Tcp, Ingress),
            (53, 53, Udp, Ingress),
            (9000, 90, Tcp, Ingress),
            (9001, 91, Tcp, Ingress),
            (8443, 443, Tcp, Host),
        ]
    );
    assert_eq!(s.spec.endpoint.ports[5].name, "tls");
}

#[test]
fn mounts_below_a_bind_come_along_as_the_file_says() {
    use model::BindRecursion::{Disabled, Enabled, ReadOnly, Writable};
    for (word, read_only, wanted) in [
        ("enabled", false, Enabled),
        ("disabled", false, Disabled),
        ("writable", true, Writable),
        ("readonly", true, ReadOnly),
    ] {
        let volume = format!(
            "volumes: [{{type: bind, source: /a, target: /b, read_only: {read_only}, bind: {{recursive: {word}}}}}]"
        );
        let mounts = web(&volume).service().spec.task.container.mounts.clone();
        assert!(
            matches!(mounts[0].kind, MountKind::Bind { recursion, .. } if recursion == wanted),
            "{word}: {mounts:?}"
        );
    }
}

#[test]
fn volumes_of_every_kind() {
    let text = "services:\n  web:\n    image: nginx\n    tmpfs: [/run, '/tmp:size=1m,mode=1777']\n    volumes:\n    - /anonymous\n    - data:/data:ro\n    - ./conf:/conf\n    - ~/x:/x:rshared\n    - {type: volume, source: ext, target: /ext, volume: {nocopy: true}}\n    - {type: bind, source: /etc, target: /etc2, read_only: true, bind: {create_host_path: false}}\n    - {type: tmpfs, target: /t, tmpfs: {size: 64m, mode: 0700}}\nvolumes:\n  data: {driver: local, driver_opts: {o: size}, labels: {k: v}}\n  ext: {external: true, name: shared}\n";
    let c = given(text).env("HOME", "/home/me").container();
    let bind = |source: &str, propagation: Option<&str>, create| MountKind::Bind {
        source: source.into(),
        propagation: propagation.map(str::to_owned),
        create,
        recursion: model::BindRecursion::Enabled,
    };
    let volume = |name: Option<&str>, no_copy| MountKind::Volume {
        name: name.map(str::to_owned),
        driver: None,
        driver_opts: Labels::new(),
        labels: Labels::new(),
        no_copy,
    };
    let mount = |target: &str, kind, read_only| Mount { kind, target: target.into(), read_only };
    let named = MountKind::Volume {
        name: Some("shop_data".into()),
        driver: Some("local".into()),
        driver_opts: Labels::from([("o".into(), "size".into())]),
        labels: Labels::from([
            ("k".into(), "v".into()),
            ("com.docker.stack.namespace".into(), "shop".into()),
        ]),
        no_copy: false,
    };
    let tmpfs = |size_bytes, mode| MountKind::Tmpfs { size_bytes, mode };
    assert_eq!(
        c.mounts,
        [
            mount("/anonymous", volume(None, false), false),
            mount("/data", named, true),
            mount("/conf", bind("/srv/shop/conf", None, true), false),
            mount("/x", bind("/home/me/x", Some("rshared"), true), false),
            mount("/ext", volume(Some("shared"), true), false),
            mount("/etc2", bind("/etc", None, false), true),
            mount("/t", tmpfs(Some(64 << 20), Some(0o700)), false),
            mount("/run", tmpfs(None, None), false),
            mount("/tmp", tmpfs(Some(1 << 20), Some(0o1777)), false),
        ]
    );
}

#[test]
fn networks_with_aliases_options_and_outside_ones() {
    let text = "services:\n  web:\n    image: nginx\n    networks:\n      front:\n      back: {aliases: [api]}\n      old:\nnetworks:\n  front: {driver: overlay, attachable: true, driver_opts: {encrypted: 'false', com.docker.network.driver.mtu: '1400'}}\n  back:\n    internal: true\n    ipam: {config: [{subnet: 10.7.0.0/24, gateway: 10.7.0.9}]}\n  old: {external: true, name: legacy}\n";
    let (stack, warnings) = given(text).load();
    assert_eq!(warnings, []);
    let seen: Vec<_> =
        stack.services[0].networks.iter().map(|n| (n.network.as_str(), n.aliases.join(","))).collect();
    assert_eq!(
        seen,
        [("legacy", "web".to_owned()), ("shop_back", "api,web".to_owned()), ("shop_front", "web".to_owned()),]
    );
    assert!(stack.networks[0].external && stack.networks[0].spec.is_none());
    let back = stack.networks[1].spec.clone().unwrap();
    assert!(back.internal && !back.attachable);
    assert_eq!(
        (back.subnet, back.gateway),
        (Some("10.7.0.0/24".parse().unwrap()), Some("10.7.0.9".parse().unwrap()))
    );
    let front = stack.networks[2].spec.clone().unwrap();
    assert!(front.attachable && !front.encrypted);
    assert_eq!(front.options["com.docker.network.driver.mtu"], "1400");
}

#[test]
fn secrets_and_configs_from_everywhere() {
    let text = "services:\n  web:\n    image: nginx\n    secrets: [key, {source: old, target: /etc/old, uid: '103', mode: 0440}]\n    configs: [inline, {source: conf, target: /etc/conf}, env]\nsecrets:\n  key: {file: ./key.pem}\n  old: {external: true}\nconfigs:\n  conf: {file: /abs/conf, name: conf-v2}\n  inline: {content: \"hello ${WHO}\\n\"}\n  env: {environment: WHO}\n";
    let (stack, _) =
        given(text).env("WHO", "you").file("/srv/shop/key.pem", "k").file("/abs/conf", "c").load();
    let secrets = &stack.services[0].secrets;
    let seen: Vec<_> =
        secrets.iter().map(|s| (s.name.as_str(), s.target.as_str(), s.uid.as_str(), s.mode)).collect();
    assert_eq!(seen, [("old", "/etc/old", "103", 0o440), ("shop_key", "key", "0", 0o444)]);
    let seen: Vec<_> =
        stack.services[0].configs.iter().map(|s| (s.name.as_str(), s.target.as_str())).collect();
    assert_eq!(seen, [("conf-v2", "/etc/conf"), ("shop_env", "env"), ("shop_inline", "inline")]);
    let data: Vec<_> = stack.configs.iter().map(|c| (c.name.as_str(), c.data.clone().unwrap())).collect();
    assert_eq!(
        data,
        [("conf-v2", b"c".to_vec()), ("shop_env", b"you".to_vec()), ("shop_inline", b"hello you\n".to_vec()),]
    );
    assert_eq!(stack.secrets[0].data, Some(SecretBytes(b"k".to_vec())));
    assert!(stack.secrets[1].external);
}

#[test]
fn deploy_in_full() {
    let s = web(
        "deploy:
  mode: replicated
  replicas: 3
  endpoint_mode: dnsrr
  update_config: {parallelism: 0, delay: 10s, failure_action: rollback, monitor: 1m, max_failure_ratio: 0.25, order: start-first, x-progress-deadline: 3m}
  rollback_config: {parallelism: 2}
  restart_policy: {condition: on-failure, delay: 1s, max_attempts: 3, window: 2m}
  resources:
    limits: {cpus: '0.5', memory: 50M, pids: 100}
    reservations: {cpus: 0.25, memory: 20M}
  placement:
    constraints: [node.role==worker, node.labels.disk != hdd]
    preferences: [{spread: node.labels.rack}]
    max_replicas_per_node: 1",
    )
    .service()
    .spec;
    assert_eq!(s.mode, Mode::Replicated { replicas: 3 });
    assert_eq!(s.endpoint.mode, EndpointMode::DnsRr);
    assert_eq!(
        s.update,
        UpdatePolicy {
            parallelism: 0,
            delay: Duration::from_secs(10),
            monitor: Duration::from_secs(60),
            on_failure: FailureAction::Rollback,
            max_failure_ratio_ppm: 250_000,
            order: UpdateOrder::StartFirst,
            progress_deadline: Some(Duration::from_secs(180)),
        }
    );
    assert_eq!(s.rollback, UpdatePolicy { parallelism: 2, ..UpdatePolicy::default() });
    assert_eq!(
        s.task.restart,
        RestartPolicy {
            condition: RestartCondition::OnFailure,
            delay: Duration::from_secs(1),
            max_attempts: 3,
            window: Duration::from_secs(120),
        }
    );
    assert_eq!(
        s.task.resources.limits,
        Resources { cpu_nanos: 500_000_000, memory_bytes: 50 << 20, pids: 100 }
    );
    assert_eq!(
        s.task.resources.reservations,
        Resources { cpu_nanos: 250_000_000, memory_bytes: 20 << 20, pids: 0 }
    );
    let constraints: Vec<_> = s.task.placement.constraints.iter().map(ToString::to_string).collect();
    assert_eq!(constraints, ["node.role==worker", "node.labels.disk!=hdd"]);
    assert_eq!(s.task.placement.spread, ["node.labels.rack"]);
    assert_eq!(s.task.placement.max_replicas_per_node, 1);
}

#[test]
fn modes_of_services() {
    let mode = |deploy: &str| web(&format!("deploy: {{{deploy}}}")).service().spec.mode;
    assert_eq!(mode(""), Mode::Replicated { replicas: 1 });
    assert_eq!(mode("replicas: 0"), Mode::Replicated { replicas: 0 });
    assert_eq!(mode("mode: global"), Mode::Global);
    assert_eq!(
        mode("mode: replicated-job, replicas: 4"),
        Mode::ReplicatedJob { max_concurrent: 4, total: 4 }
    );
    assert_eq!(mode("mode: global-job"), Mode::GlobalJob);
}

#[test]
fn kernel_parameters_are_of_namespaces_that_a_container_has() {
    for (body, said) in [
        ("sysctls: {kernel.core_pattern: x}", "not in a separate kernel namespace"),
        ("sysctls: ['net.ipv4/../../kernel/core_pattern=x']", "no name of a kernel parameter"),
        ("sysctls: {net.core.somaxconn: 1}\nnetwork_mode: host", "not allowed in host network namespace"),
        ("sysctls: {kernel.shmmax: 1}\nipc: host", "hosts ipc namespace"),
    ] {
        let given = web(body);
        let error = load(&given.sources, &given.disk).unwrap_err().to_string();
        assert!(error.contains("sysctls") && error.contains(said), "{error}");
    }
}

#[test]
fn the_rest_of_a_container() {
    let c = web("hostname: h
user: 1000
working_dir: /w
init: true
tty: yes
stop_signal: SIGINT
stop_grace_period: 1m30s
cap_add: [net_admin]
cap_drop: [ALL]
read_only: true
ulimits: {nofile: {soft: 10, hard: 20}, nproc: 5}
sysctls: {net.core.somaxconn: 1024}
extra_hosts: ['db:10.0.0.1', 'v6=::1']
dns: 1.1.1.1
dns_search: [a.example, b.example]
healthcheck: {test: curl -f localhost, interval: 5s, retries: 2, start_period: 0s}
security_opt: ['no-new-privileges:true']
shm_size: 1g")
    .container();
    assert_eq!(
        (c.hostname.as_deref(), c.user.as_deref(), c.working_dir.as_deref()),
        (Some("h"), Some("1000"), Some("/w"))
    );
    assert_eq!((c.init, c.tty, c.read_only, c.no_new_privileges), (Some(true), true, true, true));
    assert_eq!(
        (c.stop_signal.as_deref(), c.stop_grace_period),
        (Some("SIGINT"), Some(Duration::from_secs(90)))
    );
    assert_eq!((c.cap_add, c.cap_drop), (vec!["CAP_NET_ADMIN".to_owned()], vec!["ALL".to_owned()]));
    assert_eq!(c.ulimits[0], Ulimit { name: "nofile".into(), soft: 10, hard: 20 });
    assert_eq!(c.ulimits[1], Ulimit { name: "nproc".into(), soft: 5, hard: 5 });
    assert_eq!(c.sysctls["net.core.somaxconn"], "1024");
    assert_eq!(c.hosts, ["10.0.0.1 db", "::1 v6"]);
    assert_eq!(c.dns.search, ["a.example", "b.example"]);
    let health = c.healthcheck.unwrap();
    assert_eq!(health.test, ["CMD-SHELL", "curl -f localhost"]);
    assert_eq!((health.interval, health.retries), (Some(Duration::from_secs(5)), Some(2)));
    assert_eq!(c.shm_size_bytes, Some(1 << 30));
}

#[test]
fn dependencies_short_and_long() {
    let text = "services:\n  web: {image: a, depends_on: [db]}\n  job: {image: a, depends_on: {db: {condition: service_healthy}, web: {condition: service_completed_successfully}, gone: {required: false}}}\n  db: {image: a}\n";
    let (stack, warnings) = given(text).load();
    let needs = |key: &str| {
        let service = stack.services.iter().find(|s| s.key == key).unwrap();
        service.spec.depends_on.iter().map(|d| (d.service.clone(), d.condition)).collect::<Vec<_>>()
    };
    assert_eq!(needs("web"), [("shop_db".to_owned(), DependencyCondition::Started)]);
    assert_eq!(
        needs("job"),
        [
            ("shop_db".to_owned(), DependencyCondition::Healthy),
            ("shop_web".to_owned(), DependencyCondition::CompletedSuccessfully),
        ]
    );
    assert_eq!(warnings.len(), 1);
}

#[test]
fn several_files_merge_by_composes_rules() {
    let base = "services:\n  web:\n    image: one\n    command: [a, b]\n    environment: [A=1, B=2]\n    ports: ['80:80']\n    volumes: ['a:/data', /logs]\n    networks: [front]\n    depends_on: [db]\n    dns: 1.1.1.1\n    deploy: {replicas: 2, labels: {x: y}}\n  db: {image: db}\nvolumes: {a: , b: }\nnetworks: {front: , back: }\n";
    let over = "services:\n  web:\n    image: two\n    command: [c]\n    environment: {B: 3, C: 4}\n    ports: ['80:80', '81:81']\n    volumes: ['b:/data']\n    networks: {back: {aliases: [x]}}\n    dns: [8.8.8.8]\n    deploy: {replicas: 5}\n";
    let (stack, warnings) = given(base).and(over).load();
    assert_eq!(warnings, []);
    let web = &stack.services[1];
    let c = &web.spec.task.container;
    assert_eq!((c.image.as_str(), c.args.as_slice()), ("two", &["c".to_owned()][..]));
    assert_eq!(c.env, ["A=1", "B=3", "C=4"]);
    assert_eq!(web.spec.endpoint.ports.iter().map(|p| p.published).collect::<Vec<_>>(), [80, 81]);
    assert_eq!(c.mounts.iter().map(|m| m.target.as_str()).collect::<Vec<_>>(), ["/data", "/logs"]);
    assert!(matches!(&c.mounts[0].kind, MountKind::Volume { name: Some(n), .. } if n == "shop_b"));
    assert_eq!(
        web.networks.iter().map(|n| n.network.as_str()).collect::<Vec<_>>(),
        ["shop_back", "shop_front"]
    );
    assert_eq!(c.dns.nameservers.len(), 2);
    assert_eq!(web.spec.mode, Mode::Replicated { replicas: 5 });
    assert_eq!(web.spec.labels["x"], "y");
    assert_eq!(web.spec.depends_on.len(), 1);
}

#[test]
fn harmless_things_are_warned_of() {
    let (_, warnings) =
        given("version: '3.8'\nservices: {web: {image: a, x-own: 1}}\nnetworks: {idle: }\nx-more: 1\n")
            .load();
    let texts: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "stack.yml:1:10: the attribute \"version\" is obsolete and ignored",
            "stack.yml:3:16: network \"idle\" is not used by any service",
        ]
    );
}

#[test]
fn the_resolved_file_is_canonical_and_reads_back() {
    let text = "services:\n  web: {image: \"n:${T:-1}\", ports: ['80:80'], environment: {A: 'true', B: '', C: \"x: y\"}, deploy: {replicas: 2}}\n";
    let (stack, _) = given(text).load();
    let yaml = stack.to_yaml();
    assert_eq!(
        yaml,
        "services:\n  web:\n    deploy:\n      replicas: 2\n    environment:\n      A: \"true\"\n      B: \"\"\n      C: \"x: y\"\n    image: n:1\n    ports:\n      - \"80:80\"\n"
    );
    let (again, _) = given(&yaml).load();
    assert_eq!(again.services, stack.services);
}

/// The lessons must not rot.
#[test]
fn every_example_loads_without_a_warning() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
    let lessons = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<PathBuf> = lessons.filter(|p| p.extension().is_some_and(|e| e == "yaml")).collect();
    files.push(format!("{folder}/hello/stack.yml").into());
    assert!(files.len() > 1);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let project_dir = file.parent().unwrap().to_path_buf();
        // Lesson 4 takes its secret from the environment.
        let env = BTreeMap::from([("LESSON4_PASSWORD".to_owned(), "secret".to_owned())]);
        let sources = Sources { files: vec![(file, text)], project_dir, env, ..Sources::default() };
        let (_, warnings) = load(&sources, &compose::Disk).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(warnings, []);
    }
}

#[test]
fn devices_and_generic_resources_are_reserved() {
    let wants = |lines: &str| {
        let service = web(lines).service();
        let generic = &service.spec.task.resources.generic;
        generic.iter().map(|(kind, want)| format!("{kind} {want:?}")).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(wants("gpus: all"), "gpu All");
    assert_eq!(wants("gpus: [{count: 2}]"), "gpu Count(2)");
    assert_eq!(
        wants("gpus: [{driver: nvidia, device_ids: ['0', '3']}]"),
        r#"nvidia.com/gpu These({"0", "3"})"#
    );
    let devices =
        |text: &str| wants(&format!("deploy: {{resources: {{reservations: {{devices: {text}}}}}}}"));
    assert_eq!(devices("[{capabilities: [gpu]}]"), "gpu All");
    assert_eq!(
        devices("[{capabilities: [gpu, utility], driver: nvidia, count: 1}]"),
        "nvidia.com/gpu Count(1)"
    );
    assert_eq!(devices("[{capabilities: [utility, gpu], count: all}]"), "gpu All");
    assert_eq!(devices("[{capabilities: [tpu], driver: google.com, count: 4}]"), "google.com/tpu Count(4)");
    assert_eq!(
        devices("[{driver: cdi, device_ids: [a.com/gpu=0, b.com/nic=x], capabilities: [gpu]}]"),
        r#"a.com/gpu These({"0"}); b.com/nic These({"x"})"#
    );
    let generic = "deploy:\n  resources:\n    reservations:\n      generic_resources:\n      \
        - discrete_resource_spec: {kind: seat, value: 2}\n      \
        - discrete_resource_spec: {kind: licence, value: '1'}";
    assert_eq!(wants(generic), "licence Count(1); seat Count(2)");

    let mut one_host = web(generic);
    one_host.sources.place = compose::Place::Host;
    let (stack, warnings) = one_host.load();
    assert!(stack.services[0].spec.task.resources.generic.is_empty());
    let told: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert!(told[0].contains("\"generic_resources\" has no effect on one host"), "{told:?}");
}
