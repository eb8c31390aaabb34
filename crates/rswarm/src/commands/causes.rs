//! Why tasks do not run: in as few lines as there are causes, the cause first, and whether waiting can cure it.

use docker_api::types::Task;
use std::collections::{BTreeMap, BTreeSet};

/// What stands before a cause in an error of a node, outermost first. What is behind the last of them is the cause.
const WRAPPERS: [&str; 7] = [
    "failed to create task for container",
    "failed to create shim task",
    "OCI runtime create failed",
    "unable to start container process",
    "cannot create container",
    "cannot start container",
    "client error (Connect)",
];
/// How the client of registries ends what it says of a tag that is not there.
const UNKNOWN: &str = " not found: manifest unknown";
/// Nodes that are named in one line.
const NODES_MAX: usize = 3;
/// Attempts at one slot that were all rejected, for a reason that waiting does not cure: no other node comes up any more.
const ATTEMPTS_MAX: usize = 5;

/// One cause, and the tasks that have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause {
    /// Without what was around it.
    pub(crate) text: String,
    pub(crate) state: State,
    /// Slots whose newest attempt has it.
    pub(crate) slots: usize,
    /// One of these attempts; an id.
    pub(crate) task: String,
    /// Where these were; ids.
    nodes: BTreeSet<String>,
}

/// Where tasks stand that do not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// No node has room for it, or it has no address yet.
    Waits,
    /// Its node tries again by itself.
    Retries,
    Rejected,
    Failed,
}

impl Cause {
    /// Returns the cause and how far it reaches: `No such image: a:1 (2 tasks rejected on host1, host2)`.
    /// `names`: of nodes, by id.
    pub(crate) fn line(&self, names: &BTreeMap<String, String>) -> String {
        let tasks = if self.slots == 1 { "1 task".to_owned() } else { format!("{} tasks", self.slots) };
        let what = match (self.state, self.slots) {
            (State::Waits, 1) => "waits",
            (State::Waits, _) => "wait",
            (State::Retries, 1) => "tries again",
            (State::Retries, _) => "try again",
            (State::Rejected, _) => "rejected",
            (State::Failed, _) => "failed",
        };
        let name = |id: &String| names.get(id).cloned().unwrap_or_else(|| id.clone());
        let mut nodes: Vec<String> = self.nodes.iter().map(name).collect();
        nodes.sort();
        let more = nodes.len().saturating_sub(NODES_MAX);
        nodes.truncate(NODES_MAX);
        let place = match (nodes.is_empty(), more) {
            (true, _) => String::new(),
            (false, 0) => format!(" on {}", nodes.join(", ")),
            (false, more) => format!(" on {} and {more} more", nodes.join(", ")),
        };
        format!("{} ({tasks} {what}{place})", self.text)
    }
}

impl Cause {
    /// Is it but an exit code? What the program printed last says more.
    pub(crate) fn says_little(&self) -> bool {
        self.state == State::Failed && self.text.starts_with("task: non-zero exit (")
    }

    /// Returns the cause with what a program printed last.
    pub(crate) fn with_words(&self, words: Option<&str>) -> Self {
        match words {
            Some(words) => Self { text: format!("{}, last words: {words}", self.text), ..self.clone() },
            None => self.clone(),
        }
    }
}

/// Returns the cause in an error, without what stands around it: what an operation is called that many a cause ends is
/// no news.
pub(crate) fn plain(error: &str) -> String {
    let mut text = error.trim();
    if let Some(obstacles) = text.strip_prefix("no suitable node (").and_then(|t| t.strip_suffix(')')) {
        return obstacles.to_owned();
    }
    while let Some((outer, inner)) = text.split_once(": ")
        && WRAPPERS.iter().any(|wrapper| outer.starts_with(wrapper))
    {
        text = inner;
    }
    // The registry's word stays, for who looks it up.
    if let Some(image) = text.strip_prefix("manifest for ").and_then(|t| t.strip_suffix(UNKNOWN)) {
        return format!("image {image}{UNKNOWN}");
    }
    WRAPPERS.iter().fold(text.to_owned(), |text, wrapper| text.replace(&format!(": {wrapper}: "), ": "))
}

/// Slots of one service, each with its attempts, oldest first.
fn slots(tasks: &[Task]) -> BTreeMap<(u64, &str), Vec<&Task>> {
    let mut slots: BTreeMap<_, Vec<&Task>> = BTreeMap::new();
    for task in tasks {
        // A task of a global service has its node for a slot.
        let node = if task.slot == 0 { task.node_id.as_str() } else { "" };
        slots.entry((task.slot, node)).or_default().push(task);
    }
    for attempts in slots.values_mut() {
        attempts.sort_by_key(|task| task.created_at.timestamp());
    }
    slots
}

fn state(task: &Task) -> Option<State> {
    match task.status.state.as_str() {
        "new" | "pending" => Some(State::Waits),
        "rejected" => Some(State::Rejected),
        "failed" => Some(State::Failed),
        "preparing" | "ready" | "starting" => Some(State::Retries),
        _ => None,
    }
}

/// Returns the causes among the tasks of one service, those of the most slots first. Of a slot that runs there is none.
pub(crate) fn of(tasks: &[Task]) -> Vec<Cause> {
    let mut causes: BTreeMap<(String, State), Cause> = BTreeMap::new();
    for attempts in slots(tasks).into_values() {
        // The newest attempt that has something to say; one that is only on its way says nothing of the slot.
        let newest = attempts
            .iter()
            .rev()
            .take_while(|task| !matches!(task.status.state.as_str(), "running" | "complete"))
            .find(|task| !task.status.err.is_empty() && state(task).is_some());
        let Some(task) = newest else { continue };
        let Some(state) = state(task) else { continue };
        let text = plain(&task.status.err);
        let cause = causes.entry((text.clone(), state)).or_insert_with(|| Cause {
            text,
            state,
            slots: 0,
            task: task.id.clone(),
            nodes: BTreeSet::new(),
        });
        cause.slots += 1;
        // One that waits for a node has none, but for a global one's own.
        if !task.node_id.is_empty() {
            cause.nodes.insert(task.node_id.clone());
        }
    }
    let mut causes: Vec<Cause> = causes.into_values().collect();
    causes.sort_by(|a, b| b.slots.cmp(&a.slots).then_with(|| a.text.cmp(&b.text)));
    causes
}

/// What a rejection says about the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// No node can run it before somebody does something.
    Everywhere,
    /// This node cannot; another one may.
    Node,
    /// It may go by itself: something is out of reach, or busy.
    Passing,
}

/// Reads what our nodes, the engine and the registries' client say of themselves; whatever else there is may pass.
fn reach(error: &str) -> Reach {
    let is = |words: &[&str]| words.iter().any(|word| error.contains(word));
    if is(&["manifest unknown", "pull access denied", "invalid reference format", "no matching manifest for"])
    {
        Reach::Everywhere
    } else if is(&[
        "No such image",
        "error looking up volume plugin",
        "in v1 plugin registry: plugin not found",
        "bind source path does not exist",
        "invalid mount config",
        "log driver",
    ]) {
        Reach::Node
    } else {
        Reach::Passing
    }
}

/// Returns what to do about a cause, if that is known.
pub(crate) fn hint(text: &str) -> Option<&'static str> {
    let hints = [
        ("manifest unknown", "name a tag that the registry has, or push it there first"),
        (
            "pull access denied",
            "build or push the image first; where its registry wants an account, `rswarm login` and \
             --with-registry-auth",
        ),
        ("No such image", "build or push the image first, or load it on one node"),
        (
            "volume plugin",
            "drivers other than local are not served: leave `driver:` away, or use a bind mount",
        ),
        ("bind source path does not exist", "make the folder on the nodes, or say `create_host_path: true`"),
        ("no matching manifest for", "take an image that is built for the nodes' machines"),
    ];
    hints.into_iter().find(|(word, _)| text.contains(word)).map(|(_, hint)| hint)
}

/// A task that its node would not run.
#[derive(Debug)]
struct Rejection {
    reach: Reach,
    text: String,
    /// Id.
    node: String,
}

/// Those of one slot, by task.
type Rejections = BTreeMap<String, Rejection>;

/// What became of the attempts since a wait began.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    /// Those that had ended before; `None` before the first look.
    earlier: Option<BTreeSet<String>>,
    /// By slot. Managers forget old ones, this does not.
    rejected: BTreeMap<(u64, String), Rejections>,
}

impl Attempts {
    /// Takes note of the tasks of one service, and returns the cause if a slot of it has no hope: all its attempts were
    /// rejected, and for a reason that waiting does not cure. `nodes`: those that take tasks.
    pub(crate) fn note(&mut self, tasks: &[Task], nodes: &BTreeSet<String>) -> Option<String> {
        let ended = |task: &&Task| matches!(task.status.state.as_str(), "rejected" | "failed" | "complete");
        let earlier = self
            .earlier
            .get_or_insert_with(|| tasks.iter().filter(ended).map(|task| task.id.clone()).collect());
        for ((slot, node), attempts) in slots(tasks) {
            let key = (slot, node.to_owned());
            // What ran at least for a moment may run again.
            let ran = |task: &&&Task| {
                matches!(task.status.state.as_str(), "running" | "failed" | "complete" | "starting")
                    && !earlier.contains(&task.id)
            };
            if attempts.iter().any(|task| ran(&task)) {
                self.rejected.remove(&key);
                continue;
            }
            let known = self.rejected.entry(key).or_default();
            for task in attempts.iter().filter(|task| task.status.state == "rejected") {
                if !earlier.contains(&task.id) {
                    let (reach, text) = (reach(&task.status.err), plain(&task.status.err));
                    known.insert(task.id.clone(), Rejection { reach, text, node: task.node_id.clone() });
                }
            }
        }
        self.rejected.iter().find_map(|((slot, _), known)| hopeless(*slot, known, nodes))
    }
}

fn hopeless(slot: u64, known: &Rejections, nodes: &BTreeSet<String>) -> Option<String> {
    let first = known.values().next()?;
    let count = |wanted: Reach| known.values().filter(|rejection| rejection.reach == wanted).count();
    if count(Reach::Passing) > 0 {
        return None;
    }
    let tried: BTreeSet<&String> = known.values().map(|rejection| &rejection.node).collect();
    // A slot of a global service has one node, and no other one to hope for.
    let all = slot == 0 || (!nodes.is_empty() && nodes.iter().all(|node| tried.contains(node)));
    let enough = count(Reach::Everywhere) >= 2 || (known.len() >= 2 && all) || known.len() >= ATTEMPTS_MAX;
    enough.then(|| first.text.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(id: &str, slot: u64, node: &str, state: &str, err: &str) -> Task {
        let mut task = Task { id: id.into(), slot, node_id: node.into(), ..Task::default() };
        task.status.state = state.into();
        task.status.err = err.into();
        task
    }

    const NO_DRIVER: &str = "error looking up volume plugin x: plugin \"x\" not found";
    const NO_TAG: &str = "manifest for a:1 not found: manifest unknown";

    #[test]
    fn the_cause_stands_first() {
        for (error, cause) in [
            ("no suitable node (insufficient resources on 3 nodes)", "insufficient resources on 3 nodes"),
            (
                "failed to create task for container: failed to create shim task: OCI runtime create failed: unable \
                 to start container process: exec: \"/no\": stat /no: no such file or directory",
                "exec: \"/no\": stat /no: no such file or directory",
            ),
            (
                "cannot reach http://a/v2/: client error (Connect): Connection refused (os error 111)",
                "cannot reach http://a/v2/: Connection refused (os error 111)",
            ),
            ("task: non-zero exit (1)", "task: non-zero exit (1)"),
            ("No such image: a:1", "No such image: a:1"),
            ("manifest for a:1 not found: manifest unknown", "image a:1 not found: manifest unknown"),
        ] {
            assert_eq!(plain(error), cause);
        }
    }

    #[test]
    fn tasks_of_one_cause_are_one_line() {
        let names =
            BTreeMap::from([("n1".to_owned(), "host1".to_owned()), ("n2".to_owned(), "host2".to_owned())]);
        let lines = |tasks: &[Task]| of(tasks).iter().map(|cause| cause.line(&names)).collect::<Vec<_>>();
        let tasks = [
            task("a", 1, "n1", "rejected", "No such image: a:1"),
            task("b", 2, "n2", "rejected", "No such image: a:1"),
            task("c", 3, "", "pending", "no suitable node (insufficient resources on 2 nodes)"),
            task("d", 4, "n1", "running", ""),
        ];
        let wanted = [
            "No such image: a:1 (2 tasks rejected on host1, host2)",
            "insufficient resources on 2 nodes (1 task waits)",
        ];
        assert_eq!(lines(&tasks), wanted);
        let cured =
            [task("a", 1, "n1", "failed", "task: non-zero exit (1)"), task("b", 1, "n1", "running", "")];
        assert_eq!(lines(&cured), Vec::<String>::new(), "what runs has no cause");
        let again =
            [task("a", 1, "n1", "failed", "task: non-zero exit (1)"), task("b", 1, "n1", "ready", "")];
        assert_eq!(lines(&again), ["task: non-zero exit (1) (1 task failed on host1)"]);
        let (ended, waits) = (&of(&again)[0], &of(&tasks)[1]);
        assert!(ended.says_little() && !waits.says_little());
        assert_eq!(ended.task, "a");
        assert_eq!(
            ended.with_words(Some("no such word")).line(&names),
            "task: non-zero exit (1), last words: no such word (1 task failed on host1)"
        );
    }

    fn verdict(tasks: &[Task], nodes: &[&str]) -> Option<String> {
        let mut attempts = Attempts::default();
        let nodes = nodes.iter().map(|node| (*node).to_owned()).collect();
        attempts.note(&[], &nodes);
        attempts.note(tasks, &nodes)
    }

    #[test]
    fn what_no_node_can_run_has_no_hope_after_the_second_attempt() {
        let first = task("a", 1, "n1", "rejected", NO_TAG);
        assert_eq!(verdict(std::slice::from_ref(&first), &["n1", "n2"]), None);
        let second = task("b", 1, "n1", "rejected", NO_TAG);
        assert_eq!(verdict(&[first, second], &["n1", "n2"]), Some(plain(NO_TAG)));
    }

    #[test]
    fn what_a_node_cannot_run_another_one_may() {
        let on = |id: &str, node: &str| task(id, 1, node, "rejected", NO_DRIVER);
        assert_eq!(verdict(&[on("a", "n1"), on("b", "n1")], &["n1", "n2"]), None);
        assert!(verdict(&[on("a", "n1"), on("b", "n2")], &["n1", "n2"]).is_some());
        let many: Vec<Task> = ["a", "b", "c", "d", "e"].map(|id| on(id, "n1")).into();
        assert!(verdict(&many, &["n1", "n2"]).is_some(), "constraints may keep it off the other node");
    }

    #[test]
    fn hope_stays_where_waiting_may_help() {
        let out = |id: &str| task(id, 1, "n1", "rejected", "cannot reach http://a/v2/: Connection refused");
        let many: Vec<Task> = ["a", "b", "c", "d", "e", "f"].map(out).into();
        assert_eq!(verdict(&many, &["n1"]), None);
        let crash = task("a", 1, "n1", "failed", "task: non-zero exit (1)");
        assert_eq!(verdict(&[crash, task("b", 1, "n1", "rejected", NO_TAG)], &["n1"]), None);
        // What was rejected before the wait began says nothing of what was done about it since.
        let old = [task("a", 1, "n1", "rejected", NO_TAG), task("b", 1, "n1", "rejected", NO_TAG)];
        let mut attempts = Attempts::default();
        let nodes = BTreeSet::from(["n1".to_owned()]);
        assert_eq!(attempts.note(&old, &nodes), None);
        assert_eq!(attempts.note(&old, &nodes), None);
    }
}
