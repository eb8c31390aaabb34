//! Which files go where: into our archives, and into the packages of a distribution.

use super::{Release, pack, supplied};
use anyhow::{Context, Result, bail};
use std::{collections::BTreeMap, fs, path::Path};

/// A file to be, without what every one of them has: root as owner, the release's time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) mode: u32,
    pub(crate) content: Vec<u8>,
    /// An operator may change it, and keeps what he has changed.
    pub(crate) settings: bool,
}

/// By path, without `/` in front.
pub(crate) type Tree = BTreeMap<String, File>;

const UNITS: [&str; 2] = ["rswarm.service", "rswarm-host.service"];

/// Where the units say that the program is: where somebody puts it who has no package.
const BY_HAND: &str = "/usr/local/bin/rswarm";
const BY_PACKAGE: &str = "/usr/bin/rswarm";

fn plain(content: Vec<u8>) -> File {
    File { mode: 0o644, content, settings: false }
}

fn executable(content: Vec<u8>) -> File {
    File { mode: 0o755, content, settings: false }
}

fn settings(content: Vec<u8>) -> File {
    File { mode: 0o644, content, settings: true }
}

/// Reads a file of the repository.
pub(crate) fn read(root: &Path, path: &str) -> Result<Vec<u8>> {
    fs::read(root.join(path)).with_context(|| format!("cannot read {path} of the repository"))
}

/// Returns what is unpacked by `install.sh`, or by hand.
pub(crate) fn portable(release: &Release) -> Result<Tree> {
    let read = |path: &str| read(&release.root, path);
    let mut tree = Tree::from([
        ("rswarm".to_owned(), executable(release.program.clone())),
        ("install.sh".to_owned(), executable(read("deploy/install.sh")?)),
        ("README.md".to_owned(), plain(read("README.md")?)),
        ("LICENSE".to_owned(), plain(read("LICENSE")?)),
        ("NOTICE".to_owned(), plain(supplied::notice(release)?.into_bytes())),
        ("deploy/daemon.toml".to_owned(), plain(read("deploy/daemon.toml")?)),
        ("deploy/apparmor/docker-default".to_owned(), plain(read("deploy/apparmor/docker-default")?)),
    ]);
    for unit in UNITS {
        tree.insert(format!("deploy/{unit}"), plain(read(&format!("deploy/{unit}"))?));
    }
    for (shell, script) in &release.completions {
        tree.insert(format!("completions/rswarm.{shell}"), plain(script.clone()));
    }
    for (name, page) in &release.pages {
        tree.insert(format!("man/{name}"), plain(page.clone()));
    }
    Ok(tree)
}

/// The folders in which distributions differ.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Folders {
    pub(crate) zsh: &'static str,
}

/// Returns what a package puts below `/`. *Source:* Filesystem Hierarchy Standard 3.0; systemd.unit(5).
pub(crate) fn system(release: &Release, folders: Folders) -> Result<Tree> {
    let read = |path: &str| read(&release.root, path);
    let mut tree = Tree::from([
        (BY_PACKAGE[1..].to_owned(), executable(release.program.clone())),
        ("etc/rswarm/daemon.toml".to_owned(), settings(read("deploy/daemon.toml")?)),
        ("etc/apparmor.d/docker-default".to_owned(), settings(read("deploy/apparmor/docker-default")?)),
        ("usr/share/doc/rswarm/NOTICE".to_owned(), plain(supplied::notice(release)?.into_bytes())),
    ]);
    for unit in UNITS {
        let text = String::from_utf8(read(&format!("deploy/{unit}"))?)?;
        if !text.contains(BY_HAND) {
            bail!("deploy/{unit} does not name {BY_HAND}, which becomes {BY_PACKAGE} in a package");
        }
        let text = text.replace(BY_HAND, BY_PACKAGE);
        tree.insert(format!("usr/lib/systemd/system/{unit}"), plain(text.into_bytes()));
    }
    let shells = [
        ("bash", "usr/share/bash-completion/completions/rswarm".to_owned()),
        ("fish", "usr/share/fish/vendor_completions.d/rswarm.fish".to_owned()),
        ("zsh", format!("{}/_rswarm", folders.zsh)),
    ];
    for (shell, path) in shells {
        let script = release.completions.get(shell).with_context(|| format!("no completion for {shell}"))?;
        tree.insert(path, plain(script.clone()));
    }
    for (name, page) in &release.pages {
        tree.insert(format!("usr/share/man/man1/{name}.gz"), plain(pack::gzip(page)?));
    }
    Ok(tree)
}

/// Returns the folders above the files, each before what is in it.
pub(crate) fn folders(tree: &Tree) -> Vec<String> {
    let mut all = std::collections::BTreeSet::new();
    for path in tree.keys() {
        let mut rest = path.as_str();
        while let Some((above, _)) = rest.rsplit_once('/') {
            all.insert(above.to_owned());
            rest = above;
        }
    }
    all.into_iter().collect()
}
