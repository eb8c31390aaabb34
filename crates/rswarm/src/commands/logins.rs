//! As whom one speaks to which daemon: tokens in the person's own folder, in a file that nobody else can read.
//!
//! `$RSWARM_CONFIG`, else `$XDG_CONFIG_HOME/rswarm`, else `~/.config/rswarm`: `logins.json`, mode 0600, by the daemon's
//! address. A token is sent to the daemon it was given for and to no other.

use anyhow::{Context, Result, bail};
use docker_api::client::Host;
use serde_json::{Value, json};
use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::PathBuf,
};

/// Instead of a stored login, for programs.
const VARIABLE: &str = "RSWARM_TOKEN";

/// The file as it was read.
pub(crate) struct Logins {
    path: PathBuf,
    by_host: Value,
}

/// Returns the token for a daemon, if one is logged in there.
///
/// # Errors
/// The file cannot be read, or others can read it.
pub(crate) fn token(host: &Host) -> Result<Option<String>> {
    if let Some(token) = std::env::var(VARIABLE).ok().filter(|token| !token.is_empty()) {
        return Ok(Some(token));
    }
    // Without a home there is no login; that is no reason not to ask.
    let Some(path) = path() else { return Ok(None) };
    Ok(Logins::of(path)?.get(host))
}

fn path() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set("RSWARM_CONFIG")
        .or_else(|| Some(set("XDG_CONFIG_HOME")?.join("rswarm")))
        .or_else(|| Some(set("HOME")?.join(".config/rswarm")))?;
    Some(folder.join("logins.json"))
}

impl Logins {
    /// Reads the file; a missing one has no logins.
    ///
    /// # Errors
    /// It cannot be read, or others can read it, with its path.
    pub(crate) fn read() -> Result<Self> {
        Self::of(path().context("none of RSWARM_CONFIG, XDG_CONFIG_HOME and HOME is set")?)
    }

    fn of(path: PathBuf) -> Result<Self> {
        let failed = || format!("cannot read {}", path.display());
        let by_host = match fs::File::open(&path) {
            Ok(file) => {
                let mode = file.metadata().with_context(failed)?.mode();
                if mode & 0o077 != 0 {
                    bail!(
                        "{} can be read by others (mode {:03o}); hint: chmod 600 it, and have new tokens made",
                        path.display(),
                        mode & 0o777
                    );
                }
                serde_json::from_reader(io::BufReader::new(file)).with_context(failed)?
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => json!({}),
            Err(e) => return Err(e).with_context(failed),
        };
        Ok(Self { path, by_host })
    }

    fn get(&self, host: &Host) -> Option<String> {
        self.by_host[host.to_string()]["token"].as_str().map(str::to_owned)
    }

    /// Remembers a token for a daemon.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn keep(mut self, host: &Host, user: &str, token: &str) -> Result<()> {
        self.by_host[host.to_string()] = json!({ "user": user, "token": token });
        self.write()
    }

    /// Forgets the login at a daemon; returns whose it was.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn forget(mut self, host: &Host) -> Result<Option<String>> {
        let gone = self.by_host.as_object_mut().and_then(|logins| logins.remove(&host.to_string()));
        let Some(gone) = gone else { return Ok(None) };
        self.write()?;
        Ok(Some(gone["user"].as_str().unwrap_or_default().to_owned()))
    }

    /// Replaces the file, so that after a crash it is the old one or the new one.
    fn write(&self) -> Result<()> {
        let failed = || format!("cannot write {}", self.path.display());
        let folder = self.path.parent().with_context(failed)?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).with_context(failed)?;
        let mut file = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .tempfile_in(folder)
            .with_context(failed)?;
        file.write_all(&serde_json::to_vec_pretty(&self.by_host)?).with_context(failed)?;
        file.as_file().sync_all().with_context(failed)?;
        file.persist(&self.path).with_context(failed)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_login_is_kept_for_its_daemon_alone_in_a_file_of_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/logins.json");
        let (here, there): (Host, Host) = ("unix:///a".parse().unwrap(), "tcp://b".parse().unwrap());
        let read = || Logins::of(path.clone());
        assert_eq!(read().unwrap().get(&here), None);
        read().unwrap().keep(&here, "ann", "t1").unwrap();
        read().unwrap().keep(&there, "bob", "t2").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(read().unwrap().get(&here).as_deref(), Some("t1"));
        assert_eq!(read().unwrap().forget(&here).unwrap().as_deref(), Some("ann"));
        assert_eq!(read().unwrap().forget(&here).unwrap(), None);
        assert_eq!(read().unwrap().get(&here), None);
        assert_eq!(read().unwrap().get(&there).as_deref(), Some("t2"));
    }

    #[test]
    fn a_file_that_others_can_read_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logins.json");
        fs::write(&path, "{}").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let refusal = Logins::of(path).err().unwrap().to_string();
        assert!(refusal.contains("mode 640") && refusal.contains("chmod 600"), "{refusal}");
    }
}
