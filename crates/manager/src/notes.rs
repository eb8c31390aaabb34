//! What the history tells although nobody has written anything: what was refused, who read keys and tokens, whose
//! certificate was renewed.
//!
//! All of it can be brought about at will by somebody who may do less than write, so it is bounded: the same thing is
//! told once in a while, and of each kind no more than so many things an hour; the next record says how many were left
//! out. A flood of wrong passwords does not push out of the history what was done. The log has each of them. What a
//! manager refuses that does not lead (a token that is nobody's) it tells the leader, within the same bounds (`history`).

use crate::random::random_id;
use model::{AuditId, AuditRecord, Duration, Meta, NodeId, Person, Timestamp};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};
use tokio::time::Instant;
use tonic::Status;

/// Between two records of the same thing.
const PAUSE: Duration = Duration::from_secs(600);
/// *Limit* of records of a kind. *Unit:* per hour.
const PER_HOUR: u32 = 60;
/// *Limit* of things of a kind that are known to have been told.
const KNOWN_MAX: usize = 1024;
/// *Limit* of what a stranger calls himself, in a record. *Unit:* characters.
pub(crate) const NAME_CHARS_MAX: usize = 64;

/// Kinds that do not crowd each other out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Refusal,
    /// Of a key or token, by an admin.
    Read,
    /// Of a node's certificate.
    Renewal,
}

/// One thing that is told.
#[derive(Debug, Clone)]
pub(crate) struct Note {
    pub(crate) kind: Kind,
    pub(crate) person: String,
    pub(crate) from: String,
    pub(crate) via: Option<NodeId>,
    pub(crate) action: String,
    pub(crate) object: String,
    pub(crate) message: String,
}

impl Note {
    /// Returns what a person did to an object, or was refused.
    pub(crate) fn of(kind: Kind, person: &Person, action: &str, object: &str) -> Self {
        Self {
            kind,
            person: clean(&person.name, NAME_CHARS_MAX),
            from: person.from.clone(),
            via: (person.via != NodeId(0)).then_some(person.via),
            action: action.to_owned(),
            object: clean(object, 2 * NAME_CHARS_MAX),
            message: String::new(),
        }
    }
}

/// Returns what may stand in a record of what somebody else said.
pub(crate) fn clean(text: &str, chars_max: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(chars_max).collect()
}

/// Who, what, to whom.
type Thing = (String, String, String);

/// What was told of one kind.
#[derive(Debug)]
struct Told {
    /// When, and how often it happened since.
    things: BTreeMap<Thing, (Instant, u64)>,
    /// How many more may be told now.
    left: u32,
    refilled: Instant,
    /// Left out because there were too many.
    missed: u64,
}

impl Told {
    fn new(now: Instant) -> Self {
        Self { things: BTreeMap::new(), left: PER_HOUR, refilled: now, missed: 0 }
    }

    /// Returns how many were left out before this one; `None`: it is left out, too.
    fn admit(&mut self, now: Instant, thing: Thing) -> Option<u64> {
        let each = Duration::from_secs(3600) / PER_HOUR;
        let earned = now.duration_since(self.refilled).as_nanos() / each.as_nanos();
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        self.refilled += each * earned.min(PER_HOUR);
        if earned >= PER_HOUR {
            self.refilled = now;
        }
        self.left = self.left.saturating_add(earned).min(PER_HOUR);
        let repeated = match self.things.get_mut(&thing) {
            Some((at, missed)) if now.duration_since(*at) < PAUSE => {
                *missed += 1;
                return None;
            }
            Some((_, missed)) => std::mem::take(missed),
            None => 0,
        };
        if self.left == 0 {
            self.missed += 1 + repeated;
            return None;
        }
        self.left -= 1;
        if self.things.len() >= KNOWN_MAX {
            // At most so many are told within the pause: what goes is older.
            self.things.retain(|_, (at, missed)| now.duration_since(*at) < PAUSE || *missed > 0);
            while self.things.len() >= KNOWN_MAX {
                self.missed += self.things.pop_first().map_or(0, |(_, (_, missed))| missed);
            }
        }
        self.things.insert(thing, (now, 0));
        Some(repeated + std::mem::take(&mut self.missed))
    }
}

/// What this manager told while it led.
#[derive(Debug, Default)]
pub(crate) struct Notes(Mutex<BTreeMap<Kind, Told>>);

impl Notes {
    /// Returns how many like it were left out before this one; `None`: it is left out, too.
    pub(crate) fn admit(&self, note: &Note) -> Option<u64> {
        let now = Instant::now();
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let thing = (note.person.clone(), note.action.clone(), note.object.clone());
        told.entry(note.kind).or_insert_with(|| Told::new(now)).admit(now, thing)
    }
}

/// Returns a record that something was done to nothing that has a version.
pub(crate) fn record(note: Note, now: Timestamp) -> Result<AuditRecord, Status> {
    let random = u64::try_from(random_id()? >> 64).unwrap_or(0);
    Ok(AuditRecord {
        id: AuditId::new(now, random),
        meta: Meta::default(),
        person: note.person,
        from: note.from,
        via: note.via,
        action: note.action,
        object: note.object,
        before: 0,
        message: note.message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thing(object: &str) -> Thing {
        ("ann".to_owned(), "login refused".to_owned(), object.to_owned())
    }

    #[test]
    fn the_same_thing_is_told_once_in_a_while_and_counted() {
        let start = Instant::now();
        let mut told = Told::new(start);
        assert_eq!(told.admit(start, thing("a")), Some(0));
        for second in 1..600 {
            assert_eq!(told.admit(start + Duration::from_secs(second), thing("a")), None);
        }
        assert_eq!(told.admit(start + PAUSE, thing("a")), Some(599));
        assert_eq!(told.admit(start + 2 * PAUSE, thing("a")), Some(0));
    }

    #[test]
    fn a_flood_of_different_things_is_bounded_and_counted() {
        let start = Instant::now();
        let mut told = Told::new(start);
        let hour = Duration::from_secs(3600);
        let admitted = |told: &mut Told, at: Instant, from: u32, count: u32| {
            (from..from + count).filter_map(|n| told.admit(at, thing(&n.to_string()))).collect::<Vec<_>>()
        };
        assert_eq!(admitted(&mut told, start, 0, 10_000).len(), 60);
        // One more each minute, and the next tells of the rest.
        let later = admitted(&mut told, start + Duration::from_secs(120), 10_000, 10);
        assert_eq!(later, [9_940, 0]);
        assert_eq!(admitted(&mut told, start + 10 * hour, 20_000, 10_000).len(), 60);
        assert!(told.things.len() <= KNOWN_MAX);
        // For ever: no more than the limit in any hour, and memory has an end.
        for round in 1..100 {
            let at = start + hour * (20 + round);
            assert_eq!(admitted(&mut told, at, 100_000 * round, 2_000).len(), 60);
            assert!(told.things.len() <= KNOWN_MAX);
        }
    }
}
