//! What services write as templates: a task's host name, environment and mounts, and the data of its secrets and configs.
//! The manager judges them with [`container`] and the node fills them in with it, so both read the same fields.
//!
//! Source: Docker "service create", section "Create services using templates"; swarmkit `template/{context,expand}.go`.

use crate::{Error, Template, Value, Words, fill};
use model::{ContainerSpec, MountKind, NodeId, Platform, Slot, Task};
use serde_json::json;
use std::collections::BTreeMap;

/// What stands for `.` in the templates of one task.
#[derive(Debug, Clone)]
pub struct Values(Value);

/// The node that a task is on.
#[derive(Debug, Clone, Copy)]
pub struct Node<'a> {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub hostname: &'a str,
    /// What it is, in the words that its description has.
    pub platform: &'a Platform,
}

impl Values {
    /// Returns the values of a task on a node.
    #[must_use]
    pub fn new(task: &Task, node: Node<'_>) -> Self {
        let slot = match task.slot {
            Slot::Replica(n) => n.to_string(),
            Slot::Node(node) => node.to_string(),
        };
        Self::of(
            json!({"ID": task.service.to_string(), "Name": task.service_name, "Labels": task.service_labels}),
            node,
            json!({"ID": task.id.to_string(), "Name": task.container_name(), "Slot": slot}),
        )
    }

    /// Returns values as the first task of a service would have them: what a manager judges templates with before there is
    /// a task.
    #[must_use]
    pub fn example(service: &str, labels: &model::Labels) -> Self {
        let platform = Platform { os: "linux".to_owned(), architecture: "x86_64".to_owned() };
        Self::of(
            json!({"ID": "serviceid", "Name": service, "Labels": labels}),
            Node { id: NodeId(1), hostname: "node", platform: &platform },
            json!({"ID": "taskid", "Name": format!("{service}.1.taskid"), "Slot": "1"}),
        )
    }

    fn of(service: Value, node: Node<'_>, task: Value) -> Self {
        let platform = json!({"OS": node.platform.os, "Architecture": node.platform.architecture});
        let node = json!({"ID": node.id.to_string(), "Hostname": node.hostname, "Platform": platform});
        Self(json!({"Service": service, "Node": node, "Task": task}))
    }

    /// Fills in one text.
    ///
    /// # Errors
    /// It is not a template, or asks for what a task does not have.
    pub fn fill(&self, text: &str) -> Result<String, Error> {
        // Most texts are none.
        if text.contains("{{") { fill(text, &self.0, &Placeholders) } else { Ok(text.to_owned()) }
    }

    /// Fills in the data of a secret or config whose template driver is `golang`.
    ///
    /// # Errors
    /// As [`Values::fill`]; what the container does not have too.
    pub fn payload(&self, data: &[u8], has: &Payload<'_>) -> Result<Vec<u8>, Error> {
        fill(text(data)?, &self.0, has).map(String::into_bytes)
    }
}

/// Says whether the data of a secret or config is a template, before there is a container that it is for.
///
/// # Errors
/// [`Error::Parse`]; [`Error::Run`] for data that is no text.
pub fn check_payload(data: &[u8]) -> Result<(), Error> {
    Template::parse(text(data)?, &Payload::default()).map(drop)
}

fn text(data: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(data)
        .map_err(|_| Error::Run("data with a template driver must be UTF-8 text".to_owned()))
}

/// Fills in every template of a container; what is none stays as it is.
///
/// # Errors
/// Of the first that is not a template or asks for what a task does not have, with the field.
pub fn container(spec: &ContainerSpec, values: &Values) -> Result<ContainerSpec, FieldError> {
    let within = |field: &'static str, text: &str| values.fill(text).map_err(|why| FieldError { field, why });
    let mut filled = spec.clone();
    if let Some(hostname) = &mut filled.hostname {
        *hostname = within("hostname", hostname)?;
    }
    for variable in &mut filled.env {
        // The name is no template.
        if let Some((name, value)) = variable.split_once('=') {
            *variable = format!("{name}={}", within("env", value)?);
        }
    }
    for mount in &mut filled.mounts {
        mount.target = within("mount target", &mount.target)?;
        match &mut mount.kind {
            MountKind::Bind { source, .. } => *source = within("mount source", source)?,
            MountKind::Volume { name, driver_opts, labels, driver: _, no_copy: _ } => {
                if let Some(name) = name {
                    *name = within("mount source", name)?;
                }
                for option in driver_opts.values_mut() {
                    *option = within("volume driver options", option)?;
                }
                for label in labels.values_mut() {
                    *label = within("volume labels", label)?;
                }
            }
            MountKind::Tmpfs { .. } => {}
        }
    }
    Ok(filled)
}

/// A template that cannot be filled in, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expanding {field} failed: {why}; known are .Service.ID .Service.Name .Service.Labels .Node.ID .Node.Hostname \
         .Node.Platform.OS .Node.Platform.Architecture .Task.ID .Task.Name .Task.Slot"
)]
pub struct FieldError {
    field: &'static str,
    #[source]
    why: Error,
}

/// Docker's one function for services: `{{join ", " .Service.Name "x"}}`, the separator first.
#[derive(Debug)]
struct Placeholders;

impl Words for Placeholders {
    fn knows(&self, name: &str) -> bool {
        name == "join"
    }

    fn call(&self, _name: &str, args: &[&Value]) -> Result<Value, String> {
        let texts: Option<Vec<&str>> = args.iter().map(|value| value.as_str()).collect();
        match texts.as_deref() {
            Some([separator, texts @ ..]) => Ok(texts.join(separator).into()),
            _ => Err("it takes texts, the separator first".to_owned()),
        }
    }
}

/// What the template of a secret or config may ask for of its container: `{{secret "name"}}` by the name of its file,
/// `{{config "name"}}` and `{{env "NAME"}}`.
#[derive(Debug, Clone, Default)]
pub struct Payload<'a> {
    /// Data by file name.
    pub secrets: BTreeMap<&'a str, &'a [u8]>,
    /// Data by file name.
    pub configs: BTreeMap<&'a str, &'a [u8]>,
    /// Values by name, filled in.
    pub env: BTreeMap<&'a str, &'a str>,
}

impl Words for Payload<'_> {
    fn knows(&self, name: &str) -> bool {
        matches!(name, "secret" | "config" | "env") || Placeholders.knows(name)
    }

    fn call(&self, name: &str, args: &[&Value]) -> Result<Value, String> {
        if name == "join" {
            return Placeholders.call(name, args);
        }
        let [Value::String(wanted)] = args else { return Err("it takes one name".to_owned()) };
        let wanted = wanted.as_str();
        let of = match name {
            // As in swarmkit, a variable that is not there is empty.
            "env" => return Ok(self.env.get(wanted).copied().unwrap_or_default().into()),
            "secret" => self.secrets.get(wanted),
            _ => self.configs.get(wanted),
        };
        let data = of.ok_or_else(|| format!("{name} target {wanted} not found"))?;
        let text = std::str::from_utf8(data).map_err(|_| format!("{name} {wanted} is not UTF-8 text"))?;
        Ok(text.into())
    }
}
