//! Where the tasks of a plan would go, and which would not run: the managers try it and change nothing.

use super::plan::Plan;
use crate::{
    commands::{causes, converge::CannotRun, shown},
    output,
};
use anyhow::Result;
use docker_api::{client::Client, types};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What managers of before answer to what they do not know.
const NOT_KNOWN: [u16; 2] = [404, 501];

/// By service, as the managers foresee it.
#[derive(Debug, Default)]
pub(super) struct Outlook {
    services: Vec<types::Outlook>,
    /// Names of nodes, by id.
    nodes: BTreeMap<String, String>,
}

impl Outlook {
    /// Asks the managers. Those of before do not foresee anything: that is a warning.
    ///
    /// # Errors
    /// [`CannotRun`]: they would refuse the deploy, with their reason; or none of them answers.
    pub(super) async fn ask(client: &Client, plan: &Plan) -> Result<Self> {
        match client.stack_foresee(&plan.stack, &plan.apply).await {
            Ok(services) => Ok(Self { services, nodes: shown::node_names(client).await? }),
            Err(error) if error.status().is_some_and(|s| NOT_KNOWN.contains(&s.as_u16())) => {
                output::warning(
                    "where tasks would go is not said: this takes a leader of this version; hint: upgrade all managers",
                );
                Ok(Self::default())
            }
            Err(error) if error.status().is_some_and(|status| status.is_client_error()) => {
                Err(CannotRun::new(format!("the managers would refuse it: {error}")).into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Returns true if no task would be left without a node.
    pub(super) fn all_run(&self) -> bool {
        self.services.iter().all(|service| service.waiting.is_empty())
    }

    /// Returns it for people; of a plan without changes only what does not run.
    pub(super) fn lines(&self, only_waiting: bool) -> Vec<String> {
        let shown = self.services.iter().filter(|service| !only_waiting || !service.waiting.is_empty());
        let shown: Vec<&types::Outlook> = shown.collect();
        if shown.is_empty() {
            return Vec::new();
        }
        let width = shown.iter().map(|service| service.service.len()).max().unwrap_or(0);
        let mut lines = vec!["Where tasks would run:".to_owned()];
        for service in shown {
            let name = |id: &String| self.nodes.get(id).cloned().unwrap_or_else(|| id.clone());
            let mut placed: Vec<String> = service
                .placed
                .iter()
                .map(|on| match on.tasks {
                    1 => name(&on.node_id),
                    tasks => format!("{} ({tasks})", name(&on.node_id)),
                })
                .collect();
            placed.sort();
            let mut text = if placed.is_empty() { "nowhere".to_owned() } else { placed.join(", ") };
            if !service.is_whole {
                text += "; not looked at to the end of its update";
            }
            lines.push(format!("  {:width$}  {text}", service.service));
            for waiting in &service.waiting {
                let tasks =
                    if waiting.tasks == 1 { "1 task".to_owned() } else { format!("{} tasks", waiting.tasks) };
                lines.push(format!(
                    "  {:width$}  ! {} ({tasks} would wait)",
                    "",
                    causes::plain(&waiting.reason)
                ));
            }
        }
        lines
    }

    /// Returns it for programs.
    pub(super) fn json(&self) -> Value {
        let service = |service: &types::Outlook| {
            let placed = service.placed.iter().map(
                |on| json!({"node": on.node_id, "hostname": self.nodes.get(&on.node_id), "tasks": on.tasks}),
            );
            let waiting = service.waiting.iter().map(|w| json!({"reason": w.reason, "tasks": w.tasks}));
            json!({
                "service": service.service, "placed": placed.collect::<Vec<_>>(),
                "waiting": waiting.collect::<Vec<_>>(), "whole": service.is_whole,
            })
        };
        self.services.iter().map(service).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_not_run_stands_below_its_service() {
        let placed = |node: &str, tasks| types::OutlookPlaced { node_id: node.into(), tasks };
        let reason = "no suitable node (insufficient resources on 2 nodes)".to_owned();
        let outlook = Outlook {
            services: vec![
                types::Outlook {
                    service: "shop_web".into(),
                    placed: vec![placed("n1", 2), placed("n2", 1)],
                    waiting: Vec::new(),
                    is_whole: true,
                },
                types::Outlook {
                    service: "shop_db".into(),
                    placed: Vec::new(),
                    waiting: vec![types::OutlookWaiting { reason, tasks: 1 }],
                    is_whole: true,
                },
            ],
            nodes: BTreeMap::from([("n1".into(), "host1".into()), ("n2".into(), "host2".into())]),
        };
        let db =
            ["  shop_db   nowhere", "            ! insufficient resources on 2 nodes (1 task would wait)"];
        let all = ["Where tasks would run:", "  shop_web  host1 (2), host2", db[0], db[1]];
        assert_eq!(outlook.lines(false), all);
        assert_eq!(outlook.lines(true).len(), 3);
        assert!(!outlook.all_run());
        assert!(Outlook::default().all_run() && Outlook::default().lines(false).is_empty());
    }
}
