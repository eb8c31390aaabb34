//! Flags and variables of Docker Compose that are about how its commands do what they do.

use crate::{
    SOON,
    compose::{compose, containers, project},
    lab, load_hello,
    reasons::Running,
};
use std::fs;
use testkit::wait_for;

#[test]
fn flags_and_variables_of_commands_do_what_they_say() {
    let lab = lab(1);
    load_hello(&lab, 1);
    let check = "healthcheck: {test: [CMD, /hello, check, '127.0.0.1:80'], interval: 200ms}";
    let built = "built: {build: {context: ., dockerfile_inline: \"FROM rswarm/hello\"}, profiles: [more]}";
    let web = format!("web: {{image: 'rswarm/hello', command: [web], {check}}}");
    let folder = project(&lab, "words", &format!("services:\n  {web}\n  {built}\n"));
    let older =
        project(&lab, "older", "name: words\nservices: {old: {image: rswarm/hello, command: [web]}}\n");
    let ok = |args: &[&str]| compose(&lab, &folder, args).ok();
    let file = folder.join("compose.yaml").display().to_string();
    let with = |variable: (&str, &str), args: &[&str]| {
        lab.rswarm_with(1, &[variable], &[&["compose", "-f", &file], args].concat())
    };

    ok(&["create"]);
    ok(&["start", "--wait", "--wait-timeout", "60"]);
    assert_eq!(ok(&["ps", "--format", "{{.Name}} {{.Health}}"]), "words-web-1 healthy\n");
    assert_eq!(ok(&["stats", "--no-stream", "--no-trunc", "--format", "{{.ID}}"]).trim().len(), 64);
    assert_eq!(ok(&["ls", "-q", "--filter", "name=^wor"]), "words\n");
    assert_eq!(ok(&["ls", "-q", "--filter", "name=^or"]), "");
    assert!(compose(&lab, &folder, &["ls", "--filter", "status=up"]).fails().contains("unknown filter"));

    // What the file does not name is killed if that is said.
    compose(&lab, &older, &["up", "-d"]).ok();
    let killed = |wanted: &str| {
        wait_for("their end", SOON, || {
            match ok(&["ps", "-a", "--status", "exited", "--format", "{{.Service}}"]) {
                ended if ended == wanted => Ok(()),
                ended => Err(ended),
            }
        });
    };
    ok(&["kill"]);
    killed("web\n");
    assert_eq!(ok(&["ps", "--format", "{{.Service}}"]), "old\n");
    ok(&["kill", "--remove-orphans"]);
    killed("old\nweb\n");

    let told = with(("COMPOSE_STATUS_STDOUT", "1"), &["start"]);
    assert!(told.ok().contains("Container words-web-1  Started"));
    fs::write(folder.join(".env"), "GIVEN=1\n").expect("a file");
    assert!(ok(&["config", "--environment"]).lines().any(|line| line == "GIVEN=1"));
    let without = with(("COMPOSE_DISABLE_ENV_FILE", "true"), &["config", "--environment"]).ok();
    assert!(!without.contains("GIVEN"), "{without}");
    let others = project(
        &lab,
        "others",
        "services: {web: {image: rswarm/hello}, job: {image: rswarm/hello, env_file: [nowhere.env]}}\n",
    );
    // Where `job` is not meant its file of variables may be missing.
    let of_others = |args: &[&str]| compose(&lab, &others, args);
    assert!(of_others(&["config", "--hash", "web"]).ok().starts_with("web "));
    of_others(&["ps"]).ok();
    of_others(&["config", "--no-env-resolution", "--hash", "job"]).ok();
    let kept = of_others(&["config", "--no-env-resolution"]).ok();
    assert!(kept.contains("nowhere.env\n        required: true\n"), "{kept}");
    for args in [&["config", "--hash", "*"][..], &["config", "-q"], &["create", "job"]] {
        assert!(of_others(args).fails().contains("nowhere.env not found"), "{args:?}");
    }
    let menu = with(("COMPOSE_MENU", "1"), &["up", "-d"]);
    assert!(menu.code == 0 && menu.stderr.contains("COMPOSE_MENU: there is no menu"), "{menu:?}");

    let bake = with(("DOCKER_DEFAULT_PLATFORM", "linux/amd64"), &["build", "--print", "built"]).ok();
    assert!(bake.contains("\"linux/amd64\""), "{bake}");
    ok(&["build", "--check", "built"]);
    let refused = |args: &[&str]| compose(&lab, &folder, args).fails();
    assert!(refused(&["build", "--ssh", "default", "built"]).contains("docker build --ssh"));
    assert!(refused(&["build", "--builder", "other", "built"]).contains("this daemon builds"));
    ok(&["build", "--builder", "default", "-m", "256m", "built"]);

    let open = |flag: &str, name: &str| {
        ok(&["run", "-d", flag, "--name", name, "web", "deaf"]);
        lab.rswarm(1, &["inspect", "--format", "{{.Config.OpenStdin}}", name]).ok()
    };
    assert_eq!((open("-i=false", "closed"), open("-i", "open")), ("false\n".into(), "true\n".into()));
    let mut run =
        Running::start(&lab, &["compose", "-f", &file, "run", "-T", "--name", "once", "web", "web"]);
    run.until("listening on port 80", SOON);
    run.interrupt();
    let (code, said) = run.end(SOON);
    assert_eq!(code, 0, "the signal is the container's: {said:?}");
    assert_eq!(lab.rswarm(1, &["inspect", "--format", "{{.State.Running}}", "once"]).ok(), "false\n");
    assert!(containers(&lab, &folder).contains_key("words-web-1"));
    compose(&lab, &folder, &["down", "--remove-orphans", "-t", "0"]).ok();
}

#[test]
fn a_rebuild_that_is_watched_leaves_no_image_without_a_name_unless_asked() {
    let lab = lab(1);
    load_hello(&lab, 1);
    let rule = "develop: {watch: [{path: ./site, action: rebuild}]}";
    let folder = project(&lab, "seen", &format!("services:\n  web: {{build: ., command: [web], {rule}}}\n"));
    fs::write(folder.join("Dockerfile"), "FROM rswarm/hello\nCOPY site /site\n").expect("a file");
    fs::create_dir(folder.join("site")).expect("a folder");
    let page = folder.join("site/page");
    fs::write(&page, "first").expect("a file");
    let file = folder.join("compose.yaml").display().to_string();
    let nameless = || {
        let filter = ["-f", "dangling=true", "-f", "label=com.docker.compose.project=seen"];
        lab.rswarm(1, &[&["images", "-q"], &filter[..]].concat()).ok().lines().count()
    };
    for (flag, text, left) in [("--prune=false", "second", 1), ("--quiet", "third", 0)] {
        let mut watch = Running::start(&lab, &["compose", "-f", &file, "watch", flag]);
        watch.until("Watch enabled", SOON);
        fs::write(&page, text).expect("a file");
        watch.until("successfully built", SOON);
        wait_for("the images of before", SOON, || match nameless() {
            found if found == left => Ok(()),
            found => Err(format!("{found}, not {left}")),
        });
        watch.interrupt();
        watch.end(SOON);
    }
    compose(&lab, &folder, &["down", "-t", "0"]).ok();
}
