//! Chores: `cargo xtask bench` measures rswarm on this machine, a table and JSON, peers in the same run where
//! they are installed; `cargo xtask dist` packs a release; `cargo xtask oracles` runs the tests that need other programs,
//! `cargo xtask fuzz` the fuzz targets, `cargo xtask soak` what takes long to show, `cargo xtask nemesis` hosts and wires
//! that fail, `cargo xtask boot` what another kernel does.

mod bench;
mod boot;
mod dist;
mod fuzz;
mod nemesis;
mod oracles;
mod soak;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use std::os::unix::process::CommandExt;

#[derive(Debug, Parser)]
#[command(name = "xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure. Numbers are of this machine on this day: quote ratios, not times.
    Bench(bench::Args),
    /// Boot another kernel with the program, and look whether it does its work there.
    Boot(boot::Args),
    /// Build the release and pack it: archives, packages of Debian and Fedora, checksums, the list of what is in it.
    Dist(dist::Args),
    /// Throw inputs at what reads foreign bytes.
    Fuzz(fuzz::FuzzArgs),
    /// Have hosts and wires fail under load, and look whether everything comes back.
    Nemesis(nemesis::Args),
    /// Let services come and go, and look what memory that takes.
    Soak(soak::Args),
    /// Run the tests that hold us against other programs: those that `cargo test` shows as ignored.
    Oracles {
        /// Names of tests; all by default.
        tests: Vec<String>,
    },
}

/// Becomes the same command as an optimized program: a part of the benchmarks runs in this process.
fn optimized() -> Result<()> {
    let mut again = std::process::Command::new("cargo");
    again.args(["run", "--release", "--quiet", "-p", "xtask", "--"]).args(std::env::args_os().skip(1));
    Err(again.exec()).context("cannot run cargo")
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Bench(_) if cfg!(debug_assertions) => optimized(),
        Command::Bench(args) => bench::run(&args),
        Command::Boot(args) => boot::run(&args),
        Command::Dist(args) => dist::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Nemesis(args) => nemesis::run(&args),
        Command::Soak(args) => soak::run(&args),
        Command::Oracles { tests } => oracles::run(&tests),
    }
}
