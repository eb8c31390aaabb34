//! What can be typed of a project: Docker Compose's words, flags and defaults.

use super::{CpArgs, LeaveFlags, SignalFlags, parse_duration};
use clap::{Args, Subcommand, ValueEnum};
use std::{path::PathBuf, time::Duration};

// A project: the containers of a compose file on one host.
#[derive(Debug, Args)]
pub(crate) struct ComposeArgs {
    #[command(flatten)]
    pub(crate) project: ProjectArgs,
    #[command(subcommand)]
    pub(crate) command: Compose,
}

// What is the same for every word; `--progress` and `--dry-run` may also stand behind it.
#[derive(Debug, Clone, Default, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(crate) struct ProjectArgs {
    /// Compose files, merged in order; else those of COMPOSE_FILE, else `compose.yaml` and its siblings, here or above;
    /// - for standard input, oci://REGISTRY/REPOSITORY:TAG for what `publish` put there.
    #[arg(short, long)]
    pub(crate) file: Vec<PathBuf>,
    /// Else COMPOSE_PROJECT_NAME, else the file's `name:`, else its folder's. With it and without --file, commands that
    /// act on containers read no file.
    #[arg(short, long)]
    pub(crate) project_name: Option<String>,
    /// Where relative paths begin; the folder of the first file by default.
    #[arg(long, alias = "workdir")]
    pub(crate) project_directory: Option<PathBuf>,
    /// Have the services of a profile too, beside those of COMPOSE_PROFILES; may be repeated, and * stands for all.
    #[arg(long)]
    pub(crate) profile: Vec<String>,
    /// Variables, instead of COMPOSE_ENV_FILES and `.env`; may be repeated, and later ones win.
    #[arg(long)]
    pub(crate) env_file: Vec<PathBuf>,
    /// How what happens is told; else COMPOSE_PROGRESS.
    #[arg(long, value_enum, global = true)]
    pub(crate) progress: Option<Progress>,
    /// Colours in front of containers' lines; else COMPOSE_ANSI.
    #[arg(long, value_enum)]
    pub(crate) ansi: Option<Ansi>,
    /// Tell which files, folder and project are meant.
    #[arg(long)]
    pub(crate) verbose: bool,
    /// Name containers and built images with underscores, as Docker Compose 1 did; also COMPOSE_COMPATIBILITY.
    #[arg(long)]
    pub(crate) compatibility: bool,
    /// How many containers are started, stopped or removed at once; -1 = all of a step; else COMPOSE_PARALLEL_LIMIT.
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) parallel: Option<i64>,
    /// Networks and volumes also where no service uses them.
    #[arg(long)]
    pub(crate) all_resources: bool,
    /// Registries of oci:// projects that are reached without (verified) TLS.
    #[arg(long, value_name = "REGISTRY", id = "insecure_registries")]
    pub(crate) insecure_registry: Vec<String>,
    /// Go through the command to its end, tell what it would do, and change nothing.
    #[arg(long, global = true)]
    pub(crate) dry_run: bool,
    /// Leave out what cannot be honoured, with a warning.
    #[arg(long)]
    pub(crate) lenient: bool,
    /// The project is a stack of the swarm: `up` deploys it, and the other commands reach its tasks on every node.
    #[arg(long)]
    pub(crate) swarm: bool,
}

/// Source: docker/compose `cmd/compose/compose.go`, `--progress`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Progress {
    /// A line for each thing done.
    #[default]
    Auto,
    /// The same.
    Plain,
    /// A JSON object for each.
    Json,
    /// Nothing but warnings and errors.
    Quiet,
}

/// Source: docker/compose `cmd/compose/compose.go`, `--ansi`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Ansi {
    /// On a terminal.
    #[default]
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Compose {
    /// Make and start what the file says, and show its output.
    #[command(disable_version_flag = true)]
    Up(Up),
    /// Make what the file says, and start nothing.
    #[command(disable_version_flag = true)]
    Create(Create),
    /// Stop and remove the project's containers and networks.
    Down(Down),
    /// List the project's containers.
    Ps(ComposePs),
    /// Show the output of containers.
    Logs(ComposeLogs),
    /// Run a command in a service's container.
    Exec(ComposeExec),
    /// Run a command in a container of its own, made as the service's.
    Run(Box<ComposeRun>),
    /// Build what has a `build:`.
    Build(ComposeBuild),
    /// Pull the images of services.
    Pull(ComposePull),
    /// Stop and start containers.
    Restart(ComposeRestart),
    /// Stop containers.
    Stop(ComposeStop),
    /// Start what was stopped.
    Start(ComposeStart),
    /// Send a signal to containers.
    Kill(ComposeKill),
    /// Remove stopped containers.
    Rm(ComposeRm),
    /// Freeze all processes of services.
    Pause(Services),
    /// Let paused services go on.
    Unpause(Services),
    /// Copy files between a service's container and this machine.
    Cp(ComposeCp),
    /// Show the processes of containers.
    Top(Services),
    /// Show where a port of a service is published.
    Port(ComposePort),
    /// Show the images of the project's containers.
    Images(ComposeImages),
    /// Show the file as it is understood.
    #[command(alias = "convert")]
    Config(ComposeConfig),
    /// Attach standard input and output to a service's container.
    Attach(ComposeAttach),
    /// Make an image of a service's container.
    Commit(ComposeCommit),
    /// Follow what happens to the project's containers.
    Events(ComposeEvents),
    /// Write the files of a service's container as a tar archive.
    Export(ComposeExport),
    /// Push the images of services that are built here.
    Push(ComposePush),
    /// Put the project's files into a registry, for `-f oci://...`.
    Publish(ComposePublish),
    /// Change how many containers services have.
    Scale(ComposeScale),
    /// Show what containers use of processor, memory and network.
    Stats(ComposeStats),
    /// List the project's volumes.
    Volumes(ComposeVolumes),
    /// Wait until containers of services have ended; ends with the exit code of the last one.
    Wait(ComposeWait),
    /// Show the version.
    Version(ComposeVersion),
    /// List projects.
    Ls(ComposeLs),
    /// Bring changes of files into containers, as `develop.watch` says.
    Watch(ComposeWatch),
}

#[derive(Debug, Default, Args)]
pub(crate) struct Services {
    /// All by default.
    pub(crate) services: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ComposeStart {
    /// Wait until services run or are healthy.
    #[arg(long)]
    pub(crate) wait: bool,
    /// *Unit:* seconds; 0 = as long as it takes.
    #[arg(long, default_value_t = 0)]
    pub(crate) wait_timeout: u64,
    /// All by default.
    pub(crate) services: Vec<String>,
}

// What makes containers; of `up`, `create` and `run`.
#[derive(Debug, Default, Args)]
pub(crate) struct MakeFlags {
    /// Build images first, also those that are there.
    #[arg(long)]
    pub(crate) build: bool,
    /// Build nothing, also where an image is missing.
    #[arg(long, conflicts_with = "build")]
    pub(crate) no_build: bool,
    /// When images are pulled, whatever the file says.
    #[arg(long, value_enum)]
    pub(crate) pull: Option<PullPolicy>,
    /// Show no progress of pulls.
    #[arg(long)]
    pub(crate) quiet_pull: bool,
    /// Show no output of builds.
    #[arg(long)]
    pub(crate) quiet_build: bool,
    /// Remove containers of services that the file no longer names, and those of `run`; else COMPOSE_REMOVE_ORPHANS.
    #[arg(long)]
    pub(crate) remove_orphans: bool,
}

// How containers that are there already are kept; of `up` and `create`.
#[derive(Debug, Default, Args)]
pub(crate) struct KeepFlags {
    /// Replace containers even if nothing changed.
    #[arg(long)]
    pub(crate) force_recreate: bool,
    /// Keep containers even if something changed.
    #[arg(long, conflicts_with = "force_recreate")]
    pub(crate) no_recreate: bool,
    /// Replace what others need too, even if nothing changed there.
    #[arg(long, conflicts_with = "no_recreate")]
    pub(crate) always_recreate_deps: bool,
    /// Give replaced containers new anonymous volumes.
    #[arg(short = 'V', long)]
    pub(crate) renew_anon_volumes: bool,
    /// How many containers of a service there are, whatever the file says.
    #[arg(long, value_name = "SERVICE=NUMBER")]
    pub(crate) scale: Vec<String>,
    /// Do not ask: volumes that the file describes otherwise now are made anew, and lose what is in them; a project of a
    /// registry has the variables that it mentions.
    #[arg(short, long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PullPolicy {
    /// Each time.
    Always,
    /// If it is not here.
    Missing,
    /// What is not here is an error.
    Never,
    /// Build it instead.
    Build,
}

#[derive(Debug, Default, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) make: MakeFlags,
    #[command(flatten)]
    pub(crate) keep: KeepFlags,
    /// Show no output; the containers go on alone.
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Not the services that these depend on.
    #[arg(long)]
    pub(crate) no_deps: bool,
    /// Make, and start nothing.
    #[arg(long)]
    pub(crate) no_start: bool,
    /// Wait until services run or are healthy; implies --detach.
    #[arg(long)]
    pub(crate) wait: bool,
    /// *Unit:* seconds; what depends on others waits as long too. 0 = as long as it takes.
    #[arg(long, default_value_t = 0)]
    pub(crate) wait_timeout: u64,
    /// Seconds until SIGKILL when containers are stopped.
    #[arg(short, long)]
    pub(crate) timeout: Option<u32>,
    /// Stop everything when a container ends.
    #[arg(long, conflicts_with = "detach")]
    pub(crate) abort_on_container_exit: bool,
    /// Stop everything when a container fails.
    #[arg(long, conflicts_with = "detach")]
    pub(crate) abort_on_container_failure: bool,
    /// End with the exit code of a service; implies --abort-on-container-exit.
    #[arg(long, value_name = "SERVICE", conflicts_with = "detach")]
    pub(crate) exit_code_from: Option<String>,
    /// Show the output of these alone.
    #[arg(long, value_name = "SERVICE")]
    pub(crate) attach: Vec<String>,
    /// Show the output of what they need too.
    #[arg(long, conflicts_with = "attach")]
    pub(crate) attach_dependencies: bool,
    /// Do not show the output of these.
    #[arg(long, value_name = "SERVICE")]
    pub(crate) no_attach: Vec<String>,
    /// There is no menu of keys here, so only --menu=false is taken.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false")]
    pub(crate) menu: Option<bool>,
    /// Show when each line was written.
    #[arg(long)]
    pub(crate) timestamps: bool,
    #[command(flatten)]
    pub(crate) look: LogLook,
    /// Watch files as `compose watch` does.
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// All by default.
    pub(crate) services: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    pub(crate) make: MakeFlags,
    #[command(flatten)]
    pub(crate) keep: KeepFlags,
    /// All by default.
    pub(crate) services: Vec<String>,
}

#[derive(Debug, Default, Args)]
pub(crate) struct LogLook {
    /// Names of containers without colours.
    #[arg(long)]
    pub(crate) no_color: bool,
    /// From `--ansi always`.
    #[arg(skip)]
    pub(crate) colour: bool,
    /// Lines as they are, without the container's name.
    #[arg(long)]
    pub(crate) no_log_prefix: bool,
}

#[derive(Debug, Default, Args)]
pub(crate) struct Down {
    /// Remove the file's volumes and anonymous ones too.
    #[arg(short, long)]
    pub(crate) volumes: bool,
    /// Remove images: `local` = those without a name of their own in the file, `all`.
    #[arg(long, value_enum)]
    pub(crate) rmi: Option<Rmi>,
    /// Remove containers of services that the file does not name.
    #[arg(long)]
    pub(crate) remove_orphans: bool,
    /// Seconds until SIGKILL.
    #[arg(short, long)]
    pub(crate) timeout: Option<u32>,
    /// All by default, with the networks.
    pub(crate) services: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rmi {
    /// Those with names of their own too.
    All,
    /// Those without a name of their own in the file.
    Local,
}

#[derive(Debug, Args)]
pub(crate) struct ComposePs {
    /// Also those that do not run, and those of `run`.
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only ids.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Only the names of services.
    #[arg(long)]
    pub(crate) services: bool,
    /// Only those in a state: created, running, paused, restarting, exited, dead; may be repeated.
    #[arg(long)]
    pub(crate) status: Vec<String>,
    /// Only those in a state, as status=running.
    #[arg(long)]
    pub(crate) filter: Vec<String>,
    /// `table`, `json`, or a template such as '{{.Name}}'.
    #[arg(long)]
    pub(crate) format: Option<String>,
    /// Whole ids, images and commands.
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Also those of services that the file does not name.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true")]
    pub(crate) orphans: Option<bool>,
    /// All by default.
    #[arg(value_name = "SERVICE")]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Default, Args)]
pub(crate) struct ComposeLogs {
    /// Go on with what comes.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Show when each line was written.
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    #[command(flatten)]
    pub(crate) look: LogLook,
    /// So many lines from the end of each log.
    #[arg(short = 'n', long, default_value = "all")]
    pub(crate) tail: String,
    /// Lines from then on: RFC 3339, Unix seconds, or an age such as 10m.
    #[arg(long)]
    pub(crate) since: Option<String>,
    /// Lines before then.
    #[arg(long)]
    pub(crate) until: Option<String>,
    /// Of several containers of a service, this one.
    #[arg(long)]
    pub(crate) index: Option<u64>,
    /// All by default.
    pub(crate) services: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ComposeExec {
    /// Do not wait for its end.
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// `KEY=VALUE`, or `KEY` for the value it has here; may be repeated.
    #[arg(short, long)]
    pub(crate) env: Vec<String>,
    /// Of several containers of the service, this one.
    #[arg(long)]
    pub(crate) index: Option<u64>,
    /// No terminal; else there is one if standard output is one.
    #[arg(short = 'T', long, alias = "no-TTY")]
    pub(crate) no_tty: bool,
    /// Keep standard input open, as without this flag.
    #[arg(
        short, long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value = "true"
    )]
    pub(crate) interactive: Option<bool>,
    /// A terminal, as without this flag if standard output is one.
    #[arg(
        short, long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value = "true"
    )]
    pub(crate) tty: Option<bool>,
    /// Give it all rights.
    #[arg(long)]
    pub(crate) privileged: bool,
    /// Who runs it: `USER` or `UID`, either with `:GROUP`.
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// Folder in the container that it begins in.
    #[arg(short, long)]
    pub(crate) workdir: Option<String>,
    /// Name of the service.
    pub(crate) service: String,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(crate) struct ComposeRun {
    #[command(flatten)]
    pub(crate) make: MakeFlags,
    /// Print the container's name and leave it alone.
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Do not ask whether a project of a registry may have the variables that it mentions.
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// NAME=VALUE; NAME alone takes it from the shell, else from `.env`.
    #[arg(short, long)]
    pub(crate) env: Vec<String>,
    /// Variables of a file; may be repeated, and --env wins.
    #[arg(long, value_name = "FILE")]
    pub(crate) env_from_file: Vec<PathBuf>,
    /// `KEY=VALUE`; may be repeated.
    #[arg(short, long)]
    pub(crate) label: Vec<String>,
    /// The program, instead of the service's entrypoint.
    #[arg(long)]
    pub(crate) entrypoint: Option<String>,
    /// Capability it has besides, e.g. NET_ADMIN; may be repeated.
    #[arg(long)]
    pub(crate) cap_add: Vec<String>,
    /// Capability it does not have, e.g. CHOWN; may be repeated.
    #[arg(long)]
    pub(crate) cap_drop: Vec<String>,
    /// Keep standard input open, as without this flag; -i=false does not.
    #[arg(
        short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value = "true", value_name = "BOOL"
    )]
    pub(crate) interactive: Option<bool>,
    /// Name of the container; a chosen one by default.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// No terminal; else there is one if standard output is one.
    #[arg(short = 'T', long, alias = "no-TTY")]
    pub(crate) no_tty: bool,
    /// Nothing of our own is shown.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Not the services that this one depends on.
    #[arg(long)]
    pub(crate) no_deps: bool,
    /// Publish a port, e.g. 8080:80; may be repeated.
    #[arg(short, long)]
    pub(crate) publish: Vec<String>,
    /// Publish the service's ports.
    #[arg(short = 'P', long)]
    pub(crate) service_ports: bool,
    /// Remove the container when it has ended.
    #[arg(long)]
    pub(crate) rm: bool,
    /// Answer to the service's names on its networks.
    #[arg(long)]
    pub(crate) use_aliases: bool,
    /// Who runs it: `USER` or `UID`, either with `:GROUP`.
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// `/here:/there` or `name:/there`; may be repeated.
    #[arg(short, long, alias = "volumes")]
    pub(crate) volume: Vec<String>,
    /// Folder in the container that it begins in.
    #[arg(short, long)]
    pub(crate) workdir: Option<String>,
    /// Name of the service.
    pub(crate) service: String,
    /// What is run, instead of the service's command.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Default, Args)]
pub(crate) struct ComposeBuild {
    /// Carry every step out anew.
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Ask the registry for newer base images.
    #[arg(long)]
    pub(crate) pull: bool,
    /// KEY=VALUE; may be repeated.
    #[arg(long)]
    pub(crate) build_arg: Vec<String>,
    /// Push what was built, if the file gives it a name.
    #[arg(long)]
    pub(crate) push: bool,
    /// Print less.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Also what these depend on.
    #[arg(long)]
    pub(crate) with_dependencies: bool,
    /// Build nothing: print a file for `docker buildx bake` that would.
    #[arg(long)]
    pub(crate) print: bool,
    /// Build nothing: read the Dockerfiles, and tell what is wrong in them.
    #[arg(long, conflicts_with_all = ["print", "push"])]
    pub(crate) check: bool,
    /// Most memory that RUN may have, e.g. 512m.
    #[arg(short, long)]
    pub(crate) memory: Option<String>,
    /// Who builds: the daemon does, so only `default` is taken.
    #[arg(long, value_name = "NAME")]
    pub(crate) builder: Option<String>,
    /// Keys of an SSH agent: not possible here, and refused.
    #[arg(long, value_name = "ID")]
    pub(crate) ssh: Option<String>,
    /// Where an image comes from is not attested here: only `false` is taken.
    #[arg(long)]
    pub(crate) provenance: Option<String>,
    /// What an image is made of is not attested here: only `false` is taken.
    #[arg(long)]
    pub(crate) sbom: Option<String>,
    /// All by default.
    pub(crate) services: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ComposePull {
    /// Print less.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Go on when an image cannot be pulled.
    #[arg(long)]
    pub(crate) ignore_pull_failures: bool,
    /// Not what can be built.
    #[arg(long)]
    pub(crate) ignore_buildable: bool,
    /// Also what these depend on.
    #[arg(long)]
    pub(crate) include_deps: bool,
    /// `missing`: only what is not there.
    #[arg(long, value_enum)]
    pub(crate) policy: Option<PullPolicy>,
    /// All by default.
    pub(crate) services: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ComposeAttach {
    /// Of several containers of the service, this one.
    #[arg(long)]
    pub(crate) index: Option<u64>,
    /// Output only.
    #[arg(long)]
    pub(crate) no_stdin: bool,
    #[command(flatten)]
    pub(crate) signals: SignalFlags,
    #[command(flatten)]
    pub(crate) leave: LeaveFlags,
    /// Name of the service.
    pub(crate) service: String,
}

#[derive(Debug, Args)]
pub(crate) struct ComposeCommit {
    /// Of several containers of the service, this one.
    #[arg(long)]
    pub(crate) index: Option<u64>,
    /// Who made it, as in 'Ann <ann@example.org>'.
    #[arg(short, long)]
    pub(crate) author: Option<String>,
    /// What is to be said of it in the history of the image.
    #[arg(short, long)]
    pub(crate) message: Option<String>,
    /// An instruction of a Dockerfile, e.g. 'ENV A=1'; may be repeated.
    #[arg(short, long)]
    pub(crate) change: Vec<String>,
    /// Pause the container meanwhile.
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true")]
    pub(crate) pause: Option<bool>,
    /// Name of the service.
    pub(crate) service: String,
    /// Name of the image, with or without a tag; none by default.
    pub(crate) reference: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ComposeEvents {
    /// A JSON object for each.
    #[arg(long)]
    pub(crate) json: bool,
    /// From then on: RFC 3339, Unix seconds, or an age such as 10m.
    #[arg(long)]
    pub(crate) since: Option<String>,
    /// Until then; without it events go on.
    #[arg(long)]
    pub(crate) until: Option<String>,
    /// All by default.
    pub(crate) services: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ComposeExport {
    /// Of several containers of the service, this one.
    #[arg(long)]
    pub(crate) index: Option<u64>,
    /// File to write; standard output by default.
    #[arg(short, long)]
    pub(crate) output: Option<PathBuf>,
    /// Name of the service.
    pub(crate) service: String,
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(crate) struct ComposePublish {
    /// Pin images to what their tags stand for now.
    #[arg(long)]
    pub(crate) resolve_image_digests: bool,
    /// Form of the artifact; by default the newer one, if the registry takes it.
    #[arg(long, value_enum)]
    pub(crate) oci_version: Option<OciVersion>,
    /// With the files of variables, and without asking about variables that look like secrets.
    #[arg(long)]
    pub(crate) with_env: bool,
    /// Ask nothing.
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// With the images: not possible here, and refused.
    #[arg(long)]
    pub(crate) app: bool,
    /// Reach this registry without (verified) TLS.
    #[arg(long)]
    pub(crate) insecure_registry: bool,
    /// Where to: REGISTRY/REPOSITORY, with a :TAG or without.
    pub(crate) repository: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OciVersion {
    /// For registries that know no types of artifacts.
    #[value(name = "1.0")]
    V1_0,
    /// With a type of its own.
    #[value(name = "1.1")]
    V1_1,
}

#[derive(Debug, Default, Args)]
pub(crate) struct ComposePush {
    /// Say nothing of the progress.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Go on when an image cannot be pushed.
    #[arg(long)]
    pub(crate) ignore_push_failures: bool,
    /// Also what these depend on.
    #[arg(long)]
    pub(crate) include_deps: bool,
    /// All by default.
    pub(crate) services: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ComposeScale {
    /// Not the services that these depend on.
    #[arg(long)]
    pub(crate) no_deps: bool,
    /// Services, each with the number of its containers.
    #[arg(required = true, value_name = "SERVICE=NUMBER")]
    pub(crate) scale: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ComposeStats {
    /// Also those that do not run.
    #[arg(short, long)]
    pub(crate) all: bool,
    /// One sample, then end.
    #[arg(long)]
    pub(crate) no_stream: bool,
    /// Ids in full.
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// `json`, `table`, or a template such as '{{.Name}}'.
    #[arg(long)]
    pub(crate) format: Option<String>,
    /// All by default.
    pub(crate) services: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ComposeVolumes {
    /// Only names.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// `table`, `json`, or a template such as '{{.Name}}'.
    #[arg(long)]
    pub(crate) format: Option<String>,
    /// Those that containers of these services mount; all of the project by default.
    pub(crate) services: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ComposeWait {
    /// Take the project down when the first of them has ended.
    #[arg(long)]
    pub(crate) down_project: bool,
    /// Names of services.
    #[arg(required = true)]
    pub(crate) services: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ComposeVersion {
    /// Only the number.
    #[arg(long)]
    pub(crate) short: bool,
    /// As a line, or as JSON.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) format: VersionFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum VersionFormat {
    #[default]
    Pretty,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct ComposeRestart {
    /// Seconds until SIGKILL.
    #[arg(short, long)]
    pub(crate) timeout: Option<u32>,
    /// Not the services that restart with these.
    #[arg(long)]
    pub(crate) no_deps: bool,
    /// All by default.
    pub(crate) services: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ComposeStop {
    /// Seconds until SIGKILL.
    #[arg(short, long)]
    pub(crate) timeout: Option<u32>,
    /// All by default.
    pub(crate) services: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ComposeKill {
    /// Name or number of the signal.
    #[arg(short, long, default_value = "SIGKILL")]
    pub(crate) signal: String,
    /// Also those of services that the file does not name; else COMPOSE_REMOVE_ORPHANS.
    #[arg(long)]
    pub(crate) remove_orphans: bool,
    /// All by default.
    pub(crate) services: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ComposeRm {
    /// Do not ask.
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Stop those that run first.
    #[arg(short, long)]
    pub(crate) stop: bool,
    /// Their anonymous volumes too.
    #[arg(short, long)]
    pub(crate) volumes: bool,
    /// All by default.
    pub(crate) services: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ComposeCp {
    /// Of several containers of the service, this one; all of them by default when copying into them.
    #[arg(long)]
    pub(crate) index: Option<u64>,
    /// Also containers of `run`.
    #[arg(long, conflicts_with = "index")]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) paths: CpArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ComposePort {
    /// Of several containers of the service, this one.
    #[arg(long)]
    pub(crate) index: Option<u64>,
    /// tcp or udp.
    #[arg(long, default_value = "tcp")]
    pub(crate) protocol: String,
    /// Name of the service.
    pub(crate) service: String,
    /// Port in its container.
    pub(crate) port: u16,
}

#[derive(Debug, Args)]
pub(crate) struct ComposeImages {
    /// Only ids.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// `table`, `json`, or a template such as '{{.Repository}}'.
    #[arg(long)]
    pub(crate) format: Option<String>,
    /// All by default.
    pub(crate) services: Vec<String>,
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(crate) struct ComposeConfig {
    /// Only check.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Only the names of services.
    #[arg(long)]
    pub(crate) services: bool,
    /// Only the names of volumes.
    #[arg(long)]
    pub(crate) volumes: bool,
    /// Only the names of networks.
    #[arg(long)]
    pub(crate) networks: bool,
    /// Only the names of profiles.
    #[arg(long)]
    pub(crate) profiles: bool,
    /// Only the names of images.
    #[arg(long)]
    pub(crate) images: bool,
    /// Only the names of models.
    #[arg(long)]
    pub(crate) models: bool,
    /// Only the hashes that containers of these services are labelled with, divided by commas; * stands for all.
    #[arg(long, value_name = "SERVICE")]
    pub(crate) hash: Option<String>,
    /// Only the variables that it is read with.
    #[arg(long)]
    pub(crate) environment: bool,
    /// Only the variables that the files mention, with their defaults.
    #[arg(long)]
    pub(crate) variables: bool,
    /// Keep variables as they are written.
    #[arg(long)]
    pub(crate) no_interpolate: bool,
    /// Also of what could not run: a service without an image, a name that means nothing.
    #[arg(long)]
    pub(crate) no_consistency: bool,
    /// Write out nothing that the files only imply.
    #[arg(long)]
    pub(crate) no_normalize: bool,
    /// Keep paths as they are written.
    #[arg(long)]
    pub(crate) no_path_resolution: bool,
    /// Keep `env_file` as it is, and do not read what it names.
    #[arg(long)]
    pub(crate) no_env_resolution: bool,
    /// Images with the digests that their tags stand for now.
    #[arg(long, conflicts_with = "no_interpolate")]
    pub(crate) resolve_image_digests: bool,
    /// Only the images with these digests: a file to lay over the others.
    #[arg(long, conflicts_with = "no_interpolate")]
    pub(crate) lock_image_digests: bool,
    /// YAML or JSON.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ConfigFormat,
    /// Write into a file.
    #[arg(short, long)]
    pub(crate) output: Option<PathBuf>,
    /// All by default.
    #[arg(value_name = "SERVICE")]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum ConfigFormat {
    /// YAML.
    #[default]
    Yaml,
    /// JSON.
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct ComposeLs {
    /// Also projects of which nothing runs.
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only those whose name fits, as name=shop: a regular expression; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// Only names.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// `table`, `json`, or a template such as '{{.Name}}'.
    #[arg(long)]
    pub(crate) format: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ComposeWatch {
    /// Do not bring the project up first.
    #[arg(long)]
    pub(crate) no_up: bool,
    /// Remove the project's images that a rebuild leaves without a name, as without this flag; --prune=false keeps them.
    #[arg(
        long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true",
        value_name = "BOOL"
    )]
    pub(crate) prune: Option<bool>,
    /// Show no output of builds.
    #[arg(long)]
    pub(crate) quiet: bool,
    /// How long a file must be left alone before its change counts.
    #[arg(long, default_value = "500ms", value_parser = parse_duration, hide = true)]
    pub(crate) settle: Duration,
    /// All that have rules by default.
    pub(crate) services: Vec<String>,
}

#[cfg(test)]
mod tests {
    use clap::Command;
    use std::collections::BTreeSet;

    /// The flags of Docker Compose's commands, and those that all of them have; besides `--dry-run`, which is one of these.
    /// *Source:* docker/compose `docs/reference`; `alpha` and `bridge` are left out: the one is experiments, the other
    /// runs Docker's own images to make files of other programs.
    const DOCKERS: &[(&str, &str)] = &[
        (
            "",
            "--all-resources --ansi --compatibility --env-file -f --file -p --parallel --profile \
             --progress --project-directory --project-name",
        ),
        ("attach", "--detach-keys --index --no-stdin --sig-proxy"),
        (
            "build",
            "--build-arg --builder --check -m --memory --no-cache --print --provenance --pull --push -q \
             --quiet --sbom --ssh --with-dependencies",
        ),
        ("commit", "-a --author -c --change --index -m --message -p --pause"),
        (
            "config",
            "--environment --format --hash --images --lock-image-digests --models --networks \
             --no-consistency --no-env-resolution --no-interpolate --no-normalize --no-path-resolution \
             -o --output --profiles -q --quiet --resolve-image-digests --services --variables --volumes",
        ),
        ("cp", "-a --all --archive --follow-link --index -L"),
        (
            "create",
            "--build --force-recreate --no-build --no-recreate --pull --quiet-pull --remove-orphans \
             --scale -y --yes",
        ),
        ("down", "--remove-orphans --rmi -t --timeout -v --volumes"),
        ("events", "--json --since --until"),
        ("exec", "-d --detach -e --env --index --no-tty --privileged -T -u --user -w --workdir"),
        ("export", "--index -o --output"),
        ("images", "--format -q --quiet"),
        ("kill", "--remove-orphans -s --signal"),
        ("logs", "-f --follow --index -n --no-color --no-log-prefix --since -t --tail --timestamps --until"),
        ("ls", "-a --all --filter --format -q --quiet"),
        ("pause", ""),
        ("port", "--index --protocol"),
        ("ps", "-a --all --filter --format --no-trunc --orphans -q --quiet --services --status"),
        ("publish", "--app --oci-version --resolve-image-digests --with-env -y --yes"),
        ("pull", "--ignore-buildable --ignore-pull-failures --include-deps --policy -q --quiet"),
        ("push", "--ignore-push-failures --include-deps -q --quiet"),
        ("restart", "--no-deps -t --timeout"),
        ("rm", "-f --force -s --stop -v --volumes"),
        (
            "run",
            "--build --cap-add --cap-drop -d --detach -e --entrypoint --env --env-from-file -i \
             --interactive -l --label --name --no-deps --no-tty -P -p --publish --pull -q --quiet \
             --quiet-build --quiet-pull --remove-orphans --rm --service-ports -T -u --use-aliases \
             --user -v --volume -w --workdir",
        ),
        ("scale", "--no-deps"),
        ("start", "--wait --wait-timeout"),
        ("stats", "-a --all --format --no-stream --no-trunc"),
        ("stop", "-t --timeout"),
        ("top", ""),
        ("unpause", ""),
        (
            "up",
            "--abort-on-container-exit --abort-on-container-failure --always-recreate-deps --attach \
             --attach-dependencies --build -d --detach --exit-code-from --force-recreate --menu \
             --no-attach --no-build --no-color --no-deps --no-log-prefix --no-recreate --no-start \
             --pull --quiet-build --quiet-pull --remove-orphans --renew-anon-volumes --scale -t \
             --timeout --timestamps -V -w --wait --wait-timeout --watch -y --yes",
        ),
        ("version", "-f --format --short"),
        ("volumes", "--format -q --quiet"),
        ("wait", "--down-project"),
        ("watch", "--no-up --prune --quiet"),
    ];

    fn flags(command: &Command) -> BTreeSet<String> {
        let mut all = BTreeSet::from(["-h".to_owned(), "--help".to_owned()]);
        for arg in command.get_arguments() {
            all.extend(arg.get_short().map(|short| format!("-{short}")));
            let long = arg.get_long_and_visible_aliases().unwrap_or_default();
            all.extend(long.into_iter().map(|long| format!("--{long}")));
        }
        all
    }

    #[test]
    fn each_flag_of_docker_compose_is_ours() {
        let root = super::super::whole();
        let compose = root.find_subcommand("compose").expect("a command");
        let mut missing = Vec::new();
        for (name, theirs) in DOCKERS {
            let command = match *name {
                "" => compose,
                name => compose.find_subcommand(name).unwrap_or_else(|| panic!("there is no {name:?}")),
            };
            let ours = flags(command);
            let lacks = theirs.split_whitespace().filter(|flag| !ours.contains(*flag));
            missing.extend(lacks.map(|flag| format!("{name} {flag}")));
        }
        assert!(missing.is_empty(), "{missing:?}");
        assert!(DOCKERS.iter().map(|(_, flags)| flags.split_whitespace().count()).sum::<usize>() > 150);
    }
}
