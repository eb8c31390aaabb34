//! The house's rules that a machine can hold: who may depend on whom, and what no file may contain.

use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

/// Every arrow between our crates. A new one needs a line here and a reason in `crates/README.md`.
const ARROWS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("sys", &[]),
    ("proto", &["model"]),
    ("protogen", &[]),
    ("compose", &["model"]),
    ("template", &["model"]),
    ("plan", &["model"]),
    ("pki", &["model", "sys"]),
    ("image", &["sys"]),
    ("shim", &["sys"]),
    ("runtime", &["sys", "shim", "model"]), // model: which namespace holds a kernel parameter
    ("network", &["sys", "model"]),
    ("store", &["model", "proto", "pki", "sys"]),
    ("engine", &["model", "image", "runtime", "network", "sys", "template"]),
    ("agent", &["model", "proto", "pki", "sys"]),
    ("manager", &["model", "proto", "pki", "plan", "store", "template"]),
    ("docker-api", &["model", "proto", "pki", "engine", "image", "sys"]),
    (
        "node",
        &[
            "model",
            "proto",
            "pki",
            "manager",
            "agent",
            "engine",
            "docker-api",
            "image",
            "runtime",
            "network",
            "store",
            "sys",
            "template",
        ],
    ),
    ("rswarm", &["model", "compose", "docker-api", "image", "runtime", "node", "pki", "template"]),
    ("testkit", &["sys"]), // what a disk is that forgets
    ("xtask", &["testkit", "manager", "model", "pki", "runtime", "store"]), // a tool of ours, not part of the product
];

/// What a crate must not see of the outside, so that it can be tested by text alone or forked safely.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("model", &["serde", "tokio"]),
    ("plan", &["tokio", "serde"]),
    ("runtime", &["tokio"]),
    // Parsers of the spec, and what generates code: a release build compiles the shim and what it uses twice.
    ("shim", &["tokio", "serde", "thiserror"]),
    ("sys", &["tokio", "thiserror"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace root")
}

#[test]
fn arrows_between_crates_are_the_ones_we_agreed_on() {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: Value = serde_json::from_slice(&metadata.stdout).expect("cargo writes JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let name = |of: &Value| of["name"].as_str().expect("a name").to_owned();
    let ours: BTreeSet<String> = packages.iter().map(name).collect();
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut faults = Vec::new();
    for package in packages {
        let from = name(package);
        let Some(allowed) = allowed.get(from.as_str()) else {
            faults.push(format!("{from} is not in the list of crates"));
            continue;
        };
        let forbidden = FORBIDDEN.iter().find(|(n, _)| *n == from).map_or(&[][..], |(_, f)| f);
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            if dependency["kind"] == "dev" {
                continue; // tests may use any room
            }
            let to = name(dependency);
            if ours.contains(&to) && !allowed.contains(&to.as_str()) {
                faults.push(format!("{from} -> {to} is not an agreed arrow"));
            }
            if forbidden.contains(&to.as_str()) {
                faults.push(format!("{from} must not see {to}"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_source_file_tells_its_story_and_hides_nothing() {
    let root = root();
    let mut files = Vec::new();
    sources(&root.join("crates"), &mut files);
    sources(&root.join("tests"), &mut files);
    assert!(files.len() > 50, "only {} sources found under {}", files.len(), root.display());
    let (todo, dbg, ignore) = (["todo", "!("].concat(), ["dbg", "!("].concat(), ["#[ig", "nore"].concat());
    let mut faults = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a readable source");
        let name = file.strip_prefix(&root).unwrap_or(&file).display().to_string();
        let first = text.lines().find(|l| !l.trim().is_empty()).unwrap_or_default();
        if !first.starts_with("//!") {
            faults.push(format!("{name} does not open with //!"));
        }
        for word in [&todo, &dbg] {
            if text.contains(word.as_str()) {
                faults.push(format!("{name} contains {word}"));
            }
        }
        // What is left out is run by `cargo xtask oracles`, and says which program it needs.
        let left_out = text.lines().filter(|line| line.trim_start().starts_with(&ignore));
        for line in left_out.filter(|line| !line.contains(" = \"oracle: ")) {
            faults.push(format!("{name} leaves a test out: {line}"));
        }
        let unsafe_code = text.lines().any(|l| {
            let code = l.split("//").next().unwrap_or_default();
            ["{", "fn", "impl"].iter().any(|what| code.contains(&["unsafe ", what].concat()))
        });
        if unsafe_code && !name.starts_with("crates/sys/") {
            faults.push(format!("{name} contains unsafe code"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// What clippy holds for all of us: a crate's own file takes the place of the root's, and repeats it.
#[test]
fn what_clippy_forbids_everywhere_it_forbids_in_crates_that_have_a_list_of_their_own() {
    let read = |file: &Path| std::fs::read_to_string(file).expect("a readable list");
    let all = read(&root().join(".clippy.toml"));
    for forbidden in ["tokio::spawn", "tokio::task::spawn", "tokio::sync::mpsc::unbounded_channel"] {
        assert!(all.contains(&format!("path = \"{forbidden}\"")), "{forbidden} is not forbidden");
    }
    let mut faults = Vec::new();
    for entry in std::fs::read_dir(root().join("crates")).expect("the crates") {
        let file = entry.expect("a readable entry").path().join(".clippy.toml");
        if !file.exists() {
            continue;
        }
        let own = read(&file);
        let missing = all.lines().filter(|line| !own.contains(line));
        faults.extend(missing.map(|line| format!("{} lacks {line}", file.display())));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
