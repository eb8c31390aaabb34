//! Why a deploy failed: what the newest failed task of it said last.

use crate::commands::causes;
use anyhow::Result;
use docker_api::{client::Client, types};
use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use std::{collections::BTreeSet, time::Duration};

/// Lines of a task's log that are shown.
const LINES: &str = "10";
/// How long a node may take to show a log.
const PATIENCE: Duration = Duration::from_secs(5);

/// Describes the newest failed task of these services; `None` if none failed.
pub(super) async fn story(client: &Client, services: &BTreeSet<String>) -> Option<String> {
    let mut newest: Option<(String, types::Task)> = None;
    for name in services {
        let filters = serde_json::json!({"service": {name: true}}).to_string();
        for task in client.tasks(&[("filters", &filters)]).await.unwrap_or_default() {
            let failed = matches!(task.status.state.as_str(), "failed" | "rejected");
            let later = newest
                .as_ref()
                .is_none_or(|(_, t)| t.status.timestamp.timestamp() < task.status.timestamp.timestamp());
            if failed && later {
                newest = Some((name.clone(), task));
            }
        }
    }
    let (service, task) = newest?;
    let mut text = format!("task {} of service {service} {}", task.id, task.status.state);
    if let Some(status) = task.status.container_status.as_ref().filter(|s| s.exit_code != 0) {
        text += &format!(" with exit code {}", status.exit_code);
    }
    // That its exit code is none of success is said already.
    let why = causes::plain(&task.status.err);
    if !why.is_empty() && !why.starts_with("task: non-zero exit (") {
        text += &format!(": {why}");
    }
    if let Ok(Ok(log)) = tokio::time::timeout(PATIENCE, log(client, &task.id)).await
        && !log.trim().is_empty()
    {
        text += "\nits last words:";
        text.extend(log.lines().map(|line| format!("\n  | {line}")));
    }
    Some(text)
}

async fn log(client: &Client, task: &str) -> Result<String> {
    let query = [("stdout", "1"), ("stderr", "1"), ("tail", LINES)];
    let answer = client.logs("tasks", task, &query).await?;
    let mut bytes = Vec::new();
    let mut chunks = answer.into_body().into_data_stream();
    while let Some(chunk) = chunks.next().await {
        bytes.extend_from_slice(&chunk.map_err(std::io::Error::other)?);
    }
    Ok(unframed(&bytes))
}

/// Takes Docker's frames off: one byte of stream, three of nothing, four of length.
fn unframed(mut bytes: &[u8]) -> String {
    let mut text = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<8>() {
        let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let (content, rest) = rest.split_at(length.min(rest.len()));
        text.extend_from_slice(content);
        bytes = rest;
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn frames_are_taken_off() {
        let framed = b"\x01\0\0\0\0\0\0\x03ab\n\x02\0\0\0\0\0\0\x02c\n";
        assert_eq!(super::unframed(framed), "ab\nc\n");
    }
}
