//! Every example deploys and answers: one that does not run teaches nothing.

use crate::{SOON, lab, load_hello, swarm};
use std::path::Path;
use testkit::wait_for;

#[test]
fn every_lesson_deploys_and_goes_away_again() {
    let lab = swarm(2, 1);
    load_hello(&lab, 1);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut lessons: Vec<_> = std::fs::read_dir(folder)
        .expect("the examples")
        .map(|entry| entry.expect("a readable entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    lessons.sort();
    assert_eq!(lessons.len(), 8, "{lessons:?}");
    for lesson in lessons {
        let name = lesson.file_name().and_then(|n| n.to_str()).expect("a readable name").to_owned();
        // Lesson 4 takes its secret from the environment.
        let env_file = lesson.with_file_name(".env");
        assert!(!env_file.exists(), "examples need no .env");
        let deployed = lab.rswarm_with(
            1,
            &[("LESSON4_PASSWORD", "hunter2")],
            &["deploy", lesson.to_str().expect("a path")],
        );
        assert_eq!(deployed.code, 0, "{name}: {deployed:?}{}", lab.daemon_logs());
        let stack = format!("lesson{}", name[1..2].parse::<u8>().expect("a numbered lesson"));
        lab.rswarm(1, &["stack", "rm", &stack]).ok();
    }
}

#[test]
fn the_laptops_project_does_what_its_header_says() {
    let lab = lab(1);
    load_hello(&lab, 1);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/laptop/compose.yaml");
    let file = folder.to_str().expect("a path");
    let compose = |args: &[&str]| lab.rswarm(1, &[&["compose", "-f", file], args].concat()).ok();
    compose(&["up", "-d", "--wait"]);
    assert_eq!(compose(&["ps", "--services"]), "beside\ncounter\nweb\n");
    compose(&["run", "--rm", "-T", "test"]);
    assert_eq!(compose(&["port", "web", "80"]), "127.0.0.1:8099\n");
    compose(&["down", "-v"]);
    assert_eq!(lab.rswarm(1, &["ps", "-aq"]).ok(), "");
}

#[test]
fn every_application_answers_on_three_hosts() {
    let mut lab = swarm(3, 3);
    load_hello(&lab, 1);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/apps");
    let mut apps: Vec<_> =
        std::fs::read_dir(folder).expect("the applications").map(|e| e.expect("an entry").path()).collect();
    apps.sort();
    assert_eq!(apps.len(), 10, "{apps:?}");
    for (number, app) in (1..).zip(apps) {
        let file = app.join("compose.yaml");
        let text = std::fs::read_to_string(&file).expect("a compose file");
        let head: Vec<&str> = text.lines().take_while(|line| line.starts_with('#')).collect();
        assert!(head.len() >= 3, "{}: a header says what it teaches, what to try and to see", file.display());
        let name = text.lines().find_map(|line| line.strip_prefix("name: ")).expect("a name");
        let mut command = vec!["deploy", "--timeout", "60s", file.to_str().expect("a path")];
        let over = app.join("prod.yaml");
        if over.exists() {
            command.push(over.to_str().expect("a path"));
        }
        let env = [("APP_TOKEN", "s3cret")];
        let deployed = lab.rswarm_with(1, &env, &command);
        assert_eq!(deployed.code, 0, "{name}: {deployed:?}{}", lab.daemon_logs());
        for host in 1..=3 {
            let answer = wait_for("an answer", SOON, || lab.http(host, 8100 + number));
            assert!(
                answer.contains(&format!("Hello {name}!")) || answer.contains("Hello edge!"),
                "{name}: {answer}"
            );
        }
        command.insert(1, "--plan");
        let again = lab.rswarm_with(1, &env, &command);
        assert_eq!((again.code, again.stdout.trim()), (0, "No changes."), "{name}");
        lab.rswarm(1, &["stack", "rm", name]).ok();
    }
}
