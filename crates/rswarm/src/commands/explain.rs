//! `rswarm service explain`: why a service's tasks are where they are, do not run, or were replaced, and what each node
//! has against one more.

use super::{
    causes, shown,
    target::{self, Part, slot},
};
use crate::{list, output};
use anyhow::{Context as _, Result};
use docker_api::{client::Client, types};
use std::collections::BTreeMap;

/// Attempts of a slot that are told.
const ATTEMPTS_MAX: usize = 5;

/// Prints the explanation of a service, or of one slot of it.
///
/// # Errors
/// There is no such service or task, or the managers do not answer.
pub(crate) async fn run(client: &Client, name: &str) -> Result<()> {
    let (service, slot) = find(client, name).await?;
    let filters = serde_json::json!({"service": {&service.id: true}}).to_string();
    let mut tasks = client.tasks(&[("filters", &filters)]).await?;
    tasks.sort_by_key(|task| task.created_at.timestamp());
    let verdicts = client
        .service_explain(&service.id)
        .await
        .context("managers do not say what nodes have against it")?;
    let nodes = shown::node_names(client).await?;
    let all = client.tasks(&[]).await?;
    let story = Story { service: &service, tasks: &tasks, verdicts: &verdicts, nodes: &nodes, all: &all };
    story.lines(slot.as_deref()).iter().try_for_each(|line| output::line(line))
}

/// Finds a service, and the slot if it is a task that was named: by id, `web.2`, or `web.NODE`.
async fn find(client: &Client, name: &str) -> Result<(types::Service, Option<String>)> {
    let named = target::find(client, name).await?.with_context(|| {
        format!(
            "no such service or task: {name}; hint: `rswarm service ls` and `rswarm service ps` list them"
        )
    })?;
    let slot = match named.part {
        Part::All => None,
        Part::Slot(..) | Part::Task(_) => Some(slot(&named.newest(client).await?)),
    };
    Ok((named.service, slot))
}

/// All that is told.
struct Story<'a> {
    service: &'a types::Service,
    /// Of the service, oldest first.
    tasks: &'a [types::Task],
    verdicts: &'a [types::NodeVerdict],
    /// Names, by id.
    nodes: &'a BTreeMap<String, String>,
    /// Of the swarm.
    all: &'a [types::Task],
}

impl Story<'_> {
    fn lines(&self, only: Option<&str>) -> Vec<String> {
        let name = &self.service.spec.name;
        let mut slots: BTreeMap<(u64, String), Vec<&types::Task>> = BTreeMap::new();
        for task in self.tasks.iter().filter(|task| only.is_none_or(|only| slot(task) == *only)) {
            slots
                .entry((task.slot, if task.slot == 0 { task.node_id.clone() } else { String::new() }))
                .or_default()
                .push(task);
        }
        let running = self.tasks.iter().filter(|task| task.status.state == "running").count();
        let mut lines = vec![match only {
            None => format!("Service {name}: {running} running, {} slots", slots.len()),
            Some(slot) => format!("Task {name}.{}", self.place(slot)),
        }];
        if let Some(update) = &self.service.update_status
            && !update.state.is_empty()
        {
            lines.push(format!("  its last update is {}: {}", update.state, update.message));
        }
        for attempts in slots.values() {
            lines.extend(self.slot(attempts));
        }
        lines.push(String::new());
        lines.extend(self.against_one_more());
        lines
    }

    /// What became of the attempts at a slot, and why the newest is where it is.
    fn slot(&self, attempts: &[&types::Task]) -> Vec<String> {
        let Some((newest, earlier)) = attempts.split_last() else { return Vec::new() };
        let title = format!("{}.{}", self.service.spec.name, self.place(&slot(newest)));
        let mut lines = vec![format!("{title}: {}", self.state(newest))];
        if !is_current(newest, self.service) {
            lines.push("  still of the spec before: the update has not come to it".to_owned());
        }
        for task in earlier.iter().rev().take(ATTEMPTS_MAX) {
            let why = if is_current(task, self.service) { "" } else { ", of a spec before" };
            lines.push(format!("  before it: {}{why}", self.state(task)));
        }
        lines
    }

    fn state(&self, task: &types::Task) -> String {
        let age = list::human(list::now().since(task.status.timestamp.timestamp())).to_lowercase();
        let mut text = task.status.state.clone();
        if !task.node_id.is_empty() {
            text += &format!(" on {}", self.place(&task.node_id));
        }
        if task.desired_state == "shutdown"
            && !matches!(task.status.state.as_str(), "failed" | "rejected" | "complete")
        {
            text += ", told to stop";
        }
        text += &format!(", {age} ago");
        if !task.status.err.is_empty() {
            text += &format!(": {}", causes::plain(&task.status.err));
        }
        text
    }

    /// A node's name, if it is one; else as it is.
    fn place(&self, id: &str) -> String {
        self.nodes.get(id).cloned().unwrap_or_else(|| id.to_owned())
    }

    fn against_one_more(&self) -> Vec<String> {
        let able = self.verdicts.iter().filter(|verdict| verdict.obstacles.is_empty()).count();
        let mut lines = vec![format!("One more task: {able} of {} nodes could take it", self.verdicts.len())];
        let live = |task: &&types::Task| {
            matches!(task.desired_state.as_str(), "running" | "ready") && !task.node_id.is_empty()
        };
        for verdict in self.verdicts {
            let here = |task: &&types::Task| task.node_id == verdict.node_id;
            let its = self.tasks.iter().filter(live).filter(here).count();
            let all = self.all.iter().filter(live).filter(here).count();
            let failed = self.tasks.iter().filter(here);
            let failed = failed.filter(|t| matches!(t.status.state.as_str(), "failed" | "rejected")).count();
            let name = self.place(&verdict.node_id);
            lines.push(match verdict.obstacles.as_slice() {
                [] => format!(
                    "  {name}: yes; it has {its} of this service's tasks and {all} in all, {failed} of this service \
                     failed there"
                ),
                [one] => format!("  {name}: no, and only for this: {one}"),
                many => format!("  {name}: no: {}", many.join("; ")),
            });
        }
        if able > 1 {
            lines.push(
                "  chosen is the one with the fewest failures, then with the fewest of its tasks, then with the fewest \
                 in all; spread preferences come first"
                    .to_owned(),
            );
        }
        lines
    }
}

/// Where a task may run is no reason to replace it.
fn is_current(task: &types::Task, service: &types::Service) -> bool {
    let wanted = |spec: &types::TaskSpec| types::TaskSpec { placement: None, ..spec.clone() };
    wanted(&task.spec) == wanted(&service.spec.task_template)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(slot: u64, node: &str, state: &str, desired: &str, err: &str) -> types::Task {
        let mut task =
            types::Task { slot, node_id: node.into(), desired_state: desired.into(), ..Default::default() };
        task.status.state = state.into();
        task.status.err = err.into();
        task.status.timestamp = list::now().into();
        task
    }

    #[test]
    fn a_service_is_explained_slot_by_slot_and_node_by_node() {
        let mut service = types::Service::default();
        service.spec.name = "web".into();
        let verdict = |node: &str, obstacles: &[&str]| types::NodeVerdict {
            node_id: node.into(),
            obstacles: obstacles.iter().map(|o| (*o).to_owned()).collect(),
        };
        let tasks = [
            task(1, "n1", "failed", "shutdown", "task: non-zero exit (1)"),
            task(1, "n2", "running", "running", ""),
            task(2, "", "pending", "running", "no suitable node (insufficient resources on 3 nodes)"),
        ];
        let verdicts = [
            verdict("n1", &["reserves 4.00 CPUs, 1.00 are free"]),
            verdict(
                "n2",
                &["reserves 4.00 CPUs, 1.00 are free", "constraint not satisfied: node.labels.a==b"],
            ),
        ];
        let nodes = BTreeMap::from([("n1".into(), "host1".into()), ("n2".into(), "host2".into())]);
        let story =
            Story { service: &service, tasks: &tasks, verdicts: &verdicts, nodes: &nodes, all: &tasks };
        let age = "less than a second ago";
        let wanted = [
            "Service web: 1 running, 2 slots".to_owned(),
            format!("web.1: running on host2, {age}"),
            format!("  before it: failed on host1, {age}: task: non-zero exit (1)"),
            format!("web.2: pending, {age}: insufficient resources on 3 nodes"),
            String::new(),
            "One more task: 0 of 2 nodes could take it".to_owned(),
            "  host1: no, and only for this: reserves 4.00 CPUs, 1.00 are free".to_owned(),
            "  host2: no: reserves 4.00 CPUs, 1.00 are free; constraint not satisfied: node.labels.a==b"
                .to_owned(),
        ];
        assert_eq!(story.lines(None), wanted);
        assert_eq!(story.lines(Some("2"))[..2], ["Task web.2".to_owned(), wanted[3].clone()]);
    }
}
