//! What a spec says once and a swarm has many times: tasks carry it, nodes hear of it from each of them, attempts are
//! remembered by it. A short request must not cost a thousand times its length. Pure.

use model::{
    ATTEMPTS_MAX, BACKENDS_MAX, Mode, PublishMode, ServiceId, ServiceSpec, TASKS_BYTES_FEW, TASKS_BYTES_MAX,
    Tables,
};
use prost::Message as _;
use proto::types;
use tonic::Status;

/// Refuses a service that is new (`id` = `None`) or changed, if it makes more of little than a swarm can hold.
pub(super) fn check(tables: &Tables, spec: &ServiceSpec, id: Option<ServiceId>) -> Result<(), Status> {
    let others = |amount: fn(&Tables, &ServiceSpec) -> u64| {
        let others = tables.services.values().filter(|other| Some(other.id) != id && !other.pending_delete);
        others.fold(0_u64, |sum, other| sum.saturating_add(amount(tables, &other.spec)))
    };
    let judge = |amount: fn(&Tables, &ServiceSpec) -> u64, limit: u64, what: &str, hint: &str| {
        let mine = amount(tables, spec);
        if mine == 0 {
            return Ok(()); // nothing is added to what there is
        }
        let theirs = others(amount);
        if mine.saturating_add(theirs) <= limit {
            return Ok(());
        }
        let name = &spec.name;
        Err(Status::invalid_argument(format!(
            "service {name}: {mine} {what}, and {theirs} those of other services: a swarm has at most {limit}; hint: {hint}"
        )))
    };
    judge(
        task_bytes,
        TASKS_BYTES_MAX,
        "bytes are what its tasks say together",
        "fewer replicas, or configs and volumes in place of long variables, labels and arguments",
    )?;
    judge(
        backends,
        BACKENDS_MAX,
        "times a task of it is behind a published port",
        "fewer replicas or ports in mode ingress",
    )?;
    judge(
        attempts,
        ATTEMPTS_MAX,
        "ended tasks are to be kept to count the attempts of its restart policy (MaxAttempts)",
        "fewer attempts, or 0: as many as it takes",
    )
}

/// Returns how many tasks are up to be there at once.
fn slots(tables: &Tables, spec: &ServiceSpec) -> u64 {
    match spec.mode {
        Mode::Replicated { .. } | Mode::ReplicatedJob { .. } => spec.mode.slots(),
        Mode::Global | Mode::GlobalJob => tables.nodes.len().max(1) as u64,
    }
}

fn task_bytes(tables: &Tables, spec: &ServiceSpec) -> u64 {
    let one = types::TaskSpec::from(&*spec.task).encoded_len() as u64;
    let all = one.saturating_mul(slots(tables, spec));
    if all > TASKS_BYTES_FEW { all } else { 0 }
}

fn backends(tables: &Tables, spec: &ServiceSpec) -> u64 {
    let ports = spec.endpoint.ports.iter().filter(|port| port.mode == PublishMode::Ingress).count() as u64;
    ports.saturating_mul(slots(tables, spec))
}

fn attempts(tables: &Tables, spec: &ServiceSpec) -> u64 {
    let history = tables.cluster.as_ref().map_or(0, |cluster| cluster.spec.task_history_limit);
    let attempts = spec.task.restart.max_attempts;
    // Fewer are no more than the slot's history has anyway; a negative one keeps everything.
    if u64::try_from(history).is_ok_and(|history| attempts > history) {
        attempts.saturating_add(1).saturating_mul(slots(tables, spec))
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::state::{service_spec, state};
    use model::{PortConfig, Protocol};
    use std::sync::Arc;

    fn check_of(tables: &Tables, change: impl FnOnce(&mut ServiceSpec)) -> Result<(), String> {
        let mut spec = service_spec("web");
        change(&mut spec);
        check(tables, &spec, None).map_err(|refused| refused.message().to_owned())
    }

    fn says(spec: &mut ServiceSpec, bytes: usize, replicas: u64) {
        Arc::make_mut(&mut spec.task).container.env = vec![format!("A={}", "x".repeat(bytes))];
        spec.mode = Mode::Replicated { replicas };
    }

    #[test]
    fn tasks_say_no_more_together_than_managers_keep() {
        let tables = state().cluster().node(1).node(2).service(1, &[], &[]).tables();
        assert_eq!(check_of(&tables, |s| says(s, 10_000, 16_000)), Ok(()));
        assert_eq!(check_of(&tables, |s| says(s, 1_000_000, 200)), Ok(()));
        let said = check_of(&tables, |s| says(s, 1_000_000, 300)).unwrap_err();
        assert!(said.starts_with("service web: 300") && said.contains("at most 268435456"), "{said}");
        let beside = state().cluster().node(1).service(1, &[], &[]).change_service(1, |service| {
            says(Arc::make_mut(&mut service.spec), 1_000_000, 200);
        });
        let beside = beside.tables();
        let said = check_of(&beside, |s| says(s, 1_000_000, 100)).unwrap_err();
        assert!(said.contains(", and 200"), "{said}");
        assert_eq!(check_of(&beside, |s| says(s, 100_000, 10)), Ok(()), "what is little is not refused");
        let other = beside.services.values().next().unwrap();
        check(&beside, &other.spec, Some(other.id)).expect("its own do not count twice");
    }

    #[test]
    fn a_mesh_has_no_more_ways_than_nodes_can_hear_of() {
        let tables = state().cluster().node(1).node(2).tables();
        let publish = |ports: u16, mode: PublishMode, of: Mode| {
            check_of(&tables, |s| {
                let (name, protocol) = (String::new(), Protocol::Tcp);
                let port =
                    |n: u16| PortConfig { name: name.clone(), protocol, target: n, published: n, mode };
                (s.endpoint.ports, s.mode) = ((1..=ports).map(port).collect(), of);
            })
        };
        let replicas = |replicas| Mode::Replicated { replicas };
        assert_eq!(publish(4, PublishMode::Ingress, replicas(16_384)), Ok(()));
        assert_eq!(publish(16_000, PublishMode::Ingress, Mode::Global), Ok(()));
        assert_eq!(publish(16_000, PublishMode::Host, replicas(16_000)), Ok(()));
        let said = publish(5, PublishMode::Ingress, replicas(16_384)).unwrap_err();
        assert!(said.contains("81920 times a task of it is behind a published port"), "{said}");
    }

    #[test]
    fn attempts_are_counted_by_no_more_tasks_than_are_kept() {
        let tables = state().cluster().node(1).tables();
        let attempts = |attempts: u64, replicas: u64| {
            check_of(&tables, |s| {
                Arc::make_mut(&mut s.task).restart.max_attempts = attempts;
                s.mode = Mode::Replicated { replicas };
            })
        };
        assert_eq!(attempts(0, 16_384), Ok(()));
        assert_eq!(attempts(3, 16_384), Ok(()), "no more than the history has");
        assert_eq!(attempts(1000, 10), Ok(()));
        for (count, replicas) in [(100_000, 1), (10, 16_384), (u64::MAX, 2)] {
            let said = attempts(count, replicas).unwrap_err();
            assert!(said.contains("MaxAttempts") && said.contains("at most 65536"), "{said}");
        }
    }
}
