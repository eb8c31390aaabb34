//! The commands: each asks the front door and prints the answer as Docker does.

pub(crate) mod build;
pub(crate) mod causes;
pub(crate) mod cluster;
pub(crate) mod compose;
pub(crate) mod container;
pub(crate) mod context;
pub(crate) mod contexts;
pub(crate) mod converge;
pub(crate) mod copy;
pub(crate) mod create;
pub(crate) mod credentials;
pub(crate) mod deploy;
pub(crate) mod doctor;
pub(crate) mod door;
pub(crate) mod explain;
pub(crate) mod image;
pub(crate) mod joined;
pub(crate) mod last_words;
pub(crate) mod login;
pub(crate) mod logins;
pub(crate) mod logs;
pub(crate) mod look;
pub(crate) mod manual;
pub(crate) mod names;
pub(crate) mod objects;
pub(crate) mod oci;
pub(crate) mod placed;
pub(crate) mod prune;
pub(crate) mod service;
pub(crate) mod service_logs;
pub(crate) mod service_spec;
pub(crate) mod shown;
pub(crate) mod stack;
pub(crate) mod survival;
pub(crate) mod system;
pub(crate) mod target;
pub(crate) mod user;

use crate::{cli::InspectArgs, list, output};
use anyhow::Result;
use docker_api::client::Client;
use serde_json::Value;

/// Prints objects of one kind as JSON or through a template.
///
/// # Errors
/// Of the first name that is not found.
pub(crate) async fn inspect(client: &Client, base: &str, args: &InspectArgs) -> Result<()> {
    let mut all = Vec::new();
    let kind = base.split_once('?').map_or(base, |(kind, _)| kind);
    for name in &args.names {
        // Containers are those of tasks, too.
        let known = match base {
            "containers" => target::one(client, name).await?,
            _ => name.clone(),
        };
        all.push((kind, object(client, base, &known).await?));
    }
    show(&all, args.format.as_deref())
}

/// Returns an object as the API has it.
///
/// # Errors
/// There is none of that name.
async fn object(client: &Client, base: &str, name: &str) -> Result<Value> {
    // What is asked for besides stands behind a `?`, as in an address.
    let (base, query) = base.split_once('?').unwrap_or((base, ""));
    let path = match base {
        "containers" | "images" => format!("/{base}/{}/json", escape(name)),
        _ => format!("/{base}/{}", escape(name)),
    };
    let query: Vec<(&str, &str)> = query.split_once('=').into_iter().collect();
    Ok(client.get::<Value>(&path, &query).await?)
}

/// Returns the kind of object as [`inspect`] takes it, with sizes if that is wanted.
fn sized(base: &'static str, wanted: bool) -> &'static str {
    if wanted && base == "containers" { "containers?size=1" } else { base }
}

/// Prints objects, each with its kind, as JSON or through a template.
fn show(all: &[(&str, Value)], format: Option<&str>) -> Result<()> {
    match format {
        None => {
            let all: Vec<&Value> = all.iter().map(|(_, value)| value).collect();
            output::line(&serde_json::to_string_pretty(&all)?)
        }
        Some(format) => all.iter().try_for_each(|(kind, value)| {
            output::line(&list::Format::parse(format)?.render_object(kind, value)?)
        }),
    }
}

/// Escapes one segment of a path.
fn escape(segment: &str) -> String {
    segment
        .bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b':' | b'@' => {
                (b as char).to_string()
            }
            _ => format!("%{b:02X}"),
        })
        .collect()
}

/// Does the same to several things; goes on after an error, prints each name that worked, and fails at the end.
pub(crate) async fn each<'a, F>(names: &'a [String], act: impl Fn(&'a str) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    let mut failed = Vec::new();
    for name in names {
        match act(name).await {
            Ok(()) => output::line(name)?,
            Err(error) => failed.push(format!("{error:#}")),
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(anyhow::anyhow!(failed.join("\n"))) }
}

/// Reads `KEY=VALUE` flags; a bare `KEY` has the empty value.
pub(crate) fn pairs(flags: &[String]) -> std::collections::BTreeMap<String, String> {
    flags
        .iter()
        .map(|flag| {
            flag.split_once('=').map_or((flag.clone(), String::new()), |(k, v)| (k.to_owned(), v.to_owned()))
        })
        .collect()
}
