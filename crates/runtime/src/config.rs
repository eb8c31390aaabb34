//! What `config.json` of an OCI bundle says, as far as it is carried out here, or refused with its name.
//!
//! Lists and maps are options because the files of other programs write `null` for empty ones. Nothing has a value by
//! default: what is not said is not there.
//!
//! *Source:* OCI runtime spec 1.2, "config.md" and "config-linux.md"; the names are those of its `specs-go/config.go`.

use crate::caps::Capabilities;
use serde::{
    Deserialize, Serialize,
    de::{self, IntoDeserializer},
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    pub oci_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mounts: Option<Vec<Mount>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domainname: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linux: Option<Linux>,
}

impl Spec {
    /// Reads a file. Not generic: reading a spec is a lot of code, and should be compiled once.
    ///
    /// # Errors
    /// When the file cannot be read, or is no such JSON.
    pub fn load(path: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(path)?)?)
    }

    /// Returns the text of the file.
    ///
    /// # Errors
    /// When a path of it is not UTF-8.
    pub(crate) fn to_json(&self) -> io::Result<Vec<u8>> {
        Ok(serde_json::to_vec(self)?)
    }
}

/// The container's `/`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Root {
    pub path: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readonly: Option<bool>,
}

/// One mount; they are made in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Mount {
    pub destination: PathBuf,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid_mappings: Option<Vec<LinuxIdMapping>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid_mappings: Option<Vec<LinuxIdMapping>>,
}

/// A program, and as whom it runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Process {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminal: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_size: Option<ConsoleSize>,
    pub user: User,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    pub cwd: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<LinuxCapabilities>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rlimits: Option<Vec<PosixRlimit>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_new_privileges: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apparmor_profile: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selinux_label: Option<String>,
    /// Refused, as what follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_priority: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Value>,
    #[serde(rename = "execCPUAffinity", skip_serializing_if = "Option::is_none")]
    pub exec_cpu_affinity: Option<Value>,
}

/// *Unit:* cells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConsoleSize {
    pub height: u64,
    pub width: u64,
}

/// Ids within the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub additional_gids: Option<Vec<u32>>,
}

/// *Source:* capabilities(7).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinuxCapabilities {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bounding: Option<Capabilities>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effective: Option<Capabilities>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inheritable: Option<Capabilities>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permitted: Option<Capabilities>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ambient: Option<Capabilities>,
}

/// *Source:* getrlimit(2); all ones = no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PosixRlimit {
    #[serde(rename = "type")]
    pub kind: PosixRlimitType,
    #[serde(default)]
    pub soft: u64,
    #[serde(default)]
    pub hard: u64,
}

/// In the kernel's order. *Source:* asm-generic/resource.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PosixRlimitType {
    RlimitCpu,
    RlimitFsize,
    RlimitData,
    RlimitStack,
    RlimitCore,
    RlimitRss,
    RlimitNproc,
    RlimitNofile,
    RlimitMemlock,
    RlimitAs,
    RlimitLocks,
    RlimitSigpending,
    RlimitMsgqueue,
    RlimitNice,
    RlimitRtprio,
    RlimitRttime,
}

impl PosixRlimitType {
    /// Returns the one of this name, as `RLIMIT_NOFILE`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::deserialize(IntoDeserializer::<de::value::Error>::into_deserializer(name)).ok()
    }
}

/// What runs besides, and when; [`shim::hooks`] says where.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hooks {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prestart: Option<Vec<Hook>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub create_runtime: Option<Vec<Hook>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub create_container: Option<Vec<Hook>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_container: Option<Vec<Hook>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub poststart: Option<Vec<Hook>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub poststop: Option<Vec<Hook>>,
}

/// A program of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hook {
    pub path: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    /// *Unit:* seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
}

/// What only Linux has.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Linux {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid_mappings: Option<Vec<LinuxIdMapping>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid_mappings: Option<Vec<LinuxIdMapping>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sysctl: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<LinuxResources>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroups_path: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<Vec<LinuxNamespace>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices: Option<Vec<LinuxDevice>>,
    /// Shared: nearly all containers of a host have the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<Arc<LinuxSeccomp>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rootfs_propagation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub masked_paths: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readonly_paths: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount_label: Option<String>,
    /// Refused, as what follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_policy: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub personality: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_offsets: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net_devices: Option<Value>,
}

/// A range of ids, and what they are outside. *Source:* user_namespaces(7).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinuxIdMapping {
    #[serde(rename = "containerID")]
    pub container_id: u32,
    #[serde(rename = "hostID")]
    pub host_id: u32,
    pub size: u32,
}

/// One of its own, or with a path one that it joins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinuxNamespace {
    #[serde(rename = "type")]
    pub kind: LinuxNamespaceType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinuxNamespaceType {
    Mount,
    Cgroup,
    Uts,
    Ipc,
    User,
    Pid,
    Network,
    Time,
}

/// A node below the container's `/dev`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinuxDevice {
    #[serde(default)]
    pub path: PathBuf,
    #[serde(rename = "type")]
    pub kind: LinuxDeviceType,
    #[serde(default)]
    pub major: i64,
    #[serde(default)]
    pub minor: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_mode: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
}

/// All; block; character; character without a buffer; pipe.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinuxDeviceType {
    #[default]
    A,
    B,
    C,
    U,
    P,
}

impl LinuxDeviceType {
    /// Returns its letter.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
            Self::C => "c",
            Self::U => "u",
            Self::P => "p",
        }
    }
}

/// May, or may not; of those that fit the last one counts. No number = any.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinuxDeviceCgroup {
    pub allow: bool,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<LinuxDeviceType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub major: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minor: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<String>,
}

impl LinuxDeviceCgroup {
    /// `access`: some of `rwm`.
    #[must_use]
    pub fn new(
        allow: bool,
        kind: Option<LinuxDeviceType>,
        major: Option<i64>,
        minor: Option<i64>,
        access: &str,
    ) -> Self {
        Self { allow, kind, major, minor, access: Some(access.to_owned()) }
    }
}

/// As version 1 reads it. *Source:* kernel Documentation/admin-guide/cgroup-v1/devices.rst.
impl fmt::Display for LinuxDeviceCgroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |n: Option<i64>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        let (major, minor) = (number(self.major), number(self.minor));
        let access = self.access.as_deref().unwrap_or_default();
        write!(f, "{} {major}:{minor} {access}", self.kind.unwrap_or_default().as_str())
    }
}

/// Limits of the cgroup. *Source:* OCI runtime spec, "Control groups".
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LinuxResources {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices: Option<Vec<LinuxDeviceCgroup>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<LinuxMemory>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<LinuxCpu>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<LinuxPids>,
    #[serde(rename = "blockIO", skip_serializing_if = "Option::is_none")]
    pub block_io: Option<LinuxBlockIo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hugepage_limits: Option<Vec<LinuxHugepageLimit>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unified: Option<BTreeMap<String, String>>,
    /// Refused, as what follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rdma: Option<BTreeMap<String, Value>>,
}

/// *Unit:* bytes; -1 = no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LinuxMemory {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reservation: Option<i64>,
    /// Memory and swap together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap: Option<i64>,
    /// *Range:* 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swappiness: Option<u64>,
    #[serde(rename = "disableOOMKiller", skip_serializing_if = "Option::is_none")]
    pub disable_oom_killer: Option<bool>,
}

/// *Unit:* periods, quotas and run times in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LinuxCpu {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shares: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub realtime_runtime: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub realtime_period: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mems: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinuxPids {
    /// 0 and below = no limit.
    pub limit: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LinuxBlockIo {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttle_read_bps_device: Option<Vec<LinuxThrottleDevice>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttle_write_bps_device: Option<Vec<LinuxThrottleDevice>>,
    #[serde(rename = "throttleReadIOPSDevice", skip_serializing_if = "Option::is_none")]
    pub throttle_read_iops_device: Option<Vec<LinuxThrottleDevice>>,
    #[serde(rename = "throttleWriteIOPSDevice", skip_serializing_if = "Option::is_none")]
    pub throttle_write_iops_device: Option<Vec<LinuxThrottleDevice>>,
}

/// *Unit:* bytes, or operations, per second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinuxThrottleDevice {
    pub major: i64,
    pub minor: i64,
    pub rate: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LinuxHugepageLimit {
    /// As `2MB`.
    pub page_size: String,
    /// *Unit:* bytes.
    pub limit: i64,
}

/// What the container may ask of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinuxSeccomp {
    pub default_action: LinuxSeccompAction,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_errno_ret: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architectures: Option<Vec<Arch>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<Vec<LinuxSeccompFilterFlag>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syscalls: Option<Vec<LinuxSyscall>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LinuxSeccompAction {
    ScmpActKill,
    ScmpActKillProcess,
    ScmpActKillThread,
    ScmpActTrap,
    ScmpActErrno,
    ScmpActTrace,
    ScmpActAllow,
    ScmpActLog,
    ScmpActNotify,
}

/// Machines that profiles name; those of other kinds than this one count for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Arch {
    ScmpArchNative,
    ScmpArchX86,
    ScmpArchX86_64,
    ScmpArchX32,
    ScmpArchArm,
    ScmpArchAarch64,
    ScmpArchMips,
    ScmpArchMips64,
    ScmpArchMips64n32,
    ScmpArchMipsel,
    ScmpArchMipsel64,
    ScmpArchMipsel64n32,
    ScmpArchPpc,
    ScmpArchPpc64,
    ScmpArchPpc64le,
    ScmpArchS390,
    ScmpArchS390x,
    ScmpArchParisc,
    ScmpArchParisc64,
    ScmpArchRiscv64,
    ScmpArchLoongarch64,
    ScmpArchM68k,
    ScmpArchSh,
    ScmpArchSheb,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LinuxSeccompFilterFlag {
    SeccompFilterFlagLog,
    SeccompFilterFlagTsync,
    SeccompFilterFlagSpecAllow,
    SeccompFilterFlagWaitKillableRecv,
}

/// What is answered to calls of these names whose arguments are all like this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinuxSyscall {
    pub names: Vec<String>,
    pub action: LinuxSeccompAction,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno_ret: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<LinuxSeccompArg>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinuxSeccompArg {
    /// *Range:* 0 to 5.
    pub index: usize,
    pub value: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_two: Option<u64>,
    pub op: LinuxSeccompOperator,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LinuxSeccompOperator {
    ScmpCmpNe,
    ScmpCmpLt,
    ScmpCmpLe,
    ScmpCmpEq,
    ScmpCmpGe,
    ScmpCmpGt,
    ScmpCmpMaskedEq,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Each key that is read, with a value, in the specification's spelling.
    fn whole() -> Value {
        let ids = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
        let hook = json!([{ "path": "/h", "args": ["h"], "env": ["A=1"], "timeout": 3 }]);
        let rate = json!([{ "major": 8, "minor": 0, "rate": 5 }]);
        json!({
            "ociVersion": "1.2.0",
            "root": { "path": "rootfs", "readonly": true },
            "mounts": [{ "destination": "/x", "type": "bind", "source": "/y", "options": ["ro"],
                "uidMappings": ids, "gidMappings": ids }],
            "process": {
                "terminal": true, "consoleSize": { "height": 2, "width": 3 },
                "user": { "uid": 1, "gid": 2, "umask": 18, "additionalGids": [3] },
                "args": ["true"], "env": ["A=1"], "cwd": "/",
                "capabilities": { "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "inheritable": [],
                    "permitted": ["CAP_KILL"], "ambient": [] },
                "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 1, "hard": u64::MAX }],
                "noNewPrivileges": true, "apparmorProfile": "a", "oomScoreAdj": -5, "selinuxLabel": "s",
                "ioPriority": { "class": "IOPRIO_CLASS_BE" }, "scheduler": {}, "execCPUAffinity": {},
            },
            "hostname": "h", "domainname": "d",
            "hooks": { "prestart": hook, "createRuntime": hook, "createContainer": hook, "startContainer": hook,
                "poststart": hook, "poststop": hook },
            "annotations": { "a": "b" },
            "linux": {
                "uidMappings": ids, "gidMappings": ids, "sysctl": { "kernel.shmmax": "1" },
                "resources": {
                    "devices": [{ "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw" }],
                    "memory": { "limit": 1, "reservation": 2, "swap": -1, "swappiness": 4, "disableOOMKiller": true },
                    "cpu": { "shares": 1, "quota": -1, "period": 2, "realtimeRuntime": 3, "realtimePeriod": 4,
                        "cpus": "0", "mems": "0" },
                    "pids": { "limit": 5 },
                    "blockIO": { "weight": 10, "throttleReadBpsDevice": rate, "throttleWriteBpsDevice": rate,
                        "throttleReadIOPSDevice": rate, "throttleWriteIOPSDevice": rate },
                    "hugepageLimits": [{ "pageSize": "2MB", "limit": 7 }],
                    "unified": { "memory.high": "8" }, "network": {}, "rdma": { "mlx5_1": {} },
                },
                "cgroupsPath": "/c",
                "namespaces": [{ "type": "network", "path": "/n" }, { "type": "mount" }],
                "devices": [{ "path": "/dev/x", "type": "b", "major": 1, "minor": 2, "fileMode": 438, "uid": 3,
                    "gid": 4 }],
                "seccomp": {
                    "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
                    "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_MIPS64N32"],
                    "flags": ["SECCOMP_FILTER_FLAG_LOG"],
                    "syscalls": [{ "names": ["read"], "action": "SCMP_ACT_ALLOW", "errnoRet": 2,
                        "args": [{ "index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ" }] }],
                },
                "rootfsPropagation": "slave", "maskedPaths": ["/m"], "readonlyPaths": ["/r"], "mountLabel": "l",
                "intelRdt": {}, "memoryPolicy": {}, "personality": {}, "timeOffsets": {}, "netDevices": {},
            },
        })
    }

    #[test]
    fn every_key_is_read_and_written_as_the_specification_spells_it() {
        let spec: Spec = serde_json::from_value(whole()).unwrap();
        assert_eq!(serde_json::to_value(&spec).unwrap(), whole());
    }

    #[test]
    fn what_other_programs_write_for_nothing_is_nothing() {
        let text = r#"{"ociVersion":"1.0.2","mounts":null,"hooks":null,"annotations":null,"windows":{},
            "process":{"user":{"uid":0,"gid":0,"username":"root"},"args":null,"env":null,"cwd":"/","rlimits":null},
            "linux":{"namespaces":null,"resources":{"devices":null,"memory":{"kernel":5}},"seccomp":null}}"#;
        let spec: Spec = serde_json::from_str(text).unwrap();
        assert_eq!((spec.mounts, spec.hooks), (None, None));
        let resources = spec.linux.unwrap().resources.unwrap();
        assert_eq!((resources.devices, resources.memory), (None, Some(LinuxMemory::default())));
    }

    #[test]
    fn what_is_no_value_is_an_error_with_its_place() {
        let error = |change: &dyn Fn(&mut Value)| {
            let mut spec = whole();
            change(&mut spec);
            serde_json::from_str::<Spec>(&spec.to_string()).unwrap_err().to_string()
        };
        let limit = error(&|spec| spec["process"]["rlimits"][0]["type"] = "RLIMIT_FUN".into());
        assert!(limit.contains("RLIMIT_FUN") && limit.contains("column"), "{limit}");
        assert!(error(&|spec| spec["linux"]["namespaces"][0]["type"] = "moon".into()).contains("moon"));
        assert!(error(&|spec| spec["process"]["cwd"] = 1.into()).contains("integer"));
    }
}
