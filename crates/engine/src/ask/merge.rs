//! What a container is, from what was asked for and what its image says. Pure.
//!
//! Source: moby `image/spec` and its `merge`: entrypoint of the caller drops the image's cmd; env, labels, ports and
//! volumes are united; everything else is the caller's if set.

use crate::{
    ask::config::{ContainerConfig, Healthcheck, Port},
    error::{Error, Result},
};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// What an image says of containers made from it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ImageDefaults {
    pub(crate) entrypoint: Vec<String>,
    pub(crate) cmd: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) user: String,
    pub(crate) working_dir: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) exposed_ports: BTreeSet<Port>,
    pub(crate) volumes: BTreeSet<String>,
    pub(crate) stop_signal: Option<String>,
    pub(crate) healthcheck: Option<Healthcheck>,
}

/// Fills what the caller left open.
///
/// # Errors
/// `InvalidParameter` when neither says what to run.
pub(crate) fn merge(mut config: ContainerConfig, image: ImageDefaults) -> Result<ContainerConfig> {
    let cleared = |e: &Vec<String>| e.is_empty() || (e.len() == 1 && e[0].is_empty());
    match config.entrypoint.take() {
        None => {
            if config.cmd.as_ref().is_none_or(Vec::is_empty) {
                config.cmd = Some(image.cmd).filter(|c| !c.is_empty());
            }
            config.entrypoint = Some(image.entrypoint).filter(|e| !e.is_empty());
        }
        // `[]` in the API means "not given" for old clients; `[""]` clears.
        Some(e) if cleared(&e) => config.entrypoint = None,
        given => config.entrypoint = given,
    }
    if command(&config).is_empty() {
        return Err(Error::invalid("no command specified"));
    }
    // As given, also a bare `KEY`: it keeps the image's and the daemon's own away when the process is made.
    let mine: HashSet<&str> = config.env.iter().map(|entry| key(entry)).collect();
    let theirs: Vec<_> = image.env.into_iter().filter(|theirs| !mine.contains(key(theirs))).collect();
    config.env.extend(theirs);
    let mut labels = image.labels;
    labels.append(&mut config.labels);
    config.labels = labels;
    config.exposed_ports.extend(image.exposed_ports);
    config.exposed_ports.extend(config.host.port_bindings.iter().map(|b| b.container));
    if config.host.build.is_none() {
        config.volumes.extend(image.volumes);
    }
    let fill = |mine: &mut Option<String>, theirs: String| {
        if mine.as_ref().is_none_or(String::is_empty) {
            *mine = Some(theirs).filter(|t| !t.is_empty());
        }
    };
    fill(&mut config.user, image.user);
    fill(&mut config.working_dir, image.working_dir);
    fill(&mut config.stop_signal, image.stop_signal.unwrap_or_default());
    config.healthcheck = merge_healthcheck(config.healthcheck, image.healthcheck);
    Ok(config)
}

/// Returns path and arguments of the process.
pub(crate) fn command(config: &ContainerConfig) -> Vec<String> {
    let parts = [config.entrypoint.as_deref(), config.cmd.as_deref()];
    parts.into_iter().flatten().flatten().cloned().collect()
}

fn key(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(k, _)| k)
}

/// Returns `base` with the entries of `over` replaced or added; a bare `KEY` removes. Linear: both may be long.
pub(crate) fn merge_env(base: &[String], over: &[String]) -> Vec<String> {
    let mut merged: Vec<Option<&String>> = Vec::with_capacity(base.len() + over.len());
    // A key that is in `base` twice is replaced in its first place.
    let mut places: HashMap<&str, Vec<usize>> = HashMap::with_capacity(base.len());
    for entry in base.iter().rev() {
        places.entry(key(entry)).or_default().push(base.len() - 1 - merged.len());
        merged.push(Some(entry));
    }
    merged.reverse();
    for entry in over {
        let places = places.entry(key(entry)).or_default();
        match (places.last(), entry.contains('=')) {
            (Some(place), true) => merged[*place] = Some(entry),
            (None, true) => {
                places.push(merged.len());
                merged.push(Some(entry));
            }
            (Some(place), false) => {
                merged[*place] = None;
                places.pop();
            }
            (None, false) => {}
        }
    }
    merged.into_iter().flatten().cloned().collect()
}

fn merge_healthcheck(mine: Option<Healthcheck>, image: Option<Healthcheck>) -> Option<Healthcheck> {
    match (mine, image) {
        (None, theirs) => theirs,
        (Some(mine), None) => Some(mine),
        (Some(mine), Some(theirs)) => Some(Healthcheck {
            test: if mine.test.is_empty() { theirs.test } else { mine.test },
            interval: mine.interval.or(theirs.interval),
            timeout: mine.timeout.or(theirs.timeout),
            start_period: mine.start_period.or(theirs.start_period),
            start_interval: mine.start_interval.or(theirs.start_interval),
            retries: mine.retries.or(theirs.retries),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn environments_are_merged_in_place() {
        let merge = |base: &str, over: &str| merge_env(&words(base), &words(over)).join(" ");
        assert_eq!(merge("A=1 B=2 A=3", "A=4 C=5 C=6"), "A=4 B=2 A=3 C=6");
        assert_eq!(merge("A=1 B=2 A=3", "A"), "B=2 A=3");
        assert_eq!(merge("A=1 B=2", "B X A=2 B=9"), "A=2 B=9");
    }

    /// Comparing each entry with each other would take minutes.
    #[test]
    fn a_long_environment_costs_its_length() {
        let env = |value: &str| -> Vec<String> { (0..200_000).map(|n| format!("K{n}={value}")).collect() };
        assert_eq!(merge_env(&env("a"), &env("b")), env("b"));
        let config = ContainerConfig { env: env("b"), cmd: Some(words("run")), ..ContainerConfig::default() };
        let image = ImageDefaults { env: env("a"), ..ImageDefaults::default() };
        assert_eq!(super::merge(config, image).unwrap().env.len(), 200_000);
    }

    #[track_caller]
    fn check(entrypoint: Option<&str>, cmd: Option<&str>, runs: &str) {
        let config = ContainerConfig {
            entrypoint: entrypoint.map(words),
            cmd: cmd.map(words),
            ..ContainerConfig::default()
        };
        let image =
            ImageDefaults { entrypoint: words("/entry"), cmd: words("serve"), ..ImageDefaults::default() };
        let got = merge(config, image).map(|c| command(&c).join(" ")).unwrap_or_default();
        assert_eq!(got, runs);
    }

    #[test]
    fn entrypoint_and_cmd_combine_as_in_docker() {
        check(None, None, "/entry serve");
        check(None, Some("debug"), "/entry debug");
        check(Some("/mine"), None, "/mine");
        check(Some("/mine"), Some("x"), "/mine x");
        check(Some(""), Some("sh"), "sh");
        check(Some(""), None, "");
    }

    #[test]
    fn a_variable_without_a_value_is_kept_and_keeps_the_images_away() {
        let config = ContainerConfig {
            cmd: Some(words("run")),
            env: words("PATH A=1 B="),
            ..ContainerConfig::default()
        };
        let image = ImageDefaults { env: words("PATH=/bin A=2 C=3"), ..ImageDefaults::default() };
        let env = merge(config, image).unwrap().env;
        assert_eq!(env, words("PATH A=1 B= C=3"), "as `inspect` shows it");
        assert_eq!(
            merge_env(&words("PATH=/sbin D=4"), &env),
            words("D=4 A=1 B= C=3"),
            "what the process gets"
        );
    }

    #[test]
    fn env_of_the_caller_replaces_adds_and_removes() {
        let merged = merge_env(&words("PATH=/bin A=1 B=2"), &words("A=9 C=3 B"));
        assert_eq!(merged, words("PATH=/bin A=9 C=3"));
    }
}
