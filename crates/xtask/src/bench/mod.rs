//! The benchmarks: each takes the program to measure and returns rows. Peers run beside it where they are
//! installed; a row of a missing peer says so.
//!
//! Whatever a benchmark starts it ends, also when it fails: hosts live in a `testkit::Lab`, peers in namespaces
//! of their own, files in temporary directories.

mod cycle;
mod dockerd;
mod engine;
mod failover;
mod front_door;
mod gate;
mod hosts;
mod idle;
mod network;
mod oci;
mod ping;
mod raft;
mod run;
mod scale;
mod stack;

use anyhow::{Context, Result, bail};
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// What is measured, and where the result goes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only benchmarks whose name contains this.
    #[arg(default_value = "")]
    only: String,
    /// Write the rows as JSON to this file too.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Measure this program instead of building a release.
    #[arg(long)]
    program: Option<PathBuf>,
}

/// One measured figure.
struct Row {
    name: String,
    /// `None` when there is nothing to measure; the note says why.
    value: Option<f64>,
    unit: &'static str,
    note: String,
}

impl Row {
    fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name: name.into(), value: Some(value), unit, note: String::new() }
    }

    fn missing(name: impl Into<String>, why: impl Into<String>) -> Self {
        Self { name: name.into(), value: None, unit: "", note: why.into() }
    }

    fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

type Bench = fn(&Path) -> Result<Vec<Row>>;

const ALL: [(&str, Bench); 13] = [
    ("cycle", cycle::bench),
    ("run", run::bench),
    ("engine", engine::bench),
    ("scale", scale::bench),
    ("stack", stack::bench),
    ("raft-store", raft::store),
    ("raft-api", raft::api),
    ("gate", gate::bench),
    ("ping", ping::bench),
    ("network", network::bench),
    ("locked-ports", network::locked_ports),
    ("failover", failover::bench),
    ("idle", idle::bench),
];

/// Runs the benchmarks and prints a table; one that fails does not take the others' rows along.
///
/// # Errors
/// No benchmark has that name, the build fails, or a benchmark failed (after the others ran).
pub(crate) fn run(args: &Args) -> Result<()> {
    let chosen: Vec<_> = ALL.into_iter().filter(|(name, _)| name.contains(&args.only)).collect();
    if chosen.is_empty() {
        bail!("no benchmark is called {:?}; there are {}", args.only, ALL.map(|(name, _)| name).join(" "));
    }
    let program = match &args.program {
        Some(program) => program.canonicalize().with_context(|| format!("{}", program.display()))?,
        None => release_program()?,
    };
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for (name, bench) in chosen {
        eprintln!("-- {name}");
        match bench(&program) {
            Ok(done) => rows.extend(done),
            Err(error) => {
                eprintln!("{name}: {error:#}");
                failed.push(name);
            }
        }
    }
    print(&rows)?;
    if let Some(path) = &args.json {
        let rows: Vec<_> = rows
            .iter()
            .map(|r| serde_json::json!({"name": r.name, "value": r.value, "unit": r.unit, "note": r.note}))
            .collect();
        std::fs::write(path, serde_json::to_string_pretty(&rows)?)
            .with_context(|| format!("{}", path.display()))?;
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(" "));
    }
    Ok(())
}

fn print(rows: &[Row]) -> Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    for row in rows {
        let value = row.value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
        writeln!(out, "{:<66} {value:>12} {:<6} {}", row.name, row.unit, row.note)?;
    }
    Ok(())
}

/// Builds the release program, and returns where it is.
pub(crate) fn release_program() -> Result<PathBuf> {
    let status =
        Command::new("cargo").args(["build", "--release", "-p", "rswarm"]).status().context("cargo")?;
    if !status.success() {
        bail!("the release build failed");
    }
    // Beside this program, whose profile may be another.
    let here = std::env::current_exe().context("this program cannot be found")?;
    let target = here.ancestors().nth(2).context("this program is in no target folder")?;
    Ok(target.join("release/rswarm"))
}

fn median(times: Vec<f64>) -> f64 {
    quantile(times, 0.5)
}

/// Returns the value below which the share `q` of `values` lies; `NaN` of none.
fn quantile(mut values: Vec<f64>, q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index into the values")]
    let at = (last as f64 * q).round() as usize;
    values.get(at).copied().unwrap_or(f64::NAN)
}

/// Says how our figure compares with a peer's.
fn ratio(ours: f64, peer: f64, name: &str) -> String {
    format!("ours / {name} = {:.2}", ours / peer)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
