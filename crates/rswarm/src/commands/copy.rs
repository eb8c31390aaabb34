//! `rswarm cp`: files between a container and this machine, as tar streams.

use super::target;
use crate::{cli::CpArgs, output};
use anyhow::{Context, Result, bail};
use axum::body::Body;
use base64::{Engine, prelude::BASE64_STANDARD};
use docker_api::client::Client;
use futures::TryStreamExt;
use http_body_util::BodyExt;
use std::{
    ffi::{OsStr, OsString},
    io::Write,
    path::{Component, Path, PathBuf},
};
use tokio::io::AsyncWriteExt;
use tokio_util::io::{ReaderStream, StreamReader, SyncIoBridge};

/// *Unit:* bytes on the way between the maker of a tar and its reader.
const PIPE: usize = 256 << 10;
/// Set-user-id and set-group-id. Source: inode(7).
const SET_ID: u32 = 0o6000;
/// Go's `os.ModeDir` and `os.ModeSymlink` in the mode that the front door tells.
const MODE_DIR: u64 = 1 << 31;
const MODE_LINK: u64 = 1 << 27;
/// So many links that lead to one another are followed. Source: path_resolution(7).
const LINKS_MAX: usize = 40;

/// `CONTAINER:PATH`, or a path of this machine. Source: docker CLI `cp`: a path with `/` or `.` first is local.
pub(crate) fn container_path(text: &str) -> Option<(&str, &str)> {
    if text.starts_with(['/', '.']) {
        return None;
    }
    text.split_once(':')
}

pub(crate) async fn cp(client: &Client, args: &CpArgs) -> Result<()> {
    match (container_path(&args.source), container_path(&args.destination)) {
        (Some((name, path)), None) => out(client, &target::one(client, name).await?, path, args).await,
        (None, Some((name, path))) => into(client, args, &target::one(client, name).await?, path).await,
        (Some(_), Some(_)) => bail!("copying between containers is not supported"),
        (None, None) => bail!("must specify at least one container source: CONTAINER:PATH"),
    }
}

/// Does a path mean what is in a folder, and not the folder? Source: docker CLI `cp`: `SRC_PATH/.`.
fn is_content(path: &str) -> bool {
    path == "." || path.ends_with("/.")
}

async fn out(client: &Client, container: &str, path: &str, args: &CpArgs) -> Result<()> {
    let destination = args.destination.as_str();
    if destination != "-" {
        super::placed::check(Path::new(destination))?;
    }
    let found = if args.follow_link { followed(client, container, path).await? } else { path.to_owned() };
    let answer = client.archive_get(container, &found).await?;
    let mut tar = StreamReader::new(answer.into_body().into_data_stream().map_err(std::io::Error::other));
    if destination == "-" {
        let mut out = output::stream();
        tokio::io::copy(&mut tar, &mut out).await.context("the archive was cut")?;
        return out.flush().await.context("cannot write to standard output");
    }
    let last = |path: &str| Path::new(path).file_name().map_or_else(|| OsString::from("."), OsString::from);
    let (name, wanted, content) = (last(&found), last(path), is_content(path));
    let mut destination = PathBuf::from(destination);
    let reader = SyncIoBridge::new(tar);
    let unpack = move || -> Result<()> {
        if destination.is_dir() && content {
            let beside = tempfile::Builder::new().prefix(".rswarm-cp-").tempdir_in(&destination);
            let beside = beside.with_context(|| format!("cannot write to {}", destination.display()))?;
            unpack(reader, beside.path(), &name)?;
            return poured(&beside.path().join(name), &destination);
        }
        if destination.is_dir() {
            if name == wanted {
                return unpack(reader, &destination, &name);
            }
            // What a link leads to is called as the link is.
            destination.push(&wanted);
        }
        // Under another name: beside it first.
        let parent = match destination.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let beside = tempfile::Builder::new().prefix(".rswarm-cp-").tempdir_in(parent);
        let beside = beside.with_context(|| format!("cannot write to {}", parent.display()))?;
        unpack(reader, beside.path(), &name)?;
        std::fs::rename(beside.path().join(name), &destination)
            .with_context(|| format!("cannot write {}", destination.display()))
    };
    tokio::task::spawn_blocking(unpack).await?
}

/// Returns the path that a link in a container leads to at last; that of what is no link is its own.
async fn followed(client: &Client, container: &str, path: &str) -> Result<String> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let Some(stat) = stat(client, container, &path).await? else { return Ok(path) };
        let target = stat["linkTarget"].as_str().unwrap_or_default();
        if stat["mode"].as_u64().unwrap_or(0) & MODE_LINK == 0 || target.is_empty() {
            return Ok(path);
        }
        let folder = Path::new(&path).parent().unwrap_or(Path::new("/"));
        path = folder.join(target).to_str().context("a link to what is not UTF-8")?.to_owned();
    }
    bail!("{path}: too many links lead to one another")
}

/// Moves what is in a folder into another one, whose folders keep what is in them.
fn poured(from: &Path, to: &Path) -> Result<()> {
    let failed = |path: &Path| format!("cannot write {}", path.display());
    for entry in std::fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let is_folder = |path: &Path| path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
        match (is_folder(&entry.path()), is_folder(&target)) {
            (true, true) => poured(&entry.path(), &target)?,
            (false, true) => bail!("cannot overwrite directory {} with non-directory", target.display()),
            (true, false) if target.symlink_metadata().is_ok() => {
                bail!("cannot overwrite non-directory {} with directory", target.display())
            }
            _ => std::fs::rename(entry.path(), &target).with_context(|| failed(&target))?,
        }
    }
    Ok(())
}

/// Unpacks what was asked for, by its name, below `folder` and nowhere else, whatever the archive says: it is the word
/// of the container's host.
///
/// # Errors
/// Also when it has something else; what came before stays.
fn unpack(reader: impl std::io::Read, folder: &Path, name: &OsStr) -> Result<()> {
    let failed = || format!("cannot unpack into {}", folder.display());
    let mut archive = tar::Archive::new(reader);
    archive.set_preserve_permissions(true);
    // Files are those of whoever copies them: what lends its owner's rights to all would lend these.
    archive.set_mask(SET_ID);
    // Permissions of folders last: what is in them has to be made first.
    let mut folders = Vec::new();
    for entry in archive.entries().with_context(failed)? {
        let mut entry = entry.with_context(failed)?;
        let path = entry.path().with_context(failed)?.into_owned();
        let first = path.components().find(|part| !matches!(part, Component::CurDir | Component::RootDir));
        if name != "." && first.is_some_and(|first| first.as_os_str() != name) {
            bail!("the archive has {}, which was not asked for", path.display());
        }
        match entry.header().entry_type() {
            tar::EntryType::Directory => folders.push(entry),
            _ => drop(entry.unpack_in(folder).with_context(failed)?),
        }
    }
    // The deepest first, as one may take the right to enter away.
    folders.sort_by(|one, other| other.path_bytes().cmp(&one.path_bytes()));
    folders.iter_mut().try_for_each(|entry| entry.unpack_in(folder).map(drop)).with_context(failed)
}

async fn into(client: &Client, args: &CpArgs, container: &str, path: &str) -> Result<()> {
    let is_folder = stat_is_folder(client, container, path).await?;
    let source = args.source.as_str();
    let owner = if args.archive { "1" } else { "0" };
    if source == "-" {
        let body = Body::from_stream(ReaderStream::with_capacity(tokio::io::stdin(), PIPE));
        return Ok(client.archive_put(container, &[("path", path), ("copyUIDGID", owner)], body).await?);
    }
    let Source { path: source, name: own_name, content } = Source::of(source, args.follow_link)?;
    let target = Path::new(path);
    let (folder, name) = if content && is_folder {
        // Its files beside those that are there.
        (target.to_owned(), OsString::new())
    } else if is_folder || path.ends_with('/') {
        (target.to_owned(), own_name.context("a source without a name")?)
    } else {
        let name = target.file_name().context("a destination without a name")?;
        (target.parent().unwrap_or(Path::new("/")).to_owned(), name.to_owned())
    };
    let (reader, writer) = tokio::io::duplex(PIPE);
    let bridge = SyncIoBridge::new(writer);
    let packing = tokio::task::spawn_blocking(move || -> Result<()> {
        let mut out = tar::Builder::new(bridge);
        out.follow_symlinks(false);
        let packed = if source.is_dir() && !source.is_symlink() {
            out.append_dir_all(&name, &source)
        } else {
            out.append_path_with_name(&source, &name)
        };
        packed.with_context(|| format!("cannot read {}", source.display()))?;
        out.into_inner()?.flush()?;
        Ok(())
    });
    let folder = folder.to_str().context("a path that is not UTF-8")?;
    let body = Body::from_stream(ReaderStream::new(reader));
    let sent = client.archive_put(container, &[("path", folder), ("copyUIDGID", owner)], body).await;
    // Why the archive ended early says more than that it did.
    packing.await??;
    Ok(sent?)
}

/// What is copied of this machine.
struct Source {
    path: PathBuf,
    /// What it is called where it comes to; `None` = the root folder has none.
    name: Option<OsString>,
    /// What is in it alone.
    content: bool,
}

impl Source {
    /// A link is copied as the link it is, unless it is to be followed; it is called as it is here either way.
    ///
    /// # Errors
    /// There is nothing.
    fn of(text: &str, follow_link: bool) -> Result<Self> {
        let mut path = PathBuf::from(text);
        let failed = || format!("cannot read {text}");
        std::fs::symlink_metadata(&path).with_context(failed)?;
        let own = |path: &Path| path.file_name().map(OsString::from);
        // `.` and `..` are called what they are elsewhere.
        let name = own(&path).or_else(|| own(&path.canonicalize().ok()?));
        let content = is_content(text);
        // What stands behind a slash is what a link leads to.
        if follow_link || content || text.ends_with('/') {
            path = path.canonicalize().with_context(failed)?;
        }
        Ok(Self { content: content && path.is_dir(), path, name })
    }
}

/// Returns what is at a path in a container; `None` = nothing. Source: Docker API, `X-Docker-Container-Path-Stat`.
async fn stat(client: &Client, container: &str, path: &str) -> Result<Option<serde_json::Value>> {
    let Some(stat) = client.archive_stat(container, path).await? else { return Ok(None) };
    let json = BASE64_STANDARD.decode(stat).context("the daemon's answer is no base64")?;
    Ok(Some(serde_json::from_slice(&json)?))
}

/// Tells whether a path in the container is a folder. A path that is not there yet is none.
async fn stat_is_folder(client: &Client, container: &str, path: &str) -> Result<bool> {
    let stat = stat(client, container, path).await?;
    Ok(stat.is_some_and(|stat| stat["mode"].as_u64().unwrap_or(0) & MODE_DIR != 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt as _};

    fn tar_of(entries: &[(&str, tar::EntryType, u32)]) -> Vec<u8> {
        let mut out = tar::Builder::new(Vec::new());
        for (path, kind, mode) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(*mode);
            header.set_size(0);
            out.append_data(&mut header, path, std::io::empty()).unwrap();
        }
        out.into_inner().unwrap()
    }

    #[test]
    fn what_is_copied_is_called_as_it_is_here() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path).display().to_string();
        fs::create_dir(dir.path().join("real")).unwrap();
        fs::write(dir.path().join("real/file"), "x").unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
        for (path, follow, name, content, leads_to) in [
            ("real", false, "real", false, "real"),
            ("real/.", false, "real", true, "real"),
            ("link", false, "link", false, "link"),
            ("link", true, "link", false, "real"),
            ("link/.", false, "link", true, "real"),
            ("real/file", false, "file", false, "real/file"),
        ] {
            let source = Source::of(&at(path), follow).unwrap();
            assert_eq!(source.name.as_deref(), Some(OsStr::new(name)), "{path}");
            assert_eq!(source.content, content, "{path}");
            let shown =
                if leads_to == "link" { at("link").into() } else { fs::canonicalize(at(leads_to)).unwrap() };
            assert_eq!(source.path, shown, "{path}");
        }
        assert!(Source::of(&at("nothing"), true).is_err());
    }

    #[test]
    fn what_is_in_a_folder_comes_beside_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for path in ["from/deep", "to/deep", "from/other"] {
            fs::create_dir_all(at(path)).unwrap();
        }
        for (path, text) in [("from/a", "new"), ("to/a", "old"), ("from/deep/b", "new"), ("to/deep/c", "old")]
        {
            fs::write(at(path), text).unwrap();
        }
        poured(&at("from"), &at("to")).unwrap();
        let read = |path: &str| fs::read_to_string(at(path)).unwrap();
        assert_eq!([read("to/a"), read("to/deep/b"), read("to/deep/c")], ["new", "new", "old"]);
        assert!(at("to/other").is_dir());
        fs::write(at("from/deep/x"), "").unwrap();
        fs::create_dir(at("to/deep/x")).unwrap();
        let error = poured(&at("from"), &at("to")).unwrap_err().to_string();
        assert!(error.contains("cannot overwrite directory"), "{error}");
    }

    #[test]
    fn a_file_of_a_container_lends_nobodys_rights_here() {
        use tar::EntryType::{Directory, Regular};
        let dir = tempfile::tempdir().unwrap();
        let entries =
            [("x", Directory, 0o2555), ("x/deep", Directory, 0o1777), ("x/deep/tool", Regular, 0o6755)];
        unpack(tar_of(&entries).as_slice(), dir.path(), OsStr::new("x")).unwrap();
        let mode = |path: &str| fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!([mode("x"), mode("x/deep"), mode("x/deep/tool")], [0o555, 0o1777, 0o755]);
        fs::set_permissions(dir.path().join("x"), fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn nothing_comes_that_was_not_asked_for() {
        let regular = tar::EntryType::Regular;
        for (name, evil) in [("x", ".bashrc"), ("x", ".ssh/authorized_keys"), ("x", "./xy"), ("x", "xy/x")] {
            let dir = tempfile::tempdir().unwrap();
            let tar = tar_of(&[("x", regular, 0o644), (evil, regular, 0o644)]);
            let error = unpack(tar.as_slice(), dir.path(), OsStr::new(name)).unwrap_err().to_string();
            assert!(error.contains("which was not asked for"), "{error}");
            let there: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert_eq!(there, ["x"], "{evil}");
        }
        // All of a container's files have no name that they share.
        let dir = tempfile::tempdir().unwrap();
        unpack(
            tar_of(&[("./etc", tar::EntryType::Directory, 0o755)]).as_slice(),
            dir.path(),
            OsStr::new("."),
        )
        .unwrap();
        assert!(dir.path().join("etc").is_dir());
    }
}
