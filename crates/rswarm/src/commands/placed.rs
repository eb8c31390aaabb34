//! Files that a command writes where its user says: whole or not at all, and for their owner alone, as they may hold
//! what a container, a volume or a swarm keeps to itself.

use anyhow::{Context as _, Result, bail};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};
use tempfile::NamedTempFile;

/// A file that is not in its place yet. It goes if it is dropped.
#[derive(Debug)]
pub(crate) struct Placed {
    file: NamedTempFile,
    path: PathBuf,
}

/// Refuses to put a file into the place of what is neither one nor a folder: as root that would cost the host its
/// `/dev/null`. Source: docker/cli `command.ValidateOutputPath`.
///
/// # Errors
/// With what is there.
pub(crate) fn check(path: &Path) -> Result<()> {
    match fs::metadata(path) {
        Ok(found) if found.is_file() || found.is_dir() => Ok(()),
        Ok(_) => bail!(
            "invalid output path: \"{}\" must be a directory or a regular file; hint: for a device or a pipe, redirect \
             standard output",
            path.display()
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("invalid output path: {}", path.display())),
    }
}

impl Placed {
    /// Begins a file beside where it will be, under a name that nobody can have put there before.
    ///
    /// # Errors
    /// As [`check`]; its folder cannot be written to.
    pub(crate) fn begin(path: &Path) -> Result<Self> {
        check(path)?;
        let failed = || format!("cannot write {}", path.display());
        let file = NamedTempFile::new_in(folder(path)).with_context(failed)?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Returns the file to write to.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub(crate) fn file(&self) -> io::Result<File> {
        self.file.as_file().try_clone()
    }

    /// Puts it into its place, once all of it is on the disk. Blocking.
    ///
    /// # Errors
    /// The disk is full or broken; what was there before is there still.
    pub(crate) fn finish(self) -> Result<()> {
        let Self { file, path } = self;
        let put = || -> io::Result<()> {
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|e| e.error)?;
            File::open(folder(&path))?.sync_all()
        };
        put().with_context(|| format!("cannot write {}", path.display()))
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Write as _,
        os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink},
    };

    #[test]
    fn what_is_no_file_keeps_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        symlink(&fifo, dir.path().join("link")).unwrap();
        symlink("/dev/null", dir.path().join("null")).unwrap();
        for name in ["fifo", "link", "null"] {
            let error = Placed::begin(&dir.path().join(name)).unwrap_err().to_string();
            assert!(error.contains("must be a directory or a regular file"), "{name}: {error}");
        }
        assert!(fs::symlink_metadata(&fifo).unwrap().file_type().is_fifo());
    }

    #[test]
    fn a_file_comes_whole_for_its_owner_alone_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let (path, victim) = (dir.path().join("data.tar"), dir.path().join("victim"));
        fs::write(&victim, "untouched").unwrap();
        // Where somebody may expect that it is written first.
        for guess in ["data.part", "data.tar.part", "data.new"] {
            symlink(&victim, dir.path().join(guess)).unwrap();
        }
        let write = |text: &str| {
            let placed = Placed::begin(&path).unwrap();
            placed.file().unwrap().write_all(text.as_bytes()).unwrap();
            placed
        };
        drop(write("half"));
        assert!(!path.exists() && fs::read_dir(dir.path()).unwrap().count() == 4);
        write("whole").finish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
        let error = Placed::begin(&dir.path().join("none/x")).unwrap_err().to_string();
        assert!(error.contains("none/x"), "{error}");
    }
}
