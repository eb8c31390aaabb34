//! What can be typed of the OCI runtime, as runc(8) has it.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct OciArgs {
    /// Where the state of containers is.
    #[arg(long, default_value = "/run/rswarm/oci")]
    pub(crate) root: PathBuf,
    /// Where an error is told too; standard error always has it.
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t)]
    pub(crate) log_format: LogFormat,
    #[command(subcommand)]
    pub(crate) verb: OciVerb,
}

/// Of an OCI runtime's log.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum LogFormat {
    #[default]
    Text,
    /// A line as containerd reads it.
    Json,
}

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum OciVerb {
    /// Make the container of a bundle; its program waits for `start`.
    Create {
        id: String,
        /// Folder with `config.json`.
        #[arg(short, long, default_value = ".")]
        bundle: PathBuf,
        /// Socket that gets the terminal.
        #[arg(long)]
        console_socket: Option<PathBuf>,
        /// File that gets the process id.
        #[arg(long)]
        pid_file: Option<PathBuf>,
    },
    /// Execute the program of a created container.
    Start { id: String },
    /// Print a container's state as JSON.
    State { id: String },
    /// Send a signal to the first process of a container.
    Kill {
        id: String,
        #[arg(default_value = "TERM")]
        signal: String,
        /// To all of its processes.
        #[arg(short, long)]
        all: bool,
    },
    /// Remove stopped containers.
    Delete {
        #[arg(required = true)]
        ids: Vec<String>,
        /// Kill what runs; a container that does not exist is no error.
        #[arg(short, long)]
        force: bool,
    },
}
