//! The log across restarts, crashes and damage.

use super::{Log, OpenLogError, Opened, Writing, open::Limits, segment, writer::segment_path};
use crate::{
    cipher::Dek,
    types::{Command, Entry, LogId, Vote},
};
use model::{Batch, Change, Object, Secret, SecretBytes, SecretId, SecretSpec};
use openraft::{
    EntryPayload, RaftLogReader as _,
    storage::{RaftLogStorage as _, RaftLogStorageExt as _},
};
use std::{
    fs,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};
use tempfile::TempDir;
use testkit::lossy::FullAt;

const LIMITS: Limits = Limits { segment: 64 << 10, cache: 16 << 10, reserve: 64 << 10 };

struct TestLog {
    log: Log,
    writer: Writing,
}

pub(super) fn dek() -> Dek {
    Dek::new(&[3; 32])
}

fn try_open(dir: &TempDir) -> Result<TestLog, OpenLogError> {
    open_on(Arc::new(sys::disk::Os), dir)
}

fn open_on(disk: Arc<dyn sys::disk::Disk>, dir: &TempDir) -> Result<TestLog, OpenLogError> {
    let Opened { log, writer, .. } = super::open::open(disk, dir.path(), &dek(), 1, LIMITS, None)?;
    Ok(TestLog { log, writer })
}

fn reopen(dir: &TempDir) -> TestLog {
    try_open(dir).unwrap()
}

/// Opens, reads the ids and closes again: a log left open would still write its last word later.
async fn stored_ids(dir: &TempDir) -> Vec<(u64, u64)> {
    let mut log = reopen(dir);
    let ids = log.ids().await;
    log.close();
    ids
}

impl TestLog {
    async fn append(
        &mut self,
        term: u64,
        indexes: impl IntoIterator<Item = u64>,
        size: usize,
    ) -> std::io::Result<()> {
        for index in indexes {
            self.log.blocking_append([entry(term, index, size)]).await?;
        }
        Ok(())
    }

    /// Terms and indexes of all entries.
    async fn ids(&mut self) -> Vec<(u64, u64)> {
        let mut reader = self.log.get_log_reader().await;
        let entries = reader.try_get_log_entries(..).await.unwrap();
        entries.iter().map(|e| (**e.log_id.committed_leader_id(), e.log_id.index)).collect()
    }

    fn close(self) {
        drop(self.log);
        self.writer.join().unwrap();
    }
}

pub(super) fn id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}

pub(super) fn entry(term: u64, index: u64, size: usize) -> Entry {
    let spec = SecretSpec {
        templated: false,
        name: index.to_string(),
        labels: model::Labels::new(),
        data: SecretBytes(vec![u8::try_from(index % 256).unwrap(); size]),
    };
    let secret = Secret { id: SecretId(u128::from(index)), meta: model::Meta::default(), spec };
    let batch = Batch { changes: vec![Change::Put(Object::Secret(Arc::new(secret)))], ..Batch::default() };
    let message = (&batch).into();
    let command = Command::new([(batch, message)].into_iter());
    Entry { log_id: id(term, index), payload: EntryPayload::Normal(command) }
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut out: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|f| f.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "wal"))
        .collect();
    out.sort();
    out
}

/// Where each record of the last segment begins, and where the last one ends.
fn records(path: &Path, sequence: u64) -> Vec<usize> {
    let bytes = fs::read(path).unwrap();
    let mut out = vec![segment::HEAD];
    while let Ok(record) = segment::read(&dek(), sequence, &bytes, out[out.len() - 1]) {
        out.push(out[out.len() - 1] + record.len);
    }
    out
}

fn overwrite(path: &Path, offset: usize, bytes: &[u8]) {
    fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, offset as u64).unwrap();
}

#[tokio::test]
async fn entries_vote_and_marks_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = reopen(&dir);
    log.append(1, 0..10, 100).await.unwrap();
    log.log.save_vote(&Vote::new(2, 9)).await.unwrap();
    log.log.truncate_after(Some(id(1, 7))).await.unwrap();
    log.append(2, 8..12, 100).await.unwrap();
    log.log.save_committed(Some(id(2, 9))).await.unwrap();
    log.log.purge(id(1, 3)).await.unwrap();
    log.close();

    let mut log = reopen(&dir);
    let expected: Vec<_> = (4..8).map(|i| (1, i)).chain((8..12).map(|i| (2, i))).collect();
    assert_eq!(log.ids().await, expected);
    assert_eq!(log.log.get_log_reader().await.read_vote().await.unwrap(), Some(Vote::new(2, 9)));
    assert_eq!(log.log.read_committed().await.unwrap(), Some(id(2, 9)));
    assert_eq!(log.log.get_log_state().await.unwrap().last_purged_log_id, Some(id(1, 3)));
    log.append(2, 12..14, 100).await.unwrap();
    log.close();
    assert_eq!(stored_ids(&dir).await.len(), 10);
}

#[tokio::test]
async fn entries_no_longer_in_memory_are_read_from_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = reopen(&dir);
    log.append(1, 0..40, 4096).await.unwrap();
    for round in 0..2 {
        assert!(segments(dir.path()).len() > 1, "the log has several segments");
        let mut reader = log.log.get_log_reader().await;
        let entries = reader.try_get_log_entries(0..40).await.unwrap();
        for (index, found) in (0..).zip(&entries) {
            let (EntryPayload::Normal(found), EntryPayload::Normal(wanted)) =
                (&found.payload, entry(1, index, 4096).payload)
            else {
                panic!("entry {index} is not a command in round {round}");
            };
            assert_eq!(found.batches, wanted.batches, "entry {index} in round {round}");
        }
        assert_eq!(entries.len(), 40);
        log.close();
        log = reopen(&dir);
    }
}

#[tokio::test]
async fn the_log_knows_how_large_it_is_between_two_entries_and_what_is_too_much() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = reopen(&dir);
    log.append(1, 11..41, 1000).await.unwrap();
    log.log.truncate_after(Some(id(1, 20))).await.unwrap();
    log.append(1, 21..41, 2000).await.unwrap();
    log.log.purge(id(1, 15)).await.unwrap();
    for reopened in [false, true] {
        if reopened {
            log.close();
            log = reopen(&dir);
        }
        let reader = log.log.reader();
        let (small, large) = (reader.bytes_between(19, 20), reader.bytes_between(39, 40));
        assert!((1000..1200).contains(&small) && (2000..2200).contains(&large), "{small} {large}");
        assert_eq!(reader.bytes_between(20, 40), 20 * large, "reopened: {reopened}");
        assert_eq!(reader.bytes_between(0, 20), 5 * small, "what is gone takes nothing");
        assert_eq!(reader.bytes_between(0, 1000), 5 * small + 20 * large);
        assert_eq!(reader.bytes_between(40, 40), 0);
        assert_eq!(reader.surplus(40, 3 * large), Some(37));
        assert_eq!(reader.surplus(22, 2 * large + small), Some(19));
        assert_eq!(reader.surplus(40, u64::MAX), None);
        assert_eq!(reader.surplus(41, 0), None, "that one is not here");
    }
    log.close();
}

#[tokio::test]
async fn purged_segments_are_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = reopen(&dir);
    log.append(1, 0..60, 4096).await.unwrap();
    let before = segments(dir.path()).len();
    log.log.purge(id(1, 50)).await.unwrap();
    assert!(segments(dir.path()).len() < before);
    log.close();
    let mut log = reopen(&dir);
    assert_eq!(log.ids().await, (51..60).map(|i| (1, i)).collect::<Vec<_>>());
    // A snapshot may carry the mark beyond everything the log has.
    log.log.purge(id(2, 100)).await.unwrap();
    log.append(2, 101..103, 10).await.unwrap();
    log.close();
    assert_eq!(stored_ids(&dir).await, vec![(2, 101), (2, 102)]);
}

#[tokio::test]
async fn a_torn_end_is_cut_off_and_the_log_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = reopen(&dir);
    log.append(1, 0..5, 200).await.unwrap();
    let meta = fs::read(dir.path().join("meta")).unwrap();
    log.close();
    let path = segment_path(dir.path(), 1);
    let whole = fs::read(&path).unwrap();
    let ends = records(&path, 1);
    // What a crash leaves: a record of entry 4 that was never synced, cut anywhere, then nothing or garbage.
    let last = ends[..ends.len() - 1].iter().rev().copied().find(|&at| whole[at + 8] == 1).unwrap();
    for cut in [last + 1, last + 8, last + 9, last + 50, last + 150] {
        for tail in [&[][..], &[0; 40], &[0xab; 40]] {
            fs::write(&path, [&whole[..cut], tail].concat()).unwrap();
            // Nor did a crash let it note how far it was.
            fs::write(dir.path().join("meta"), &meta).unwrap();
            let mut log = reopen(&dir);
            assert_eq!(log.ids().await, (0..4).map(|i| (1, i)).collect::<Vec<_>>(), "cut at {cut}");
            log.append(3, 4..6, 10).await.unwrap();
            log.close();
            assert_eq!(stored_ids(&dir).await.len(), 6);
        }
    }
}

#[tokio::test]
async fn damage_before_the_end_is_never_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = reopen(&dir);
    log.append(1, 0..40, 4096).await.unwrap();
    log.close();
    let all = segments(dir.path());
    assert!(all.len() > 2);
    for (position, path) in all.iter().enumerate() {
        let whole = fs::read(path).unwrap();
        let at = records(path, position as u64 + 1)[1];
        for (offset, bytes) in [(at + 20, &[0xff, 0xff, 0xff][..]), (at, &[0; 9]), (at, &[0xff; 4])] {
            overwrite(path, offset, bytes);
            let error = try_open(&dir).map(TestLog::close).unwrap_err();
            let OpenLogError::Damaged { file, offset, .. } = &error else { panic!("{error}") };
            assert_eq!((file, *offset), (path, at as u64));
            assert!(error.to_string().contains("is damaged at byte"), "{error}");
            fs::write(path, &whole).unwrap();
        }
    }
    fs::rename(&all[1], all[1].with_extension("gone")).unwrap();
    assert!(
        matches!(try_open(&dir).map(TestLog::close), Err(OpenLogError::Missing { file }) if file == all[1])
    );
}

#[tokio::test]
async fn synced_entries_at_the_end_are_not_mistaken_for_a_torn_write() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = reopen(&dir);
    log.append(1, 0..3, 200).await.unwrap();
    log.close();
    let path = segment_path(dir.path(), 1);
    let starts = records(&path, 1);
    let entry = starts[starts.len() - 3];
    overwrite(&path, entry + 30, b"rot");
    assert!(
        matches!(try_open(&dir).map(TestLog::close), Err(OpenLogError::Damaged { offset, .. }) if offset == entry as u64)
    );
}

#[tokio::test]
async fn a_segment_that_a_crash_left_without_a_head_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = reopen(&dir);
    log.append(1, 0..3, 200).await.unwrap();
    log.close();
    // Closed at its exact length, as before each new segment.
    let path = segment_path(dir.path(), 1);
    let end = *records(&path, 1).last().unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(end as u64).unwrap();
    fs::write(segment_path(dir.path(), 2), [0; 7]).unwrap();
    let mut log = reopen(&dir);
    log.append(1, 3..5, 10).await.unwrap();
    log.close();
    assert_eq!(stored_ids(&dir).await.len(), 5);
}

#[tokio::test]
async fn a_full_disk_stops_the_log_and_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    // There is room for the first segment only.
    let mut log = open_on(Arc::new(FullAt::new("0000000000000002.wal")), &dir).unwrap();
    let mut acknowledged = 0;
    let error = loop {
        match log.append(1, [acknowledged], 4096).await {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    assert!(acknowledged > 3, "{acknowledged}");
    assert!(error.to_string().contains("No space left"), "{error}");
    log.append(1, [acknowledged + 1], 1).await.unwrap_err();
    assert!(log.log.save_vote(&Vote::new(9, 9)).await.is_err(), "nothing is written any more");
    log.close();
    assert_eq!(stored_ids(&dir).await.len() as u64, acknowledged);
}

#[tokio::test]
async fn a_log_is_opened_only_by_its_member_and_with_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = reopen(&dir);
    log.append(1, 0..3, 10).await.unwrap();
    log.close();
    assert_eq!(Log::raft_id(dir.path()).unwrap(), Some(1));
    assert!(matches!(
        Log::open(Arc::new(sys::disk::Os), dir.path(), &dek(), 2, None),
        Err(OpenLogError::OtherMember { found: 1, wanted: 2, .. })
    ));
    let error = Log::open(Arc::new(sys::disk::Os), dir.path(), &Dek::new(&[4; 32]), 1, None).unwrap_err();
    assert!(error.to_string().contains("wrong key"), "{error}");
    assert_eq!(stored_ids(&dir).await.len(), 3, "the attempt destroyed nothing");
    let text = fs::read(segment_path(dir.path(), 1)).unwrap();
    assert!(!text.windows(4).any(|w| w == [1, 1, 1, 1]), "entries are not in clear");
}

/// What a member would have forgotten: its promise to whom it voted for, or entries that it acknowledged.
#[tokio::test]
async fn a_log_that_has_lost_something_is_refused_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = reopen(&dir);
    log.append(1, 0..40, 4096).await.unwrap();
    log.log.save_vote(&Vote::new(2, 9)).await.unwrap();
    log.append(2, 40..42, 4096).await.unwrap();
    log.close();
    let all = segments(dir.path());
    let last = all.last().unwrap();
    let kept = fs::read(last).unwrap();
    let refused = |what: &str| match try_open(&dir).map(TestLog::close) {
        Err(OpenLogError::Missing { .. } | OpenLogError::Damaged { .. }) => {}
        other => panic!("{what}: {other:?}"),
    };
    let end = *records(last, all.len() as u64).last().unwrap();
    for length in [0, segment::HEAD, end / 2, end - 1] {
        fs::write(last, &kept[..length]).unwrap();
        refused(&format!("the last segment has {length} bytes"));
    }
    fs::remove_file(last).unwrap();
    refused("the last segment is gone");
    for segment in &all[..all.len() - 1] {
        fs::remove_file(segment).unwrap();
    }
    refused("all segments are gone");
    fs::write(last, &kept).unwrap();
    fs::remove_file(dir.path().join("meta")).unwrap();
    refused("the vote is gone");
}

/// A file system of its own, so small that it gets full.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount(bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let size = std::ffi::CString::new(format!("size={bytes}")).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", dir.path(), "tmpfs", flags, size.as_c_str()).unwrap();
        Self(dir)
    }

    /// Takes all room that is left.
    fn fill(&self) {
        let mut ballast = fs::File::create(self.0.path().join("ballast")).unwrap();
        assert!(std::io::copy(&mut std::io::repeat(7), &mut ballast).is_err());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

#[tokio::test]
async fn a_log_on_a_full_disk_lives_on_its_reserve_and_gets_it_back() {
    let disk = SmallDisk::mount(32 << 20);
    let dir = disk.0.path().join("log");
    let limits = Limits { segment: 256 << 10, cache: 16 << 10, reserve: 4 << 20 };
    let open = || super::open::open(Arc::new(sys::disk::Os), &dir, &dek(), 1, limits, None);
    let Opened { log, writer, low, reserve, .. } = open().unwrap();
    let mut log = TestLog { log, writer };
    log.append(1, 0..3, 4096).await.unwrap();
    disk.fill();
    let mut last = 3;
    while !*low.borrow() {
        log.append(1, [last], 4096).await.unwrap();
        last += 1;
        assert!(last < 2000, "the disk never gets full");
    }
    log.append(1, last..last + 20, 4096).await.unwrap();
    log.log.save_vote(&Vote::new(2, 9)).await.unwrap();
    assert!(!reserve.restore(), "there is no room yet");
    log.close();
    fs::remove_file(disk.0.path().join("ballast")).unwrap();
    assert!(reserve.restore());
    disk.fill();
    assert!(reserve.is_kept(), "nobody else gets it");
    reserve.give_up();
    disk.fill();
    assert!(matches!(open().map(drop), Err(OpenLogError::NoRoom { .. })), "without it, it does not begin");
    fs::remove_file(disk.0.path().join("ballast")).unwrap();
    let Opened { log, writer, .. } = open().unwrap();
    let mut log = TestLog { log, writer };
    assert_eq!(log.ids().await.len() as u64, last + 20);
    log.close();
}
