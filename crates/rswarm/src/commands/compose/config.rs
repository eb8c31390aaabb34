//! `compose config`: the file as it is understood, or what is asked of it. The daemon is asked for digests alone.

use super::{
    super::{deploy, image},
    body,
    project::{Project, label},
    provide,
    remote::Reach,
    surroundings::Surroundings,
};
use crate::{
    cli::{ComposeConfig, ConfigFormat, ProjectArgs},
    output,
};
use ::image::Reference;
use anyhow::{Context, Result, bail};
use compose::{Document, Form, Sources};
use docker_api::client::Client;
use std::collections::{BTreeMap, BTreeSet};

/// Shows the file. Unless `--no-consistency` forbids it, it is judged first as `up` does.
///
/// # Errors
/// It cannot be read, or could not run.
pub(super) async fn config(client: &Client, of: &ProjectArgs, args: &ComposeConfig) -> Result<()> {
    let around = Surroundings::read(of)?;
    let reach = around.reach();
    let wanted = wanted(args);
    let named = Some(wanted.clone()).filter(|wanted| !wanted.is_empty());
    // Nothing is read of files of variables, so whose they are is no matter; they are shown as they stand.
    let (meant, shown) =
        if args.no_env_resolution { (Some(Vec::new()), None) } else { (named.clone(), named) };
    let mut sources = Sources { meant: shown, ..around.sources(&around.files()?)? };
    if args.no_interpolate && !args.names.is_empty() {
        output::warning("service filtering is not applied when --no-interpolate is set");
    }
    if args.variables {
        if !args.names.is_empty() {
            output::warning("service filtering is not applied when --variables is set");
        }
        return write(of, args, &variables(&sources, args.format)?);
    }
    if args.environment {
        let env = compose::variables(&sources, &reach)?;
        let lines: Vec<String> = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        return write(of, args, &lines.join("\n"));
    }
    let is_judged = !args.no_consistency && !args.no_interpolate;
    let project = if is_judged { Some(Project::load_meant(of, &wanted, meant)?) } else { None };
    if let Some(hashed) = &args.hash {
        return write(of, args, &hashes(project.as_ref(), (&sources, &reach), hashed)?);
    }
    if args.quiet {
        return Ok(());
    }
    let form = Form {
        raw: args.no_interpolate,
        as_written: args.no_normalize,
        keep_paths: args.no_path_resolution,
        keep_env_files: args.no_env_resolution,
    };
    // A service that is named brings its profile along.
    if let Some(project) = &project {
        let all = Sources { profiles: vec!["*".to_owned()], ..sources.clone() };
        let keys: BTreeSet<String> = project.stack()?.services.iter().map(|s| s.key.clone()).collect();
        let known = document(&sources, &reach, form)?;
        if keys.iter().any(|key| !known.keys("services").contains(key.as_str())) {
            sources = all;
        }
    }
    let mut document = document(&sources, &reach, form)?;
    if let Some(project) = &project {
        let services = project.select(&args.names, !args.names.is_empty())?;
        document.keep_services(&services.iter().map(|s| s.key.clone()).collect::<Vec<_>>());
    }
    if let (Some(project), true) = (&project, args.resolve_image_digests || args.lock_image_digests) {
        document.put_images(&pinned(client, project, &args.names).await?);
    }
    if args.lock_image_digests {
        document.keep_images();
    }
    let lines = |names: BTreeSet<String>| names.into_iter().collect::<Vec<_>>().join("\n");
    let keys = |section: &str| lines(document.keys(section).into_iter().map(str::to_owned).collect());
    let text = if args.services {
        keys("services")
    } else if args.networks {
        keys("networks")
    } else if args.volumes {
        keys("volumes")
    } else if args.models {
        lines(document.values("models", "model"))
    } else if args.images {
        match &project {
            Some(project) => lines(images(project)?),
            None => lines(document.values("services", "image")),
        }
    } else if args.profiles {
        lines(profiles(&sources, &reach)?)
    } else {
        match args.format {
            ConfigFormat::Yaml => document.to_yaml().trim_end().to_owned(),
            ConfigFormat::Json => serde_json::to_string_pretty(&document.data())?,
        }
    };
    write(of, args, &text)
}

/// Returns the services that were named, or whose hashes are asked for; none = all.
fn wanted(args: &ComposeConfig) -> Vec<String> {
    match args.hash.as_deref() {
        Some(hashed) if hashed != "*" => hashed.split(',').map(str::to_owned).collect(),
        _ => args.names.clone(),
    }
}

fn write(of: &ProjectArgs, args: &ComposeConfig, text: &str) -> Result<()> {
    match &args.output {
        Some(file) if of.dry_run => {
            output::step("File", &file.display().to_string(), "Would be written");
            Ok(())
        }
        Some(file) => std::fs::write(file, format!("{text}\n"))
            .with_context(|| format!("cannot write {}", file.display())),
        None if text.is_empty() => Ok(()),
        None => output::line(text),
    }
}

/// Returns the project as `config` shows it, as data.
pub(super) fn shown(of: &ProjectArgs) -> Result<serde_json::Value> {
    let around = Surroundings::read(of)?;
    let all = ["*".to_owned()].into();
    let sources = Sources { profiles: all, ..around.sources(&around.files()?)? };
    Ok(serde_json::to_value(document(&sources, &around.reach(), Form::default())?.data())?)
}

/// Returns a file that pins the images of a project, to lay over its own.
pub(super) async fn pinned_images(client: &Client, of: &ProjectArgs, project: &Project) -> Result<String> {
    let around = Surroundings::read(of)?;
    let sources = around.sources(&around.files()?)?;
    let mut document = document(&sources, &around.reach(), Form::default())?;
    document.put_images(&pinned(client, project, &[]).await?);
    document.keep_images();
    Ok(document.to_yaml())
}

/// Returns the images of services with the digests that they stand for now; not of what is only built here.
async fn pinned(client: &Client, project: &Project, names: &[String]) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for service in project.select(names, !names.is_empty())? {
        let name = &service.spec.task.container.image;
        if provide::of(service).is_some() || project.names_image(service) {
            continue;
        }
        let mut reference: Reference =
            name.parse().with_context(|| format!("service {}: image {name:?}", service.key))?;
        if reference.digest.is_none() {
            let found = client.distribution(name, image::credentials(name)?).await;
            let found = found.with_context(|| format!("service {}: image {name}", service.key))?;
            reference = reference.with_digest(found.descriptor.digest.parse()?);
        }
        all.insert(service.key.clone(), reference.canonical());
    }
    Ok(all)
}

fn document(sources: &Sources, reach: &Reach, form: Form) -> Result<Document> {
    let (document, _) =
        compose::document(sources, reach, form).map_err(|error| deploy::with_line(error, sources))?;
    Ok(document)
}

/// Returns the images of services that are active.
fn images(project: &Project) -> Result<BTreeSet<String>> {
    let images = project.stack()?.services.iter().map(|s| s.spec.task.container.image.clone());
    Ok(images.filter(|image| !image.is_empty()).collect())
}

/// Returns all profiles that services have.
fn profiles(sources: &Sources, reach: &Reach) -> Result<BTreeSet<String>> {
    let all = Sources { profiles: vec!["*".to_owned()], ..sources.clone() };
    let (stack, _) = compose::load(&all, reach).map_err(|error| deploy::with_line(error, &all))?;
    let hosts = stack.services.into_iter().filter_map(|service| service.host);
    Ok(hosts.flat_map(|host| host.profiles).collect())
}

/// Returns `SERVICE HASH` of the services that were named, with commas between; of a project that is not judged it is
/// the hash of what stands there.
fn hashes(project: Option<&Project>, (sources, reach): (&Sources, &Reach), wanted: &str) -> Result<String> {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    match project {
        Some(project) => {
            // Containers that share something are not known here: their names stand for them.
            let names = project.stack()?.services.iter().map(|s| (s.key.clone(), s.key.clone())).collect();
            let services = project.stack()?.services.iter();
            for service in services.filter(|service| provide::of(service).is_none()) {
                let recipe = body::recipe(project, service, &names)?;
                let hash = recipe.body.config.labels.get(label::HASH).cloned().unwrap_or_default();
                all.insert(service.key.clone(), hash);
            }
        }
        None => {
            let document = document(sources, reach, Form::default())?;
            for key in document.keys("services") {
                let text = document.service(key).unwrap_or_default();
                all.insert(key.to_owned(), body::hash(text.as_bytes()));
            }
        }
    }
    if wanted != "*" {
        let wanted: Vec<&str> = wanted.split(',').collect();
        if let Some(unknown) = wanted.iter().find(|key| !all.contains_key(**key)) {
            bail!("no such service: {unknown}");
        }
        all.retain(|key, _| wanted.contains(&key.as_str()));
    }
    Ok(all.iter().map(|(key, hash)| format!("{key} {hash}")).collect::<Vec<_>>().join("\n"))
}

/// Returns the variables that the files mention, in Docker Compose's words.
fn variables(sources: &Sources, format: ConfigFormat) -> Result<String> {
    let found = compose::mentioned(sources)?;
    if format == ConfigFormat::Json {
        let all: serde_json::Map<String, serde_json::Value> = found
            .into_iter()
            .map(|(name, v)| {
                let shown = serde_json::json!({
                    "Name": v.name, "DefaultValue": v.default, "PresenceValue": v.presence, "Required": v.required,
                });
                (name, shown)
            })
            .collect();
        return Ok(serde_json::to_string_pretty(&all)?);
    }
    let mut table = crate::list::List::new(&[
        ("NAME", "Name"),
        ("REQUIRED", "Required"),
        ("DEFAULT VALUE", "DefaultValue"),
        ("ALTERNATE VALUE", "PresenceValue"),
    ]);
    for variable in found.into_values() {
        table.row(vec![variable.name, variable.required.to_string(), variable.default, variable.presence]);
    }
    Ok(table.table())
}
