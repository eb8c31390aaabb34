//! `compose build --print`: what would be built, as a file for `docker buildx bake`. Source: docker/compose
//! `pkg/compose/build_bake.go`; buildx "Bake file reference".

use super::{
    images,
    project::{Project, label},
};
use crate::cli::ComposeBuild;
use anyhow::Result;
use compose::StackService;
use serde::Serialize;
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};

#[derive(Serialize)]
struct File {
    group: BTreeMap<String, Group>,
    target: BTreeMap<String, Target>,
}

#[derive(Serialize)]
struct Group {
    targets: Vec<String>,
}

/// In the order in which Docker Compose prints them; what is empty is left out.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Target {
    context: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    dockerfile: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    dockerfile_inline: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    args: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    tags: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    target: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secret: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    platforms: Vec<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pull: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    no_cache: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    shm_size: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ulimits: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    network: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra_hosts: BTreeMap<String, String>,
    output: Vec<&'static str>,
}

/// Returns the file. `document`: the project as `config` shows it, which says where secrets come from.
///
/// # Errors
/// Never in practice: it is plain JSON.
pub(super) fn print(
    project: &Project,
    document: &Value,
    built: &[&StackService],
    args: &ComposeBuild,
) -> Result<String> {
    let mut names: BTreeMap<&str, String> = BTreeMap::new();
    for service in &project.stack()?.services {
        let mut name = service.key.replace('.', "_");
        while names.values().any(|other| *other == name) {
            name.push('_');
        }
        names.insert(&service.key, name);
    }
    let target_of = |service: &StackService| names.get(service.key.as_str()).cloned().unwrap_or_default();
    let target = project
        .stack()?
        .services
        .iter()
        .filter_map(|service| Some((target_of(service), target(project, document, service, args)?)))
        .collect();
    let mut targets: Vec<String> = built.iter().map(|service| target_of(service)).collect();
    targets.sort();
    let group = BTreeMap::from([("default".to_owned(), Group { targets })]);
    Ok(serde_json::to_string_pretty(&File { group, target })?)
}

fn target(
    project: &Project,
    document: &Value,
    service: &StackService,
    args: &ComposeBuild,
) -> Option<Target> {
    let build = service.build.as_ref()?;
    // Bake has variables of its own.
    let escaped = |text: &str| text.replace("${", "$${");
    let mut values = build.args.clone();
    for arg in &args.build_arg {
        match arg.split_once('=') {
            Some((name, value)) => values.insert(name.to_owned(), value.to_owned()),
            None => project.env.get(arg).and_then(|value| values.insert(arg.clone(), value.clone())),
        };
    }
    values.values_mut().for_each(|value| *value = escaped(value));
    let mut labels = build.labels.clone();
    labels.insert(label::VERSION.to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    labels.insert(label::PROJECT.to_owned(), project.name.clone());
    labels.insert(label::SERVICE.to_owned(), service.key.clone());
    let inline = build.dockerfile_inline.as_deref().unwrap_or_default();
    let is_folder = Path::new(&build.context).is_absolute();
    let dockerfile = match build.dockerfile.as_str() {
        "" if inline.is_empty() => "Dockerfile",
        named => named,
    };
    let dockerfile = match dockerfile {
        "" => String::new(),
        name if is_folder => Path::new(&build.context).join(name).display().to_string(),
        name => name.to_owned(),
    };
    let mut tags = build.tags.clone();
    tags.push(service.spec.task.container.image.clone());
    Some(Target {
        context: build.context.clone(),
        dockerfile,
        dockerfile_inline: escaped(inline),
        args: values.into_iter().collect(),
        labels: labels.into_iter().collect(),
        tags,
        target: build.target.clone(),
        secret: secrets(document, &service.key),
        platforms: Some(images::platform(project, service))
            .filter(|platform| !platform.is_empty())
            .into_iter()
            .collect(),
        pull: build.pull || args.pull,
        no_cache: build.no_cache || args.no_cache,
        shm_size: build.shm_size_bytes.map(|bytes| bytes.to_string()),
        ulimits: build
            .ulimits
            .iter()
            .map(|limit| format!("{}={}:{}", limit.name, limit.soft, limit.hard))
            .collect(),
        network: build.network.clone(),
        extra_hosts: build
            .extra_hosts
            .iter()
            .filter_map(|line| line.split_once(':'))
            .map(|(host, ip)| (host.to_owned(), ip.to_owned()))
            .collect(),
        output: vec![if args.push && !project.names_image(service) {
            "type=registry"
        } else {
            "type=docker"
        }],
    })
}

/// Returns where the secrets of a build come from: what is in them stays here.
fn secrets(document: &Value, service: &str) -> Vec<String> {
    let listed = document["services"][service]["build"]["secrets"].as_array();
    let one = |entry: &Value| {
        let source = entry.as_str().or_else(|| entry["source"].as_str())?;
        let id = entry["target"].as_str().unwrap_or(source);
        let definition = &document["secrets"][source];
        match (definition["environment"].as_str(), definition["file"].as_str()) {
            (Some(name), _) => Some(format!("id={id},type=env,env={name}")),
            (None, file) => file.map(|file| format!("id={id},type=file,src={file}")),
        }
    };
    listed.into_iter().flatten().filter_map(one).collect()
}
