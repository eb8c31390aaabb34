//! What other programs provide to a project: services with a `provider`, and models. Scripts stand in for them.

use crate::{
    compose::{compose_in, containers, project},
    lab, load_hello,
};
use std::{fs, path::Path};

/// A program that a test puts in the place of others'.
fn script(folder: &Path, name: &str, text: &str) {
    fs::create_dir_all(folder).expect("a folder");
    testkit::write_program(&folder.join(name), &format!("#!/bin/sh\n{text}\n"), 0o755);
}

#[test]
fn a_provider_gives_its_variables_to_those_that_need_it() {
    let lab = lab(1);
    load_hello(&lab, 1);
    let text = "
services:
  web: {image: rswarm/hello, command: [web], depends_on: [db], environment: {REGION: mine}}
  apart: {image: rswarm/hello, command: [web]}
  db: {provider: {type: cloud, options: {size: 8, name: [a, b], unknown: x}}, depends_on: [seed]}
  seed: {image: rswarm/hello, command: [web]}
  other: {provider: {type: nobody-has-this}, profiles: [other]}
";
    let folder = project(&lab, "given", text);
    let (home, log) = (folder.join("docker"), folder.join("log"));
    script(
        &home.join("cli-plugins"),
        "docker-cloud",
        r#"
echo "$@" >> "$CALLS"
case "$*" in
  *metadata) echo '{"description":"d","up":{"parameters":[{"name":"size","required":true},{"name":"name"}]},
    "down":{"parameters":[]},"stop":{"parameters":[]}}' ;;
  *"db") [ -z "$BROKEN" ] || { echo '{"type":"error","message":"no more clouds"}'; exit 0; }
    echo '{"type":"debug","message":"hidden"}'
    echo '{"type":"info","message":"50%"}'
    echo '{"type":"setenv","message":"URL=tcp://cloud/1=2"}'
    echo '{"type":"rawsetenv","message":"REGION=north"}' ;;
esac"#,
    );
    let (home, calls) = (home.display().to_string(), log.display().to_string());
    let env = [("DOCKER_CONFIG", home.as_str()), ("CALLS", calls.as_str())];
    let called = || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        drop(fs::remove_file(&log));
        text.lines().filter(|line| !line.ends_with("metadata")).map(str::to_owned).collect::<Vec<_>>()
    };

    let dry = compose_in(&lab, &folder, &env, &["--dry-run", "up", "-d"]);
    assert_eq!((dry.code, called().len()), (0, 0), "{dry:?}");
    let up = compose_in(&lab, &folder, &env, &["up", "-d"]);
    assert_eq!(up.code, 0, "{up:?}");
    assert!(up.stderr.contains("Service db  50%") && !up.stderr.contains("hidden"), "{up:?}");
    assert!(
        up.stderr.contains("provider \"db\" overrides environment variable \"REGION\" in service \"web\""),
        "{up:?}"
    );
    assert_eq!(called(), ["compose --project-name=given up --name=a --name=b --size=8 db"]);
    let env_of =
        |container: &str| lab.rswarm(1, &["inspect", "--format", "{{json .Config.Env}}", container]).ok();
    let web = env_of("given-web-1");
    assert!(web.contains("\"DB_URL=tcp://cloud/1=2\"") && web.contains("\"REGION=north\""), "{web}");
    assert!(!web.contains("REGION=mine") && !env_of("given-apart-1").contains("north"));
    let first = containers(&lab, &folder);
    compose_in(&lab, &folder, &env, &["up", "-d"]);
    assert_eq!(containers(&lab, &folder), first, "the same variables make no other container");

    called();
    compose_in(&lab, &folder, &env, &["stop", "db"]);
    assert_eq!(called(), ["compose --project-name=given stop db"]);
    let broken = [env.as_slice(), &[("BROKEN", "1")]].concat();
    let failed = compose_in(&lab, &folder, &broken, &["up", "-d"]).fails();
    assert!(failed.contains("service db: no more clouds"), "{failed}");
    let missing = compose_in(&lab, &folder, &env, &["up", "-d", "other"]).fails();
    assert!(missing.contains("provider \"nobody-has-this\" is not installed"), "{missing}");
    let no_container = compose_in(&lab, &folder, &env, &["run", "db"]).fails();
    assert!(no_container.contains("makes no container"), "{no_container}");

    called();
    let down = compose_in(&lab, &folder, &env, &["down"]);
    assert_eq!(down.code, 0, "{down:?}");
    assert_eq!(called(), ["compose --project-name=given down db"]);
    let place = |what: &str| down.stderr.find(what).unwrap_or_else(|| panic!("{what}: {down:?}"));
    assert!(place("given-web-1  Removed") < place("Service db  Removed"), "who needs it goes before it");
    assert!(place("Service db  Removed") < place("given-seed-1  Removed"), "what it needs goes after it");
}

#[test]
fn models_are_pulled_and_set_up_by_dockers_runner() {
    let lab = lab(1);
    load_hello(&lab, 1);
    let text = "
services:
  web: {image: rswarm/hello, command: [web], models: {llm: {endpoint_var: WHERE}, big: }}
  apart: {image: rswarm/hello, command: [web]}
models:
  llm: {model: ai/small, context_size: 512}
  big: {model: ai/big, runtime_flags: [--fast]}
";
    let folder = project(&lab, "models", text);
    let (home, log) = (folder.join("docker"), folder.join("log"));
    let (home_text, calls) = (home.display().to_string(), log.display().to_string());
    let env = [("DOCKER_CONFIG", home_text.as_str()), ("CALLS", calls.as_str())];
    let missing = compose_in(&lab, &folder, &env, &["up", "-d"]).fails();
    assert!(missing.contains("'models' support requires Docker Model plugin"), "{missing}");
    compose_in(&lab, &folder, &env, &["up", "-d", "apart"]).ok();

    let runner = |version: &str| {
        script(
            &home.join("cli-plugins"),
            "docker-model",
            &format!(
                "echo \"$@\" >> \"$CALLS\"\ncase \"$1\" in\n  ls) echo '[{{\"tags\":[\"ai/small\"]}}]' ;;\n  \
                 status) echo '{{\"endpoint\":\"http://runner/v1\"}}' ;;\n  \
                 docker-cli-plugin-metadata) echo '{{\"Version\":\"{version}\"}}' ;;\nesac"
            ),
        );
    };
    runner("v1.0.5");
    let old = compose_in(&lab, &folder, &env, &["up", "-d"]).fails();
    assert!(old.contains("model big: runtime_flags need docker-model 1.0.6 or later"), "{old}");
    runner("v1.0.6");
    drop(fs::remove_file(&log));
    let up = compose_in(&lab, &folder, &env, &["up", "-d"]);
    assert_eq!(up.code, 0, "{up:?}");
    let called = fs::read_to_string(&log).expect("calls");
    for call in ["pull ai/big", "configure --context-size 512 ai/small", "configure ai/big -- --fast"] {
        assert!(called.lines().any(|line| line == call), "{call}: {called}");
    }
    assert!(!called.contains("pull ai/small"), "it is there: {called}");
    let web = lab.rswarm(1, &["inspect", "--format", "{{json .Config.Env}}", "models-web-1"]).ok();
    for variable in
        ["WHERE=http://runner/v1", "LLM_MODEL=ai/small", "BIG_URL=http://runner/v1", "BIG_MODEL=ai/big"]
    {
        assert!(web.contains(&format!("\"{variable}\"")), "{variable}: {web}");
    }
}
