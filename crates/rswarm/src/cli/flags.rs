//! The flags of `run` and `create`: Docker's, letter for letter.

use clap::{ArgAction, Args};
use std::path::PathBuf;

/// `rswarm run`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct RunArgs {
    /// Print the container's id and leave it running.
    #[arg(short, long)]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) container: CreateArgs,
}

/// `rswarm create`.
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
    Always,
    #[default]
    Missing,
    Never,
}

#[derive(Debug, Args)]
pub(crate) struct ContainerFlags {
    /// Print help.
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,

    // ---- streams and life ----
    /// Keep standard input open.
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give it a terminal.
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Remove it when it ends.
    #[arg(long)]
    pub(crate) rm: bool,
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Write its id to this file, which must not be there yet.
    #[arg(long, value_name = "FILE")]
    pub(crate) cidfile: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t)]
    pub(crate) pull: Pull,
    /// `no`, `on-failure`, `on-failure:3`, `always`, `unless-stopped`.
    #[arg(long, value_name = "POLICY")]
    pub(crate) restart: Option<String>,
    /// Run a small first process that reaps orphans and passes signals on.
    #[arg(long)]
    pub(crate) init: bool,
    #[arg(long, value_name = "SIGNAL")]
    pub(crate) stop_signal: Option<String>,
    /// Until it is killed. *Unit:* seconds.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) stop_timeout: Option<i64>,

    // ---- what it is ----
    /// `KEY=VALUE`, or `KEY` for the value it has here.
    #[arg(short, long)]
    pub(crate) env: Vec<String>,
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    #[arg(short, long)]
    pub(crate) label: Vec<String>,
    #[arg(long, value_name = "FILE")]
    pub(crate) label_file: Vec<PathBuf>,
    #[arg(long)]
    pub(crate) annotation: Vec<String>,
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    #[arg(long)]
    pub(crate) group_add: Vec<String>,
    #[arg(short, long)]
    pub(crate) workdir: Option<String>,
    #[arg(long)]
    pub(crate) entrypoint: Option<String>,
    #[arg(short = 'h', long)]
    pub(crate) hostname: Option<String>,
    #[arg(long)]
    pub(crate) domainname: Option<String>,
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
    #[arg(long)]
    pub(crate) volumes_from: Vec<String>,
    #[arg(long)]
    pub(crate) read_only: bool,
    /// E.g. `128m`.
    #[arg(long)]
    pub(crate) shm_size: Option<String>,

    // ---- network ----
    #[arg(long, alias = "net")]
    pub(crate) network: Option<String>,
    #[arg(long, alias = "net-alias")]
    pub(crate) network_alias: Vec<String>,
    #[arg(long)]
    pub(crate) ip: Option<String>,
    #[arg(long)]
    pub(crate) ip6: Option<String>,
    #[arg(long)]
    pub(crate) mac_address: Option<String>,
    /// `8080:80`, `127.0.0.1:8080:80/udp`, `8000-8010:80-90`, `80`.
    #[arg(short, long)]
    pub(crate) publish: Vec<String>,
    /// Publish every exposed port.
    #[arg(short = 'P', long)]
    pub(crate) publish_all: bool,
    #[arg(long)]
    pub(crate) expose: Vec<String>,
    #[arg(long)]
    pub(crate) link: Vec<String>,
    #[arg(long)]
    pub(crate) dns: Vec<String>,
    #[arg(long)]
    pub(crate) dns_search: Vec<String>,
    #[arg(long)]
    pub(crate) dns_option: Vec<String>,
    /// `name:address`; the address may be `host-gateway`.
    #[arg(long)]
    pub(crate) add_host: Vec<String>,

    // ---- rights ----
    #[arg(long)]
    pub(crate) privileged: bool,
    #[arg(long)]
    pub(crate) cap_add: Vec<String>,
    #[arg(long)]
    pub(crate) cap_drop: Vec<String>,
    /// `/dev/here:/dev/there:rwm`, or a vendor's device: `nvidia.com/gpu=0`.
    #[arg(long)]
    pub(crate) device: Vec<String>,
    /// `all`, a number, `device=ID`; `driver=NAME` and `capabilities=NAME` besides, after commas.
    #[arg(long)]
    pub(crate) gpus: Vec<String>,
    #[arg(long)]
    pub(crate) device_cgroup_rule: Vec<String>,
    /// `no-new-privileges`, `seccomp=FILE`, `seccomp=unconfined`, ...
    #[arg(long)]
    pub(crate) security_opt: Vec<String>,
    #[arg(long)]
    pub(crate) sysctl: Vec<String>,
    #[arg(long)]
    pub(crate) pid: Option<String>,
    #[arg(long)]
    pub(crate) ipc: Option<String>,
    #[arg(long)]
    pub(crate) uts: Option<String>,
    #[arg(long)]
    pub(crate) userns: Option<String>,
    #[arg(long)]
    pub(crate) cgroupns: Option<String>,
    #[arg(long)]
    pub(crate) cgroup_parent: Option<String>,

    // ---- limits ----
    #[command(flatten)]
    pub(crate) limits: LimitFlags,
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) memory_swappiness: Option<i64>,
    #[arg(long)]
    pub(crate) oom_kill_disable: bool,
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) oom_score_adj: Option<i32>,
    /// `nofile=1024:2048`.
    #[arg(long)]
    pub(crate) ulimit: Vec<String>,

    // ---- health and logs ----
    #[arg(long)]
    pub(crate) health_cmd: Option<String>,
    #[arg(long)]
    pub(crate) health_interval: Option<String>,
    #[arg(long)]
    pub(crate) health_timeout: Option<String>,
    #[arg(long)]
    pub(crate) health_start_period: Option<String>,
    #[arg(long)]
    pub(crate) health_start_interval: Option<String>,
    #[arg(long)]
    pub(crate) health_retries: Option<i64>,
    #[arg(long)]
    pub(crate) no_healthcheck: bool,
    #[arg(long)]
    pub(crate) log_driver: Option<String>,
    #[arg(long)]
    pub(crate) log_opt: Vec<String>,
}

/// Limits of a container, also of one that runs.
#[derive(Debug, Args)]
pub(crate) struct LimitFlags {
    #[arg(short, long)]
    pub(crate) memory: Option<String>,
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<String>,
    #[arg(long)]
    pub(crate) memory_reservation: Option<String>,
    /// E.g. `1.5`.
    #[arg(long)]
    pub(crate) cpus: Option<String>,
    #[arg(short, long)]
    pub(crate) cpu_shares: Option<i64>,
    #[arg(long)]
    pub(crate) cpu_period: Option<i64>,
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) cpu_quota: Option<i64>,
    #[arg(long)]
    pub(crate) cpuset_cpus: Option<String>,
    #[arg(long)]
    pub(crate) cpuset_mems: Option<String>,
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) pids_limit: Option<i64>,
    #[arg(long)]
    pub(crate) blkio_weight: Option<u16>,
}
