//! What all hosts say at about one moment, and what of it is not as it should be.

use super::hosts::MANAGERS;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Answers of the API, as they came.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The list of nodes of each manager.
    pub(super) nodes: BTreeMap<u8, Vec<Value>>,
    /// What each host says of its own part in the swarm.
    pub(super) standing: BTreeMap<u8, Value>,
    pub(super) services: Vec<Value>,
    pub(super) tasks: Vec<Value>,
    /// The running containers of each host.
    pub(super) containers: BTreeMap<u8, Vec<Value>>,
}

/// Returns what is wrong, in words: nothing, once everything is as asked.
pub(super) fn judge(seen: &Seen) -> Vec<String> {
    let mut faults = Vec::new();
    let leaders = seen.nodes.iter().map(|(n, nodes)| judge_nodes(*n, nodes, &mut faults));
    let leaders: BTreeSet<String> = leaders.collect();
    if leaders.len() != 1 {
        faults.push(format!("managers name other leaders: {leaders:?}"));
    }
    for (n, standing) in &seen.standing {
        if standing["LocalNodeState"] != "active" || standing["ControlAvailable"] != (*n <= MANAGERS) {
            let (state, control) = (&standing["LocalNodeState"], &standing["ControlAvailable"]);
            faults.push(format!("host{n} says it is {state}, control {control}: {}", standing["Error"]));
        }
    }
    for service in &seen.services {
        let (name, status) = (&service["Spec"]["Name"], &service["ServiceStatus"]);
        if status["RunningTasks"] != status["DesiredTasks"] {
            faults.push(format!("{name} runs {} of {}", status["RunningTasks"], status["DesiredTasks"]));
        }
        let update = &service["UpdateStatus"]["State"];
        if !update.is_null() && update != "completed" && update != "" {
            faults.push(format!("the update of {name} is {update}"));
        }
    }
    judge_tasks(seen, &mut faults);
    faults
}

/// Returns whom manager `n` names as the leaders.
fn judge_nodes(n: u8, nodes: &[Value], faults: &mut Vec<String>) -> String {
    let mut leaders = Vec::new();
    for node in nodes {
        let name = node["Description"]["Hostname"].as_str().unwrap_or_default();
        let number: u8 = name.strip_prefix("host").and_then(|n| n.parse().ok()).unwrap_or(u8::MAX);
        let (role, manager) =
            if number <= MANAGERS { ("manager", "reachable") } else { ("worker", "no manager") };
        let said = [
            ("state", node["Status"]["State"].as_str(), "ready"),
            ("availability", node["Spec"]["Availability"].as_str(), "active"),
            ("message", node["Status"]["Message"].as_str().or(Some("")), ""),
            ("role", node["Spec"]["Role"].as_str(), role),
            ("standing", node["ManagerStatus"]["Reachability"].as_str().or(Some("no manager")), manager),
        ];
        for (what, is, wanted) in said {
            if is != Some(wanted) {
                faults.push(format!(
                    "host{n} says {what} of {name} is {}, not {wanted}",
                    is.unwrap_or("unknown")
                ));
            }
        }
        if node["ManagerStatus"]["Leader"] == true {
            leaders.push(name);
        }
    }
    if leaders.len() != 1 {
        faults.push(format!("host{n} names {} leaders", leaders.len()));
    }
    leaders.join(" ")
}

fn judge_tasks(seen: &Seen, faults: &mut Vec<String>) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let is_wanted = |task: &&Value| task["DesiredState"] == "running";
    let (mut slots, mut wanted, mut addresses) =
        (BTreeSet::new(), BTreeMap::new(), BTreeMap::<String, String>::new());
    for task in seen.tasks.iter().filter(is_wanted) {
        // Of a service that has a task on each node, the node is the slot.
        let number = task["Slot"].as_u64().filter(|number| *number > 0);
        let place = number.map_or_else(|| text(&task["NodeID"]), |number| number.to_string());
        let (id, slot) = (text(&task["ID"]), (text(&task["ServiceID"]), place));
        if task["Status"]["State"] != "running" {
            faults.push(format!("task {id} is {}: {}", task["Status"]["State"], task["Status"]["Err"]));
        }
        if !slots.insert(slot.clone()) {
            faults.push(format!("slot {slot:?} has two tasks that are to run"));
        }
        wanted.insert(text(&task["Status"]["ContainerStatus"]["ContainerID"]), id.clone());
        for attachment in task["NetworksAttachments"].as_array().into_iter().flatten() {
            for address in attachment["Addresses"].as_array().into_iter().flatten() {
                let place = format!("{} of network {}", text(address), text(&attachment["Network"]["ID"]));
                if let Some(other) = addresses.insert(place.clone(), id.clone()) {
                    faults.push(format!("tasks {other} and {id} both have {place}"));
                }
            }
        }
    }
    for (n, containers) in &seen.containers {
        for container in containers {
            let id = text(&container["Id"]);
            if wanted.remove(&id).is_none() {
                faults.push(format!("host{n} runs {}, which no task asks for", container["Names"]));
            }
        }
    }
    faults.extend(wanted.iter().map(|(container, task)| format!("task {task} has no container {container}")));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(n: u8) -> Value {
        let is_manager = n <= MANAGERS;
        let mut node = json!({
            "Description": {"Hostname": format!("host{n}")},
            "Status": {"State": "ready"},
            "Spec": {"Availability": "active", "Role": if is_manager { "manager" } else { "worker" }},
        });
        if is_manager {
            node["ManagerStatus"] = json!({"Reachability": "reachable", "Leader": n == 2});
        }
        node
    }

    fn task(n: u64) -> Value {
        json!({
            "ID": format!("t{n}"), "ServiceID": "web", "Slot": n, "DesiredState": "running",
            "Status": {"State": "running", "ContainerStatus": {"ContainerID": format!("c{n}")}},
            "NetworksAttachments": [{"Network": {"ID": "ingress"}, "Addresses": [format!("10.0.0.{n}/24")]}],
        })
    }

    /// A swarm of one service with two tasks in which all is well.
    fn well() -> Seen {
        let nodes: Vec<Value> = (1..=5).map(node).collect();
        let container = |n: u64| json!({"Id": format!("c{n}"), "Names": [format!("/web.{n}")]});
        let standing = |n: u8| json!({"LocalNodeState": "active", "ControlAvailable": n <= MANAGERS});
        let mut old = task(1);
        (old["ID"], old["DesiredState"]) = (json!("t0"), json!("shutdown"));
        Seen {
            nodes: (1..=MANAGERS).map(|n| (n, nodes.clone())).collect(),
            standing: (1..=5).map(|n| (n, standing(n))).collect(),
            services: vec![json!({
                "Spec": {"Name": "web"},
                "ServiceStatus": {"RunningTasks": 2, "DesiredTasks": 2},
                "UpdateStatus": {"State": "completed"},
            })],
            tasks: vec![old, task(1), task(2)],
            containers: BTreeMap::from([(1, vec![container(1)]), (4, vec![container(2)]), (5, vec![])]),
        }
    }

    /// Checks that one thing is found to be wrong once `spoil` is done, with these words.
    #[track_caller]
    fn check(words: &str, spoil: impl FnOnce(&mut Seen)) {
        let mut seen = well();
        spoil(&mut seen);
        let faults = judge(&seen);
        assert!(faults.iter().any(|fault| fault.contains(words)), "{words:?} is not in {faults:?}");
    }

    #[test]
    fn a_swarm_in_which_all_is_well_has_no_fault_and_each_kind_of_fault_is_found() {
        assert_eq!(judge(&well()), Vec::<String>::new());
        let of = |seen: &mut Seen, n: u8, node: usize, spoil: &dyn Fn(&mut Value)| {
            if let Some(nodes) = seen.nodes.get_mut(&n) {
                spoil(&mut nodes[node]);
            }
        };
        check("host1 says state of host4 is down", |seen| {
            of(seen, 1, 3, &|node| node["Status"]["State"] = json!("down"));
        });
        check("host3 says role of host2 is worker", |seen| {
            of(seen, 3, 1, &|node| node["Spec"]["Role"] = json!("worker"));
        });
        check("standing of host1 is unreachable", |seen| {
            of(seen, 2, 0, &|node| node["ManagerStatus"]["Reachability"] = json!("unreachable"));
        });
        check("standing of host5 is reachable, not no manager", |seen| {
            of(seen, 2, 4, &|node| node["ManagerStatus"] = json!({"Reachability": "reachable"}));
        });
        check("host1 says message of host3 is clock is 60 min ahead", |seen| {
            of(seen, 1, 2, &|node| node["Status"]["Message"] = json!("clock is 60 min ahead"));
        });
        check("availability of host5 is drain", |seen| {
            of(seen, 2, 4, &|node| node["Spec"]["Availability"] = json!("drain"));
        });
        check("managers name other leaders", |seen| {
            of(seen, 1, 1, &|node| node["ManagerStatus"]["Leader"] = json!(false));
            of(seen, 1, 0, &|node| node["ManagerStatus"]["Leader"] = json!(true));
        });
        check("host1 names 2 leaders", |seen| {
            of(seen, 1, 0, &|node| node["ManagerStatus"]["Leader"] = json!(true));
        });
        check("host5 says it is \"active\", control true", |seen| {
            seen.standing.insert(5, json!({"LocalNodeState": "active", "ControlAvailable": true}));
        });
        check("\"web\" runs 1 of 2", |seen| seen.services[0]["ServiceStatus"]["RunningTasks"] = json!(1));
        check("the update of \"web\" is \"updating\"", |seen| {
            seen.services[0]["UpdateStatus"]["State"] = json!("updating");
        });
        check("task t1 is \"failed\"", |seen| seen.tasks[1]["Status"]["State"] = json!("failed"));
        check("has two tasks that are to run", |seen| seen.tasks[2]["Slot"] = json!(1));
        check("has two tasks that are to run", |seen| {
            for task in &mut seen.tasks {
                (task["Slot"], task["NodeID"]) = (json!(null), json!("n1"));
            }
        });
        check("tasks t1 and t2 both have 10.0.0.1/24 of network ingress", |seen| {
            seen.tasks[2]["NetworksAttachments"][0]["Addresses"] = json!(["10.0.0.1/24"]);
        });
        check("host5 runs [\"/web.1\"], which no task asks for", |seen| {
            seen.containers.insert(5, vec![json!({"Id": "c9", "Names": ["/web.1"]})]);
        });
        check("task t2 has no container c2", |seen| {
            seen.containers.remove(&4);
        });
    }
}
