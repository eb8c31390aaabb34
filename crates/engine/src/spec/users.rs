//! Who a container runs as: names of users and groups are those of the image.
//!
//! Source: passwd(5), group(5); moby `user` package: numbers need no entry, names do.

use crate::{
    error::{Error, Result},
    files::layers::Layers,
};

/// A process' identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Sorted, without duplicates.
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn users(passwd: &str) -> impl Iterator<Item = User<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|n| !n.is_empty())?;
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(User { name, uid, gid, home: fields.nth(1).unwrap_or("") })
    })
}

fn groups(group: &str) -> impl Iterator<Item = Group<'_>> {
    group.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|n| !n.is_empty())?;
        Some(Group { name, gid: fields.nth(1)?.parse().ok()?, members: fields.next().unwrap_or("") })
    })
}

/// Resolves `user[:group]` (empty = root) and more groups, from the files of the tree.
///
/// # Errors
/// `InvalidParameter` for names the image does not know.
pub(crate) fn resolve(layers: &Layers, user: &str, group_add: &[String]) -> Result<Identity> {
    let read = |path: &str| -> Result<String> {
        let bytes = layers.read(path).map_err(Error::io("read image file", path))?;
        Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
    };
    resolve_in(&read("/etc/passwd")?, &read("/etc/group")?, user, group_add)
}

fn resolve_in(passwd: &str, group: &str, user: &str, group_add: &[String]) -> Result<Identity> {
    let (user, wanted_group) = match user.split_once(':') {
        Some((u, g)) => (u, Some(g).filter(|g| !g.is_empty())),
        None => (user, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = user.parse::<u32>().ok();
    let entry =
        users(passwd).find(|u| u.name == user).or_else(|| users(passwd).find(|u| Some(u.uid) == number));
    let (uid, default_gid, home) = match (&entry, number) {
        (Some(e), _) => (e.uid, e.gid, e.home),
        (None, Some(n)) => (n, 0, ""),
        (None, None) => {
            return Err(Error::invalid(format!(
                "unable to find user {user}: no matching entries in passwd file"
            )));
        }
    };
    let gid_of = |wanted: &str| -> Result<u32> {
        let known = groups(group).find(|g| g.name == wanted).map(|g| g.gid);
        known.or_else(|| wanted.parse().ok()).ok_or_else(|| {
            Error::invalid(format!("unable to find group {wanted}: no matching entries in group file"))
        })
    };
    let gid = wanted_group.map_or(Ok(default_gid), gid_of)?;
    // As Docker since CVE-2022-36109: dropping a group must not be a way around a file's permissions.
    let mut more = vec![gid];
    // As Docker: memberships count only when no group was named.
    if wanted_group.is_none()
        && let Some(e) = &entry
    {
        more.extend(
            groups(group).filter(|g| g.members.split(',').any(|m| m.trim() == e.name)).map(|g| g.gid),
        );
    }
    for wanted in group_add {
        more.push(gid_of(wanted)?);
    }
    more.sort_unstable();
    more.dedup();
    let home = if home.is_empty() { "/" } else { home };
    Ok(Identity { uid, gid, groups: more, home: home.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nwww:x:33:33::/var/www:/bin/false\n\nbroken\n";
    const GROUP: &str = "root:x:0:\nwww:x:33:\nlogs:x:40:bob,www\nvideo:x:44:\n";

    #[track_caller]
    fn check(user: &str, add: &[&str], uid: u32, gid: u32, more: &[u32], home: &str) {
        let add: Vec<_> = add.iter().map(|s| (*s).to_owned()).collect();
        let got = resolve_in(PASSWD, GROUP, user, &add).unwrap();
        assert_eq!(got, Identity { uid, gid, groups: more.to_vec(), home: home.into() }, "{user}");
    }

    #[test]
    fn users_and_groups_are_resolved_as_docker_does() {
        check("", &[], 0, 0, &[0], "/root");
        check("www", &[], 33, 33, &[33, 40], "/var/www");
        check("33", &["video"], 33, 33, &[33, 40, 44], "/var/www");
        check("www:video", &[], 33, 44, &[44], "/var/www");
        check("1000", &["7"], 1000, 0, &[0, 7], "/");
        check("1000:2000", &[], 1000, 2000, &[2000], "/");
    }

    #[test]
    fn unknown_names_are_refused() {
        for user in ["bob", "root:nogroup"] {
            assert!(matches!(resolve_in(PASSWD, GROUP, user, &[]), Err(Error::InvalidParameter(_))));
        }
    }
}
