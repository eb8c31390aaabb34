//! Every example deploys: a lesson that does not run teaches nothing.

use crate::{load_hello, swarm};
use std::path::Path;

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
