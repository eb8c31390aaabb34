//! `cargo xtask fuzz`: every target of `tests/fuzz` for a while, by cargo-fuzz on stable Rust (coverage without
//! sanitizers: there is no `unsafe` in what is fuzzed).

use anyhow::{Context, Result, bail};
use clap::Args;
use std::{path::Path, process::Command};

/// Version that `.ci/run` installs.
const CARGO_FUZZ: &str = "0.13.2";

#[derive(Debug, Args)]
pub(crate) struct FuzzArgs {
    /// *Unit:* seconds for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// All by default.
    targets: Vec<String>,
}

/// Runs the targets, one after the other.
///
/// # Errors
/// cargo-fuzz is missing, a target cannot be built, or one found an input that breaks it: cargo-fuzz names the file.
pub(crate) fn run(args: &FuzzArgs) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let fuzz = root.join("tests/fuzz");
    let there = Command::new("cargo").args(["fuzz", "--version"]).output()?;
    if !there.status.success() {
        bail!("cargo-fuzz is missing: cargo install cargo-fuzz --locked --version {CARGO_FUZZ}");
    }
    let mut targets = args.targets.clone();
    if targets.is_empty() {
        for entry in std::fs::read_dir(fuzz.join("fuzz_targets"))? {
            let path = entry?.path();
            targets.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
        }
        targets.sort();
    }
    for target in &targets {
        // New inputs go into the first folder; what is kept in the project is only read.
        let corpus = root.join("target/fuzz-corpus").join(target);
        std::fs::create_dir_all(&corpus).with_context(|| corpus.display().to_string())?;
        let status = Command::new("cargo")
            .args(["fuzz", "run", "--fuzz-dir"])
            .arg(&fuzz)
            .arg("--target-dir")
            .arg(root.join("target/fuzz"))
            .args(["--sanitizer", "none", target])
            .arg(&corpus)
            .arg(fuzz.join("seeds").join(target))
            .args(["--", "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"])
            .arg(format!("-max_total_time={}", args.seconds))
            .current_dir(&root)
            .status()
            .context("cannot run cargo")?;
        if !status.success() {
            bail!("fuzz target {target}: {status}");
        }
        println!("fuzz target {target}: {} s without a finding", args.seconds);
    }
    Ok(())
}
