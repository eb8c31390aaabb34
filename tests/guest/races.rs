//! What hostile programs do while the engine looks: things change again and again while the other steps are done.

use crate::pair;
use rustix::fs::{CWD, RenameFlags};
use std::{
    fs, io,
    os::{fd::AsRawFd, unix::fs::symlink},
    path::{Path, PathBuf},
    thread,
};

fn paths(operand: &str) -> io::Result<(PathBuf, PathBuf)> {
    pair(operand).map(|(one, other)| (one.into(), other.into()))
}

fn for_ever(work: impl Fn() + Send + 'static) {
    drop(thread::spawn(move || {
        loop {
            work();
            // Those who are to lose the race need a processor too.
            thread::yield_now();
        }
    }));
}

/// Two paths change places.
pub(crate) fn swap(operand: &str) -> io::Result<()> {
    let (one, other) = paths(operand)?;
    for_ever(move || {
        rustix::fs::renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).ok();
    });
    Ok(())
}

/// Puts a link in place of what is there.
pub(crate) fn plant(operand: &str) -> io::Result<()> {
    let (path, target) = paths(operand)?;
    for_ever(move || {
        let link = path.with_extension("planted");
        if symlink(&target, &link).is_ok() {
            drop(fs::rename(&link, &path));
        }
    });
    Ok(())
}

/// Puts a link in place of a folder as soon as there is one.
pub(crate) fn ambush(operand: &str) -> io::Result<()> {
    let (path, target) = paths(operand)?;
    for_ever(move || {
        if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir())
            && fs::rename(&path, path.with_extension("moved")).is_ok()
        {
            drop(symlink(&target, &path));
        }
    });
    Ok(())
}

/// Looks for programs that are not this one, and says so when one can be opened for writing.
pub(crate) fn hunt() {
    for_ever(|| {
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let exe = entry.path().join("exe");
            let Ok(name) = fs::read_link(&exe) else { continue };
            if name == Path::new("/bin/guest") {
                continue;
            }
            // The process may end; what it ran is then no longer busy.
            let Ok(held) = fs::File::open(&exe) else { continue };
            let again = format!("/proc/self/fd/{}", held.as_raw_fd());
            for _ in 0..1000 {
                if fs::File::options().write(true).open(&again).is_ok() {
                    println!("hit {}", name.display());
                    return;
                }
            }
        }
    });
}
