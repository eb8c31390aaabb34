//! Why a daemon's door does not open, in words that say what to do.

use anyhow::{Error, anyhow};
use docker_api::client::{Error as Refusal, Host};
use std::{io::ErrorKind, os::unix::fs::MetadataExt as _, path::Path};

/// Returns an error with what can be done about it, if it is one of the door.
pub(crate) fn explained(error: Error) -> Error {
    match error.downcast_ref::<Refusal>() {
        Some(Refusal::Connect { host: Host::Unix(path), source })
            if source.kind() == ErrorKind::PermissionDenied =>
        {
            let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
            let owner = std::fs::metadata(path).ok().map(|socket| (socket.gid(), socket.mode()));
            anyhow!("{}", denied(path, owner, &groups))
        }
        _ => error,
    }
}

/// `owner`: the socket's group and mode, if they can be seen. `groups`: what is in `/etc/group`.
fn denied(path: &Path, owner: Option<(u32, u32)>, groups: &str) -> String {
    let what = format!("permission denied at the daemon's socket {}", path.display());
    let name = |gid: u32| {
        let mut fields = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let group = fields.find(|f| f.get(2).is_some_and(|id| *id == gid.to_string()))?;
        group.first().map(|name| (*name).to_owned())
    };
    match owner {
        Some((gid, mode)) if gid != 0 && mode & 0o020 != 0 => match name(gid) {
            Some(name) => format!(
                "{what}; hint: root and the members of group {name} may use it: \
                 `sudo usermod -aG {name} $USER` and log in again, or `sudo rswarm ...`"
            ),
            None => format!("{what}; hint: root and group {gid} may use it, and that group has no name here"),
        },
        Some(_) => format!(
            "{what}; hint: only root may use it, `sudo rswarm ...`; with `group` in the daemon's settings, or a group \
             called rswarm when it starts, members of that may too"
        ),
        None => format!(
            "{what}, which is in a folder that you may not enter; hint: `sudo rswarm ...`, or -H for another daemon"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_in_is_told_who_may() {
        let say =
            |owner| denied(Path::new("/run/rswarm/docker.sock"), owner, "root:x:0:\nrswarm:x:990:ann\n");
        assert!(say(Some((990, 0o140_660))).contains("sudo usermod -aG rswarm $USER"));
        assert!(say(Some((991, 0o140_660))).contains("root and group 991"));
        assert!(say(Some((0, 0o140_660))).contains("only root may use it"));
        assert!(say(Some((990, 0o140_600))).contains("only root may use it"), "its members may not write");
        assert!(say(None).contains("may not enter"));
    }
}
