//! Which commit the files of a deploy were made of, as git keeps it on disk. Nothing of git is run.
//!
//! *Source:* gitrepository-layout(5), git-worktree(1). Reads loose and packed references; of a repository with another
//! store of references (reftable) nothing is known.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// References may name references. *Source:* git, `SYMREF_MAXDEPTH`.
const STEPS_MAX: usize = 5;
/// Digits of SHA-1 and of SHA-256.
const DIGITS: [usize; 2] = [40, 64];

/// Returns the commit that is checked out in the repository that a folder is in, in hexadecimal. What was changed since and
/// is not committed is not seen. `None`: it is in no repository, or nothing is committed there yet.
pub(super) fn commit(folder: &Path) -> Option<String> {
    let own = folder.ancestors().find_map(repository)?;
    // A further working tree has a HEAD of its own, and shares the rest.
    let shared = match fs::read_to_string(own.join("commondir")) {
        Ok(path) => own.join(path.trim()),
        Err(_) => own.clone(),
    };
    let mut said = fs::read_to_string(own.join("HEAD")).ok()?;
    for _ in 0..STEPS_MAX {
        let Some(name) = said.trim().strip_prefix("ref:") else { return digits(said.trim()) };
        let name = name.trim();
        // Nothing outside of the repository is read, whatever is written in it.
        if !name.starts_with("refs/") || name.split('/').any(|part| part == "..") {
            return None;
        }
        let loose = [&own, &shared].into_iter().find_map(|folder| fs::read_to_string(folder.join(name)).ok());
        said = match loose {
            Some(said) => said,
            None => return packed(&fs::read_to_string(shared.join("packed-refs")).ok()?, name),
        };
    }
    None
}

/// Returns where the repository is whose working tree begins at a folder.
fn repository(folder: &Path) -> Option<PathBuf> {
    let entry = folder.join(".git");
    if entry.is_dir() {
        return Some(entry);
    }
    let text = fs::read_to_string(entry).ok()?;
    Some(folder.join(text.trim().strip_prefix("gitdir:")?.trim()))
}

/// Finds a reference in the file of those that are packed.
fn packed(text: &str, name: &str) -> Option<String> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(_, named)| *named == name).and_then(|(commit, _)| digits(commit))
}

fn digits(text: &str) -> Option<String> {
    let is_one = DIGITS.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_one.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "1111111111111111111111111111111111111111";
    const TWO: &str = "2222222222222222222222222222222222222222";

    fn write(folder: &Path, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, format!("{text}\n")).expect("a file");
        }
    }

    #[test]
    fn the_commit_is_found_wherever_git_keeps_it() {
        let packed = format!("# pack-refs with: peeled fully-peeled sorted\n{TWO} refs/heads/main\n^{ONE}");
        let (loose, branch) = ((".git/refs/heads/main", ONE), (".git/HEAD", "ref: refs/heads/main"));
        let packed = (".git/packed-refs", packed.as_str());
        for (files, found) in [
            (&[branch, loose][..], Some(ONE)),
            (&[branch, packed], Some(TWO)),
            (&[branch, loose, packed], Some(ONE)),
            (&[(".git/HEAD", TWO)], Some(TWO)),
            (&[branch], None),
            (&[(".git/HEAD", "ref: refs/../../../secret"), ("secret", ONE)], None),
            (
                &[(".git/HEAD", "ref: refs/heads/main"), (".git/refs/heads/main", "ref: refs/heads/main")],
                None,
            ),
            (&[(".git/HEAD", "nonsense")], None),
        ] {
            let folder = tempfile::tempdir().expect("a folder");
            write(folder.path(), files);
            write(folder.path(), &[("deploy/shop.yml", "")]);
            assert_eq!(commit(&folder.path().join("deploy")).as_deref(), found, "{files:?}");
        }
    }

    #[test]
    fn a_further_working_tree_is_at_its_own_commit() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = [
            (".git/HEAD", "ref: refs/heads/main"),
            (".git/refs/heads/main", ONE),
            (".git/refs/heads/other", TWO),
            (".git/worktrees/other/HEAD", "ref: refs/heads/other"),
            (".git/worktrees/other/commondir", "../.."),
            ("trees/other/.git", "gitdir: ../../.git/worktrees/other"),
        ];
        write(folder.path(), &files);
        assert_eq!(commit(&folder.path().join("trees/other")).as_deref(), Some(TWO));
        assert_eq!(commit(folder.path()).as_deref(), Some(ONE));
    }
}
