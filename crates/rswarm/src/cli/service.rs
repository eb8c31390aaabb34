//! The flags of `service create` and `service update`: Docker's, letter for letter, and a deadline of ours.

use super::parse_duration;
use clap::Args;
use std::{path::PathBuf, time::Duration};

// `rswarm service create`.
#[derive(Debug, Args)]
pub(crate) struct ServiceCreate {
    /// Name of the service; a chosen one by default.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// So many tasks as --replicas says, or one on each node; of a job they end, and are not started again.
    #[arg(
        long, default_value = "replicated",
        value_parser = ["replicated", "global", "replicated-job", "global-job"]
    )]
    pub(crate) mode: String,
    /// Variable of its processes: KEY=VALUE, or KEY for the value it has here; may be repeated.
    #[arg(short, long)]
    pub(crate) env: Vec<String>,
    /// File of such lines; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// `[PUBLISHED:]TARGET[/PROTOCOL]`, or published=8080,target=80,protocol=tcp,mode=host; may be repeated.
    #[arg(short, long)]
    pub(crate) publish: Vec<String>,
    /// Network that its tasks are on, or name=NETWORK,alias=NAME; may be repeated.
    #[arg(long)]
    pub(crate) network: Vec<String>,
    /// Where its tasks may run, e.g. node.labels.disk==ssd; may be repeated.
    #[arg(long)]
    pub(crate) constraint: Vec<String>,
    /// Spread its tasks evenly, e.g. spread=node.labels.rack; may be repeated.
    #[arg(long, value_name = "PREFERENCE")]
    pub(crate) placement_pref: Vec<String>,
    /// Label of the service: KEY=VALUE; may be repeated.
    #[arg(short, long)]
    pub(crate) label: Vec<String>,
    /// Label of its containers: KEY=VALUE; may be repeated.
    #[arg(long)]
    pub(crate) container_label: Vec<String>,
    /// `type=volume,source=name,target=/there,readonly`, and so on; may be repeated.
    #[arg(long)]
    pub(crate) mount: Vec<String>,
    /// Secret that its tasks can read, or source=NAME,target=FILE,mode=0400; may be repeated.
    #[arg(long)]
    pub(crate) secret: Vec<String>,
    /// Config that its tasks have, or source=NAME,target=/FILE; may be repeated.
    #[arg(long)]
    pub(crate) config: Vec<String>,
    /// Server that its tasks ask for names; may be repeated.
    #[arg(long)]
    pub(crate) dns: Vec<String>,
    /// Option of their resolv.conf; may be repeated.
    #[arg(long)]
    pub(crate) dns_option: Vec<String>,
    /// Domain that names are looked for in; may be repeated.
    #[arg(long)]
    pub(crate) dns_search: Vec<String>,
    /// Name that its tasks know: NAME:ADDRESS; may be repeated.
    // Docker's `--host`, which here says which daemon.
    #[arg(long, value_name = "NAME:ADDRESS")]
    pub(crate) add_host: Vec<String>,
    /// What each task has of its node for itself: KIND=COUNT; may be repeated.
    #[arg(long, value_name = "KIND=COUNT")]
    pub(crate) generic_resource: Vec<String>,
    /// One more group of its processes, by name or number; may be repeated.
    #[arg(long)]
    pub(crate) group: Vec<String>,
    /// `KEY=VALUE`, of a namespace that is its own; may be repeated.
    #[arg(long)]
    pub(crate) sysctl: Vec<String>,
    /// `nofile=1024:2048`; may be repeated.
    #[arg(long)]
    pub(crate) ulimit: Vec<String>,
    #[command(flatten)]
    pub(crate) flags: ServiceFlags,
    /// The image.
    pub(crate) image: String,
    /// What is run in it, instead of what the image says.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

// `rswarm service update`.
#[derive(Debug, Args)]
pub(crate) struct ServiceUpdate {
    /// Name or id of the service.
    pub(crate) service: String,
    /// Another image.
    #[arg(long)]
    pub(crate) image: Option<String>,
    /// What is run in it, as one text.
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    pub(crate) args: Option<String>,
    /// Replace the tasks although nothing else changes.
    #[arg(long)]
    pub(crate) force: bool,
    /// Put the spec before the last change back, and change nothing else.
    #[arg(long)]
    pub(crate) rollback: bool,
    /// Variable to set: KEY=VALUE; may be repeated.
    #[arg(long)]
    pub(crate) env_add: Vec<String>,
    /// Variable to take away: KEY; may be repeated.
    #[arg(long)]
    pub(crate) env_rm: Vec<String>,
    /// Port to publish, in the words of `service create --publish`; may be repeated.
    #[arg(long)]
    pub(crate) publish_add: Vec<String>,
    /// Port to publish no more, by what it is in the container: 80 or 80/udp; may be repeated.
    #[arg(long)]
    pub(crate) publish_rm: Vec<String>,
    /// Network to be on; may be repeated.
    #[arg(long)]
    pub(crate) network_add: Vec<String>,
    /// Network to leave; may be repeated.
    #[arg(long)]
    pub(crate) network_rm: Vec<String>,
    /// Constraint to add; may be repeated.
    #[arg(long)]
    pub(crate) constraint_add: Vec<String>,
    /// Constraint to take away; may be repeated.
    #[arg(long)]
    pub(crate) constraint_rm: Vec<String>,
    /// Preference to add: spread=node.labels.rack; may be repeated.
    #[arg(long, value_name = "PREFERENCE")]
    pub(crate) placement_pref_add: Vec<String>,
    /// Preference to take away; may be repeated.
    #[arg(long, value_name = "PREFERENCE")]
    pub(crate) placement_pref_rm: Vec<String>,
    /// Label of the service to set: KEY=VALUE; may be repeated.
    #[arg(long)]
    pub(crate) label_add: Vec<String>,
    /// Label of the service to take away: KEY; may be repeated.
    #[arg(long)]
    pub(crate) label_rm: Vec<String>,
    /// Label of its containers to set: KEY=VALUE; may be repeated.
    #[arg(long)]
    pub(crate) container_label_add: Vec<String>,
    /// Label of its containers to take away: KEY; may be repeated.
    #[arg(long)]
    pub(crate) container_label_rm: Vec<String>,
    /// Mount to add, or to have in place of what is at its target; may be repeated.
    #[arg(long)]
    pub(crate) mount_add: Vec<String>,
    /// Mount to take away, by its target; may be repeated.
    #[arg(long)]
    pub(crate) mount_rm: Vec<String>,
    /// Secret to give to its tasks; may be repeated.
    #[arg(long)]
    pub(crate) secret_add: Vec<String>,
    /// Secret to take from them, by its name; may be repeated.
    #[arg(long)]
    pub(crate) secret_rm: Vec<String>,
    /// Config to give to its tasks; may be repeated.
    #[arg(long)]
    pub(crate) config_add: Vec<String>,
    /// Config to take from them, by its name; may be repeated.
    #[arg(long)]
    pub(crate) config_rm: Vec<String>,
    /// Server to ask for names; may be repeated.
    #[arg(long)]
    pub(crate) dns_add: Vec<String>,
    /// Server to ask no more; may be repeated.
    #[arg(long)]
    pub(crate) dns_rm: Vec<String>,
    /// Option of resolv.conf to add; may be repeated.
    #[arg(long)]
    pub(crate) dns_option_add: Vec<String>,
    /// Option of resolv.conf to take away; may be repeated.
    #[arg(long)]
    pub(crate) dns_option_rm: Vec<String>,
    /// Domain to look for names in; may be repeated.
    #[arg(long)]
    pub(crate) dns_search_add: Vec<String>,
    /// Domain to look in no more; may be repeated.
    #[arg(long)]
    pub(crate) dns_search_rm: Vec<String>,
    /// Name that its tasks know: NAME:ADDRESS; may be repeated.
    #[arg(long, value_name = "NAME:ADDRESS")]
    pub(crate) host_add: Vec<String>,
    /// Name that they know no more: NAME or NAME:ADDRESS; may be repeated.
    #[arg(long, value_name = "NAME[:ADDRESS]")]
    pub(crate) host_rm: Vec<String>,
    /// What each task has of its node for itself: KIND=COUNT; may be repeated.
    #[arg(long, value_name = "KIND=COUNT")]
    pub(crate) generic_resource_add: Vec<String>,
    /// What each task no more has of its node: KIND; may be repeated.
    #[arg(long, value_name = "KIND")]
    pub(crate) generic_resource_rm: Vec<String>,
    /// Group to add to its processes; may be repeated.
    #[arg(long)]
    pub(crate) group_add: Vec<String>,
    /// Group to take from them; may be repeated.
    #[arg(long)]
    pub(crate) group_rm: Vec<String>,
    /// Parameter of the kernel to set: KEY=VALUE; may be repeated.
    #[arg(long)]
    pub(crate) sysctl_add: Vec<String>,
    /// Parameter of the kernel to leave as it is: KEY; may be repeated.
    #[arg(long)]
    pub(crate) sysctl_rm: Vec<String>,
    /// Limit of its processes to set: nofile=1024:2048; may be repeated.
    #[arg(long)]
    pub(crate) ulimit_add: Vec<String>,
    /// Limit of its processes to take away: NAME; may be repeated.
    #[arg(long)]
    pub(crate) ulimit_rm: Vec<String>,
    #[command(flatten)]
    pub(crate) flags: ServiceFlags,
}

// What can be said when a service is made and when it is changed: what is not said stays as it is.
#[derive(Debug, Args)]
pub(crate) struct ServiceFlags {
    /// How many tasks it has; of a job: how many shall end well.
    #[arg(long)]
    pub(crate) replicas: Option<u64>,
    /// No more of them on one node; 0 is as many as fit.
    #[arg(long, value_name = "COUNT")]
    pub(crate) replicas_max_per_node: Option<u64>,
    /// Tasks of a job that run at once; --replicas by default.
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_concurrent: Option<u64>,
    /// Give the nodes that will run it your account at the registry of its image.
    #[arg(long)]
    pub(crate) with_registry_auth: bool,
    /// Take the image as it is named: each node asks the registry for itself.
    #[arg(long)]
    pub(crate) no_resolve_image: bool,
    /// One address for all tasks (vip), or one of each (dnsrr).
    #[arg(long, value_parser = ["vip", "dnsrr"])]
    pub(crate) endpoint_mode: Option<String>,
    /// The program, instead of the image's entrypoint, as one text.
    #[arg(long, value_name = "COMMAND")]
    pub(crate) entrypoint: Option<String>,
    /// Who its process runs as: `USER` or `UID`, either with `:GROUP`.
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// Folder in the container that it begins in.
    #[arg(short, long)]
    pub(crate) workdir: Option<String>,
    /// The name it has for itself.
    #[arg(long)]
    pub(crate) hostname: Option<String>,
    /// Give it a terminal.
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) tty: Option<bool>,
    /// Run a small first process that reaps orphans and passes signals on.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) init: Option<bool>,
    /// Nothing in its root file system can be changed.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) read_only: Option<bool>,
    /// What it is told to end with, instead of what the image says.
    #[arg(long, value_name = "SIGNAL")]
    pub(crate) stop_signal: Option<String>,
    /// How long it has until it is killed, e.g. 10s.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) stop_grace_period: Option<Duration>,
    /// Capability it has besides, e.g. NET_ADMIN, or ALL; may be repeated.
    #[arg(long)]
    pub(crate) cap_add: Vec<String>,
    /// Capability it does not have, e.g. CHOWN, or ALL; may be repeated.
    #[arg(long)]
    pub(crate) cap_drop: Vec<String>,
    /// How readily the kernel kills it when memory is short, -1000 to 1000.
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) oom_score_adj: Option<i64>,
    /// Processors a task may use, e.g. 1.5; 0 for no bound.
    #[arg(long, value_name = "CPUS")]
    pub(crate) limit_cpu: Option<String>,
    /// Most memory a task may have, e.g. 512m; 0 for no bound.
    #[arg(long, value_name = "SIZE")]
    pub(crate) limit_memory: Option<String>,
    /// Most processes and threads of a task; 0 for no bound.
    #[arg(long, value_name = "COUNT")]
    pub(crate) limit_pids: Option<i64>,
    /// Processors that a node must have left for a task, e.g. 0.5.
    #[arg(long, value_name = "CPUS")]
    pub(crate) reserve_cpu: Option<String>,
    /// Memory that a node must have left for a task, e.g. 256m.
    #[arg(long, value_name = "SIZE")]
    pub(crate) reserve_memory: Option<String>,
    /// When a task that has ended is replaced.
    #[arg(long, value_parser = ["none", "on-failure", "any"])]
    pub(crate) restart_condition: Option<String>,
    /// Time before that.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) restart_delay: Option<Duration>,
    /// So often and no more.
    #[arg(long, value_name = "COUNT")]
    pub(crate) restart_max_attempts: Option<u64>,
    /// Time in which these are counted.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) restart_window: Option<Duration>,
    /// Tasks that are replaced at once by an update; 0 for all.
    #[arg(long, value_name = "COUNT")]
    pub(crate) update_parallelism: Option<u64>,
    /// Time between two of these steps.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) update_delay: Option<Duration>,
    /// What becomes of an update whose tasks fail.
    #[arg(long, value_parser = ["pause", "continue", "rollback"])]
    pub(crate) update_failure_action: Option<String>,
    /// Share of tasks that may fail before that.
    #[arg(long, value_name = "RATIO")]
    pub(crate) update_max_failure_ratio: Option<f64>,
    /// How long a new task is looked at.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) update_monitor: Option<Duration>,
    /// Whether the new task starts before the old one stops.
    #[arg(long, value_parser = ["start-first", "stop-first"])]
    pub(crate) update_order: Option<String>,
    /// An update whose task no node has taken up for this long has failed (like 90s or 5m); else after 10 minutes.
    #[arg(long, value_name = "DURATION", value_parser = parse_progress_deadline)]
    pub(crate) update_progress_deadline: Option<Duration>,
    /// Tasks that are replaced at once by a rollback; 0 for all.
    #[arg(long, value_name = "COUNT")]
    pub(crate) rollback_parallelism: Option<u64>,
    /// Time between two of these steps.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) rollback_delay: Option<Duration>,
    /// What becomes of a rollback whose tasks fail.
    #[arg(long, value_parser = ["pause", "continue"])]
    pub(crate) rollback_failure_action: Option<String>,
    /// Share of tasks that may fail before that.
    #[arg(long, value_name = "RATIO")]
    pub(crate) rollback_max_failure_ratio: Option<f64>,
    /// How long a task that was put back is looked at.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) rollback_monitor: Option<Duration>,
    /// Whether the old task starts before the new one stops.
    #[arg(long, value_parser = ["start-first", "stop-first"])]
    pub(crate) rollback_order: Option<String>,
    /// What says whether it is well, run by its shell.
    #[arg(long, value_name = "COMMAND")]
    pub(crate) health_cmd: Option<String>,
    /// Time between two of these, e.g. 30s.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) health_interval: Option<Duration>,
    /// How long one may take, e.g. 5s.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) health_timeout: Option<Duration>,
    /// After its start failures do not count for so long, e.g. 1m.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) health_start_period: Option<Duration>,
    /// Time between two in that period, e.g. 2s.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) health_start_interval: Option<Duration>,
    /// So many failures in a row, and it is unhealthy.
    #[arg(long, value_name = "COUNT")]
    pub(crate) health_retries: Option<i64>,
    /// Do without what the image says of its health.
    #[arg(long)]
    pub(crate) no_healthcheck: bool,
    /// Who keeps its output; the settings of each node say which by default.
    #[arg(long, value_name = "DRIVER")]
    pub(crate) log_driver: Option<String>,
    /// `KEY=VALUE` for the log driver; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", requires = "log_driver")]
    pub(crate) log_opt: Vec<String>,
    /// Tell nothing of how it comes up.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Do not wait until it runs.
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// How long to wait until it runs, e.g. 90s or 10m.
    #[arg(long, default_value = "10m", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
}

/// Reads a duration that is longer than nothing.
///
/// # Errors
/// It is no duration, or nothing.
fn parse_progress_deadline(text: &str) -> Result<Duration, String> {
    let deadline = parse_duration(text)?;
    if deadline.is_zero() { Err("must be longer than nothing".to_owned()) } else { Ok(deadline) }
}
