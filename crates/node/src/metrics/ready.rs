//! Whether this daemon lives, and whether it is to be sent work: for load balancers, and for who upgrades hosts one by one.

use crate::swarm::NodeSwarm;
use docker_api::server::{Swarm as _, SwarmStatus};
use model::Role;

/// Returns what this daemon waits for, each in a line; empty: nothing.
pub(super) fn waits_for(swarm: &NodeSwarm) -> Vec<String> {
    let me = match swarm.status() {
        SwarmStatus::Inactive if swarm.is_member() => {
            return vec!["its part in the swarm is being taken up".to_owned()];
        }
        SwarmStatus::Inactive => return Vec::new(),
        SwarmStatus::Locked => return vec!["the swarm's keys are locked: rswarm swarm unlock".to_owned()],
        SwarmStatus::Failed(why) => return vec![why],
        SwarmStatus::Active(me) => me,
    };
    let mut waits = Vec::new();
    if !me.error.is_empty() {
        waits.push(me.error);
    }
    let Some(current) = swarm.current() else {
        return vec!["its part in the swarm is being taken up".to_owned()];
    };
    let view = current.view.borrow().clone();
    let heard = view.heard.borrow().manager.is_some();
    if !heard {
        waits.push("no manager serves this node's agent".to_owned());
    }
    if me.role == Role::Manager {
        match &view.store {
            None => waits.push("this manager has no state".to_owned()),
            Some(store) if !store.is_current() => {
                waits.push("this manager does not hear what the others agree on".to_owned());
            }
            Some(store) if !store.is_voter() => waits.push("this manager does not vote yet".to_owned()),
            Some(_) => {}
        }
    }
    waits
}
