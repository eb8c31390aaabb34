//! `compose publish`: a project's files as an artifact of a registry, for `-f oci://..`. What would give away more than its
//! author may think is asked about first.
//!
//! Source: docker/compose `pkg/compose/publish.go`, `cmd/compose/publish.go`.

use super::{
    INTERRUPTED, act, config,
    project::Project,
    remote::{self, Form, Layer},
    surroundings::Surroundings,
};
use crate::{
    cli::{ComposePublish, ComposePush, OciVersion, ProjectArgs},
    commands::deploy,
    output,
};
use anyhow::{Context, Result, bail};
use compose::{Sources, Written};
use docker_api::client::Client;
use image::{Digest, Reference};
use model::MountKind;
use regex_lite::Regex;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// *Limit* of files that extend one another.
const FILES_MAX: usize = 256;
/// Names of variables that hold secrets. Source: DefangLabs secret-detector `pkg/detectors/keyword`.
const SENSITIVE_NAME: &str = "(?i)pass(word|wd|phrase)?$|_pass(word|wd)?(_|$)|pwd|secret|token|credential|contrase\
                              |(api|auth|service|account|db|database|priv|private|client|access)_?key";
/// Values that say themselves what they are: what it is, and how it looks. Source: DefangLabs secret-detector
/// `pkg/detectors`.
const SENSITIVE_VALUES: &[(&str, &str)] = &[
    ("AWS Client ID", r"\b(A3T[A-Z0-9]|AKIA|AGPA|AIDA|AROA|AIPA|ANPA|ANVA|ASIA)[A-Z0-9]{16,17}\b"),
    ("AWS Secret Key", r#"(?i)aws.{0,20}[\x27"][0-9a-zA-Z/+]{40}[\x27"]"#),
    ("Github authentication", r"\b(gh[pousr]_[0-9a-zA-Z]{36,}|github_pat_[0-9a-zA-Z_]{22,})\b"),
    ("JSON Web Token", r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"),
    (
        "Private Key",
        r"(?s)-----BEGIN ([A-Z]+ )*PRIVATE KEY( BLOCK)?-----(.*-----END ([A-Z]+ )*PRIVATE KEY( BLOCK)?-----)?",
    ),
];

/// A file that is published, and what stands in it.
struct Published {
    /// Its name there; `None` = one of the project's own.
    as_extended: Option<String>,
    path: PathBuf,
    written: Written,
}

/// Publishes a project.
///
/// # Errors
/// It cannot be published as it is, or the registry refuses.
pub(super) async fn publish(client: &Client, of: &ProjectArgs, args: &ComposePublish) -> Result<ExitCode> {
    if args.app {
        bail!("--app: images are not copied along; hint: `rswarm compose push`, and publish without --app");
    }
    let reference: Reference = args
        .repository
        .parse()
        .with_context(|| format!("{:?}: not the name of a repository", args.repository))?;
    // A file says nothing here of which profiles are wanted there.
    let of = &ProjectArgs { profile: vec!["*".to_owned()], ..of.clone() };
    let around = Surroundings::read(of)?;
    let files = around.files()?;
    let sources = around.sources(&files)?;
    let reach = around.reach();
    let published = walk(&sources, &reach)?;
    if published.iter().any(|file| file.written.includes().iter().any(|include| !include.contains("://"))) {
        bail!("cannot publish compose file with local includes");
    }
    let project = Project::load(of, &[])?;
    refuse_unnamed_builds(&project)?;
    for question in questions(&project, &published, args.with_env)? {
        if !args.yes && !agreed(&question)? {
            output::progress("canceled");
            return Ok(ExitCode::from(INTERRUPTED));
        }
    }
    let push = ComposePush { ignore_push_failures: true, ..ComposePush::default() };
    act::push(client, &project, &push).await?;
    let mut layers = layers(&published, args.with_env)?;
    if args.resolve_image_digests {
        let yaml = config::pinned_images(client, of, &project).await?;
        layers.push(Layer::file("image-digests.yaml", yaml.into_bytes(), false));
    }
    output::deed(&args.repository, "publishing");
    if !project.dry_run {
        let form = args.oci_version.map(|version| match version {
            OciVersion::V1_0 => Form::V1_0,
            OciVersion::V1_1 => Form::V1_1,
        });
        let insecure = if args.insecure_registry { vec![reference.registry.clone()] } else { reach.insecure };
        remote::publish(&reference, &layers, form, &insecure).await?;
    }
    output::deed(&args.repository, "published");
    Ok(ExitCode::SUCCESS)
}

/// Returns the project's own files, and those on this machine that their services extend.
fn walk(sources: &Sources, reach: &remote::Reach) -> Result<Vec<Published>> {
    let mut all: Vec<Published> = Vec::new();
    let mut seen: BTreeSet<PathBuf> = BTreeSet::new();
    let mut open: Vec<(PathBuf, String, PathBuf, bool)> = Vec::new();
    for (path, text) in sources.files.iter().rev() {
        open.push((path.clone(), text.clone(), sources.project_dir.clone(), false));
    }
    while let Some((path, text, dir, extended)) = open.pop() {
        if extended && !seen.insert(path.clone()) {
            continue;
        }
        if all.len() >= FILES_MAX {
            bail!("more than {FILES_MAX} files extend one another");
        }
        let written = Written::read(&path, &text, &dir, sources, reach)
            .map_err(|error| deploy::with_line(error, sources))?;
        for named in written.services().values().filter_map(|service| service.extends.as_ref()) {
            // What is not here is in a registry.
            if let Ok(text) = std::fs::read_to_string(&named.path) {
                let dir = named.path.parent().unwrap_or(Path::new("/")).to_path_buf();
                open.insert(0, (named.path.clone(), text, dir, true));
            }
        }
        let as_extended = extended.then(|| name_of(&path, "yaml"));
        all.push(Published { as_extended, path, written });
    }
    Ok(all)
}

/// Returns a name that says nothing of where a file is here.
fn name_of(path: &Path, ending: &str) -> String {
    let digest = Digest::of(path.display().to_string().as_bytes()).to_string();
    format!("{}.{ending}", digest.rsplit(':').next().unwrap_or_default())
}

fn layers(published: &[Published], with_env: bool) -> Result<Vec<Layer>> {
    let (mut layers, mut env_files) = (Vec::new(), BTreeMap::new());
    for file in published {
        let mut names: Vec<(&compose::At, String)> = Vec::new();
        for service in file.written.services().values() {
            for named in &service.env_files {
                let name = name_of(&named.path, "env");
                names.push((&named.at, name.clone()));
                if with_env && named.path.is_file() {
                    env_files.insert(name, &named.path);
                }
            }
            let here = service.extends.iter().filter(|named| named.path.is_file());
            names.extend(here.map(|named| (&named.at, name_of(&named.path, "yaml"))));
        }
        let text = file.written.with_names(names.iter().map(|(at, name)| (*at, name.as_str())))?;
        let own = file.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let name = file.as_extended.as_ref().unwrap_or(&own);
        layers.push(Layer::file(name, text.into_bytes(), file.as_extended.is_some()));
    }
    for (name, path) in env_files {
        let content = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        layers.push(Layer::env_file(&name, content));
    }
    Ok(layers)
}

/// Nobody else could have the image of a service that is only built.
fn refuse_unnamed_builds(project: &Project) -> Result<()> {
    let unnamed: Vec<String> = project
        .stack()?
        .services
        .iter()
        .filter(|service| project.names_image(service))
        .map(|service| format!("- {:?}", service.key))
        .collect();
    if unnamed.is_empty() {
        return Ok(());
    }
    bail!(
        "your Compose stack cannot be published as it only contains a build section for service(s):\n{}",
        unnamed.join("\n")
    )
}

/// Returns what is asked before anything leaves this machine.
fn questions(project: &Project, published: &[Published], with_env: bool) -> Result<Vec<String>> {
    let mut all = Vec::new();
    let mut mounts = String::new();
    for service in &project.stack()?.services {
        for mount in &service.spec.task.container.mounts {
            if let MountKind::Bind { source, .. } = &mount.kind {
                mounts.push_str(&format!("{}: {}:{}\n", service.key, source, mount.target));
            }
        }
    }
    if !mounts.is_empty() {
        all.push(format!(
            "you are about to publish bind mounts declaration within your OCI artifact.\nonly the bind mount declarations \
             will be added to the OCI artifact (not content)\nplease double check that you are not mounting potential \
             user's sensitive directories or data\n{mounts}Are you ok to publish these bind mount declarations?"
        ));
    }
    let secrets = sensitive(project, published)?;
    if !secrets.is_empty() {
        all.push(format!(
            "you are about to publish sensitive data within your OCI artifact.\nplease double check that you are not \
             leaking sensitive data\n{secrets}Are you ok to publish these sensitive data?"
        ));
    }
    let declared = declared(published)?;
    if !with_env && !declared.is_empty() {
        all.push(format!(
            "you are about to publish env-related declarations within your OCI artifact.\nenv_file paths and literal values \
             for sensitive-looking keys are embedded as-is in the published YAML;\ninterpolated values like \"${{VAR}}\" \
             are kept symbolic and have already been excluded.\n{declared}Use --with-env to silence this prompt and always \
             publish env declarations.\nAre you ok to publish these env declarations?"
        ));
    }
    let contents: BTreeMap<&String, &String> = published
        .iter()
        .flat_map(|file| file.written.contents())
        .filter(|(_, text)| is_literal(text))
        .collect();
    if !contents.is_empty() {
        let names: String = contents.keys().map(|name| format!("  config {name:?}\n")).collect();
        all.push(format!(
            "you are about to publish literal inline config content within your OCI artifact.\n{names}Are you ok to publish \
             these config contents?"
        ));
    }
    Ok(all)
}

/// Is it a value of its own, and not what variables make of it?
fn is_literal(value: &str) -> bool {
    let value = value.replace("$$", "X");
    value.len() > 2 && !value.starts_with(['$', '{']) && !value.ends_with('}')
}

/// Returns a line for each file of variables, and for the variables of each service that look like secrets.
fn declared(published: &[Published]) -> Result<String> {
    let sensitive = Regex::new(SENSITIVE_NAME)?;
    let mut found: BTreeMap<&str, (bool, BTreeSet<String>)> = BTreeMap::new();
    for (key, service) in published.iter().flat_map(|file| file.written.services()) {
        let names =
            service.environment.iter().filter(|(name, value)| sensitive.is_match(name) && is_literal(value));
        let names: BTreeSet<String> = names.map(|(name, _)| format!("{name:?}")).collect();
        if !names.is_empty() || !service.env_files.is_empty() {
            let known = found.entry(key).or_default();
            known.0 |= !service.env_files.is_empty();
            known.1.extend(names);
        }
    }
    let mut lines = String::new();
    for (key, (has_files, names)) in found {
        if has_files {
            lines.push_str(&format!("  service {key:?}: env_file declared\n"));
        }
        if !names.is_empty() {
            let names: Vec<String> = names.into_iter().collect();
            lines.push_str(&format!("  service {key:?}: literal value for {}\n", names.join(", ")));
        }
    }
    Ok(lines)
}

/// Returns what says itself that it is secret: in services' variables and files of variables, and in the files of configs
/// and secrets.
fn sensitive(project: &Project, published: &[Published]) -> Result<String> {
    let patterns: Vec<(&str, Regex)> = SENSITIVE_VALUES
        .iter()
        .map(|(what, pattern)| Ok((*what, Regex::new(pattern)?)))
        .collect::<Result<_>>()?;
    let mut found = BTreeSet::new();
    let mut look = |place: &str, value: &str| {
        for (what, pattern) in &patterns {
            let Some(looks) = pattern.find(value) else { continue };
            // Of a variable all that it says, of a file what looks so.
            let shown = if place.is_empty() { looks.as_str() } else { value.trim() };
            found.insert(format!("{what}\n{place:?}: {shown}\n"));
        }
    };
    for (key, service) in published.iter().flat_map(|file| file.written.services()) {
        for (name, value) in &service.environment {
            look(&format!("services.{key}.environment.{name}"), value);
        }
        for file in &service.env_files {
            let text = std::fs::read_to_string(&file.path).unwrap_or_default();
            for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
                look(name.trim(), value);
            }
        }
    }
    for (name, content) in published.iter().flat_map(|file| file.written.contents()) {
        look(&format!("configs.{name}.content"), content);
    }
    let stack = project.stack()?;
    let files = stack.configs.iter().filter_map(|config| config.file.as_ref());
    for file in files.chain(stack.secrets.iter().filter_map(|secret| secret.file.as_ref())) {
        look("", &std::fs::read_to_string(file).unwrap_or_default());
    }
    Ok(found.into_iter().collect())
}

/// Who says nothing has not agreed.
fn agreed(question: &str) -> Result<bool> {
    output::prompt(&format!("{question} [y/N] "))?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("cannot read the answer")?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_asked_about() {
        let name = Regex::new(SENSITIVE_NAME).expect("a pattern");
        for (given, looks) in [
            ("MYSQL_ROOT_PASSWORD", true),
            ("DB_PASS", true),
            ("API_KEY", true),
            ("apikey", true),
            ("GITHUB_TOKEN", true),
            ("HELLO", false),
            ("KEYBOARD", false),
            ("PASSENGERS", false),
        ] {
            assert_eq!(name.is_match(given), looks, "{given}");
        }
        for (value, literal) in
            [("bar", true), ("${X}", false), ("$X", false), ("a=${X}", false), ("$$abc", true)]
        {
            assert_eq!(is_literal(value), literal, "{value}");
        }
        for (what, pattern) in SENSITIVE_VALUES {
            let pattern = Regex::new(pattern).expect("a pattern");
            let samples = [
                "A3TX1234567890ABCDEF".to_owned(),
                "aws\"12345+67890/abcdefghijklm+NOPQRSTUVWXYZ+\"".to_owned(),
                format!("ghp_{}", "1".repeat(36)),
                "eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJSMe".to_owned(),
                "-----BEGIN DSA PRIVATE KEY-----".to_owned(),
            ];
            assert_eq!(samples.iter().filter(|sample| pattern.is_match(sample)).count(), 1, "{what}");
            assert!(!pattern.is_match("hello world"));
        }
    }
}
