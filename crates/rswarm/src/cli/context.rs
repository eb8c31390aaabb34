//! What can be typed of contexts: daemons with names.

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Context {
    /// Give a daemon a name.
    Create(ContextCreate),
    /// List the contexts; * is the one in use.
    #[command(visible_alias = "list")]
    Ls {
        /// Only names.
        #[arg(short, long)]
        quiet: bool,
        /// `json`, `table`, or a template such as '{{.Name}}'.
        #[arg(long)]
        format: Option<String>,
    },
    /// Show what contexts are, as JSON; the one in use by default.
    Inspect {
        /// Names of contexts.
        names: Vec<String>,
        /// `json`, or a template such as '{{.Name}}'.
        #[arg(short, long)]
        format: Option<String>,
    },
    /// Use a context from now on, in Docker's CLI too; `default` is none.
    Use {
        /// Name of the context.
        name: String,
    },
    /// Forget contexts, and their keys.
    #[command(visible_alias = "remove")]
    Rm {
        /// Also the one in use.
        #[arg(short, long)]
        force: bool,
        /// Names of contexts.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Print the name of the one in use.
    Show,
    /// Change what a context says.
    Update(ContextUpdate),
    /// Write a context with its keys into an archive, readable by you alone.
    Export {
        /// Name of the context.
        name: String,
        /// The archive; - is standard output. NAME.dockercontext by default.
        file: Option<String>,
    },
    /// Make a context of an archive that `context export` wrote, Docker's or ours.
    Import {
        /// Name it gets here.
        name: String,
        /// The archive; - is standard input.
        file: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ContextCreate {
    /// What it is for.
    #[arg(long)]
    pub(crate) description: Option<String>,
    /// The daemon: host=unix://PATH, tcp://HOST:PORT or ssh://USER@HOST, and for tcp:// the files ca=, cert= and key=;
    /// or from=CONTEXT.
    #[arg(long, value_name = "KEY=VALUE,...", required_unless_present = "from")]
    pub(crate) docker: Option<String>,
    /// Be a copy of another context.
    #[arg(long, value_name = "CONTEXT", conflicts_with = "docker")]
    pub(crate) from: Option<String>,
    /// Its name.
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct ContextUpdate {
    /// What it is for.
    #[arg(long)]
    pub(crate) description: Option<String>,
    /// Another daemon, in the words of `context create`.
    #[arg(long, value_name = "KEY=VALUE,...")]
    pub(crate) docker: Option<String>,
    /// Name of the context.
    pub(crate) name: String,
}
