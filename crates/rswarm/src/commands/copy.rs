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
    ffi::OsString,
    io::Write,
    path::{Path, PathBuf},
};
use tokio::io::AsyncWriteExt;
use tokio_util::io::{ReaderStream, StreamReader, SyncIoBridge};

/// *Unit:* bytes on the way between the maker of a tar and its reader.
const PIPE: usize = 256 << 10;
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
            return unpack(reader, &destination);
        }
        // Under another name: beside it first. The archive is the container's word; it never names a path here.
        let parent = match destination.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let beside = tempfile::Builder::new().prefix(".rswarm-cp-").tempdir_in(parent);
        let beside = beside.with_context(|| format!("cannot write to {}", parent.display()))?;
        unpack(reader, beside.path())?;
        std::fs::rename(beside.path().join(name), &destination)
            .with_context(|| format!("cannot write {}", destination.display()))
    };
    tokio::task::spawn_blocking(unpack).await?
}

/// Unpacks below `folder` and nowhere else, whatever the archive says.
fn unpack(reader: impl std::io::Read, folder: &Path) -> Result<()> {
    let mut archive = tar::Archive::new(reader);
    archive.set_preserve_permissions(true);
    archive.unpack(folder).with_context(|| format!("cannot unpack into {}", folder.display()))
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
