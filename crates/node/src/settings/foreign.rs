//! Keys of dockerd's that are about parts which are not here, or are as they are here whatever is asked. A file that
//! works for dockerd is taken as it is: what of it changes nothing is told with its line and the reason. What keeps
//! somebody out, or holds containers in, and cannot be had here is refused: nobody may count on it and be wrong.

use super::Settings;
use serde_json::Value;
use std::fmt;

/// A key that has no meaning here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Of the settings file, from 1; `None`: it cannot be told.
    pub line: Option<usize>,
    pub key: &'static str,
    pub why: String,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        write!(f, "{}: {}", self.key, self.why)
    }
}

/// What a value of such a key comes to.
enum Verdict {
    /// That is how it is here.
    Here,
    /// It changes nothing, and why.
    Left(String),
    /// The daemon does not start with it, and why.
    Refused(String),
}

use Verdict::{Here, Left, Refused};

/// Values in a message are cut: it is one line of a log.
const SHOWN_CHARS_MAX: usize = 60;

fn left(why: &str) -> Verdict {
    Left(why.to_owned())
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn words(value: &Value) -> impl Iterator<Item = &str> {
    let one = value.as_str();
    let many = value.as_array().into_iter().flatten().filter_map(Value::as_str);
    one.into_iter().chain(many).filter(|word| !word.is_empty())
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(is) => !is,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
    }
}

const NVIDIA: &str = "containers are run by this program itself; hint: GPUs are given by their vendor's description, as \
                      `nvidia-ctk cdi generate` writes it, and --gpus";

fn runtime(name: &str) -> Verdict {
    if engine::RUNTIMES.contains(&name) { Here } else { Left(format!("runtime {name:?}: {NVIDIA}")) }
}

fn first(verdicts: impl IntoIterator<Item = Verdict>) -> Verdict {
    verdicts.into_iter().find(|verdict| !matches!(verdict, Here)).unwrap_or(Here)
}

fn storage_driver(value: &Value) -> Verdict {
    match value.as_str() {
        Some("" | "overlay2" | "overlay" | "overlayfs") => Here,
        _ => Left(format!("{} is not used: layers are joined by overlayfs here", shown(value))),
    }
}

fn storage_opts(value: &Value) -> Verdict {
    first(words(value).map(|option| match option.split('=').next() {
        Some("overlay2.override_kernel_check" | "overlay.override_kernel_check") => Here,
        _ => Left(format!("{option:?} means nothing here: the disk is not divided among containers")),
    }))
}

fn exec_opts(value: &Value) -> Verdict {
    first(words(value).map(|option| match option {
        "native.cgroupdriver=cgroupfs" => Here,
        "native.cgroupdriver=systemd" => left(
            "cgroups are made without systemd, below the one given with --cgroup-parent; hint: the daemon's unit has \
             Delegate=yes, so that systemd leaves them alone",
        ),
        _ => Left(format!("{option:?} means nothing here")),
    }))
}

/// *Source:* moby `daemon/config/config.go`, `config_linux.go`; Docker docs, "Deprecated features".
#[rustfmt::skip]
impl Settings {
    /// Judges the keys that only this module reads.
    fn verdicts(&self) -> Vec<(&'static str, Verdict)> {
        let mut all = Vec::new();
        {
            let mut judge = |key, value: &Option<Value>, verdict: &dyn Fn(&Value) -> Verdict| {
                if let Some(value) = value {
                    all.push((key, verdict(value)));
                }
            };
            let always = |why: &'static str| move |value: &Value| if is_empty(value) { Here } else { left(why) };
            let unless = |word: &'static str, why: &'static str| {
                move |value: &Value| if is_empty(value) || value == word { Here } else { left(why) }
            };
            let if_not = |why: &'static str| {
                move |value: &Value| if value == &Value::Bool(false) { left(why) } else { Here }
            };
            let refused = |why: &'static str| move |value: &Value| if is_empty(value) { Here } else { Refused(why.to_owned()) };
            let here = |_: &Value| Here;

            judge("storage-driver", &self.storage_driver, &storage_driver);
            judge("storage-opts", &self.storage_opts, &storage_opts);
            judge("exec-opts", &self.exec_opts, &exec_opts);
            judge("runtimes", &self.runtimes, &|value| {
                first(value.as_object().into_iter().flatten().map(|(name, _)| runtime(name)))
            });
            judge("default-runtime", &self.default_runtime, &|value| first(words(value).map(runtime)));
            judge("experimental", &self.experimental, &here);
            judge("raw-logs", &self.raw_logs, &here);
            judge("userland-proxy", &self.userland_proxy, &here);
            judge("userland-proxy-path", &self.userland_proxy_path, &always("no such program is needed: ports of 127.0.0.1 are published by nftables, too"));
            let nftables = "ports and networks are held by tables of this program's own (nftables), whatever it says; nobody else's rules are changed";
            judge("iptables", &self.iptables, &if_not(nftables));
            judge("ip6tables", &self.ip6tables, &if_not(nftables));
            judge("firewall-backend", &self.firewall_backend, &unless("nftables", nftables));
            judge("ip-forward", &self.ip_forward, &if_not("the kernel forwards packets here as soon as a container has a network"));
            judge("ip-forward-no-drop", &self.ip_forward_no_drop, &here);
            judge("ip-masq", &self.ip_masq, &if_not("addresses are always translated on the way out; hint: an internal network has no way out"));
            judge("allow-direct-routing", &self.allow_direct_routing, &always("containers are reached from elsewhere by their published ports only"));
            judge("bridge", &self.bridge, &unless("docker0", "the network `bridge` is made by this program; hint: bip, fixed-cidr and mtu say how, and --network none is a container without one"));
            judge("bip6", &self.bip6, &always("hint: ipv6 and fixed-cidr-v6 give the network `bridge` its addresses"));
            judge("default-gateway", &self.default_gateway, &always("the way out of the network `bridge` is the bridge's own address, bip"));
            judge("default-gateway-v6", &self.default_gateway_v6, &always("the way out of the network `bridge` is the bridge's own address"));
            judge("network-control-plane-mtu", &self.network_control_plane_mtu, &always("hosts speak gRPC with each other, which takes the path's own MTU"));
            judge("containerd", &self.containerd, &always("there is no containerd here"));
            judge("containerd-namespace", &self.containerd_namespace, &always("there is no containerd here"));
            judge("containerd-plugins-namespace", &self.containerd_plugins_namespace, &always("there is no containerd here"));
            judge("exec-root", &self.exec_root, &always("hint: --run-root says where sockets and what is gone after a boot are"));
            judge("pidfile", &self.pidfile, &always("no such file is written; hint: systemctl show --property MainPID rswarm, or daemon.lock of the data root, which the daemon keeps locked"));
            judge("init-path", &self.init_path, &always("the first process of containers with --init is this program's own"));
            judge("oom-score-adjust", &self.oom_score_adjust, &always("hint: OOMScoreAdjust= of the daemon's unit"));
            let realtime = "realtime scheduling is not given to containers here";
            judge("cpu-rt-period", &self.cpu_rt_period, &always(realtime));
            judge("cpu-rt-runtime", &self.cpu_rt_runtime, &always(realtime));
            judge("allow-nondistributable-artifacts", &self.allow_nondistributable_artifacts, &always("layers that must not be distributed are neither pushed nor pulled"));
            judge("api-cors-header", &self.api_cors_header, &always("browsers of other sites are not let in"));
            let own = "the swarm keeps its state by itself; hint: `rswarm swarm init`";
            judge("cluster-store", &self.cluster_store, &always(own));
            judge("cluster-store-opts", &self.cluster_store_opts, &always(own));
            judge("cluster-advertise", &self.cluster_advertise, &always(own));
            judge("disable-legacy-registry", &self.disable_legacy_registry, &here);
            judge("graph", &self.graph, &refused("it is called data-root since Docker 17.05; hint: write that"));
            judge("selinux-enabled", &self.selinux_enabled, &refused("containers are not confined by SELinux here; hint: if seccomp, capabilities and namespaces are enough for you, leave this line out"));
            judge("authorization-plugins", &self.authorization_plugins, &refused("there are none here, and everybody would be let in; hint: users of the swarm have roles (`rswarm user add`), and tlsverify keeps others out; leave this line out"));
        }
        let Self { live_restore, hosts, features, builder, .. } = self;
        if *live_restore == Some(false) {
            all.push(("live-restore", left("containers outlive the daemon here, whatever it says")));
        }
        if hosts.iter().any(|host| host.starts_with("fd://")) {
            all.push(("hosts", left("fd://: sockets are not taken from systemd; the usual one is always there, docker.sock in the run root")));
        }
        for (name, is) in features {
            let verdict = match name.as_str() {
                "cdi" | "buildkit" => Here,
                _ if !is => Here,
                _ => Left(format!("{name} is no part of this program")),
            };
            all.push(("features", verdict));
        }
        let more = [("gc: policy", &builder.gc.policy), ("gc: reservedSpace", &builder.gc.reserved_space), ("gc: minFreeSpace", &builder.gc.min_free_space), ("entitlements", &builder.entitlements), ("history", &builder.history)];
        for (name, _) in more.iter().filter(|(_, value)| value.is_some()) {
            all.push(("builder", Left(format!("{name}: it means nothing here; hint: gc: defaultKeepStorage says how much of earlier builds is kept"))));
        }
        all
    }
}

impl Settings {
    /// Notes what of the file has no meaning here.
    ///
    /// # Errors
    /// Something of it must not be left out; the text has line, key and reason.
    pub(super) fn judge(&mut self, text: &str, json: bool) -> Result<(), String> {
        for (key, verdict) in self.verdicts() {
            let told = |why| Told { line: line_of(text, key, json), key, why };
            match verdict {
                Here => {}
                Left(why) => self.told.push(told(why)),
                Refused(why) => return Err(told(why).to_string()),
            }
        }
        self.told.sort_by_key(|told| told.line);
        Ok(())
    }
}

/// Returns the line, from 1, on which a key of the outermost table stands.
pub(super) fn line_of(text: &str, key: &str, json: bool) -> Option<usize> {
    if json { line_in_json(text, key) } else { line_in_toml(text, key) }
}

/// What is no JSON was refused before.
fn line_in_json(text: &str, key: &str) -> Option<usize> {
    let (mut line, mut depth) = (1, 0);
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\n' => line += 1,
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            '"' => {
                let mut end = text.len();
                while let Some((at, c)) = chars.next() {
                    match c {
                        '\\' => drop(chars.next()),
                        '"' => {
                            end = at;
                            break;
                        }
                        _ => {}
                    }
                }
                let name = depth == 1 && text.get(end + 1..).is_some_and(|s| s.trim_start().starts_with(':'));
                if name && &text[at + 1..end] == key {
                    return Some(line);
                }
            }
            _ => {}
        }
    }
    None
}

fn line_in_toml(text: &str, key: &str) -> Option<usize> {
    let mut outermost = true;
    for (line, words) in (1..).zip(text.lines()) {
        let words = words.trim_start();
        let name = match words.strip_prefix('[') {
            Some(table) => {
                outermost = false;
                table
            }
            None if outermost => words,
            None => continue,
        };
        let name = name.trim_start_matches(['"', '\'']);
        let rest = name.strip_prefix(key).map(|rest| rest.trim_start_matches(['"', '\'']).trim_start());
        if rest.is_some_and(|rest| rest.starts_with(['=', '.', ']'])) {
            return Some(line);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_on_its_line_and_nowhere_else() {
        let json = "{\n \"log-opts\": {\"bridge\": \"x\\\"}\"},\n \"labels\": [\"bridge\",\n \"a\"],\n\n \"bridge\" : \"br0\"\n}";
        assert_eq!(line_of(json, "bridge", true), Some(6));
        assert_eq!(line_of(json, "labels", true), Some(3));
        assert_eq!(line_of(json, "max-size", true), None);
        let toml = "# bridge = 1\nlabels = [\"bridge\"]\nexec-opts = []\n\"bridge\" = \"br0\"\n[features]\nbridge = true\n[builder.gc]\n";
        assert_eq!(line_of(toml, "bridge", false), Some(4));
        assert_eq!(line_of(toml, "features", false), Some(5));
        assert_eq!(line_of(toml, "builder", false), Some(7));
        assert_eq!(line_of(toml, "exec", false), None);
    }
}
