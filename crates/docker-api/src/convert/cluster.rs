//! The swarm itself, its secrets, configs and stacks.

use super::{Result, check_name, duration, invalid, nanos};
use crate::types::{self, ObjectVersion};
use base64::{DecodeError, Engine as _, engine::general_purpose::STANDARD};
use model::{
    Cluster, ClusterSpec, Config, ConfigSpec, DAEMON_GRACE_MAX, LogDriver, SLOW_FOLLOWER_ENTRIES, Secret,
    SecretBytes, SecretSpec, Stack,
};

/// Docker's numbers; our elections are faster and take no settings.
const ELECTION_TICK: i64 = 10;
const HEARTBEAT_TICK: i64 = 1;

/// Reads the swarm's settings; what is not given stays as in `current`. What cannot be had is refused.
pub fn cluster_spec(from: types::SwarmSpec, current: &ClusterSpec) -> Result<ClusterSpec> {
    if !matches!(from.name.as_str(), "" | "default") {
        return invalid(format!("swarm name {:?} is not supported: it is always \"default\"", from.name));
    }
    let log_driver = from.task_defaults.log_driver.filter(|driver| *driver != types::LogDriver::default());
    if log_driver.as_ref().is_some_and(|driver| driver.name.is_empty()) {
        return invalid("TaskDefaults.LogDriver: options need the name of a driver");
    }
    let raft = &from.raft;
    for (what, given, fixed) in [
        ("ElectionTick", raft.election_tick, ELECTION_TICK),
        ("HeartbeatTick", raft.heartbeat_tick, HEARTBEAT_TICK),
    ] {
        if given != 0 && given != fixed {
            return invalid(format!("Raft.{what} cannot be changed: it is {fixed}"));
        }
    }
    if !from.ca_config.external_cas.is_empty() {
        return invalid(
            "external certificate authorities are not supported: managers sign with a key that they hold; hint: swarm \
             ca --rotate --ca-cert FILE --ca-key FILE takes a root of your own",
        );
    }
    let or = |nanos: i64, what: &str, current| {
        if nanos == 0 { Ok(current) } else { duration(nanos, what) }
    };
    let expiry = or(from.ca_config.node_cert_expiry, "NodeCertExpiry", current.node_cert_expiry)?;
    if expiry < model::Duration::from_secs(3600) {
        return invalid("minimum certificate expiry time must be at least 1h0m0s");
    }
    let heartbeat_period = or(from.dispatcher.heartbeat_period, "HeartbeatPeriod", current.heartbeat_period)?;
    if heartbeat_period < model::Duration::from_millis(100) {
        return invalid("heartbeat time period cannot be shorter than 100 ms");
    }
    let daemon_grace = match from.dispatcher.daemon_grace {
        Some(nanos) => Some(duration(nanos, "DaemonGrace")?),
        None => current.daemon_grace, // Docker's own clients do not know it
    };
    if daemon_grace.is_some_and(|grace| grace > DAEMON_GRACE_MAX) {
        return invalid("a daemon's grace is a day at most");
    }
    Ok(ClusterSpec {
        labels: from.labels,
        task_history_limit: from
            .orchestration
            .task_history_retention_limit
            .unwrap_or(current.task_history_limit),
        heartbeat_period,
        daemon_grace,
        dead_manager_after: match raft.dead_manager_after {
            Some(0) => None,
            Some(nanos) => Some(duration(nanos, "DeadManagerAfter")?),
            None => current.dead_manager_after, // nor this
        },
        node_cert_expiry: expiry,
        autolock: from.encryption_config.auto_lock_managers,
        snapshot_interval: match raft.snapshot_interval {
            0 => current.snapshot_interval,
            given => given,
        },
        old_snapshots: raft.keep_old_snapshots.unwrap_or(current.old_snapshots),
        slow_follower_entries: match raft.log_entries_for_slow_followers {
            0 => current.slow_follower_entries,
            // What was read is not chosen by sending it back.
            given if given == slow_follower_entries(current) => current.slow_follower_entries,
            given => Some(given),
        },
        force_rotate: match from.ca_config.force_rotate {
            0 => current.force_rotate, // not said
            given => given,
        },
        log_driver: log_driver.map(|l| LogDriver { name: l.name, options: l.options }),
    })
}

fn slow_follower_entries(spec: &ClusterSpec) -> u64 {
    spec.slow_follower_entries.unwrap_or(SLOW_FOLLOWER_ENTRIES)
}

/// Writes the swarm's settings.
pub fn cluster_spec_json(from: &ClusterSpec) -> types::SwarmSpec {
    types::SwarmSpec {
        name: "default".into(),
        labels: from.labels.clone(),
        orchestration: types::Orchestration { task_history_retention_limit: Some(from.task_history_limit) },
        raft: types::RaftConfig {
            snapshot_interval: from.snapshot_interval,
            keep_old_snapshots: Some(from.old_snapshots),
            log_entries_for_slow_followers: slow_follower_entries(from),
            election_tick: ELECTION_TICK,
            heartbeat_tick: HEARTBEAT_TICK,
            dead_manager_after: Some(from.dead_manager_after.map_or(0, nanos)),
        },
        dispatcher: types::DispatcherConfig {
            heartbeat_period: nanos(from.heartbeat_period),
            daemon_grace: from.daemon_grace.map(nanos),
        },
        ca_config: types::CaConfig {
            node_cert_expiry: nanos(from.node_cert_expiry),
            force_rotate: from.force_rotate,
            ..types::CaConfig::default()
        },
        task_defaults: types::TaskDefaults {
            log_driver: from
                .log_driver
                .as_ref()
                .map(|l| types::LogDriver { name: l.name.clone(), options: l.options.clone() }),
        },
        encryption_config: types::EncryptionConfig { auto_lock_managers: from.autolock },
    }
}

/// Writes the swarm; with its join tokens only for `GET /swarm`.
pub fn swarm_json(from: &Cluster, with_tokens: bool) -> types::Swarm {
    let text = |secret: &SecretBytes| String::from_utf8_lossy(&secret.0).into_owned();
    types::Swarm {
        id: from.id.to_string(),
        version: ObjectVersion { index: from.meta.version },
        created_at: from.meta.created_at.into(),
        updated_at: from.meta.updated_at.into(),
        spec: cluster_spec_json(&from.spec),
        tls_info: desired_tls(from),
        root_rotation_in_progress: from.rotation.is_some(),
        default_addr_pool: from.address_pools.iter().map(ToString::to_string).collect(),
        subnet_size: u32::from(from.subnet_prefix),
        data_path_port: u32::from(from.data_path_port),
        join_tokens: with_tokens.then(|| types::JoinTokens {
            worker: text(&from.worker_token),
            manager: text(&from.manager_token),
        }),
    }
}

/// Writes whom nodes are to trust, and who is to have certified them.
fn desired_tls(from: &Cluster) -> types::TlsInfo {
    let root = from.desired_root();
    let authority = pki::Authority::last_of(root).ok();
    types::TlsInfo {
        trust_root: root.to_owned(),
        cert_issuer_subject: authority.as_ref().map(|a| STANDARD.encode(&a.subject)).unwrap_or_default(),
        cert_issuer_public_key: authority.map(|a| STANDARD.encode(&a.public_key)).unwrap_or_default(),
    }
}

/// Writes whom a node trusts and who has certified it; roots that the swarm knows no more are not shown.
pub(super) fn node_tls(from: &model::NodeTls, cluster: &Cluster) -> types::TlsInfo {
    let known = [cluster.trusted_roots(), cluster.root_ca_cert.clone(), cluster.desired_root().to_owned()];
    let trusted = known.into_iter().find(|pem| pki::sha256(pem.as_bytes()).as_slice() == from.trust);
    types::TlsInfo {
        trust_root: trusted.unwrap_or_default(),
        cert_issuer_subject: STANDARD.encode(&from.issuer_subject),
        cert_issuer_public_key: STANDARD.encode(&from.issuer_public_key),
    }
}

/// Reads a new secret. *Limit:* 500 KiB, as SwarmKit.
pub fn secret_spec(from: types::SecretSpec) -> Result<SecretSpec> {
    check_name(&from.name)?;
    if from.driver.is_some() {
        return invalid("secret drivers are not supported");
    }
    let templated = templated(from.templating.as_ref())?;
    let data = decode(&from.data)?;
    if data.is_empty() || data.len() >= 500 * 1024 {
        return invalid("secret data must be larger than 0 and less than 512000 bytes");
    }
    Ok(SecretSpec { name: from.name, labels: from.labels, data: SecretBytes(data), templated })
}

/// Reads a new config. *Limit:* 1000 KiB, as SwarmKit.
pub fn config_spec(from: types::ConfigSpec) -> Result<ConfigSpec> {
    check_name(&from.name)?;
    let templated = templated(from.templating.as_ref())?;
    let data = decode(&from.data)?;
    if data.is_empty() || data.len() >= 1000 * 1024 {
        return invalid("config data must be larger than 0 and less than 1024000 bytes");
    }
    Ok(ConfigSpec { name: from.name, labels: from.labels, data, templated })
}

/// Reads a change of a secret: only its labels may differ from the stored one, which the managers judge.
pub fn secret_change(from: types::SecretSpec) -> Result<SecretSpec> {
    let templated = templated(from.templating.as_ref())?;
    Ok(SecretSpec { name: from.name, labels: from.labels, data: SecretBytes(decode(&from.data)?), templated })
}

/// Reads a change of a config: only its labels may differ from the stored one, which the managers judge.
pub fn config_change(from: types::ConfigSpec) -> Result<ConfigSpec> {
    let templated = templated(from.templating.as_ref())?;
    Ok(ConfigSpec { name: from.name, labels: from.labels, data: decode(&from.data)?, templated })
}

/// Reads the template driver of a secret or config. Source: swarmkit `template/expand.go`.
fn templated(driver: Option<&types::DriverState>) -> Result<bool> {
    match driver {
        Some(driver) if !driver.options.is_empty() => invalid("a template driver has no options"),
        None => Ok(false),
        Some(driver) => match driver.name.as_str() {
            "" => Ok(false),
            "golang" => Ok(true),
            other => invalid(format!("unrecognized template driver {other:?}: golang is known")),
        },
    }
}

fn decode(data: &str) -> Result<Vec<u8>> {
    // In Go's words.
    STANDARD.decode(data).or_else(|error| {
        let at = match error {
            DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
            DecodeError::InvalidLength(_) | DecodeError::InvalidPadding => data.len(),
        };
        invalid(format!("illegal base64 data at input byte {at}"))
    })
}

/// Writes a secret, without its data.
pub fn secret_json(from: &Secret) -> types::Secret {
    types::Secret {
        id: from.id.to_string(),
        version: ObjectVersion { index: from.meta.version },
        created_at: from.meta.created_at.into(),
        updated_at: from.meta.updated_at.into(),
        spec: types::SecretSpec {
            name: from.spec.name.clone(),
            labels: from.spec.labels.clone(),
            templating: types::DriverState::golang(from.spec.templated),
            ..types::SecretSpec::default()
        },
    }
}

/// Writes a new secret: what [`secret_spec`] reads.
pub fn secret_spec_json(from: &SecretSpec) -> types::SecretSpec {
    types::SecretSpec {
        name: from.name.clone(),
        labels: from.labels.clone(),
        data: STANDARD.encode(&from.data.0),
        driver: None,
        templating: types::DriverState::golang(from.templated),
    }
}

/// Writes a new config: what [`config_spec`] reads.
pub fn config_spec_json(from: &ConfigSpec) -> types::ConfigSpec {
    types::ConfigSpec {
        name: from.name.clone(),
        labels: from.labels.clone(),
        data: STANDARD.encode(&from.data),
        templating: types::DriverState::golang(from.templated),
    }
}

/// Writes a config.
pub fn config_json(from: &Config) -> types::Config {
    types::Config {
        id: from.id.to_string(),
        version: ObjectVersion { index: from.meta.version },
        created_at: from.meta.created_at.into(),
        updated_at: from.meta.updated_at.into(),
        spec: config_spec_json(&from.spec),
    }
}

/// Writes a stack.
pub fn stack_json(from: &Stack) -> types::Stack {
    types::Stack {
        id: from.id.to_string(),
        version: ObjectVersion { index: from.meta.version },
        created_at: from.meta.created_at.into(),
        updated_at: from.meta.updated_at.into(),
        name: from.name.clone(),
        revisions: from
            .revisions
            .iter()
            .map(|r| types::StackRevision {
                number: r.number,
                at: r.at.into(),
                author: r.author.clone(),
                source: r.source.clone(),
                services: r.services.iter().map(|s| s.name.clone()).collect(),
                restores: r.restores,
                came_up: r.came_up,
                message: r.message.clone(),
                git: r.git.clone(),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_configs_and_settings_survive_docker_json() {
        let secret = SecretSpec {
            name: "s".into(),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            data: SecretBytes(vec![0, 255, 7]),
            templated: true,
        };
        assert_eq!(secret_spec(secret_spec_json(&secret)), Ok(secret));
        let config = ConfigSpec {
            name: "c".into(),
            labels: types::StringMap::new(),
            data: vec![1, 2],
            templated: true,
        };
        assert_eq!(config_spec(config_spec_json(&config)), Ok(config));
        let cluster = ClusterSpec {
            task_history_limit: 9,
            autolock: true,
            snapshot_interval: 7,
            old_snapshots: 2,
            slow_follower_entries: Some(1_200),
            force_rotate: 3,
            daemon_grace: Some(model::Duration::from_secs(7)),
            dead_manager_after: Some(model::Duration::from_secs(70)),
            log_driver: Some(LogDriver {
                name: "local".into(),
                options: [("max-file".to_owned(), "2".to_owned())].into(),
            }),
            ..ClusterSpec::default()
        };
        assert_eq!(cluster_spec(cluster_spec_json(&cluster), &ClusterSpec::default()), Ok(cluster));
    }

    #[test]
    fn template_drivers_but_golang_are_refused_by_name() {
        let mut spec =
            types::ConfigSpec { name: "c".into(), data: STANDARD.encode("x"), ..Default::default() };
        for (name, options, told) in [
            ("", &[][..], Ok(false)),
            ("golang", &[], Ok(true)),
            ("jinja", &[], Err("unrecognized template driver \"jinja\"")),
            ("golang", &[("a", "b")], Err("a template driver has no options")),
        ] {
            let options = options.iter().map(|(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned()));
            spec.templating = Some(types::DriverState { name: name.into(), options: options.collect() });
            match (config_spec(spec.clone()), told) {
                (Ok(read), Ok(templated)) => assert_eq!(read.templated, templated, "{name}"),
                (Err(refused), Err(words)) => assert!(refused.0.contains(words), "{name}: {}", refused.0),
                (read, _) => panic!("{name}: {read:?}"),
            }
        }
    }

    #[test]
    fn settings_that_cannot_be_had_are_refused_by_name() {
        let check = |change: fn(&mut types::SwarmSpec), name: &str| {
            let mut spec = cluster_spec_json(&ClusterSpec::default());
            assert!(cluster_spec(spec.clone(), &ClusterSpec::default()).is_ok(), "as it was read");
            change(&mut spec);
            let refused = cluster_spec(spec, &ClusterSpec::default()).unwrap_err().0;
            assert!(refused.contains(name), "{refused}");
        };
        check(|s| s.name = "other".into(), "\"other\"");
        check(|s| s.raft.election_tick = 3, "ElectionTick");
        check(|s| s.raft.heartbeat_tick = 3, "HeartbeatTick");
        check(|s| s.ca_config.node_cert_expiry = 1, "certificate expiry");
        check(|s| s.dispatcher.heartbeat_period = 1, "heartbeat");
        check(|s| s.dispatcher.daemon_grace = Some(i64::MAX), "grace");
        check(|s| s.raft.dead_manager_after = Some(-1), "DeadManagerAfter");
        let driver = |s: &mut types::SwarmSpec| {
            let options = [("max-size".to_owned(), "1m".to_owned())].into();
            s.task_defaults.log_driver = Some(types::LogDriver { name: String::new(), options });
        };
        check(driver, "LogDriver");
    }

    #[test]
    fn empty_and_oversized_secrets_are_refused() {
        for data in [Vec::new(), vec![0; 500 * 1024]] {
            let spec = SecretSpec {
                name: "s".into(),
                labels: types::StringMap::new(),
                data: SecretBytes(data),
                templated: false,
            };
            assert!(secret_spec(secret_spec_json(&spec)).is_err());
        }
        let no_base64 = types::SecretSpec { name: "s".into(), data: "b'YQ=='".into(), ..Default::default() };
        let refused = secret_spec(no_base64).unwrap_err().to_string();
        assert!(refused.contains("illegal base64 data at input byte 1"), "{refused}");
    }
}
