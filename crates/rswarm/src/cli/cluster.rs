//! What can be typed of the swarm: its nodes, services and stacks.

use super::{InspectArgs, ListArgs, Names, ServiceCreate, ServiceLogs, ServiceUpdate, parse_duration};
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct DeployArgs {
    /// Compose files, merged in order, or folders with one; `compose.yaml` and its siblings by default; - for standard
    /// input.
    pub(crate) files: Vec<PathBuf>,
    /// The same, as Docker Compose has it.
    #[arg(short, long)]
    pub(crate) file: Vec<PathBuf>,
    /// Variables, instead of `.env`; may be repeated.
    #[arg(long)]
    pub(crate) env_file: Vec<PathBuf>,
    /// Have the services of a profile too; may be repeated, and * stands for all.
    #[arg(long)]
    pub(crate) profile: Vec<String>,
    /// Leave out what cannot be honoured, with a warning.
    #[arg(long)]
    pub(crate) lenient: bool,
    /// Name of the stack; else the file's `name:`, else its folder's.
    #[arg(long, value_name = "STACK")]
    pub(crate) name: Option<String>,
    /// Why it is deployed; shown in the stack's history and in the audit history.
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) message: Option<String>,
    /// Show what would change and where its tasks would go, and change nothing; exits with 2 if something would change,
    /// with 3 if some of it would not run.
    #[arg(long)]
    pub(crate) plan: bool,
    /// A plan that would run is a good end, whatever it changes: of `compose --dry-run`.
    #[arg(skip)]
    pub(crate) rehearsed: bool,
    /// How the plan is shown.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: PlanFormat,
    /// Do not ask.
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Leave a deploy that failed as it is; else the stack goes back to the revision before.
    #[arg(long)]
    pub(crate) no_rollback: bool,
    /// Do not wait until the services run.
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// How long to wait, e.g. 90s or 10m.
    #[arg(long, default_value = "10m", value_parser = parse_duration)]
    pub(crate) timeout: std::time::Duration,
    /// Remove services that the file no longer names.
    #[arg(long)]
    pub(crate) prune: bool,
    /// Give the nodes that will run them your accounts at the registries of the images.
    #[arg(long)]
    pub(crate) with_registry_auth: bool,
}

impl DeployArgs {
    /// A deploy that asks nobody.
    pub(crate) fn unattended(files: Vec<PathBuf>, timeout: std::time::Duration) -> Self {
        Self {
            files,
            timeout,
            yes: true,
            file: Vec::new(),
            env_file: Vec::new(),
            profile: Vec::new(),
            lenient: false,
            name: None,
            message: None,
            plan: false,
            rehearsed: false,
            format: PlanFormat::Text,
            no_rollback: false,
            detach: false,
            prune: false,
            with_registry_auth: false,
        }
    }
}

/// How a plan is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum PlanFormat {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct ScaleArgs {
    /// How many tasks each service shall have; several services at once.
    #[arg(required = true, value_name = "SERVICE=REPLICAS")]
    pub(crate) services: Vec<String>,
    /// Do not wait until the services run.
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// How long to wait until they run, e.g. 90s or 10m.
    #[arg(long, default_value = "10m", value_parser = parse_duration)]
    pub(crate) timeout: std::time::Duration,
}

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Swarm {
    /// Make a new swarm with this host as its first manager.
    Init(SwarmInit),
    /// Join a swarm.
    Join(SwarmJoin),
    /// Show or change the token hosts join with.
    JoinToken(JoinToken),
    /// Leave the swarm.
    Leave {
        /// Also when this is a manager.
        #[arg(short, long)]
        force: bool,
    },
    /// Open the state of a manager that restarted with autolock on; the key is read from standard input.
    Unlock,
    /// Show or change the key that unlocks managers.
    UnlockKey(UnlockKey),
    /// Show the root certificate, or change it.
    Ca(SwarmCa),
    /// Change the swarm's settings.
    Update(SwarmUpdate),
    /// Write the whole state of the swarm, with its keys and secrets, into a file.
    Backup(SwarmBackup),
    /// Make this host the one manager of the swarm that a backup holds.
    Restore(SwarmRestore),
    /// Go on with this manager alone after the majority was lost (Docker: init --force-new-cluster).
    Recover(SwarmRecover),
    /// Give this host another address in its swarm.
    Readdress(SwarmReaddress),
}

#[derive(Debug, Args)]
pub(crate) struct SwarmReaddress {
    /// Where other nodes reach this one from now on.
    #[arg(value_name = "ADDR")]
    pub(crate) advertise_addr: String,
    /// As before by default.
    #[arg(long)]
    pub(crate) listen_addr: Option<String>,
    /// ADDR by default.
    #[arg(long)]
    pub(crate) data_path_addr: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct SwarmBackup {
    /// The file, readable by you alone; standard output by default.
    #[arg(long, value_name = "FILE")]
    pub(crate) to: Option<PathBuf>,
    /// Encrypt it with a passphrase that is asked for here.
    #[arg(long)]
    pub(crate) encrypt: bool,
    /// Encrypt it with the passphrase in the first line of a file.
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct SwarmRestore {
    /// From `swarm backup`; - for standard input.
    pub(crate) file: PathBuf,
    /// Read the passphrase from the first line of a file; else it is asked for if one is needed.
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Where other nodes reach this one: where they reached a manager before, if that can be.
    #[arg(long)]
    pub(crate) advertise_addr: Option<String>,
    /// Address and port that managers listen on; as a new manager by default.
    #[arg(long)]
    pub(crate) listen_addr: Option<String>,
    /// Address that tasks on other nodes reach this one's tasks at; the advertised one by default.
    #[arg(long)]
    pub(crate) data_path_addr: Option<String>,
    /// Whether this node gets tasks: active, pause (no new ones) or drain (none).
    #[arg(long, value_parser = ["active", "pause", "drain"])]
    pub(crate) availability: Option<String>,
    /// Give up the membership and the state that this host has.
    #[arg(short, long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SwarmRecover {
    /// Where other nodes reach this one from now on; as before by default.
    #[arg(long)]
    pub(crate) advertise_addr: Option<String>,
    /// Address and port that managers listen on; as before by default.
    #[arg(long, requires = "advertise_addr")]
    pub(crate) listen_addr: Option<String>,
    /// Address that tasks on other nodes reach this one's tasks at; as before by default.
    #[arg(long, requires = "advertise_addr")]
    pub(crate) data_path_addr: Option<String>,
    /// Also where other managers say that they could go on: what they know and this one does not is lost then.
    #[arg(short, long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SwarmInit {
    /// Where other nodes reach this one: ADDRESS or ADDRESS:PORT; found by itself where there is one address.
    #[arg(long)]
    pub(crate) advertise_addr: Option<String>,
    /// Address and port that this manager listens on.
    #[arg(long, default_value = "0.0.0.0:2377")]
    pub(crate) listen_addr: String,
    /// Address that tasks on other nodes reach this one's tasks at; the advertised one by default.
    #[arg(long)]
    pub(crate) data_path_addr: Option<String>,
    /// UDP port of the overlay networks (VXLAN), the same on all nodes; 4789 by default.
    #[arg(long)]
    pub(crate) data_path_port: Option<u16>,
    /// Where overlay networks get their subnets from, e.g. 10.0.0.0/8; may be repeated.
    #[arg(long)]
    pub(crate) default_addr_pool: Vec<String>,
    /// How large these subnets are, in bits of their prefix.
    #[arg(long, default_value_t = 24)]
    pub(crate) default_addr_pool_mask_length: u8,
    /// Whether this node gets tasks: active, pause (no new ones) or drain (none).
    #[arg(long, default_value = "active", value_parser = ["active", "pause", "drain"])]
    pub(crate) availability: String,
    /// Docker's word for `rswarm swarm recover`: go on with this manager alone.
    #[arg(long)]
    pub(crate) force_new_cluster: bool,
    /// Managers need a key to come up again after a restart.
    #[arg(long)]
    pub(crate) autolock: bool,
    /// Validity of nodes' certificates; an hour at least.
    #[arg(long, value_parser = parse_duration)]
    pub(crate) cert_expiry: Option<std::time::Duration>,
    /// How often nodes report to the managers; 5s by default.
    #[arg(long, value_parser = parse_duration)]
    pub(crate) dispatcher_heartbeat: Option<std::time::Duration>,
    /// How long tasks stay on a node whose daemon is away while its host answers (default 60s).
    #[arg(long, value_parser = parse_duration)]
    pub(crate) daemon_grace: Option<std::time::Duration>,
    /// Entries between Raft snapshots.
    #[arg(long)]
    pub(crate) snapshot_interval: Option<u64>,
    /// Snapshots that are kept beside the newest one.
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_snapshots: Option<u64>,
    /// Ended tasks kept per slot.
    #[arg(long)]
    pub(crate) task_history_limit: Option<i64>,
}

#[derive(Debug, Args)]
pub(crate) struct SwarmJoin {
    /// From `swarm join-token`.
    #[arg(long)]
    pub(crate) token: String,
    /// Where other nodes reach this one: ADDRESS or ADDRESS:PORT; found by itself where there is one address.
    #[arg(long)]
    pub(crate) advertise_addr: Option<String>,
    /// Address and port that this host listens on once it is a manager.
    #[arg(long, default_value = "0.0.0.0:2377")]
    pub(crate) listen_addr: String,
    /// Address that tasks on other nodes reach this one's tasks at; the advertised one by default.
    #[arg(long)]
    pub(crate) data_path_addr: Option<String>,
    /// Whether this node gets tasks: active, pause (no new ones) or drain (none).
    #[arg(long, default_value = "active", value_parser = ["active", "pause", "drain"])]
    pub(crate) availability: String,
    /// A manager; port 2377 unless named.
    #[arg(required = true, value_name = "HOST:PORT")]
    pub(crate) remote: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct JoinToken {
    /// What a host with this token becomes.
    #[arg(value_parser = ["worker", "manager"])]
    pub(crate) role: String,
    /// Only the token.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Make a new one; the old one no longer lets anybody in.
    #[arg(long)]
    pub(crate) rotate: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SwarmCa {
    /// Replace the root certificate: every node gets a new certificate, join tokens change.
    #[arg(long)]
    pub(crate) rotate: bool,
    /// PEM of the root certificate to use; a new one is made by default.
    #[arg(long, requires_all = ["rotate", "ca_key"], value_name = "FILE")]
    pub(crate) ca_cert: Option<PathBuf>,
    /// PEM of its key.
    #[arg(long, requires_all = ["rotate", "ca_cert"], value_name = "FILE")]
    pub(crate) ca_key: Option<PathBuf>,
    /// Validity of nodes' certificates; an hour at least.
    #[arg(long, requires = "rotate", value_parser = parse_duration)]
    pub(crate) cert_expiry: Option<std::time::Duration>,
    /// Do not wait until all nodes have new certificates.
    #[arg(short, long, requires = "rotate")]
    pub(crate) detach: bool,
    /// No progress.
    #[arg(short, long, requires = "rotate")]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UnlockKey {
    /// Only the key.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Make a new one; the old one no longer unlocks managers that have heard of it.
    #[arg(long)]
    pub(crate) rotate: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SwarmUpdate {
    /// Managers need a key to come up again after a restart.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) autolock: Option<bool>,
    /// How often nodes report to the managers.
    #[arg(long, value_parser = parse_duration)]
    pub(crate) dispatcher_heartbeat: Option<std::time::Duration>,
    /// How long tasks stay on a node whose daemon is away while its host answers; a day at most.
    #[arg(long, value_parser = parse_duration)]
    pub(crate) daemon_grace: Option<std::time::Duration>,
    /// How long a manager is not heard of before it is made a worker, where at least three others are left; 0 is never,
    /// as in the beginning.
    #[arg(long, value_parser = parse_duration)]
    pub(crate) dead_manager_after: Option<std::time::Duration>,
    /// Ended tasks of each slot that are kept to be looked at.
    #[arg(long)]
    pub(crate) task_history_limit: Option<i64>,
    /// Validity of nodes' certificates; an hour at least.
    #[arg(long, value_parser = parse_duration)]
    pub(crate) cert_expiry: Option<std::time::Duration>,
    /// Entries of the Raft log between two snapshots.
    #[arg(long)]
    pub(crate) snapshot_interval: Option<u64>,
    /// Snapshots that are kept beside the newest one.
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_snapshots: Option<u64>,
}

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Node {
    /// List the nodes.
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Show what nodes are, as JSON.
    Inspect(InspectArgs),
    /// Tasks on a node; this one by default.
    Ps {
        /// Name or id of a node; self is the one that is asked.
        #[arg(default_value = "self")]
        node: String,
        #[command(flatten)]
        list: ListArgs,
        #[command(flatten)]
        shown: TasksShown,
    },
    /// Change a node's role, availability or labels.
    Update(NodeUpdate),
    /// Make workers managers.
    Promote(Names),
    /// Make managers workers.
    Demote(Names),
    /// Take nodes out of the swarm.
    Rm {
        /// Names or ids of nodes.
        #[arg(required = true)]
        nodes: Vec<String>,
        /// Also one that still answers.
        #[arg(short, long)]
        force: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct NodeUpdate {
    /// Name or id of the node.
    pub(crate) node: String,
    /// Whether it gets tasks: active, pause (no new ones) or drain (none).
    #[arg(long, value_parser = ["active", "pause", "drain"])]
    pub(crate) availability: Option<String>,
    /// What it shall be.
    #[arg(long, value_parser = ["worker", "manager"])]
    pub(crate) role: Option<String>,
    /// Give it a label; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label_add: Vec<String>,
    /// Take a label from it; may be repeated.
    #[arg(long, value_name = "KEY")]
    pub(crate) label_rm: Vec<String>,
}

// How tasks are shown.
#[derive(Debug, Default, Clone, Copy, Args)]
pub(crate) struct TasksShown {
    /// Ids and errors in full.
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Ids of services and nodes instead of names.
    #[arg(long)]
    pub(crate) no_resolve: bool,
}

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Service {
    /// List the services.
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// List the tasks of services, and why they do not run.
    Ps {
        /// Names or ids of services.
        #[arg(required = true)]
        services: Vec<String>,
        #[command(flatten)]
        list: ListArgs,
        #[command(flatten)]
        shown: TasksShown,
    },
    /// Show what services are, as JSON.
    Inspect(InspectArgs),
    /// Say why a service's tasks are where they are, do not run, or were replaced; and what nodes have against one more.
    Explain {
        /// Name or id of the service or of a task of it, e.g. web or web.2.
        name: String,
    },
    /// Create a service.
    Create(Box<ServiceCreate>),
    /// Change a service; its tasks are replaced one after the other.
    Update(Box<ServiceUpdate>),
    /// Say how many tasks services shall have: SERVICE=REPLICAS...
    Scale(ScaleArgs),
    /// Put the spec before the last change back.
    Rollback {
        /// Name or id of the service.
        service: String,
        /// Do not wait until it runs.
        #[arg(short, long)]
        detach: bool,
        /// Tell nothing of how it comes up.
        #[arg(short, long)]
        quiet: bool,
        /// How long to wait until it runs, e.g. 90s or 10m.
        #[arg(long, default_value = "10m", value_parser = parse_duration)]
        timeout: std::time::Duration,
    },
    /// Show the logs of a service or task.
    Logs(ServiceLogs),
    /// Remove services.
    #[command(visible_alias = "remove")]
    Rm(Names),
}

#[derive(Debug, Args)]
pub(crate) struct StackConfig {
    /// - for standard input; may be repeated.
    #[arg(short = 'c', long = "compose-file", required = true)]
    pub(crate) compose_file: Vec<PathBuf>,
    /// Leave variables as they are.
    #[arg(long)]
    pub(crate) skip_interpolation: bool,
    /// Refuse what Docker's CLI refuses, such as `name:`, also where `rswarm deploy` takes it.
    #[arg(long)]
    pub(crate) docker: bool,
}

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Stack {
    /// Deploy compose files as a stack, in Docker's words; `rswarm deploy` does more.
    Deploy {
        /// A compose file, or - for standard input; may be repeated.
        #[arg(short = 'c', long = "compose-file", required = true)]
        compose_file: Vec<PathBuf>,
        /// Do not wait until the services run.
        #[arg(short, long)]
        detach: bool,
        /// Remove services that the file no longer names.
        #[arg(long)]
        prune: bool,
        /// Tell nothing of how it comes up.
        #[arg(short, long)]
        quiet: bool,
        /// Give the nodes that will run them your accounts at the registries of the images.
        #[arg(long)]
        with_registry_auth: bool,
        /// Name of the stack.
        stack: String,
    },
    /// Print the files as one, merged and with all values filled in, as Docker's CLI or `rswarm deploy` reads them.
    Config(StackConfig),
    /// List the stacks.
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// List the tasks of a stack, and why they do not run.
    Ps {
        /// Name of the stack.
        stack: String,
        #[command(flatten)]
        list: ListArgs,
        #[command(flatten)]
        shown: TasksShown,
    },
    /// List the services of a stack.
    Services {
        /// Name of the stack.
        stack: String,
        #[command(flatten)]
        list: ListArgs,
    },
    /// List what was deployed, when and by whom.
    History {
        /// Name of the stack.
        stack: String,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Show what is otherwise in one revision than in another, as their files say.
    Diff {
        /// Name of the stack.
        stack: String,
        /// The revision that is compared with.
        from: u64,
        /// The other one; the newest by default.
        to: Option<u64>,
        /// For people, or as JSON.
        #[arg(long, value_enum, default_value_t = PlanFormat::Text)]
        format: PlanFormat,
    },
    /// Put an earlier revision back, all of its services in one step.
    Rollback {
        /// Name of the stack.
        stack: String,
        /// The last one before the newest that came up, by default.
        revision: Option<u64>,
        /// Do not wait until the services run.
        #[arg(short, long)]
        detach: bool,
        /// How long to wait until the services run, e.g. 90s or 10m.
        #[arg(long, default_value = "10m", value_parser = parse_duration)]
        timeout: std::time::Duration,
    },
    /// Remove stacks.
    #[command(visible_aliases = ["remove", "down"])]
    Rm {
        /// Names of stacks.
        #[arg(required = true)]
        stacks: Vec<String>,
        /// Do not wait until everything is gone.
        #[arg(short, long)]
        detach: bool,
    },
}
