//! COPY and ADD: what is meant, its digest for the cache, and the copying itself. Blocking throughout.
//!
//! *Source:* Docker's Dockerfile reference "COPY", "ADD"; owners: files of the context are root's, those of a stage keep
//! theirs unless `--chown` says otherwise.

use super::tree::{Owner, Tree, kind};
use image::dockerfile::{IgnoreList, Pattern};
use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};
use sha2::{Digest as _, Sha256};
use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
};

/// Why files cannot be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error("file not found in build context or excluded by .dockerignore: stat {0}: file does not exist")]
    NotFound(String),
    #[error("no source files were specified: no pattern of {0} fits a file")]
    Nothing(String),
    #[error(
        "When using COPY with more than one source file, the destination must be a directory and end with a /"
    )]
    NeedsFolder,
    #[error("cannot copy to non-directory: {0}")]
    NotAFolder(String),
    #[error("cannot replace the directory {0} by a file")]
    IsAFolder(String),
    #[error(transparent)]
    Pattern(#[from] image::dockerfile::InvalidPattern),
    #[error("{path}: {source}")]
    Io {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("{path}: {source}")]
    Archive {
        path: String,
        #[source]
        source: image::Error,
    },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> CopyError + '_ {
    move |source| CopyError::Io { path: path.display().to_string(), source }
}

/// Where an item's bytes are.
#[derive(Debug)]
enum Content {
    /// In the tree; a symlink's is its target.
    Tree,
    Bytes(Vec<u8>),
    /// A file of the host that was made for this.
    Host(PathBuf),
    /// A tar in the tree (`None`) or on the host, to be unpacked.
    Archive(Option<PathBuf>),
}

/// One thing to copy.
#[derive(Debug)]
struct Item {
    /// In the tree it comes from.
    from: PathBuf,
    /// Below the destination; empty = a folder that is the destination itself.
    to: PathBuf,
    stat: Stat,
    content: Content,
}

/// What COPY or ADD means, gathered.
#[derive(Debug, Default)]
pub(super) struct Sources {
    items: Vec<Item>,
    /// Sources named, patterns counted by what they match.
    matched: usize,
    /// Folders among them: their content is copied.
    folders: usize,
}

/// How to gather.
#[derive(Debug, Default)]
pub(super) struct Rules {
    pub(super) exclude: IgnoreList,
    /// Folders of the source come along.
    pub(super) parents: bool,
    /// ADD: archives are unpacked.
    pub(super) unpack: bool,
}

/// How to write.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    /// `None` = as the source has it.
    pub(super) owner: Owner,
    /// `None` = as the source has it.
    pub(super) mode: Option<u32>,
    /// There is one uid only.
    pub(super) squash: bool,
}

impl Sources {
    /// Adds what paths and patterns of a tree stand for. A pattern may fit nothing beside what is there: such is a file that
    /// is copied where there is one (`COPY package.json yarn.lock* ./`). *Source:* moby `builder/dockerfile/copy.go`.
    pub(super) fn gather(&mut self, tree: &Tree, wanted: &[String], rules: &Rules) -> Result<(), CopyError> {
        for one in wanted {
            self.gather_one(tree, one, rules)?;
        }
        if self.matched == 0 && !wanted.is_empty() {
            return Err(CopyError::Nothing(wanted.join(" ")));
        }
        Ok(())
    }

    fn gather_one(&mut self, tree: &Tree, wanted: &str, rules: &Rules) -> Result<(), CopyError> {
        let matched = matches(tree, wanted)?;
        if matched.is_empty() {
            if is_pattern(wanted) {
                return Ok(());
            }
            return Err(CopyError::NotFound(wanted.trim_start_matches('/').to_owned()));
        }
        for path in matched {
            let stat = tree.stat(&path, true).map_err(at(&path))?;
            let stat = stat.ok_or_else(|| CopyError::NotFound(path.display().to_string()))?;
            let kept = if rules.parents { path.strip_prefix("/").unwrap_or(&path) } else { Path::new("") };
            self.matched += 1;
            if kind(&stat) == FileType::Directory {
                self.folders += 1;
                walk(tree, &path, kept, rules, &mut self.items)?;
                continue;
            }
            let name = path.file_name().unwrap_or_default();
            let to = if rules.parents { kept.to_owned() } else { PathBuf::from(name) };
            if rules.exclude.ignores(&to.to_string_lossy()) {
                continue;
            }
            let archive = rules.unpack && kind(&stat) == FileType::RegularFile && is_archive(tree, &path)?;
            let content = if archive { Content::Archive(None) } else { Content::Tree };
            self.items.push(Item { from: path, to, stat, content });
        }
        Ok(())
    }

    /// Adds a file that is in no tree: a here-document.
    pub(super) fn add_bytes(&mut self, name: &str, bytes: Vec<u8>) -> Result<(), CopyError> {
        let stat = made_up_stat(0o644)?;
        self.matched += 1;
        self.items.push(Item {
            from: PathBuf::new(),
            to: PathBuf::from(name),
            stat,
            content: Content::Bytes(bytes),
        });
        Ok(())
    }

    /// Adds a file that was downloaded; `mtime` in seconds since 1970.
    pub(super) fn add_host(
        &mut self,
        name: &str,
        file: PathBuf,
        mtime: Option<i64>,
        unpack: bool,
    ) -> Result<(), CopyError> {
        let mut stat = made_up_stat(0o600)?;
        stat.st_mtime = mtime.unwrap_or(0);
        self.matched += 1;
        let tar = |file: &Path| {
            let open = File::open(file).map_err(at(file))?;
            image::plain_tar(open).map_err(|source| CopyError::Archive { path: name.to_owned(), source })
        };
        let content =
            if unpack && tar(&file)?.is_some() { Content::Archive(Some(file)) } else { Content::Host(file) };
        self.items.push(Item { from: PathBuf::new(), to: PathBuf::from(name), stat, content });
        Ok(())
    }

    /// Returns the word that Docker's history has for them.
    pub(super) fn shown(&self, many: bool) -> &'static str {
        match () {
            () if many || self.matched > 1 => "multi",
            () if self.folders > 0 => "dir",
            () => "file",
        }
    }

    /// Returns a digest of all that would be copied: names, kinds, permissions, owners, bytes; not times.
    pub(super) fn digest(&self, tree: Option<&Tree>, owners: bool) -> Result<[u8; 32], CopyError> {
        let mut all = Sha256::new();
        for item in &self.items {
            let mut field = |bytes: &[u8]| {
                all.update((bytes.len() as u64).to_le_bytes());
                all.update(bytes);
            };
            field(item.to.as_os_str().as_bytes());
            field(&item.stat.st_mode.to_le_bytes());
            if owners {
                field(&item.stat.st_uid.to_le_bytes());
                field(&item.stat.st_gid.to_le_bytes());
            }
            match &item.content {
                Content::Bytes(bytes) => field(bytes),
                Content::Host(path) | Content::Archive(Some(path)) => {
                    field(&digest_of(File::open(path).map_err(at(path))?).map_err(at(path))?);
                }
                Content::Tree | Content::Archive(None) => {
                    let Some(tree) = tree else { continue };
                    let path = &item.from;
                    match kind(&item.stat) {
                        FileType::RegularFile => {
                            let file =
                                tree.open(path, OFlags::RDONLY | OFlags::NONBLOCK).map_err(at(path))?;
                            for (name, value) in xattrs(&file).map_err(at(path))? {
                                field(name.as_bytes());
                                field(&value);
                            }
                            field(&digest_of(File::from(file)).map_err(at(path))?);
                        }
                        FileType::Symlink => field(target_of(tree, path).map_err(at(path))?.as_bytes()),
                        _ => field(&item.stat.st_rdev.to_le_bytes()),
                    }
                }
            }
        }
        Ok(all.finalize().into())
    }

    /// Copies everything. `destination` begins at the root of `target`; `folder`: it was written with a slash at its end.
    pub(super) fn write(
        &self,
        tree: Option<&Tree>,
        target: &Tree,
        destination: &Path,
        folder: bool,
        written: Written,
    ) -> Result<(), CopyError> {
        if self.matched > 1 && !folder {
            return Err(CopyError::NeedsFolder);
        }
        let there = target.stat(destination, true).map_err(at(destination))?;
        let exists = there.as_ref().is_some_and(|stat| kind(stat) == FileType::Directory);
        let archives = self.items.iter().any(|item| matches!(item.content, Content::Archive(_)));
        let into = folder || exists || self.folders > 0 || archives;
        if into && there.is_some() && !exists {
            return Err(CopyError::NotAFolder(destination.display().to_string()));
        }
        let owner = written.owner.filter(|_| !written.squash);
        if into {
            // As Docker: folders on the way are root's.
            let parent = destination.parent().unwrap_or(Path::new("/"));
            target.make_folders(parent, None).map_err(at(destination))?;
            target.make_folders(destination, owner).map_err(at(destination))?;
        }
        let mut writer = Writer { tree, target, written, owner, links: HashMap::new(), times: Vec::new() };
        for item in &self.items {
            let to = if into { destination.join(&item.to) } else { destination.to_owned() };
            match &item.content {
                Content::Archive(host) => writer.unpack(item, host.as_deref(), destination)?,
                _ => writer.item(item, &to)?,
            }
        }
        writer.finish()
    }
}

/// A description for a file that was no file before.
fn made_up_stat(mode: u32) -> Result<Stat, CopyError> {
    let like = Path::new("/");
    let mut stat = rustix::fs::stat(like).map_err(|e| at(like)(e.into()))?;
    (stat.st_mode, stat.st_nlink, stat.st_mtime, stat.st_mtime_nsec) = (0o100_000 | mode, 1, 0, 0);
    (stat.st_uid, stat.st_gid) = (0, 0);
    Ok(stat)
}

fn is_archive(tree: &Tree, path: &Path) -> Result<bool, CopyError> {
    let file = tree.open(path, OFlags::RDONLY | OFlags::NONBLOCK).map_err(at(path))?;
    let tar = image::plain_tar(File::from(file));
    let tar = tar.map_err(|source| CopyError::Archive { path: path.display().to_string(), source })?;
    Ok(tar.is_some())
}

fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', '\\'])
}

/// Returns the paths a source stands for.
fn matches(tree: &Tree, wanted: &str) -> Result<Vec<PathBuf>, CopyError> {
    let clean = super::tree::rooted(wanted);
    let mut found = vec![PathBuf::from("/")];
    for part in clean.components().skip(1) {
        let text = part.as_os_str().to_string_lossy();
        let mut next = Vec::new();
        if !is_pattern(&text) {
            for path in found {
                let path = path.join(part);
                if tree.stat(&path, false).map_err(at(&path))?.is_some() {
                    next.push(path);
                }
            }
        } else {
            let pattern = Pattern::of_path(&text)?;
            for path in found {
                if !tree.is_folder(&path).map_err(at(&path))? {
                    continue;
                }
                let names = tree.names(&path).map_err(at(&path))?;
                let fits = names.iter().filter(|name| pattern.matches(&name.to_string_lossy()));
                next.extend(fits.map(|name| path.join(name)));
            }
        }
        found = next;
    }
    Ok(found)
}

/// Adds what is in a folder, and the folder itself if it has a name at the destination. Not recursive: folders nest as
/// deep as somebody likes.
fn walk(tree: &Tree, root: &Path, to: &Path, rules: &Rules, items: &mut Vec<Item>) -> Result<(), CopyError> {
    // `below` is the path seen from the source, which `--exclude` judges.
    let mut open = vec![(root.to_owned(), to.to_owned(), PathBuf::new())];
    while let Some((path, to, below)) = open.pop() {
        let first = below.as_os_str().is_empty();
        let ignored = !first && rules.exclude.ignores(&below.to_string_lossy());
        if ignored && rules.exclude.prunes() {
            continue;
        }
        let Some(stat) = tree.stat(&path, first).map_err(at(&path))? else { continue };
        if kind(&stat) == FileType::Directory {
            let mut names = tree.names(&path).map_err(at(&path))?;
            names.reverse(); // the last one pushed comes next
            open.extend(names.iter().map(|name| (path.join(name), to.join(name), below.join(name))));
        }
        // The root of a source has no entry of its own: its content is what is copied.
        if !ignored && !to.as_os_str().is_empty() {
            items.push(Item { from: path, to, stat, content: Content::Tree });
        }
    }
    Ok(())
}

fn digest_of(mut file: File) -> io::Result<[u8; 32]> {
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 256 << 10]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().into()),
            count => hasher.update(&buffer[..count]),
        }
    }
}

fn target_of(tree: &Tree, path: &Path) -> io::Result<OsString> {
    let link = tree.open(path, OFlags::PATH | OFlags::NOFOLLOW)?;
    Ok(OsString::from_vec(rustix::fs::readlinkat(&link, "", Vec::new())?.into_bytes()))
}

/// Returns the attributes that belong to the file and not to the overlay.
fn xattrs(file: &OwnedFd) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    let mut names = vec![0_u8; 64 << 10];
    let length = match rustix::fs::flistxattr(file, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(e) => return Err(e.into()),
    };
    let mut found = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let ours = name.starts_with(b"user.overlay.");
        if ours || !(name.starts_with(b"user.") || name == b"security.capability") {
            continue;
        }
        let mut value = vec![0_u8; 64 << 10];
        let length = rustix::fs::fgetxattr(file, name, &mut value[..])?;
        value.truncate(length);
        found.push((OsStr::from_bytes(name).to_owned(), value));
    }
    Ok(found)
}

struct Writer<'a> {
    tree: Option<&'a Tree>,
    target: &'a Tree,
    written: Written,
    owner: Owner,
    /// First copy of a file that has several names.
    links: HashMap<(u64, u64), PathBuf>,
    /// Of folders: set last, because making their content changes them.
    times: Vec<(PathBuf, Timestamps)>,
}

impl Writer<'_> {
    fn item(&mut self, item: &Item, to: &Path) -> Result<(), CopyError> {
        let parent = to.parent().unwrap_or(Path::new("/"));
        let folder = self.target.make_folders(parent, self.owner).map_err(at(to))?;
        let name = to.file_name().unwrap_or_default().to_owned();
        self.make_room(&folder, &name, item, to)?;
        self.make(item, &folder, &name, to).map_err(at(to))
    }

    fn make_room(&self, folder: &OwnedFd, name: &OsStr, item: &Item, to: &Path) -> Result<(), CopyError> {
        let there = match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => kind(&stat) == FileType::Directory,
            Err(Errno::NOENT) => return Ok(()),
            Err(e) => return Err(at(to)(e.into())),
        };
        match (there, kind(&item.stat) == FileType::Directory) {
            (true, true) => Ok(()),
            (true, false) => Err(CopyError::IsAFolder(to.display().to_string())),
            // A symlink to a folder stands for it.
            (false, true) if self.target.is_folder(to).map_err(at(to))? => Ok(()),
            (false, true) => Err(CopyError::NotAFolder(to.display().to_string())),
            (false, false) => {
                rustix::fs::unlinkat(folder, name, AtFlags::empty()).map_err(|e| at(to)(e.into()))
            }
        }
    }

    fn make(&mut self, item: &Item, folder: &OwnedFd, name: &OsStr, to: &Path) -> io::Result<()> {
        let stat = &item.stat;
        let mode = Mode::from_raw_mode(self.written.mode.unwrap_or(stat.st_mode) & 0o7777);
        let times = times(stat);
        match kind(stat) {
            FileType::Directory => {
                match rustix::fs::mkdirat(folder, name, mode) {
                    Err(Errno::EXIST) => {}
                    other => other?,
                }
                let made = self.target.open(to, OFlags::RDONLY | OFlags::DIRECTORY)?;
                self.own(made.as_fd(), stat)?;
                rustix::fs::fchmod(&made, mode)?;
                self.times.push((to.to_owned(), times));
                return Ok(());
            }
            FileType::RegularFile => {
                let id = (stat.st_dev, stat.st_ino);
                if stat.st_nlink > 1
                    && let Some(first) = self.links.get(&id)
                {
                    let parent = self.target.open(first.parent().unwrap_or(Path::new("/")), OFlags::PATH)?;
                    let first = first.file_name().unwrap_or_default();
                    return Ok(rustix::fs::linkat(&parent, first, folder, name, AtFlags::empty())?);
                }
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = rustix::fs::openat(folder, name, flags, Mode::from_raw_mode(0o600))?;
                self.fill(item, &made)?;
                self.own(made.as_fd(), stat)?;
                rustix::fs::fchmod(&made, mode)?;
                rustix::fs::futimens(&made, &times)?;
                if stat.st_nlink > 1 {
                    self.links.insert(id, to.to_owned());
                }
                return Ok(());
            }
            FileType::Symlink => {
                let Some(tree) = self.tree else { return Ok(()) };
                rustix::fs::symlinkat(target_of(tree, &item.from)?, folder, name)?;
            }
            kind @ (FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice) => {
                if self.written.squash && kind != FileType::Fifo {
                    return Ok(()); // only real root makes devices
                }
                rustix::fs::mknodat(folder, name, kind, mode, stat.st_rdev)?;
                rustix::fs::chmodat(folder, name, mode, AtFlags::empty())?;
            }
            FileType::Socket | FileType::Unknown => return Ok(()),
        }
        let (uid, gid) = self.owner.unwrap_or((stat.st_uid, stat.st_gid));
        if !self.written.squash {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            rustix::fs::chownat(folder, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(rustix::fs::utimensat(folder, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn own(&self, made: impl AsFd, stat: &Stat) -> io::Result<()> {
        if self.written.squash {
            return Ok(());
        }
        let (uid, gid) = self.owner.unwrap_or((stat.st_uid, stat.st_gid));
        Ok(rustix::fs::fchown(made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?)
    }

    fn fill(&self, item: &Item, made: &OwnedFd) -> io::Result<()> {
        let mut out = File::from(made.try_clone()?);
        match &item.content {
            Content::Bytes(bytes) => out.write_all(bytes),
            Content::Host(path) => io::copy(&mut File::open(path)?, &mut out).map(drop),
            Content::Tree | Content::Archive(_) => {
                let Some(tree) = self.tree else { return Ok(()) };
                let source = tree.open(&item.from, OFlags::RDONLY | OFlags::NONBLOCK)?;
                for (name, value) in xattrs(&source)? {
                    match rustix::fs::fsetxattr(made, &name, &value, XattrFlags::empty()) {
                        // A file system or a user that cannot hold it.
                        Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
                        Err(e) => return Err(e.into()),
                    }
                }
                io::copy(&mut File::from(source), &mut out).map(drop)
            }
        }
    }

    /// Unpacks a tar into the destination; its files keep their owners.
    fn unpack(&self, item: &Item, host: Option<&Path>, destination: &Path) -> Result<(), CopyError> {
        let shown = host.unwrap_or(&item.from);
        let file = match (host, self.tree) {
            (Some(path), _) => File::open(path).map_err(at(path))?,
            (None, Some(tree)) => File::from(tree.open(&item.from, OFlags::RDONLY).map_err(at(shown))?),
            (None, None) => return Ok(()),
        };
        let archive = |source| CopyError::Archive { path: shown.display().to_string(), source };
        let Some(tar) = image::plain_tar(file).map_err(archive)? else { return Ok(()) };
        let into =
            self.target.open(destination, OFlags::PATH | OFlags::DIRECTORY).map_err(at(destination))?;
        let path = format!("/proc/self/fd/{}", into.as_raw_fd());
        let root = crate::files::archive::Root::of(Path::new(&path)).map_err(at(destination))?;
        crate::files::archive::unpack(&root, tar, false, self.written.squash, None).map_err(at(shown))
    }

    fn finish(self) -> Result<(), CopyError> {
        for (path, times) in self.times.iter().rev() {
            let folder = self.target.open(path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(at(path))?;
            rustix::fs::futimens(folder, times).map_err(|e| at(path)(e.into()))?;
        }
        Ok(())
    }
}

fn times(stat: &Stat) -> Timestamps {
    let at = Timespec { tv_sec: stat.st_mtime, tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0) };
    Timestamps { last_access: at, last_modification: at }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt as _};

    struct Case {
        dir: tempfile::TempDir,
    }

    impl Case {
        fn new(files: &[(&str, &str)]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            for (path, content) in files {
                let path = dir.path().join("from").join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            }
            fs::create_dir_all(dir.path().join("to")).unwrap();
            Self { dir }
        }

        fn copy(&self, sources: &[&str], rules: &Rules, to: &str) -> Result<(), CopyError> {
            let tree = Tree::folder(&self.dir.path().join("from")).unwrap();
            let target = Tree::folder(&self.dir.path().join("to")).unwrap();
            let mut all = Sources::default();
            let sources: Vec<String> = sources.iter().map(|source| (*source).to_owned()).collect();
            all.gather(&tree, &sources, rules)?;
            let written = Written { owner: None, mode: None, squash: true };
            all.write(Some(&tree), &target, &super::super::tree::rooted(to), to.ends_with('/'), written)
        }

        fn files(&self) -> Vec<String> {
            fn list(folder: &Path, shown: &str, found: &mut Vec<String>) {
                for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                    let shown = format!("{shown}/{}", entry.file_name().to_str().unwrap());
                    if entry.file_type().unwrap().is_dir() {
                        list(&entry.path(), &shown, found);
                    } else {
                        found.push(shown);
                    }
                }
            }
            let mut found = Vec::new();
            list(&self.dir.path().join("to"), "", &mut found);
            found.sort();
            found
        }
    }

    #[track_caller]
    fn check(sources: &[&str], to: &str, expected: &[&str]) {
        let case = Case::new(&[("a.txt", "a"), ("b.txt", "b"), ("d/x", "x"), ("d/e/y", "y")]);
        case.copy(sources, &Rules::default(), to).unwrap();
        assert_eq!(case.files(), expected);
    }

    #[test]
    fn destinations_are_files_or_folders_as_docker_has_it() {
        check(&["a.txt"], "/n", &["/n"]);
        check(&["a.txt"], "/n/", &["/n/a.txt"]);
        check(&["a.txt"], "/", &["/a.txt"]);
        check(&["*.txt"], "/n/", &["/n/a.txt", "/n/b.txt"]);
        check(&["d"], "/n", &["/n/e/y", "/n/x"]);
        check(&["d", "a.txt"], "/n/", &["/n/a.txt", "/n/e/y", "/n/x"]);
        check(&["."], "/", &["/a.txt", "/b.txt", "/d/e/y", "/d/x"]);
        check(&["../../a.txt"], "/n", &["/n"]);
        check(&["*/e"], "/n", &["/n/y"]);
        // Patterns are for what may be there.
        check(&["a.txt", "no*", "n?", "b.tx[!t]", "no*/x"], "/n/", &["/n/a.txt"]);
    }

    #[test]
    fn what_is_not_there_or_does_not_fit_is_refused() {
        let case = Case::new(&[("a", "a"), ("b", "b"), ("d/a", "x")]);
        let none = Rules::default();
        assert!(matches!(case.copy(&["no"], &none, "/"), Err(CopyError::NotFound(name)) if name == "no"));
        assert!(
            matches!(case.copy(&["a", "no"], &none, "/"), Err(CopyError::NotFound(name)) if name == "no")
        );
        assert!(
            matches!(case.copy(&["n*", "o*"], &none, "/"), Err(CopyError::Nothing(all)) if all == "n* o*")
        );
        assert!(matches!(case.copy(&["a", "b"], &none, "/n"), Err(CopyError::NeedsFolder)));
        fs::create_dir(case.dir.path().join("to/a")).unwrap();
        assert!(matches!(case.copy(&["a"], &none, "/"), Err(CopyError::IsAFolder(_))));
        fs::write(case.dir.path().join("to/f"), "").unwrap();
        assert!(matches!(case.copy(&["d"], &none, "/f"), Err(CopyError::NotAFolder(_))));
    }

    #[test]
    fn excluded_files_stay_behind_and_parents_come_along() {
        let case = Case::new(&[("d/x.md", ""), ("d/e/y.md", ""), ("d/e/z", "")]);
        let rules = Rules { exclude: IgnoreList::new(["**/*.md"]).unwrap(), ..Rules::default() };
        case.copy(&["d"], &rules, "/n").unwrap();
        assert_eq!(case.files(), ["/n/e/z"]);
        let case = Case::new(&[("d/e/z", "")]);
        case.copy(&["d/e/z"], &Rules { parents: true, ..Rules::default() }, "/n/").unwrap();
        assert_eq!(case.files(), ["/n/d/e/z"]);
    }

    #[test]
    fn symlinks_lead_nowhere_but_into_the_trees() {
        let case = Case::new(&[("a", "a")]);
        let path = |p: &str| case.dir.path().join(p);
        std::os::unix::fs::symlink("/usr", path("from/out")).unwrap();
        std::os::unix::fs::symlink("../../../../etc/passwd", path("from/l")).unwrap();
        std::os::unix::fs::symlink("/inside", path("to/way")).unwrap();
        fs::create_dir(path("to/inside")).unwrap();
        assert!(matches!(case.copy(&["out/bin"], &Rules::default(), "/"), Err(CopyError::NotFound(_))));
        assert!(matches!(case.copy(&["l"], &Rules::default(), "/"), Err(CopyError::NotFound(_))));
        case.copy(&["a"], &Rules::default(), "/way/b").unwrap();
        assert_eq!(case.files(), ["/inside/b", "/way"]);
    }

    #[test]
    fn digests_see_names_bytes_and_modes_but_not_times() {
        let digest = |case: &Case| {
            let tree = Tree::folder(&case.dir.path().join("from")).unwrap();
            let mut all = Sources::default();
            all.gather(&tree, &[".".to_owned()], &Rules::default()).unwrap();
            all.digest(Some(&tree), false).unwrap()
        };
        let case = Case::new(&[("a", "1")]);
        let first = digest(&case);
        assert_eq!(first, digest(&Case::new(&[("a", "1")])));
        assert_ne!(first, digest(&Case::new(&[("a", "2")])));
        assert_ne!(first, digest(&Case::new(&[("b", "1")])));
        fs::set_permissions(case.dir.path().join("from/a"), fs::Permissions::from_mode(0o600)).unwrap();
        assert_ne!(first, digest(&case));
    }
}
