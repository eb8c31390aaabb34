//! The front door as programs use it that are no `docker` CLI: requests byte by byte.

use crate::{lab, load_hello};
use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    time::Duration,
};
use testkit::Lab;

/// The answer to one request: its status and its body, without the frames of chunks.
fn ask(lab: &Lab, line: &str, headers: &str, body: &[u8]) -> (u16, String) {
    let mut door = UnixStream::connect(lab.socket(1)).expect("the door is open");
    door.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket has timeouts");
    let length = body.len();
    // Version 1.0: the answer ends with the connection, and has no chunks.
    let says = match body.first() {
        Some(b'{' | b'[') => "Content-Type: application/json\r\n",
        _ => "",
    };
    let head = format!("{line} HTTP/1.0\r\nHost: x\r\nContent-Length: {length}\r\n{says}{headers}\r\n");
    door.write_all(&[head.as_bytes(), body].concat()).expect("the request is taken");
    let mut answer = Vec::new();
    door.read_to_end(&mut answer).expect("an answer and its end");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
    (status, body.to_owned())
}

fn status(lab: &Lab, line: &str) -> u16 {
    ask(lab, line, "", b"").0
}

/// `{"key":["value"]}` as a query has it.
fn filters(key: &str, value: &str) -> String {
    format!("filters=%7B%22{key}%22%3A%5B%22{value}%22%5D%7D")
}

/// A tar of one small file.
fn tar(name: &str, content: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, content.as_bytes()).expect("memory takes it");
    tar.into_inner().expect("memory takes it")
}

#[test]
fn a_prune_removes_what_its_filter_means_and_nothing_when_it_means_nothing() {
    let lab = lab(1);
    let import = |name: &str, label: &str| {
        let line = format!("POST /images/create?fromSrc=-&repo={name}&tag=1&changes=LABEL%20{label}");
        assert_eq!(ask(&lab, &line, "", &tar(name, name)).0, 200);
    };
    let names = || {
        let listed = lab.rswarm(1, &["images", "--format", "{{.Repository}}"]).ok();
        let mut names: Vec<_> = listed.lines().map(str::to_owned).collect();
        names.sort();
        names.join(" ")
    };
    import("mine", "session=1");
    import("other", "session=2");
    import("plain", "a=b");
    let all = "dangling%22%3A%5B%22false%22%5D%2C%22";
    for wrong in [filters("lable", "session=1"), filters("dangling", "maybe"), filters("until", "soon")] {
        assert_eq!(status(&lab, &format!("POST /images/prune?{wrong}")), 400, "{wrong}");
    }
    let spared = |key: &str, value: &str| {
        let query = filters(&format!("{all}{key}"), value);
        assert_eq!(status(&lab, &format!("POST /images/prune?{query}")), 200, "{query}");
        names()
    };
    assert_eq!(spared("label", "session=none"), "mine other plain");
    assert_eq!(spared("until", "24h"), "mine other plain", "images without a date are old, these are new");
    assert_eq!(spared("label", "session=1"), "other plain");
    assert_eq!(spared("label!", "session"), "other");
    for (noun, key, value) in [
        ("volumes", "until", "1h"),
        ("networks", "name", "x"),
        ("containers", "status", "exited"),
        ("build", "all", "true"),
    ] {
        let query = filters(key, value);
        assert_eq!(status(&lab, &format!("POST /{noun}/prune?{query}")), 400, "{noun} {query}");
    }
    let made = |name: &str| {
        let body = format!(r#"{{"Name":"{name}"}}"#);
        assert_eq!(ask(&lab, "POST /volumes/create", "", body.as_bytes()).0, 201);
    };
    made("named");
    assert_eq!(status(&lab, "POST /v1.42/volumes/prune"), 200);
    assert_eq!(status(&lab, "GET /volumes/named"), 200, "anonymous volumes alone go");
    assert_eq!(status(&lab, "POST /v1.41/volumes/prune"), 200);
    assert_eq!(status(&lab, "GET /volumes/named"), 404, "before 1.42 all of them did");
}

#[test]
fn a_prune_that_finds_nothing_says_null_as_dockerd_does() {
    let lab = lab(1);
    for (what, key) in [
        ("containers", "ContainersDeleted"),
        ("images", "ImagesDeleted"),
        ("networks", "NetworksDeleted"),
        ("build", "CachesDeleted"),
    ] {
        let (code, body) = ask(&lab, &format!("POST /{what}/prune"), "", b"");
        assert!(code == 200 && body.contains(&format!("\"{key}\":null")), "{body}");
    }
    let (code, body) = ask(&lab, "POST /volumes/prune", "", b"");
    assert!(code == 200 && body.contains(r#""VolumesDeleted":[]"#), "{body}");
}

#[test]
fn the_platform_that_is_asked_for_is_that_of_the_image() {
    let lab = lab(1);
    let import = "POST /images/create?fromSrc=-&repo=foreign&tag=1&platform=linux/s390x";
    assert_eq!(ask(&lab, import, "", &tar("a", "b")).0, 200);
    let (_, image) = ask(&lab, "GET /images/foreign:1/json", "", b"");
    assert!(image.contains(r#""Architecture":"s390x""#), "{image}");
    for line in [
        "POST /images/create?fromImage=foreign&tag=1&platform=foo",
        "POST /images/create?fromSrc=-&repo=x&platform=foo",
        "POST /build?platform=foo",
    ] {
        let (code, refused) = ask(&lab, line, "", b"");
        assert!(code == 400 && refused.contains("unknown operating system or architecture"), "{refused}");
    }
}

#[test]
fn old_clients_are_answered() {
    let lab = lab(1);
    for version in ["1.24", "1.32", "1.40", "1.51"] {
        assert_eq!(status(&lab, &format!("GET /v{version}/containers/json")), 200, "{version}");
    }
    assert_eq!(status(&lab, "GET /v1.23/containers/json"), 400);
    assert_eq!(status(&lab, "GET /v1.52/containers/json"), 400);
    let (code, version) = ask(&lab, "GET /version", "", b"");
    assert!(code == 200 && version.contains(r#""MinAPIVersion":"1.24""#), "{version}");
    let (code, refused) = ask(&lab, "POST /volumes/create", "", br#"{"Driver":"nfs"}"#);
    assert!(code == 404 && refused.contains("nfs"), "{refused}");
}

#[test]
fn a_plugin_is_made_set_and_removed_and_enabling_it_is_refused_by_name() {
    let lab = lab(1);
    assert_eq!(ask(&lab, "GET /plugins", "", b""), (200, "[]".to_owned()));
    assert_eq!(status(&lab, "GET /plugins?filters=%7B%22x%22%3A%5B%22y%22%5D%7D"), 400);
    for line in ["GET /plugins/a/b:latest/json", "POST /plugins/a/b:latest/enable", "DELETE /plugins/a"] {
        assert_eq!(status(&lab, line), 404, "{line}");
    }
    let config = r#"{"entrypoint": ["/run"], "interface": {"types": ["docker.volumedriver/1.0"]},
        "network": {"type": "host"}, "env": [{"name": "DEBUG", "settable": ["value"], "value": "0"}]}"#;
    let (code, made) = ask(&lab, "POST /plugins/create?name=a/b", "", &tar("config.json", config));
    assert!(code == 400 && made.contains("no rootfs found"), "{made}");
    let mut folder = tar("config.json", config);
    folder.truncate(folder.len() - 1024); // the mark of its end
    folder.extend(tar("rootfs/run", "x"));
    let (code, made) = ask(&lab, "POST /plugins/create?name=a/b", "", &folder);
    assert_eq!((code, made.as_str()), (204, ""));
    let (code, again) = ask(&lab, "POST /plugins/create?name=a/b:latest", "", &folder);
    assert!(code == 409 && again.contains("plugin a/b:latest already exists"), "{again}");

    assert_eq!(ask(&lab, "POST /plugins/a/b/set", "", br#"["DEBUG=1"]"#).0, 204);
    let (code, refused) = ask(&lab, "POST /plugins/a/b/set", "", br#"["OTHER=1"]"#);
    assert!(code == 400 && refused.contains("not found in the plugin configuration"), "{refused}");
    let (_, shown) = ask(&lab, "GET /plugins/a/b/json", "", b"");
    for part in
        [r#""Name":"a/b:latest""#, r#""Enabled":false"#, r#""Env":["DEBUG=1"]"#, r#""Entrypoint":["/run"]"#]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let (code, refused) = ask(&lab, "POST /plugins/a/b/enable?timeout=0", "", b"");
    assert!(code == 501 && refused.contains("plugin a/b:latest cannot be enabled"), "{refused}");
    assert_eq!(status(&lab, "POST /plugins/a/b/disable"), 409);
    // {"capability":["volumedriver"]}, {"capability":["logdriver"]}, {"enabled":["true"]}
    for (filter, there) in [
        ("%22capability%22%3A%5B%22volumedriver%22%5D", true),
        ("%22capability%22%3A%5B%22logdriver%22%5D", false),
        ("%22enabled%22%3A%5B%22true%22%5D", false),
    ] {
        let (code, list) = ask(&lab, &format!("GET /plugins?filters=%7B{filter}%7D"), "", b"");
        assert_eq!((code, list.contains("a/b:latest")), (200, there), "{filter}: {list}");
    }
    // Nobody listens there.
    let (code, refused) = ask(&lab, "POST /plugins/pull?remote=127.0.0.1:1/c", "", b"[]");
    assert!(code == 500 && refused.contains("127.0.0.1:1"), "{refused}");
    assert_eq!(ask(&lab, "DELETE /plugins/a/b", "", b""), (200, String::new()));
    assert_eq!(status(&lab, "GET /plugins/a/b/json"), 404);
    let second =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let events =
        format!("GET /events?since=1&until={}&filters=%7B%22type%22%3A%5B%22plugin%22%5D%7D", second + 1);
    let (_, told) = ask(&lab, &events, "", b"");
    assert!(told.contains(r#""Action":"create""#) && told.contains(r#""Action":"remove""#), "{told}");
}

#[test]
fn a_build_of_version_2_is_answered_in_buildkits_messages() {
    let lab = lab(1);
    load_hello(&lab, 1);
    let dockerfile = "FROM rswarm/hello\nLABEL a=b\nCOPY Dockerfile /got\n";
    let nothing = "X-Registry-Config: bnVsbA==\r\n";
    let (code, said) = ask(&lab, "POST /build?version=2&t=two", nothing, &tar("Dockerfile", dockerfile));
    assert_eq!(code, 200, "{said}");
    assert!(said.contains(r#""id":"moby.buildkit.trace""#), "{said}");
    let last = said.trim_end().lines().last().unwrap_or_default();
    assert!(last.contains(r#""id":"moby.image.id""#) && last.contains("sha256:"), "{last}");
    let label = lab.rswarm(1, &["image", "inspect", "--format", "{{.Config.Labels.a}}", "two"]);
    assert_eq!(label.ok().trim(), "b");
    let (code, said) =
        ask(&lab, "POST /build?version=2", "", &tar("Dockerfile", "FROM scratch\nCOPY no /\n"));
    assert!(code == 200 && said.contains("errorDetail") && said.contains("COPY"), "{said}");
    assert_eq!(status(&lab, "POST /build?version=3"), 400);
    // Docker's client of the classic builder ends its tar with the last byte of the Dockerfile.
    let short = tar("Dockerfile", dockerfile);
    let (code, said) = ask(&lab, "POST /build?q=1", "", &short[..512 + dockerfile.len()]);
    assert!(code == 200 && said.contains("sha256:"), "{said}");
    let (_, said) = ask(&lab, "POST /images/load", "", b"abc");
    assert!(said.contains("errorDetail"), "{said}");
}
