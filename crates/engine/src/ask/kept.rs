//! How nouns of `model`, which knows no format, are kept in `config.json`.

use model::{ContainerRestart, Ulimit};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
#[serde(remote = "ContainerRestart")]
pub(crate) enum Restart {
    No,
    Always,
    UnlessStopped,
    OnFailure { max_retries: Option<u32> },
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Ulimit")]
struct Limit {
    name: String,
    soft: i64,
    hard: i64,
}

pub(crate) mod ulimits {
    use super::Limit;
    use model::Ulimit;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Kept(#[serde(with = "Limit")] Ulimit);

    pub(crate) fn serialize<S: Serializer>(limits: &[Ulimit], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(limits.iter().cloned().map(Kept))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Ulimit>, D::Error> {
        Ok(Vec::<Kept>::deserialize(from)?.into_iter().map(|Kept(limit)| limit).collect())
    }
}

#[cfg(test)]
mod tests {
    use crate::ask::config::HostConfig;
    use model::{ContainerRestart, Ulimit};
    use serde_json::json;

    /// Records of earlier releases are read, and they read ours.
    #[test]
    fn a_record_has_the_form_that_it_always_had() {
        let limited = ContainerRestart::OnFailure { max_retries: Some(3) };
        for (restart, kept) in [
            (ContainerRestart::No, json!("No")),
            (ContainerRestart::Always, json!("Always")),
            (ContainerRestart::UnlessStopped, json!("UnlessStopped")),
            (limited, json!({"OnFailure": {"max_retries": 3}})),
        ] {
            let ulimits = vec![Ulimit { name: "nofile".into(), soft: 1, hard: -1 }];
            let host = HostConfig { restart, ulimits: ulimits.clone(), ..HostConfig::default() };
            let written = serde_json::to_value(&host).unwrap();
            assert_eq!(written["restart"], kept);
            assert_eq!(written["ulimits"], json!([{"name": "nofile", "soft": 1, "hard": -1}]));
            let read: HostConfig = serde_json::from_value(written).unwrap();
            assert_eq!((read.restart, read.ulimits), (restart, ulimits));
        }
        let silent: HostConfig = serde_json::from_value(json!({})).unwrap();
        assert_eq!((silent.restart, silent.ulimits), (ContainerRestart::No, vec![]));
    }
}
