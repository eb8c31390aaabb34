//! What can be typed of a project: Docker Compose's words, flags and defaults.

mod end;
mod images;
mod inside;
mod make;
mod shown;

pub(crate) use end::{ComposeKill, ComposeRestart, ComposeRm, ComposeWait, Down, Rmi};
pub(crate) use images::{ComposeBuild, ComposePublish, ComposePull, ComposePush, OciVersion};
pub(crate) use inside::{ComposeAttach, ComposeCommit, ComposeCp, ComposeExec, ComposeExport};
pub(crate) use make::{
    ComposeRun, ComposeScale, ComposeStart, ComposeWatch, KeepFlags, MakeFlags, PullPolicy, Up,
};
pub(crate) use shown::{
    ComposeConfig, ComposeEvents, ComposeImages, ComposeLogs, ComposeLs, ComposePort, ComposePs,
    ComposeStats, ComposeVersion, ComposeVolumes, ConfigFormat, LogLook, VersionFormat,
};

use clap::{Args, Subcommand, ValueEnum};
use end::ComposeStop;
use make::Create;
use std::path::PathBuf;

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
