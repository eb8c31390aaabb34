//! A project's images, and the project as what a registry keeps.

use super::make::PullPolicy;
use clap::{Args, ValueEnum};

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
