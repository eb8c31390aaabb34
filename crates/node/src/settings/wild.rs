//! Settings files as people have them for dockerd: what each of them comes to here. They are our own, with the keys and
//! values of files in public repositories: Kubernetes' guides, GPU hosts, hardening scripts, mirrors in China, laptops.

use super::Settings;

/// A file, and how it is taken: what is told of it, or why it is refused.
struct Case {
    name: &'static str,
    text: &'static str,
    /// Lines of what has no meaning here.
    told: &'static [&'static str],
    refused: Option<&'static str>,
}

const CASES: &[Case] = &[
    Case {
        name: "a node of Kubernetes",
        text: r#"{
  "exec-opts": ["native.cgroupdriver=systemd"],
  "log-driver": "json-file",
  "log-opts": {"max-size": "100m"},
  "storage-driver": "overlay2",
  "storage-opts": ["overlay2.override_kernel_check=true"]
}"#,
        told: &["line 2: exec-opts: cgroups are made without systemd"],
        refused: None,
    },
    Case {
        name: "a host with GPUs",
        text: r#"{
    "runtimes": {
        "nvidia": {"path": "nvidia-container-runtime", "runtimeArgs": []}
    },
    "default-runtime": "nvidia",
    "default-shm-size": "256M",
    "storage-opts": ["overlay2.size=20G"]
}"#,
        told: &[
            "line 2: runtimes: runtime \"nvidia\": containers are run by this program itself; hint: GPUs are given",
            "line 5: default-runtime: runtime \"nvidia\"",
            "line 7: storage-opts: \"overlay2.size=20G\" means nothing here",
        ],
        refused: None,
    },
    Case {
        name: "a host that was hardened",
        text: r#"{
  "icc": false, "no-new-privileges": true, "live-restore": true, "userland-proxy": false,
  "log-driver": "json-file", "log-opts": {"max-size": "10m", "max-file": "3"},
  "default-ulimits": {"nofile": {"Name": "nofile", "Hard": 65536, "Soft": 32768}, "nproc": {"Hard": 4096, "Soft": 2048}},
  "default-address-pools": [{"base": "172.30.0.0/16", "size": 24}],
  "default-runtime": "runc", "runtimes": {"runc": {"path": "runc"}}
}"#,
        told: &[],
        refused: None,
    },
    Case {
        name: "one with a firewall of its own",
        text: r#"{
  "iptables": false, "ip6tables": false,
  "userland-proxy": true,
  "ip-forward": false,
  "log-driver": "journald"
}"#,
        told: &[
            "line 2: iptables: ports and networks are held by tables of this program's own",
            "line 2: ip6tables: ports",
            "line 4: ip-forward: the kernel forwards",
        ],
        refused: None,
    },
    Case {
        name: "one behind mirrors",
        text: r#"{
  "registry-mirrors": ["https://mirror.example.com/", "http://hub.example.org"],
  "insecure-registries": ["harbor.example.net", "0.0.0.0/0"],
  "max-concurrent-downloads": 20, "max-concurrent-uploads": 10, "max-download-attempts": 8,
  "data-root": "/data/docker", "graph": "/data/docker"
}"#,
        told: &[],
        refused: Some("line 5: graph: it is called data-root since Docker 17.05"),
    },
    Case {
        name: "every key with nothing in it, as the manual lists them",
        text: r#"{
  "allow-nondistributable-artifacts": [], "api-cors-header": "", "authorization-plugins": [], "bip": "", "bridge": "",
  "cgroup-parent": "", "cluster-advertise": "", "cluster-store": "", "cluster-store-opts": {}, "containerd": "",
  "data-root": "", "debug": true, "default-address-pools": [], "default-cgroupns-mode": "", "default-gateway": "",
  "default-gateway-v6": "", "default-runtime": "runc", "default-shm-size": "", "default-ulimits": {}, "dns": [],
  "dns-opts": [], "dns-search": [], "exec-opts": [], "exec-root": "", "experimental": false, "features": {},
  "fixed-cidr": "", "fixed-cidr-v6": "", "group": "", "hosts": [], "icc": true, "init": false, "init-path": "",
  "insecure-registries": [], "ip": "0.0.0.0", "ip-forward": true, "ip-masq": true, "iptables": true, "ip6tables": true,
  "ipv6": false, "labels": [], "live-restore": true, "log-driver": "json-file", "log-format": "text", "log-level": "",
  "log-opts": {}, "max-concurrent-downloads": 0, "max-concurrent-uploads": 0, "max-download-attempts": 0,
  "metrics-addr": "", "mtu": 0, "no-new-privileges": false, "node-generic-resources": [], "oom-score-adjust": 0,
  "pidfile": "", "raw-logs": false, "registry-mirrors": [], "runtimes": {}, "seccomp-profile": "",
  "selinux-enabled": false, "shutdown-timeout": 0, "storage-driver": "", "storage-opts": [],
  "swarm-default-advertise-addr": "", "tls": false, "tlscacert": "", "tlscert": "", "tlskey": "", "tlsverify": false,
  "userland-proxy": false, "userland-proxy-path": "", "userns-remap": ""
}"#,
        told: &[],
        refused: None,
    },
    Case {
        name: "a laptop's",
        text: r#"{
  "builder": {"gc": {"enabled": true, "defaultKeepStorage": "20GB", "policy": [{"keepStorage": "10GB", "all": true}]}},
  "experimental": false,
  "features": {"buildkit": true, "containerd-snapshotter": true},
  "metrics-addr": "127.0.0.1:9323",
  "dns": ["9.9.9.9"]
}"#,
        told: &[
            "line 2: builder: gc: policy: it means nothing here",
            "line 4: features: containerd-snapshotter is no part of this program",
        ],
        refused: None,
    },
    Case {
        name: "one on Fedora",
        text: "{\n  \"storage-driver\": \"btrfs\",\n  \"selinux-enabled\": true\n}\n",
        told: &[],
        refused: Some("line 3: selinux-enabled: containers are not confined by SELinux here"),
    },
    Case {
        name: "one with its door open",
        text: "{\n  \"live-restore\": true,\n  \"hosts\": [\"unix:///var/run/docker.sock\", \"tcp://0.0.0.0:2375\"]\n}\n",
        told: &[],
        refused: Some("line 3: hosts: whoever reaches a tcp:// address is root on this host"),
    },
    Case {
        name: "one with certificates, started by a socket",
        text: r#"{
  "hosts": ["fd://", "tcp://0.0.0.0:2376"],
  "tls": true, "tlsverify": true, "tlscacert": "/certs/ca.pem", "tlscert": "/certs/cert.pem", "tlskey": "/certs/key.pem",
  "userns-remap": "default", "log-level": "warning", "labels": ["zone=a", "disk=ssd"],
  "authorization-plugins": []
}"#,
        told: &["line 2: hosts: fd://: sockets are not taken from systemd"],
        refused: None,
    },
    Case {
        name: "one with a key that nobody knows",
        text: "{\n  \"debug\": false,\n  \"max-allowed-packets\": 100000\n}\n",
        told: &[],
        refused: Some("unknown field `max-allowed-packets`"),
    },
    Case {
        name: "one with somebody else's proxies",
        text: "{\n  \"proxies\": {\"default\": {\"httpProxy\": \"http://proxy.example:3128\"}}\n}\n",
        told: &[],
        refused: Some("unknown field `default`, expected one of `http-proxy`"),
    },
    Case { name: "an empty one", text: "\u{feff}\n", told: &[], refused: None },
];

#[test]
fn files_of_dockerds_are_taken_or_the_line_is_named() {
    assert!(CASES.len() >= 10);
    for Case { name, text, told, refused } in CASES {
        let read = Settings::of_text(text, true);
        match (read, refused) {
            (Ok(settings), None) => {
                let said: Vec<String> = settings.told.iter().map(ToString::to_string).collect();
                assert_eq!(said.len(), told.len(), "{name}: {said:#?}");
                for (said, expected) in said.iter().zip(*told) {
                    assert!(said.starts_with(expected), "{name}: {said}");
                }
            }
            (Err(error), Some(refused)) => {
                let error = format!("{error:#}").replace(":\n", ": ");
                assert!(error.contains(refused) && error.contains("line"), "{name}: {error}");
            }
            (read, _) => panic!("{name}: {:?}", read.map(|settings| settings.told)),
        }
    }
}

#[test]
fn what_such_files_ask_for_is_given() {
    let read = |name: &str| {
        let case = CASES.iter().find(|case| case.name == name).unwrap();
        Settings::of_text(case.text, true).unwrap()
    };
    let hard = read("a host that was hardened").engine_defaults().unwrap();
    assert_eq!((hard.bridge_icc, hard.containers.no_new_privileges), (Some(false), true));
    assert_eq!(hard.ulimits.iter().find(|limit| limit.name == "nproc").unwrap().hard, 4096);
    assert_eq!(hard.address_pools.len(), 1);
    let gpu = read("a host with GPUs").engine_defaults().unwrap();
    assert_eq!(gpu.containers.shm_size_bytes, Some(256 << 20));
    assert_eq!(read("a laptop's").metrics_addr.as_deref(), Some("127.0.0.1:9323"));
    let certified = read("one with certificates, started by a socket");
    assert_eq!(certified.doors().unwrap().len(), 1);
    assert_eq!(certified.engine_labels().unwrap()["disk"], "ssd");
    let empty = read("every key with nothing in it, as the manual lists them");
    assert_eq!(empty.engine_defaults().unwrap().bridge, None);
    assert!(empty.data_root.is_none() && empty.registries().downloads_at_once.is_none());
    let mirrored = r#"{"max-concurrent-downloads": 20, "max-download-attempts": 8}"#;
    let registries = Settings::of_text(mirrored, true).unwrap().registries();
    assert_eq!((registries.downloads_at_once, registries.attempts), (Some(20), Some(8)));
}

#[test]
fn values_that_cannot_be_had_are_named_with_their_lines() {
    for (text, said) in [
        (r#""default-shm-size": "much""#, "default-shm-size"),
        (r#""default-ipc-mode": "sharing""#, "default-ipc-mode"),
        (r#""dns-search": ["a b"]"#, "dns-search"),
        (
            r#""seccomp-profile": "/no/such/profile.json""#,
            "seccomp-profile: cannot read /no/such/profile.json",
        ),
        (r#""log-driver": "fluentd""#, "log-driver"),
        (
            r#""default-network-opts": {"bridge": {"com.docker.network.bridge.enable_icc": "no"}}"#,
            "enable_icc",
        ),
        (r#""ip": "::1""#, "ip: ::1: ports"),
        (r#""bip": "10.1.0.1/16", "fixed-cidr": "10.2.0.0/24""#, "fixed-cidr: 10.2.0.0/24 is not in"),
        (r#""labels": ["zone=a", "zone=b"]"#, "labels: zone is"),
        (r#""labels": ["zone"]"#, "labels: \"zone\" is no label"),
        (r#""log-level": "loud""#, "\"loud\" is no level"),
        (r#""log-format": "xml""#, "\"xml\" is no format"),
        (r#""bip": "bridge""#, "\"bridge\": "),
    ] {
        let error = Settings::of_text(&format!("{{\n\n{text}\n}}"), true).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains(said) && error.contains("line 3"), "{text}: {error}");
    }
}

#[test]
fn a_file_that_is_read_anew_holds_as_far_as_it_can() {
    let read = |text: &str| Settings::of_text(text, true).unwrap();
    let before =
        read(r#"{"log-level": "info", "labels": ["zone=a"], "bip": "10.1.0.1/16", "group": "root"}"#);
    let reloaded = before.reloaded(read(
        r#"{"log-level": "debug", "labels": ["zone=b"], "bip": "10.2.0.1/16", "metrics-addr": "127.0.0.1:9323", "group": "root",
            "max-concurrent-downloads": 7, "exec-opts": ["native.cgroupdriver=systemd"]}"#,
    ));
    assert_eq!(reloaded.changed, ["max-concurrent-downloads", "log-level", "labels"]);
    assert_eq!(reloaded.waiting, ["bip", "metrics-addr"]);
    let now = reloaded.settings;
    assert_eq!((now.labels.as_slice(), now.bip), (&["zone=b".to_owned()][..], before.bip));
    assert_eq!(now.told.len(), 1);
    let again = now.reloaded(read(
        r#"{"log-level": "debug", "labels": ["zone=b"], "bip": "10.1.0.1/16", "group": "root"}"#,
    ));
    assert_eq!((again.changed, again.waiting), (vec!["max-concurrent-downloads".to_owned()], vec![]));
}
