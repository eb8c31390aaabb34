//! What can be typed of networks, volumes, secrets and configs.

use super::{InspectArgs, ListArgs, Names, PruneArgs};
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Secrets and configs have the same verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Blob {
    Create {
        name: String,
        /// - for standard input.
        file: PathBuf,
        #[arg(short, long)]
        label: Vec<String>,
    },
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    Inspect(InspectArgs),
    Rm(Names),
}

#[derive(Debug, Args)]
pub(crate) struct NetworkAddresses {
    /// One of IPv4, and with --ipv6 one of IPv6.
    #[arg(long)]
    pub(crate) subnet: Vec<String>,
    #[arg(long)]
    pub(crate) gateway: Vec<String>,
    /// Part of the subnet that containers get their addresses from.
    #[arg(long)]
    pub(crate) ip_range: Vec<String>,
    /// `name=address`: one that another machine has.
    #[arg(long)]
    pub(crate) aux_address: Vec<String>,
    #[arg(long)]
    pub(crate) ipv6: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Network {
    /// Remove those that nothing uses.
    Prune(PruneArgs),
    Create {
        #[arg(short, long, default_value = "bridge")]
        driver: String,
        #[command(flatten)]
        addresses: NetworkAddresses,
        /// Containers may be put on it by hand; for overlay networks.
        #[arg(long)]
        attachable: bool,
        #[arg(long)]
        internal: bool,
        #[arg(long)]
        label: Vec<String>,
        #[arg(short = 'o', long = "opt")]
        options: Vec<String>,
        name: String,
    },
    /// Put a container, running or not, onto one more network.
    Connect {
        /// Name by which others on the network find it; may be repeated.
        #[arg(long)]
        alias: Vec<String>,
        /// Its IPv4 address there.
        #[arg(long)]
        ip: Option<String>,
        /// Its IPv6 address there.
        #[arg(long)]
        ip6: Option<String>,
        /// What it calls another container there, as CONTAINER or CONTAINER:ALIAS; may be repeated.
        #[arg(long)]
        link: Vec<String>,
        /// KEY=VALUE of com.docker.network.endpoint.ifname or .sysctls; may be repeated.
        #[arg(long, value_name = "KEY=VALUE")]
        driver_opt: Vec<String>,
        /// Of its networks the one with the highest leads outside.
        #[arg(long, default_value_t = 0, allow_hyphen_values = true)]
        gw_priority: i64,
        network: String,
        container: String,
    },
    /// Take a container off a network.
    Disconnect {
        #[arg(short, long)]
        force: bool,
        network: String,
        container: String,
    },
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    Inspect(InspectArgs),
    Rm(Names),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Volume {
    /// Remove those that nothing uses.
    Prune(PruneArgs),
    Create {
        #[arg(long)]
        label: Vec<String>,
        /// Of the local driver: type=nfs, device=.., o=..; may be repeated.
        #[arg(short = 'o', long = "opt", value_name = "KEY=VALUE")]
        options: Vec<String>,
        name: Option<String>,
    },
    /// Write what a volume holds as a tar.
    Export {
        /// File to write; standard output by default.
        #[arg(short, long)]
        output: Option<PathBuf>,
        name: String,
    },
    /// Fill a volume from a tar (plain, gzip or zstd); make it if it is not there.
    Import {
        /// File to read; standard input by default.
        #[arg(short, long)]
        input: Option<PathBuf>,
        /// Replace what the volume holds.
        #[arg(short, long)]
        force: bool,
        name: String,
    },
    /// Make a volume with what another one on this host holds.
    Cp {
        /// Replace what the target holds.
        #[arg(short, long)]
        force: bool,
        source: String,
        target: String,
    },
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    Inspect(InspectArgs),
    Rm {
        #[arg(required = true)]
        names: Vec<String>,
        #[arg(short, long)]
        force: bool,
    },
}
