//! `docker inspect` of the same objects, made by the same commands, here and on a real dockerd: every field and value.
//! Where they differ, `differences.txt` says why.

use crate::docker_engine::{Machine, differences, docker, each, host, words};
use serde_json::Value;
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

/// How each object is made, and as what it is inspected.
const OBJECTS: &[(&str, &str)] = &[
    ("container plain", "create --name plain bb"),
    (
        "container full",
        "create --name full -i -t -h box --domainname example -e A=1 -p 127.0.0.1:8080:80 -p 90:90/udp \
         -p 100 --expose 70 -v /data -v vol:/vol:ro --mount type=bind,source=/etc,target=/host-etc,readonly --mount type=tmpfs,target=/t,tmpfs-size=1m \
         --mount type=volume,source=v2,target=/v2,volume-nocopy --tmpfs /scratch:size=1m --dns 192.0.2.1 \
         --dns-search example.org --dns-option ndots:2 --add-host h:192.0.2.2 -u 1000:1000 -w /tmp --entrypoint /bin/sh \
         --cap-add NET_ADMIN --cap-drop MKNOD --device /dev/null:/dev/nil:r --device-cgroup-rule 'c 13:* rw' \
         --security-opt no-new-privileges --ulimit nofile=50:60 --sysctl net.ipv4.ip_forward=1 --shm-size 8m --init \
         --read-only --restart on-failure:3 --memory 64m --memory-reservation 32m --cpus 0.5 --cpu-shares 200 \
         --cpuset-cpus 0 --pids-limit 50 --oom-score-adj 5 --group-add 27 --health-cmd true --health-interval 5s \
         --health-retries 2 --health-timeout 3s --health-start-period 1s -l one=1 --label two --log-driver json-file \
         --log-opt max-size=1m --stop-signal INT --stop-timeout 3 bb -c 'echo hi'",
    ),
    ("container open", "create --name open --privileged --pid host --ipc host --uts host --network host bb"),
    (
        "container quiet",
        "create --name quiet --network none --log-driver none --cgroupns host --no-healthcheck bb",
    ),
    ("container running", "run -d --name running -v logs:/logs -p 8099:80 bb sleep 1000"),
    ("container ended", "run --name ended bb sh -c 'exit 3'"),
    ("volume plain", "volume create plain"),
    ("volume named", "volume create --label a=b -o type=tmpfs -o device=tmpfs -o o=size=1m named"),
    ("network plain", "network create plain"),
    (
        "network named",
        "network create --subnet 10.77.0.0/24 --gateway 10.77.0.9 --ip-range 10.77.0.128/25 --internal --label a=b \
         -o com.docker.network.driver.mtu=1400 named",
    ),
    (
        "container inside",
        "run -d --name inside --network named --network-alias db --ip 10.77.0.130 bb sleep 1000",
    ),
    ("network bridge", ""),
    ("network host", ""),
    ("network none", ""),
    ("image bb", ""),
];

/// What no two machines have in common, by the last words of its path: ids, times, addresses that are given out.
const OWN: &[&str] = &[
    "Id",
    "Created",
    "CreatedAt",
    "StartedAt",
    "FinishedAt",
    "Pid",
    "Image",
    "SandboxID",
    "SandboxKey",
    "EndpointID",
    "NetworkID",
    "MacAddress",
    "HostsPath",
    "HostnamePath",
    "ResolvConfPath",
    "LogPath",
    "LowerDir",
    "UpperDir",
    "WorkDir",
    "MergedDir",
    "Mountpoint",
    "LastTagTime",
    "Hostname",
    "CgroupParent",
    "Start",
    "End",
];

/// Writes every value of a tree under its path.
fn flatten(path: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                flatten(&format!("{path}.{key}"), value, into);
            }
        }
        Value::Array(list) if list.iter().any(Value::is_object) => {
            let mut list: Vec<_> = list.iter().collect();
            list.sort_by_key(|v| v["Destination"].to_string() + &v["Name"].to_string());
            for (n, value) in list.iter().enumerate() {
                flatten(&format!("{path}[{n}]"), value, into);
            }
        }
        _ => {
            let last = path.rsplit('.').next().unwrap_or_default();
            let own = OWN.contains(&last) && value.as_str().is_none_or(|text| !text.is_empty());
            let text = if own { "its own".to_owned() } else { value.to_string() };
            into.insert(path.to_owned(), text);
        }
    }
}

/// Without what depends on ids and on the folders of the machine.
fn normal(text: &str) -> String {
    let hex = |c: char| c.is_ascii_hexdigit() && !c.is_ascii_uppercase();
    let mut words = Vec::new();
    for word in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let bare = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        let id = (bare.len() == 64 || bare.len() == 12) && bare.chars().all(hex);
        words.push(if id { word.replace(bare, "ID") } else { word.to_owned() });
    }
    words.concat()
}

fn inspect(machine: &Machine, kind: &str, name: &str) -> BTreeMap<String, String> {
    let said = docker(machine, &format!("inspect --type {kind} {name}")).ok();
    let found: Value = serde_json::from_str(&said).expect("JSON");
    let mut fields = BTreeMap::new();
    flatten("", &found[0], &mut fields);
    fields
}

fn look(machine: &Machine) -> BTreeMap<String, String> {
    let mut seen = BTreeMap::new();
    for (object, made) in OBJECTS {
        if !made.is_empty() {
            let made = docker(machine, made);
            assert!(made.code == 0 || object.ends_with("ended"), "{object}: {made:?}");
        }
        let (kind, name) = object.split_once(' ').expect("a kind and a name");
        let fields = inspect(machine, kind, name);
        let root = machine.dir().display().to_string();
        seen.extend(fields.into_iter().map(|(path, value)| {
            (
                format!("{} {}", object, normal(&path)),
                normal(&value).replace(&root, "ROOT").replace("ROOT/h1/", "ROOT/"),
            )
        }));
    }
    seen
}

#[test]
#[ignore = "oracle: docker, dockerd, busybox"]
fn inspect_shows_what_docker_shows() {
    let seen = RefCell::new(Vec::new());
    each(|machine| seen.borrow_mut().push(look(machine)));
    let seen = seen.into_inner();
    let [ours, theirs] = &seen[..] else {
        assert!(ours_is_whole(&seen[0]));
        return;
    };
    let known = differences();
    // `inspect KIND[ NAME] PATH`, where PATH may end in `*`.
    let explains = |line: &str, path: &str| {
        let (object, field) = path.rsplit_once(' ').expect("an object and a field");
        let (kind, _) = object.split_once(' ').expect("a kind and a name");
        let (of, pattern) = line.rsplit_once(' ').expect("an object and a field");
        (of == kind || of == object)
            && pattern.strip_suffix('*').map_or(pattern == field, |start| field.starts_with(start))
    };
    let lines: Vec<&str> = known.keys().filter_map(|line| line.strip_prefix("inspect ")).collect();
    let differ: BTreeSet<&String> =
        ours.keys().chain(theirs.keys()).filter(|path| ours.get(*path) != theirs.get(*path)).collect();
    let wrong: Vec<String> = differ
        .iter()
        .filter(|path| !lines.iter().any(|line| explains(line, path)))
        .map(|path| {
            format!("inspect {path}\n    ours   {:?}\n    theirs {:?}", ours.get(*path), theirs.get(*path))
        })
        .collect();
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    let old: Vec<&&str> =
        lines.iter().filter(|line| !differ.iter().any(|path| explains(line, path))).collect();
    assert!(old.is_empty(), "no difference any more: {old:#?}");
}

#[test]
#[ignore = "oracle: docker, busybox"]
fn our_cli_makes_the_same_container_of_the_same_flags() {
    let machine = Machine::Ours(host());
    let Machine::Ours(lab) = &machine else { unreachable!("it is ours") };
    for (object, made) in OBJECTS.iter().filter(|(_, made)| made.starts_with("create ")) {
        let (_, name) = object.split_once(' ').expect("a kind and a name");
        docker(&machine, made).ok();
        let own = made.replace(&format!("--name {name} "), &format!("--name own-{name} "));
        lab.rswarm(1, &words(&own)).ok();
        let [theirs, ours] = [name.to_owned(), format!("own-{name}")].map(|name| {
            let mut fields = inspect(&machine, "container", &name);
            fields.retain(|field, _| field != ".Name");
            fields.into_iter().map(|(k, v)| (k, normal(&v))).collect::<BTreeMap<_, _>>()
        });
        let differ: Vec<String> = ours
            .keys()
            .chain(theirs.keys())
            .filter(|field| ours.get(*field) != theirs.get(*field))
            .map(|field| {
                format!("{field}\n    ours   {:?}\n    docker {:?}", ours.get(field), theirs.get(field))
            })
            .collect();
        assert!(differ.is_empty(), "{name}:\n{}", differ.join("\n"));
    }
}

/// Without a dockerd to ask, at least the fields that every client reads.
fn ours_is_whole(ours: &BTreeMap<String, String>) -> bool {
    [
        "container full .HostConfig.Memory",
        "container full .Config.Healthcheck.Test",
        "volume named .Options.o",
    ]
    .iter()
    .all(|path| ours.contains_key(*path))
}
