//! What the program is made of that others have written: which packages, and the texts of their licences.

use super::{Release, Target, output};
use anyhow::{Context, Result};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A package that is linked into the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Supplied {
    pub(crate) name: String,
    pub(crate) version: String,
    /// An expression of SPDX.
    pub(crate) licence: String,
    pub(crate) repository: Option<String>,
    /// SHA-256 of what the registry has; none of ours.
    pub(crate) checksum: Option<String>,
    /// Names and versions of those that it calls.
    pub(crate) needs: BTreeSet<(String, String)>,
    /// Texts that come with it.
    pub(crate) texts: BTreeSet<String>,
}

/// What is linked in and is no package of the registry: name, licence, where it comes from.
const NOT_OF_THE_REGISTRY: [(&str, &str, &str); 2] = [
    ("the standard library of Rust", "MIT OR Apache-2.0", "https://github.com/rust-lang/rust"),
    ("the GNU C library", "LGPL-2.1-or-later", "https://www.gnu.org/software/libc"),
];

/// Returns what is linked into the program for a target, ours too, by name.
///
/// # Errors
/// Cargo does not run, or a package is not there: `cargo fetch` brings it.
pub(crate) fn of_program(root: &Path, target: Target) -> Result<Vec<Supplied>> {
    let cargo = |words: &[&str]| {
        let mut cargo = Command::new("cargo");
        cargo.args(words).current_dir(root);
        output(&mut cargo)
    };
    let triple = target.triple();
    // The tree of the program alone knows which features are asked for; the rest is said of all packages.
    let tree = cargo(&[
        "tree",
        "--locked",
        "--package",
        "rswarm",
        "--target",
        triple,
        "--edges",
        "normal,no-proc-macro",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ])?;
    let linked = linked(&String::from_utf8(tree)?);
    let metadata = cargo(&["metadata", "--locked", "--format-version", "1", "--filter-platform", triple])?;
    let metadata: Value = serde_json::from_slice(&metadata)?;
    let sums = checksums(&fs::read_to_string(root.join("Cargo.lock"))?)?;
    read(&metadata, &linked, &sums)
}

/// Reads lines `name v1.2.3 (path)` of `cargo tree`.
fn linked(tree: &str) -> BTreeSet<(String, String)> {
    let package = |line: &str| {
        let mut words = line.split(' ');
        Some((words.next()?.to_owned(), words.next()?.trim_start_matches('v').to_owned()))
    };
    tree.lines().filter_map(package).collect()
}

/// Reads the lock file: which checksum the registry has for what.
fn checksums(lock: &str) -> Result<BTreeMap<(String, String), String>> {
    let lock: toml::Table = lock.parse().context("Cargo.lock is no TOML")?;
    let packages =
        lock.get("package").and_then(toml::Value::as_array).context("Cargo.lock has no packages")?;
    let text = |package: &toml::Value, key: &str| Some(package.get(key)?.as_str()?.to_owned());
    let one = |package: &toml::Value| {
        Some(((text(package, "name")?, text(package, "version")?), text(package, "checksum")?))
    };
    Ok(packages.iter().filter_map(one).collect())
}

fn read(
    metadata: &Value,
    linked: &BTreeSet<(String, String)>,
    sums: &BTreeMap<(String, String), String>,
) -> Result<Vec<Supplied>> {
    let text = |value: &Value, key: &str| value[key].as_str().map(str::to_owned);
    let mut by_id = BTreeMap::new();
    for package in metadata["packages"].as_array().context("cargo metadata names no packages")? {
        let id = text(package, "id").context("a package without an identity")?;
        let name = text(package, "name").context("a package without a name")?;
        let version = text(package, "version").context("a package without a version")?;
        let key = (name, version);
        if linked.contains(&key) {
            by_id.insert(id, (key, package));
        }
    }
    let mut needs: BTreeMap<&str, BTreeSet<(String, String)>> = BTreeMap::new();
    for node in metadata["resolve"]["nodes"].as_array().context("cargo metadata resolves nothing")? {
        let id = node["id"].as_str().context("a node without an identity")?;
        let normal = |need: &&Value| {
            need["dep_kinds"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
        };
        let of = node["deps"].as_array().into_iter().flatten().filter(normal);
        let of = of.filter_map(|need| by_id.get(need["pkg"].as_str()?).map(|(key, _)| key.clone()));
        needs.insert(id, of.collect());
    }
    let mut supplied = Vec::new();
    for (id, (key, package)) in &by_id {
        let manifest = PathBuf::from(text(package, "manifest_path").context("a package without a manifest")?);
        let folder = manifest.parent().context("a manifest without a folder")?;
        let ours = package["source"].is_null();
        // As written before SPDX: `MIT/Apache-2.0`.
        let licence = text(package, "license").map(|licence| licence.replace('/', " OR "));
        supplied.push(Supplied {
            licence: licence.with_context(|| format!("{} {} has no licence", key.0, key.1))?,
            repository: text(package, "repository"),
            checksum: sums.get(key).cloned(),
            needs: needs.remove(id.as_str()).unwrap_or_default(),
            texts: if ours { BTreeSet::new() } else { texts(folder)? },
            name: key.0.clone(),
            version: key.1.clone(),
        });
    }
    supplied.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    Ok(supplied)
}

/// Returns the licences that come with a package, and with the C sources one folder below.
fn texts(folder: &Path) -> Result<BTreeSet<String>> {
    const BEGINNINGS: [&str; 6] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];
    let list = |folder: &Path| -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
        entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()
    };
    let mut files = Vec::new();
    for path in list(folder)? {
        if path.is_dir() {
            files.extend(list(&path)?);
        } else {
            files.push(path);
        }
    }
    let is_licence = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        let source = [".RS", ".C", ".H", ".PY"].iter().any(|end| name.ends_with(end));
        path.is_file() && !source && BEGINNINGS.iter().any(|begin| name.starts_with(begin))
    };
    let mut texts = BTreeSet::new();
    for path in files.into_iter().filter(is_licence) {
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let lines: Vec<_> =
            String::from_utf8_lossy(&text).lines().map(|line| line.trim_end().to_owned()).collect();
        let text = lines.join("\n");
        if !text.trim().is_empty() {
            texts.insert(text.trim_matches('\n').to_owned());
        }
    }
    Ok(texts)
}

/// Returns who else has a part in the program, and on which terms.
///
/// # Errors
/// Never: a text takes what is written.
pub(crate) fn notice(release: &Release) -> Result<String> {
    let mut text = format!(
        "rswarm {} for {}, under the Apache License 2.0 (LICENSE), contains works of others, which are under the licences\n\
         that stand behind them. Their texts follow, as they came with them.\n\n",
        release.version,
        release.target.triple()
    );
    let others: Vec<&Supplied> = release.supplied.iter().filter(|one| one.checksum.is_some()).collect();
    for (name, licence, place) in NOT_OF_THE_REGISTRY {
        writeln!(text, "{name}: {licence} ({place})")?;
    }
    writeln!(
        text,
        "Both are linked in; from the sources ({}) `cargo build` makes the program with others.\n",
        env!("CARGO_PKG_REPOSITORY")
    )?;
    for one in &others {
        let place = one.repository.as_ref().map(|place| format!(" ({place})")).unwrap_or_default();
        writeln!(text, "{} {}: {}{place}", one.name, one.version, one.licence)?;
    }
    let mut by_text: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for one in &others {
        for licence in &one.texts {
            by_text.entry(licence).or_default().push(format!("{} {}", one.name, one.version));
        }
    }
    let mut by_text: Vec<_> = by_text.into_iter().map(|(licence, of)| (of.join(", "), licence)).collect();
    by_text.sort();
    for (of, licence) in by_text {
        writeln!(text, "\n{}\nOf {of}:\n\n{licence}", "-".repeat(80))?;
    }
    Ok(text)
}
