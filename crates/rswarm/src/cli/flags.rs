//! The flags of `run` and `create`: Docker's, letter for letter.

use clap::{ArgAction, Args};
use std::path::PathBuf;

// `rswarm run`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct RunArgs {
    /// Print the container's id and leave it running.
    #[arg(short, long, conflicts_with = "attach")]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) signals: SignalFlags,
    #[command(flatten)]
    pub(crate) leave: LeaveFlags,
    #[command(flatten)]
    pub(crate) container: CreateArgs,
}

// How somebody in front of a terminal leaves what runs there.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct LeaveFlags {
    /// Keys at which one leaves its terminal, and it goes on, e.g. ctrl-a,d; else `detachKeys` of Docker's config.json,
    /// else ctrl-p,ctrl-q.
    #[arg(long, value_name = "KEYS")]
    pub(crate) detach_keys: Option<String>,
}

// What becomes of signals to a command that shows a container's streams.
#[derive(Debug, Args)]
pub(crate) struct SignalFlags {
    /// Pass signals to this command on to the container, as without this flag, unless it has a terminal.
    #[arg(
        long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_name = "BOOL"
    )]
    pub(crate) sig_proxy: bool,
}

// `rswarm create`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    pub(crate) flags: ContainerFlags,
    /// The image, then what is run in it instead of what the image says.
    #[arg(required = true, trailing_var_arg = true, value_name = "IMAGE [COMMAND]")]
    words: Vec<String>,
}

impl CreateArgs {
    pub(crate) fn image(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    pub(crate) fn command(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }
}

/// When the image is pulled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Pull {
    /// Each time.
    Always,
    /// If it is not here.
    #[default]
    Missing,
    /// What is not here is an error.
    Never,
}

#[derive(Debug, Args)]
pub(crate) struct ContainerFlags {
    /// Print help.
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,

    // ---- streams and life ----
    /// Join this one of its streams alone: stdin, stdout or stderr; may be repeated.
    #[arg(short, long, value_name = "STREAM", value_parser = ["stdin", "stdout", "stderr"])]
    pub(crate) attach: Vec<String>,
    /// Do not show how the image is pulled.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// os/architecture[/variant] of the image; else DOCKER_DEFAULT_PLATFORM.
    #[arg(long, env = "DOCKER_DEFAULT_PLATFORM", hide_env = true)]
    pub(crate) platform: Option<String>,
    /// Keep standard input open.
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give it a terminal.
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Remove it when it ends.
    #[arg(long)]
    pub(crate) rm: bool,
    /// Its name; a chosen one by default.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Write its id to this file, which must not be there yet.
    #[arg(long, value_name = "FILE")]
    pub(crate) cidfile: Option<PathBuf>,
    /// When the image is pulled.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) pull: Pull,
    /// `no`, `on-failure`, `on-failure:3`, `always`, `unless-stopped`.
    #[arg(long, value_name = "POLICY")]
    pub(crate) restart: Option<String>,
    /// Run a small first process that reaps orphans and passes signals on.
    #[arg(long)]
    pub(crate) init: bool,
    /// What it is told to end with, instead of what the image says.
    #[arg(long, value_name = "SIGNAL")]
    pub(crate) stop_signal: Option<String>,
    /// Until it is killed. *Unit:* seconds.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) stop_timeout: Option<i64>,

    // ---- what it is ----
    /// `KEY=VALUE`, or `KEY` for the value it has here.
    #[arg(short, long)]
    pub(crate) env: Vec<String>,
    /// File of `KEY=VALUE` lines; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// `KEY=VALUE`; may be repeated.
    #[arg(short, long)]
    pub(crate) label: Vec<String>,
    /// File of labels, one a line; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub(crate) label_file: Vec<PathBuf>,
    /// `KEY=VALUE` for the OCI runtime; may be repeated.
    #[arg(long)]
    pub(crate) annotation: Vec<String>,
    /// Who its process runs as: `USER` or `UID`, either with `:GROUP`.
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// One more group of its process, by name or number; may be repeated.
    #[arg(long)]
    pub(crate) group_add: Vec<String>,
    /// Folder in the container that it begins in.
    #[arg(short, long)]
    pub(crate) workdir: Option<String>,
    /// The program, instead of the image's entrypoint.
    #[arg(long)]
    pub(crate) entrypoint: Option<String>,
    /// The name it has for itself; its id by default.
    #[arg(short = 'h', long)]
    pub(crate) hostname: Option<String>,
    /// The domain it is in, for itself.
    #[arg(long)]
    pub(crate) domainname: Option<String>,
    /// The OCI runtime, by the name the daemon's settings give it.
    #[arg(long)]
    pub(crate) runtime: Option<String>,

    // ---- files ----
    /// `/here:/there`, `name:/there`, `/there`, each with `:ro` and the like behind.
    #[arg(short, long)]
    pub(crate) volume: Vec<String>,
    /// `type=volume,source=name,target=/there,readonly`, and so on.
    #[arg(long)]
    pub(crate) mount: Vec<String>,
    /// `/there` or `/there:size=64m,mode=1777`.
    #[arg(long)]
    pub(crate) tmpfs: Vec<String>,
    /// Have the volumes of another container, `:ro` behind it if only to read; may be repeated.
    #[arg(long)]
    pub(crate) volumes_from: Vec<String>,
    /// Nothing in its root file system can be changed.
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Who keeps the volumes that it is the first to name.
    #[arg(long, value_name = "DRIVER")]
    pub(crate) volume_driver: Option<String>,
    /// `KEY=VALUE` for what keeps its root file system; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) storage_opt: Vec<String>,

    // ---- network ----
    /// Network it is on: a name, `bridge`, `host`, `none` or `container:NAME`.
    #[arg(long, alias = "net")]
    pub(crate) network: Option<String>,
    /// One more name by which others on its network find it; may be repeated.
    #[arg(long, alias = "net-alias")]
    pub(crate) network_alias: Vec<String>,
    /// Its IPv4 address there.
    #[arg(long)]
    pub(crate) ip: Option<String>,
    /// Its IPv6 address there.
    #[arg(long)]
    pub(crate) ip6: Option<String>,
    /// Link-local address there; may be repeated.
    #[arg(long)]
    pub(crate) link_local_ip: Vec<String>,
    /// Its hardware address there, e.g. 92:d0:c6:0a:29:33.
    #[arg(long)]
    pub(crate) mac_address: Option<String>,
    /// `8080:80`, `127.0.0.1:8080:80/udp`, `8000-8010:80-90`, `80`.
    #[arg(short, long)]
    pub(crate) publish: Vec<String>,
    /// Publish every exposed port.
    #[arg(short = 'P', long)]
    pub(crate) publish_all: bool,
    /// Port that it serves, which `--publish-all` publishes; may be repeated.
    #[arg(long)]
    pub(crate) expose: Vec<String>,
    /// What it calls another container, as `CONTAINER:ALIAS`; may be repeated.
    #[arg(long)]
    pub(crate) link: Vec<String>,
    /// Server that it asks for names; may be repeated.
    #[arg(long)]
    pub(crate) dns: Vec<String>,
    /// Domain that names are looked for in; may be repeated.
    #[arg(long)]
    pub(crate) dns_search: Vec<String>,
    /// Option of its resolv.conf; may be repeated.
    #[arg(long)]
    pub(crate) dns_option: Vec<String>,
    /// `name:address`; the address may be `host-gateway`.
    #[arg(long)]
    pub(crate) add_host: Vec<String>,

    // ---- rights ----
    /// Give it all rights: nearly as good as root on this host.
    #[arg(long)]
    pub(crate) privileged: bool,
    /// Capability it has besides, e.g. NET_ADMIN, or ALL; may be repeated.
    #[arg(long)]
    pub(crate) cap_add: Vec<String>,
    /// Capability it does not have, e.g. CHOWN, or ALL; may be repeated.
    #[arg(long)]
    pub(crate) cap_drop: Vec<String>,
    /// `/dev/here:/dev/there:rwm`, or a vendor's device: `nvidia.com/gpu=0`.
    #[arg(long)]
    pub(crate) device: Vec<String>,
    /// `all`, a number, `device=ID`; `driver=NAME` and `capabilities=NAME` besides, after commas.
    #[arg(long)]
    pub(crate) gpus: Vec<String>,
    /// Rule of the devices it may use, e.g. 'c 13:* rwm'; may be repeated.
    #[arg(long)]
    pub(crate) device_cgroup_rule: Vec<String>,
    /// `no-new-privileges`, `seccomp=FILE`, `seccomp=unconfined`, ...
    #[arg(long)]
    pub(crate) security_opt: Vec<String>,
    /// `KEY=VALUE`, of a namespace that is its own; may be repeated.
    #[arg(long)]
    pub(crate) sysctl: Vec<String>,
    /// Processes it sees: its own, `host`, or `container:NAME`.
    #[arg(long)]
    pub(crate) pid: Option<String>,
    /// Shared memory it sees: `private`, `shareable`, `host`, `none` or `container:NAME`.
    #[arg(long)]
    pub(crate) ipc: Option<String>,
    /// `host` to have this host's name.
    #[arg(long)]
    pub(crate) uts: Option<String>,
    /// `host` or `private`: whose user ids it has, other than the daemon says.
    #[arg(long)]
    pub(crate) userns: Option<String>,
    /// `host` or `private`: whether it sees the cgroups outside.
    #[arg(long)]
    pub(crate) cgroupns: Option<String>,
    /// Cgroup below which its own is made.
    #[arg(long)]
    pub(crate) cgroup_parent: Option<String>,

    // ---- limits ----
    #[command(flatten)]
    pub(crate) limits: LimitFlags,
    /// Its share of one busy disk, 10 to 1000: /dev/sda:500; may be repeated.
    #[arg(long, value_name = "DEVICE:WEIGHT")]
    pub(crate) blkio_weight_device: Vec<String>,
    /// Most that it reads of a disk in a second: /dev/sda:1mb; may be repeated.
    #[arg(long, value_name = "DEVICE:SIZE")]
    pub(crate) device_read_bps: Vec<String>,
    /// Most that it writes to a disk in a second: /dev/sda:1mb; may be repeated.
    #[arg(long, value_name = "DEVICE:SIZE")]
    pub(crate) device_write_bps: Vec<String>,
    /// Most times that it reads of a disk in a second: /dev/sda:1000; may be repeated.
    #[arg(long, value_name = "DEVICE:COUNT")]
    pub(crate) device_read_iops: Vec<String>,
    /// Most times that it writes to a disk in a second: /dev/sda:1000; may be repeated.
    #[arg(long, value_name = "DEVICE:COUNT")]
    pub(crate) device_write_iops: Vec<String>,
    /// How readily its memory is swapped out, 0 to 100.
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) memory_swappiness: Option<i64>,
    /// Let it wait for memory instead of killing a process of it.
    #[arg(long)]
    pub(crate) oom_kill_disable: bool,
    /// How readily the kernel kills it when memory is short, -1000 to 1000.
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) oom_score_adj: Option<i32>,
    #[command(flatten)]
    pub(crate) start: StartFlags,

    // ---- health and logs ----
    /// What says whether it is well, run by its shell.
    #[arg(long)]
    pub(crate) health_cmd: Option<String>,
    /// Time between two of these, e.g. 30s.
    #[arg(long)]
    pub(crate) health_interval: Option<String>,
    /// How long one may take, e.g. 5s.
    #[arg(long)]
    pub(crate) health_timeout: Option<String>,
    /// After its start failures do not count for so long, e.g. 1m.
    #[arg(long)]
    pub(crate) health_start_period: Option<String>,
    /// Time between two in that period, e.g. 2s.
    #[arg(long)]
    pub(crate) health_start_interval: Option<String>,
    /// So many failures in a row, and it is unhealthy.
    #[arg(long)]
    pub(crate) health_retries: Option<i64>,
    /// Do without what the image says of its health.
    #[arg(long)]
    pub(crate) no_healthcheck: bool,
    /// Who keeps its output; the daemon's settings say which by default.
    #[arg(long)]
    pub(crate) log_driver: Option<String>,
    /// `KEY=VALUE` for the log driver; may be repeated.
    #[arg(long)]
    pub(crate) log_opt: Vec<String>,
}

// What the processes of a container may take, and those of RUN in a build.
#[derive(Debug, Default, Args)]
pub(crate) struct ResourceFlags {
    /// Most memory for its processes, e.g. 512m.
    #[arg(short, long)]
    pub(crate) memory: Option<String>,
    /// Memory and swap together, e.g. 1g; -1 for no bound of swap.
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<String>,
    /// Its share of busy processors; others have 1024.
    #[arg(short, long)]
    pub(crate) cpu_shares: Option<i64>,
    /// Period of --cpu-quota. *Unit:* microseconds.
    #[arg(long)]
    pub(crate) cpu_period: Option<i64>,
    /// Processor time for each period; -1 for no bound. *Unit:* microseconds.
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) cpu_quota: Option<i64>,
    /// Processors to use, e.g. 0-2,4.
    #[arg(long)]
    pub(crate) cpuset_cpus: Option<String>,
    /// Memory nodes to use, e.g. 0,1.
    #[arg(long)]
    pub(crate) cpuset_mems: Option<String>,
}

// What processes of a container, and RUN of a build, begin with and keep.
#[derive(Debug, Default, Args)]
pub(crate) struct StartFlags {
    /// Size of `/dev/shm`, e.g. 128m.
    #[arg(long)]
    pub(crate) shm_size: Option<String>,
    /// Limit of each process: nofile=1024:2048; may be repeated.
    #[arg(long)]
    pub(crate) ulimit: Vec<String>,
}

// Limits of a container, also of one that runs.
#[derive(Debug, Args)]
pub(crate) struct LimitFlags {
    #[command(flatten)]
    pub(crate) resources: ResourceFlags,
    /// Memory it keeps when memory is short, e.g. 256m.
    #[arg(long)]
    pub(crate) memory_reservation: Option<String>,
    /// E.g. `1.5`.
    #[arg(long)]
    pub(crate) cpus: Option<String>,
    /// Most processes and threads it may have; -1 for no bound.
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) pids_limit: Option<i64>,
    /// Its share of busy disks, 10 to 1000.
    #[arg(long)]
    pub(crate) blkio_weight: Option<u16>,
}
