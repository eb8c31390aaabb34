//! Our own words for what Docker's CLI does on one host; what they do is tried with Docker's in `docker_engine`.

use crate::{SOON, lab, load_hello};
use std::{fs, os::unix::fs::symlink};
use testkit::wait_for;

#[test]
fn containers_are_started_looked_at_copied_committed_and_exported() {
    let mut lab = lab(1);
    load_hello(&lab, 1);
    let ok = |args: &[&str]| lab.rswarm(1, args).ok();
    ok(&["run", "-d", "--name", "web", "-p", "8090:80", "rswarm/hello", "web"]);
    assert!(ok(&["port", "web"]).contains("80/tcp -> 0.0.0.0:8090"));
    assert!(ok(&["top", "web"]).contains("/hello web"));
    assert!(ok(&["stats", "--no-stream", "--format", "{{.Name}}", "web"]).contains("web"));
    ok(&["pause", "web"]);
    assert!(ok(&["ps"]).contains("(Paused)"));
    ok(&["unpause", "web"]);
    ok(&["rename", "web", "web2"]);

    // Into a folder, under another name, a whole folder, and back.
    let here = lab.dir().join("here");
    fs::create_dir_all(here.join("sub")).expect("a folder");
    fs::write(here.join("sub/file"), "content").expect("a file");
    symlink("/etc/hostname", here.join("sub/link")).expect("a link");
    let (file, folder) =
        (here.join("sub/file").display().to_string(), here.join("sub").display().to_string());
    ok(&["cp", &file, "web2:/tmp"]);
    ok(&["cp", &file, "web2:/tmp/other"]);
    ok(&["cp", &folder, "web2:/data"]);
    let diff = ok(&["diff", "web2"]);
    for line in ["A /tmp/file", "A /tmp/other", "A /data/sub/file", "A /data/sub/link"] {
        assert!(diff.lines().any(|l| l == line), "{line} is missing in {diff}");
    }
    let back = lab.dir().join("back").display().to_string();
    ok(&["cp", "web2:/tmp/other", &back]);
    assert_eq!(fs::read_to_string(&back).expect("the copy"), "content");
    let there = lab.dir().join("there");
    fs::create_dir(&there).expect("a folder");
    ok(&["cp", "web2:/data/sub", &there.display().to_string()]);
    assert_eq!(fs::read_to_string(there.join("sub/file")).expect("the copy"), "content");
    assert_eq!(
        fs::read_link(there.join("sub/link")).expect("the link"),
        std::path::Path::new("/etc/hostname")
    );
    // What is in a folder beside what is there, both ways; a link as itself, or as what it leads to.
    fs::write(there.join("own"), "kept").expect("a file");
    ok(&["cp", &format!("{folder}/."), "web2:/tmp"]);
    ok(&["cp", "web2:/data/sub/.", &there.display().to_string()]);
    assert_eq!(fs::read_to_string(there.join("file")).expect("beside"), "content");
    assert_eq!(fs::read_to_string(there.join("own")).expect("what was there"), "kept");
    let link = here.join("sub/link").display().to_string();
    ok(&["cp", &link, "web2:/data"]);
    ok(&["cp", "-L", &link, "web2:/tmp/followed"]);
    ok(&["cp", "-L", "web2:/data/link", &lab.dir().join("name").display().to_string()]);
    assert_eq!(fs::read_link(there.join("link")).expect("a link"), std::path::Path::new("/etc/hostname"));
    let diff = ok(&["diff", "web2"]);
    for line in ["A /tmp/link", "A /data/link", "A /tmp/followed"] {
        assert!(diff.lines().any(|l| l == line), "{line} is missing in {diff}");
    }
    let name = ok(&["inspect", "--format", "{{.Config.Hostname}}", "web2"]);
    assert_eq!(fs::read_to_string(lab.dir().join("name")).expect("its name").trim(), name.trim());
    let missing = lab.rswarm(1, &["cp", "web2:/nope", &back]).fails();
    assert!(missing.contains("Could not find the file /nope in container web2"), "{missing}");

    ok(&["commit", "-m", "hi", "-c", "ENV A=1", "web2", "snap:1"]);
    assert!(ok(&["history", "snap:1"]).contains("hi"));
    let (tar, image) = (lab.dir().join("root.tar"), lab.dir().join("snap.tar"));
    ok(&["export", "-o", &tar.display().to_string(), "web2"]);
    ok(&["save", "-o", &image.display().to_string(), "snap:1"]);
    assert!(fs::metadata(&tar).expect("a tar").len() > 1 << 20);
    ok(&["image", "rm", "snap:1"]);
    assert!(ok(&["load", "-i", &image.display().to_string()]).contains("snap:1"));

    ok(&["stop", "web2"]);
    ok(&["start", "web2"]);
    ok(&["restart", "-t", "1", "web2"]);
    ok(&["kill", "web2"]);
    assert_eq!(ok(&["wait", "web2"]).trim(), "137");
    ok(&["rm", "web2"]);
    let events = ok(&[
        "events",
        "--since",
        "10m",
        "--until",
        "0s",
        "--filter",
        "type=container",
        "--format",
        "{{.Action}}",
    ]);
    for action in
        ["create", "start", "pause", "unpause", "rename", "commit", "stop", "restart", "kill", "destroy"]
    {
        assert!(events.lines().any(|l| l == action), "{action} is missing in {events}");
    }
    wait_for("the port to be free", SOON, || {
        if lab.http(1, 8090).is_err() { Ok(()) } else { Err(String::new()) }
    });
}

#[test]
fn a_volume_goes_out_as_a_tar_and_comes_back_under_other_names() {
    let lab = lab(1);
    load_hello(&lab, 1);
    let ok = |args: &[&str]| lab.rswarm(1, args).ok();
    let here = |name: &str| lab.dir().join(name).display().to_string();
    let holds = |volume: &str| {
        let (mount, back) = (format!("{volume}:/data"), here(&format!("back-{volume}")));
        ok(&["run", "-d", "--name", volume, "-v", &mount, "rswarm/hello", "web"]);
        ok(&["cp", &format!("{volume}:/data/file"), &back]);
        fs::read(&back).expect("the copy")
    };
    // More than a connection holds: whoever is refused has not sent it all.
    let content: Vec<u8> = (0..8_u32 << 20).map(|n| n.to_le_bytes()[1]).collect();
    fs::write(lab.dir().join("file"), &content).expect("a file");
    ok(&["run", "-d", "--name", "web", "-v", "one:/data", "rswarm/hello", "web"]);
    ok(&["cp", &here("file"), "web:/data"]);

    ok(&["volume", "export", "-o", &here("one.tar"), "one"]);
    assert_eq!(ok(&["volume", "import", "-i", &here("one.tar"), "two"]), "two\n");
    assert_eq!(ok(&["volume", "cp", "one", "three"]), "three\n");
    assert!(holds("two") == content && holds("three") == content);

    let import = |more: &[&str]| {
        lab.rswarm(1, &[&["volume", "import", "-i", &here("one.tar")], more].concat()).fails()
    };
    assert!(import(&["one"]).contains("volume one is not empty; use --force"));
    assert!(import(&["--force", "one"]).contains("mounted by running containers; stop them first"));
    let whole = fs::read(lab.dir().join("one.tar")).expect("the tar");
    fs::write(lab.dir().join("one.tar"), &whole[..whole.len() / 2]).expect("half a tar");
    ok(&["rm", "-f", "web"]);
    assert!(import(&["--force", "one"]).contains("volume one stays as it was"));
    assert!(import(&["four"]).contains("cannot unpack"));
    assert!(!ok(&["volume", "ls", "-q"]).contains("four"));
    assert!(lab.rswarm(1, &["volume", "export", "four"]).fails().contains("no such volume"));
    assert!(holds("one") == content);
}

#[test]
fn an_account_that_no_registry_takes_is_not_kept() {
    let lab = lab(1);
    let refused = lab.rswarm(1, &["login", "-u", "me", "-p", "secret", "127.0.0.1:9"]).fails();
    assert!(refused.contains("127.0.0.1:9"), "{refused}");
    assert!(!lab.dir().join(".docker/config.json").exists());
}

#[test]
fn an_image_is_built_from_a_folder_from_standard_input_and_with_a_secret() {
    let lab = lab(1);
    load_hello(&lab, 1);
    let context = lab.dir().join("context");
    fs::create_dir_all(context.join("page")).expect("a folder");
    for (path, text) in [
        (
            "Dockerfile",
            "FROM rswarm/hello AS base\nFROM base\nARG NAME\nCOPY . /ctx/\nENV NAME=$NAME\nCMD [\"web\"]\n",
        ),
        (".dockerignore", "*.log\n"),
        ("page/index", "page"),
        ("big.log", "left out"),
    ] {
        fs::write(context.join(path), text).expect("a file");
    }
    let folder = context.display().to_string();
    let idfile = lab.dir().join("id").display().to_string();
    let build = ["build", "-t", "built:1", "--build-arg", "NAME=builder", "--iidfile", &idfile, &folder];
    let said = lab.rswarm(1, &build).ok();
    assert!(
        said.contains("Step 1/6 : FROM rswarm/hello AS base") && said.contains("Successfully tagged built:1"),
        "{said}"
    );
    let again = lab.rswarm(1, &build).ok();
    assert!(again.contains("Using cache"), "{again}");
    let id = fs::read_to_string(&idfile).expect("the id");
    assert!(lab.rswarm(1, &["images", "-q"]).ok().lines().any(|short| id.contains(short)));
    lab.rswarm(1, &["run", "-d", "--name", "web", "built:1"]).ok();
    let diff = lab.dir().join("index").display().to_string();
    lab.rswarm(1, &["cp", "web:/ctx/page/index", &diff]).ok();
    assert_eq!(fs::read_to_string(&diff).expect("the copy"), "page");
    assert!(lab.rswarm(1, &["cp", "web:/ctx/big.log", &diff]).fails().contains("Could not find the file"));
    assert!(lab.rswarm(1, &["inspect", "built:1"]).ok().contains("NAME=builder"));

    assert!(
        lab.rswarm(1, &["system", "df", "--format", "{{.Type}} {{.TotalCount}}"])
            .ok()
            .contains("Build Cache 1")
    );
    lab.rswarm(1, &["rm", "-f", "web"]).ok();
    assert!(lab.rswarm(1, &["builder", "prune", "-f"]).ok().contains("Deleted build cache objects:"));
    assert!(lab.rswarm(1, &["system", "prune", "-a", "-f"]).ok().contains("untagged: built:1"));
    assert_eq!(lab.rswarm(1, &["images", "-q"]).ok(), "");
    load_hello(&lab, 1);

    for (args, expected) in [
        (vec!["build", "/nowhere"], "path \"/nowhere\" not found"),
        (
            vec!["build", "-f", "/nowhere/Dockerfile", folder.as_str()],
            "failed to read dockerfile: open /nowhere/Dockerfile",
        ),
        (
            vec!["build", "--target", "none", folder.as_str()],
            "failed to reach build target none in Dockerfile",
        ),
        (vec!["build", "--secret", "src=x", folder.as_str()], "id=NAME is needed"),
        (vec!["build", "git://127.0.0.1:1/x.git"], "unable to prepare context: git://127.0.0.1:1/x.git"),
    ] {
        let said = lab.rswarm(1, &args).fails();
        assert!(said.contains(expected), "{args:?}: {said}");
    }
}

#[test]
fn lists_and_objects_are_shown_as_dockers_flags_ask() {
    let lab = lab(1);
    load_hello(&lab, 1);
    let ok = |args: &[&str]| lab.rswarm(1, args).ok();
    let first =
        ok(&["run", "-d", "--name", "first", "-v", "data:/data", "-p", "8093:80", "rswarm/hello", "web"]);
    ok(&["container", "create", "--name", "second", "rswarm/hello", "web"]);
    for (args, shown) in [
        (&["ps", "-a", "-l", "--format", "{{.Names}}"][..], "second\n"),
        (&["ps", "-n", "1", "--format", "{{.Names}}"], "second\n"),
        (&["ps", "--no-trunc", "-q"], first.as_str()),
        (&["port", "first", "80"], "0.0.0.0:8093\n"),
        (&["inspect", "--type", "volume", "-f", "{{.Name}}", "data"], "data\n"),
        (
            &["images", "--digests", "--format", "{{.Repository}} {{.Digest}}", "rswarm/hello"],
            "rswarm/hello <none>\n",
        ),
        (&["images", "no/such", "-q"], ""),
        (&["container", "stop", "--signal", "KILL", "-t", "5", "first"], "first\n"),
        (&["inspect", "-f", "{{.State.ExitCode}}", "first"], "137\n"),
        (&["container", "start", "first"], "first\n"),
        (&["container", "rename", "second", "third"], ""),
        (&["container", "rm", "third"], "third\n"),
        (&["network", "rm", "-f", "nope"], "nope\n"),
    ] {
        assert_eq!(ok(args), shown, "{args:?}");
    }
    let top = ok(&["container", "top", "first", "-o", "pid,comm"]);
    assert!(top.contains("COMMAND") && !top.contains("STIME"), "{top}");
    assert!(ok(&["ps", "-s"]).contains("(virtual "), "sizes are shown when they are asked for");
    assert!(!ok(&["ps"]).contains("SIZE"));
    assert!(ok(&["container", "inspect", "-s", "first"]).contains("\"SizeRootFs\""));
    let used = ok(&["system", "df", "-v"]);
    for part in ["rswarm/hello:latest", "first", "VOLUME NAME", "data", "Build cache usage: 0B"] {
        assert!(used.contains(part), "{part} is missing in {used}");
    }
    assert!(ok(&["history", "--no-trunc", "--human=false", "rswarm/hello"]).contains("sha256:"));
    let refused = |args: &[&str]| lab.rswarm(1, args).fails();
    assert!(refused(&["inspect", "--type", "image", "first"]).contains("No such image: first"));
    assert!(refused(&["port", "first", "81"]).contains("no public port \"81/tcp\" published for first"));
    assert!(refused(&["volume", "create", "-d", "nfs", "x"]).contains("nfs"), "an unknown driver is named");
    assert!(
        refused(&["create", "--device-read-bps", "/dev/sda:1mb", "rswarm/hello"])
            .contains("BlkioDeviceReadBps")
    );
    assert!(refused(&["network", "create", "--ipam-driver", "dhcp", "n"]).contains("dhcp"));
}

/// A program that shows a container's output passes signals on to it, and says how it ended.
#[test]
fn signals_to_a_command_reach_the_container_that_it_shows() {
    let mut lab = lab(1);
    load_hello(&lab, 1);
    let pids = lab.dir().join("pid").display().to_string();
    let script = lab.dir().join("run.sh");
    let socket = lab.socket(1).display().to_string();
    let text = format!("echo $$ >{pids}\nexec $1 -H unix://{socket} run --name shown rswarm/hello web\n");
    fs::write(&script, text).expect("a script");
    let script = script.display().to_string();
    let program = crate::program().display().to_string();
    let shown = lab.exec(1, &["/bin/sh", &script, &program]).expect("a host that runs it");
    wait_for("its output", SOON, || {
        if shown.said().contains("listening on port 80") { Ok(()) } else { Err(shown.said()) }
    });
    let interrupt = lab.dir().join("interrupt.sh");
    fs::write(&interrupt, format!("kill -TERM $(cat {pids})\n")).expect("a script");
    lab.exec(1, &["/bin/sh", &interrupt.display().to_string()]).expect("a host").wait(SOON).expect("its end");
    let ended = shown.wait(SOON).expect("its end");
    // The program of the image ends well when it is told to.
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(lab.rswarm(1, &["inspect", "-f", "{{.State.Status}}", "shown"]).ok(), "exited\n");
}
