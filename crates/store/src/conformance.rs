//! openraft's own suite on our log and state machine.

use crate::{
    cipher::Dek,
    machine::Machine,
    rhythm::Rhythm,
    snapshot::Snapshots,
    types::TypeConfig,
    wal::{Log, Writing},
};
use openraft::{
    StorageError,
    testing::log::{StoreBuilder, Suite},
};
use std::{path::Path, sync::Arc};
use sys::disk::Os;
use tempfile::TempDir;

/// Makes stores in fresh directories; `reopened` closes and opens each once before it is used.
struct Fresh {
    reopened: bool,
}

fn open(dir: &Path) -> (Log, Machine, Writing) {
    let dek = Dek::new(&[7; 32]);
    let opened = Log::open(Arc::new(Os), &dir.join("log"), &dek, 0, None).unwrap();
    let machine = Machine::new(
        Snapshots::open(
            Arc::new(Os),
            &dir.join("snapshots"),
            &dek,
            Arc::new(Rhythm::new(10_000, u64::MAX, 0, 500)),
        )
        .unwrap(),
    );
    (opened.log, machine, opened.writer)
}

impl StoreBuilder<TypeConfig, Log, Machine, TempDir> for Fresh {
    async fn build(&self) -> Result<(TempDir, Log, Machine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        if self.reopened {
            let (log, machine, writer) = open(dir.path());
            drop((log, machine));
            writer.join().unwrap();
        }
        let (log, machine, _writer) = open(dir.path());
        Ok((dir, log, machine))
    }
}

#[tokio::test]
async fn the_store_keeps_openrafts_contract() {
    Suite::test_all(Fresh { reopened: false }).await.unwrap();
}

#[tokio::test]
async fn a_reopened_store_keeps_openrafts_contract() {
    Suite::test_all(Fresh { reopened: true }).await.unwrap();
}
