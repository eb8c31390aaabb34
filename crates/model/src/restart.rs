//! When a container of one host that ended is started again. (A service's tasks have a
//! [`RestartPolicy`] of their own: its tasks never run twice.)

use crate::{
    confine::Unfit,
    service::{RestartCondition, RestartPolicy},
};

/// Source: Docker API, `HostConfig.RestartPolicy`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ContainerRestart {
    #[default]
    No,
    Always,
    /// As `Always`, unless a person stopped it last.
    UnlessStopped,
    /// When its exit code is not zero. `None` = as often as that is.
    OnFailure {
        max_retries: Option<u32>,
    },
}

impl ContainerRestart {
    /// Reads Docker's word, and how often it is tried: 0 = no limit.
    /// Source: moby `api/types/container/hostconfig.go`, `ValidateRestartPolicy`.
    ///
    /// # Errors
    /// For a word that is none, and for a number that the word does not take.
    pub fn read(word: &str, retries: i64) -> Result<Self, Unfit> {
        let limit = u32::try_from(retries);
        match (word, limit) {
            // As Docker, whatever the number: so wrote those before API 1.44.
            ("", _) => Ok(Self::No),
            ("no", Ok(0)) => Ok(Self::No),
            ("always", Ok(0)) => Ok(Self::Always),
            ("unless-stopped", Ok(0)) => Ok(Self::UnlessStopped),
            ("on-failure", Ok(limit)) => Ok(Self::OnFailure { max_retries: Some(limit).filter(|n| *n > 0) }),
            ("on-failure", Err(_)) if retries < 0 => unfit("maximum retry count cannot be negative"),
            ("on-failure", Err(_)) => unfit(format!("maximum retry count cannot be more than {}", u32::MAX)),
            ("no" | "always" | "unless-stopped", _) => {
                unfit("maximum retry count can only be used with 'on-failure'")
            }
            (other, _) => unfit(format!(
                "unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
            )),
        }
    }

    /// Reads `on-failure:3`, as `docker run --restart` and the key `restart` of a compose file have it.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn of_text(text: &str) -> Result<Self, Unfit> {
        let (word, retries) = text.split_once(':').unwrap_or((text, "0"));
        match retries.parse() {
            Ok(retries) => Self::read(word, retries),
            Err(_) => unfit(format!("maximum retry count must be an integer, not {retries:?}")),
        }
    }

    /// Returns Docker's word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Always => "always",
            Self::UnlessStopped => "unless-stopped",
            Self::OnFailure { .. } => "on-failure",
        }
    }

    /// Returns how often it is tried; 0 = no limit, or no such policy.
    #[must_use]
    pub fn retries(self) -> u32 {
        match self {
            Self::OnFailure { max_retries } => max_retries.unwrap_or(0),
            Self::No | Self::Always | Self::UnlessStopped => 0,
        }
    }

    /// Returns what it means for the tasks of a service. Source: docker/cli `compose/convert/service.go`,
    /// `convertRestartPolicy`.
    #[must_use]
    pub fn of_tasks(self) -> RestartPolicy {
        let condition = match self {
            Self::No => RestartCondition::None,
            Self::Always | Self::UnlessStopped => RestartCondition::Any,
            Self::OnFailure { .. } => RestartCondition::OnFailure,
        };
        RestartPolicy { condition, max_attempts: self.retries().into(), ..RestartPolicy::default() }
    }
}

fn unfit<T>(why: impl Into<String>) -> Result<T, Unfit> {
    Err(Unfit { key: "restart policy", why: why.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_read_as_docker_means_it_or_refused_in_dockers_words() {
        let limited = |max_retries| ContainerRestart::OnFailure { max_retries };
        for (text, policy) in [
            ("", ContainerRestart::No),
            ("no", ContainerRestart::No),
            ("always", ContainerRestart::Always),
            ("always:0", ContainerRestart::Always),
            ("unless-stopped", ContainerRestart::UnlessStopped),
            ("on-failure", limited(None)),
            ("on-failure:0", limited(None)),
            ("on-failure:3", limited(Some(3))),
        ] {
            assert_eq!(ContainerRestart::of_text(text), Ok(policy), "{text}");
            if !text.is_empty() {
                assert_eq!(
                    ContainerRestart::read(policy.word(), policy.retries().into()),
                    Ok(policy),
                    "{text}"
                );
            }
        }
        for (text, why) in [
            ("always:3", "maximum retry count can only be used with 'on-failure'"),
            ("no:-1", "maximum retry count can only be used with 'on-failure'"),
            ("on-failure:-1", "maximum retry count cannot be negative"),
            ("on-failure:4294967296", "maximum retry count cannot be more than 4294967295"),
            ("on-failure:x", "maximum retry count must be an integer, not \"x\""),
            ("on-failure:", "maximum retry count must be an integer, not \"\""),
            (
                "sometimes",
                "unknown policy 'sometimes'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
            ),
        ] {
            let error = ContainerRestart::of_text(text).expect_err(text).to_string();
            assert_eq!(error, format!("invalid restart policy: {why}"));
        }
    }

    #[test]
    fn tasks_get_what_comes_nearest() {
        let of = |text: &str| {
            let policy = ContainerRestart::of_text(text).expect(text).of_tasks();
            (policy.condition, policy.max_attempts)
        };
        assert_eq!(of("no"), (RestartCondition::None, 0));
        assert_eq!(of("unless-stopped"), (RestartCondition::Any, 0));
        assert_eq!(of("on-failure:4"), (RestartCondition::OnFailure, 4));
    }
}
