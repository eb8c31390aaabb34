//! The group of a host whose members may use its daemon's socket as root does. *Source:* dockerd(8), `--group`.

use super::Origin;
use std::{fs, io, path::Path};

/// A group of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its number where it has no name.
    pub name: String,
    pub id: u32,
}

/// Where a host's own groups are. Those of a directory service are known here by their numbers only.
const GROUPS: &str = "/etc/group";

impl Group {
    /// Returns the group of this name or number; `None`: there is none of this name.
    ///
    /// # Errors
    /// The groups of this host cannot be read.
    pub fn find(wanted: &str) -> io::Result<Option<Self>> {
        Self::find_in(Path::new(GROUPS), wanted)
    }

    fn find_in(file: &Path, wanted: &str) -> io::Result<Option<Self>> {
        let text = match fs::read_to_string(file) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            text => text?,
        };
        let named = named(&text).find(|(name, _)| *name == wanted).map(|(_, id)| id);
        let id = named.or_else(|| wanted.parse().ok());
        Ok(id.map(|id| Self { name: wanted.to_owned(), id }))
    }

    /// Returns the group of this number.
    pub(super) fn with_id(id: u32) -> Self {
        let text = fs::read_to_string(GROUPS).unwrap_or_default();
        let name = named(&text).find(|(_, known)| *known == id).map(|(name, _)| name.to_owned());
        Self { name: name.unwrap_or_else(|| id.to_string()), id }
    }

    /// Returns who is at the other end of a socket of this group.
    pub(super) fn origin(&self, uid: u32, gid: u32, groups: &[u32]) -> Origin {
        let own = rustix::process::geteuid().as_raw();
        if uid == 0 || uid == own || gid == self.id || groups.contains(&self.id) {
            Origin::Unix { uid }
        } else {
            Origin::Outsider { uid, group: self.name.clone() }
        }
    }
}

/// Returns names and numbers. *Source:* group(5).
fn named(text: &str) -> impl Iterator<Item = (&str, u32)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?);
        Some((name, id.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_name_or_number() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("group");
        fs::write(&file, "root:x:0:\nrswarm:x:990:ann,bob\nbroken\n").unwrap();
        let id = |wanted| Group::find_in(&file, wanted).unwrap().map(|group| group.id);
        assert_eq!(id("rswarm"), Some(990));
        assert_eq!(id("4242"), Some(4242));
        assert_eq!(id("docker"), None);
        assert_eq!(id("broken"), None);
        assert_eq!(Group::find_in(&dir.path().join("none"), "rswarm").unwrap(), None);
    }

    #[test]
    fn root_and_members_are_let_in_and_nobody_else() {
        let group = Group { name: "rswarm".to_owned(), id: 990 };
        let own = rustix::process::geteuid().as_raw();
        for (uid, gid, groups) in [(0, 0, &[][..]), (own, 1, &[]), (1001, 990, &[]), (1001, 100, &[4, 990])] {
            assert_eq!(group.origin(uid, gid, groups), Origin::Unix { uid });
        }
        let outsider = group.origin(1002, 100, &[4, 27]);
        assert_eq!(outsider, Origin::Outsider { uid: 1002, group: "rswarm".to_owned() });
    }
}
