//! What a host has of its own, against networks that ask for it. Frames, packets and ports are attacked in `crates/network/tests/attacks.rs`.

use crate::{SOON, lab, load_hello};
use testkit::wait_for;

#[test]
fn a_network_with_the_name_of_the_hosts_uplink_is_refused() {
    let mut lab = lab(1);
    load_hello(&lab, 1);
    let named = |name: &str| {
        let option = format!("com.docker.network.bridge.name={name}");
        lab.rswarm(1, &["network", "create", "-o", &option, "x"]).fails()
    };
    let refused = named("eth0");
    assert!(refused.contains("interface eth0 exists and is not of rswarm's making"), "{refused}");
    assert!(named("rs-ing").contains("cannot be the name of a bridge"));
    assert_eq!(lab.rswarm(1, &["network", "ls", "-q", "-f", "name=x"]).ok(), "");
    // By the uplink.
    lab.rswarm(1, &["run", "-d", "-p", "8090:80", "-e", "COUNTER=127.0.0.1:1", "rswarm/hello", "web"]).ok();
    wait_for("the port to answer", SOON, || match lab.http(1, 8090) {
        Err(text) if text.contains("No counter") => Ok(()),
        other => Err(format!("{other:?}")),
    });
}
