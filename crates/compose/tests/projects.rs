//! Several files as one stack: include, extends, profiles, what a later file resets; and keys made for one host.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use compose::{Sources, Stack, StackService, load};
use std::{collections::BTreeMap, path::PathBuf};

/// A project in /srv/shop: its files by path below /srv, and the first of them as the caller's.
fn project(files: &[(&str, &str)], change: impl FnOnce(&mut Sources)) -> Result<Stack, compose::Error> {
    let at = |path: &str| PathBuf::from("/srv").join(path);
    let disk: BTreeMap<PathBuf, Vec<u8>> =
        files.iter().map(|(path, text)| (at(path), text.as_bytes().to_vec())).collect();
    let mut sources = Sources {
        files: vec![("compose.yml".into(), files[0].1.to_owned())],
        project_dir: "/srv/shop".into(),
        ..Sources::default()
    };
    change(&mut sources);
    load(&sources, &disk).map(|(stack, _)| stack)
}

fn service<'a>(stack: &'a Stack, key: &str) -> &'a StackService {
    stack.services.iter().find(|s| s.key == key).unwrap()
}

#[track_caller]
fn refused(files: &[(&str, &str)], expected: &str) {
    let error = project(files, |_| {}).unwrap_err().to_string();
    assert_eq!(error, expected);
}

#[test]
fn a_service_extends_one_of_another_file_whose_paths_begin_there() {
    let stack = project(
        &[
            (
                "shop/compose.yml",
                "services: {web: {extends: {file: ../base/b.yml, service: app}, image: shop, environment: {B: own}}}",
            ),
            (
                "base/b.yml",
                "services: {app: {extends: root, volumes: ['./data:/data'], env_file: e.env, environment: [A=1, B=2]}, root: {image: none, cap_add: [KILL]}}",
            ),
            ("base/e.env", "C=3\n"),
        ],
        |_| {},
    )
    .unwrap();
    let web = &service(&stack, "web").spec.task.container;
    assert_eq!(
        (web.image.as_str(), web.env.as_slice()),
        ("shop", ["A=1", "B=own", "C=3"].map(str::to_owned).as_slice())
    );
    assert_eq!(web.cap_add, ["CAP_KILL"]);
    assert!(format!("{:?}", web.mounts).contains("/srv/base/data"), "{:?}", web.mounts);
}

#[test]
fn included_files_have_their_own_folder_and_variables() {
    let stack = project(
        &[
            ("shop/compose.yml", "include: [db/compose.yml]\nservices: {web: {image: 'web:${TAG-none}', depends_on: [db]}}"),
            ("shop/db/compose.yml", "services: {db: {image: 'db:${TAG}', build: ., secrets: [key]}}\nsecrets: {key: {file: key.pem}}"),
            ("shop/db/.env", "TAG=9\n"),
            ("shop/db/key.pem", "secret"),
        ],
        |_| {},
    )
    .unwrap();
    assert_eq!(service(&stack, "web").spec.task.container.image, "web:none");
    let db = service(&stack, "db");
    assert_eq!(db.spec.task.container.image, "db:9");
    assert_eq!(db.build.as_ref().unwrap().context, "/srv/shop/db");
    assert_eq!(stack.secrets[0].data.as_ref().unwrap().0, b"secret");
}

#[test]
fn circles_and_conflicts_of_files_are_told() {
    refused(
        &[
            ("shop/compose.yml", "include: [a.yml]\nservices: {w: {image: a}}"),
            ("shop/a.yml", "include: [compose.yml]"),
        ],
        "/srv/shop/a.yml:1:11: include[0]: files name each other in a circle: compose.yml -> /srv/shop/a.yml -> /srv/shop/compose.yml",
    );
    refused(
        &[
            ("shop/compose.yml", "include: [a.yml]\nservices: {w: {image: a}}"),
            ("shop/a.yml", "services: {w: {image: b}}"),
        ],
        "compose.yml:2:12: services.w: an included file defines it too, and differently: /srv/shop/a.yml:1:12",
    );
    refused(
        &[("shop/compose.yml", "services: {a: {extends: b}, b: {extends: {service: a}}}")],
        "compose.yml:1:25: services.a.extends: services extend each other in a circle: a -> b -> a",
    );
    refused(
        &[("shop/compose.yml", "services: {a: {extends: bb}, b: {image: x}}")],
        "compose.yml:1:25: services.a.extends: undefined service \"bb\"\nhint: did you mean \"b\"?",
    );
    refused(
        &[("shop/compose.yml", "include: [nothing.yml]")],
        "compose.yml:1:11: include[0]: cannot read /srv/shop/nothing.yml",
    );
}

#[test]
fn profiles_choose_services() {
    let files = [(
        "shop/compose.yml",
        "services: {web: {image: a}, debug: {image: b, profiles: [dev]}, t: {image: c, profiles: [test]}}",
    )];
    let keys = |profiles: &[&str]| {
        let profiles = profiles.iter().map(|p| (*p).to_owned()).collect();
        let stack = project(&files, |sources| sources.profiles = profiles).unwrap();
        stack.services.into_iter().map(|s| s.key).collect::<Vec<_>>()
    };
    assert_eq!(keys(&[]), ["web"]);
    assert_eq!(keys(&["dev"]), ["debug", "web"]);
    assert_eq!(keys(&["*"]), ["debug", "t", "web"]);
    refused(
        &[(
            "shop/compose.yml",
            "services: {web: {image: a, depends_on: [db]}, db: {image: b, profiles: [dev]}}",
        )],
        "compose.yml:1:41: services.web.depends_on: service \"db\" is there only with profile dev; hint: --profile dev",
    );
}

#[test]
fn a_later_file_resets_and_overrides() {
    let over = "services:\n  web:\n    ports: !reset []\n    cap_add: !override [KILL]\n    labels: !override\n      b: 2\n    hostname: !reset null\n";
    let stack = project(
        &[(
            "shop/compose.yml",
            "services: {web: {image: a, ports: ['80:80'], cap_add: [CHOWN], labels: {a: 1}, hostname: h}}",
        )],
        |sources| sources.files.push(("over.yml".into(), over.into())),
    )
    .unwrap();
    let web = &service(&stack, "web").spec;
    assert!(web.endpoint.ports.is_empty());
    let container = &web.task.container;
    assert_eq!(
        (container.cap_add.as_slice(), container.hostname.as_ref()),
        (["CAP_KILL".to_owned()].as_slice(), None)
    );
    assert_eq!(container.labels.keys().collect::<Vec<_>>(), ["b", "com.docker.stack.namespace"]);
}

#[test]
fn keys_of_one_host_are_honoured_on_every_host() {
    let text = "
services:
  web:
    build: {context: web, args: {A: 1}, target: prod, tags: [x:1]}
    container_name: frontdoor
    devices: ['/dev/fuse:/dev/f:r', /dev/null]
    ipc: host
    pid: host
    userns_mode: host
    cgroup_parent: /shop
    domainname: lan
    cpu_shares: 512
    memswap_limit: -1
    security_opt: ['no-new-privileges:true', 'seccomp:unconfined']
    extra_hosts: ['me:host-gateway']
    pull_policy: always
    links: ['db:database']
    post_start: [{command: warm up, user: root, environment: [A=1]}]
    volumes_from: ['db:ro']
  db: {image: db, volumes: ['data:/data'], network_mode: bridge}
  agent: {image: agent, network_mode: host}
  alone: {image: agent, network_mode: none}
volumes: {data: }
";
    let stack = project(&[("shop/compose.yml", text)], |_| {}).unwrap();
    let web = service(&stack, "web");
    let container = &web.spec.task.container;
    assert_eq!(container.image, "shop_web", "what is built has the service's name");
    let build = web.build.as_ref().unwrap();
    assert_eq!((build.context.as_str(), build.target.as_str()), ("/srv/shop/web", "prod"));
    let host = container.host.as_ref().unwrap();
    assert_eq!(host.devices[0].container_path, "/dev/f");
    assert_eq!((host.devices[0].permissions.as_str(), host.devices[1].permissions.as_str()), ("r", "rwm"));
    assert_eq!((host.ipc.as_deref(), host.pid.as_deref()), (Some("host"), Some("host")));
    assert_eq!(host.users.as_deref(), Some("host"));
    assert_eq!((host.cpu_shares, host.memory_swap_bytes), (512, -1));
    assert!(container.no_new_privileges);
    assert_eq!(host.security_opts, ["seccomp=unconfined"]);
    assert_eq!(container.hosts, ["host-gateway me"]);
    let hook = &container.post_start[0];
    assert_eq!(
        (hook.command.join(" ").as_str(), hook.user.as_deref(), hook.env.len()),
        ("warm up", Some("root"), 1)
    );
    assert!(container.mounts[0].read_only, "of another service, read-only");
    assert_eq!(web.networks[0].aliases, ["frontdoor", "web"]);
    assert!(service(&stack, "db").networks.is_empty(), "a way outside only");
    assert_eq!(service(&stack, "agent").networks[0].network, "host");
    assert_eq!(service(&stack, "alone").networks[0].network, "none");
}

#[test]
fn what_cannot_be_honoured_is_left_out_if_the_caller_will_have_it_so() {
    let files =
        [("shop/compose.yml", "services: {web: {image: a, models: [m], mac_address: '02:00:00:00:00:01'}}")];
    assert!(project(&files, |_| {}).is_err());
    project(&files, |sources| sources.lenient = true).unwrap();
    let sources = Sources {
        files: vec![("compose.yml".into(), files[0].1.into())],
        project_dir: "/srv/shop".into(),
        lenient: true,
        ..Sources::default()
    };
    let (_, warnings) = load(&sources, &BTreeMap::<PathBuf, Vec<u8>>::new()).unwrap();
    let told: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(told[0], "compose.yml:1:28: services.web: \"models\" is left out: nodes do not run models");
    assert_eq!(told.len(), 2);

    // A port that was meant for one address is not published on all.
    let text = "
services:
  web:
    pid: 'service:db'
    image: a
    network_mode: service:db
    ports: ['127.0.0.1:80:80', {host_ip: 127.0.0.1, target: 81, published: 81}, '82:82']
  db: {ipc: 'container:x', image: b}
";
    let stack = project(&[("shop/compose.yml", text)], |sources| sources.lenient = true).unwrap();
    let web = service(&stack, "web");
    assert_eq!(web.spec.endpoint.ports.iter().map(|p| p.published).collect::<Vec<_>>(), [82]);
    assert_eq!(web.networks[0].network, "shop_default");
    assert_eq!(service(&stack, "db").spec.task.container.image, "b");
}

#[test]
fn documents_of_a_file_are_merged_as_files_are() {
    let text = "services: {web: {image: one, environment: {A: 1}}}\n---\nservices: {web: {image: two}, db: {image: db}}\n";
    let stack = project(&[("shop/compose.yml", text)], |_| {}).unwrap();
    let web = service(&stack, "web");
    assert_eq!(
        (web.spec.task.container.image.as_str(), web.spec.task.container.env[0].as_str()),
        ("two", "A=1")
    );
    assert_eq!(stack.services.len(), 2);
}

#[test]
fn a_build_has_secrets_of_the_file_and_hosts() {
    let text = "
services:
  web:
    build:
      context: .
      secrets: [token, {source: key, target: other}]
      extra_hosts: ['mirror:10.0.0.9']
      cache_from: [web:cache]
secrets: {token: {environment: TOKEN}, key: {file: ./key}}
";
    let files = [("shop/compose.yml", text), ("shop/key", "k")];
    let stack = project(&files, |s| s.env = [("TOKEN".to_owned(), "t".to_owned())].into()).unwrap();
    let build = service(&stack, "web").build.as_ref().unwrap();
    let secrets: Vec<_> = build.secrets.iter().map(|(id, data)| (id.as_str(), data.0.as_slice())).collect();
    assert_eq!(secrets, [("token", b"t".as_slice()), ("other", b"k".as_slice())]);
    assert_eq!(build.extra_hosts, ["mirror:10.0.0.9"]);
    let text = text.replace("[token,", "[tokne,");
    let error = project(&[("shop/compose.yml", &text), ("shop/key", "k")], |_| {}).unwrap_err().to_string();
    assert!(error.contains("tokne") && error.contains("token"), "{error}");
}

#[test]
fn on_one_host_a_service_may_ask_for_what_only_one_host_has() {
    let text = "
services:
  web:
    image: web
    container_name: front
    network_mode: service:vpn
    pid: service:db
    restart: on-failure:3
    ports: ['127.0.0.1:8000-8001:80-81', '[::1]::90/udp', '9000-9009:91', {target: 92, published: 92, host_ip: 10.0.0.1}]
    pull_policy: never
    depends_on: {db: {condition: service_started, restart: true}}
    develop: {watch: [{action: sync, path: ./src, target: /src, ignore: [x]}]}
  db:
    image: db
    networks: {back: {ipv4_address: 10.9.0.5, mac_address: '02:00:00:00:00:01', priority: 5}}
    deploy: {restart_policy: {condition: on-failure, max_attempts: 2}}
    secrets: [key]
    volumes: ['data:/data']
  vpn: {image: vpn, build: ., network_mode: none, profiles: [p]}
networks: {back: {driver: macvlan, driver_opts: {parent: eth0}, enable_ipv4: true, ipam: {config: [{subnet: 10.9.0.0/24}, {subnet: 'fd00::/64'}]}}}
secrets: {key: {file: ./key}}
volumes: {data: }
";
    let on_one_host = |sources: &mut Sources| {
        sources.place = compose::Place::Host;
        sources.profiles = vec!["p".to_owned()];
    };
    let stack = project(&[("shop/compose.yml", text)], on_one_host).unwrap();
    let web = service(&stack, "web");
    let host = web.host.as_ref().unwrap();
    assert_eq!(
        (host.container_name.as_deref(), host.restart.word(), host.restart.retries()),
        (Some("front"), "on-failure", 3)
    );
    assert_eq!(
        (host.network_mode.as_deref(), host.pid.as_deref()),
        (Some("service:vpn"), Some("service:db"))
    );
    let ports: Vec<String> = host
        .ports
        .iter()
        .map(|p| format!("{:?} {} {}/{}", p.ip.map(|ip| ip.to_string()), p.published, p.target, p.protocol))
        .collect();
    assert_eq!(
        ports,
        [
            "Some(\"127.0.0.1\") 8000 80/tcp",
            "Some(\"127.0.0.1\") 8001 81/tcp",
            "Some(\"::1\")  90/udp",
            "None 9000-9009 91/tcp",
            "Some(\"10.0.0.1\") 92 92/tcp",
        ]
    );
    assert_eq!(
        (host.pull, host.restarts_with.as_slice()),
        (compose::Pull::Never, ["db".to_owned()].as_slice())
    );
    assert_eq!(host.watch[0].path, PathBuf::from("/srv/shop/src"));
    let needs: Vec<&str> = web.spec.depends_on.iter().map(|d| d.service.as_str()).collect();
    assert_eq!(needs, ["shop_db", "shop_vpn"], "it shares the network of one and the processes of the other");
    let db = service(&stack, "db");
    let address = &db.networks[0].address;
    assert_eq!((address.ipv4.unwrap().to_string().as_str(), address.priority), ("10.9.0.5", 5));
    assert_eq!(db.host.as_ref().unwrap().restart.retries(), 2);
    assert_eq!(
        stack.secrets[0].file.as_deref(),
        Some(std::path::Path::new("/srv/shop/key")),
        "not read, mounted"
    );
    let network = stack.networks[0].host.as_ref().unwrap();
    assert_eq!((network.driver.as_str(), network.subnets.len()), ("macvlan", 2));
    assert_eq!(network.labels["com.docker.compose.project"], "shop");
    assert_eq!(service(&stack, "vpn").spec.task.container.image, "vpn");

    // The same words say why not where a service may be anywhere.
    let shared = "services: {a: {image: a, pid: 'service:b'}, b: {image: b}}";
    let error = project(&[("shop/compose.yml", shared)], |_| {}).unwrap_err();
    assert!(error.to_string().contains("tasks of two services may be on two hosts"), "{error}");
}

/// A project of one host, as [`project`].
fn on_host(files: &[(&str, &str)], change: impl FnOnce(&mut Sources)) -> Result<Stack, compose::Error> {
    project(files, |sources| {
        sources.place = compose::Place::Host;
        change(sources);
    })
}

#[test]
fn variables_of_a_file_may_be_raw_or_missing() {
    let text = "
services:
  web:
    image: web
    env_file:
      - {path: raw.env, format: raw}
      - {path: none.env, required: false}
      - {path: no-raw.env, format: raw, required: false}
      - cooked.env
";
    let files = [
        ("shop/compose.yml", text),
        ("shop/raw.env", "A='{\"k\": \"$HOME\"}'\n"),
        ("shop/cooked.env", "B='$HOME'\n"),
    ];
    let stack = project(&files, |_| {}).unwrap();
    let env = &service(&stack, "web").spec.task.container.env;
    assert_eq!(env.as_slice(), ["A='{\"k\": \"$HOME\"}'", "B=$HOME"].map(str::to_owned));
    let bad = text.replace("format: raw}", "format: yaml}");
    let error = project(&[("shop/compose.yml", &bad), files[1], files[2]], |_| {}).unwrap_err().to_string();
    assert!(error.contains("format") && error.contains("\"yaml\""), "{error}");
}

#[test]
fn secrets_of_an_included_file_have_its_variables() {
    let files = [
        (
            "shop/compose.yml",
            "
include: [{path: part/c.yml, env_file: part.env}]
services: {web: {image: web, secrets: [own]}}
secrets: {own: {environment: KEY}}
",
        ),
        (
            "shop/part/c.yml",
            "
services: {part: {image: part, secrets: [key], build: {context: ., secrets: [key]}}}
secrets: {key: {environment: KEY}}
",
        ),
        ("shop/part.env", "KEY=theirs\n"),
    ];
    let own = |sources: &mut Sources| drop(sources.env.insert("KEY".to_owned(), "ours".to_owned()));
    let data = |stack: &Stack, key: &str| {
        stack.secrets.iter().find(|s| s.key == key).and_then(|s| s.data.clone()).map(|d| d.0)
    };
    // What the caller sets wins everywhere; where he sets nothing, each file has what it is given.
    let stack = project(&files, own).unwrap();
    assert_eq!((data(&stack, "own"), data(&stack, "key")), (Some(b"ours".to_vec()), Some(b"ours".to_vec())));
    let stack = on_host(&files, |_| {}).unwrap();
    assert_eq!((data(&stack, "own"), data(&stack, "key")), (None, Some(b"theirs".to_vec())));
    assert_eq!(service(&stack, "part").build.as_ref().unwrap().secrets[0].1.0, b"theirs");
}

#[test]
fn on_one_host_a_service_shares_ports_volumes_and_names_with_others() {
    let text = "
services:
  web:
    image: web
    network_mode: bridge
    expose: ['9091-9092', 53/udp]
    links: [db, 'db:store']
    volumes_from: ['db:ro', 'container:other']
    depends_on: {db: {condition: service_healthy, required: false}, cache: {condition: service_started}}
    develop: {watch: [{action: sync+exec, path: ., target: /x, x-initialSync: true, exec: {command: make it, user: me}}]}
  db: {image: db, volumes: [/data]}
  cache: {image: cache}
networks: {spare: {}}
volumes: {spare: {labels: {a: b}}}
";
    let stack = on_host(&[("shop/compose.yml", text)], |_| {}).unwrap();
    let host = service(&stack, "web").host.clone().unwrap();
    assert_eq!(host.expose, ["9091/tcp", "9092/tcp", "53/udp"]);
    assert_eq!(host.links, ["db", "db:store"]);
    assert_eq!(host.volumes_from, ["db:ro", "container:other"]);
    assert!(service(&stack, "web").spec.task.container.mounts.is_empty(), "the daemon takes them");
    assert_eq!(host.optional, ["db"]);
    let exec = host.watch[0].exec.as_ref().unwrap();
    assert_eq!(
        (exec.command.as_slice(), exec.user.as_deref()),
        (["make", "it"].map(str::to_owned).as_slice(), Some("me"))
    );
    assert!(host.watch[0].initial_sync);
    let needs: Vec<&str> =
        service(&stack, "web").spec.depends_on.iter().map(|d| d.service.as_str()).collect();
    assert_eq!(needs, ["shop_db", "shop_cache"]);

    let names = |stack: &Stack| stack.networks.iter().map(|n| n.key.clone()).collect::<Vec<_>>();
    assert_eq!(names(&stack), ["default"]);
    let stack = on_host(&[("shop/compose.yml", text)], |sources| sources.all_resources = true).unwrap();
    assert_eq!(names(&stack), ["default", "spare"]);
    assert!(format!("{:?}", stack.all_volumes).contains("shop_spare"), "{:?}", stack.all_volumes);

    let bad = text.replace("53/udp", "53/icmp");
    let error = on_host(&[("shop/compose.yml", &bad)], |_| {}).unwrap_err().to_string();
    assert!(error.contains("53/icmp") && error.contains("PORT[-LAST][/PROTOCOL]"), "{error}");
    let built = "services: {web: {build: .}}";
    let stack = on_host(&[("shop/compose.yml", built)], |sources| sources.underscores = true).unwrap();
    assert_eq!(service(&stack, "web").spec.task.container.image, "shop_web");
}

#[test]
fn a_project_is_shown_in_long_forms_or_as_it_is_written() {
    let text = "
version: '3'
services:
  web:
    build: site
    command: serve --port ${PORT:-80}
    environment: [A=1, HOME]
    ports: ['127.0.0.1:8080:80', '${PORT:-81}']
    volumes: ['./data:/data:ro', 'logs:/logs']
    depends_on: [db]
    labels: [x=y]
  db: {image: db, network_mode: host}
  tool: {image: '${TOOL?}', profiles: [tools]}
volumes: {logs: }
secrets: {key: {file: ./key}}
";
    let sources = Sources {
        files: vec![("compose.yml".into(), text.to_owned())],
        project_dir: "/srv/shop".into(),
        env: [("HOME".to_owned(), "/root".to_owned()), ("TOOL".to_owned(), "t".to_owned())].into(),
        place: compose::Place::Host,
        ..Sources::default()
    };
    let disk: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    let shown = |form| compose::document(&sources, &disk, form).unwrap().0;
    let long = "name: shop
services:
  db:
    image: db
    network_mode: host
  web:
    build:
      context: /srv/shop/site
      dockerfile: Dockerfile
    command:
      - serve
      - \"--port\"
      - \"80\"
    depends_on:
      db:
        condition: service_started
        required: true
    environment:
      A: \"1\"
      HOME: /root
    labels:
      x: \"y\"
    networks:
      default: null
    ports:
      - host_ip: \"127.0.0.1\"
        mode: ingress
        protocol: tcp
        published: \"8080\"
        target: 80
      - mode: ingress
        protocol: tcp
        target: 81
    volumes:
      - bind: {}
        read_only: true
        source: /srv/shop/data
        target: /data
        type: bind
      - source: logs
        target: /logs
        type: volume
        volume: {}
networks:
  default:
    name: shop_default
volumes:
  logs:
    name: shop_logs
secrets:
  key:
    file: /srv/shop/key
    name: shop_key
";
    assert_eq!(shown(compose::Form::default()).to_yaml(), long);
    let raw = shown(compose::Form { raw: true, ..Default::default() }).to_yaml();
    for line in
        ["name: shop\nnetworks:", "  - \"${PORT:-80}\"", "image: \"${TOOL?}\"", "context: /srv/shop/site"]
    {
        assert!(raw.contains(line), "{line}: {raw}");
    }
    let written = shown(compose::Form { as_written: true, ..Default::default() }).to_yaml();
    assert!(written.contains("build: site") && !written.contains("networks"), "{written}");

    let mentioned = compose::mentioned(&sources).unwrap();
    let of = |name: &str| mentioned[name].clone();
    assert_eq!((of("PORT").default.as_str(), of("PORT").required), ("81", false));
    assert!(of("TOOL").required);
    assert_eq!(mentioned.len(), 2);
}

#[test]
fn paths_and_files_of_variables_are_shown_as_what_they_mean_or_as_they_stand() {
    let text = "
services:
  web:
    image: a
    env_file: [a.env, {path: b.env, required: false}]
    environment: [HOME, A=2]
    label_file: ./l
    labels: [x=y]
    volumes: [{type: bind, source: ../data, target: /data}, './more:/more']
    develop: {watch: [{path: ./src, action: sync, target: /src}]}
";
    let sources = Sources {
        files: vec![("compose.yml".into(), text.to_owned())],
        project_dir: "/srv/shop".into(),
        env: [("HOME".to_owned(), "/root".to_owned())].into(),
        place: compose::Place::Host,
        ..Sources::default()
    };
    let disk: BTreeMap<PathBuf, Vec<u8>> =
        [("a.env", "A=1\nB=1\n"), ("l", "tier=gold\nx=z\n")].map(file_of_shop).into();
    let shown = |form| compose::document(&sources, &disk, form).unwrap().0.to_yaml();
    let all = |form, lines: &[&str]| {
        let text = shown(form);
        for line in lines {
            assert!(text.contains(line), "{line}: {text}");
        }
        text
    };
    let means = all(
        compose::Form::default(),
        &[
            "environment:\n      A: \"2\"\n      B: \"1\"\n      HOME: /root\n",
            "labels:\n      tier: gold\n      x: \"y\"\n",
            "source: /srv/data\n",
            "source: /srv/shop/more\n",
            "path: /srv/shop/src\n",
        ],
    );
    assert!(!means.contains("env_file") && !means.contains("label_file"), "{means}");
    all(
        compose::Form { keep_paths: true, ..compose::Form::default() },
        &["B: \"1\"", "source: \"../data\"\n", "source: \"./more\"\n", "path: \"./src\"\n"],
    );
    let kept = all(
        compose::Form { keep_env_files: true, ..compose::Form::default() },
        &[
            "env_file:\n      - path: /srv/shop/a.env\n        required: true\n      - path: /srv/shop/b.env\n        \
             required: false\n",
            "environment:\n      A: \"2\"\n      HOME: null\n",
        ],
    );
    assert!(!kept.contains("B: "), "{kept}");
}

#[test]
fn a_file_of_variables_may_be_missing_where_its_service_is_not_meant() {
    let text = "
services:
  web: {image: a, depends_on: [db], env_file: a.env}
  db: {image: a, env_file: [a.env]}
  job: {image: a, env_file: nowhere.env, depends_on: {web: {condition: service_started}}}
  beside: {image: a, env_file: [{path: nowhere.env, required: true}], network_mode: 'service:web'}
";
    let load = |services: Option<&[&str]>| {
        let sources = Sources {
            files: vec![("compose.yml".into(), text.to_owned())],
            project_dir: "/srv/shop".into(),
            place: compose::Place::Host,
            meant: services.map(|meant| meant.iter().map(|service| (*service).to_owned()).collect()),
            ..Sources::default()
        };
        let disk: BTreeMap<PathBuf, Vec<u8>> = [file_of_shop(("a.env", "A=1\n"))].into();
        let (stack, _) = compose::load(&sources, &disk)?;
        compose::document(&sources, &disk, compose::Form::default())?;
        Ok::<_, compose::Error>(stack)
    };
    assert_eq!(load(Some(&[])).unwrap().services.len(), 4);
    let stack = load(Some(&["web"])).unwrap();
    assert_eq!(stack.services.len(), 4);
    assert_eq!(service(&stack, "db").spec.task.container.env, ["A=1"]);
    for wanted in [None, Some(&["job"][..]), Some(&["web", "beside"])] {
        assert!(load(wanted).unwrap_err().to_string().contains("nowhere.env"), "{wanted:?}");
    }
}

fn file_of_shop((name, text): (&str, &str)) -> (PathBuf, Vec<u8>) {
    (PathBuf::from("/srv/shop").join(name), text.as_bytes().to_vec())
}

#[test]
fn a_provider_and_models_are_read_for_one_host_alone() {
    let text = "
services:
  web: {image: a, depends_on: [db], models: {llm: {endpoint_var: URL}, tiny-one: }}
  chat: {image: a, models: [tiny-one]}
  db:
    provider: {type: cloud, options: {size: 256, name: [x, y], fast: true}}
models:
  llm: {model: ai/smollm2, context_size: 1024, runtime_flags: [--a]}
  tiny-one: {name: tiny, model: ai/tiny}
";
    let read =
        |text: &str| project(&[("shop/compose.yml", text)], |sources| sources.place = compose::Place::Host);
    let stack = read(text).unwrap();
    let db = service(&stack, "db");
    let provider = db.host.as_ref().unwrap().provider.clone().unwrap();
    assert_eq!(provider.kind, "cloud");
    let options: Vec<(&str, Vec<&str>)> = provider
        .options
        .iter()
        .map(|(name, values)| (name.as_str(), values.iter().map(String::as_str).collect()))
        .collect();
    assert_eq!(options, [("fast", vec!["true"]), ("name", vec!["x", "y"]), ("size", vec!["256"])]);
    assert!(db.networks.is_empty(), "nothing of it is on a network");
    let told = |key: &str| -> Vec<String> {
        let models = service(&stack, key).host.as_ref().unwrap().models.iter();
        models.map(|m| format!("{} {} {}", m.key, m.endpoint_variable, m.model_variable)).collect()
    };
    assert_eq!(told("web"), ["llm URL LLM_MODEL", "tiny-one TINY_ONE_URL TINY_ONE_MODEL"]);
    assert_eq!(told("chat"), ["tiny-one TINY_ONE_URL TINY_ONE_MODEL"]);
    let names: Vec<(&str, u64)> = stack.models.iter().map(|m| (m.name.as_str(), m.context_size)).collect();
    assert_eq!(names, [("llm", 1024), ("tiny", 0)]);

    for (text, wrong) in [
        ("services: {a: {provider: {options: {x: y}}}}", "a provider needs a \"type\""),
        ("services: {a: {provider: {type: compose}}}", "\"compose\" is not a valid provider type"),
        ("services: {a: {provider: {type: ../sh}}}", "\"../sh\" is not a valid provider type"),
        ("services: {a: {image: b, models: [lm]}}\nmodels: {llm: {model: m}}", "undefined model \"lm\""),
        ("services: {a: {image: b}}\nmodels: {llm: {context_size: 1}}", "want a \"model\""),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(wrong), "{error}");
    }
    let error = project(&[("shop/compose.yml", "services: {a: {provider: {type: x}}}")], |_| {});
    assert!(
        error.unwrap_err().to_string().contains("\"provider\" is not supported: nodes run no other programs")
    );
}

/// Files that a registry keeps, fetched into a folder of their own.
struct Fetched(BTreeMap<PathBuf, Vec<u8>>);

impl compose::Files for Fetched {
    fn read(&self, path: &std::path::Path) -> std::io::Result<Vec<u8>> {
        self.0.read(path)
    }

    fn fetch(&self, url: &str) -> std::io::Result<PathBuf> {
        let name = url.strip_prefix("oci://reg/").ok_or(std::io::ErrorKind::NotFound)?;
        Ok(PathBuf::from("/cache").join(name).join("compose.yaml"))
    }
}

#[test]
fn what_a_registry_keeps_is_included_and_extended_with_what_is_beside_it() {
    let sources = |text: &str| Sources {
        files: vec![("compose.yml".into(), text.to_owned())],
        project_dir: "/srv/shop".into(),
        place: compose::Place::Host,
        ..Sources::default()
    };
    let text = "
include: ['oci://reg/db']
services: {web: {image: a, extends: {file: 'oci://reg/base', service: app}}}
";
    let files = [
        ("/cache/db/compose.yaml", "services: {db: {image: pg, env_file: ab.env}}"),
        ("/cache/db/ab.env", "A=1\n"),
        ("/cache/base/compose.yaml", "services: {app: {image: b, user: root}}"),
    ];
    let files = Fetched(files.iter().map(|(path, text)| (path.into(), text.as_bytes().to_vec())).collect());
    let (stack, _) = load(&sources(text), &files).unwrap();
    assert_eq!(service(&stack, "db").spec.task.container.env, ["A=1"]);
    assert_eq!(service(&stack, "web").spec.task.container.user.as_deref(), Some("root"));

    let missing = load(&sources("include: ['oci://other/db']\nservices: {}"), &files).unwrap_err();
    assert!(missing.to_string().contains("cannot read oci://other/db"), "{missing}");
    // Who reads only disks says so.
    let refused = load(&sources("include: ['oci://reg/db']\nservices: {}"), &compose::Disk).unwrap_err();
    let why = std::error::Error::source(&refused).unwrap().to_string();
    assert!(why.contains("is not fetched here"), "{why}");
}

#[test]
fn builds_attest_nothing_and_may_be_told_so() {
    let read = |text: &str| project(&[("shop/compose.yml", text)], |_| {});
    read("services: {a: {build: {context: ., provenance: false, sbom: 'false'}}}").unwrap();
    for wanted in ["provenance: true", "provenance: mode=max", "sbom: true"] {
        let error = read(&format!("services: {{a: {{build: {{context: ., {wanted}}}}}}}")).unwrap_err();
        assert!(error.to_string().contains("is not supported: builds make no attestations"), "{error}");
    }
}
