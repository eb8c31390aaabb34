//! `userns-remap` and `--userns`: root of a container is an ordinary user of the host, and everything else goes on.

use crate::{
    build::{build, build_with},
    kit::{Host, becomes, chain, guest, guest_with, squashed},
};
use engine::{
    BuildOptions, CommitOptions, ContainerConfig, ContainerFile, Error, Healthcheck, NetworkMode, Port,
    PortBinding, SecretBytes,
};
use runtime::{IdMap, IdRange};
use std::{
    fs,
    io::{Cursor, Read as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::io::AsyncReadExt as _;

const ROOT: u32 = 100_000;

fn map() -> IdMap {
    let ranges = vec![IdRange { inside: 0, outside: ROOT, count: 65_536 }];
    IdMap { uids: ranges.clone(), gids: ranges }
}

/// An ordinary user cannot map ids of others.
fn host() -> Option<Host> {
    (!squashed()).then(|| Host::remapped(map()))
}

/// A folder of the host that anybody may write to.
fn open_folder(host: &Host, name: &str) -> String {
    let folder = host.path(name);
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    folder.display().to_string()
}

fn owner(path: impl AsRef<Path>) -> (u32, u32) {
    let stat =
        fs::symlink_metadata(path.as_ref()).unwrap_or_else(|e| panic!("{}: {e}", path.as_ref().display()));
    (stat.uid(), stat.gid())
}

#[track_caller]
fn said(host: &Host, config: ContainerConfig) -> String {
    let outcome = host.run(config);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    outcome.stdout
}

#[test]
fn root_inside_is_an_ordinary_user_outside_and_its_files_are_its_own() {
    let Some(host) = host() else { return };
    let shared = open_folder(&host, "open");
    let mine = open_folder(&host, "mine");
    chown(&mine, Some(7), Some(7)).unwrap();
    let key = |target: &str, uid: u32| ContainerFile {
        target: target.into(),
        uid,
        gid: uid,
        mode: 0o400,
        content: SecretBytes(Arc::from(&b"secret"[..])),
    };
    let config = guest_with(
        &[
            "user",
            "owner:/bin/guest",
            "owner:/seed/file",
            "owner:/etc/hosts",
            "append:/etc/hosts=10.0.0.1 more",
            "read:/run/secrets/key",
            "owner:/run/secrets/web",
            "owner:/scratch",
            "owner:/dev/shm",
            "kind:/dev/null",
            "owner:/dev/null",
            "write:/dev/null=x",
            "list:/sys/class/net",
            "write:/new=x",
            "write:/open/new=x",
            "owner:/open",
            "write:/kept/new=x",
            "owner:/kept",
            "owner:/mine",
            "write:/mine/new=x",
            "read:/proc/self/uid_map",
        ],
        |c| {
            c.host.binds = vec![
                format!("{shared}:/open"),
                format!("{mine}:/mine:idmap"),
                "kept:/kept".into(),
                "seeded:/seed".into(),
            ];
            c.host.tmpfs = [("/scratch".to_owned(), "uid=33,gid=33,mode=700".to_owned())].into();
            c.host.files = vec![key("/run/secrets/key", 0), key("/run/secrets/web", 33)];
            c.host.init = Some(true);
        },
    );
    let id = host.create(config);
    host.try_start(&id).unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert_eq!(host.wait(&id), 0, "{:?}", host.logs(&id));
    let expected = "0:0\n0:0 /bin/guest\n33:33 /seed/file\n0:0 /etc/hosts\nsecret33:33 /run/secrets/web\n\
        33:33 /scratch\n0:0 /dev/shm\nchar 1:3\n0:0 /dev/null\nlo\n65534:65534 /open\n0:0 /kept\n";
    let (stdout, _) = host.logs(&id);
    let rest = stdout.strip_prefix(expected).unwrap_or_else(|| panic!("{stdout}"));
    assert!(rest.is_empty() || rest.contains("100000"), "{rest}");
    let upper = host.path(&format!("data/containers/{id}/upper"));
    assert_eq!(owner(upper.join("new")), (0, 0), "on the disk is what the container sees");
    assert_eq!(owner(format!("{shared}/new")), (ROOT, ROOT));
    assert_eq!(owner(format!("{mine}/new")), (0, 0));
    let volume = |name: &str| host.on(async |engine| engine.volume(name).unwrap().mountpoint);
    assert_eq!(owner(volume("kept").join("new")), (0, 0));
    assert_eq!(owner(volume("seeded").join("file")), (33, 33));
}

#[test]
fn networks_ports_and_shared_namespaces_work_in_it() {
    let Some(host) = host() else { return };
    let server = guest_with(&["serve:80=hello"], |c| {
        c.host.network_mode = NetworkMode::Bridge;
        c.host.sysctls = [("net.ipv4.ip_default_ttl".to_owned(), "9".to_owned())].into();
        c.host.port_bindings = vec![PortBinding {
            container: "80/tcp".parse::<Port>().unwrap(),
            host_ip: None,
            host_port: Some(8080),
            last_port: None,
        }];
    });
    let id = host.start(server);
    host.until_said(&id, "listening\n");
    let answer = host.inside(|| {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    assert_eq!(answer, "hello\n");
    let ttl = "read:/proc/sys/net/ipv4/ip_default_ttl";
    let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/user")).unwrap();
    let join = |c: &mut ContainerConfig| {
        c.host.network_mode = NetworkMode::Container(id.clone());
        c.host.ipc_mode = format!("container:{id}");
        c.host.pid_mode = format!("container:{id}");
    };
    let joined = guest_with(&[ttl, "list:/sys/class/net", "fetch:127.0.0.1:80", "park"], join);
    let joined = host.start(joined);
    host.until_said(&joined, "9\neth0 lo\nhello\n");
    assert_eq!(namespace(host.pid(&id)), namespace(host.pid(&joined)));

    // Alone with its network, in the other's user namespace.
    let half = guest_with(&["list:/sys/class/net", "park"], |c| c.host.ipc_mode = format!("container:{id}"));
    let half = host.start(half);
    host.until_said(&half, "lo\n");
    assert_eq!(namespace(host.pid(&id)), namespace(host.pid(&half)));
    let other = host.start(guest(&["park"]));
    assert_ne!(namespace(host.pid(&id)), namespace(host.pid(&other)));
    let error = host.start_error(guest_with(&["park"], |c| {
        c.host.network_mode = NetworkMode::Container(id.clone());
        c.host.ipc_mode = format!("container:{other}");
    }));
    assert!(chain(&error).contains("two containers that have a user namespace each"), "{}", chain(&error));
}

#[test]
fn what_a_container_was_made_with_outlives_the_daemon_and_its_setting() {
    let Some(mut host) = host() else { return };
    let run = guest_with(&["write:/made=x", "park"], |c| {
        c.healthcheck = Some(Healthcheck {
            test: ["CMD", "guest", "owner:/made"].map(str::to_owned).into(),
            interval: Some(Duration::from_millis(50)),
            ..Healthcheck::default()
        });
    });
    let id = host.start(run);
    let plain = host.create(guest_with(&["read:/proc/self/uid_map"], |c| c.host.userns_mode = "host".into()));
    host.stop_daemon();
    host.userns_remap = None;
    host.start_daemon();
    let inside = |host: &Host| {
        let outcome = host.exec(&id, &["guest", "read:/proc/self/uid_map", "owner:/made"], "").unwrap();
        assert_eq!(outcome.code, 0, "{outcome:?}");
        outcome.stdout.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let expected = ["0", "100000", "65536", "0:0", "/made"];
    assert_eq!(inside(&host), expected);
    host.until(&id, "healthy", |c| c.health().is_some_and(|h| h.status == engine::HealthStatus::Healthy));
    host.on(async |engine| engine.restart(&id, engine::StopOptions::default()).await.unwrap());
    assert_eq!(inside(&host), expected);

    host.try_start(&plain).unwrap();
    assert_eq!(host.wait(&plain), 0);
    assert!(host.logs(&plain).0.contains("4294967295"), "{:?}", host.logs(&plain));
    assert!(said(&host, guest(&["read:/proc/self/uid_map"])).contains("4294967295"), "no remap any more");
}

#[test]
fn what_would_give_the_host_away_is_refused_in_dockers_words() {
    let Some(host) = host() else { return };
    let refused = |change: &dyn Fn(&mut ContainerConfig), words: &str| match host
        .try_create(guest_with(&["park"], |c| change(c)))
    {
        Err(Error::InvalidParameter(text)) => assert!(text.contains(words), "{words}: {text}"),
        other => panic!("{words}: {other:?}"),
    };
    let privileged = "privileged mode is incompatible with user namespaces.";
    refused(&|c| c.host.privileged = true, privileged);
    let network = "cannot share the host's network namespace when user namespaces are enabled";
    refused(&|c| c.host.network_mode = NetworkMode::Host, network);
    refused(
        &|c| c.host.pid_mode = "host".into(),
        "cannot share the host PID namespace when user namespaces are enabled",
    );
    refused(&|c| c.host.userns_mode = "auto".into(), "invalid user namespace mode: auto");
    let of_host = |c: &mut ContainerConfig| c.host.userns_mode = "host".into();
    let plain = host.start(guest_with(&["park"], of_host));
    refused(&|c| c.host.network_mode = NetworkMode::Container(plain.clone()), "it has other ids");
    refused(
        &|c| {
            of_host(c);
            c.host.binds = vec!["/tmp:/x:idmap".into()];
        },
        "the container has no user namespace",
    );
    for change in [
        (&|c: &mut ContainerConfig| c.host.privileged = true) as &dyn Fn(&mut ContainerConfig),
        &|c| c.host.network_mode = NetworkMode::Host,
        &|c| c.host.pid_mode = "host".into(),
    ] {
        host.create(guest_with(&["park"], |c| {
            of_host(c);
            change(c);
        }));
    }
    let gone = host.start_error(guest_with(&["park"], |c| c.user = Some("70000".into())));
    assert!(chain(&gone).contains("user 70000 is not among the ids"), "{}", chain(&gone));
}

#[test]
fn files_go_in_and_out_with_the_owners_that_the_container_sees() {
    let Some(host) = host() else { return };
    let config = guest_with(&["make:/out", "write:/out/new=x", "say:ready", "park"], |c| {
        c.host.binds = vec!["kept:/kept".into()];
    });
    let id = host.start(config);
    host.until_said(&id, "ready\n");
    let tar_of = |uid: u64, name: &str| {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o640);
        header.set_uid(uid);
        header.set_gid(uid);
        header.set_size(1);
        tar.append_data(&mut header, name, &b"y"[..]).unwrap();
        tar.into_inner().unwrap()
    };
    let put = |folder: &str, tar: Vec<u8>| {
        host.on(async |engine| {
            engine.archive_put(&id, folder, Cursor::new(tar), engine::PutOptions::default()).await
        })
    };
    let owners = |path: &str| -> Vec<(String, u64)> {
        let bytes = host.on(async |engine| {
            let mut bytes = Vec::new();
            engine.archive_get(&id, path).await.unwrap().1.read_to_end(&mut bytes).await.unwrap();
            bytes
        });
        let mut tar = tar::Archive::new(bytes.as_slice());
        let entries = tar.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            (entry.path().unwrap().display().to_string(), entry.header().uid().unwrap())
        });
        entries.collect()
    };
    let expected = |web: bool| {
        let mut all = vec![("out/".to_owned(), 0), ("out/new".to_owned(), 0)];
        all.extend(web.then(|| ("out/web".to_owned(), 33)));
        all
    };
    assert_eq!(owners("/out"), expected(false));
    put("/out", tar_of(33, "web")).unwrap();
    put("/kept", tar_of(33, "web")).unwrap();
    let outside = chain(&put("/work", tar_of(70_000, "far")).unwrap_err());
    assert!(outside.contains("not among the ids"), "{outside}");
    assert_eq!(owners("/out"), expected(true));
    let seen = host.exec(&id, &["guest", "owner:/out/web", "owner:/kept/web"], "").unwrap().stdout;
    assert_eq!(seen, "33:33 /out/web\n33:33 /kept/web\n");
    let volume = host.on(async |engine| engine.volume("kept").unwrap().mountpoint);
    assert_eq!(owner(volume.join("web")), (33, 33));
    host.on(async |engine| engine.kill(&id, None).await.unwrap());
    host.wait(&id);
    assert_eq!(owners("/out"), expected(true), "the same from one that is down");

    let changes = host.on(async |engine| engine.changes(&id).await.unwrap());
    let paths: Vec<&str> = changes.iter().map(|c| c.path.as_str()).collect();
    assert_eq!(paths, ["/out", "/out/new", "/out/web", "/work", "/work/far"]);
    let options = CommitOptions { reference: Some("made:1".parse().unwrap()), ..CommitOptions::default() };
    host.on(async |engine| engine.commit(&id, options).await.unwrap());
    let seen = guest_with(&["owner:/out/new", "owner:/out/web"], |c| {
        c.image = "made:1".into();
        c.cmd.as_mut().unwrap().truncate(2);
    });
    assert_eq!(said(&host, seen), "0:0 /out/new\n33:33 /out/web\n");
}

#[test]
fn builds_run_in_it_and_their_layers_are_as_without() {
    let Some(host) = host() else { return };
    let dockerfile = "FROM guest AS source\n\
        COPY a /deep/a\n\
        FROM guest\n\
        COPY --chown=web a /a\n\
        RUN --mount=type=secret,id=key,target=/secret --mount=type=bind,from=source,target=/s \
            --mount=type=bind,source=a,target=/c --mount=type=bind,from=source,target=/w,rw \
            --mount=type=cache,target=/cache --mount=type=tmpfs,target=/t \
            [\"guest\", \"read:/proc/self/uid_map\", \"read:/secret\", \"read:/s/deep/a\", \"owner:/s/deep/a\", \
             \"read:/c\", \"write:/w/deep/a=w\", \"owner:/cache\", \"write:/cache/n=cached\", \"owner:/a\", \
             \"write:/made=x\"]\n\
        RUN --mount=type=cache,target=/cache [\"guest\", \"read:/cache/n\", \"owner:/cache/n\"]\n";
    let options = BuildOptions {
        tags: vec!["built:1".parse().unwrap()],
        secrets: [("key".to_owned(), SecretBytes(Arc::from(&b"hunter2\n"[..])))].into(),
        ..BuildOptions::default()
    };
    let (_, text) =
        build_with(&host, &[("Dockerfile", dockerfile), ("a", "from the context\n")], options).ok();
    for line in ["100000", "hunter2", "0:0 /s/deep/a", "0:0 /cache\n", "33:33 /a", "cached", "0:0 /cache/n"] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let seen =
        guest_with(&["owner:/a", "owner:/made", "read:/proc/self/uid_map"], |c| c.image = "built:1".into());
    let seen = said(&host, seen);
    assert!(seen.starts_with("33:33 /a\n0:0 /made\n") && seen.contains("100000"), "{seen}");
    let error =
        build(&host, &[("Dockerfile", "FROM guest\nRUN --network=host [\"guest\"]\n")]).id.unwrap_err();
    assert!(error.contains("cannot share the host's network namespace"), "{error}");
    becomes(&0, || fs::read_dir(host.path("data/build/tmp")).map_or(0, Iterator::count));
}
