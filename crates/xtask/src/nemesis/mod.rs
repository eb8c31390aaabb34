//! `cargo xtask nemesis`: five hosts in namespaces of the real kernel, services under load, and faults one after the
//! other, drawn by a seed, sometimes two at once. After each all must be as asked again, in a bounded time, and what
//! clients were told must be true; at the end all managers have the same tables, and hosts nothing left. Prints the
//! story and a table of the kinds of fault; fails with the seed and the step when something does not hold.
//!
//! ```text
//!  draw ── seed -> faults          hosts ── the swarm and its services; is it whole?   seen ── judges what hosts say
//!  fault ── begins and ends one    load ── clients, and whether what they were told is true     report
//! ```
//!
//! Left out: a handing over of leadership on request, which the program has no command for (a leader that is demoted or
//! stopped hands over), and clocks that are set while a daemon runs: all hosts share this machine's, which is not ours to
//! set; a daemon is started with one that is an hour ahead instead (`crates/manager/src/tests/sim` has the jumps).
//!
//! Needs root, and `nft`, `nsenter`, `losetup`, `mkfs.ext4` and `perl`.
//!
//! *Start reading at* [`run`].

mod draw;
mod fault;
mod hosts;
mod load;
mod report;
mod seen;

use anyhow::{Context, Result, bail};
use draw::{Draw, Planned, Target};
use fault::Kind;
use hosts::{HOSTS, INTERRUPTED, MANAGERS, Swarm, millis};
use load::Load;
use report::{Happened, Span, Step};
use std::{
    path::PathBuf,
    process::Command,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};
use tokio::signal::unix::{SignalKind, signal};

/// After a fault has passed, all is as asked again within this time: an election, hosts that are given up or return,
/// tasks that are started on two cores.
const RECOVERY: Duration = Duration::from_secs(120);
const TOOLS: [&str; 5] = ["nft", "nsenter", "losetup", "mkfs.ext4", "perl"];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long new faults begin.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// What follows from it: all that happens. Drawn, and said, by default.
    #[arg(long)]
    seed: Option<u64>,
    /// Only these kinds of fault.
    #[arg(long, value_name = "KIND", value_parser = clap::builder::PossibleValuesParser::new(fault::ALL.map(Kind::name)))]
    only: Vec<String>,
    /// Write the report as JSON to this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Leave the daemons' logs in this folder when something does not hold.
    #[arg(long, value_name = "FOLDER")]
    logs: Option<PathBuf>,
    /// The program; by default the debug program, built anew when cargo runs this.
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
    /// What daemons are upgraded to; by default a copy of the program, from which they go back again.
    #[arg(long, value_name = "PATH")]
    upgrade_to: Option<PathBuf>,
}

/// Runs faults.
///
/// # Errors
/// Something did not hold, with the seed and the step; or a tool is missing, or the swarm does not come up.
pub(crate) fn run(args: &Args) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("hosts with disks of their own, and wires that are cut one way, need root");
    }
    for tool in TOOLS {
        let found = Command::new(tool).arg("--version").output();
        found.with_context(|| {
            format!("{tool} is needed (packages nftables, util-linux, mount, e2fsprogs, perl)")
        })?;
    }
    let program = program(args)?;
    let seed = args.seed.unwrap_or_else(|| millis() % 1_000_000);
    let kinds: Vec<Kind> = fault::ALL
        .into_iter()
        .filter(|kind| args.only.is_empty() || args.only.iter().any(|name| name == kind.name()))
        .collect();
    listen_for_ctrl_c()?;
    println!("seed {seed}: {HOSTS} hosts, {MANAGERS} of them managers, for {} min", args.minutes);
    let mut swarm = Swarm::start(&program, args.upgrade_to.as_deref())?;
    let mut steps = Vec::new();
    let result = story(&mut swarm, seed, &kinds, Duration::from_secs(args.minutes * 60), &mut steps);
    if result.is_err() && !INTERRUPTED.load(Ordering::Relaxed) {
        eprintln!("{}", swarm.lab.daemon_logs());
        if let Some(folder) = &args.logs {
            swarm.save_logs(folder)?;
        }
    }
    drop(swarm);
    println!("\n{}", report::table(&steps));
    let broken = result.as_ref().err().map(|error| format!("{error:#}"));
    if let Some(path) = &args.json {
        let json = report::json(seed, &steps, broken.as_deref());
        std::fs::write(path, serde_json::to_string_pretty(&json)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    result.with_context(|| {
        let only: String = args.only.iter().map(|name| format!(" --only {name}")).collect();
        format!("seed {seed} (again: cargo xtask nemesis --minutes {} --seed {seed}{only})", args.minutes)
    })?;
    println!("{} steps, and all held", steps.len());
    Ok(())
}

/// Returns the program to run: that beside this one, which is built first if cargo is what started this.
fn program(args: &Args) -> Result<PathBuf> {
    if let Some(program) = &args.program {
        return program.canonicalize().with_context(|| format!("{}", program.display()));
    }
    if std::env::var_os("CARGO").is_some() {
        let built = Command::new("cargo").args(["build", "--quiet", "--locked", "-p", "rswarm"]).status();
        if !built.context("cannot run cargo")?.success() {
            bail!("the build failed");
        }
    }
    let beside = std::env::current_exe()?.with_file_name("rswarm");
    beside.canonicalize().with_context(|| format!("{} (cargo build -p rswarm makes it)", beside.display()))
}

/// Has Ctrl-C, and SIGTERM, end a run in order: everything that waits gives up. The second one ends it as it is.
fn listen_for_ctrl_c() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            for time in 0..2 {
                tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
                INTERRUPTED.store(true, Ordering::Relaxed);
                if time == 0 {
                    eprintln!("interrupted; what was made is removed");
                }
            }
        });
        std::process::exit(130);
    });
    Ok(())
}

/// Has faults happen for `span`, then looks at all once more.
fn story(swarm: &mut Swarm, seed: u64, kinds: &[Kind], span: Duration, steps: &mut Vec<Step>) -> Result<()> {
    let mut draw = Draw::new(seed);
    let mut load = Load::begin(swarm, seed)?;
    let end = Instant::now() + span;
    while Instant::now() < end {
        let (number, planned) = (steps.len() + 1, draw::step(&mut draw, kinds));
        let mut faults = Vec::new();
        let done = step(swarm, &mut load, number, &planned, &mut faults);
        let done = done.with_context(|| {
            let faults: Vec<String> = faults.iter().map(Happened::story).collect();
            format!("step {number}: {}", faults.join(", and at once "))
        })?;
        println!("{}", done.story());
        steps.push(done);
    }
    load.rest(true);
    load.judge().context("at the end")?;
    drop(load);
    swarm.tables_are_alike().context("at the end: the managers' tables")?;
    swarm.leaves_nothing().context("at the end")
}

/// Has faults happen, waits until they are over and all is as asked, and judges what clients saw.
fn step(
    swarm: &mut Swarm,
    load: &mut Load,
    number: usize,
    planned: &[Planned],
    faults: &mut Vec<Happened>,
) -> Result<Step> {
    let from = millis();
    let leader = swarm.leader().context("nobody leads")?;
    for planned in planned {
        let mut host = if let Target::Host(n) = planned.target { n } else { leader };
        if faults.iter().any(|fault: &Happened| fault.host == host) {
            // Two at once hit two hosts; managers among them where only those can be hit.
            host = host % if planned.kind.is_of_managers() { MANAGERS } else { HOSTS } + 1;
        }
        faults.push(Happened { planned: *planned, host, led: host == leader });
        planned.kind.begin(host, swarm).with_context(|| format!("{} of host{host}", planned.kind.name()))?;
    }
    let longest = planned.iter().map(|planned| planned.seconds).max().unwrap_or_default();
    last(Duration::from_secs(longest))?;
    for fault in faults.iter() {
        let kind = fault.planned.kind;
        kind.end(fault.host, swarm).with_context(|| format!("the end of {}", kind.name()))?;
    }
    let (over, since) = (Instant::now(), millis());
    let span = Span { began: from, over: since };
    load.rest(true);
    let missing = swarm.until_whole(since, true, RECOVERY)?;
    let recovery = over.elapsed();
    let judged = load.judge()?;
    load.rest(false);
    let requests = load.requests();
    if planned.iter().all(|planned| planned.kind.is_of_daemon()) && !requests.failed.is_empty() {
        let failed: Vec<String> = requests.failed.iter().map(|failed| failed.story(span)).collect();
        bail!("containers and wires were left alone, and requests failed: {}", failed.join("; "));
    }
    let hit: Vec<u8> = faults.iter().map(|fault| fault.host).collect();
    let others: Vec<u8> = (1..=HOSTS).filter(|n| !hit.contains(n)).collect();
    let udp_silence = swarm.longest_silence(&others, from, millis())?;
    Ok(Step { number, faults: faults.clone(), span, recovery, missing, requests, udp_silence, judged })
}

/// Lets a fault go on.
fn last(span: Duration) -> Result<()> {
    let end = Instant::now() + span;
    while Instant::now() < end {
        if INTERRUPTED.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
