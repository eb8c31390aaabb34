//! The package for Debian and its kin: an `ar` of two archives. *Source:* deb(5), deb-control(5), Debian Policy 4, 6, 10.

use super::{
    Release, pack,
    tree::{self, File, Folders, Tree},
};
use anyhow::{Context, Result};
use std::fmt::Write as _;

const SCRIPTS: [&str; 4] = ["preinst", "postinst", "prerm", "postrm"];

/// Returns the package's bytes.
pub(crate) fn package(release: &Release) -> Result<Vec<u8>> {
    let mut files = tree::system(release, Folders { zsh: "usr/share/zsh/vendor-completions" })?;
    let text = |text: String| File { mode: 0o644, content: text.into_bytes(), settings: false };
    files.insert("usr/share/doc/rswarm/copyright".to_owned(), text(copyright(release)?));
    let mut control = Tree::from([
        ("control".to_owned(), text(fields(release, &files))),
        ("conffiles".to_owned(), text(conffiles(&files))),
    ]);
    for script in SCRIPTS {
        let content = tree::read(&release.root, &format!("deploy/deb/{script}"))?;
        control.insert(script.to_owned(), File { mode: 0o755, content, settings: false });
    }
    let control = pack::zstd(&pack::tar(&control, "./", release.epoch)?, release.level)?;
    let data = pack::zstd(&pack::tar(&files, "./", release.epoch)?, release.level)?;
    let mut package = ar::Builder::new(Vec::new());
    // In this order; dpkg reads no further than it must.
    for (name, content) in
        [("debian-binary", &b"2.0\n"[..]), ("control.tar.zst", &control), ("data.tar.zst", &data)]
    {
        let mut header = ar::Header::new(name.as_bytes().to_vec(), content.len() as u64);
        header.set_mode(0o100_644);
        header.set_mtime(u64::from(release.epoch));
        package.append(&header, content).with_context(|| format!("cannot pack {name}"))?;
    }
    Ok(package.into_inner()?)
}

fn fields(release: &Release, files: &Tree) -> String {
    let kilobytes: usize = files.values().map(|file| file.content.len().div_ceil(1024)).sum();
    format!(
        "Package: rswarm\n\
         Version: {}\n\
         Architecture: {}\n\
         Maintainer: rswarm <rswarm@localhost>\n\
         Installed-Size: {kilobytes}\n\
         Depends: passwd\n\
         Recommends: apparmor, ca-certificates\n\
         Section: admin\n\
         Priority: optional\n\
         Homepage: {}\n\
         Description: containers on one host or many\n \
         Engine, cluster and client in one static program, in place of Docker, Compose and\n \
         Swarm: images, networks, volumes, Raft managers, a scheduler, overlay networks. It\n \
         takes compose files and Docker's CLI as they are.\n",
        release.version,
        release.target.debian(),
        env!("CARGO_PKG_REPOSITORY"),
    )
}

/// Files that dpkg asks about before it replaces what an operator has changed.
fn conffiles(files: &Tree) -> String {
    let mut lines = String::new();
    for (path, _) in files.iter().filter(|(_, file)| file.settings) {
        let _fits = writeln!(lines, "/{path}");
    }
    lines
}

/// *Source:* Debian Policy 12.5.
fn copyright(release: &Release) -> Result<String> {
    let licence = String::from_utf8(tree::read(&release.root, "LICENSE")?)?;
    Ok(format!(
        "rswarm, {}\nIts licence is below; those of what it contains are in /usr/share/doc/rswarm/NOTICE.\n\n{licence}",
        env!("CARGO_PKG_REPOSITORY")
    ))
}
