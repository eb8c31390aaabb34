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
/// Go's `os.ModeDir` in the mode that the front door tells.
const MODE_DIR: u64 = 1 << 31;

/// `CONTAINER:PATH`, or a path of this machine. Source: docker CLI `cp`: a path with `/` or `.` first is local.
pub(crate) fn container_path(text: &str) -> Option<(&str, &str)> {
    if text.starts_with(['/', '.']) {
        return None;
    }
    text.split_once(':')
}

pub(crate) async fn cp(client: &Client, args: &CpArgs) -> Result<()> {
    match (container_path(&args.source), container_path(&args.destination)) {
        (Some((name, path)), None) => {
            out(client, &target::one(client, name).await?, path, &args.destination).await
        }
        (None, Some((name, path))) => {
            into(client, &args.source, &target::one(client, name).await?, path).await
        }
        (Some(_), Some(_)) => bail!("copying between containers is not supported"),
        (None, None) => bail!("must specify at least one container source: CONTAINER:PATH"),
    }
}

async fn out(client: &Client, container: &str, path: &str, destination: &str) -> Result<()> {
    if destination != "-" {
        super::placed::check(Path::new(destination))?;
    }
    let answer = client.archive_get(container, path).await?;
    let mut tar = StreamReader::new(answer.into_body().into_data_stream().map_err(std::io::Error::other));
    if destination == "-" {
        let mut out = output::stream();
        tokio::io::copy(&mut tar, &mut out).await.context("the archive was cut")?;
        return out.flush().await.context("cannot write to standard output");
    }
    let destination = PathBuf::from(destination);
    let name = Path::new(path).file_name().map_or_else(|| OsString::from("."), OsString::from);
    let reader = SyncIoBridge::new(tar);
    let unpack = move || -> Result<()> {
        if destination.is_dir() {
            return unpack(reader, &destination, &name);
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

async fn into(client: &Client, source: &str, container: &str, path: &str) -> Result<()> {
    let is_folder = stat_is_folder(client, container, path).await?;
    if source == "-" {
        let body = Body::from_stream(ReaderStream::with_capacity(tokio::io::stdin(), PIPE));
        return Ok(client.archive_put(container, &[("path", path)], body).await?);
    }
    let source = PathBuf::from(source);
    std::fs::symlink_metadata(&source).with_context(|| format!("cannot read {}", source.display()))?;
    let own_name = source.canonicalize().ok().and_then(|p| p.file_name().map(OsString::from));
    let target = Path::new(path);
    let (folder, name) = if is_folder || path.ends_with('/') {
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
    let sent = client.archive_put(container, &[("path", folder)], body).await;
    // Why the archive ended early says more than that it did.
    packing.await??;
    Ok(sent?)
}

/// Tells whether a path in the container is a folder. A path that is not there yet is none.
async fn stat_is_folder(client: &Client, container: &str, path: &str) -> Result<bool> {
    let Some(stat) = client.archive_stat(container, path).await? else { return Ok(false) };
    let json = BASE64_STANDARD.decode(stat).context("the daemon's answer is no base64")?;
    let stat: serde_json::Value = serde_json::from_slice(&json)?;
    Ok(stat["mode"].as_u64().unwrap_or(0) & MODE_DIR != 0)
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
