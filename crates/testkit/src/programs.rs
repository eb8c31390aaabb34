//! Files that a test is going to start.
//!
//! *Source:* execve(2), `ETXTBSY`: what somebody has open for writing is not started. A test that starts something while its
//! neighbour writes a program hands the neighbour's open file on to its child, until that has started in turn. So another
//! process writes: one that nobody else starts anything from.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

/// Writes a program of `text` with `mode`.
///
/// # Panics
/// It cannot be written.
pub fn write_program(path: &Path, text: &str, mode: u32) {
    let mut install =
        install(Path::new("/dev/stdin"), path, mode).stdin(Stdio::piped()).spawn().expect("install(1)");
    install.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
    assert!(install.wait().expect("it ends").success(), "cannot write {}", path.display());
}

/// Copies a program, and gives it `mode`.
///
/// # Panics
/// It cannot be copied.
pub fn copy_program(from: &Path, to: &Path, mode: u32) {
    let ended = install(from, to, mode).status().expect("install(1)");
    assert!(ended.success(), "cannot copy {} to {}", from.display(), to.display());
}

fn install(from: &Path, to: &Path, mode: u32) -> Command {
    let mut install = Command::new("install");
    install.args(["-m", &format!("{mode:o}")]).args([from, to]);
    install
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_program_starts_while_neighbours_start_theirs() {
        let folder = tempfile::tempdir().unwrap();
        thread::scope(|scope| {
            for neighbour in 0..4 {
                let folder = folder.path();
                scope.spawn(move || {
                    for round in 0..25 {
                        let path = folder.join(format!("{neighbour}-{round}"));
                        write_program(&path, "#!/bin/sh\nexit 7\n", 0o700);
                        assert_eq!(Command::new(&path).status().unwrap().code(), Some(7));
                        let copy = path.with_extension("copy");
                        copy_program(&path, &copy, 0o755);
                        assert_eq!(Command::new(&copy).status().unwrap().code(), Some(7));
                    }
                });
            }
        });
    }
}
