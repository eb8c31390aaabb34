//! Images are built from Dockerfiles: real layers, real containers for RUN.

use crate::kit::{GUEST, Host, IMAGE, becomes, chain, eventually, guest_with};
use engine::{BuildContext, BuildLine, BuildOptions, Filters, ListOptions, SecretBytes};
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Cursor, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command},
};
use tokio::sync::mpsc;

/// A context with these files.
fn context(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        header.set_mtime(1_700_000_000);
        header.set_uid(1234);
        header.set_gid(1234);
        tar.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

pub(crate) struct Built {
    pub(crate) id: Result<image::Digest, String>,
    said: String,
}

impl Built {
    #[track_caller]
    pub(crate) fn ok(self) -> (image::Digest, String) {
        (self.id.unwrap_or_else(|e| panic!("{e}\n{}", self.said)), self.said)
    }
}

/// Builds; `FROM guest` is the image that holds the guest.
pub(crate) fn build_with(host: &Host, files: &[(&str, &str)], options: BuildOptions) -> Built {
    let files: Vec<(&str, String)> =
        files.iter().map(|(p, text)| (*p, text.replace("FROM guest", &format!("FROM {IMAGE}")))).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(p, text)| (*p, text.as_str())).collect();
    build_from(host, BuildContext::tar(Cursor::new(context(&files))), options)
}

fn build_from(host: &Host, context: BuildContext, options: BuildOptions) -> Built {
    host.on(async |engine| {
        let (lines, mut said) = mpsc::channel::<BuildLine>(16);
        let listen = async {
            let mut text = String::new();
            while let Some(line) = said.recv().await {
                text.extend(line.text());
            }
            text
        };
        let (id, said) = tokio::join!(engine.build(options, context, lines), listen);
        Built { id: id.map_err(|e| chain(&e)), said }
    })
}

pub(crate) fn build(host: &Host, files: &[(&str, &str)]) -> Built {
    build_with(
        host,
        files,
        BuildOptions { tags: vec!["built:1".parse().unwrap()], ..BuildOptions::default() },
    )
}

/// What a file of the built image holds.
#[track_caller]
fn read(host: &Host, path: &str) -> String {
    let outcome = host.run(guest_with(&[&format!("read:{path}")], |c| {
        c.image = "built:1".into();
        c.entrypoint = Some(vec![GUEST.into()]);
    }));
    assert_eq!(outcome.code, 0, "{outcome:?}");
    outcome.stdout
}

#[test]
fn stages_commands_and_copies_make_an_image() {
    let host = Host::new();
    let dockerfile = "ARG FROM_GLOBAL=g\n\
        FROM guest AS one\n\
        ARG FROM_GLOBAL\n\
        ARG WHO=world\n\
        WORKDIR /work\n\
        COPY a.txt sub ./\n\
        RUN [\"guest\", \"write:/work/made=made\", \"variable:WHO\"]\n\
        FROM guest\n\
        COPY --from=one /work /out/\n\
        COPY <<name.txt /out/\n\
        inline\n\
        name.txt\n\
        ENV A=1 B=\"two words\"\n\
        LABEL x=y\n\
        USER 7:8\n";
    let files = [("Dockerfile", dockerfile), ("a.txt", "aaa"), ("sub/b.txt", "bbb"), ("other", "x")];
    // `./` takes a folder's content and a file.
    let (id, said) = build(&host, &files).ok();
    assert!(said.contains("Step 1/12 : FROM guest"), "{said}");
    assert!(said.contains("world"), "{said}");
    assert!(
        said.ends_with(&format!("Successfully built {}\nSuccessfully tagged built:1\n", id.short())),
        "{said}"
    );
    for (path, content) in
        [("/out/a.txt", "aaa"), ("/out/b.txt", "bbb"), ("/out/made", "made"), ("/out/name.txt", "inline\n")]
    {
        assert_eq!(read(&host, path), content, "{path}");
    }
    let image = host.on(async |engine| engine.images().by_id(&id).await.unwrap());
    let config = &image.config.config;
    assert!(config.env.ends_with(&["A=1".to_owned(), "B=two words".to_owned()]), "{:?}", config.env);
    assert_eq!((config.user.as_str(), config.labels["x"].as_str()), ("7:8", "y"));
    assert_eq!(config.working_dir, "", "the last stage is the image");
    nothing_is_left(&host);
}

/// Waits until nothing of a build is left but what the next can use.
#[track_caller]
fn nothing_is_left(host: &Host) {
    let all = engine::ListOptions { all: true, ..engine::ListOptions::default() };
    let steps = |list: Vec<std::sync::Arc<engine::Container>>| {
        list.iter().filter(|c| c.config.host.build.is_some()).count()
    };
    becomes(&0, || steps(host.on(async |engine| engine.list(all.clone()).await.unwrap())));
    becomes(&0, || fs::read_dir(host.path("data/build/tmp")).map_or(0, Iterator::count));
}

#[test]
fn an_unchanged_build_runs_nothing_and_gives_the_same_image() {
    let host = Host::new();
    let dockerfile = "FROM guest\nARG V=1\nCOPY a /a\nRUN [\"guest\", \"write:/made=x\"]\nLABEL v=$V\n";
    let files = [("Dockerfile", dockerfile), ("a", "1")];
    let (first, said) = build(&host, &files).ok();
    assert_eq!(said.matches("Running in").count(), 1);
    let (again, said) = build(&host, &files).ok();
    assert_eq!(first, again);
    assert_eq!((said.matches("Using cache").count(), said.matches("Running in").count()), (4, 0), "{said}");
    // A label costs no command.
    let labelled = dockerfile.replace("v=$V", "v=2");
    let (other, said) = build(&host, &[("Dockerfile", &labelled), ("a", "1")]).ok();
    assert_ne!(first, other);
    assert_eq!(said.matches("Using cache").count(), 3, "{said}");
    // A changed file costs all that comes after it, a changed argument what sees it.
    let (_, said) = build(&host, &[("Dockerfile", dockerfile), ("a", "2")]).ok();
    assert_eq!(said.matches("Using cache").count(), 1, "{said}");
    let args = BTreeMap::from([("V".to_owned(), "9".to_owned())]);
    let (_, said) = build_with(&host, &files, BuildOptions { args, ..BuildOptions::default() }).ok();
    assert_eq!((said.matches("Using cache").count(), said.matches("Running in").count()), (2, 1), "{said}");
    let fresh = BuildOptions { no_cache: true, ..BuildOptions::default() };
    let (_, said) = build_with(&host, &files, fresh).ok();
    assert_eq!(said.matches("Using cache").count(), 0, "{said}");
}

#[test]
fn results_survive_the_daemon_and_go_when_they_are_pruned() {
    let mut host = Host::new();
    let files = [("Dockerfile", "FROM guest\nRUN [\"guest\", \"write:/made=x\"]\n")];
    let (first, _) = build(&host, &files).ok();
    host.kill_daemon();
    host.start_daemon();
    let (again, said) = build(&host, &files).ok();
    assert_eq!(first, again, "{said}");
    let shown = host.on(async |engine| engine.images().list().await);
    let (between, named): (Vec<_>, Vec<_>) = shown.into_iter().partition(|image| image.intermediate);
    assert_eq!((between.len(), named.len()), (1, 2));
    let pruned = host.on(async |engine| engine.images().prune(false, |_| true).await.unwrap());
    assert_eq!(pruned.0, [], "what the cache holds is no rubbish");
    let kept = host.on(async |engine| engine.build_cache());
    assert!(kept.len() == 1 && kept[0].size_bytes > 0, "{kept:?}");
    let (gone, _) = host.on(async |engine| engine.prune_builds(&Filters::default(), 0).await.unwrap());
    assert_eq!(gone.len(), 2);
    assert!(host.on(async |engine| engine.images().by_id(&between[0].id).await).is_none());
    assert_eq!(read(&host, "/made"), "x");
}

#[test]
fn what_clients_send_although_it_is_ignored_is_hidden_from_the_build() {
    let host = Host::new();
    let dockerfile = "FROM guest\nCOPY . /all/\nRUN [\"guest\", \"list:/all\"]\n";
    let sent = |ignored: &str| {
        let ignore = [(".dockerignore", ignored), ("Dockerfile", dockerfile), ("kept", "k")];
        build(&host, &ignore).ok().1
    };
    let said = sent(".dockerignore\nDockerfile\n");
    assert!(said.contains("kept") && !said.contains("Dockerfile kept"), "{said}");
    assert!(!said.contains(".dockerignore"), "{said}");
    let said = sent("*.md\n");
    assert!(said.contains(".dockerignore") && said.contains("kept"), "what is not ignored stays: {said}");
    no_container_is_left(&host);
}

/// Waits for the containers of steps, which go behind the back of a build.
fn no_container_is_left(host: &Host) {
    let all = || ListOptions { all: true, ..ListOptions::default() };
    eventually("the containers of steps go", || {
        host.on(async |engine| engine.list(all()).await.unwrap().is_empty())
    });
}

#[test]
fn every_step_that_was_there_is_said_to_be_and_complaints_are_red() {
    let host = Host::new();
    let dockerfile = "FROM guest\nENV A=1\nRUN [\"guest\", \"cry:oh\"]\nLABEL b=c\n";
    let (_, first) = build(&host, &[("Dockerfile", dockerfile)]).ok();
    assert_eq!(first.matches("Using cache").count(), 0, "{first}");
    // The end of the line may come by itself.
    assert!(first.contains("\u{1b}[91moh"), "{first:?}");
    let (_, again) = build(&host, &[("Dockerfile", dockerfile)]).ok();
    assert_eq!(again.matches("Using cache").count(), 3, "{again}");
    no_container_is_left(&host);
}

#[test]
fn the_same_input_at_the_same_epoch_is_the_same_image_everywhere() {
    let dockerfile = "FROM scratch\nCOPY a d /x/\nWORKDIR /y\nLABEL a=b\n";
    let files = [("Dockerfile", dockerfile), ("a", "1"), ("d/e", "2")];
    let made = [Host::new(), Host::new()].map(|host| {
        let args = BTreeMap::from([("SOURCE_DATE_EPOCH".to_owned(), "1600000000".to_owned())]);
        build_with(&host, &files, BuildOptions { args, ..BuildOptions::default() }).ok().0
    });
    assert_eq!(made[0], made[1]);
}

#[test]
fn mounts_of_a_command_are_there_and_leave_no_trace() {
    let host = Host::new();
    let dockerfile = "FROM guest AS source\nRUN [\"guest\", \"write:/deep=from-stage\"]\nFROM guest\n\
        RUN --mount=type=secret,id=key,target=/new/secret --mount=type=bind,from=source,target=/s \
        --mount=type=bind,source=ctx,target=/c --mount=type=tmpfs,target=/t --mount=type=cache,target=/cache \
        [\"guest\", \"read:/new/secret\", \"read:/s/deep\", \"read:/c/f\", \"write:/t/x=1\", \"write:/cache/n=kept\"]\n\
        RUN --mount=type=cache,target=/cache [\"guest\", \"read:/cache/n\"]\n\
        RUN --mount=type=bind,from=source,target=/s,rw [\"guest\", \"write:/s/deep=mine\"]\n";
    let files = [("Dockerfile", dockerfile), ("ctx/f", "from-context")];
    let key = SecretBytes(b"hunter2".as_slice().into());
    let options = BuildOptions {
        secrets: BTreeMap::from([("key".to_owned(), key)]),
        tags: vec!["built:1".parse().unwrap()],
        ..BuildOptions::default()
    };
    let (id, said) = build_with(&host, &files, options).ok();
    assert!(
        said.contains("hunter2") && said.contains("from-stage") && said.contains("from-context"),
        "{said}"
    );
    assert!(said.contains("kept"), "{said}");
    let layers = host.on(async |engine| engine.images().rootfs(&id).await.unwrap());
    for folder in &layers.dirs[..layers.dirs.len() - 1] {
        let names: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(names.is_empty(), "{names:?} of {}", folder.display());
    }
}

#[test]
fn a_cache_begins_with_what_its_mount_takes_from_a_stage() {
    let host = Host::new();
    let dockerfile = "FROM guest AS source\nCOPY a /deep/\nFROM guest\n\
        RUN --mount=type=cache,from=source,source=/deep,target=/c [\"guest\", \"read:/c/a\", \"write:/c/a=changed\"]\n\
        RUN --mount=type=cache,from=source,source=/deep,target=/c [\"guest\", \"read:/c/a\", \"write:/again=1\"]\n\
        RUN --mount=type=cache,target=/c [\"guest\", \"write:/c/own=1\"]\n";
    let said = |a: &str| build(&host, &[("Dockerfile", dockerfile), ("a", a)]).ok().1;
    let first = said("first");
    assert!(first.contains("first") && first.contains("changed"), "{first}");
    // Another beginning is another cache.
    assert!(said("second").contains("second"));
    nothing_is_left(&host);
}

#[test]
fn stages_that_wait_for_one_another_do_not_keep_it_from_running() {
    let host = Host::new();
    let mut dockerfile = "FROM guest AS first\nRUN [\"guest\", \"write:/made=1\"]\n".to_owned();
    let mut last = "FROM guest\n".to_owned();
    // More than any machine of tests has cores.
    for n in 0..40 {
        dockerfile += &format!(
            "FROM guest AS s{n}\nRUN --mount=type=bind,from=first,target=/m \
             --mount=type=cache,target=/{},sharing=locked --mount=type=cache,target=/{},sharing=locked \
             [\"guest\", \"read:/m/made\", \"write:/own{n}={n}\"]\n",
            ["a", "b"][n % 2],
            ["b", "a"][n % 2],
        );
        last += &format!("COPY --from=s{n} /own{n} /all/\n");
    }
    build(&host, &[("Dockerfile", &(dockerfile + &last))]).ok();
    assert_eq!(read(&host, "/all/own39"), "39");
}

#[test]
fn a_command_runs_again_when_what_is_mounted_into_it_has_changed() {
    let host = Host::new();
    let dockerfile = "FROM guest\nRUN --mount=type=bind,source=in,target=/in [\"guest\", \"read:/in/a\"]\n";
    let said = |content: &str| build(&host, &[("Dockerfile", dockerfile), ("in/a", content)]).ok().1;
    assert!(said("one").contains("one"));
    assert!(said("one").contains("Using cache"));
    assert!(said("two").contains("two"));
    let missing = build(&host, &[("Dockerfile", dockerfile)]).id.unwrap_err();
    assert!(missing.contains("RUN failed") && missing.contains("(Dockerfile line 2)"), "{missing}");
}

#[test]
fn a_step_that_fails_says_which_and_leaves_what_worked() {
    let host = Host::new();
    let files =
        [("Dockerfile", "FROM guest\nRUN [\"guest\", \"write:/a=1\"]\nRUN [\"guest\", \"exit:7\"]\n")];
    let failed = build(&host, &files);
    assert_eq!(failed.id.unwrap_err(), "The command 'guest exit:7' returned a non-zero code: 7");
    let failed = build(&host, &files);
    assert!(failed.said.contains("Using cache"), "{}", failed.said);
    let error = |text: &str| build(&host, &[("Dockerfile", text)]).id.unwrap_err();
    assert_eq!(
        error("FROM guest\nCOPY none /"),
        "COPY failed: file not found in build context or excluded by .dockerignore: stat none: file does not exist (Dockerfile line 2)"
    );
    assert!(error("FROM guest\nRUN [\"nothing\"]").contains("(Dockerfile line 2)"));
    assert!(
        error("FROM guest\nRUN --mount=type=secret,id=s,required [\"guest\"]")
            .contains("secret s: not found")
    );
    assert!(error("FROM scratch\nRUN [\"x\"]").contains("there is no program to run"));
    assert!(error("FROM guest\nCOPY --chown=nobody-knows /etc /x").contains("nobody-knows"));
    assert!(error("FROM guest\nADD --checksum=sha256:00 http://127.0.0.1:1/x /").contains("127.0.0.1:1"));
    assert!(
        build(&host, &[("other", "")])
            .id
            .unwrap_err()
            .contains("Cannot locate specified Dockerfile: Dockerfile")
    );
    let no_tar = host.on(async |engine| {
        let (lines, _said) = mpsc::channel(16);
        engine
            .build(BuildOptions::default(), BuildContext::tar(Cursor::new(b"no tar".to_vec())), lines)
            .await
            .unwrap_err()
            .to_string()
    });
    assert!(no_tar.contains("not a tar archive"), "{no_tar}");
    nothing_is_left(&host);
}

#[test]
fn triggers_of_the_base_run_in_images_built_on_it() {
    let host = Host::new();
    let base = [("Dockerfile", "FROM guest\nONBUILD COPY a /seen\nONBUILD ENV T=1\n")];
    build(&host, &base).ok();
    let (_, said) = build(&host, &[("Dockerfile", "FROM built:1\n"), ("a", "trigger")]).ok();
    assert!(said.contains("# Executing 2 build triggers"), "{said}");
    assert_eq!(read(&host, "/seen"), "trigger");
    let image = host.on(async |engine| engine.images().get("built:1").await.unwrap());
    assert_eq!(image.config.config.on_build, [""; 0]);
    assert!(image.config.config.env.contains(&"T=1".to_owned()));
}

#[test]
fn a_build_that_nobody_waits_for_any_more_ends_and_leaves_nothing() {
    let mut host = Host::new();
    let files = [("Dockerfile", format!("FROM {IMAGE}\nRUN [\"guest\", \"park\"]\n"))];
    let files: Vec<(&str, &str)> = files.iter().map(|(p, t)| (*p, t.as_str())).collect();
    let context = context(&files);
    let begin = |host: &Host| {
        let context = Cursor::new(context.clone());
        host.on(async |engine| {
            let (lines, mut said) = mpsc::channel::<BuildLine>(16);
            let building = engine.build(BuildOptions::default(), BuildContext::tar(context), lines);
            let started = async {
                while let Some(line) = said.recv().await {
                    if matches!(&line, BuildLine::Note(text) if text.contains("Running in")) {
                        break;
                    }
                }
                while engine.list(engine::ListOptions::default()).await.unwrap().is_empty() {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                built = building => panic!("{built:?}"),
                () = started => {}
            }
        });
    };
    begin(&host);
    nothing_is_left(&host);
    // The same with a daemon that dies in the middle of it.
    begin(&host);
    host.kill_daemon();
    host.start_daemon();
    nothing_is_left(&host);
    becomes(&vec![], || host.processes());
}

#[test]
fn archives_are_unpacked_by_add_and_copied_by_copy() {
    let host = Host::new();
    let inner = context(&[("deep/file", "inside")]);
    let inner = String::from_utf8(inner).unwrap();
    let files = [("Dockerfile", "FROM guest\nADD a.tar /x\nCOPY a.tar /y/\n"), ("a.tar", &inner)];
    build(&host, &files).ok();
    assert_eq!(read(&host, "/x/deep/file"), "inside");
    assert_eq!(read(&host, "/y/a.tar"), inner);
}

/// What serves while a test runs.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn git(folder: &Path, words: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=n", "-c", "user.email=e@example.com"]).args(words).current_dir(folder);
    let ended = command.output().unwrap();
    assert!(ended.status.success(), "{words:?}: {ended:?}");
    String::from_utf8(ended.stdout).unwrap().trim().to_owned()
}

fn build_remote(host: &Host, url: &str) -> Built {
    let options = BuildOptions { tags: vec!["built:1".parse().unwrap()], ..BuildOptions::default() };
    build_from(host, BuildContext::Remote(url.to_owned()), options)
}

#[test]
#[ignore = "oracle: git"]
fn a_git_repository_is_a_context() {
    let host = Host::new();
    let served = tempfile::tempdir().unwrap();
    let repository = served.path().join("app");
    fs::create_dir_all(repository.join("sub")).unwrap();
    let write = |path: &str, text: &str| fs::write(repository.join(path), text).unwrap();
    let dockerfile = format!("FROM {IMAGE}\nCOPY . /got\n");
    write("Dockerfile", &dockerfile);
    write("sub/Dockerfile", &dockerfile);
    write("v", "one");
    write("sub/v", "below");
    std::os::unix::fs::symlink("/etc", repository.join("out")).unwrap();
    git(&repository, &["init", "--quiet", "--initial-branch=main"]);
    git(&repository, &["add", "--all"]);
    git(&repository, &["commit", "--quiet", "--message=one"]);
    git(&repository, &["tag", "v1"]);
    let first = git(&repository, &["rev-parse", "HEAD"]);
    write("v", "two");
    git(&repository, &["commit", "--quiet", "--all", "--message=two"]);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let words = ["--reuseaddr", "--export-all", "--listen=127.0.0.1"];
    // `git daemon` would be a child of the one that we end.
    let mut server = Command::new(Path::new(&git(served.path(), &["--exec-path"])).join("git-daemon"));
    server.args(words).arg(format!("--port={port}")).arg(format!("--base-path={}", served.path().display()));
    let server = Server(server.spawn().unwrap());
    eventually("the git server answers", || TcpStream::connect(("127.0.0.1", port)).is_ok());

    let url = |fragment: &str| format!("git://127.0.0.1:{port}/app{fragment}");
    for (fragment, v) in
        [("", "two"), ("#main", "two"), ("#v1", "one"), (&format!("#{first}"), "one"), ("#main:sub", "below")]
    {
        build_remote(&host, &url(fragment)).ok();
        assert_eq!(read(&host, "/got/v"), v, "{fragment}");
    }
    let add = format!("FROM guest\nADD {} /added/\n", url("#v1"));
    build(&host, &[("Dockerfile", &add)]).ok();
    assert_eq!(read(&host, "/added/v"), "one");
    assert_eq!(read(&host, "/added/sub/v"), "below");
    for (fragment, reason) in [
        ("#nope", "there is no branch, tag or commit \"nope\" in it"),
        ("#main:nope", "there is no folder \"nope\" in it"),
        ("#main:out", "there is no folder \"out\" in it"),
        ("#main:../..", "there is no folder \"../..\" in it"),
        ("#-x", "a branch does not begin with a dash"),
    ] {
        let error = build_remote(&host, &url(fragment)).id.unwrap_err();
        assert!(error.contains(reason), "{fragment}: {error}");
    }
    drop(server);
    let error = build_remote(&host, &url("")).id.unwrap_err();
    assert!(error.contains("unable to prepare context: git://127.0.0.1:"), "{error}");
    nothing_is_left(&host);
}

#[test]
fn an_archive_or_a_dockerfile_behind_a_url_is_a_context() {
    let host = Host::new();
    let dockerfile = format!("FROM {IMAGE}\nRUN [\"guest\", \"write:/own=1\"]\n");
    let tar = context(&[("Dockerfile", &format!("FROM {IMAGE}\nCOPY a /own\n")), ("a", "packed")]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        for body in [tar.as_slice(), dockerfile.as_bytes(), b"not a Dockerfile"] {
            let (mut client, _) = listener.accept().unwrap();
            let mut head = BufReader::new(client.try_clone().unwrap()).lines();
            while head.next().unwrap().unwrap() != "" {}
            let length = body.len();
            write!(client, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")
                .unwrap();
            client.write_all(body).unwrap();
        }
    });
    let url = format!("http://127.0.0.1:{port}/x");
    for own in ["packed", "1"] {
        build_remote(&host, &url).ok();
        assert_eq!(read(&host, "/own"), own);
    }
    let error = build_remote(&host, &url).id.unwrap_err();
    assert!(error.contains("unknown instruction"), "{error}");
    server.join().unwrap();
    let error = build_remote(&host, &url).id.unwrap_err();
    assert!(error.contains(&format!("cannot download {url}")), "{error}");
    nothing_is_left(&host);
}
