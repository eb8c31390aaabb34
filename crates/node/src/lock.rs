//! Changing the lock of a manager's key files, so that after a crash at any point one unlock key opens them all.
//!
//! ```text
//!              raft.key           node.pem     opens with
//!  before      old                old          old
//!  1           old and new        old          old
//!  2           old and new        new          new
//!  3           new                new          new
//! ```
//! Each step replaces one file whole (new file, fsync, rename, fsync of the folder). What a crash left after step 2
//! is finished at the next start, when the file is read.

use crate::record::Folder;
use anyhow::{Context, Result};
use pki::{Credentials, UnlockKey};
use store::Dek;

/// Seals this manager's keys with another unlock key; `None` takes the lock off.
///
/// # Errors
/// The disk refuses; the files open with the old lock or with the new one, and the call may be repeated.
pub(crate) fn change(
    folder: &Folder,
    credentials: &Credentials,
    dek: &Dek,
    new: Option<UnlockKey>,
) -> Result<()> {
    for step in STEPS {
        step(folder, credentials, dek, new.as_ref())?;
    }
    Ok(())
}

type Step = fn(&Folder, &Credentials, &Dek, Option<&UnlockKey>) -> Result<()>;

const STEPS: [Step; 3] = [
    |folder, credentials, dek, new| store(folder, dek, &[credentials.lock().as_ref(), new]),
    |_, credentials, _, new| credentials.relock(new.cloned()).context("cannot seal the node's key"),
    |folder, _, dek, new| store(folder, dek, &[new]),
];

fn store(folder: &Folder, dek: &Dek, locks: &[Option<&UnlockKey>]) -> Result<()> {
    let path = folder.raft_key();
    dek.store(&path, locks).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pki::{NodeKey, RootCa};

    fn key() -> Option<UnlockKey> {
        Some(UnlockKey::generate().unwrap())
    }

    /// Tells whether this lock opens both files.
    fn opens(folder: &Folder, lock: Option<&UnlockKey>) -> bool {
        Credentials::load(&folder.credentials(), lock).is_ok_and(|found| found.is_some())
            && Dek::load_or_create(&folder.raft_key(), lock).is_ok()
    }

    #[test]
    fn a_crash_at_any_point_leaves_files_that_one_unlock_key_opens() {
        for (old, new) in [(None, key()), (key(), key()), (key(), None)] {
            for steps in 0..=STEPS.len() {
                let dir = tempfile::tempdir().unwrap();
                let folder = Folder::new(dir.path());
                let cluster = model::ClusterId(1);
                let (root, node) = (RootCa::generate(cluster).unwrap(), NodeKey::generate().unwrap());
                let day = model::Duration::from_secs(24 * 3600);
                let csr = node.csr_pem().unwrap();
                let chain =
                    root.sign_csr(&csr, model::NodeId(1), model::Role::Manager, cluster, day).unwrap();
                let dir = folder.credentials();
                let credentials =
                    Credentials::create(&dir, &node.pem(), &chain, root.cert_pem(), old.clone()).unwrap();
                let dek = Dek::load_or_create(&folder.raft_key(), old.as_ref()).unwrap();
                for step in &STEPS[..steps] {
                    step(&folder, &credentials, &dek, new.as_ref()).unwrap();
                }
                let expected = if steps < 2 { &old } else { &new };
                assert!(opens(&folder, expected.as_ref()), "{steps} steps from {old:?} to {new:?}");
                let again = Credentials::load(&dir, expected.as_ref()).unwrap().unwrap();
                let dek = Dek::load_or_create(&folder.raft_key(), expected.as_ref()).unwrap();
                // The state is read again and says the same.
                change(&folder, &again, &dek, new.clone()).unwrap();
                assert!(opens(&folder, new.as_ref()));
                if old.is_some() {
                    assert!(
                        !opens(&folder, old.as_ref()) || new.is_none(),
                        "the old key still opens something"
                    );
                }
            }
        }
    }
}
