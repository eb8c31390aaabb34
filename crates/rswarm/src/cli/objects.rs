//! What can be typed of networks, volumes, secrets and configs.

use super::{InspectArgs, ListArgs, Names, PruneArgs};
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Secrets and configs have the same verbs.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Blob {
    /// Create one, with what is in a file.
    Create {
        /// Its name.
        name: String,
        /// - for standard input.
        file: PathBuf,
        /// Label: KEY=VALUE; may be repeated.
        #[arg(short, long)]
        label: Vec<String>,
        /// Who keeps what is in it; the managers do.
        #[arg(short, long)]
        driver: Option<String>,
        /// It is a template that each task fills in: golang.
        #[arg(long)]
        template_driver: Option<String>,
    },
    /// List them.
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Show what they are, as JSON.
    Inspect(InspectArgs),
    /// Remove them.
    Rm(Names),
}

#[derive(Debug, Args)]
pub(crate) struct NetworkAddresses {
    /// One of IPv4, and with --ipv6 one of IPv6.
    #[arg(long)]
    pub(crate) subnet: Vec<String>,
    /// Address of the way out of a subnet, in the order of --subnet.
    #[arg(long)]
    pub(crate) gateway: Vec<String>,
    /// Part of the subnet that containers get their addresses from.
    #[arg(long)]
    pub(crate) ip_range: Vec<String>,
    /// `name=address`: one that another machine has.
    #[arg(long)]
    pub(crate) aux_address: Vec<String>,
    /// Give its containers IPv6 addresses too.
    #[arg(long)]
    pub(crate) ipv6: bool,
    /// Give its containers IPv4 addresses, as without this flag.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) ipv4: Option<bool>,
    /// Who gives out its addresses; rswarm does.
    #[arg(long, value_name = "DRIVER")]
    pub(crate) ipam_driver: Option<String>,
    /// KEY=VALUE for --ipam-driver; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) ipam_opt: Vec<String>,
}

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Network {
    /// Remove those that nothing uses.
    Prune(PruneArgs),
    /// Create a network.
    Create {
        /// bridge: of this host; overlay: of the swarm.
        #[arg(short, long, default_value = "bridge")]
        driver: String,
        #[command(flatten)]
        addresses: NetworkAddresses,
        /// Containers may be put on it by hand; for overlay networks.
        #[arg(long)]
        attachable: bool,
        /// Nothing leads out of it.
        #[arg(long)]
        internal: bool,
        /// Of this host or of the swarm; as the driver is by default.
        #[arg(long, value_parser = ["local", "swarm"])]
        scope: Option<String>,
        /// Label: KEY=VALUE; may be repeated.
        #[arg(long)]
        label: Vec<String>,
        /// KEY=VALUE for the driver; may be repeated.
        #[arg(short = 'o', long = "opt")]
        options: Vec<String>,
        /// Its name.
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
        /// Its link-local address there; may be repeated.
        #[arg(long)]
        link_local_ip: Vec<String>,
        /// What it calls another container there, as CONTAINER or CONTAINER:ALIAS; may be repeated.
        #[arg(long)]
        link: Vec<String>,
        /// KEY=VALUE of com.docker.network.endpoint.ifname or .sysctls; may be repeated.
        #[arg(long, value_name = "KEY=VALUE")]
        driver_opt: Vec<String>,
        /// Of its networks the one with the highest leads outside.
        #[arg(long, default_value_t = 0, allow_hyphen_values = true)]
        gw_priority: i64,
        /// Name or id of the network.
        network: String,
        /// Name or id of the container.
        container: String,
    },
    /// Take a container off a network.
    Disconnect {
        /// Also a container that is not there any more.
        #[arg(short, long)]
        force: bool,
        /// Name or id of the network.
        network: String,
        /// Name or id of the container.
        container: String,
    },
    /// List the networks.
    #[command(visible_alias = "list")]
    Ls {
        #[command(flatten)]
        list: ListArgs,
        /// Ids in full.
        #[arg(long)]
        no_trunc: bool,
    },
    /// Show what networks are, as JSON.
    Inspect {
        #[command(flatten)]
        inspect: InspectArgs,
        /// Also the services and tasks on it, of all nodes.
        #[arg(short, long)]
        verbose: bool,
    },
    /// Remove networks.
    #[command(visible_alias = "remove")]
    Rm {
        /// Names or ids of networks.
        #[arg(required = true)]
        names: Vec<String>,
        /// One that is not there is no error.
        #[arg(short, long)]
        force: bool,
    },
}

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Volume {
    /// Remove those that nothing uses.
    Prune(PruneArgs),
    /// Create a volume.
    Create {
        /// Who keeps it.
        #[arg(short, long, default_value = "local")]
        driver: String,
        /// Label: KEY=VALUE; may be repeated.
        #[arg(long)]
        label: Vec<String>,
        /// Of the local driver: type=nfs, device=.., o=..; may be repeated.
        #[arg(short = 'o', long = "opt", value_name = "KEY=VALUE")]
        options: Vec<String>,
        /// Its name; without one it is anonymous.
        name: Option<String>,
    },
    /// Write what a volume holds as a tar.
    Export {
        /// File to write; standard output by default.
        #[arg(short, long)]
        output: Option<PathBuf>,
        /// Name of the volume.
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
        /// Name of the volume.
        name: String,
    },
    /// Make a volume with what another one on this host holds.
    Cp {
        /// Replace what the target holds.
        #[arg(short, long)]
        force: bool,
        /// Volume that is copied.
        source: String,
        /// Volume that is made or filled.
        target: String,
    },
    /// List the volumes.
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Show what volumes are, as JSON.
    Inspect(InspectArgs),
    /// Remove volumes.
    Rm {
        /// Names of volumes.
        #[arg(required = true)]
        names: Vec<String>,
        /// One that is not there is no error.
        #[arg(short, long)]
        force: bool,
    },
}
