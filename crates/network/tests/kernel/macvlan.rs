//! Macvlan networks: containers on a link of the host, with addresses of the network outside.

use crate::{by_hand, lab::*};
use ::network::*;

/// The switch's own network, from its upper half.
fn on_eth0() -> BridgeSpec {
    BridgeSpec {
        gateway: Some([192, 168, 77, 100].into()),
        ip_range: "192.168.77.128/25".parse().ok(),
        aux_addresses: vec![[192, 168, 77, 129].into()],
        macvlan: Some(Macvlan { parent: "eth0".into(), mode: MacvlanMode::Bridge }),
        ..bridge("m1", "192.168.77.0/24")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_a_machine_of_the_network_outside() {
    let lab = Lab::new(1);
    let network = lab.start(1).await;
    network.create_bridge(on_eth0()).await.unwrap();
    let one = network.create_sandbox(bridge_sandbox("c1", &["m1"])).await.unwrap();
    let two = network.create_sandbox(bridge_sandbox("c2", &["m1"])).await.unwrap();
    assert_eq!(one.interfaces[0].address.to_string(), "192.168.77.130/24");
    let _server = Server::start(&one.netns_path, "one", 80);
    assert_eq!(greet(&lab.client(), "192.168.77.130:80"), "one 192.168.77.100", "seen from outside as it is");
    assert_eq!(greet(&two.netns_path, "192.168.77.130:80"), "one 192.168.77.131");
    let _outside = Server::start(&lab.client(), "outside", 7000);
    assert_eq!(
        greet(&one.netns_path, &format!("{OUTSIDE}:7000")),
        "outside 192.168.77.130",
        "by its gateway"
    );
    assert_eq!(resolve(&two.netns_path, "c1", "A"), (0, vec!["192.168.77.130".into()]));
    let links = by_hand::links_of(&lab.host(1));
    assert!(!links.keys().any(|name| name.starts_with("br-")), "no bridge of ours: {links:?}");
    network.destroy().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_macvlan_is_joined_left_and_adopted() {
    let lab = Lab::new(1);
    let network = lab.start(1).await;
    network.create_bridge(on_eth0()).await.unwrap();
    network.create_bridge(bridge("b1", "10.75.0.0/24")).await.unwrap();
    let one = network.create_sandbox(bridge_sandbox("c1", &["b1"])).await.unwrap();
    let [attachment] = bridge_sandbox("c1", &["m1"]).attachments.try_into().unwrap();
    network.connect("c1", attachment).await.unwrap();
    let _server = Server::start(&one.netns_path, "one", 80);
    assert_eq!(greet(&lab.client(), "192.168.77.130:80"), "one 192.168.77.100");
    network.shutdown().await;

    let network = lab.start(1).await;
    assert_eq!(network.audit_now().await.unwrap(), AuditReport::default());
    assert_eq!(greet(&lab.client(), "192.168.77.130:80"), "one 192.168.77.100");
    network.disconnect("c1", "m1").await.unwrap();
    assert!(unreachable(&lab.client(), "192.168.77.130:80"));
    assert!(!by_hand::links_of(&one.netns_path).contains_key("eth1"));
    network.destroy().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_that_is_not_there_is_refused() {
    let lab = Lab::new(1);
    let network = lab.start(1).await;
    let missing = Macvlan { parent: "eth7".into(), mode: MacvlanMode::Bridge };
    let refused =
        network.create_bridge(BridgeSpec { macvlan: Some(missing), ..on_eth0() }).await.unwrap_err();
    assert!(matches!(refused, Error::NoParent(_)), "{refused}");
    assert_eq!(network.bridges().await.unwrap(), vec![]);
    network.destroy().await.unwrap();
}
