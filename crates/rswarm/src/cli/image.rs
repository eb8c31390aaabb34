//! What can be typed of images, builds and registries.

use super::{InspectArgs, ListArgs, PruneArgs, ResourceFlags, StartFlags};
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Image {
    /// List images.
    #[command(visible_alias = "list")]
    Ls(ImagesArgs),
    /// Build an image from a Dockerfile.
    Build(Box<BuildArgs>),
    /// Remove those that nothing uses.
    Prune(PruneArgs),
    /// Pull an image from a registry.
    Pull(PullArgs),
    /// Push an image to a registry.
    Push(PushArgs),
    /// Show how an image was made.
    History(HistoryArgs),
    /// Write images as an archive.
    Save(SaveArgs),
    /// Load images from an archive.
    Load(LoadArgs),
    /// Make an image from a root file system.
    Import(ImportArgs),
    /// Add a name to an image.
    Tag(TagArgs),
    /// Load rswarm/hello, the image of the examples, which this program carries.
    Hello,
    /// Show what images are, as JSON.
    Inspect(InspectArgs),
    /// Remove images.
    #[command(visible_alias = "remove")]
    Rm(RmiArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// Only images of this name, with or without :TAG.
    pub(crate) repository: Option<String>,
    /// Also those without a name that others are made from.
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Show the digests that registries know them by.
    #[arg(long)]
    pub(crate) digests: bool,
    /// Ids in full.
    #[arg(long)]
    pub(crate) no_trunc: bool,
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Builder {
    /// Forget results of earlier builds.
    Prune(PruneArgs),
    /// Build an image from a Dockerfile.
    Build(Box<BuildArgs>),
}

#[derive(Debug, Default, Args)]
pub(crate) struct BuildArgs {
    /// Folder that is sent to the daemon; - reads a Dockerfile or a tar from standard input.
    pub(crate) context: String,
    /// The Dockerfile; - is standard input. CONTEXT/Dockerfile by default.
    #[arg(short, long)]
    pub(crate) file: Option<PathBuf>,
    /// The Dockerfile itself, from a compose file.
    #[arg(skip)]
    pub(crate) dockerfile_text: Option<String>,
    /// Name of the image, with or without :TAG.
    #[arg(short, long)]
    pub(crate) tag: Vec<String>,
    /// NAME=VALUE of an ARG; NAME alone takes it from the environment.
    #[arg(long)]
    pub(crate) build_arg: Vec<String>,
    /// NAME=VALUE to add to the image.
    #[arg(long)]
    pub(crate) label: Vec<String>,
    /// Stage to build; the last by default.
    #[arg(long)]
    pub(crate) target: Option<String>,
    /// os/architecture[/variant] of the image; else DOCKER_DEFAULT_PLATFORM.
    #[arg(long, env = "DOCKER_DEFAULT_PLATFORM", hide_env = true)]
    pub(crate) platform: Option<String>,
    /// Network of RUN.
    #[arg(long)]
    pub(crate) network: Option<String>,
    /// HOST:IP for RUN.
    #[arg(long)]
    pub(crate) add_host: Vec<String>,
    /// Secrets by id, from a compose file.
    #[arg(skip)]
    pub(crate) secret_data: Vec<(String, model::SecretBytes)>,
    /// id=NAME,src=FILE or id=NAME,env=VARIABLE, for RUN --mount=type=secret.
    #[arg(long)]
    pub(crate) secret: Vec<String>,
    #[command(flatten)]
    pub(crate) limits: BuildLimits,
    /// Use no result of earlier builds.
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Ask registries even for images that are here.
    #[arg(long)]
    pub(crate) pull: bool,
    /// File that gets the image's id.
    #[arg(long)]
    pub(crate) iidfile: Option<PathBuf>,
    /// How progress is shown; there is one way: plain.
    #[arg(long, value_parser = ["auto", "plain"], default_value = "auto")]
    pub(crate) progress: String,
    /// Print the image's id alone.
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

// What RUN may take.
#[derive(Debug, Default, Args)]
pub(crate) struct BuildLimits {
    #[command(flatten)]
    pub(crate) resources: ResourceFlags,
    #[command(flatten)]
    pub(crate) start: StartFlags,
}

#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// Name of the image, with its registry, tag or digest.
    pub(crate) image: String,
    /// Print only its name.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// os/architecture[/variant] of the image, where there are several; else DOCKER_DEFAULT_PLATFORM.
    #[arg(long, env = "DOCKER_DEFAULT_PLATFORM", hide_env = true)]
    pub(crate) platform: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// Name of the image, with its registry and tag.
    pub(crate) image: String,
    /// Do not show how far it is.
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SaveArgs {
    /// File to write; standard output by default.
    #[arg(short, long)]
    pub(crate) output: Option<PathBuf>,
    /// Names or ids of images.
    #[arg(required = true)]
    pub(crate) images: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// Name or id of the image.
    pub(crate) image: String,
    /// Sizes and times for people, as without this flag; --human=false for programs.
    #[arg(
        long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1,
        require_equals = true, default_missing_value = "true", value_name = "BOOL"
    )]
    pub(crate) human: bool,
    /// Ids and commands in full.
    #[arg(long)]
    pub(crate) no_trunc: bool,
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// Name of the account; asked for by default.
    #[arg(short, long)]
    pub(crate) username: Option<String>,
    /// Its password, which others on this host may see: better --password-stdin.
    #[arg(short, long)]
    pub(crate) password: Option<String>,
    /// Read the password from standard input.
    #[arg(long)]
    pub(crate) password_stdin: bool,
    /// Docker Hub by default.
    pub(crate) server: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct LogoutArgs {
    /// Docker Hub by default.
    pub(crate) server: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// Archive to read; standard input by default.
    #[arg(short, long)]
    pub(crate) input: Option<PathBuf>,
    /// Do not show how far it is.
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// A tarball, or - for standard input.
    pub(crate) file: PathBuf,
    /// Name of the image; without one it has only its id.
    pub(crate) reference: Option<String>,
    /// Dockerfile instruction to apply, e.g. 'CMD ["sh"]'.
    #[arg(short, long)]
    pub(crate) change: Vec<String>,
    /// What the image is; shown by `rswarm history`.
    #[arg(short, long, default_value = "")]
    pub(crate) message: String,
}

#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// Name or id of the image.
    pub(crate) source: String,
    /// Its new name.
    pub(crate) target: String,
}

#[derive(Debug, Args)]
pub(crate) struct RmiArgs {
    /// Names or ids of images.
    #[arg(required = true)]
    pub(crate) images: Vec<String>,
    /// Also those that stopped containers use, or that have several names.
    #[arg(short, long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SearchArgs {
    /// What to look for.
    pub(crate) term: String,
    /// Only what matches: is-official=true, stars=NUMBER.
    #[arg(short, long)]
    pub(crate) filter: Vec<String>,
    /// Descriptions in full.
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// At most so many, 1 to 100.
    #[arg(long, default_value = "25")]
    pub(crate) limit: u32,
    /// `json`, `table`, or a template such as '{{.Name}}'.
    #[arg(long)]
    pub(crate) format: Option<String>,
}
