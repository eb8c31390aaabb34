//! What one agent has said and the leader has not heard yet: bounded, however much it says. An agent's host may be in
//! others' hands, and what it says of itself and its tasks is kept by every manager.

use super::report_from_wire;
use crate::inbox::Observation;
use model::{NodeDescription, NodeId, TaskStatus};
use prost::Message as _;
use proto::{dispatcher::StatusReport, types};
use tonic::Status;

/// *Limit* of what waits for the leader; an agent that says more is not listened to meanwhile. *Unit:* bytes.
const WAITING_BYTES_MAX: usize = 8 << 20;
/// What a word costs beside its text. *Unit:* bytes.
const WORD_BYTES: usize = 512;
/// *Limit* of what a node says of itself. *Unit:* bytes.
const DESCRIPTION_BYTES_MAX: usize = 256 << 10;
/// *Limit* of its name. Source: `HOST_NAME_MAX` is 64; names with domains have 253. *Unit:* bytes.
const HOSTNAME_BYTES_MAX: usize = 255;
/// *Limit* of what is kept of why a task is as it is. *Unit:* bytes.
const TEXT_BYTES_MAX: usize = 4 << 10;
/// *Limit* of the name that an engine gives to a container. *Unit:* bytes.
const CONTAINER_ID_BYTES_MAX: usize = 128;

#[derive(Debug, Default)]
pub(super) struct Heard {
    /// To be acknowledged once the leader has heard.
    sequences: Vec<u64>,
    observation: Observation,
    /// *Unit:* bytes.
    waiting: usize,
}

impl Heard {
    /// Takes what a node says of itself; only the newest counts.
    ///
    /// # Errors
    /// As [`judge`].
    pub(super) fn description(&mut self, node: NodeId, description: NodeDescription) -> Result<(), Status> {
        self.waiting += judge(&description)?;
        self.observation.nodes = vec![(node, description)];
        Ok(())
    }

    /// Takes what a node says of its tasks; of long texts the beginning.
    ///
    /// # Errors
    /// INVALID_ARGUMENT: it cannot be read.
    pub(super) fn statuses(&mut self, node: NodeId, report: StatusReport) -> Result<(), Status> {
        let invalid = |e: proto::Invalid| Status::invalid_argument(e.to_string());
        self.waiting += report.encoded_len() + WORD_BYTES * (1 + report.tasks.len());
        for task in report.tasks {
            let (id, mut status) = report_from_wire(task).map_err(invalid)?;
            shorten(&mut status)?;
            self.observation.tasks.push((node, id, status));
        }
        self.sequences.push(report.sequence);
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sequences.is_empty() && self.observation.is_empty()
    }

    /// Returns true until the leader has heard some of it.
    pub(super) fn is_full(&self) -> bool {
        self.waiting >= WAITING_BYTES_MAX
    }

    /// Returns what waits, with what is to be acknowledged then.
    pub(super) fn take(&mut self) -> (Vec<u64>, Observation) {
        let Self { sequences, observation, .. } = std::mem::take(self);
        (sequences, observation)
    }
}

/// Returns how long a description is.
///
/// # Errors
/// INVALID_ARGUMENT: longer than is kept of a node, or with a name that is none.
pub(super) fn judge(description: &NodeDescription) -> Result<usize, Status> {
    let bytes = types::NodeDescription::from(description).encoded_len();
    if bytes > DESCRIPTION_BYTES_MAX {
        return Err(Status::invalid_argument(format!(
            "this node says {bytes} bytes of itself, and {DESCRIPTION_BYTES_MAX} at most are kept; hint: labels of the \
             engine and generic resources are what can be so long"
        )));
    }
    let name = &description.hostname;
    if name.len() > HOSTNAME_BYTES_MAX || name.chars().any(char::is_control) {
        let name: String = name.chars().take(40).collect();
        return Err(Status::invalid_argument(format!(
            "{name:?} is no host name: it has control characters, or more than {HOSTNAME_BYTES_MAX} bytes"
        )));
    }
    Ok(bytes + WORD_BYTES)
}

fn shorten(status: &mut TaskStatus) -> Result<(), Status> {
    for text in std::iter::once(&mut status.message).chain(&mut status.error) {
        if text.len() > TEXT_BYTES_MAX {
            let end = (0..=TEXT_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            text.truncate(end);
            text.push_str(" ...");
        }
    }
    match &status.container {
        Some(container) if container.container_id.len() > CONTAINER_ID_BYTES_MAX => Err(
            Status::invalid_argument(format!("a container's id has at most {CONTAINER_ID_BYTES_MAX} bytes")),
        ),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::state::state;
    use model::{ContainerStatus, TaskId};
    use proto::{WireId as _, dispatcher::TaskReport};

    fn report(sequence: u64, tasks: usize, error: &str, container: &str) -> StatusReport {
        let container = ContainerStatus { container_id: container.to_owned(), ..ContainerStatus::default() };
        let status =
            TaskStatus { error: Some(error.to_owned()), container: Some(container), ..TaskStatus::default() };
        let task = || TaskReport { task: TaskId(7).to_wire(), status: Some((&status).into()) };
        StatusReport { sequence, tasks: (0..tasks).map(|_| task()).collect() }
    }

    #[test]
    fn an_agent_that_floods_is_not_listened_to_until_the_leader_has_heard() {
        let mut heard = Heard::default();
        let mut reports = 0;
        while !heard.is_full() {
            heard.statuses(NodeId(1), report(reports, 100, "x", "c")).unwrap();
            reports += 1;
            assert!(reports < 10_000, "it never has enough");
        }
        assert!(reports > 10, "what honest agents say has room");
        let mut only_numbers = Heard::default();
        let mut sequences = 0;
        while !only_numbers.is_full() {
            only_numbers.statuses(NodeId(1), report(sequences, 0, "", "")).unwrap();
            sequences += 1;
            assert!(sequences < 100_000, "nor of reports of nothing");
        }
        let (sequences, observation) = heard.take();
        assert_eq!((sequences.len() as u64, observation.tasks.len() as u64), (reports, reports * 100));
        assert!(heard.is_empty() && !heard.is_full());
    }

    #[test]
    fn of_a_long_story_the_beginning_is_kept() {
        let mut heard = Heard::default();
        heard.statuses(NodeId(1), report(1, 1, &"é".repeat(1 << 20), "c")).unwrap();
        let (_, observation) = heard.take();
        let error = observation.tasks[0].2.error.clone().unwrap();
        assert!(error.len() < 5000 && error.starts_with("éé") && error.ends_with(" ..."), "{}", error.len());
        heard.statuses(NodeId(1), report(1, 1, "", &"c".repeat(1000))).unwrap_err();
    }

    #[test]
    fn a_node_says_no_more_of_itself_than_is_kept_and_the_newest_counts() {
        let tables = state().cluster().node(1).tables();
        let plain = tables.nodes.get(&NodeId(1)).unwrap().description.clone().unwrap();
        let mut heard = Heard::default();
        for n in 0..5 {
            let description = NodeDescription { engine_version: n.to_string(), ..plain.clone() };
            heard.description(NodeId(1), description).unwrap();
        }
        let (_, observation) = heard.take();
        assert_eq!(observation.nodes.len(), 1);
        assert_eq!(observation.nodes[0].1.engine_version, "4");
        let labels = [("a".to_owned(), "x".repeat(1 << 20))].into();
        for (lie, words) in [
            (NodeDescription { engine_labels: labels, ..plain.clone() }, "bytes of itself"),
            (NodeDescription { hostname: "x".repeat(300), ..plain.clone() }, "is no host name"),
            (NodeDescription { hostname: "\u{1b}[2Jhost".into(), ..plain.clone() }, "is no host name"),
            (NodeDescription { engine_version: "9".repeat(1 << 20), ..plain }, "bytes of itself"),
        ] {
            let refused = heard.description(NodeId(1), lie).unwrap_err();
            assert!(refused.message().contains(words), "{refused}");
        }
        assert!(heard.is_empty());
    }
}
