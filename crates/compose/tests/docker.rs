//! What `docker stack config` prints, from our own words; tests/e2e/stack_config.rs asks Docker's CLI itself.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use compose::{Sources, docker};
use std::{collections::BTreeMap, path::PathBuf};

fn config(files: &[&str]) -> Result<String, compose::Error> {
    let named = |(number, text): (usize, &&str)| (PathBuf::from(format!("{number}.yml")), (*text).to_owned());
    let env = [("TAG", "1.2"), ("COUNT", "3"), ("HOME", "/home/me")];
    let sources = Sources {
        files: files.iter().enumerate().map(named).collect(),
        project_dir: "/srv/shop".into(),
        env: env.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        ..Sources::default()
    };
    let files: BTreeMap<PathBuf, Vec<u8>> =
        [(PathBuf::from("/srv/shop/web.env"), b"# shop\n A=1\nHOME\nTAG=\nNONE\n".to_vec())].into();
    docker::config(&sources, &files, true)
}

#[track_caller]
fn prints(files: &[&str], expected: &str) {
    assert_eq!(config(files).unwrap(), expected);
}

#[track_caller]
fn refuses(file: &str, words: &str) {
    let error = config(&[file]).unwrap_err().to_string();
    assert!(error.contains(words), "{error}");
}

#[test]
fn short_forms_become_long() {
    prints(
        &["
services:
  web:
    image: shop:${TAG}
    command: echo 'a b' # a comment
    deploy: {replicas: '${COUNT}', resources: {limits: {memory: 64M}}, update_config: {delay: 90s}}
    environment: {M: 1.50, EMPTY: '', TAG: }
    env_file: web.env
    healthcheck: {test: curl localhost, interval: 1.5m}
    networks: [back]
    ports: ['8000-8001:80', '53:53/udp', 9]
    ulimits: {nofile: 5, core: {soft: 1, hard: 2}}
    volumes: ['./a:/a:ro', 'data:/d', '~/x:/x:rslave', /anonymous]
networks: {back: }
volumes: {data: {external: {name: old}}}
secrets: {key: {file: k.pem}}
"],
        r#"networks:
  back: {}
secrets:
  key:
    file: /srv/shop/k.pem
services:
  web:
    command:
      - echo
      - a b
    deploy:
      replicas: 3
      resources:
        limits:
          memory: "67108864"
      update_config:
        delay: 1m30s
    env_file:
      - web.env
    environment:
      A: "1"
      EMPTY: ""
      HOME: /home/me
      M: "1.5"
      TAG: "1.2"
    healthcheck:
      interval: 1m30s
      test:
        - CMD-SHELL
        - curl localhost
    image: shop:1.2
    networks:
      back: null
    ports:
      - mode: ingress
        protocol: tcp
        published: 8000
        target: 80
      - mode: ingress
        protocol: tcp
        published: 8001
        target: 80
      - mode: ingress
        protocol: udp
        published: 53
        target: 53
      - mode: ingress
        protocol: tcp
        target: 9
    ulimits:
      core:
        hard: 2
        soft: 1
      nofile: 5
    volumes:
      - read_only: true
        source: /srv/shop/a
        target: /a
        type: bind
      - source: data
        target: /d
        type: volume
      - bind:
          propagation: rslave
        source: /home/me/x
        target: /x
        type: bind
      - target: /anonymous
        type: volume
version: "3.13"
volumes:
  data:
    external: true
    name: old
"#,
    );
}

#[test]
fn a_later_file_adds_replaces_and_sorts() {
    prints(
        &[
            "
services:
  web:
    image: a
    init: true
    command: one
    cap_add: [A]
    environment: [V=1, W=2]
    ports: ['9000:9', '80:80']
    networks: {net: {aliases: [a], ipv4_address: 10.0.0.1}}
    logging: {driver: json-file, options: {max-size: 1m}}
",
            "
services:
  web:
    init: false
    command: [two, words]
    cap_add: [B]
    environment: {W: '', Z: 3}
    ports: [{target: 81, published: 80}]
    networks: {net: {aliases: [b]}}
    logging: {options: {max-file: 2}}
  db: {image: b}
",
        ],
        r#"services:
  db:
    image: b
  web:
    cap_add:
      - A
      - B
    command:
      - two
      - words
    environment:
      V: "1"
      W: "2"
      Z: "3"
    image: a
    init: true
    logging:
      driver: json-file
      options:
        max-file: "2"
        max-size: 1m
    networks:
      net:
        aliases:
          - b
        ipv4_address: "10.0.0.1"
    ports:
      - published: 80
        target: 81
      - mode: ingress
        protocol: tcp
        published: 9000
        target: 9
version: "3.13"
"#,
    );
}

#[test]
fn what_docker_refuses_is_refused_with_its_place() {
    refuses(
        "version: 3.8\nservices: {}",
        "0.yml:1:10: version: want a string, not a number: write it as \"3.8\"",
    );
    refuses("version: '2.4'\nservices: {}", "unsupported version \"2.4\"");
    refuses(
        "services:\n  web:\n    imgae: x\n",
        "0.yml:3:5: services.web: unknown key \"imgae\"\nhint: did you mean \"image\"?",
    );
    refuses(
        "version: '3.3'\nservices: {w: {init: true}}",
        "\"init\" is there since version 3.7, and this file says 3.3",
    );
    refuses(
        "services: {w: {cap_add: [A, A]}}",
        "0.yml:1:29: services.w.cap_add[1]: stands in the list twice",
    );
    refuses("services: {w: {deploy: {resources: {limits: {cpus: 0.5}}}}}", "write it as \"0.5\"");
    refuses("services: {w: {depends_on: {a: {condition: service_healthy}}}}", "want a list, not a mapping");
    refuses(
        "services: {w: {image: '${NO:?is not set}'}}",
        "required variable NO is missing a value: is not set",
    );
    refuses("services: {w: {stop_grace_period: 1d}}", "invalid duration \"1d\"");
    refuses(
        "services: {w: {volumes: [{type: bind, target: /x}]}}",
        "services.w.volumes[0]: a bind needs a \"source\"",
    );
    refuses("volumes: {v: {external: true, driver: x}}", "something external cannot have \"driver\"");
    refuses("- a", "want a mapping with \"services\"");
}
