//! Containers by whatever a person calls them: their own name or id, a task (`web.2`, `agent.HOST`, an id), a service.
//!
//! ```text
//!  web.2  --> a container of this host? --> a service? --> a slot of one? --> a task's id? --> the container's id
//! ```
//! What is of this host comes first, as without a swarm. Which node has the container, and whether who asks may act in
//! it, is the front door's matter: it leads a request to wherever the container with that id is.

use super::{causes, shown};
use crate::output;
use anyhow::{Error, Result, anyhow, bail};
use docker_api::{
    client::{self, Client},
    server::NOT_A_MANAGER,
    types,
};
use std::collections::BTreeMap;

/// Something of the swarm that has a name.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) service: types::Service,
    pub(crate) part: Part,
}

/// How much of a service is meant.
#[derive(Debug)]
pub(crate) enum Part {
    All,
    /// Its number; of a global service a node's id or name. With the beginning of a task's id if one was named.
    Slot(String, Option<String>),
    Task(Box<types::Task>),
}

/// A container somewhere in the swarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Container {
    /// What the front door finds it by.
    pub(crate) id: String,
    /// Of its task: `web.2`; else as it was typed.
    name: String,
    /// The node of its task.
    host: Option<String>,
}

impl Container {
    /// Returns what people call it: `web.2 on host3`.
    pub(crate) fn title(&self) -> String {
        match &self.host {
            Some(host) => format!("{} on {host}", self.name),
            None => self.name.clone(),
        }
    }
}

/// Finds a service, or a task by id or by its place: `web.2`, `web.2.ID`, `agent.HOST`. `None`: there is no such thing.
///
/// # Errors
/// The managers do not answer, or not to this person.
pub(crate) async fn find(client: &Client, name: &str) -> client::Result<Option<Named>> {
    if let Some(service) = or_none(client.service(name).await)? {
        return Ok(Some(Named { service, part: Part::All }));
    }
    // Services' names may have dots, too: the longest beginning that is one.
    for (at, _) in name.rmatch_indices('.') {
        let Some(service) = or_none(client.service(&name[..at]).await)? else { continue };
        let place = &name[at + 1..];
        let (slot, task) = match place.split_once('.') {
            // A host's name has dots, a number has none.
            Some((slot, task))
                if service.spec.mode.global.is_none() && service.spec.mode.global_job.is_none() =>
            {
                (slot, Some(task.to_owned()))
            }
            _ => (place, None),
        };
        return Ok(Some(Named { service, part: Part::Slot(slot.to_owned(), task) }));
    }
    let Some(task) = or_none(client.task(name).await)? else { return Ok(None) };
    let service = client.service(&task.service_id).await?;
    Ok(Some(Named { service, part: Part::Task(Box::new(task)) }))
}

fn or_none<T>(answer: client::Result<T>) -> client::Result<Option<T>> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the number of a task's slot; of a task of a global service its node's id.
pub(crate) fn slot(task: &types::Task) -> String {
    if task.slot == 0 { task.node_id.clone() } else { task.slot.to_string() }
}

fn container_of(task: &types::Task) -> Option<&str> {
    let status = task.status.container_status.as_ref()?;
    (!status.container_id.is_empty()).then_some(status.container_id.as_str())
}

fn runs(task: &types::Task) -> bool {
    matches!(task.status.state.as_str(), "starting" | "running") && container_of(task).is_some()
}

impl Named {
    /// Returns the tasks that are meant: by slot, the newest attempt at each first. `hosts`: nodes' names, by id.
    async fn tasks(
        &self,
        client: &Client,
        hosts: &BTreeMap<String, String>,
    ) -> client::Result<Vec<types::Task>> {
        let (wanted, attempt) = match &self.part {
            Part::Task(task) => return Ok(vec![types::Task::clone(task)]),
            Part::All => (None, None),
            Part::Slot(wanted, attempt) => (Some(wanted), attempt.as_deref()),
        };
        let filters = serde_json::json!({"service": {&self.service.id: true}}).to_string();
        let mut tasks = client.tasks(&[("filters", &filters)]).await?;
        // The filter takes what begins so, too.
        tasks.retain(|task| {
            let here = |wanted: &String| {
                let of_host = task.slot == 0 && hosts.get(&task.node_id) == Some(wanted);
                slot(task) == *wanted || of_host
            };
            task.service_id == self.service.id
                && wanted.is_none_or(here)
                && attempt.is_none_or(|id| task.id.starts_with(id))
        });
        tasks.sort_by(|a, b| {
            let place = |task: &types::Task| {
                (task.slot, hosts.get(&task.node_id).filter(|_| task.slot == 0).cloned())
            };
            let newest_first = || b.created_at.timestamp().cmp(&a.created_at.timestamp());
            place(a).cmp(&place(b)).then_with(newest_first)
        });
        Ok(tasks)
    }

    /// Returns the newest attempt of what is meant; of a task that was named itself, that one.
    ///
    /// # Errors
    /// There is none.
    pub(crate) async fn newest(&self, client: &Client) -> Result<types::Task> {
        let hosts = shown::node_names(client).await?;
        let tasks = self.tasks(client, &hosts).await?;
        let newest = tasks.into_iter().next();
        newest.ok_or_else(|| anyhow!("{}; {}", self.no_such_task(), self.hint()))
    }

    fn no_such_task(&self) -> String {
        let name = &self.service.spec.name;
        match &self.part {
            Part::Slot(slot, None) => format!("service {name} has no task {name}.{slot}"),
            Part::Slot(slot, Some(task)) => format!("service {name} has no task {name}.{slot}.{task}"),
            Part::All | Part::Task(_) => format!("service {name} has no task"),
        }
    }

    fn hint(&self) -> String {
        format!("hint: `rswarm service ps {}` lists what there is", self.service.spec.name)
    }

    /// Returns the containers that run; where a slot or task was named and none runs, the last one that it had.
    async fn containers(&self, client: &Client) -> Result<Vec<Container>> {
        let hosts = shown::node_names(client).await?;
        let tasks = self.tasks(client, &hosts).await?;
        let mut found: Vec<Container> =
            tasks.iter().filter(|task| runs(task)).filter_map(|task| self.container(task, &hosts)).collect();
        if found.is_empty() && !matches!(self.part, Part::All) {
            found.extend(tasks.iter().find_map(|task| self.container(task, &hosts)));
        }
        if !found.is_empty() {
            return Ok(found);
        }
        if tasks.is_empty() && !matches!(self.part, Part::All) {
            bail!("{}; {}", self.no_such_task(), self.hint());
        }
        let why = causes::of(&tasks);
        let why = why.first().map(|cause| format!(": {}", cause.line(&hosts))).unwrap_or_default();
        let what = match &self.part {
            Part::All => format!("service {} has no running task", self.service.spec.name),
            Part::Slot(..) | Part::Task(_) => "this task has no container".to_owned(),
        };
        bail!("{what}{why}\n{}", self.hint())
    }

    fn container(&self, task: &types::Task, hosts: &BTreeMap<String, String>) -> Option<Container> {
        let host = hosts.get(&task.node_id).unwrap_or(&task.node_id);
        let place = if task.slot == 0 { host.clone() } else { task.slot.to_string() };
        let name = format!("{}.{place}", self.service.spec.name);
        container_of(task).map(|id| Container { id: id.to_owned(), name, host: Some(host.clone()) })
    }
}

/// Is this how the front door says that there is no such container on this host, or that this person cannot know?
pub(crate) fn is_not_here(error: &client::Error) -> bool {
    error.status().is_some_and(|status| matches!(status.as_u16(), 403 | 404))
}

/// Finds what a name stands for in the swarm that is no container here. `missing`: how the front door said so.
///
/// # Errors
/// `missing`, where the swarm has nothing of that name either, or there is no swarm; with why, where it cannot be asked.
pub(crate) async fn beyond(client: &Client, name: &str, missing: client::Error) -> Result<Named> {
    match find(client, name).await {
        Ok(Some(named)) => Ok(named),
        Ok(None) => Err(missing.into()),
        Err(error) if error.to_string().contains(NOT_A_MANAGER) => Err(anyhow!(
            "{missing}; whether it is a service or task, managers say to users of the swarm\nhint: log in with `rswarm user \
             login`"
        )),
        // A host that is in no swarm, and who has no business there.
        Err(error) if error.status().is_some_and(|s| matches!(s.as_u16(), 403 | 503)) => Err(missing.into()),
        Err(error) => Err(error.into()),
    }
}

/// Returns all containers that a name stands for: itself, a task's, or those of all running tasks of a service.
///
/// # Errors
/// There is nothing of that name, or nothing of it runs, with the cause.
pub(crate) async fn all(client: &Client, name: &str) -> Result<Vec<Container>> {
    match client.container(name).await {
        Ok(_) => Ok(vec![Container { id: name.to_owned(), name: name.to_owned(), host: None }]),
        Err(missing) if is_not_here(&missing) => {
            beyond(client, name, missing).await?.containers(client).await
        }
        Err(error) => Err(error.into()),
    }
}

/// Returns what the front door knows the container by that a name stands for. Of a service with several tasks it is that
/// of the first, which is told.
///
/// # Errors
/// As [`all`].
pub(crate) async fn one(client: &Client, name: &str) -> Result<String> {
    let mut found = all(client, name).await?;
    if let [first, second, ..] = found.as_slice() {
        let (count, this, other) = (found.len(), first.title(), &second.name);
        output::progress(&format!(
            "{name} has {count} running tasks; this is {this}; hint: {other} is another"
        ));
    }
    Ok(found.swap_remove(0).id)
}

/// Returns the container of a task that is to be ended. `verb`: of the command.
///
/// # Errors
/// As [`all`]; a service was named, which is not stopped so.
pub(crate) async fn to_end(client: &Client, name: &str, verb: &str) -> Result<String> {
    let missing = match client.container(name).await {
        Ok(_) => return Ok(name.to_owned()),
        Err(missing) if is_not_here(&missing) => missing,
        Err(error) => return Err(error.into()),
    };
    let named = beyond(client, name, missing).await?;
    match &named.part {
        Part::All => Err(not_ended_so(name, verb)),
        Part::Slot(..) | Part::Task(_) => Ok(named.containers(client).await?.swap_remove(0).id),
    }
}

fn not_ended_so(name: &str, verb: &str) -> Error {
    anyhow!(
        "{name} is a service, and gets a new task for each that ends\nhint: `rswarm scale {name}=0` stops it, `rswarm {verb} \
         {name}.1` ends one of its tasks, `rswarm service update --force {name}` replaces them all"
    )
}
