//! What a member keeps on disk about its membership, beside its certificate and its Raft log.

use anyhow::{Context, Result, ensure};
use model::Incarnation;
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};
use store::Store;

/// A member's own facts. Fields are only ever added, with defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Where this node listens for the others.
    pub(crate) listen_addr: SocketAddr,
    /// Where the others reach it.
    pub(crate) advertise_addr: SocketAddr,
    /// Underlay address of VXLAN.
    pub(crate) data_addr: IpAddr,
    /// What the others reach it at whatever its address is: an interface, as typed, or (empty) the only address of the
    /// host. `None`: an address was typed, and stays.
    #[serde(default)]
    pub(crate) follows: Option<String>,
    /// This node's part in Raft while it is a manager; a new number for each join.
    #[serde(default)]
    pub(crate) raft_id: Option<u64>,
    /// True once the leader has taken this manager in.
    #[serde(default)]
    pub(crate) raft_joined: bool,
    /// Managers last heard of, so that a restart finds one.
    #[serde(default)]
    pub(crate) managers: Vec<SocketAddr>,
    /// Version of the swarm object that the lock of the key files is from; a replica that is older does not count.
    #[serde(default)]
    pub(crate) lock_version: u64,
    /// Number in Raft of the store that takes the place of the one there is: it is whole on disk, beside it.
    #[serde(default)]
    pub(crate) successor: Option<u64>,
    /// Number and tag of the latest life of the swarm that was heard of.
    #[serde(default)]
    pub(crate) incarnation: Option<(u64, u64)>,
}

impl Record {
    pub(crate) fn incarnation(&self) -> Option<Incarnation> {
        self.incarnation.map(|(number, tag)| Incarnation { number, tag })
    }

    pub(crate) fn set_incarnation(&mut self, to: Option<Incarnation>) {
        self.incarnation = to.map(|i| (i.number, i.tag));
    }
}

/// The folder of a membership: `DATA_ROOT/swarm`.
#[derive(Debug, Clone)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(data_root: &Path) -> Self {
        Self(data_root.join("swarm"))
    }

    pub(crate) fn credentials(&self) -> PathBuf {
        self.0.join("certificates")
    }

    pub(crate) fn raft(&self) -> PathBuf {
        self.0.join("raft")
    }

    /// A store that is being made.
    pub(crate) fn raft_unfinished(&self) -> PathBuf {
        self.0.join("raft.unfinished")
    }

    /// A store that is whole and takes the place of the one there is.
    pub(crate) fn raft_successor(&self) -> PathBuf {
        self.0.join("raft.successor")
    }

    /// Makes the names in the folder durable.
    ///
    /// # Errors
    /// The disk refuses.
    pub(crate) fn sync(&self) -> Result<()> {
        sys::durable::sync_folder(&self.0).with_context(|| format!("cannot sync {}", self.0.display()))
    }

    pub(crate) fn raft_key(&self) -> PathBuf {
        self.0.join("raft.key")
    }

    pub(crate) fn agent(&self) -> PathBuf {
        self.0.join("agent")
    }

    fn record(&self) -> PathBuf {
        self.0.join("member.json")
    }

    /// Returns the record, `None` if this node is in no swarm.
    ///
    /// # Errors
    /// It is there but cannot be read: better to stop than to forget a membership.
    pub(crate) fn load(&self) -> Result<Option<Record>> {
        let path = self.record();
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(
                serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))?,
            )),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Writes the record: whole and durable, or not at all.
    ///
    /// # Errors
    /// The disk refuses; the old record stays.
    pub(crate) fn store(&self, record: &Record) -> Result<()> {
        let path = self.record();
        let write = || -> io::Result<()> {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
            sys::durable::replace(&path, &serde_json::to_vec_pretty(record)?, 0o600)
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// Forgets the membership. The record goes first: without it nothing else in here counts.
    ///
    /// # Errors
    /// The disk refuses; calling again goes on.
    pub(crate) fn forget(&self) -> Result<()> {
        for path in [self.record(), self.0.clone()] {
            let gone = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            match gone {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(e).with_context(|| format!("cannot remove {}", path.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Puts a store that the record names into the place of the one before it. Repeating it is harmless.
    ///
    /// # Errors
    /// The disk refuses; the next start goes on.
    pub(crate) fn finish(&self, record: &mut Record) -> Result<()> {
        let Some(raft_id) = record.successor else { return Ok(()) };
        let (place, whole) = (self.raft(), self.raft_successor());
        if whole.exists() {
            clear(&place)?;
            fs::rename(&whole, &place).with_context(|| format!("cannot rename {}", whole.display()))?;
            self.sync()?;
        }
        let found =
            Store::stored_raft_id(&place).with_context(|| format!("cannot read {}", place.display()))?;
        ensure!(found == Some(raft_id), "{} is not the store of member {raft_id}", place.display());
        record.raft_id = Some(raft_id);
        record.raft_joined = true;
        record.successor = None;
        self.store(record)
    }
}

/// Removes a folder with all that is in it, if it is there.
pub(crate) fn clear(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_and_is_forgotten_whole() {
        let root = std::env::temp_dir().join(format!("rswarm-record-{}", std::process::id()));
        let folder = Folder::new(&root);
        assert_eq!(folder.load().unwrap(), None);
        let record = Record {
            listen_addr: "0.0.0.0:2377".parse().unwrap(),
            advertise_addr: "192.0.2.1:2377".parse().unwrap(),
            data_addr: "192.0.2.1".parse().unwrap(),
            follows: Some("eth0".to_owned()),
            raft_id: Some(7),
            raft_joined: true,
            managers: vec!["192.0.2.2:2377".parse().unwrap()],
            lock_version: 3,
            successor: Some(8),
            incarnation: Some((9, u64::MAX)),
        };
        folder.store(&record).unwrap();
        assert_eq!(folder.load().unwrap(), Some(record));
        folder.forget().unwrap();
        folder.forget().unwrap();
        assert_eq!(folder.load().unwrap(), None);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_record_of_an_earlier_version_or_of_a_newer_one_is_read() {
        let read = |bytes: &[u8]| {
            let root = tempfile::tempdir().unwrap();
            let folder = Folder::new(root.path());
            fs::create_dir_all(&folder.0).unwrap();
            fs::write(folder.record(), bytes).unwrap();
            folder.load().unwrap().unwrap()
        };
        for commit in testkit::earlier::COMMITS {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/earlier").join(commit);
            let bytes = fs::read(path.join("member.json")).unwrap();
            let record = read(&bytes);
            assert_eq!(record.advertise_addr, "192.0.2.1:2377".parse().unwrap(), "{commit}");
            assert!(record.raft_joined && record.raft_id.is_some(), "{commit}");
            let mut newer: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            newer["not_known_yet"] = serde_json::json!({"x": 1});
            assert_eq!(read(newer.to_string().as_bytes()), record, "{commit}");
        }
    }

    #[test]
    fn a_damaged_record_is_not_taken_for_none() {
        let root = std::env::temp_dir().join(format!("rswarm-damaged-{}", std::process::id()));
        let folder = Folder::new(&root);
        fs::create_dir_all(&folder.0).unwrap();
        fs::write(folder.record(), "{").unwrap();
        assert!(folder.load().unwrap_err().to_string().contains("damaged"));
        fs::remove_dir_all(root).unwrap();
    }
}
