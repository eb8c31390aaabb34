//! What firewalls of others do to us is named. They are what `nft` made of a text: its transactions, as it sent them,
//! are in `firewalls/`, so that it need not be there; [`oracle`](crate::oracle) holds that it makes the same of the
//! texts today.
//!
//! *Source:* `strace -e trace=sendmsg -e write=all nft -f TEXT`, nft 1.0.6; the datagram that begins with a batch.

use crate::{lab::*, nft, upkeep::two_nodes};
use ::network::*;
use std::path::Path;

/// A text, and the transaction that `nft` makes of it.
pub(crate) struct Transaction {
    pub(crate) text: &'static str,
    recorded: &'static [u8],
}

impl Transaction {
    /// Does what `nft -f` does with the text.
    pub(crate) fn load(&self, netns: &Path) {
        nft::replay(netns, self.recorded);
    }
}

/// A table of somebody else's.
pub(crate) struct Firewall {
    pub(crate) table: Transaction,
    /// What of it stops packets.
    by: &'static str,
    /// What lets them through.
    pub(crate) open: Transaction,
}

/// One as dockerd's, one as firewalld's, one by hand.
pub(crate) const OTHERS: [Firewall; 3] = [
    Firewall {
        table: Transaction {
            text: "table ip filter {
                chain DOCKER-USER { counter return; }
                chain DOCKER { iifname != docker0 oifname docker0 drop; }
                chain FORWARD { type filter hook forward priority 0; policy drop;
                    jump DOCKER-USER
                    ct state related,established counter accept
                    oifname docker0 jump DOCKER
                    iifname docker0 oifname != docker0 accept
                }
            }",
            recorded: include_bytes!("firewalls/docker"),
        },
        by: "the policy of chain FORWARD of table ip filter",
        open: Transaction {
            text: "insert rule ip filter DOCKER-USER oifname \"g-*\" accept; \
                insert rule ip filter DOCKER-USER oifname \"br-*\" accept; \
                insert rule ip filter DOCKER-USER oifname \"rs-ing\" accept; \
                insert rule ip filter DOCKER-USER iifname \"br-*\" accept; \
                insert rule ip filter DOCKER-USER iifname \"g-*\" accept",
            recorded: include_bytes!("firewalls/docker-open"),
        },
    },
    Firewall {
        table: Transaction {
            text: "table inet firewalld {
                chain zones { iifname vmap { \"lan\" : goto lan, \"eth0\" : goto public }; }
                chain lan { accept; }
                chain public { meta l4proto icmp accept; }
                chain filter_FORWARD { type filter hook forward priority 10; policy accept;
                    ct state { established, related } accept
                    iifname \"lo\" accept
                    jump zones
                    ct state invalid drop
                    reject with icmpx type admin-prohibited
                }
            }",
            recorded: include_bytes!("firewalls/firewalld"),
        },
        by: "of chain filter_FORWARD of table inet firewalld",
        open: Transaction {
            text: "insert rule inet firewalld filter_FORWARD ct state new accept",
            recorded: include_bytes!("firewalls/firewalld-open"),
        },
    },
    Firewall {
        table: Transaction {
            text: "table inet hand { chain f { type filter hook forward priority -5; \
                tcp dport 80 ip daddr { 10.75.0.0/24, 10.255.0.0/16 } drop; }; }",
            recorded: include_bytes!("firewalls/hand"),
        },
        by: "of chain f of table inet hand",
        open: Transaction { text: "delete table inet hand", recorded: include_bytes!("firewalls/hand-open") },
    },
];

/// One that keeps other nodes' tunnels out.
pub(crate) const NO_TUNNELS: Transaction = Transaction {
    text: "table inet in { chain i { type filter hook input priority 0; udp dport 4789 drop; }; }",
    recorded: include_bytes!("firewalls/no-tunnels"),
};

/// What another firewall stops on a host, in the doctor's words, and whether it is sworn to.
fn stopped(lab: &Lab, host: u8) -> Vec<(String, bool)> {
    let state = lab.options(host).state_dir;
    let found = inside(&lab.host(host), move || other_firewalls(&state).unwrap());
    found.stopped.iter().map(|s| (s.to_string(), s.certain)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_firewall_stops_is_named_as_long_as_it_does() {
    let lab = Lab::new(2);
    let (one, two) = two_nodes(&lab).await;
    let _b = Server::start(&lab.pinned(2, "b"), "b", 80);
    let _c = Server::start(&lab.pinned(1, "c"), "c", 80);
    assert_eq!(stopped(&lab, 1), []);
    for Firewall { table, by, open } in OTHERS {
        table.load(&lab.host(1));
        let found = stopped(&lab, 1);
        for (port, at) in [("8080/tcp", "192.168.77.11:8080"), ("9090/tcp", "192.168.77.11:9090")] {
            let named = |(said, certain): &(String, bool)| {
                *certain && said.contains(by) && said.ends_with(&format!("stops port {port}"))
            };
            assert!(found.iter().any(named), "{port} {by}: {found:?}");
            assert!(unreachable(&lab.client(), at) || refused_at_once(&lab.client(), at), "{at}: {by}");
        }
        open.load(&lab.host(1));
        let open = open.text;
        assert_eq!(stopped(&lab, 1), [], "{open}");
        assert_eq!(greet(&lab.client(), "192.168.77.11:8080"), "b 192.168.77.100", "{open}");
        assert_eq!(greet(&lab.client(), "192.168.77.11:9090"), "c 192.168.77.100", "{open}");
    }
    NO_TUNNELS.load(&lab.host(1));
    let found = stopped(&lab, 1);
    let [(said, true)] = found.as_slice() else { panic!("{found:?}") };
    assert!(
        said.ends_with("of chain i of table inet in stops tunnels of other nodes (port 4789/udp)"),
        "{said}"
    );
    for host in [one, two] {
        host.destroy().await.unwrap();
    }
}
