//! Runs `tests/scenarios/*.txt`: commands, each followed by what it shows, indented.
//!
//! `UPDATE_EXPECT=1 cargo test -p plan` writes what was seen into the files.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]

mod world;

use std::{fs, path::PathBuf};
use world::World;

fn scenarios() -> Vec<PathBuf> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios");
    let entries = fs::read_dir(folder).expect("there are scenarios").map(|e| e.unwrap().path());
    let mut files: Vec<_> = entries.filter(|p| p.extension().is_some_and(|e| e == "txt")).collect();
    files.sort();
    files
}

/// Runs the commands of a scenario; returns the file as it should be.
fn play(text: &str) -> String {
    let mut world = World::new();
    let mut out = String::new();
    for line in text.lines().filter(|l| !l.starts_with("  ")) {
        out.push_str(line);
        out.push('\n');
        if !line.starts_with('#') {
            out.push_str(&world.run(line));
        }
    }
    out
}

#[test]
fn scenarios_go_as_written() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let mut wrong = Vec::new();
    let files = scenarios();
    assert!(files.len() >= 20, "scenarios are missing");
    for file in files {
        let expected = fs::read_to_string(&file).unwrap();
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let seen = std::panic::catch_unwind(|| play(&expected))
            .unwrap_or_else(|_| panic!("scenario {name} broke off; the reason is above"));
        if seen != expected {
            if update {
                fs::write(&file, &seen).unwrap();
            } else {
                wrong.push(format!("--- {name}: expected\n{expected}\n+++ seen\n{seen}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
