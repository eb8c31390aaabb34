//! What Docker puts into each container's tree beside its mounts: `/.dockerenv`, by which programs know where they run,
//! and `/etc/mtab`, which old ones read for what is mounted. An image's own are left alone.
//!
//! *Source:* moby `daemon/initlayer/setup_unix.go`. Its places to mount on are made when something is mounted there.

use crate::files::{
    copy_up,
    layers::{self, Found},
};
use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

/// What is made here: not the container's doing.
pub(crate) const PATHS: [&str; 2] = ["/.dockerenv", "/etc/mtab"];

/// Puts it into the upper folder of a new container. Blocking. With `squash` owners stay ours.
pub(crate) fn make(upper: &Path, image: &[PathBuf], squash: bool) -> io::Result<()> {
    if matches!(layers::child(image, &".dockerenv".into())?, Found::Missing) {
        fs::File::create_new(upper.join(".dockerenv"))?;
    }
    let etc = upper.join("etc");
    match layers::child(image, &"etc".into())? {
        Found::Folder(folders) => {
            if !matches!(layers::child(&folders, &"mtab".into())?, Found::Missing) {
                return Ok(());
            }
            fs::create_dir(&etc)?;
            // What is seen of a folder in two layers are owner and mode of the upper one.
            copy_up::set_metadata(fs::File::open(&etc)?, &fs::symlink_metadata(&folders[0])?, squash)?;
        }
        Found::Missing => fs::create_dir(&etc)?,
        Found::Other(_) => return Ok(()), // a link, to wherever
    }
    symlink("/proc/mounts", etc.join("mtab"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_the_image_has_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let tree = |name: &str| {
            let upper = dir.path().join(name);
            fs::create_dir(&upper).unwrap();
            upper
        };
        let image = tree("image");
        let upper = tree("bare");
        make(&upper, std::slice::from_ref(&image), true).unwrap();
        assert!(upper.join(".dockerenv").is_file());
        assert_eq!(fs::read_link(upper.join("etc/mtab")).unwrap(), Path::new("/proc/mounts"));

        fs::create_dir(image.join("etc")).unwrap();
        fs::set_permissions(image.join("etc"), fs::Permissions::from_mode(0o751)).unwrap();
        let upper = tree("with-etc");
        make(&upper, std::slice::from_ref(&image), true).unwrap();
        assert_eq!(fs::metadata(upper.join("etc")).unwrap().permissions().mode() & 0o777, 0o751);

        fs::write(image.join("etc/mtab"), "mine").unwrap();
        fs::write(image.join(".dockerenv"), "mine").unwrap();
        let upper = tree("with-all");
        make(&upper, std::slice::from_ref(&image), true).unwrap();
        assert_eq!(fs::read_dir(&upper).unwrap().count(), 0);

        fs::remove_dir_all(image.join("etc")).unwrap();
        symlink("/usr/etc", image.join("etc")).unwrap();
        let upper = tree("linked");
        make(&upper, &[image], true).unwrap();
        assert_eq!(fs::read_dir(&upper).unwrap().count(), 0);
    }
}
