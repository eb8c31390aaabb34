//! `rswarm doctor`: what is wrong with this host, in the README's words.

use crate::{
    cli::{Cli, Command, DaemonArgs, Doctor, DoctorAbout, DoctorArgs},
    output,
};
use anyhow::{Context, Result, bail};
use clap::Parser as _;
use docker_api::client::{Client, Host};
use node::doctor::{self, Place, Row, State};
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// The settings that a daemon has when none are named.
pub(crate) const DEFAULT_CONFIG: &str = "/etc/rswarm/daemon.toml";

/// Prints a line per check. The exit code is 1 if one of them is bad.
pub(crate) async fn run(client: &Client, args: &Doctor) -> Result<ExitCode> {
    let (args, promises, tries) = match &args.about {
        Some(DoctorAbout::Security(args)) => (args, doctor::SECURITY, false),
        None => (&args.args, doctor::HOST, true),
    };
    let place = place(client.host(), args).await?;
    let mut host = doctor::Host::look(place, client).await;
    if tries {
        host.try_out().await;
    }
    let rows = doctor::examine(promises, &host);
    let text = if args.json { serde_json::to_string_pretty(&as_json(&rows))? } else { as_text(&rows) };
    output::line(&text)?;
    let bad = rows.iter().any(|row| row.finding.state == State::Bad);
    Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn as_json(rows: &[Row]) -> Vec<serde_json::Value> {
    let one = |row: &Row| {
        json!({
            "Promise": row.promise, "Gate": row.gate, "Check": row.check, "State": row.finding.state.word(),
            "Found": row.finding.found, "Hint": row.finding.hint,
        })
    };
    rows.iter().map(one).collect()
}

fn as_text(rows: &[Row]) -> String {
    let mut lines = Vec::new();
    let mut promise = "";
    for row in rows {
        if row.promise != promise {
            promise = row.promise;
            lines.push(format!("{promise}  [{}]", row.gate));
        }
        let name = if row.check.is_empty() { "" } else { &format!("{}: ", row.check) };
        lines.push(format!("  {:<7}  {name}{}", row.finding.state.word(), row.finding.found));
        if !row.finding.hint.is_empty() {
            lines.push(format!("           hint: {}", row.finding.hint));
        }
    }
    let count = |state| rows.iter().filter(|row| row.finding.state == state).count();
    lines.push(format!(
        "{} bad, {} to be better, {} not looked at, {} well",
        count(State::Bad),
        count(State::Warn),
        count(State::Unknown),
        count(State::Ok)
    ));
    lines.join("\n")
}

/// Finds out where the daemon of this host keeps its things.
async fn place(host: &Host, args: &DoctorArgs) -> Result<Place> {
    let Host::Unix(socket) = host else {
        bail!("the doctor looks at the host it runs on, not at {host}; hint: rswarm -H unix://PATH doctor");
    };
    let daemon = daemon(socket).await;
    let started = daemon.and_then(started_with);
    let of_daemon = |of: fn(&DaemonArgs) -> Option<PathBuf>| started.as_ref().and_then(of);
    let config = args.config.clone().or_else(|| of_daemon(|d| d.config.clone()));
    let config = config.unwrap_or_else(|| DEFAULT_CONFIG.into());
    let run_root = args.run_root.clone().or_else(|| of_daemon(|d| Some(d.run_root.clone())));
    let run_root = match run_root {
        Some(run_root) => run_root,
        None => socket.parent().context("the socket has no folder")?.to_owned(),
    };
    let data_root = args.data_root.clone().or_else(|| of_daemon(|d| d.data_root.clone()));
    // What is wrong with the settings is a finding.
    let set = || node::Settings::read_if_there(&config).ok().and_then(|settings| settings.data_root);
    let data_root = data_root.or_else(set).unwrap_or_else(|| "/var/lib/rswarm".into());
    Ok(Place { data_root, run_root, config, daemon })
}

/// Returns the process behind a socket.
async fn daemon(socket: &Path) -> Option<u32> {
    let connection = tokio::net::UnixStream::connect(socket).await.ok()?;
    u32::try_from(connection.peer_cred().ok()?.pid()?).ok()
}

/// Returns what a daemon was started with; `None`: it cannot be seen, or is not one of ours.
fn started_with(pid: u32) -> Option<DaemonArgs> {
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    let Command::Daemon(args) = Cli::try_parse_from(line.trim_end_matches('\0').split('\0')).ok()?.command
    else {
        return None;
    };
    let folder = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
    Some(DaemonArgs {
        data_root: args.data_root.map(|path| folder.join(path)),
        run_root: folder.join(args.run_root),
        config: args.config.map(|path| folder.join(path)),
        ..args
    })
}
