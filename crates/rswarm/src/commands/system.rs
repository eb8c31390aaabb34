//! `rswarm info`, `version`, `inspect`, `system dial-stdio` and `system shutdown`.

use super::target;
use crate::{
    build,
    cli::{FormatArgs, InspectAnyArgs},
    list, output,
};
use anyhow::{Context, Result};
use docker_api::client::Client;
use serde_json::Value;
use std::{process::ExitCode, time::Duration};

pub(crate) async fn info(client: &Client, args: &FormatArgs) -> Result<()> {
    let info: Value = client.get("/info", &[]).await?;
    if let Some(format) = &args.format {
        return output::line(&list::render(format, &info)?);
    }
    let text = |path: &str| match info.pointer(path) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    output::line(&format!("Server Version: {}", text("/ServerVersion")))?;
    output::line(&format!("Name: {}", text("/Name")))?;
    output::line(&format!(
        "Containers: {} (running {}, paused {}, stopped {})",
        text("/Containers"),
        text("/ContainersRunning"),
        text("/ContainersPaused"),
        text("/ContainersStopped")
    ))?;
    output::line(&format!("Images: {}", text("/Images")))?;
    output::line(&format!("Cgroup Version: {}", text("/CgroupVersion")))?;
    output::line(&format!("Kernel Version: {}", text("/KernelVersion")))?;
    output::line(&format!("CPUs: {}", text("/NCPU")))?;
    output::line(&format!("Data Root: {}", text("/DockerRootDir")))?;
    output::line(&format!("Swarm: {}", text("/Swarm/LocalNodeState")))?;
    if text("/Swarm/LocalNodeState") == "active" {
        output::line(&format!("  NodeID: {}", text("/Swarm/NodeID")))?;
        output::line(&format!("  Is Manager: {}", text("/Swarm/ControlAvailable")))?;
        for line in of_swarm(&info) {
            output::line(&line)?;
        }
        output::line(&format!("  Node Address: {}", text("/Swarm/NodeAddr")))?;
    }
    let list = |path: &str| info.pointer(path).and_then(Value::as_array).cloned().unwrap_or_default();
    let devices = list("/DiscoveredDevices");
    if !devices.is_empty() {
        output::line("Discovered Devices:")?;
        for device in devices.iter().filter_map(|device| device["ID"].as_str()) {
            output::line(&format!("  {device}"))?;
        }
    }
    for warning in list("/Warnings").iter().filter_map(Value::as_str) {
        output::warning(warning.trim_start_matches("WARNING: "));
    }
    Ok(())
}

/// Returns what a manager knows of its swarm. *Source:* docker/cli `cli/command/system/info.go`, `printSwarmInfo`.
fn of_swarm(info: &Value) -> Vec<String> {
    let swarm = &info["Swarm"];
    if swarm["Cluster"]["ID"].as_str().is_none_or(str::is_empty) {
        return Vec::new();
    }
    let spec = &swarm["Cluster"]["Spec"];
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let time = |value: &Value| list::human(Duration::from_nanos(number(value)));
    let yes = |value: &Value| value.as_bool().unwrap_or_default();
    let pools = swarm["Cluster"]["DefaultAddrPool"].as_array().into_iter().flatten();
    let pools: Vec<&str> = pools.filter_map(Value::as_str).collect();
    vec![
        format!("  ClusterID: {}", swarm["Cluster"]["ID"].as_str().unwrap_or_default()),
        format!("  Managers: {}", number(&swarm["Managers"])),
        format!("  Nodes: {}", number(&swarm["Nodes"])),
        format!("  Default Address Pool: {}", pools.join("  ")),
        format!("  SubnetSize: {}", number(&swarm["Cluster"]["SubnetSize"])),
        format!("  Data Path Port: {}", number(&swarm["Cluster"]["DataPathPort"])),
        "  Orchestration:".to_owned(),
        format!(
            "   Task History Retention Limit: {}",
            number(&spec["Orchestration"]["TaskHistoryRetentionLimit"])
        ),
        "  Raft:".to_owned(),
        format!("   Snapshot Interval: {}", number(&spec["Raft"]["SnapshotInterval"])),
        format!("   Number of Old Snapshots to Retain: {}", number(&spec["Raft"]["KeepOldSnapshots"])),
        "  Dispatcher:".to_owned(),
        format!("   Heartbeat Period: {}", time(&spec["Dispatcher"]["HeartbeatPeriod"])),
        "  CA Configuration:".to_owned(),
        format!("   Expiry Duration: {}", time(&spec["CAConfig"]["NodeCertExpiry"])),
        format!("   Force Rotate: {}", number(&spec["CAConfig"]["ForceRotate"])),
        format!("  Autolock Managers: {}", yes(&spec["EncryptionConfig"]["AutoLockManagers"])),
        format!("  Root Rotation In Progress: {}", yes(&swarm["Cluster"]["RootRotationInProgress"])),
    ]
}

/// Stops everything because the host goes down. The exit code is 1 if something did not stop.
///
/// # Errors
/// The daemon does not answer, or refuses.
pub(crate) async fn shutdown(client: &Client) -> Result<ExitCode> {
    let done = client.shut_down().await?;
    output::line(&format!("{} containers stopped", done.stopped))?;
    if done.swarm_told {
        output::line("the swarm knows that this host goes down")?;
    }
    if !done.swarm_error.is_empty() {
        output::warning(&format!(
            "the swarm was not told: {}; its managers wait for this host until they miss it",
            done.swarm_error
        ));
    }
    for left in &done.left {
        output::warning(&format!("container {} has not stopped: {}", left.name, left.reason));
    }
    Ok(if done.left.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Shows the versions. What this program is, it knows without a daemon, and says so before it fails for want of one.
///
/// # Errors
/// The daemon does not answer.
pub(crate) async fn version(client: &Client, args: &FormatArgs) -> Result<()> {
    let server = client.get::<Value>("/version", &[]).await;
    let mine = serde_json::json!({
        "Version": build::VERSION,
        "GitCommit": build::COMMIT,
        "CommitDate": build::COMMIT_DATE,
        "Target": build::TARGET,
        "Os": std::env::consts::OS,
        "Arch": std::env::consts::ARCH,
    });
    if let Some(format) = &args.format {
        let theirs = server.as_ref().ok().cloned().unwrap_or(Value::Null);
        output::line(&list::render(format, &serde_json::json!({"Client": mine, "Server": theirs}))?)?;
        server?;
        return Ok(());
    }
    output::line(&format!("Client: {}", build::VERSION))?;
    output::line(&format!("  Commit: {}", build::COMMIT))?;
    output::line(&format!("  Date: {}", build::COMMIT_DATE))?;
    output::line(&format!("  Target: {}", build::TARGET))?;
    let server = server?;
    let field = |name: &str| server.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    output::line(&format!("Server: {} (API {})", field("Version"), field("ApiVersion")))
}

/// Finds whatever has the name, as `docker inspect` does: container, image, volume, network, node, service, ...
pub(crate) async fn inspect(client: &Client, any: &InspectAnyArgs) -> Result<()> {
    const KINDS: [&str; 9] =
        ["containers", "images", "networks", "volumes", "services", "tasks", "nodes", "secrets", "configs"];
    let args = &any.inspect;
    let kinds =
        KINDS.into_iter().filter(|kinds| any.kind.as_ref().is_none_or(|kind| *kinds == format!("{kind}s")));
    let kinds: Vec<&'static str> = kinds.collect();
    let (mut all, mut missing) = (Vec::new(), Vec::new());
    'names: for name in &args.names {
        for kind in kinds.iter().copied() {
            match super::object(client, super::sized(kind, any.size), name).await {
                Ok(value) => {
                    all.push((kind, value));
                    continue 'names;
                }
                Err(error) if error.downcast_ref().is_some_and(is_absence) => {}
                Err(error) => return Err(error),
            }
        }
        let kind = any.kind.as_deref().unwrap_or("object");
        let missed = || format!("No such {kind}: {name}");
        if !["object", "container", "task"].contains(&kind) {
            missing.push(missed());
            continue;
        }
        // A task by its place, such as web.2, is no id of anything.
        match target::find(client, name).await {
            Ok(Some(named)) => {
                let task = named.newest(client).await?;
                all.push(("tasks", super::object(client, "tasks", &task.id).await?));
            }
            Ok(None) => missing.push(missed()),
            Err(error) if is_absence(&error) => missing.push(missed()),
            Err(error) => return Err(error.into()),
        }
    }
    super::show(&all, args.format.as_deref())?;
    if missing.is_empty() { Ok(()) } else { Err(anyhow::anyhow!(missing.join("\n"))) }
}

/// A host that is in no swarm has no services and so on.
fn is_absence(error: &docker_api::client::Error) -> bool {
    error.status().is_some_and(|status| matches!(status.as_u16(), 404 | 503))
}

/// Joins standard input and output with the daemon's socket until the daemon closes it. The end of standard input is
/// passed on and ends nothing by itself. *Source:* `docker system dial-stdio`.
pub(crate) async fn dial_stdio(client: &Client) -> Result<()> {
    let (mut from, mut to) = tokio::io::split(client.dial().await?);
    let input = async {
        tokio::io::copy(&mut tokio::io::stdin(), &mut to).await?;
        tokio::io::AsyncWriteExt::shutdown(&mut to).await?;
        std::future::pending::<std::io::Result<()>>().await
    };
    let output = async {
        let mut out = tokio::io::stdout();
        let (mut buffer, mut written) = (vec![0; 64 << 10], 0);
        loop {
            let count = tokio::io::AsyncReadExt::read(&mut from, &mut buffer).await?;
            if count == 0 {
                return Ok::<_, std::io::Error>(written);
            }
            tokio::io::AsyncWriteExt::write_all(&mut out, &buffer[..count]).await?;
            tokio::io::AsyncWriteExt::flush(&mut out).await?;
            written += count;
        }
    };
    tokio::select! {
        done = output => drop(done.context("the connection to the daemon broke")?),
        failed = input => failed.context("the connection to the daemon broke")?,
    }
    // A read of standard input that still waits must not keep the program.
    std::process::exit(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_says_how_its_swarm_is_set_in_words() {
        let hours = |n: u64| n * 3_600_000_000_000;
        let info = serde_json::json!({"Swarm": {"Managers": 3, "Nodes": 5, "Cluster": {
            "ID": "c1", "DefaultAddrPool": ["10.0.0.0/8"], "SubnetSize": 24, "DataPathPort": 4789,
            "Spec": {
                "Dispatcher": {"HeartbeatPeriod": 5_000_000_000_u64},
                "CAConfig": {"NodeCertExpiry": hours(2160)},
                "EncryptionConfig": {"AutoLockManagers": true},
            },
        }}});
        let lines = of_swarm(&info);
        for line in [
            "  Managers: 3",
            "  Default Address Pool: 10.0.0.0/8",
            "   Heartbeat Period: 5 seconds",
            "   Expiry Duration: 3 months",
            "  Autolock Managers: true",
            "  Root Rotation In Progress: false",
        ] {
            assert!(lines.iter().any(|shown| shown == line), "{line}: {lines:?}");
        }
        assert!(of_swarm(&serde_json::json!({"Swarm": {"Cluster": null}})).is_empty(), "a worker");
    }
}
