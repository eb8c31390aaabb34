//! One step costs in proportion to what there is: a swarm of four times as many is planned with at most six times the work.
//! The work is counted, not timed.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]

mod world;

use std::fmt::Write as _;
use world::World;

/// Runs `before`, then measures one step; `{n}` is how many there are.
fn looks(n: usize, before: &[&str], each: Option<&str>, then: &str) -> u64 {
    let mut world = World::new();
    for line in before {
        world.run(&line.replace("{n}", &n.to_string()));
    }
    for i in each.iter().flat_map(|_| 0..n) {
        world.run(&each.unwrap_or_default().replace("{i}", &i.to_string()));
    }
    world.run(&then.replace("{n}", &n.to_string()));
    world.step();
    world.looks
}

/// Holds that a step of these grows by no more than what there is.
fn check(what: &str, before: &[&str], each: Option<&str>, then: &str) {
    let (few, many) = (looks(300, before, each, then), looks(1200, before, each, then));
    assert!(many <= few * 6, "{what}: {few} looks for 300, {many} for 1,200");
}

const ROOMY: &str = "nodes a b c ; network net internal subnet=10.9.0.0/16";

#[test]
fn tasks_are_created_and_placed_in_proportion() {
    check("placed", &[ROOMY], None, "service web replicas={n} networks=net");
    check("of a job", &[ROOMY], None, "service web job={n}/{n} networks=net");
    check("with host ports", &[ROOMY], None, "service web replicas={n} networks=net ports=host:8080:80");
}

#[test]
fn tasks_that_find_no_address_cost_no_search_each() {
    check("no gateway left", &["nodes a"], None, "service web replicas={n}");
    check("network full", &["nodes a ; network net internal"], None, "service web replicas={n} networks=net");
    check("neither", &["nodes a ; network net"], None, "service web replicas={n} networks=net");
}

#[test]
fn tasks_that_find_no_node_cost_no_survey_each() {
    check("no node", &[], None, "service web replicas={n}");
    let spread = "service web replicas={n} networks=net max-per-node=5";
    check("few on each node", &[ROOMY], None, spread);
    let before = [ROOMY, "service web replicas={n} networks=net max-per-node=40", "settle"];
    check("some wait already", &before, None, "update web force parallelism=0 start-first");
}

#[test]
fn an_update_looks_at_each_task_a_few_times() {
    let placed = [ROOMY, "service web replicas={n} networks=net max-per-node={n}", "settle"];
    check("slot by slot", &placed, None, "update web image=v2");
    check("all at once", &placed, None, "update web image=v2 parallelism=0");
    check("of the placement alone", &placed, None, "update web max-per-node=10000");
    let waiting = ["service web replicas={n}", "step"];
    check("of what was never placed", &waiting, None, "update web image=v2 parallelism=0");
    check("scaled down", &placed, None, "scale web 1");
    check("removed", &placed, None, "rm web");
    check("a node lost", &placed, None, "down a");
}

#[test]
fn many_services_and_networks_cost_in_proportion() {
    let base = [ROOMY, "service base replicas={n} networks=net"];
    check("one depends on", &base, Some("service s{i} replicas=1 depends=base"), "nodes d");
    check("networks", &["nodes a ; cluster pool=10.0.0.0/8 prefix=24"], Some("network n{i}"), "nodes b");
    let own = Some("network n{i}");
    check("networks beyond the pool", &["nodes a ; cluster pool=10.0.0.0/18 prefix=24"], own, "nodes b");
    check("places of containers", &[ROOMY], Some("attach c{i} a net"), "nodes d");
    check("places without addresses", &["nodes a ; network net"], Some("attach c{i} a net"), "nodes d");
}

#[test]
fn published_ports_are_chosen_in_proportion() {
    let service = |n: usize| {
        let ports = (1..=n).fold(String::new(), |mut all, target| {
            write!(all, "{target},").expect("a text takes all");
            all
        });
        let service = format!("service web replicas=1 ports={ports}");
        looks(n, &["nodes a"], None, &service)
    };
    // Of the 2,768 there are.
    let (few, many) = (service(600), service(2400));
    assert!(many <= few * 6, "{few} looks for 600 ports, {many} for 2,400");
    let taken = "service all replicas=1 ports=".to_owned()
        + &(1..=2768).map(|target| target.to_string()).collect::<Vec<_>>().join(",");
    let before = ["nodes a", &taken, "step"];
    check("none left", &before, Some("service s{i} replicas=1 ports=80"), "nodes b");
}
