//! The keys of Docker's stack files. Source: docker/cli `cli/compose/schema/data/config_schema_v3.*.json`, and
//! `cli/compose/types` for what is left of them.

use crate::{
    Error,
    tree::{Node, Value},
};
use std::fmt;

/// The newest one.
const NEWEST: u8 = 13;

/// `3.<minor>`
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) u8);

impl Version {
    pub(super) fn of(file: &Node) -> Result<Self, Error> {
        let Some(node) = file.get("version") else { return Ok(Self(NEWEST)) };
        let fail = |text: String| Err(Error::Invalid { at: node.at.clone(), path: "version".into(), text });
        let Value::Str(text) = &node.value else {
            let quoted = node.scalar().unwrap_or_default();
            return fail(format!("want a string, not {}: write it as \"{quoted}\"", node.kind()));
        };
        if matches!(text.as_str(), "" | "3") {
            return Ok(Self(NEWEST));
        }
        let minor = text.strip_prefix("3.").filter(|minor| *minor == "0" || !minor.starts_with('0'));
        match minor.and_then(|minor| minor.parse().ok()).filter(|minor| *minor <= NEWEST) {
            Some(minor) => Ok(Self(minor)),
            None => fail(format!("unsupported version {text:?} of stack files: want 3.0 to 3.{NEWEST}")),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "3.{}", self.0)
    }
}

/// What a value may be, and what becomes of it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// A whole number, or a text when `text`: checked, and left out.
    Unused {
        text: bool,
    },
    /// The empty one says nothing.
    Text,
    TextOrNull,
    /// A number, too; but one that is given cannot be used.
    TextNoNumber,
    /// `false` says nothing.
    Flag,
    /// `false` says something.
    Choice,
    /// Zero says nothing.
    Whole,
    /// Zero says something.
    Count,
    Ratio,
    /// Zero says something when `kept`.
    Duration {
        kept: bool,
    },
    /// Text like `64M`; bytes in the end.
    Size,
    /// No text twice.
    Texts,
    TextsMayRepeat,
    TextOrTexts,
    Command,
    HealthTest,
    Expose,
    /// `key=value` texts, or a mapping; `null` stays when `null`.
    Pairs {
        null: bool,
    },
    Hosts,
    /// Texts and numbers by name; `null` is allowed when `null`.
    Values {
        null: bool,
    },
    Struct(&'static Struct),
    /// Names, and what is behind each; `null` is an empty one when `null`.
    Named {
        of: &'static Shape,
        strict: bool,
    },
    List(&'static Shape),
    Ports,
    Volumes,
    References,
    Attachments,
    Ulimits,
    Build,
    External {
        strict: bool,
    },
}

#[derive(Debug)]
pub(super) struct Struct {
    pub(super) fields: &'static [Field],
    /// What it does not know is left out, and no error.
    pub(super) open: bool,
    /// `x-` keys are allowed since this version.
    pub(super) extras_since: Option<u8>,
    /// It may be nothing.
    pub(super) nullable: bool,
    /// It is there when it is empty, too.
    pub(super) kept: bool,
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) key: &'static str,
    pub(super) since: u8,
    pub(super) shape: Shape,
}

const fn key(key: &'static str, shape: Shape) -> Field {
    Field { key, since: 0, shape }
}

const fn since(minor: u8, key: &'static str, shape: Shape) -> Field {
    Field { key, since: minor, shape }
}

/// Closed, there only with something in it.
const fn part(fields: &'static [Field]) -> Struct {
    Struct { fields, open: false, extras_since: None, nullable: false, kept: false }
}

/// Closed, there also when it is empty.
const fn kept(fields: &'static [Field]) -> Struct {
    Struct { kept: true, ..part(fields) }
}

use Shape::{
    Attachments, Build, Choice, Command, Count, Duration, Expose, External, Flag, HealthTest, Hosts, List,
    Named, Pairs, Ports, Ratio, References, Size, Text, TextNoNumber, TextOrNull, TextOrTexts, Texts,
    TextsMayRepeat, Ulimits, Unused, Values, Volumes, Whole,
};

const LABELS: Shape = Pairs { null: false };
const SPAN: Shape = Duration { kept: false };
const SPAN_KEPT: Shape = Duration { kept: true };

pub(super) static FILE: Struct = Struct {
    fields: &[
        key("version", Text),
        key("services", Named { of: &Shape::Struct(&SERVICE), strict: true }),
        key("networks", Named { of: &Shape::Struct(&NETWORK), strict: false }),
        key("volumes", Named { of: &Shape::Struct(&VOLUME), strict: true }),
        since(1, "secrets", Named { of: &Shape::Struct(&SECRET), strict: true }),
        since(3, "configs", Named { of: &Shape::Struct(&CONFIG), strict: true }),
    ],
    open: false,
    extras_since: Some(4),
    nullable: false,
    kept: true,
};

pub(super) static SERVICE: Struct = Struct {
    fields: &[
        key("build", Build),
        key("cap_add", Texts),
        key("cap_drop", Texts),
        since(9, "cgroupns_mode", Text),
        key("cgroup_parent", Text),
        key("command", Command),
        since(3, "configs", References),
        key("container_name", Text),
        since(3, "credential_spec", Shape::Struct(&CREDENTIAL_SPEC)),
        key("depends_on", Texts),
        key("deploy", Shape::Struct(&DEPLOY)),
        key("devices", Texts),
        key("dns", TextOrTexts),
        key("dns_search", TextOrTexts),
        key("domainname", Text),
        key("entrypoint", Command),
        key("env_file", TextOrTexts),
        key("environment", Pairs { null: true }),
        key("expose", Expose),
        key("external_links", Texts),
        key("extra_hosts", Hosts),
        key("healthcheck", Shape::Struct(&HEALTHCHECK)),
        key("hostname", Text),
        key("image", Text),
        since(7, "init", Choice),
        key("ipc", Text),
        since(5, "isolation", Text),
        key("labels", LABELS),
        key("links", Texts),
        key("logging", Shape::Struct(&LOGGING)),
        key("mac_address", Text),
        key("network_mode", Text),
        key("networks", Attachments),
        key("pid", TextOrNull),
        key("ports", Ports),
        key("privileged", Flag),
        key("read_only", Flag),
        key("restart", Text),
        since(1, "secrets", References),
        key("security_opt", Texts),
        key("shm_size", TextNoNumber),
        key("stdin_open", Flag),
        key("stop_grace_period", SPAN_KEPT),
        key("stop_signal", Text),
        key("sysctls", LABELS),
        key("tmpfs", TextOrTexts),
        key("tty", Flag),
        key("ulimits", Ulimits),
        key("user", Text),
        // docker/cli has no name for it in its file format.
        since(13, "oom_score_adj", Unused { text: false }),
        key("userns_mode", Text),
        key("volumes", Volumes),
        key("working_dir", Text),
    ],
    open: false,
    extras_since: Some(7),
    nullable: false,
    kept: true,
};

static CREDENTIAL_SPEC: Struct = part(&[since(8, "config", Text), key("file", Text), key("registry", Text)]);

static HEALTHCHECK: Struct = kept(&[
    key("disable", Flag),
    key("interval", SPAN_KEPT),
    key("retries", Count),
    key("test", HealthTest),
    key("timeout", SPAN_KEPT),
    since(4, "start_period", SPAN_KEPT),
    since(12, "start_interval", SPAN_KEPT),
]);

pub(super) static LOGGING: Struct = kept(&[key("driver", Text), key("options", Values { null: true })]);

static DEPLOY: Struct = Struct {
    nullable: true,
    ..part(&[
        key("mode", Text),
        since(2, "endpoint_mode", Text),
        key("replicas", Count),
        key("labels", LABELS),
        since(7, "rollback_config", Shape::Struct(&UPDATE)),
        key("update_config", Shape::Struct(&UPDATE)),
        key("resources", Shape::Struct(&RESOURCES)),
        key("restart_policy", Shape::Struct(&RESTART)),
        key("placement", Shape::Struct(&PLACEMENT)),
    ])
};

static UPDATE: Struct = kept(&[
    key("parallelism", Count),
    key("delay", SPAN),
    key("failure_action", Text),
    key("monitor", SPAN),
    key("max_failure_ratio", Ratio),
    since(4, "order", Text),
]);

static RESOURCES: Struct =
    part(&[key("limits", Shape::Struct(&LIMITS)), key("reservations", Shape::Struct(&RESERVATIONS))]);

static LIMITS: Struct = kept(&[key("cpus", Text), key("memory", Size), since(9, "pids", Whole)]);

static RESERVATIONS: Struct = kept(&[
    key("cpus", Text),
    key("memory", Size),
    since(5, "generic_resources", List(&Shape::Struct(&GENERIC_RESOURCE))),
]);

static GENERIC_RESOURCE: Struct = kept(&[key("discrete_resource_spec", Shape::Struct(&DISCRETE))]);

static DISCRETE: Struct = kept(&[key("kind", Text), key("value", Count)]);

static RESTART: Struct = kept(&[
    key("condition", Text),
    key("delay", SPAN_KEPT),
    key("max_attempts", Count),
    key("window", SPAN_KEPT),
]);

static PLACEMENT: Struct = part(&[
    key("constraints", TextsMayRepeat),
    since(3, "preferences", List(&Shape::Struct(&PREFERENCE))),
    since(8, "max_replicas_per_node", Whole),
]);

static PREFERENCE: Struct = kept(&[key("spread", Text)]);

pub(super) static BUILD: Struct = part(&[
    key("context", Text),
    key("dockerfile", Text),
    key("args", Pairs { null: true }),
    since(3, "labels", LABELS),
    since(2, "cache_from", Texts),
    since(4, "network", Text),
    since(4, "target", Text),
    since(5, "shm_size", Unused { text: true }),
    since(9, "extra_hosts", Hosts),
]);

pub(super) static ATTACHMENT: Struct = kept(&[
    key("aliases", Texts),
    since(13, "driver_opts", Values { null: false }),
    key("ipv4_address", Text),
    key("ipv6_address", Text),
]);

pub(super) static PORT: Struct =
    kept(&[key("mode", Text), key("target", Whole), key("published", Whole), key("protocol", Text)]);

pub(super) static REFERENCE: Struct = Struct {
    open: true,
    ..kept(&[
        key("source", Text),
        key("target", Text),
        key("uid", Text),
        key("gid", Text),
        key("mode", Count),
    ])
};

pub(super) static ULIMIT: Struct = kept(&[key("hard", Whole), key("soft", Whole)]);

pub(super) static VOLUME_MOUNT: Struct = kept(&[
    key("type", Text),
    key("source", Text),
    key("target", Text),
    key("read_only", Flag),
    key("consistency", Text),
    key("bind", Shape::Struct(&MOUNT_BIND)),
    key("volume", Shape::Struct(&MOUNT_VOLUME)),
    since(6, "tmpfs", Shape::Struct(&MOUNT_TMPFS)),
]);

const fn open(fields: &'static [Field]) -> Struct {
    Struct { open: true, ..kept(fields) }
}

static MOUNT_BIND: Struct = open(&[key("propagation", Text)]);
static MOUNT_VOLUME: Struct = open(&[key("nocopy", Flag), key("subpath", Text)]);
static MOUNT_TMPFS: Struct = open(&[key("size", Whole)]);

const fn definition(nullable: bool, fields: &'static [Field]) -> Struct {
    Struct { extras_since: Some(7), nullable, ..kept(fields) }
}

static NETWORK: Struct = definition(
    true,
    &[
        since(5, "name", Text),
        key("driver", Text),
        key("driver_opts", Values { null: false }),
        key("ipam", Shape::Struct(&IPAM)),
        key("external", External { strict: true }),
        key("internal", Flag),
        since(2, "attachable", Flag),
        key("labels", LABELS),
    ],
);

static IPAM: Struct = part(&[key("driver", Text), key("config", List(&Shape::Struct(&IPAM_POOL)))]);
static IPAM_POOL: Struct = kept(&[key("subnet", Text)]);

static VOLUME: Struct = definition(
    true,
    &[
        since(4, "name", Text),
        key("driver", Text),
        key("driver_opts", Values { null: false }),
        key("external", External { strict: true }),
        key("labels", LABELS),
        since(10, "x-cluster-spec", Shape::Struct(&CLUSTER_SPEC)),
    ],
);

static CLUSTER_SPEC: Struct = open(&[
    key("group", Text),
    key("access_mode", Shape::Struct(&ACCESS_MODE)),
    key("accessibility_requirements", Shape::Struct(&ACCESSIBILITY)),
    key("capacity_range", Shape::Struct(&CAPACITY)),
    key("secrets", List(&Shape::Struct(&VOLUME_SECRET))),
    key("availability", Text),
]);
static ACCESS_MODE: Struct = open(&[
    key("scope", Text),
    key("sharing", Text),
    key("block_volume", Shape::Struct(&BLOCK_VOLUME)),
    key("mount_volume", Shape::Struct(&MOUNT_OPTIONS)),
]);
static BLOCK_VOLUME: Struct = open(&[]);
static MOUNT_OPTIONS: Struct = open(&[key("fs_type", Text), key("mount_flags", TextsMayRepeat)]);
static ACCESSIBILITY: Struct = open(&[
    key("requisite", List(&Shape::Struct(&TOPOLOGY))),
    key("preferred", List(&Shape::Struct(&TOPOLOGY))),
]);
static TOPOLOGY: Struct = open(&[key("segments", LABELS)]);
static CAPACITY: Struct = open(&[key("required_bytes", Size), key("limit_bytes", Size)]);
static VOLUME_SECRET: Struct = open(&[key("key", Text), key("secret", Text)]);

static SECRET: Struct = definition(
    false,
    &[
        since(5, "name", Text),
        key("file", Text),
        key("external", External { strict: false }),
        key("labels", LABELS),
        since(8, "driver", Text),
        since(8, "driver_opts", Values { null: false }),
        since(8, "template_driver", Text),
    ],
);

static CONFIG: Struct = definition(
    false,
    &[
        since(5, "name", Text),
        key("file", Text),
        key("external", External { strict: false }),
        key("labels", LABELS),
        since(8, "template_driver", Text),
    ],
);
