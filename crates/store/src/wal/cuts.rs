//! The log and the snapshots after a power cut at every moment: between any two things that are done to the disk, with
//! whatever it had of those that were not synced.

use super::{
    Log, Opened, Writing,
    open::Limits,
    tests::{dek, entry, id},
};
use crate::{
    rhythm::Rhythm,
    snapshot::Snapshots,
    types::{LogId, SnapshotMeta, Vote},
};
use model::Tables;
use openraft::{
    RaftLogReader as _,
    storage::{RaftLogStorage as _, RaftLogStorageExt as _},
};
use std::{collections::BTreeSet, path::Path, sync::Arc};
use testkit::lossy::{Image, Lie, Lossy};

/// Small segments without steps: many files, and little of each.
const LIMITS: Limits = Limits { segment: 6 << 10, cache: 4 << 10, reserve: 0 };
const ACTIONS: usize = 20;
/// Outcomes of each cut that are looked at: with nothing, with everything, and twice with a part of what was not synced.
const OUTCOMES: u64 = 4;

/// A member's disk, opened.
struct Member {
    log: Log,
    writer: Writing,
    snapshots: Snapshots,
}

impl Member {
    fn open(disk: &Lossy, root: &Path) -> Result<Self, String> {
        let disk = Arc::new(disk.clone());
        let rhythm = Arc::new(Rhythm::new(1, u64::MAX, 0, u64::MAX));
        let snapshots = Snapshots::open(disk.clone(), &root.join("snapshots"), &dek(), rhythm);
        let snapshots = snapshots.map_err(|error| error.to_string())?;
        let opened = super::open::open(disk, &root.join("log"), &dek(), 1, LIMITS, None);
        let Opened { log, writer, .. } = opened.map_err(|error| error.to_string())?;
        Ok(Self { log, writer, snapshots })
    }

    fn close(self) {
        drop(self.log);
        self.writer.join().unwrap();
    }

    async fn kept(&mut self) -> Kept {
        let mut reader = self.log.get_log_reader().await;
        let entries = reader.try_get_log_entries(..).await.unwrap();
        Kept {
            vote: reader.read_vote().await.unwrap(),
            purged: self.log.purged(),
            entries: entries.iter().map(|entry| entry.log_id).collect(),
            committed: self.log.read_committed().await.unwrap(),
        }
    }
}

/// What a member must know again.
#[derive(Debug, Clone, Default, PartialEq)]
struct Kept {
    vote: Option<Vote>,
    purged: Option<LogId>,
    entries: Vec<LogId>,
    /// It may say less.
    committed: Option<LogId>,
}

impl Kept {
    fn last(&self) -> u64 {
        self.entries.last().copied().or(self.purged).map_or(0, |id| id.index)
    }

    fn behind(&self, purged: Option<LogId>) -> Vec<LogId> {
        self.entries
            .iter()
            .copied()
            .filter(|id| purged.is_none_or(|purged| id.index > purged.index))
            .collect()
    }

    /// Tells what is wrong if a cut has left this of a disk on which `before` was acknowledged and `under_way` had begun.
    fn judge(&self, before: &Self, under_way: &Self) -> Result<(), String> {
        let one_of = |is: bool, what: &str| if is { Ok(()) } else { Err(what.to_owned()) };
        one_of([before.vote, under_way.vote].contains(&self.vote), "the vote")?;
        one_of([before.purged, under_way.purged].contains(&self.purged), "the mark of what was purged")?;
        let (old, new) = (before.behind(self.purged), under_way.behind(self.purged));
        // Of several entries the first ones may have come to the disk.
        let between = self.entries.starts_with(&old) && new.starts_with(&self.entries);
        one_of(between || self.entries == old || self.entries == new, "the entries")?;
        one_of(self.committed <= before.committed.max(under_way.committed), "the mark of what is committed")
    }
}

/// Numbers that follow from a seed (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}

/// Does something to a log, again and again; returns after how many deeds of the disk what was acknowledged.
async fn live(disk: &Lossy, root: &Path, seed: u64) -> Vec<(usize, Kept)> {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut member = Member::open(disk, root).unwrap();
    let mut kept = Kept::default();
    let mut told = vec![(disk.deeds(), kept.clone())];
    let mut term = 1;
    for _ in 0..ACTIONS {
        let last = kept.last();
        match random.below(10) {
            0 => {
                term += 1;
                let vote = Vote::new(term, random.below(3));
                member.log.save_vote(&vote).await.unwrap();
                kept.vote = Some(vote);
            }
            // What a new leader does not have.
            1 if kept.entries.len() > 3 => {
                let from = kept.committed.map_or(0, |id| id.index).max(last - random.below(3));
                let upto = kept.entries.iter().rfind(|id| id.index <= from).copied().or(kept.purged);
                member.log.truncate_after(upto).await.unwrap();
                kept.entries.retain(|id| upto.is_some_and(|upto| id.index <= upto.index));
            }
            2 if let Some(committed) = kept.committed.filter(|id| Some(*id) > kept.purged) => {
                let meta = SnapshotMeta { last_log_id: Some(committed), ..SnapshotMeta::default() };
                let mut tables = Tables::default();
                tables.index = committed.index;
                member.snapshots.save(&meta, &Arc::new(tables)).await.unwrap();
                told.push((disk.deeds(), kept.clone()));
                member.log.purge(committed).await.unwrap();
                kept.purged = Some(committed);
                kept.entries = kept.behind(kept.purged);
            }
            3 if last > 0 => {
                kept.committed = Some(kept.entries.last().copied().or(kept.purged).unwrap());
                member.log.save_committed(kept.committed).await.unwrap();
            }
            _ => {
                let count = 1 + random.below(4);
                let sizes: Vec<usize> = (0..count).map(|_| random.below(1500) as usize).collect();
                let entries: Vec<_> =
                    (last + 1..).zip(sizes).map(|(index, size)| entry(term, index, size)).collect();
                kept.entries.extend((last + 1..).take(entries.len()).map(|index| id(term, index)));
                member.log.blocking_append(entries).await.unwrap();
            }
        }
        told.push((disk.deeds(), kept.clone()));
    }
    member.close();
    told.push((disk.deeds(), kept));
    told
}

/// Opens what a cut has left, and goes on with it.
async fn boot(left: Image, before: &Kept, under_way: &Kept) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let disk = left.disk(dir.path()).unwrap();
    let mut member = Member::open(&disk, dir.path())?;
    let kept = member.kept().await;
    kept.judge(before, under_way).map_err(|what| format!("{what}: {kept:?}"))?;
    let has = member.snapshots.newest().and_then(|(meta, _)| meta.last_log_id);
    if has < kept.purged {
        return Err(format!("the log begins behind {:?}, and the snapshot has {has:?}", kept.purged));
    }
    member.log.blocking_append([entry(99, kept.last() + 1, 600)]).await.unwrap();
    let went_on = member.kept().await;
    member.close();
    let disk = disk.boot(0).unwrap();
    let mut again = Member::open(&disk, dir.path())?;
    let kept = again.kept().await;
    again.close();
    if kept.entries == went_on.entries { Ok(()) } else { Err(format!("what came after: {kept:?}")) }
}

/// Returns how many cuts were looked at, and what was wrong.
fn after_all_cuts(disk: Lossy, root: &Path, seed: u64) -> (usize, Vec<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let told = runtime.block_on(live(&disk, root, seed));
    let (mut looked, mut wrong) = (0, Vec::new());
    let mut outcome = seed * 1_000_003 * OUTCOMES;
    disk.each_moment(|deeds, platter| {
        if !wrong.is_empty() {
            return;
        }
        let next = told.iter().position(|(upto, _)| *upto > deeds).unwrap_or(told.len() - 1);
        let before = next.checked_sub(1).map_or_else(Kept::default, |before| told[before].1.clone());
        // Where everything was synced they are all the same.
        let left: BTreeSet<Image> =
            (outcome..outcome + OUTCOMES).map(|seed| platter.after_a_cut(seed)).collect();
        outcome += OUTCOMES;
        for left in left {
            looked += 1;
            if let Err(why) = runtime.block_on(boot(left, &before, &told[next].1)) {
                wrong.push(format!("seed {seed}, after deed {deeds}: {why}\nbefore: {before:?}"));
            }
        }
    });
    (looked, wrong)
}

/// `CUTS_SEEDS=FROM..TO` looks at other ones.
fn seeds() -> std::ops::Range<u64> {
    let Ok(asked) = std::env::var("CUTS_SEEDS") else { return 0..1 };
    let (from, to) = asked.split_once("..").expect("CUTS_SEEDS=FROM..TO");
    from.parse().expect("a number")..to.parse().expect("a number")
}

#[test]
fn whatever_was_acknowledged_outlives_a_power_cut_at_every_moment() {
    let mut all = 0;
    for seed in seeds() {
        let dir = tempfile::tempdir().unwrap();
        let (looked, wrong) = after_all_cuts(Lossy::new(dir.path()).recording(), dir.path(), seed);
        assert!(wrong.is_empty(), "cut {looked}: {}", wrong[0]);
        all += looked;
    }
    println!("{all} cuts");
}

#[test]
fn a_disk_that_does_not_sync_is_found_out() {
    for lie in [Lie::Files, Lie::Folders] {
        let dir = tempfile::tempdir().unwrap();
        let (_, wrong) = after_all_cuts(Lossy::new(dir.path()).recording().lying(lie), dir.path(), 0);
        assert!(!wrong.is_empty(), "{lie:?}");
    }
}
