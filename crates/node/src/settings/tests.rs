//! What a settings file says, and how it is refused.

use super::*;

fn read(name: &str, text: &str) -> Result<Settings, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    Settings::read(&path).map_err(|e| format!("{e:#}"))
}

#[test]
fn who_did_what_is_in_the_log_at_every_level() {
    use tracing::Level;
    for level in ["debug", "info", "warn", "error"] {
        let settings = read("daemon.toml", &format!("log-level = \"{level}\"")).unwrap();
        let filter = settings.log_filter(None).unwrap();
        assert!(filter.would_enable("audit", &Level::INFO), "{level}");
        assert_eq!(filter.would_enable("node", &Level::DEBUG), level == "debug");
        assert_eq!(filter.would_enable("node", &Level::WARN), level != "error");
        assert!(!filter.would_enable("openraft::core", &Level::DEBUG), "{level}");
    }
    let filter = Settings::default().log_filter(Some("debug,hyper=info")).unwrap();
    assert!(filter.would_enable("node::executor", &Level::DEBUG));
    assert!(!filter.would_enable("hyper::proto", &Level::DEBUG));
    let refused = Settings::default().log_filter(Some("node=loud")).unwrap_err();
    assert!(refused.to_string().contains("RSWARM_LOG \"node=loud\""), "{refused}");
}

#[test]
fn settings_have_dockers_names() {
    let text = "insecure-registries = [\"10.0.0.0/8\"]\ndns = [\"192.0.2.53\"]\n";
    let settings = read("daemon.toml", text).unwrap();
    assert_eq!(settings.insecure_registries, ["10.0.0.0/8"]);
    assert_eq!(settings.dns.len(), 1);
}

#[test]
fn ids_of_containers_are_those_of_a_user() {
    assert!(Settings::default().userns_remap().unwrap().is_none());
    let settings = read("daemon.json", r#"{"userns-remap": "no such user"}"#).unwrap();
    let refused = settings.userns_remap().unwrap_err().to_string();
    assert!(refused.contains("userns-remap") && refused.contains("no such user"), "{refused}");
}

#[test]
fn the_example_has_every_key_and_is_read() {
    let example = include_str!("../../../../deploy/daemon.toml");
    assert_eq!(read("daemon.toml", example).unwrap(), Settings::default());
    // Keys are the comments that look like them.
    let is_key = |line: &&str| line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
    let lines: Vec<&str> = example.lines().filter_map(|l| l.strip_prefix("# ")).filter(is_key).collect();
    let settings = read("daemon.toml", &lines.join("\n")).unwrap();
    assert_eq!(settings.doors().unwrap().len(), 1);
    assert!(settings.bip.is_some() && settings.mtu.is_some() && lines.len() > 15, "{lines:?}");
}

#[test]
fn a_group_that_is_set_must_be_there() {
    let group = |text: &str| read("daemon.toml", text).unwrap().socket_group();
    assert_eq!(group("group = \"root\"").unwrap().unwrap().id, 0);
    assert_eq!(group("group = \"4242\"").unwrap().unwrap().id, 4242);
    assert!(group("group = \"\"").unwrap().is_none());
    let refused = group("group = \"no-such-group\"").unwrap_err().to_string();
    assert!(refused.contains("groupadd --system no-such-group"), "{refused}");
}

#[test]
fn proxies_are_those_that_are_set_else_those_of_the_environment() {
    let text = "[proxies]\nhttps-proxy = \"http://set.example:3128\"\n";
    let settings = read("daemon.toml", text).unwrap();
    let environment = |name: &str| match name {
        "HTTP_PROXY" => Some(String::new()),
        "http_proxy" => Some("http://lower.example:1".to_owned()),
        "HTTPS_PROXY" => Some("http://other.example:2".to_owned()),
        "NO_PROXY" => Some("registry.lan".to_owned()),
        _ => None,
    };
    let proxies = settings.proxies(environment).unwrap();
    assert_eq!(proxies.https_shown(), "http://set.example:3128");
    assert_eq!(
        (proxies.http_shown(), proxies.no()),
        ("http://lower.example:1".into(), "registry.lan".into())
    );
    let json = r#"{"proxies": {"http-proxy": "ftp://dan:secret@proxy.example", "no-proxy": "x"}}"#;
    let refused = read("daemon.json", json).unwrap_err();
    assert!(
        refused.contains("daemon.json: line 1: proxies: http-proxy") && !refused.contains("secret"),
        "{refused}"
    );
}

#[test]
fn a_misspelt_key_is_named_with_its_line() {
    for (name, text) in
        [("daemon.toml", "\ninsecure-registry = []\n"), ("daemon.json", "{\n\"insecure-registry\": []}")]
    {
        let error = read(name, text).unwrap_err();
        assert!(error.contains("insecure-registry") && error.contains("line 2"), "{error}");
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn clients_may_be_asked_to_speak_a_newer_version() {
    let oldest =
        |text: &str| read("daemon.toml", text).map(|settings| settings.min_api().unwrap().to_string());
    assert_eq!(oldest("").unwrap(), "1.24");
    assert_eq!(oldest("min-api-version = \"1.44\"").unwrap(), "1.44");
    for wrong in ["1.12", "1.99", "x", ""] {
        let error = oldest(&format!("min-api-version = \"{wrong}\"")).unwrap_err();
        assert!(error.contains("min-api-version"), "{error}");
    }
}

#[test]
fn a_file_of_dockers_is_read_as_it_is() {
    let text = r#"{
        "data-root": "/srv/docker", "registry-mirrors": ["https://mirror.example"], "live-restore": true,
        "log-driver": "json-file", "log-opts": {"max-size": "10m", "max-file": "3"},
        "default-address-pools": [{"base": "10.9.0.0/16", "size": 24}], "bip": "10.200.0.1/24", "mtu": 1400,
        "ipv6": true, "fixed-cidr-v6": "fd00:17::/64",
        "default-ulimits": {"nofile": {"Name": "nofile", "Hard": 64000, "Soft": 32000}},
        "hosts": ["unix:///var/run/docker.sock", "tcp://0.0.0.0"],
        "tlsverify": true, "tlscacert": "/ca.pem", "tlscert": "/cert.pem", "tlskey": "/key.pem", "debug": true,
        "builder": {"gc": {"enabled": true, "defaultKeepStorage": "20GB"}},
        "node-generic-resources": ["NVIDIA-GPU=UUID1", "NVIDIA-GPU=UUID2"], "features": {"cdi": true},
        "cdi-spec-dirs": ["/srv/cdi"]
    }"#;
    let settings = read("daemon.json", text).unwrap();
    let defaults = settings.engine_defaults().unwrap();
    assert_eq!(defaults.ulimits[0].soft, 32000);
    assert_eq!(defaults.build_cache_max_bytes, Some(20 << 30));
    assert_eq!(defaults.cdi_spec_dirs, [PathBuf::from("/srv/cdi")]);
    assert_eq!(settings.generic_resources().unwrap().len(), 1);
    let error = read("daemon.json", r#"{"node-generic-resources": ["GPU"]}"#).unwrap_err();
    assert!(
        error.contains("daemon.json: line 1: node-generic-resources") && error.contains("\"GPU\""),
        "{error}"
    );
    let error = read("daemon.json", r#"{"builder": {"gc": {"defaultKeepStorage": "much"}}}"#).unwrap_err();
    assert!(error.contains("defaultKeepStorage") && error.contains("much"), "{error}");
    assert_eq!(defaults.log.options["max-size"], "10m");
    assert_eq!(defaults.bridge.unwrap().to_string(), "10.200.0.1/24");
    let doors = settings.doors().unwrap();
    assert!(matches!(&doors[1], Door::Tcp(address) if address == "0.0.0.0:2376"), "{doors:?}");
    assert!(settings.server_tls(|operators| operators).unwrap_err().to_string().contains("/ca.pem"));
}

#[test]
fn a_tcp_address_needs_a_word_about_who_may_come_in() {
    let error = read("daemon.toml", "hosts = [\"tcp://127.0.0.1:2375\"]\n").unwrap_err();
    assert!(error.contains("tlsverify"), "{error}");
    assert!(read("daemon.toml", "hosts = [\"tcp://127.0.0.1:2375\"]\ntls = false\n").is_ok());
    for bad in ["npipe://", "tcp://", "unix://relative"] {
        let error = read("daemon.toml", &format!("tls = false\nhosts = [\"{bad}\"]\n")).unwrap_err();
        assert!(error.contains(bad), "{error}");
    }
}
