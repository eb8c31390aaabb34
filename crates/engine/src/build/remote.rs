//! Contexts that are fetched: a git repository, a tar or a lone Dockerfile behind a URL.
//!
//! Repositories are fetched by the `git` of this host, as dockerd does: with nobody's configuration, no prompts, over
//! the network only. *Source:* moby `builder/remotecontext/urlutil`, `builder/remotecontext/git`; Docker's reference of
//! `docker build`, "Git repositories".

use super::failure::BuildError;
use crate::{
    error::{Error, Result},
    inner::Inner,
};
use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::process::Command;

/// How long one command of git may take.
const GIT_LIMIT: Duration = Duration::from_secs(600);
/// *Limit* of what git says that is kept. *Unit:* bytes.
const SAID_MAX: usize = 2000;

/// What was fetched.
#[derive(Debug)]
pub(super) enum Fetched {
    /// The context is this folder.
    Folder(PathBuf),
    /// The context is in this file, which may be a tar or a Dockerfile.
    File(PathBuf),
}

/// Fetches a context into a folder.
///
/// # Errors
/// `Remote` with the reason: not reachable, no such branch, no such folder in it, no git on this host.
pub(super) async fn fetch(inner: &Inner, url: &str, into: &Path) -> Result<Fetched> {
    if is_repository(url) {
        return fetch_repository(inner, url, into).await.map(Fetched::Folder);
    }
    let file = into.join("context");
    let got = inner.images.download(url, &file).await;
    got.map_err(|e| Error::Image { operation: format!("download {url}"), source: e.into() })?;
    Ok(Fetched::File(file))
}

/// Returns true for what names a git repository.
pub(super) fn is_repository(url: &str) -> bool {
    Repository::parse(url).is_some()
}

/// Fetches a git repository into a folder; returns the folder of it that is wanted.
///
/// # Errors
/// As [`fetch`].
pub(super) async fn fetch_repository(inner: &Inner, url: &str, into: &Path) -> Result<PathBuf> {
    let repository = Repository::parse(url).unwrap_or_else(|| Err(failed(url, "this is no repository")));
    repository?.fetch(into, inner.images.proxies()).await
}

/// A git repository, and what of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Repository {
    remote: String,
    /// Branch, tag or commit.
    reference: String,
    /// Folder in it; empty = all.
    folder: String,
}

impl Repository {
    /// Reads `https://host/name.git#branch:folder`; `None` for what is no repository.
    fn parse(url: &str) -> Option<Result<Self>> {
        let (remote, fragment) = url.split_once('#').unwrap_or((url, ""));
        let is_http = remote.starts_with("https://") || remote.starts_with("http://");
        let is_ours =
            ["git://", "git@", "ssh://", "github.com/"].iter().any(|scheme| remote.starts_with(scheme));
        if !(is_ours || is_http && remote.ends_with(".git")) {
            return None;
        }
        let remote =
            if remote.starts_with("github.com/") { format!("https://{remote}") } else { remote.to_owned() };
        let (reference, folder) = fragment.split_once(':').unwrap_or((fragment, ""));
        if reference.starts_with('-') {
            return Some(Err(failed(url, "a branch does not begin with a dash")));
        }
        let reference = if reference.is_empty() { "HEAD" } else { reference };
        Some(Ok(Self { remote, reference: reference.to_owned(), folder: folder.to_owned() }))
    }

    async fn fetch(&self, into: &Path, proxies: &image::Proxies) -> Result<PathBuf> {
        let root = into.join("repository");
        tokio::fs::create_dir(&root).await.map_err(Error::io("create folder", &root))?;
        let git = Git { root: &root, home: into, remote: &self.remote, proxies };
        git.run(&["init", "--quiet"]).await?;
        git.run(&["remote", "add", "origin", "--", &self.remote]).await?;
        let shallow = ["fetch", "--quiet", "--depth", "1", "origin", "--", &self.reference];
        if git.run(&shallow).await.is_ok() {
            git.run(&["checkout", "--quiet", "--detach", "FETCH_HEAD"]).await?;
        } else {
            // A commit that no branch ends with, or a server that gives everything or nothing.
            git.run(&["fetch", "--quiet", "--tags", "origin"]).await?;
            let there = if self.reference == "HEAD" { "FETCH_HEAD" } else { &self.reference };
            if git.run(&["checkout", "--quiet", "--detach", &format!("origin/{there}")]).await.is_err() {
                let found = git.run(&["checkout", "--quiet", "--detach", there]).await;
                let unknown = || format!("there is no branch, tag or commit {:?} in it", self.reference);
                found.map_err(|_| failed(&self.remote, &unknown()))?;
            }
        }
        git.run(&["submodule", "--quiet", "update", "--init", "--recursive", "--depth", "1"]).await?;
        let (folder, remote) = (self.folder.clone(), self.remote.clone());
        crate::blocking(move || {
            let metadata = root.join(".git");
            crate::disk::folders::remove_tree(&metadata).map_err(Error::io("remove", &metadata))?;
            // A link in the repository must not lead out of it.
            let inside = |path: PathBuf| path.starts_with(&root) && path.is_dir();
            let found = root.join(folder.trim_start_matches('/')).canonicalize();
            let found = found.ok().filter(|path| inside(path.clone()));
            found.ok_or_else(|| failed(&remote, &format!("there is no folder {folder:?} in it")))
        })
        .await
    }
}

fn failed(remote: &str, reason: &str) -> Error {
    BuildError::Remote { url: remote.to_owned(), reason: reason.to_owned() }.into()
}

/// A running git and its helpers: when nobody waits any more, all of them end.
struct Group(Option<rustix::process::Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0
            && let Err(error) = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL)
        {
            tracing::debug!(%error, "a git was gone already");
        }
    }
}

struct Git<'a> {
    root: &'a Path,
    /// Where it finds no configuration.
    home: &'a Path,
    remote: &'a str,
    proxies: &'a image::Proxies,
}

impl Git<'_> {
    async fn run(&self, words: &[&str]) -> Result<()> {
        let mut command = Command::new("git");
        command.args(words).current_dir(self.root).stdin(Stdio::null()).kill_on_drop(true).env_clear();
        command.envs(
            ["PATH", "SSL_CERT_FILE", "SSL_CERT_DIR"]
                .iter()
                .filter_map(|name| Some((name, std::env::var_os(name)?))),
        );
        command.envs(self.proxies.variables());
        command.env("HOME", self.home).env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_TERMINAL_PROMPT", "0");
        // No local files and no helper programs, whatever a repository's submodules say.
        command.env("GIT_ALLOW_PROTOCOL", "http:https:git:ssh").env("GIT_PROTOCOL_FROM_USER", "0");
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let git = command.spawn().map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => failed(self.remote, "git is not installed on this host"),
            _ => failed(self.remote, &format!("git does not run: {e}")),
        })?;
        let mut group = Group(git.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())));
        let ended = match tokio::time::timeout(GIT_LIMIT, git.wait_with_output()).await {
            Ok(Ok(ended)) => {
                group.0 = None;
                ended
            }
            Ok(Err(e)) => return Err(failed(self.remote, &format!("git does not run: {e}"))),
            Err(_) => return Err(failed(self.remote, &format!("git {} does not end", words[0]))),
        };
        if ended.status.success() {
            return Ok(());
        }
        let said =
            String::from_utf8_lossy(&ended.stderr[..ended.stderr.len().min(SAID_MAX)]).trim().to_owned();
        Err(failed(self.remote, &format!("git {}: {said}", words[0])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_told_from_other_urls() {
        let read = |url: &str| {
            Repository::parse(url).map(|r| r.map(|r| format!("{} {} {}", r.remote, r.reference, r.folder)))
        };
        for (url, want) in [
            ("https://example.com/a/b.git", "https://example.com/a/b.git HEAD "),
            ("https://example.com/b.git#main", "https://example.com/b.git main "),
            ("https://example.com/b.git#v1:sub/dir", "https://example.com/b.git v1 sub/dir"),
            ("https://example.com/b.git#:sub", "https://example.com/b.git HEAD sub"),
            ("git@example.com:a/b", "git@example.com:a/b HEAD "),
            ("git://example.com/b#x", "git://example.com/b x "),
            ("github.com/a/b", "https://github.com/a/b HEAD "),
        ] {
            assert_eq!(read(url).unwrap().unwrap(), want);
        }
        for other in
            ["https://example.com/context.tar.gz", "http://example.com/Dockerfile", "file:///a.git", "a.git"]
        {
            assert!(read(other).is_none(), "{other}");
        }
        assert!(read("https://example.com/b.git#--upload-pack=x").unwrap().is_err());
    }
}
