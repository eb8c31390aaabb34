//! Files of the data root that a disk, a power cut or a hand has damaged: each costs what it is about, and the daemon
//! starts.

use crate::{SOON, lab, load_hello};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use testkit::{Lab, wait_for};

/// What can be found instead of a file: nothing, half of it, something else.
fn damaged(content: &[u8], kind: usize) -> Vec<u8> {
    match kind % 3 {
        0 => Vec::new(),
        1 => content[..content.len() / 2].to_vec(),
        _ => b"\xff\x00garbage".to_vec(),
    }
}

/// Returns the files of a data root that the daemon keeps records in, with their contents.
fn records(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry")) {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let kind = entry.file_type().expect("a type");
            // What is in these is containers' and images' own.
            if kind.is_dir() && !["diff", "upper", "work", "_data", "merged"].contains(&name.as_str()) {
                folders.push(path);
            } else if kind.is_file() && entry.metadata().expect("its size").len() < 1 << 20 {
                found.insert(path.clone(), fs::read(&path).expect("a file"));
            }
        }
    }
    found
}

fn restart(lab: &mut Lab, meanwhile: impl FnOnce()) {
    lab.tell("kill-daemon 1").expect("the daemon to be killed");
    meanwhile();
    lab.tell("start-daemon 1").expect("the daemon to be started");
    lab.wait_for_daemon(1).expect("the daemon");
}

fn runs(lab: &Lab, name: &str) -> bool {
    lab.rswarm(1, &["inspect", "--format", "{{.State.Running}}", name]).stdout.trim() == "true"
}

#[test]
fn a_damaged_file_costs_its_object_and_no_other() {
    let mut lab = lab(1);
    load_hello(&lab, 1);
    for n in ["hurt", "whole"] {
        lab.rswarm(1, &["volume", "create", n]).ok();
        lab.rswarm(1, &["network", "create", n]).ok();
        lab.rswarm(
            1,
            &["run", "-d", "--name", n, "--network", n, "-v", &format!("{n}:/data"), "rswarm/hello", "web"],
        )
        .ok();
    }
    let whole = lab.rswarm(1, &["inspect", "--format", "{{.Id}}", "whole"]).ok().trim().to_owned();
    let network =
        lab.rswarm(1, &["network", "inspect", "--format", "{{.Id}}", "whole"]).ok().trim().to_owned();
    let root = lab.dir().join("h1/data");
    let before = records(&root);
    let spared = ["/whole/".to_owned(), whole.clone(), network.clone()];
    let hurt = before.iter().filter(|(path, _)| {
        let path = path.display().to_string();
        !spared.iter().any(|whole| path.contains(whole))
    });
    let hurt: Vec<_> = hurt.collect();
    assert!(hurt.len() > 10, "{hurt:?}");
    for (kind, (path, content)) in hurt.iter().enumerate() {
        restart(&mut lab, || fs::write(path, damaged(content, kind)).expect("to damage it"));
        let about = format!("{} {}{}", kind % 3, path.display(), lab.daemon_logs());
        assert!(runs(&lab, "whole"), "{about}");
        lab.rswarm(1, &["volume", "inspect", "whole"]).ok();
        lab.rswarm(1, &["network", "inspect", "whole"]).ok();
        assert!(lab.rswarm(1, &["info"]).ok().contains("Containers"), "{about}");
        let kept = |name: &str| path.ends_with(name);
        let record = ["volume.json", "state.json", "config.json", "images.json"].into_iter().any(kept)
            || path.parent().is_some_and(|p| p.ends_with("networks"));
        let folder = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        assert!(!record || about.contains(&*folder), "the log says nothing of it: {about}");
        // Mended by hand.
        lab.tell("kill-daemon 1").expect("the daemon to be killed");
        for (path, content) in &before {
            if fs::read(path).is_ok_and(|now| now == **content) {
                continue;
            }
            fs::create_dir_all(path.parent().expect("a folder")).expect("its folder");
            fs::write(path, content).expect("to mend it");
            drop(fs::remove_file(format!("{}.damaged", path.display())));
        }
        lab.tell("start-daemon 1").expect("the daemon to be started");
        lab.wait_for_daemon(1).expect("the daemon");
    }
    assert!(runs(&lab, "whole") && runs(&lab, "hurt"), "{}", lab.daemon_logs());
    // All at once: there is still a daemon, which says so.
    for kind in 0..3 {
        restart(&mut lab, || {
            for (path, content) in &before {
                fs::create_dir_all(path.parent().expect("a folder")).expect("its folder");
                fs::write(path, damaged(content, kind)).expect("to damage it");
            }
        });
        lab.rswarm(1, &["info"]).ok();
    }
}

#[test]
fn a_damaged_membership_stops_the_member_and_neither_daemon_nor_containers() {
    let mut lab = lab(1);
    load_hello(&lab, 1);
    lab.rswarm(1, &["run", "-d", "--name", "web", "rswarm/hello", "web"]).ok();
    let root = lab.dir().join("h1/data/swarm");
    let files = ["member.json", "certificates/node.pem", "raft.key", "raft"];
    for (kind, name) in files.into_iter().enumerate() {
        let shown = format!("/swarm/{}", name.split('/').next().unwrap_or_default());
        lab.rswarm(1, &["swarm", "init", "--advertise-addr", &Lab::address(1)]).ok();
        restart(&mut lab, || {
            let files: Vec<_> =
                records(&root).into_iter().filter(|(p, _)| p.starts_with(root.join(name))).collect();
            assert!(!files.is_empty(), "no {name}");
            for (path, content) in files {
                // A log that ends early is a power cut's; one that is something else is damaged.
                let kind = if name == "raft" { 2 } else { kind };
                fs::write(path, damaged(&content, kind)).expect("to damage it");
            }
        });
        assert!(runs(&lab, "web"), "{}", lab.daemon_logs());
        wait_for("the daemon to say what is wrong", SOON, || {
            let info = lab.api(1, "/info").map_err(|e| e.to_string())?;
            let says = info.contains("\"LocalNodeState\":\"error\"") && info.contains(&shown);
            if says { Ok(()) } else { Err(format!("{name}: {info}{}", lab.daemon_logs())) }
        });
        lab.rswarm(1, &["swarm", "leave", "--force"]).ok();
        assert!(runs(&lab, "web"));
    }
    lab.rswarm(1, &["swarm", "init", "--advertise-addr", &Lab::address(1)]).ok();
}
