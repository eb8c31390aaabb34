//! What a new key costs: the rooms' page says which files name one, and these tests that no others do.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// *Limit* of files that a key of a service costs, and of those that one of the engine's costs.
const FILES_MAX: usize = 6;

/// Keys that are what they are for the whole way, under the names that they have in one room or another.
const KEYS: [&[&str]; 4] =
    [&["device_cgroup_rules"], &["oom_score_adj"], &["cap_drop", "capability_drop"], &["blkio_weight"]];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Returns the trail's lists: of each step, the files of which a key is in one.
fn trail() -> Vec<Vec<Vec<String>>> {
    let page = fs::read_to_string(root().join("crates/README.md")).expect("the rooms' page");
    let (_, section) = page.split_once("## A compose key, end to end").expect("the trail");
    let mut lists: Vec<Vec<Vec<String>>> = Vec::new();
    for line in section.lines() {
        let Some((number, step)) = line.split_once(". `") else { continue };
        let Ok(number) = number.parse::<usize>() else { continue };
        if number == 1 {
            lists.push(Vec::new());
        }
        let list = lists.last_mut().expect("a list begins with 1");
        assert_eq!(list.len() + 1, number, "{line}");
        let words = step.split('`').step_by(2).filter(|word| word.contains(".rs") || word.contains(".proto"));
        list.push(words.map(str::to_owned).collect());
    }
    lists
}

/// Returns the sources of the rooms that a key goes through, by their paths in `crates`: without tests, without what is
/// generated, and without the words of Docker's own `stack config`.
fn sources() -> Vec<(String, String)> {
    let crates = root().join("crates");
    let mut waiting: Vec<PathBuf> = ["compose", "model", "docker-api", "node", "engine", "proto", "manager"]
        .iter()
        .map(|room| crates.join(room).join("src"))
        .collect();
    let mut found = Vec::new();
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(&crates).expect("below it").display().to_string();
            if path.is_dir() {
                if !name.ends_with("/tests") && name != "compose/src/docker" {
                    waiting.push(path);
                }
            } else if name.ends_with(".rs")
                && !name.ends_with("/tests.rs")
                && name != "proto/src/generated.rs"
            {
                found.push((name, code_of(&fs::read_to_string(&path).expect("a source"))));
            }
        }
    }
    let proto = fs::read_to_string(root().join("proto/types.proto")).expect("a source");
    found.push(("proto/types.proto".to_owned(), code_of(&proto)));
    found
}

/// Returns a source without its comments and its tests.
fn code_of(text: &str) -> String {
    let text = text.split("\n#[cfg(test)]\n").next().unwrap_or_default();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

fn names(code: &str, key: &[&str]) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    code.split(|c| !is_word(c)).any(|word| key.contains(&word))
}

#[test]
fn a_key_costs_no_more_files_than_the_trail_has_steps() {
    let lists = trail();
    assert_eq!(lists.len(), 2, "{lists:?}");
    for list in &lists {
        assert!(!list.is_empty() && list.len() <= FILES_MAX, "{list:?}");
    }
}

/// A step may say "or the file beside it that its kind has".
fn is_on_the_step(file: &str, step: &[String]) -> bool {
    let first = Path::new(&step[0]);
    let beside = first.ends_with("spec/oci.rs") && Path::new(file).parent() == first.parent();
    beside
        || step.iter().any(|named| match named.contains('/') {
            true => named == file,
            false => first.with_file_name(named) == Path::new(file),
        })
}

#[test]
fn keys_are_in_the_files_that_the_trail_names_and_in_no_others() {
    let (lists, sources) = (trail(), sources());
    for key in KEYS {
        let files: BTreeSet<&str> =
            sources.iter().filter(|(_, code)| names(code, key)).map(|(file, _)| file.as_str()).collect();
        let steps: Vec<&Vec<String>> = lists.iter().flatten().collect();
        for step in &steps {
            let on_it = files.iter().filter(|file| is_on_the_step(file, step)).count();
            assert_eq!(on_it, 1, "{key:?} is not in one file of {step:?}: {files:?}");
        }
        // What values of a kind are right, whoever asks, is one function.
        let others: Vec<&&str> = files
            .iter()
            .filter(|file| **file != "model/src/confine.rs")
            .filter(|file| !steps.iter().any(|step| is_on_the_step(file, step)))
            .collect();
        assert!(others.is_empty(), "{key:?} is in files that the trail does not name: {others:?}");
    }
}
