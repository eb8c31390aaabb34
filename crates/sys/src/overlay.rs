//! Several folders as one filesystem (overlayfs), by whichever of the kernel's two ways this one has.
//!
//! ```text
//!  Linux >= 6.7   fsopen ─► lowerdir+=..  one call per layer ─► fsmount          attached nowhere
//!  before         mount(2) lowerdir=a:b   over a folder ─► open_tree(CLONE) ─► unmounted there again
//! ```
//!
//! # Why two (2026-11)
//! A layer of its own option is what has no limit of length, but Debian 12, Ubuntu 22.04 and RHEL 9 boot older kernels.
//! There one option has 255 bytes and a mount 4095, so that layers are named by descriptors.

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, OpenTreeFlags,
        UnmountFlags,
    },
};
use std::{
    ffi::CString,
    fmt, io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// Longest value of one filesystem option. *Source:* fsconfig(2), 256 with the NUL.
const OPTION_BYTES_MAX: usize = 255;

/// What an overlay consists of. *Source:* kernel Documentation/filesystems/overlayfs.rst.
#[derive(Debug, Clone, Copy)]
pub struct Layers<'a> {
    /// Top first; overlayfs wants two, or one and somewhere to write.
    pub lowers: &'a [PathBuf],
    /// Folders of one filesystem: what takes the changes, and what the kernel needs to make them.
    pub writable: Option<(&'a Path, &'a Path)>,
    /// Marks are kept in `user.*` attributes, which is what a user namespace may write.
    pub userxattr: bool,
}

/// An overlay while it is put together: [`Overlay::lower`] for each layer, [`Overlay::writable`], [`Overlay::option`],
/// [`Overlay::create`], [`Overlay::into_mount`].
#[derive(Debug)]
pub struct Overlay {
    way: Way,
    /// Kept open until the mount exists, for layers that are named by them.
    holders: Vec<OwnedFd>,
}

/// The kernel makes no filesystem of the layers.
#[derive(Debug)]
pub struct Refused {
    /// Why, as a number.
    pub errno: Errno,
    /// What it says besides; empty = nothing.
    pub said: String,
}

impl std::error::Error for Refused {}

/// By hand: what makes such code is a compiler's work of its own, and a release build does that twice for this crate.
impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { errno, said } = self;
        write!(f, "{errno}{}{said}", if said.is_empty() { "" } else { ": " })
    }
}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        Self::new(Self::from(refused.errno).kind(), refused)
    }
}

#[derive(Debug)]
enum Way {
    /// The context of fsopen(2).
    Context(OwnedFd),
    /// mount(2) over a folder, which is taken off again.
    Folder { place: PathBuf, lowers: String, rest: String },
}

impl Overlay {
    /// Begins one. `place`: a folder over which something may be mounted for a moment, in a mount namespace that is the
    /// caller's own; only kernels before 6.7 need it.
    ///
    /// # Errors
    /// As fsopen(2).
    pub fn begin(place: &Path) -> io::Result<Self> {
        if layer_by_layer()? { Self::in_context() } else { Ok(Self::over(place)) }
    }

    fn in_context() -> io::Result<Self> {
        let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        // What mount(8) and df(1) show.
        rustix::mount::fsconfig_set_string(context.as_fd(), "source", "overlay")?;
        Ok(Self { way: Way::Context(context), holders: Vec::new() })
    }

    fn over(place: &Path) -> Self {
        let way = Way::Folder { place: place.into(), lowers: String::new(), rest: String::new() };
        Self { way, holders: Vec::new() }
    }

    /// Adds the layer below those that there are.
    ///
    /// # Errors
    /// As open(2) and fsconfig(2).
    pub fn lower(&mut self, path: &Path) -> io::Result<()> {
        let named = self.named(path)?;
        match &mut self.way {
            Way::Context(context) => {
                rustix::mount::fsconfig_set_string(context.as_fd(), "lowerdir+", &named)?
            }
            Way::Folder { lowers, .. } => {
                if !lowers.is_empty() {
                    lowers.push(':');
                }
                lowers.push_str(&named.to_string_lossy());
            }
        }
        Ok(())
    }

    /// Names the folder that takes the changes, and the empty one beside it on the same mount.
    ///
    /// # Errors
    /// As open(2) and fsconfig(2).
    pub fn writable(&mut self, upper: &Path, work: &Path) -> io::Result<()> {
        for (key, path) in [("upperdir", upper), ("workdir", work)] {
            let named = self.named(path)?;
            match &mut self.way {
                Way::Context(context) => rustix::mount::fsconfig_set_string(context.as_fd(), key, &named)?,
                Way::Folder { rest, .. } => {
                    rest.push_str(&format!(",{key}={}", named.display()));
                }
            }
        }
        Ok(())
    }

    /// Sets another option; an empty `value` = it has none, as `userxattr`.
    ///
    /// # Errors
    /// As fsconfig(2).
    pub fn option(&mut self, key: &str, value: &str) -> io::Result<()> {
        match &mut self.way {
            Way::Context(context) if value.is_empty() => {
                rustix::mount::fsconfig_set_flag(context.as_fd(), key)?;
            }
            Way::Context(context) => rustix::mount::fsconfig_set_string(context.as_fd(), key, value)?,
            Way::Folder { rest, .. } => {
                rest.push(',');
                rest.push_str(key);
                if !value.is_empty() {
                    rest.push('=');
                    rest.push_str(&value.replace(',', "\\,"));
                }
            }
        }
        Ok(())
    }

    /// Makes the filesystem. Overlayfs goes on with the ids and rights of the thread that does this.
    ///
    /// # Errors
    /// As mount(2); with what the kernel says besides, where it does.
    pub fn create(&self) -> Result<(), Refused> {
        match &self.way {
            Way::Context(context) => rustix::mount::fsconfig_create(context.as_fd())
                .map_err(|errno| Refused { errno, said: said(context) }),
            Way::Folder { place, lowers, rest } => {
                let made = CString::new(format!("lowerdir={lowers}{rest}")).map_err(|_| Errno::INVAL);
                let mount = |options: CString| {
                    rustix::mount::mount("overlay", place, "overlay", MountFlags::empty(), options.as_c_str())
                };
                made.and_then(mount).map_err(|errno| Refused { errno, said: String::new() })
            }
        }
    }

    /// Returns it as a mount that is attached nowhere.
    ///
    /// # Errors
    /// As fsmount(2), open_tree(2).
    pub fn into_mount(self) -> io::Result<OwnedFd> {
        match &self.way {
            Way::Context(context) => Ok(rustix::mount::fsmount(
                context.as_fd(),
                FsMountFlags::FSMOUNT_CLOEXEC,
                MountAttrFlags::empty(),
            )?),
            Way::Folder { place, .. } => {
                let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
                let tree = rustix::mount::open_tree(rustix::fs::CWD, place, flags)?;
                rustix::mount::unmount(place, UnmountFlags::DETACH)?;
                Ok(tree)
            }
        }
    }

    /// Returns a path by which the kernel finds a folder here: its own, or that of a descriptor.
    fn named(&mut self, path: &Path) -> io::Result<PathBuf> {
        let in_full = matches!(self.way, Way::Context(_)) && path.as_os_str().len() <= OPTION_BYTES_MAX;
        if in_full {
            return Ok(path.into());
        }
        // Digits and slashes alone: nothing in it is to be escaped, and 128 of them fit a page.
        let holder = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let named = PathBuf::from(format!("/proc/self/fd/{}", holder.as_raw_fd()));
        self.holders.push(holder);
        Ok(named)
    }
}

/// Mounts an overlay that is attached nowhere, and seen by nobody before it is whole. Blocking.
///
/// # Errors
/// As [`Overlay`]'s steps.
pub fn mount(layers: Layers<'_>) -> io::Result<OwnedFd> {
    if layer_by_layer()? { put_together(Overlay::in_context()?, layers) } else { aside(layers) }
}

fn put_together(mut overlay: Overlay, layers: Layers<'_>) -> io::Result<OwnedFd> {
    for lower in layers.lowers {
        overlay.lower(lower)?;
    }
    if let Some((upper, work)) = layers.writable {
        overlay.writable(upper, work)?;
    }
    if layers.userxattr {
        overlay.option("userxattr", "")?;
    }
    overlay.create()?;
    overlay.into_mount()
}

/// Mounts in a mount namespace that a thread has to itself for that long.
fn aside(layers: Layers<'_>) -> io::Result<OwnedFd> {
    let place = layers.lowers.first().ok_or(Errno::INVAL)?;
    let mounted = || {
        crate::process::unshare_namespaces(libc::CLONE_NEWNS)?;
        // Before anything else: what is mounted here is not to be seen on the host.
        rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        put_together(Overlay::over(place), layers)
    };
    let made = std::thread::scope(|scope| scope.spawn(mounted).join());
    made.map_err(|_| io::Error::other("the thread that mounts has panicked"))?
}

/// Looks whether this kernel has overlayfs, and lets us mount it. (A module is loaded by that.)
///
/// # Errors
/// As fsopen(2): `NODEV` without overlayfs, `PERM` without the right to mount.
pub fn is_there() -> io::Result<()> {
    rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    Ok(())
}

/// Returns true if this kernel takes layers one by one. *Source:* Linux `fs/overlayfs/params.c`: since 6.7; what came
/// before 6.5 keeps any key until the mount is made, so that one which cannot be is tried first.
///
/// # Errors
/// As fsopen(2): without overlayfs, or the right to mount.
fn layer_by_layer() -> io::Result<bool> {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    if let Some(known) = KNOWN.get() {
        return Ok(*known);
    }
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let takes = |key| rustix::mount::fsconfig_set_string(context.as_fd(), key, "/").is_ok();
    let known = !takes("no-such-key") && takes("lowerdir+");
    Ok(*KNOWN.get_or_init(|| known))
}

/// Returns what the kernel says about a failed mount to who reads its context.
fn said(context: &OwnedFd) -> String {
    let mut buffer = [0; 256];
    match rustix::io::read(context, &mut buffer) {
        Ok(length) => String::from_utf8_lossy(&buffer[..length]).trim().to_owned(),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{FileType, fstat};
    use std::fs;

    type Mounted = fn(Layers<'_>) -> io::Result<OwnedFd>;
    /// The old way works on every kernel; the new one where this one has it.
    fn ways() -> Vec<Mounted> {
        let mut ways: Vec<Mounted> = vec![aside, mount];
        if layer_by_layer().unwrap() {
            ways.push(|layers| put_together(Overlay::in_context()?, layers));
        }
        ways
    }

    fn read(root: &OwnedFd, name: &str) -> io::Result<String> {
        let file = rustix::fs::openat(root, name, OFlags::RDONLY, Mode::empty())?;
        io::read_to_string(fs::File::from(file))
    }

    /// Returns what is mounted where this thread is.
    fn mounts() -> String {
        fs::read_to_string("/proc/thread-self/mountinfo").unwrap()
    }

    /// Returns folders of a tmpfs, which takes what an upper folder needs, each with a file of its own and a common one.
    /// It is mounted for this thread alone: tests that run beside it mount, too.
    fn folders(names: &[String]) -> (tempfile::TempDir, Vec<PathBuf>) {
        crate::process::unshare_namespaces(libc::CLONE_NEWNS).unwrap();
        let apart = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", apart).unwrap();
        let place = tempfile::tempdir().unwrap();
        rustix::mount::mount("tmpfs", place.path(), "tmpfs", MountFlags::empty(), None).unwrap();
        let made = names.iter().map(|name| {
            let folder = place.path().join(name);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("of"), name).unwrap();
            fs::write(folder.join(name), "mine").unwrap();
            folder
        });
        let made = made.collect();
        (place, made)
    }

    fn names(count: usize) -> Vec<String> {
        // Each character means something in a list of layers.
        (0..count).map(|n| format!("layer:{n},with=\\{}", "long".repeat(20))).collect()
    }

    #[test]
    fn both_ways_show_all_layers_the_first_on_top() {
        let names = names(120);
        let (place, lowers) = folders(&names);
        for way in ways() {
            let root = way(Layers { lowers: &lowers, writable: None, userxattr: true }).unwrap();
            assert_eq!(read(&root, "of").unwrap(), names[0]);
            for name in &names {
                assert_eq!(read(&root, name).unwrap(), "mine");
            }
        }
        rustix::mount::unmount(place.path(), UnmountFlags::DETACH).unwrap();
    }

    #[test]
    fn what_is_written_lands_in_the_upper_folder() {
        for (n, way) in ways().into_iter().enumerate() {
            let (place, folders) = folders(&["upper".into(), "lower".into()]);
            let (upper, work) = (&folders[0], place.path().join("work"));
            fs::create_dir(&work).unwrap();
            let layers = Layers { lowers: &folders[1..], writable: Some((upper, &work)), userxattr: true };
            let root = way(layers).unwrap();
            let made = rustix::fs::openat(&root, "new", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU).unwrap();
            rustix::io::write(&made, b"written").unwrap();
            assert_eq!(fs::read_to_string(upper.join("new")).unwrap(), "written", "way {n}");
            rustix::fs::unlinkat(&root, "lower", rustix::fs::AtFlags::empty()).unwrap();
            assert!(folders[1].join("lower").exists(), "way {n}");
            drop((made, root));
            rustix::mount::unmount(place.path(), UnmountFlags::DETACH).unwrap();
        }
    }

    #[test]
    fn the_mount_is_attached_nowhere_and_the_callers_mounts_stay_as_they_are() {
        let (place, lowers) = folders(&names(3));
        let before = mounts();
        for way in ways() {
            let root = way(Layers { lowers: &lowers, writable: None, userxattr: false }).unwrap();
            assert_eq!(mounts(), before);
            assert_eq!(FileType::from_raw_mode(fstat(&root).unwrap().st_mode), FileType::Directory);
            let target = place.path().join(&names(1)[0]);
            let flags = rustix::mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            rustix::mount::move_mount(&root, c"", rustix::fs::CWD, &target, flags).unwrap();
            let shown = mounts();
            assert_ne!(shown, before);
            assert!(shown.lines().any(|line| line.contains(" - overlay overlay ")), "{shown}");
            rustix::mount::unmount(&target, UnmountFlags::DETACH).unwrap();
        }
        rustix::mount::unmount(place.path(), UnmountFlags::DETACH).unwrap();
    }

    #[test]
    fn a_layer_that_is_not_there_is_an_error_of_that_file() {
        let (place, mut lowers) = folders(&names(2));
        lowers.push(place.path().join("gone"));
        for way in ways() {
            let why = way(Layers { lowers: &lowers, writable: None, userxattr: false }).unwrap_err();
            assert_eq!(why.kind(), io::ErrorKind::NotFound, "{why}");
        }
        rustix::mount::unmount(place.path(), UnmountFlags::DETACH).unwrap();
    }
}
