//! The image's configuration document: what a container of it does unless told otherwise, and how it came to be.
//!
//! Own types instead of `oci-spec`'s, because those drop Docker's `Healthcheck`, `OnBuild` and `Shell` and write
//! maps in random order (an image id must not be random). *Source:* OCI image-spec `config.md`, Docker image-spec v1.3.

use crate::{
    digest::Digest,
    dockerfile::{self, CommandLine, Instruction, values::clean_path},
};
use serde::{Deserialize, Deserializer, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::RangeInclusive,
    time::Duration,
};

/// The document whose digest is the image id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfiguration {
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who is to be asked.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// Go's name of the processor.
    #[serde(default)]
    pub architecture: String,
    /// Level of the processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// `linux`.
    #[serde(default)]
    pub os: String,
    /// What a container runs with.
    #[serde(default, deserialize_with = "or_default")]
    pub config: Config,
    /// Layers, lowest first.
    pub rootfs: RootFs,
    /// One entry per build step, oldest first.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<HistoryEntry>,
    /// Note of the committer.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Image this one was built on, where Docker's builder left it.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub parent: String,
    /// Version of the engine that wrote it.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub docker_version: String,
    /// Container it was committed from, and what that one was made of; of what is built and pulled as its writer left it.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub container: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Origin::is_unknown")]
    pub container_config: Origin,
}

/// What a committed container was made of; Docker has its whole configuration here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// As it was named.
    #[serde(default, rename = "Image", deserialize_with = "or_default")]
    pub image: String,
}

impl Origin {
    pub fn is_unknown(&self) -> bool {
        self.image.is_empty()
    }
}

/// Layers by the digest of their uncompressed tar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Lowest first.
    #[serde(default, deserialize_with = "or_default")]
    pub diff_ids: Vec<Digest>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".to_owned(), diff_ids: Vec::new() }
    }
}

/// One step of the build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who is to be asked.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// Command of the step.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// Note of the step.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// The step changed the configuration only.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// What a container of the image runs with. Field names on the wire are Docker's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Config {
    /// `user`, `uid`, `user:group` ...; empty is root.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `80/tcp`.
    #[serde(default, with = "go_set", skip_serializing_if = "Vec::is_empty")]
    pub exposed_ports: Vec<String>,
    /// `NAME=value`.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Always put before the arguments.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Arguments unless others are given.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Paths that get an anonymous volume.
    #[serde(default, with = "go_set", skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// Empty is `/`.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// User's notes.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `SIGTERM` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// How to know that it works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Instructions for images built on this one.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    /// Shell of the shell forms.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
}

/// Docker's `HEALTHCHECK`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", ..]`, `["CMD-SHELL", command]`.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Zero: the default (30 s).
    #[serde(default, with = "nanoseconds", skip_serializing_if = "Duration::is_zero")]
    pub interval: Duration,
    /// Zero: the default (30 s).
    #[serde(default, with = "nanoseconds", skip_serializing_if = "Duration::is_zero")]
    pub timeout: Duration,
    /// Failures within this time from the start do not count.
    #[serde(default, with = "nanoseconds", skip_serializing_if = "Duration::is_zero")]
    pub start_period: Duration,
    /// Interval during the start period; zero: the default (5 s).
    #[serde(default, with = "nanoseconds", skip_serializing_if = "Duration::is_zero")]
    pub start_interval: Duration,
    /// Zero: the default (3).
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub retries: u32,
}

/// An instruction given with `--change` cannot be carried out.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ChangeError {
    /// No Dockerfile instruction, or not one that changes the configuration.
    #[error("{0} is not a valid change command")]
    Unknown(String),
    /// An instruction without what it needs.
    #[error("invalid change \"{change}\": {reason}")]
    Invalid {
        /// The line as given.
        change: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Config {
    /// Carries out one Dockerfile instruction: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, SHELL,
    /// STOPSIGNAL, USER, VOLUME or WORKDIR. Variables in it are the image's own.
    ///
    /// # Errors
    /// Another instruction, or broken arguments; the configuration is unchanged then.
    pub fn apply_change(&mut self, change: &str) -> Result<(), ChangeError> {
        let invalid = |reason: String| ChangeError::Invalid { change: change.trim().to_owned(), reason };
        let step = dockerfile::parse_one(change, '\\').map_err(|error| invalid(error.reason))?;
        let variables = self.variables();
        let lookup = |name: &str| variables.get(name).map(|value| (*value).to_owned());
        let instruction = step.instruction.expand('\\', &lookup).map_err(invalid)?;
        match self.apply(&instruction).map_err(|reason| invalid(reason.to_owned()))? {
            true => Ok(()),
            false => {
                let name = change.split_whitespace().next().unwrap_or_default();
                Err(ChangeError::Unknown(name.to_owned()))
            }
        }
    }

    /// Carries out an instruction whose variables have been replaced; `false` if it is not about the configuration.
    ///
    /// # Errors
    /// What is wrong with it; the configuration is unchanged then.
    pub fn apply(&mut self, instruction: &Instruction) -> Result<bool, &'static str> {
        match instruction {
            Instruction::Cmd(command) => self.cmd = self.command(command),
            Instruction::Entrypoint(command) => self.entrypoint = self.command(command),
            Instruction::Shell(shell) => self.shell.clone_from(shell),
            Instruction::Env(pairs) => self.set_env(pairs),
            Instruction::Label(pairs) => self.labels.extend(pairs.iter().cloned()),
            Instruction::Expose(words) => {
                // Ranges first: however often a port is named, it is written down once.
                let mut open: BTreeMap<&str, Vec<bool>> = BTreeMap::new();
                for word in words {
                    let (range, protocol) = ports(word).ok_or("a port is 1 to 65535, /tcp, /udp or /sctp")?;
                    let all = open.entry(protocol).or_insert_with(|| vec![false; usize::from(u16::MAX) + 1]);
                    all[range].fill(true);
                }
                let mut exposed: BTreeSet<String> =
                    std::mem::take(&mut self.exposed_ports).into_iter().collect();
                for (protocol, all) in open {
                    let named = all.iter().enumerate().filter(|(_, named)| **named);
                    exposed.extend(named.map(|(port, _)| format!("{port}/{protocol}")));
                }
                self.exposed_ports = exposed.into_iter().collect();
            }
            Instruction::Volume(paths) => {
                if paths.iter().any(|path| path.trim().is_empty()) {
                    return Err("VOLUME specified can not be an empty string");
                }
                self.volumes.extend(paths.iter().map(|path| path.trim().to_owned()));
                self.volumes.sort();
                self.volumes.dedup();
            }
            Instruction::Workdir(path) => {
                let base = if path.starts_with('/') { "" } else { self.working_dir.as_str() };
                self.working_dir = clean_path(&format!("{base}/{path}"));
            }
            Instruction::User(user) => self.user.clone_from(user),
            Instruction::Stopsignal(signal) => self.stop_signal = Some(signal.clone()),
            Instruction::Onbuild(trigger) => self.on_build.push(trigger.clone()),
            Instruction::Healthcheck(check) => self.healthcheck = Some(check.clone()),
            Instruction::Add(_)
            | Instruction::Arg(_)
            | Instruction::Copy(_)
            | Instruction::Maintainer(_)
            | Instruction::Run(_) => return Ok(false),
        }
        Ok(true)
    }

    /// Returns the environment by name; of two entries for one name the first.
    #[must_use]
    pub fn variables(&self) -> HashMap<&str, &str> {
        self.env.iter().rev().filter_map(|entry| entry.split_once('=')).collect()
    }

    fn set_env(&mut self, pairs: &[(String, String)]) {
        let name = |entry: &String| entry.split_once('=').map_or(entry.as_str(), |(name, _)| name).to_owned();
        let places = self.env.iter().map(name).enumerate().rev().map(|(place, name)| (name, place));
        let mut places: HashMap<String, usize> = places.collect();
        for (name, value) in pairs {
            let entry = format!("{name}={value}");
            match places.get(name) {
                Some(place) => self.env[*place] = entry,
                None => {
                    places.insert(name.clone(), self.env.len());
                    self.env.push(entry);
                }
            }
        }
    }

    /// Returns what is executed: exec form as it is; shell form wrapped in the image's shell.
    #[must_use]
    pub fn command(&self, command: &CommandLine) -> Vec<String> {
        match command {
            CommandLine::Exec(args) => args.clone(),
            CommandLine::Shell(text) => self.shell().into_iter().chain([text.clone()]).collect(),
        }
    }

    /// Returns the shell of the shell forms.
    #[must_use]
    pub fn shell(&self) -> Vec<String> {
        let default = || vec!["/bin/sh".to_owned(), "-c".to_owned()];
        if self.shell.is_empty() { default() } else { self.shell.clone() }
    }
}

/// `80`, `80/udp`, `80-82/tcp`.
fn ports(text: &str) -> Option<(RangeInclusive<usize>, &'static str)> {
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = ["tcp", "udp", "sctp"].into_iter().find(|known| known.eq_ignore_ascii_case(protocol))?;
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
    (first > 0 && first <= last).then(|| (usize::from(first)..=usize::from(last), protocol))
}

/// Go writes empty lists and texts as `null`.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Go's `map[string]struct{}`.
mod go_set {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::collections::BTreeMap;

    #[derive(Serialize)]
    struct Empty {}

    pub(super) fn serialize<S: Serializer>(set: &[String], serializer: S) -> Result<S::Ok, S::Error> {
        set.iter().map(|key| (key, Empty {})).collect::<BTreeMap<_, _>>().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
        let map = Option::<BTreeMap<String, serde::de::IgnoredAny>>::deserialize(deserializer)?;
        Ok(map.unwrap_or_default().into_keys().collect())
    }
}

/// Go's `time.Duration`.
mod nanoseconds {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    pub(super) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(time.as_nanos()).unwrap_or(i64::MAX as u64))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let nanos = Option::<i64>::deserialize(deserializer)?.unwrap_or(0);
        Ok(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Comparing each entry with each other would take minutes.
    #[test]
    fn many_words_of_one_instruction_cost_their_number() {
        let pairs =
            |value: &str| (0..100_000).map(|n| (format!("K{n}"), value.to_owned())).collect::<Vec<_>>();
        let mut config = Config::default();
        for value in ["a", "b"] {
            config.apply(&Instruction::Env(pairs(value))).unwrap();
            let paths = (0..100_000).map(|n| format!("/v{n}")).collect();
            config.apply(&Instruction::Volume(paths)).unwrap();
        }
        assert_eq!((config.env.len(), config.volumes.len()), (100_000, 100_000));
        assert_eq!(config.variables()["K99999"], "b");
    }

    fn changed(changes: &[&str]) -> Config {
        let mut config = Config::default();
        for change in changes {
            config.apply_change(change).unwrap();
        }
        config
    }

    #[test]
    fn ranges_of_ports_are_open_once_however_often_they_are_named() {
        let mut config = Config::default();
        let line = format!("EXPOSE {}", "1-65535 ".repeat(500));
        config.apply_change(&line).unwrap();
        config.apply_change("EXPOSE 5/UDP 70-80").unwrap();
        assert_eq!(config.exposed_ports.len(), 65_536);
    }

    #[test]
    fn changes_read_as_in_a_dockerfile() {
        let config = changed(&[
            "CMD [\"/bin/web\", \"--port\", \"80\"]",
            "entrypoint exec run",
            "ENV A=1 B=\"two words\"",
            "ENV A=3",
            "ENV OLD the rest",
            "EXPOSE 80 53/udp 8000-8001",
            "LABEL a.b=c",
            "VOLUME /data /cache",
            "WORKDIR /srv",
            "WORKDIR app/../web",
            "USER nobody:nogroup",
            "STOPSIGNAL SIGINT",
            "HEALTHCHECK --interval=1m30s --retries=2 CMD wget -q localhost",
        ]);
        assert_eq!(config.cmd, ["/bin/web", "--port", "80"]);
        assert_eq!(config.entrypoint, ["/bin/sh", "-c", "exec run"]);
        assert_eq!(config.env, ["A=3", "B=two words", "OLD=the rest"]);
        assert_eq!(config.exposed_ports, ["53/udp", "80/tcp", "8000/tcp", "8001/tcp"]);
        assert_eq!(config.volumes, ["/cache", "/data"]);
        assert_eq!(config.working_dir, "/srv/web");
        assert_eq!(config.stop_signal.as_deref(), Some("SIGINT"));
        let check = config.healthcheck.unwrap();
        assert_eq!(check.test, ["CMD-SHELL", "wget -q localhost"]);
        assert_eq!((check.interval, check.retries), (Duration::from_secs(90), 2));
    }

    #[test]
    fn a_broken_change_is_named() {
        let mut config = Config::default();
        assert_eq!(
            config.apply_change("RUN x").unwrap_err().to_string(),
            "RUN is not a valid change command"
        );
        for change in [
            "CMD",
            "EXPOSE 0",
            "EXPOSE 70000",
            "ENV A",
            "HEALTHCHECK maybe",
            "HEALTHCHECK --interval=x CMD y",
        ] {
            assert!(config.apply_change(change).is_err(), "{change}");
        }
        assert_eq!(config, Config::default());
    }

    #[test]
    fn go_nulls_and_empty_structs_are_read_and_written_back_in_order() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"ExposedPorts":{"80/tcp":{},"53/udp":{}},"Env":null,
            "Cmd":["a"],"Volumes":null,"Labels":null,"Healthcheck":{"Test":["CMD","x"],"Interval":1000000000}},
            "rootfs":{"type":"layers","diff_ids":null},"history":null}"#;
        let config: ImageConfiguration = serde_json::from_str(text).unwrap();
        assert_eq!(config.config.exposed_ports, ["53/udp", "80/tcp"]);
        assert_eq!(config.config.healthcheck.as_ref().unwrap().interval, Duration::from_secs(1));
        let written = serde_json::to_string(&config).unwrap();
        assert!(written.contains(r#""ExposedPorts":{"53/udp":{},"80/tcp":{}}"#), "{written}");
        assert_eq!(serde_json::from_str::<ImageConfiguration>(&written).unwrap(), config);
    }
}
