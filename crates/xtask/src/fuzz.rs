//! `cargo xtask fuzz`: every target of `tests/fuzz` for a while, by cargo-fuzz on stable Rust (coverage without
//! sanitizers: there is no `unsafe` in what is fuzzed). By hand: `cargo test` throws a fixed set of inputs at the same
//! targets, and the instrumented build takes as long as all other tests.

use anyhow::{Context, Result, bail};
use clap::Args;
use std::{
    path::Path,
    process::Command,
    sync::{Mutex, PoisonError},
};

/// Version that the targets were last run with.
const CARGO_FUZZ: &str = "0.13.2";

#[derive(Debug, Args)]
pub(crate) struct FuzzArgs {
    /// *Unit:* seconds for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// All by default.
    targets: Vec<String>,
}

/// Builds the targets, then runs them, one on each processor at a time.
///
/// # Errors
/// cargo-fuzz is missing, the lock file of the targets is old, a target cannot be built, or one found an input that
/// breaks it: cargo-fuzz names the file.
pub(crate) fn run(args: &FuzzArgs) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let there = Command::new("cargo").args(["fuzz", "--version"]).output()?;
    if !there.status.success() {
        bail!("cargo-fuzz is missing: cargo install cargo-fuzz --locked --version {CARGO_FUZZ}");
    }
    let mut targets = args.targets.clone();
    if targets.is_empty() {
        for entry in std::fs::read_dir(root.join("tests/fuzz/fuzz_targets"))? {
            let path = entry?.path();
            targets.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
        }
        targets.sort();
    }
    // cargo-fuzz writes the lock file anew without a word.
    let locked = Command::new("cargo")
        .args(["metadata", "--locked", "--format-version", "1", "--manifest-path"])
        .arg(root.join("tests/fuzz/Cargo.toml"))
        .output()?;
    if !locked.status.success() {
        bail!(
            "tests/fuzz/Cargo.lock is not what the crates need: {}\nhint: cargo metadata --manifest-path \
             tests/fuzz/Cargo.toml",
            String::from_utf8_lossy(&locked.stderr).trim()
        );
    }
    let built = cargo_fuzz(&root, "build").status().context("cannot run cargo")?;
    if !built.success() {
        bail!("the fuzz targets are not built: {built}");
    }
    let waiting = Mutex::new(targets.into_iter());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || -> Result<()> {
        while let Some(target) = next() {
            fuzz(&root, &target, args.seconds)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|w| w.join().unwrap_or_else(|_| bail!("a worker panicked")))
    })
}

fn cargo_fuzz(root: &Path, verb: &str) -> Command {
    let mut command = Command::new("cargo");
    command.args(["fuzz", verb, "--fuzz-dir"]).arg(root.join("tests/fuzz"));
    command.arg("--target-dir").arg(root.join("target/fuzz")).args(["--sanitizer", "none"]).current_dir(root);
    command
}

fn fuzz(root: &Path, target: &str, seconds: u32) -> Result<()> {
    // New inputs go into the first folder; what is kept in the project is only read.
    let corpus = root.join("target/fuzz-corpus").join(target);
    std::fs::create_dir_all(&corpus).with_context(|| corpus.display().to_string())?;
    println!("fuzz target {target} runs for {seconds} s");
    let ended = cargo_fuzz(root, "run")
        .arg(target)
        .arg(&corpus)
        .arg(root.join("tests/fuzz/seeds").join(target))
        .args(["--", "-timeout=10", "-rss_limit_mb=2048"])
        .arg(format!("-max_total_time={seconds}"))
        .output()
        .context("cannot run cargo")?;
    let said = String::from_utf8_lossy(&ended.stderr);
    if !ended.status.success() {
        bail!("fuzz target {target}: {}\n{said}", ended.status);
    }
    let runs = said.lines().rev().find(|line| line.starts_with("Done")).unwrap_or_default();
    println!("fuzz target {target}: no finding; {runs}");
    Ok(())
}
