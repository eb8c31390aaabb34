//! What can be typed of images, builds and registries.

use super::{InspectArgs, ListArgs, PruneArgs};
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    Build(Box<BuildArgs>),
    /// Remove those that nothing uses.
    Prune(PruneArgs),
    Pull(PullArgs),
    Load(LoadArgs),
    Import(ImportArgs),
    Tag(TagArgs),
    /// Load rswarm/hello, the image of the examples, which this program carries.
    Hello,
    Inspect(InspectArgs),
    Rm(RmiArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Builder {
    /// Forget results of earlier builds.
    Prune(PruneArgs),
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
    /// os/architecture[/variant] of the image.
    #[arg(long)]
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

#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    pub(crate) image: String,
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SaveArgs {
    /// File to write; standard output by default.
    #[arg(short, long)]
    pub(crate) output: Option<PathBuf>,
    #[arg(required = true)]
    pub(crate) images: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    pub(crate) image: String,
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    #[arg(short, long)]
    pub(crate) username: Option<String>,
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
    pub(crate) server: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// Archive to read; standard input by default.
    #[arg(short, long)]
    pub(crate) input: Option<PathBuf>,
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// A tarball, or - for standard input.
    pub(crate) file: PathBuf,
    pub(crate) reference: Option<String>,
    /// Dockerfile instruction to apply, e.g. 'CMD ["sh"]'.
    #[arg(short, long)]
    pub(crate) change: Vec<String>,
    #[arg(short, long, default_value = "")]
    pub(crate) message: String,
}

#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    pub(crate) source: String,
    pub(crate) target: String,
}

#[derive(Debug, Args)]
pub(crate) struct RmiArgs {
    #[arg(required = true)]
    pub(crate) images: Vec<String>,
    #[arg(short, long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SearchArgs {
    pub(crate) term: String,
    /// Only what matches: is-official=true, stars=NUMBER.
    #[arg(short, long)]
    pub(crate) filter: Vec<String>,
    /// At most so many, 1 to 100.
    #[arg(long, default_value = "25")]
    pub(crate) limit: u32,
    /// `json`, `table`, or a template such as '{{.Name}}'.
    #[arg(long)]
    pub(crate) format: Option<String>,
}
