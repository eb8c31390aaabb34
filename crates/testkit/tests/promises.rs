//! The README's table of what is promised: each gate and each test that it names is there.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace root")
}

/// Every source of ours with its text.
fn sources() -> Vec<(PathBuf, String)> {
    let mut folders = vec![root().join("crates"), root().join("tests")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs")
                && !path.ends_with("testkit/tests/promises.rs")
            {
                let text = fs::read_to_string(&path).expect("a readable source");
                found.push((path, text));
            }
        }
    }
    found
}

/// A row: what is promised, its gates and its tests.
struct Promise {
    text: String,
    gates: Vec<String>,
    tests: Vec<String>,
}

/// Returns what stands between backticks, `a::{b,c}` as `a::b` and `a::c`.
fn quoted(cell: &str) -> Vec<String> {
    let words = cell.split('`').skip(1).step_by(2);
    words
        .flat_map(|word| match word.split_once('{') {
            Some((before, names)) => {
                let names = names.trim_end_matches('}').split(',');
                names.map(|name| format!("{before}{name}")).collect()
            }
            None => vec![word.to_owned()],
        })
        .collect()
}

fn promises() -> Vec<Promise> {
    let readme = fs::read_to_string(root().join("README.md")).expect("the README");
    let table = readme.split("| promise | gate | test |").nth(1).expect("the table of promises");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| match row.trim_matches('|').split(" | ").collect::<Vec<_>>().as_slice() {
        [text, gates, tests] => {
            Promise { text: text.trim().to_owned(), gates: quoted(gates), tests: quoted(tests) }
        }
        _ => panic!("a row has a promise, gates and tests: {row}"),
    })
    .collect()
}

/// True for the source of a module that is called so, by the end of its path.
fn is_module(path: &Path, name: &str) -> bool {
    path.ends_with(format!("{name}.rs")) || path.ends_with(format!("{name}/mod.rs"))
}

/// `a_name…` and `a_name` are tests, `room/tests/file.rs` is a file, `room::tests::name` a module.
fn is_a_test(sources: &[(PathBuf, String)], word: &str) -> bool {
    if word.ends_with(".rs") {
        let has_tests = |text: &str| text.contains("#[test]") || text.contains("#[tokio::test");
        return sources.iter().any(|(path, text)| path.ends_with(word) && has_tests(text));
    }
    if let Some(start) = word.strip_suffix('…') {
        return sources.iter().any(|(_, text)| is_tested(text, &format!("fn {start}")));
    }
    // With and without the name of its crate.
    let ends = [word.replace("::", "/"), word.replacen("::", "/src/", 1).replace("::", "/")];
    sources.iter().any(|(path, text)| {
        let has_tests = text.contains("#[test]") || text.contains("#[tokio::test");
        has_tests
            && ends.iter().any(|end| {
                let inside = end.strip_suffix("/tests").is_some_and(|module| is_module(path, module));
                is_module(path, end) || inside && text.contains("mod tests {")
            })
            || is_tested(text, &format!("fn {word}("))
    })
}

/// True if a function that begins like this is run as a test.
fn is_tested(text: &str, function: &str) -> bool {
    text.match_indices(function).any(|(at, _)| {
        let before = text[..at].trim_end_matches("async ").trim_end();
        let attributes = before.rsplit_once("\n\n").map_or(before, |(_, last)| last);
        attributes.contains("#[test]") || attributes.contains("#[tokio::test")
    })
}

/// A crate, a module, or something that a source declares.
fn is_a_gate(sources: &[(PathBuf, String)], word: &str) -> bool {
    let parts: Vec<&str> = word.split("::").flat_map(|part| part.split('.')).collect();
    parts.iter().enumerate().all(|(at, part)| {
        let is_crate = at == 0 && root().join("crates").join(part.replace('_', "-")).is_dir();
        let declared = ["fn ", "struct ", "enum ", "pub "].map(|kind| format!("{kind}{part}"));
        let is_folder = |path: &Path| path.parent().is_some_and(|folder| folder.ends_with(part));
        is_crate
            || sources.iter().any(|(path, text)| {
                is_module(path, part) || is_folder(path) || declared.iter().any(|d| text.contains(d))
            })
    })
}

#[test]
fn every_gate_and_every_test_that_a_promise_names_is_there() {
    let (sources, promises) = (sources(), promises());
    assert!(promises.len() >= 30, "only {} promises", promises.len());
    let mut faults = Vec::new();
    for Promise { text, gates, tests } in &promises {
        if gates.is_empty() || tests.is_empty() {
            faults.push(format!("{text:?} names no gate or no test"));
        }
        faults.extend(
            gates.iter().filter(|g| !is_a_gate(&sources, g)).map(|g| format!("{text:?}: no gate {g}")),
        );
        faults.extend(
            tests.iter().filter(|t| !is_a_test(&sources, t)).map(|t| format!("{text:?}: no test {t}")),
        );
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn what_is_not_there_is_not_found() {
    let sources = sources();
    for word in ["no_such_test…", "attacks::nobody", "nobody/tests/none.rs", "nobody::tests", "is_a_gate"] {
        assert!(!is_a_test(&sources, word), "{word}");
    }
    assert!(!is_a_gate(&sources, "manager::no_such_gate") && !is_a_gate(&sources, "no_such_room"));
}

/// The trail of a new key, and whatever else the page of the rooms names by its path.
#[test]
fn every_source_that_the_rooms_page_names_is_there() {
    let page = fs::read_to_string(root().join("crates/README.md")).expect("the rooms' page");
    let paths: Vec<String> = quoted(&page).into_iter().filter(|word| word.contains("/src/")).collect();
    assert!(paths.len() >= 10, "only {paths:?}");
    let is_there = |path: &String| root().join("crates").join(path).exists() || root().join(path).exists();
    let missing: Vec<_> = paths.iter().filter(|path| !is_there(path)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The first column of such a table is modules.
#[test]
fn every_folder_that_a_crates_door_names_in_a_table_is_there() {
    let (mut named, mut missing) = (0, Vec::new());
    for entry in fs::read_dir(root().join("crates")).expect("the crates") {
        let src = entry.expect("a readable entry").path().join("src");
        let Ok(door) = fs::read_to_string(src.join("lib.rs")) else { continue };
        let rows = door.lines().filter_map(|line| line.strip_prefix("//! | `"));
        for name in rows.flat_map(|row| quoted(&format!("`{}", row.split(" | ").next().unwrap_or_default())))
        {
            named += 1;
            if !src.join(&name).is_dir() && !src.join(format!("{name}.rs")).exists() {
                missing.push(format!("{}: {name}", src.display()));
            }
        }
    }
    assert!(named >= 10 && missing.is_empty(), "{named} named, without {missing:?}");
}
