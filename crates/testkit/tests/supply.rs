//! What we take in from others: their licences, second versions and sources, by the lists of `.deny.toml`; and that
//! the program and the tests are built of the same dependencies.

use spdx::{Expression, Licensee, ParseMode};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

/// A version that is built, and with which features.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: String,
    licence: String,
    features: String,
    ours: bool,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace root")
}

fn rules() -> toml::Table {
    let text = std::fs::read_to_string(root().join(".deny.toml")).expect(".deny.toml");
    text.parse().expect(".deny.toml is TOML")
}

/// Returns what cargo builds for this choice of packages. A package whose build scripts have other features than the
/// program comes twice.
fn built(choice: &[&str]) -> BTreeSet<Package> {
    let rules = rules();
    let targets = rules["graph"]["targets"].as_array().expect("the targets that we build for");
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--prefix", "none"])
        .args(targets.iter().flat_map(|target| ["--target", target.as_str().expect("a target")]))
        .args(["--format", "{p}|{l}|{f}"])
        .args(choice)
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let text = String::from_utf8(tree.stdout).expect("cargo writes text");
    let lines = text.lines().map(|line| line.trim_end_matches(" (*)")).filter(|line| !line.is_empty());
    lines.map(package).collect()
}

/// Reads `name v1.2.3 (path or kind)|licence|feature,feature`.
fn package(line: &str) -> Package {
    let mut columns = line.split('|');
    let mut column = || columns.next().unwrap_or_else(|| panic!("cargo tree has no such column: {line}"));
    let (package, licence, features) = (column(), column(), column());
    let mut words = package.splitn(3, ' ');
    let (name, version) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let ours = words.next().is_some_and(|place| place.contains(&root().display().to_string()));
    let [name, version, licence, features] =
        [name, version.trim_start_matches('v'), licence, features].map(str::to_owned);
    Package { name, version, licence, features, ours }
}

const ALL: &[&str] = &["--workspace", "--edges", "normal,build,dev"];

/// Returns why not, if these licences are not among the allowed.
fn refused(licence: &str, allowed: &[Licensee]) -> Option<String> {
    match Expression::parse_mode(licence, ParseMode::LAX) {
        Ok(choice) if choice.evaluate(|one| allowed.iter().any(|licence| licence.satisfies(one))) => None,
        Ok(_) => Some(format!("{licence:?} is not what licenses.allow holds")),
        Err(error) => Some(format!("{licence:?} is no licence: {}", error.reason)),
    }
}

fn allowed() -> Vec<Licensee> {
    let rules = rules();
    let list = rules["licenses"]["allow"].as_array().expect("a list");
    list.iter().map(|name| Licensee::parse(name.as_str().expect("a name")).expect("a licence")).collect()
}

#[test]
fn licences_of_all_dependencies_are_allowed() {
    let allowed = allowed();
    let packages = built(ALL);
    assert!(packages.len() > 300, "only {} packages", packages.len());
    let faults: Vec<String> = packages
        .iter()
        .filter_map(|p| refused(&p.licence, &allowed).map(|why| format!("{} {}: {why}", p.name, p.version)))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn licence_that_asks_for_more_is_refused() {
    let allowed = allowed();
    for licence in ["GPL-3.0-only", "MIT AND GPL-2.0-only", "", "SSPL-1.0"] {
        assert!(refused(licence, &allowed).is_some(), "{licence}");
    }
    for licence in ["MIT/Apache-2.0", "GPL-2.0-only OR MIT", "(MIT OR Apache-2.0) AND Unicode-3.0"] {
        assert_eq!(refused(licence, &allowed), None);
    }
}

#[test]
fn second_version_of_a_dependency_has_its_reason_and_only_as_long_as_it_is_there() {
    let rules = rules();
    let skips = rules["bans"]["skip"].as_array().expect("a list");
    let mut skipped: BTreeSet<(String, String)> = BTreeSet::new();
    let mut faults = Vec::new();
    for skip in skips {
        let crate_ = skip["crate"].as_str().expect("name@version");
        let (name, version) = crate_.split_once('@').expect("name@version");
        skipped.insert((name.to_owned(), version.to_owned()));
        if skip.get("reason").and_then(toml::Value::as_str).unwrap_or_default().is_empty() {
            faults.push(format!("{crate_} is skipped without a reason"));
        }
    }
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in built(ALL) {
        versions.entry(package.name).or_default().insert(package.version);
    }
    for (name, versions) in &versions {
        let skips = |version: &&String| skipped.contains(&(name.clone(), (*version).clone()));
        if versions.iter().filter(|version| !skips(version)).count() > 1 {
            faults.push(format!("{name} is built in versions {versions:?}: update, or say why in bans.skip"));
        }
    }
    for (name, version) in &skipped {
        if !versions.get(name).is_some_and(|built| built.contains(version) && built.len() > 1) {
            faults.push(format!("{name}@{version} in bans.skip is no second version any more"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_dependency_comes_from_the_registry() {
    for lock in ["Cargo.lock", "tests/fuzz/Cargo.lock"] {
        let text = std::fs::read_to_string(root().join(lock)).expect("a lock file");
        let lock: toml::Table = text.parse().expect("TOML");
        let packages = lock["package"].as_array().expect("packages");
        assert!(packages.len() > 100, "only {} packages", packages.len());
        for package in packages {
            let Some(source) = package.get("source") else { continue }; // ours
            let source = source.as_str();
            assert_eq!(source, Some("registry+https://github.com/rust-lang/crates.io-index"), "{package}");
            assert!(package.get("checksum").is_some(), "{package}");
        }
    }
}

/// Built once more for tests, each for a reason. The generator of `protogen` asks for one more class of characters on the
/// host than what reads time zones there: three crates are built twice, so that the program is built without a generator.
const BUILT_TWICE: [&str; 3] = ["regex", "regex-automata", "regex-syntax"];

/// Another feature of one dependency, asked for by a test alone, and `cargo test` builds again what `cargo demo` has
/// built: the dependency and everything above it.
#[test]
fn tests_are_built_of_what_the_program_is_built_of() {
    let of_tests = built(ALL);
    let of_program = built(&["-p", "rswarm", "--edges", "normal,build"]);
    assert!(of_program.len() > 200, "only {} packages", of_program.len());
    let features = |name: &str, version: &str| {
        let same = of_tests.iter().filter(move |p| p.name == name && p.version == version);
        same.map(|p| p.features.as_str()).collect::<BTreeSet<_>>()
    };
    let other: Vec<_> = of_program
        .iter()
        .filter(|p| !p.ours && !features(&p.name, &p.version).contains(p.features.as_str()))
        .collect();
    let unused: Vec<_> = BUILT_TWICE.iter().filter(|name| other.iter().all(|p| p.name != **name)).collect();
    assert!(unused.is_empty(), "built once by now, and may go from the list: {unused:?}");
    let other: Vec<_> = other
        .into_iter()
        .filter(|p| !BUILT_TWICE.contains(&p.name.as_str()))
        .map(|p| format!("{} {}: {} but {:?}", p.name, p.version, p.features, features(&p.name, &p.version)))
        .collect();
    assert!(other.is_empty(), "built once for the program and once more for tests:\n{}", other.join("\n"));
}

/// `log` of tracing writes every event out a second time, for a subscriber that is never missing here, and keeps what
/// `release_max_level_debug` leaves out.
#[test]
fn events_are_compiled_once_and_the_finest_not_at_all() {
    let program = built(&["-p", "rswarm", "--edges", "normal,build"]);
    let tracing = program.iter().find(|p| p.name == "tracing").expect("tracing is a dependency");
    let features: Vec<&str> = tracing.features.split(',').collect();
    assert!(features.contains(&"release_max_level_debug"), "{features:?}");
    assert!(
        !features.contains(&"log"),
        "cargo tree -e features -i tracing says who asks for log: {features:?}"
    );
}
