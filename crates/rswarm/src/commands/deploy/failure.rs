//! Why a deploy failed: what the newest failed task of it said last.

use crate::commands::{causes, last_words};
use docker_api::{client::Client, types};
use std::collections::BTreeSet;

/// Lines of a task's log that are shown.
const LINES: u32 = 10;

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
    if let Ok(log) = last_words::of(client, &task.id, LINES).await
        && !log.trim().is_empty()
    {
        text += "\nits last words:";
        text.extend(log.lines().map(|line| format!("\n  | {line}")));
    }
    Some(text)
}
