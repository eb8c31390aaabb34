//! Local networks and published ports, seen from the host.

use crate::kit::{GUEST, Host, becomes, chain, guest_with};
use engine::{
    ContainerConfig, EndpointConfig, Error, ErrorKind, EventKind, NetworkConfig, NetworkMode, Port,
    PortBinding, RemoveOptions, Status, StopOptions,
};
use std::{
    io::Read,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

/// A container on the bridge that greets on port 80, published on `port` of the host.
fn server(greeting: &str, port: Option<u16>) -> ContainerConfig {
    guest_with(&[&format!("serve:80={greeting}")], |c| {
        c.host.network_mode = NetworkMode::Bridge;
        c.host.port_bindings = vec![PortBinding {
            container: "80/tcp".parse::<Port>().unwrap(),
            host_ip: None,
            host_port: port,
            last_port: None,
        }];
    })
}

fn fetch(host: &Host, address: impl Into<IpAddr>, port: u16) -> std::io::Result<String> {
    let address = SocketAddr::new(address.into(), port);
    host.inside(|| {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })
}

const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;
const BRIDGE: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 1);

fn address(host: &Host, id: &str, network: &str) -> IpAddr {
    host.inspect(id).networks[network].address.expect("it has an address")
}

#[test]
fn published_port_answers_on_every_address_of_the_host() {
    let host = Host::new();
    let id = host.start(server("hello", Some(8080)));
    host.until_said(&id, "listening\n");
    for to in [LOCALHOST, BRIDGE] {
        assert_eq!(fetch(&host, to, 8080).unwrap(), "hello\n", "{to}");
    }
    assert_eq!(fetch(&host, address(&host, &id, "bridge"), 80).unwrap(), "hello\n");
    let ports = &host.inspect(&id).ports;
    assert_eq!((ports[0].container.to_string().as_str(), ports[0].host_port), ("80/tcp", 8080));
    host.on(async |engine| engine.kill(&id, None).await.unwrap());
    assert!(host.inspect(&id).ports.is_empty());
    assert!(fetch(&host, LOCALHOST, 8080).is_err());
}

#[test]
fn who_listens_hears_of_networks_and_volumes_that_a_container_takes_and_leaves() {
    let host = Host::new();
    let (_, mut events) = host.on(async |engine| engine.events());
    let id = host.start(guest_with(&["park"], |c| {
        c.host.network_mode = NetworkMode::Bridge;
        c.host.binds = vec!["kept:/v".into()];
    }));
    host.on(async |engine| {
        engine.top(&id, "").await.unwrap();
        drop(engine.archive_get(&id, "/v").await.unwrap());
        let now = StopOptions { timeout: Some(Duration::ZERO), ..StopOptions::default() };
        engine.stop(&id, now).await.unwrap();
        engine.remove(&id, RemoveOptions::default()).await.unwrap();
    });
    let told = host.on(async |_| {
        let mut told = Vec::new();
        while told.last().is_none_or(|last| last != "container destroy") {
            let event = events.recv().await.unwrap();
            let attribute = |key: &str| event.attributes.get(key).cloned().unwrap_or_default();
            let more = match (event.kind, event.action.as_str()) {
                (EventKind::Network, _) => {
                    assert_eq!(attribute("container"), id);
                    format!(" {} {}", attribute("name"), attribute("type"))
                }
                (EventKind::Volume, "mount") => {
                    format!(" {} {} {}", event.actor, attribute("destination"), attribute("read/write"))
                }
                (EventKind::Container, "kill") => format!(" {}", attribute("signal")),
                _ => String::new(),
            };
            told.push(format!("{} {}{more}", event.kind.as_str(), event.action));
        }
        told
    });
    let expected = [
        "volume create",
        "container create",
        "network connect bridge bridge",
        "volume mount kept /v true",
        "container start",
        "container top",
        "container archive-path",
        "container kill 15",
        "container kill 9",
        "container die",
        "network disconnect bridge bridge",
        "volume unmount",
        "container stop",
        "container destroy",
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_network_more_is_noted_once_before_the_start_and_judged_by_the_one_that_it_was_made_for() {
    let host = Host::new();
    let network = |name: &str| NetworkConfig { name: name.into(), ..NetworkConfig::default() };
    host.on(async |engine| engine.network_create(network("kept")).await.unwrap());
    let of = |mode: NetworkMode| guest_with(&["park"], |c| c.host.network_mode = mode.clone());
    let named = |alias: &str| EndpointConfig { aliases: vec![alias.into()], ..EndpointConfig::default() };
    let connect = |network: &str, id: &str, alias: &str| {
        host.on(async |engine| engine.network_connect(network, id, named(alias)).await)
    };

    let id = host.create(of(NetworkMode::Bridge));
    host.on(async |engine| engine.network_connect("bridge", &id, EndpointConfig::default()).await.unwrap());
    connect("kept", &id, "first").unwrap();
    connect("kept", &id, "second").unwrap();
    assert_eq!(host.inspect(&id).networks["kept"].aliases, ["first"]);
    host.on(async |engine| engine.start(&id).await.unwrap());
    let refused = connect("kept", &id, "third").unwrap_err();
    assert!(matches!(refused, Error::EndpointExists { .. }), "{refused}");

    let judged = |network: &str, id: &str, words: &str| {
        let refused =
            host.on(async |engine| engine.network_connect(network, id, EndpointConfig::default()).await);
        let refused = refused.unwrap_err();
        assert!(
            refused.kind() == ErrorKind::InvalidParameter && refused.to_string().contains(words),
            "{refused}"
        );
    };
    judged("host", &id, "created in host network mode");
    judged("none", &id, "in private (none) mode");
    let private = host.create(of(NetworkMode::None));
    judged("kept", &private, "in private (none) mode");
    judged("kept", &host.create(of(NetworkMode::Container(id.clone()))), "sharing network namespace");
    let shown = host.create(of(NetworkMode::Host));
    judged("kept", &shown, "sharing network namespace");
    host.on(async |engine| engine.network_connect("host", &shown, EndpointConfig::default()).await.unwrap());
}

#[test]
fn a_link_follows_the_address_of_the_container_that_it_leads_to() {
    let host = Host::new();
    let named = |name: &'static str, links: &[&str]| {
        guest_with(&["park"], |c| {
            c.name = Some(name.into());
            c.host.network_mode = NetworkMode::Bridge;
            c.host.links = links.iter().map(|&link| link.to_owned()).collect();
        })
    };
    let db = host.start(named("db", &[]));
    let web = host.start(named("web", &["db:store"]));
    let line = || {
        let hosts = std::fs::read_to_string(&host.inspect(&web).hosts_path).unwrap();
        hosts.lines().find(|line| line.contains("store")).expect("a line for the link").to_owned()
    };
    let stands = |address: IpAddr| assert_eq!(line(), format!("{address}\tstore {} db", &db[..12]));
    let first = address(&host, &db, "bridge");
    stands(first);
    // Somebody else takes its address while it is away.
    host.on(async |engine| engine.kill(&db, None).await.unwrap());
    host.wait(&db);
    host.start(named("other", &[]));
    host.start(named("another", &[]));
    host.try_start(&db).unwrap();
    let second = address(&host, &db, "bridge");
    assert_ne!(first, second);
    stands(second);
    host.on(async |engine| {
        assert_eq!(engine.link_names()[&db], ["web/store"]);
        assert!(matches!(engine.unlink("web", "db").await, Err(engine::Error::NoSuchContainer(_))));
        engine.unlink("web", "store").await.unwrap();
        assert_eq!(engine.link_names(), std::collections::BTreeMap::new());
    });
    let hosts = std::fs::read_to_string(&host.inspect(&web).hosts_path).unwrap();
    assert!(!hosts.contains("store") && hosts.contains("localhost"), "{hosts}");
}

#[test]
fn who_is_linked_is_told_of_ports_and_environment() {
    let host = Host::new();
    let bridged = |name: &'static str, steps: &[&str]| {
        guest_with(steps, |c| {
            c.name = Some(name.into());
            c.host.network_mode = NetworkMode::Bridge;
        })
    };
    let mut db = bridged("db", &["park"]);
    db.env = vec!["SIZE=big".into()];
    db.exposed_ports = ["5432/tcp".parse().unwrap()].into();
    let db = host.start(db);
    let at = address(&host, &db, "bridge");
    let steps = ["variable:MY_DB_PORT", "variable:MY_DB_NAME", "variable:MY_DB_ENV_SIZE"];
    let mut web = bridged("web", &[&steps[..], &["park"]].concat());
    web.host.links = vec!["db:my-db".into()];
    let web = host.start(web);
    let expected = format!("tcp://{at}:5432\n/web/my-db\nbig\n");
    host.until_said(&web, &expected);
    let exec = host.exec(&web, &[&[crate::kit::GUEST], &steps[..]].concat(), "").unwrap();
    assert_eq!(exec.stdout, expected);
}

#[test]
fn free_port_is_chosen_when_none_is_asked_for() {
    let host = Host::new();
    let ids = [host.start(server("one", None)), host.start(server("two", None))];
    let port = |id| host.inspect(id).ports[0].host_port;
    assert_ne!(port(&ids[0]), port(&ids[1]));
    for (id, greeting) in ids.iter().zip(["one\n", "two\n"]) {
        host.until_said(id, "listening\n");
        assert_eq!(fetch(&host, LOCALHOST, port(id)).unwrap(), greeting);
    }
}

#[test]
fn taken_port_is_named_and_the_refused_container_leaves_nothing() {
    let host = Host::new();
    let first = host.start(server("first", Some(8081)));
    host.until_said(&first, "listening\n");
    let links = host.links();
    let second = host.create(server("second", Some(8081)));
    let error = host.try_start(&second).unwrap_err();
    assert!(
        chain(&error).contains("Bind for 0.0.0.0:8081 failed: port is already allocated"),
        "{}",
        chain(&error)
    );
    let refused = host.inspect(&second);
    assert_eq!((refused.state.status, refused.state.exit_code), (Status::Created, 128));
    assert!(refused.state.error.contains("8081") && refused.ports.is_empty(), "{}", refused.state.error);
    assert_eq!(refused.networks["bridge"].address, None);
    let sandboxes = host.on(async |engine| engine.network_service().sandboxes().await.unwrap());
    assert_eq!(sandboxes.iter().map(|s| &s.id).collect::<Vec<_>>(), [&first]);
    assert_eq!(host.links(), links);
    assert!(!host.path("run/c").join(&second).exists());
    assert_eq!(fetch(&host, LOCALHOST, 8081).unwrap(), "first\n");
    // When the port is free, nothing of the refusal is in the way.
    host.remove(&first).unwrap();
    host.try_start(&second).unwrap();
    host.until_said(&second, "listening\n");
    assert_eq!(fetch(&host, LOCALHOST, 8081).unwrap(), "second\n");
    assert_eq!(host.inspect(&second).state.error, "");
}

#[test]
fn a_network_says_on_which_address_of_the_host_its_ports_are_published() {
    let host = Host::new();
    let binding = ("com.docker.network.bridge.host_binding_ipv4".to_owned(), "127.0.0.1".to_owned());
    let config =
        NetworkConfig { name: "inner".into(), options: [binding].into(), ..NetworkConfig::default() };
    host.on(async |engine| engine.network_create(config).await.unwrap());
    let mut config = server("hello", Some(8083));
    config.host.network_mode = NetworkMode::Named("inner".into());
    let id = host.start(config);
    host.until_said(&id, "listening\n");
    assert_eq!(fetch(&host, LOCALHOST, 8083).unwrap(), "hello\n");
    let container = host.inspect(&id);
    assert_eq!(container.ports.iter().map(|p| p.host_ip).collect::<Vec<_>>(), [Some(LOCALHOST.into())]);
    let gateway = container.networks["inner"].gateway.expect("it has a gateway");
    assert!(fetch(&host, gateway, 8083).is_err(), "on another address of the host");
}

#[test]
fn the_first_free_port_of_a_range_is_taken() {
    let host = Host::new();
    let of_range = |greeting: &str| {
        let mut config = server(greeting, Some(8090));
        config.host.port_bindings[0].last_port = Some(8091);
        host.create(config)
    };
    for (greeting, port) in [("first", 8090), ("second", 8091)] {
        let id = of_range(greeting);
        host.try_start(&id).unwrap();
        host.until_said(&id, "listening\n");
        assert_eq!(host.inspect(&id).ports[0].host_port, port);
    }
    assert_eq!(fetch(&host, LOCALHOST, 8091).unwrap(), "second\n");
    let third = of_range("third");
    let error = host.try_start(&third).unwrap_err();
    assert!(chain(&error).contains("Bind for 0.0.0.0:8091 failed"), "{}", chain(&error));
}

#[test]
fn port_of_a_program_of_the_host_is_refused_and_the_other_way_round() {
    let host = Host::new();
    let listener = host.inside(|| TcpListener::bind("0.0.0.0:8082").unwrap());
    let id = host.create(server("x", Some(8082)));
    let error = host.try_start(&id).unwrap_err();
    assert!(chain(&error).contains("0.0.0.0:8082"), "{}", chain(&error));
    drop(listener);
    host.try_start(&id).unwrap();
    let refused = host.inside(|| TcpListener::bind("0.0.0.0:8082").map(drop));
    assert_eq!(refused.map_err(|e| e.kind()), Err(std::io::ErrorKind::AddrInUse));
}

#[test]
fn containers_of_a_network_reach_each_other_and_those_of_another_do_not() {
    let host = Host::new();
    let links = host.links();
    let make = |name: &str| {
        let config = NetworkConfig { name: name.into(), ..NetworkConfig::default() };
        host.on(async |engine| engine.network_create(config).await.unwrap())
    };
    let (web, back) = (make("web"), make("back"));
    assert_ne!(web.subnet, back.subnet);
    let on = |name: &str, steps: &[&str]| {
        guest_with(steps, |c| c.host.network_mode = NetworkMode::Named(name.into()))
    };
    let id = host.start(on("web", &["serve:80=hello"]));
    host.until_said(&id, "listening\n");
    let fetch = format!("fetch:{}:80", address(&host, &id, "web"));
    assert_eq!(host.run(on("web", &[&fetch])).stdout, "hello\n");
    let stranger = host.start(on("back", &[&fetch]));
    assert_eq!(host.logs(&stranger).0, "");
    let in_use = host.on(async |engine| engine.network_remove("web").await.unwrap_err());
    assert!(matches!(in_use, Error::NetworkInUse { .. }), "{in_use}");

    // One more leg, taken off again.
    let endpoint = EndpointConfig::default();
    host.on(async |engine| engine.network_connect("back", &id, endpoint).await.unwrap());
    let second = format!("fetch:{}:80", address(&host, &id, "back"));
    assert_eq!(host.run(on("back", &[&second])).stdout, "hello\n");
    host.on(async |engine| engine.network_disconnect("back", &id).await.unwrap());
    assert_eq!(host.inspect(&id).networks.keys().collect::<Vec<_>>(), ["web"]);

    for id in [&id, &stranger] {
        host.remove(id).unwrap();
    }
    for name in ["web", "back"] {
        host.on(async |engine| engine.network_remove(name).await.unwrap());
    }
    becomes(&links, || host.links());
}

#[test]
fn wanted_address_is_given_and_a_taken_one_refused() {
    let host = Host::new();
    let subnet = Some("10.99.0.0/24".parse().unwrap());
    let config = NetworkConfig { name: "fixed".into(), subnet, ..NetworkConfig::default() };
    host.on(async |engine| engine.network_create(config).await.unwrap());
    let config = || {
        guest_with(&["park"], |c| {
            c.host.network_mode = NetworkMode::Named("fixed".into());
            let ipv4_address = Some("10.99.0.7".parse().unwrap());
            let endpoint = EndpointConfig { ipv4_address, ..EndpointConfig::default() };
            drop(c.endpoints.insert("fixed".into(), endpoint));
        })
    };
    let id = host.start(config());
    assert_eq!(address(&host, &id, "fixed").to_string(), "10.99.0.7");
    let error = host.start_error(config());
    assert!(chain(&error).contains("10.99.0.7"), "{}", chain(&error));
}

#[test]
fn network_of_another_container_is_shared() {
    let host = Host::new();
    let id = host.start(server("mine", None));
    host.until_said(&id, "listening\n");
    let sharing =
        guest_with(&["fetch:127.0.0.1:80"], |c| c.host.network_mode = NetworkMode::Container(id.clone()));
    assert_eq!(host.run(sharing).stdout, "mine\n");
    host.on(async |engine| engine.kill(&id, None).await.unwrap());
    let late = guest_with(&["park"], |c| c.host.network_mode = NetworkMode::Container(id.clone()));
    let error = host.start_error(late);
    assert!(error.to_string().contains("non running container"), "{error}");
}

#[test]
fn a_network_that_would_take_what_is_the_hosts_is_refused_and_says_whose_fault_it_is() {
    let host = Host::new();
    let refused = |change: &dyn Fn(&mut NetworkConfig)| {
        let mut config = NetworkConfig { name: "x".into(), ..NetworkConfig::default() };
        change(&mut config);
        let error = host.on(async |engine| engine.network_create(config).await.unwrap_err());
        (error.kind(), error.to_string())
    };
    let subnet = |text: &'static str| move |c: &mut NetworkConfig| c.subnet = Some(text.parse().unwrap());
    let bridge = |name: &'static str| {
        move |c: &mut NetworkConfig| {
            drop(c.options.insert("com.docker.network.bridge.name".into(), name.into()));
        }
    };
    for (kind, words, (found, text)) in [
        (ErrorKind::InvalidParameter, "control characters", refused(&|c| c.name = "a\u{1b}[2J".into())),
        (ErrorKind::InvalidParameter, "127.0.0.0/8", refused(&subnet("127.0.0.0/8"))),
        (ErrorKind::InvalidParameter, "0.0.0.0/8", refused(&subnet("0.0.0.0/0"))),
        (ErrorKind::InvalidParameter, "224.0.0.0/4", refused(&subnet("224.1.0.0/16"))),
        (ErrorKind::InvalidParameter, "name of a bridge", refused(&bridge("../../x"))),
        (ErrorKind::InvalidParameter, "name of a bridge", refused(&bridge("lo"))),
    ] {
        assert!(found == kind && text.contains(words), "{words}: {found:?} {text}");
    }
    let taken =
        NetworkConfig { name: "y".into(), subnet: "10.9.0.0/24".parse().ok(), ..NetworkConfig::default() };
    let over =
        NetworkConfig { name: "z".into(), subnet: "10.9.0.0/16".parse().ok(), ..NetworkConfig::default() };
    host.on(async |engine| {
        engine.network_create(taken).await.unwrap();
        let error = engine.network_create(over).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Forbidden, "{error}");
    });
    let all = host.on(async |engine| engine.networks(&engine::Filters::default()).len());
    assert_eq!(all, 4, "the predefined ones and one");
}

#[test]
fn an_endpoint_has_the_name_settings_links_and_way_out_that_it_was_asked_for() {
    let host = Host::new();
    for (name, subnet) in [("one", "10.98.1.0/24"), ("two", "10.98.2.0/24")] {
        let subnet = Some(subnet.parse().unwrap());
        let config = NetworkConfig { name: name.into(), subnet, ..NetworkConfig::default() };
        host.on(async |engine| engine.network_create(config).await.unwrap());
    }
    let on = |steps: &[&str], first: EndpointConfig| {
        guest_with(steps, |c| {
            c.host.network_mode = NetworkMode::Named("one".into());
            drop(c.endpoints.insert("one".into(), first));
        })
    };
    let server =
        ContainerConfig { name: Some("db".into()), ..on(&["serve:80=hello"], EndpointConfig::default()) };
    let db = host.start(server);
    host.until_said(&db, "listening\n");

    let options = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let steps = [
        "list:/sys/class/net",
        "read:/proc/sys/net/ipv4/conf/lan0/log_martians",
        "read:/proc/net/route",
        "fetch:store:80",
    ];
    let mut config = on(
        &steps,
        EndpointConfig {
            links: vec!["db:store".into()],
            driver_opts: options(&[
                ("com.docker.network.endpoint.ifname", "lan0"),
                ("com.docker.network.endpoint.sysctls", "net.ipv4.conf.IFNAME.log_martians=1"),
            ]),
            ..EndpointConfig::default()
        },
    );
    let leading = EndpointConfig { gateway_priority: 7, ..EndpointConfig::default() };
    config.endpoints.insert("two".into(), leading.clone());
    let said = host.run(config).stdout;
    assert!(said.contains("lan0") && said.contains("eth0") && !said.contains("eth1"), "{said}");
    assert!(said.contains("\n1\n"), "the setting: {said}");
    // A destination of nothing is everywhere; 10.98.2.1 the way there.
    let way_out = |said: &str| {
        let mut routes = said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let everywhere = routes.find(|fields| fields.get(1) == Some(&"00000000")).expect("a way out");
        (everywhere[0].to_owned(), everywhere[2].to_owned())
    };
    assert_eq!(way_out(&said), ("eth0".to_owned(), "0102620A".to_owned()));
    assert!(said.ends_with("hello\n"), "by the link's name: {said}");

    // Joined later, the network with the higher priority leads outside from then on, and after it the other again.
    let id = host.start(on(&["park"], EndpointConfig::default()));
    let leads = || way_out(&host.exec(&id, &[GUEST, "read:/proc/net/route"], "").unwrap().stdout).1;
    assert_eq!(leads(), "0101620A");
    host.on(async |engine| engine.network_connect("two", &id, leading).await.unwrap());
    assert_eq!(leads(), "0102620A");
    host.on(async |engine| engine.network_disconnect("two", &id).await.unwrap());
    assert_eq!(leads(), "0101620A");

    for (endpoint, words) in [
        (
            EndpointConfig {
                driver_opts: options(&[("com.docker.network.b", "c")]),
                ..EndpointConfig::default()
            },
            "com.docker.network.b",
        ),
        (EndpointConfig { links: vec!["a b".into()], ..EndpointConfig::default() }, "EndpointsConfig.Links"),
    ] {
        let connected = endpoint.clone();
        let refused =
            host.on(async |engine| engine.network_connect("two", &db, connected).await.unwrap_err());
        assert!(refused.to_string().contains(words), "{refused}");
        let refused = host.try_create(on(&["park"], endpoint)).unwrap_err();
        assert!(chain(&refused).contains(words), "{}", chain(&refused));
    }
    // What is for another driver is kept and shown.
    let theirs = EndpointConfig { driver_opts: options(&[("a.b", "c")]), ..EndpointConfig::default() };
    let id = host.start(on(&["park"], theirs));
    let shown = &host.inspect(&id).networks["one"].driver_opts;
    assert_eq!(*shown, options(&[("a.b", "c")]));
}

#[test]
fn who_asks_for_an_address_of_the_link_is_reached_at_it_by_who_has_one_too() {
    let host = Host::new();
    let subnet = Some("10.98.3.0/24".parse().unwrap());
    let config = NetworkConfig { name: "one".into(), subnet, ..NetworkConfig::default() };
    host.on(async |engine| engine.network_create(config).await.unwrap());
    let on = |steps: &[&str], address: &str| {
        let link_local = vec![address.parse().unwrap()];
        guest_with(steps, |c| {
            c.host.network_mode = NetworkMode::Named("one".into());
            c.endpoints.insert("one".into(), EndpointConfig { link_local, ..EndpointConfig::default() });
        })
    };
    let server = host.start(on(&["serve:80=hello"], "169.254.8.8"));
    host.until_said(&server, "listening\n");
    let said = host.run(on(&["fetch:169.254.8.8:80"], "169.254.8.9")).stdout;
    assert_eq!(said, "hello\n");
    assert_eq!(
        host.inspect(&server).networks["one"].link_local,
        ["169.254.8.8".parse::<Ipv4Addr>().unwrap()]
    );
    let taken = host.create(on(&["park"], "169.254.8.8"));
    let refused = host.try_start(&taken).unwrap_err();
    assert!(chain(&refused).contains("169.254.8.8"), "{}", chain(&refused));
}
