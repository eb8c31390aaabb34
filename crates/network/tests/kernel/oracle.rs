//! The judges of the words that the other tests use: what [`by_hand`](crate::by_hand) and [`nft`](crate::nft) see is
//! what `ip`, `bridge` and `nft` show, and what they do is what these programs' commands do.

use crate::{
    by_hand::{self, Deed, TABLE_LOCAL},
    firewalls::{NO_TUNNELS, OTHERS},
    lab::*,
    nft::{self, Family, Verdict},
    upkeep::{broken_gates, damages, surplus, two_nodes},
};
use ::network::*;
use rtnetlink::packet_route::{link::LinkFlags, neighbour::NeighbourState, route::RouteType};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::Ipv4Addr,
    path::Path,
    process::Command,
    time::Instant,
};

/// What a command prints inside a namespace.
fn run(netns: &Path, command: &str) -> String {
    let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
    inside(netns, move || {
        let output = Command::new(&words[0]).args(&words[1..]).output();
        let output = output.unwrap_or_else(|e| panic!("{}: {e}", words[0]));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{}: {said}", words.join(" "));
        String::from_utf8_lossy(&output.stdout).into_owned()
    })
}

/// The rows of JSON that a command prints.
fn rows(netns: &Path, command: &str) -> Vec<Value> {
    let text = run(netns, command);
    if text.trim().is_empty() {
        return Vec::new();
    }
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{command}: {e}: {text}"))
}

/// A field as text, numbers too; empty when it is not there.
fn field(row: &Value, name: &str) -> String {
    match &row[name] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn words(list: &Value) -> BTreeSet<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn hex(mac: &[u8]) -> String {
    mac.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

fn or_empty(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// What we see, and what the programs show.
type Views = [String; 2];

fn views<T: fmt::Debug>(seen: &T, shown: &T) -> Views {
    [seen, shown].map(|view| format!("{view:#?}"))
}

fn links(netns: &Path) -> Views {
    let links = by_hand::links_of(netns);
    let names: BTreeMap<u32, &str> = links.values().map(|link| (link.index, link.name.as_str())).collect();
    let seen: BTreeMap<_, _> = links
        .values()
        .map(|link| {
            let flag = |flag: LinkFlags, name: &str| link.flags.contains(flag).then(|| name.to_owned());
            let flags: BTreeSet<String> = [flag(LinkFlags::Up, "UP"), flag(LinkFlags::LowerUp, "LOWER_UP")]
                .into_iter()
                .flatten()
                .collect();
            let master = link.master.map(|master| names[&master].to_owned()).unwrap_or_default();
            let state = format!("{:?} {:?}", link.state, link.learning).to_uppercase();
            let about = (link.index, link.kind.clone(), link.mtu, hex(&link.mac), link.group);
            (link.name.clone(), (about, master, state, link.queue.clone(), flags))
        })
        .collect();
    let shown = rows(netns, "ip -j -d link show").into_iter().map(|row| {
        let group = field(&row, "group");
        let number = |name: &str| field(&row, name).parse::<u32>().unwrap();
        let of_interest = BTreeSet::from(["UP".to_owned(), "LOWER_UP".to_owned()]);
        let flags = words(&row["flags"]).intersection(&of_interest).cloned().collect();
        let about = (
            number("ifindex"),
            field(&row["linkinfo"], "info_kind"),
            number("mtu"),
            field(&row, "address"),
            if group == "default" { 0 } else { group.parse().unwrap() },
        );
        let learning = row["linkinfo"]["info_slave_data"]["learning"].as_bool();
        let state = format!("{} {learning:?}", field(&row, "operstate")).to_uppercase();
        let rest = (field(&row, "master"), state, field(&row, "qdisc"));
        (field(&row, "ifname"), (about, rest.0, rest.1, rest.2, flags))
    });
    views(&seen, &shown.collect())
}

fn addresses(netns: &Path) -> Views {
    let seen: BTreeSet<_> = by_hand::addresses_of(netns)
        .into_iter()
        .map(|one| (one.link, one.address.to_string(), one.prefix.to_string(), or_empty(one.broadcast)))
        .collect();
    let mut shown = BTreeSet::new();
    for row in rows(netns, "ip -j addr show") {
        for one in row["addr_info"].as_array().into_iter().flatten() {
            let row = (
                field(&row, "ifname"),
                field(one, "local"),
                field(one, "prefixlen"),
                field(one, "broadcast"),
            );
            shown.insert(row);
        }
    }
    views(&seen, &shown)
}

fn routes(netns: &Path) -> Views {
    let seen: BTreeSet<_> = by_hand::routes_of(netns)
        .into_iter()
        .map(|route| {
            let whole = if route.to.addr().is_ipv4() { 32 } else { 128 };
            let to = match route.to.prefix_len() {
                0 => "default".to_owned(),
                len if len == whole => route.to.addr().to_string(),
                _ => route.to.to_string(),
            };
            let kind = match route.kind {
                RouteType::Unicast => String::new(),
                other => format!("{other:?}").to_lowercase(),
            };
            let way = (or_empty(route.gateway), route.link.unwrap_or_default(), or_empty(route.source));
            (to, kind, route.table, way, route.metric, route.protocol)
        })
        .collect();
    let mut shown = BTreeSet::new();
    for command in ["ip -j -4 route show table all", "ip -j -6 route show table all"] {
        for row in rows(netns, command) {
            let table = match field(&row, "table").as_str() {
                "" | "main" => 254,
                "local" => TABLE_LOCAL,
                other => other.parse().unwrap(),
            };
            let protocol = match field(&row, "protocol").as_str() {
                "kernel" => 2,
                "" | "boot" => 3,
                "static" => 4,
                "ra" => 9,
                other => other.parse().unwrap(),
            };
            let kind = field(&row, "type").replace("unicast", "");
            let metric = row["metric"].as_u64().unwrap_or_default();
            let way = (field(&row, "gateway"), field(&row, "dev"), field(&row, "prefsrc"));
            shown.insert((field(&row, "dst"), kind, table, way, u32::try_from(metric).unwrap(), protocol));
        }
    }
    views(&seen, &shown)
}

fn rules(netns: &Path) -> Views {
    let seen: Vec<_> = by_hand::rules_of(netns)
        .into_iter()
        .map(|rule| {
            let hex = |number: u32| format!("{number:#x}");
            let mark = rule
                .mark
                .map(|(mark, mask)| (hex(mark), if mask == u32::MAX { String::new() } else { hex(mask) }));
            (rule.priority.to_string(), mark.unwrap_or_default(), rule.table)
        })
        .collect();
    let shown = rows(netns, "ip -j -4 rule show").into_iter().map(|row| {
        let table = match field(&row, "table").as_str() {
            "local" => TABLE_LOCAL,
            "main" => 254,
            "default" => 253,
            other => other.parse().unwrap(),
        };
        (field(&row, "priority"), (field(&row, "fwmark"), field(&row, "fwmask")), table)
    });
    views(&seen, &shown.collect())
}

fn neighbours(netns: &Path) -> Views {
    // `ip` leaves out who needs no asking.
    let seen: BTreeSet<_> = by_hand::neighbours_of(netns)
        .into_iter()
        .filter(|one| one.state != NeighbourState::Noarp)
        .map(|one| (one.link, or_empty(one.address), one.mac.map(|mac| hex(&mac)).unwrap_or_default()))
        .collect();
    let shown: BTreeSet<_> = rows(netns, "ip -j neigh show")
        .iter()
        .map(|row| (field(row, "dev"), field(row, "dst"), field(row, "lladdr")))
        .collect();
    views(&seen, &shown)
}

fn forwarding(netns: &Path) -> Views {
    let seen: BTreeSet<_> = by_hand::forwarding_of(netns)
        .into_iter()
        .map(|one| {
            (one.link, one.mac.map(|mac| hex(&mac)).unwrap_or_default(), or_empty(one.address), one.of_bridge)
        })
        .collect();
    let shown: BTreeSet<_> = rows(netns, "bridge -j fdb show")
        .iter()
        .map(|row| {
            (field(row, "ifname"), field(row, "mac"), field(row, "dst"), !field(row, "master").is_empty())
        })
        .collect();
    views(&seen, &shown)
}

/// The objects that a command of `nft` prints, each under the name of its sort.
fn objects(netns: &Path, command: &str) -> Vec<Value> {
    let printed: Value = serde_json::from_str(&run(netns, command)).unwrap();
    printed["nftables"].as_array().unwrap().clone()
}

fn tables(netns: &Path) -> Views {
    let seen: BTreeSet<_> = nft::tables_of(netns).into_iter().collect();
    let objects = objects(netns, "nft -j list tables").into_iter().map(|object| object["table"].clone());
    let tables = objects.filter(Value::is_object);
    views(
        &seen,
        &tables.map(|table| format!("{} {}", field(&table, "family"), field(&table, "name"))).collect(),
    )
}

/// Handles of the rules of each chain, and numbers of elements of each set, of our tables.
fn contents(netns: &Path) -> Views {
    let (mut seen, mut shown) = (BTreeMap::new(), BTreeMap::new());
    for (family, name) in [(Family::Inet, "inet rswarm"), (Family::Bridge, "bridge rswarm")] {
        let Some(table) = nft::table_of(netns, family) else { continue };
        for (chain, content) in table.chains {
            let handles = content.rules.iter().map(|rule| rule.handle).collect();
            seen.insert(format!("{name} {chain}"), handles);
        }
        for (set, content) in table.sets {
            seen.insert(format!("{name} set {set}"), vec![content.elements.len() as u64]);
        }
        for object in objects(netns, &format!("nft -j list table {name}")) {
            let (chain, rule) = (&object["chain"], &object["rule"]);
            if chain.is_object() {
                shown.entry(format!("{name} {}", field(chain, "name"))).or_insert_with(Vec::new);
            }
            if rule.is_object() {
                let of_chain = shown.entry(format!("{name} {}", field(rule, "chain"))).or_default();
                of_chain.push(rule["handle"].as_u64().unwrap());
            }
            for set in [&object["set"], &object["map"]].into_iter().filter(|set| set.is_object()) {
                let elements = set["elem"].as_array().map_or(0, Vec::len);
                shown.insert(format!("{name} set {}", field(set, "name")), vec![elements as u64]);
            }
        }
    }
    views(&seen, &shown)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "oracle: iproute2, nftables"]
async fn what_we_see_is_what_ip_bridge_and_nft_show() {
    let lab = Lab::new(2);
    let (one, two) = two_nodes(&lab).await;
    let with_ipv6 = BridgeSpec {
        ipv6: Some(BridgeIpv6 { subnet: "fd74::/64".parse().unwrap(), gateway: None, ip_range: None }),
        ..bridge("b2", "10.74.0.0/24")
    };
    one.create_bridge(with_ipv6).await.unwrap();
    one.create_sandbox(bridge_sandbox("six", &["b2"])).await.unwrap();
    let _b = Server::start(&lab.pinned(2, "b"), "b", 80);
    assert_eq!(greet(&lab.pinned(1, "a"), "10.0.1.12:80"), "b 10.0.1.11");
    assert_eq!(greet(&lab.client(), "192.168.77.11:8080"), "b 192.168.77.100");
    for netns in
        [lab.netns("sw"), lab.client(), lab.host(1), lab.pinned(1, "rswarm-data"), lab.pinned(1, "a")]
    {
        for of in [links, addresses, routes, rules, neighbours, forwarding, tables, contents] {
            let end = Instant::now() + PATIENCE;
            // Between two looks a link comes up, a neighbour is learned.
            while let [seen, shown] = of(&netns)
                && seen != shown
            {
                assert!(Instant::now() < end, "{}: we see {seen}\nshown is {shown}", netns.display());
            }
        }
    }
    for host in [one, two] {
        host.destroy().await.unwrap();
    }
}

/// What other tests do by hand besides damage to our own.
fn others() -> Vec<Deed> {
    use At::{Client, Host, Task};
    vec![
        Deed::new(Client, "ip link add lan0 type bridge", |client| by_hand::add_bridge(client, "lan0")),
        Deed::new(Client, "ip addr add 10.8.8.1/24 dev lan0", |client| {
            by_hand::add_address(client, "lan0", "10.8.8.1/24");
        }),
        Deed::new(Client, "ip link set lan0 up", |client| by_hand::set_up(client, "lan0")),
        Deed::new(Client, "ip link add own0 link eth0 type macvlan", |client| {
            by_hand::add_macvlan(client, "own0", "eth0");
        }),
        Deed::new(Client, "ip link set own0 group 29299", |client| by_hand::set_group(client, "own0", 29299)),
        Deed::new(Client, "ip link add v0 type veth peer name v1", |client| {
            by_hand::add_veth(client, "v0", ("v1", client));
        }),
        Deed::new(Client, "ip link set v0 master lan0 up", |client| by_hand::plug(client, "v0", "lan0")),
        Deed::new(Client, "ip addr add fd77::7/64 dev lan0 nodad", |client| {
            by_hand::add_address(client, "lan0", "fd77::7/64");
        }),
        Deed::new(Client, "ip route add fd99::1/128 via fd77::1", |client| {
            by_hand::add_route(client, "fd99::1/128", "fd77::1");
        }),
        Deed::new(Client, "ip route add 10.255.2.0/24 via 192.168.77.11", |client| {
            by_hand::add_route(client, "10.255.2.0/24", "192.168.77.11");
        }),
        Deed::new(Client, "ip route del local 127.0.0.0/8 dev lo table local", |client| {
            by_hand::delete_routes(client, |route| {
                route.table == TABLE_LOCAL && route.to.to_string() == "127.0.0.0/8"
            });
        }),
        Deed::new(Client, "ip addr del 127.0.0.1/8 dev lo", |client| {
            by_hand::delete_address(client, "lo", "127.0.0.1/8");
        }),
        Deed::new(Client, "ip route add 127.0.0.0/8 via 192.168.77.11 src 192.168.77.100", |client| {
            by_hand::add_route_from(client, "127.0.0.0/8", "192.168.77.11", Some("192.168.77.100"));
        }),
        Deed::new(Task, "ip neigh replace 10.0.1.13 lladdr 02:42:0a:49:00:04 dev eth0 nud stale", |task| {
            let mac = [0x02, 0x42, 0x0a, 0x49, 0x00, 0x04];
            by_hand::set_neighbour(task, "eth0", Ipv4Addr::new(10, 0, 1, 13), mac, NeighbourState::Stale);
        }),
        Deed::new(Task, "ip neigh flush dev eth0", |task| by_hand::forget_neighbours(task, "eth0")),
        Deed::new(Host, "nft add rule inet rswarm pre_nat jump lb", |host| {
            nft::add_rule(host, "pre_nat", Verdict::Jump("lb"));
        }),
        Deed::new(Host, "nft add rule inet rswarm pre_nat accept", |host| {
            nft::add_rule(host, "pre_nat", Verdict::Accept);
        }),
    ]
}

/// How MACs begin that are nobody's choice: those of tasks, and those of the commands.
const KNOWN_MACS: [&[u8]; 3] =
    [&[0x0a, 0x01, 0x00, 0x01], &[0x0a, 0x00, 0x00, 0x00], &[0x02, 0x42, 0x0a, 0x49]];

/// A line of a table without the port that the kernel chose for a name server.
fn without_chosen_port(line: &str) -> &str {
    let to = " dnat ip to 127.0.0.11:";
    line.split_once(to).map_or(line, |(before, _)| before)
}

/// All of a namespace that does not differ between two labs by chance, as MACs do and what is made of them.
fn state(netns: &Path) -> Vec<String> {
    let by_chance = |text: &str| text.contains("fe80:") || text.contains("ff00::");
    let links = by_hand::links_of(netns)
        .into_values()
        .map(|link| format!("{:?}", (link.name, link.kind, link.flags, link.mtu, link.group, link.learning)));
    let addresses = by_hand::addresses_of(netns).into_iter().map(|one| format!("{one:?}"));
    let routes = by_hand::routes_of(netns)
        .into_iter()
        // `ip` says that its routes are of the boot, others that they are static.
        .map(|route| by_hand::Route {
            protocol: if route.protocol == 3 { 4 } else { route.protocol },
            ..route
        })
        .map(|route| format!("{route:?}"));
    let rules = by_hand::rules_of(netns).into_iter().map(|rule| format!("{rule:?}"));
    let neighbours =
        by_hand::neighbours_of(netns).into_iter().filter(|one| one.state != NeighbourState::Noarp);
    let entries = neighbours.chain(by_hand::forwarding_of(netns)).map(|one| {
        let of_ours = one.mac.filter(|mac| KNOWN_MACS.iter().any(|known| mac.starts_with(known)));
        format!("{:?}", (one.link, one.address, of_ours, one.of_bridge))
    });
    let mut all: Vec<String> = links.chain(addresses).chain(routes).chain(rules).chain(entries).collect();
    all.retain(|text| !by_chance(text));
    all.sort();
    for table in nft::tables_of(netns) {
        let text = run(netns, &format!("nft -s list table {table}"));
        all.extend(text.lines().map(|line| format!("{table}: {}", without_chosen_port(line))));
    }
    all
}

/// Waits until two namespaces hold the same: links come up when the kernel finds the time.
fn agreed(by_us: &Path, by_program: &Path, when: &str) -> Vec<String> {
    let end = Instant::now() + PATIENCE;
    loop {
        let (made, wanted) = (state(by_us), state(by_program));
        if made == wanted {
            return made;
        }
        if Instant::now() > end {
            let only = |these: &[String], those: &[String]| -> Vec<String> {
                these.iter().filter(|one| !those.contains(one)).cloned().collect()
            };
            assert_eq!(only(&made, &wanted), only(&wanted, &made), "{when}");
            assert_eq!(made, wanted, "{when}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "oracle: iproute2, nftables"]
async fn what_is_done_by_hand_is_what_the_commands_do() {
    let labs = [Lab::new(2), Lab::new(2)];
    let nodes = [two_nodes(&labs[0]).await, two_nodes(&labs[1]).await];
    let gates = broken_gates().into_iter().map(|(deed, _)| deed);
    for deed in damages().into_iter().chain(surplus()).chain(gates).chain(others()) {
        let [by_program, by_us] = labs.each_ref().map(|lab| lab.at(deed.at));
        let before = agreed(&by_us, &by_program, &format!("before: {deed}"));
        run(&by_program, &deed.command);
        (deed.by_hand)(&by_us);
        let after = agreed(&by_us, &by_program, &deed.to_string());
        assert!(before != after || deed.command == "ip neigh flush dev eth0", "no change by {deed}");
        for (one, _) in &nodes {
            one.audit_now().await.unwrap();
        }
    }
    for (one, two) in nodes {
        one.destroy().await.unwrap();
        two.destroy().await.unwrap();
    }
    // A table of somebody who has taken our name.
    let [by_program, by_us] = labs.each_ref().map(|lab| lab.host(1));
    for command in
        ["add table inet rswarm", "add chain inet rswarm mine", "add rule inet rswarm mine counter accept"]
    {
        run(&by_program, &format!("nft {command}"));
    }
    nft::add_table_of_somebody(&by_us, "mine");
    agreed(&by_us, &by_program, "a table of somebody else");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "oracle: iproute2, nftables"]
async fn recorded_transactions_make_what_nft_makes_of_their_texts() {
    let labs = [Lab::new(1), Lab::new(1)];
    let [by_program, by_us] = labs.each_ref().map(|lab| lab.host(1));
    let all = OTHERS.into_iter().flat_map(|other| [other.table, other.open]).chain([NO_TUNNELS]);
    for (number, transaction) in all.enumerate() {
        let file = labs[0].dir.path().join(format!("{number}.nft"));
        std::fs::write(&file, transaction.text).unwrap();
        run(&by_program, &format!("nft -f {}", file.display()));
        transaction.load(&by_us);
        let tables = |netns: &Path| {
            let list = |name: String| run(netns, &format!("nft list table {name}"));
            nft::tables_of(netns).into_iter().map(list).collect::<Vec<_>>()
        };
        assert_eq!(tables(&by_us), tables(&by_program), "{}", transaction.text);
        let rule_by_rule = [
            (Family::Ipv4, "filter"),
            (Family::Inet, "firewalld"),
            (Family::Inet, "hand"),
            (Family::Inet, "in"),
        ];
        for (family, name) in rule_by_rule {
            let [made, wanted] = [&by_us, &by_program].map(|netns| nft::named_table_of(netns, family, name));
            assert_eq!(made, wanted, "{}", transaction.text);
        }
    }
}
