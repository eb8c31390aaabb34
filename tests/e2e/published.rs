//! Projects that a registry keeps: `compose publish`, `-f oci://..`, and images pinned to their digests.

use crate::{
    compose::{compose_in, project},
    lab, load_hello,
    registry::Registry,
};
use axum::body::Bytes;
use std::{fs, path::Path};

fn write(folder: &Path, name: &str, text: &str) {
    fs::create_dir_all(folder).expect("a folder");
    fs::write(folder.join(name), text).expect("a file");
}

#[test]
fn a_project_is_published_and_read_again_with_all_that_belongs_to_it() {
    let lab = lab(1);
    load_hello(&lab, 1);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let text = "
services:
  web:
    extends: {file: base/base.yaml, service: app}
    env_file: [own.env] # here
    environment: {GREETING: '${GREETING:-hi}'}
  db: {image: rswarm/hello, command: [web]}
";
    let folder = project(&lab, "author", text);
    write(
        &folder.join("base"),
        "base.yaml",
        "services: {app: {image: rswarm/hello, command: [web], env_file: b.env}}\n",
    );
    write(&folder.join("base"), "b.env", "FROM_BASE=1\n");
    write(&folder, "own.env", "OWN=1\n");
    let reader = lab.dir().join("reader");
    fs::create_dir_all(&reader).expect("a folder");
    let cache = lab.dir().join("cache").display().to_string();
    let docker = lab.dir().join("docker").display().to_string();
    let env = [("XDG_CACHE_HOME", cache.as_str()), ("DOCKER_CONFIG", docker.as_str())];

    for (knows_types, form) in
        [(true, "application/vnd.docker.compose.project"), (false, "config.empty.v1+json")]
    {
        let registry = Registry::of_artifacts(knows_types);
        let name = registry.serve(&runtime);
        let target = format!("{name}/team/shop:1");
        let dry = compose_in(&lab, &folder, &env, &["publish", "--with-env", "--dry-run", &target]);
        assert_eq!(dry.code, 0, "{dry:?}");
        assert!(registry.is_empty(), "{dry:?}");
        let said =
            compose_in(&lab, &folder, &env, &["publish", "--with-env", "--resolve-image-digests", &target]);
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.stderr.contains(&format!(" {target} published")), "{said:?}");
        let manifest = registry.manifest("/v2/team/shop/manifests/1");
        assert!(manifest.contains(form), "{manifest}");
        assert!(!manifest.contains("own.env") && !manifest.contains("author"), "no path of ours: {manifest}");

        let url = format!("oci://{target}");
        let read = compose_in(&lab, &reader, &env, &["-f", &url, "config"]);
        assert_eq!(read.code, 0, "{read:?}");
        for line in [
            "name: reader",
            "      FROM_BASE: \"1\"",
            "      GREETING: hi",
            "      OWN: \"1\"",
            "    image: docker.io/rswarm/hello:latest@sha256:",
        ] {
            assert!(read.stdout.contains(line), "{line}: {read:?}");
        }
        // What it takes from here is asked about, and nobody says yes.
        let asked = compose_in(&lab, &reader, &env, &["-f", &url, "up", "-d"]);
        assert!(
            asked.stdout.contains("GREETING") && asked.stderr.contains("operation cancelled"),
            "{asked:?}"
        );
        let up = compose_in(&lab, &reader, &env, &["-f", &url, "up", "-d", "--yes"]);
        assert_eq!(up.code, 0, "{up:?}");
        let web = lab.rswarm(1, &["inspect", "--format", "{{json .Config}}", "reader-web-1"]).ok();
        assert!(web.contains("FROM_BASE=1") && web.contains(&url), "{web}");
        compose_in(&lab, &reader, &env, &["-f", &url, "down"]).ok();
        // The same as a part of another project, whose own variables count.
        write(
            &reader,
            "more.yaml",
            &format!("include: ['{url}']\nservices: {{extra: {{image: rswarm/hello}}}}\n"),
        );
        let more = compose_in(
            &lab,
            &reader,
            &[env.as_slice(), &[("GREETING", "yo")]].concat(),
            &["-f", "more.yaml", "config"],
        );
        assert!(more.stdout.contains("GREETING: yo") && more.stdout.contains("extra:"), "{more:?}");
    }
    let gone = compose_in(&lab, &reader, &env, &["-f", "oci://127.0.0.1:1/none:1", "config"]).fails();
    assert!(gone.contains("cannot read oci://127.0.0.1:1/none:1"), "{gone}");
}

#[test]
fn what_would_give_something_away_is_asked_about_before_it_is_published() {
    let lab = lab(1);
    let docker = lab.dir().join("docker").display().to_string();
    let env = [("DOCKER_CONFIG", docker.as_str())];
    let cases = [
        (
            "services: {a: {image: x, environment: {DB_PASSWORD: bar}}}",
            "service \"a\": literal value for \"DB_PASSWORD\"",
        ),
        ("services: {a: {image: x, env_file: a.env}}", "service \"a\": env_file declared"),
        ("services: {a: {image: x, volumes: ['.:/data']}}", ":/data\n"),
        ("services: {a: {image: x, environment: [ID=A3TX1234567890ABCDEF]}}", "AWS Client ID"),
        ("services: {a: {image: x}}\nconfigs: {c: {content: a secret}}", "config \"c\""),
    ];
    for (n, (text, asked)) in cases.into_iter().enumerate() {
        let folder = project(&lab, &format!("asks{n}"), text);
        write(&folder, "a.env", "A=1\n");
        let publish = |more: &[&str]| {
            compose_in(&lab, &folder, &env, &[&["publish", "--dry-run", "127.0.0.1:1/x:1"], more].concat())
        };
        let said = publish(&[]);
        assert_eq!(said.code, 130, "nobody agreed: {said:?}");
        assert!(said.stdout.contains(asked) && !said.stderr.contains("published"), "{said:?}");
        let agreed = publish(&["--yes"]);
        assert_eq!(agreed.code, 0, "{agreed:?}");
        assert!(agreed.stderr.contains("127.0.0.1:1/x:1 published"), "{agreed:?}");
    }
    for (name, text, why) in [
        ("built", "services: {a: {build: .}}", "only contains a build section for service(s):\n- \"a\""),
        ("local", "include: [other.yaml]\nservices: {a: {image: x}}", "with local includes"),
    ] {
        let folder = project(&lab, name, text);
        write(&folder, "other.yaml", "services: {b: {image: x}}\n");
        let said =
            compose_in(&lab, &folder, &env, &["publish", "-y", "--dry-run", "127.0.0.1:1/x:1"]).fails();
        assert!(said.contains(why), "{said}");
    }
    let app = compose_in(&lab, &lab.dir().join("asks0"), &env, &["publish", "--app", "x/y"]).fails();
    assert!(app.contains("--app: images are not copied along"), "{app}");
}

#[test]
fn images_are_pinned_and_builds_are_printed() {
    let lab = lab(1);
    load_hello(&lab, 1);
    let text = "
services:
  web: {image: rswarm/hello, command: [web]}
  site.one:
    build: {context: site, args: {A: '1'}, target: last, secrets: [key], tags: ['more:1']}
    image: 'site:1'
    platform: linux/amd64
secrets: {key: {environment: KEY}}
";
    let folder = project(&lab, "pins", text);
    write(&folder.join("site"), "Dockerfile", "FROM rswarm/hello\n");
    let env = [("KEY", "word")];
    let locked = compose_in(&lab, &folder, &env, &["config", "--lock-image-digests", "web"]).ok();
    let image = locked.strip_prefix("services:\n  web:\n    image: ").expect("an image alone").trim();
    assert!(image.starts_with("docker.io/rswarm/hello:latest@sha256:"), "{locked}");
    let whole = compose_in(&lab, &folder, &env, &["config", "--resolve-image-digests", "web"]).ok();
    assert!(whole.contains(image) && whole.contains("command:"), "{whole}");
    // It is laid over the file, and means the image that is here.
    write(&folder, "lock.yaml", &locked);
    let up = compose_in(&lab, &folder, &env, &["-f", "compose.yaml", "-f", "lock.yaml", "up", "-d", "web"]);
    assert_eq!(up.code, 0, "{up:?}");

    let printed = compose_in(&lab, &folder, &env, &["build", "--print", "--build-arg", "B=2", "--push"]).ok();
    let bake: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(bake["group"]["default"]["targets"], serde_json::json!(["site_one"]));
    let target = &bake["target"]["site_one"];
    let site = folder.join("site").canonicalize().expect("a folder");
    assert_eq!(target["context"].as_str(), site.to_str());
    assert_eq!(target["dockerfile"].as_str(), site.join("Dockerfile").to_str());
    assert_eq!(target["args"], serde_json::json!({"A": "1", "B": "2"}));
    assert_eq!(target["tags"], serde_json::json!(["more:1", "site:1"]));
    assert_eq!(target["target"].as_str(), Some("last"));
    assert_eq!(target["secret"], serde_json::json!(["id=key,type=env,env=KEY"]));
    assert_eq!(target["platforms"], serde_json::json!(["linux/amd64"]));
    assert_eq!(target["output"], serde_json::json!(["type=registry"]));
    assert_eq!(target["labels"]["com.docker.compose.service"].as_str(), Some("site.one"));
    assert!(!printed.contains("word"), "no secret is printed: {printed}");

    for flag in ["--provenance=true", "--sbom=true"] {
        let refused = compose_in(&lab, &folder, &env, &["build", flag]).fails();
        assert!(refused.contains("builds make no attestations here"), "{refused}");
    }
    let built = compose_in(&lab, &folder, &env, &["build", "--provenance=false", "--sbom=false", "--quiet"]);
    assert!(!built.stderr.contains("attestations"), "{built:?}");
}

#[test]
fn what_a_registry_gives_names_no_file_elsewhere_and_is_what_its_digest_says() {
    let lab = lab(1);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let registry = Registry::default();
    let name = registry.serve(&runtime);
    let (cache, home) = (lab.dir().join("cache"), lab.dir().join("home"));
    fs::create_dir_all(&home).expect("a folder");
    let cache_text = cache.display().to_string();
    let docker = home.display().to_string();
    let env = [("XDG_CACHE_HOME", cache_text.as_str()), ("DOCKER_CONFIG", docker.as_str())];
    let file = Bytes::from_static(b"services: {a: {image: x}}\n");
    let put = |tag: &str, kind: &str, names: &[&str], given: &Bytes| {
        let digest = image::Digest::of(&file).to_string();
        let layers: Vec<_> = names
            .iter()
            .map(|name| {
                serde_json::json!({
                    "mediaType": "application/vnd.docker.compose.file+yaml", "digest": digest, "size": file.len(),
                    "annotations": {"com.docker.compose.file": name, "com.docker.compose.extends": "true"},
                })
            })
            .collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": kind,
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest, "size": 2},
            "layers": layers,
        });
        registry.keep(&format!("/v2/x/y/manifests/{tag}"), manifest.to_string());
        registry.keep(&format!("/v2/x/y/blobs/{digest}"), given.clone());
    };
    let project = "application/vnd.docker.compose.project";
    let read = |tag: &str| {
        let url = format!("oci://{name}/x/y:{tag}");
        compose_in(&lab, &home, &env, &["-f", &url, "config"]).fails()
    };
    for evil in ["../evil.yaml", "/evil.yaml", "..", ""] {
        put("evil", project, &["compose.yaml", evil], &file);
        let refused = read("evil");
        assert!(refused.contains("is no name of a file"), "{refused}");
    }
    put("none", project, &["other.yaml"], &file);
    assert!(read("none").contains("it has no compose file"));
    put("other", "application/vnd.example", &["compose.yaml"], &file);
    assert!(read("other").contains("is not a compose project OCI artifact"));
    put("changed", project, &["compose.yaml"], &Bytes::from_static(b"services: {a: {image: y}}\n"));
    let changed = read("changed");
    assert!(changed.contains("has digest"), "{changed}");
    let left = fs::read_dir(cache.join("rswarm/compose")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "nothing of it is kept");
}
