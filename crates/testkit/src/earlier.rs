//! What programs of earlier commits have written: folders named after the commit, kept beside the tests that read them.

use std::{fs, path::Path};

/// The commits of which there is something, oldest first.
pub const COMMITS: [&str; 2] = ["85afa86", "1a6c162"];

/// Copies a folder, for a test that changes what is in it.
///
/// # Panics
/// It cannot be read, or the other not be made.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("a folder of what was written") {
        let entry = entry.expect("what is in it");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a file can be copied");
        }
    }
}
