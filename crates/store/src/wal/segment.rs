//! The form of a segment file: a head, then records up to the end.
//!
//! ```text
//!  head    "RSWALv1\n" [sequence u64]
//!  record  [len u32][crc32c u32][kind u8][payload: nonce and ciphertext, len bytes]     little endian
//!  zeros   preallocated space of the last segment
//! ```
//! The checksum covers length, kind and payload; the seal binds a record to its segment, offset and kind, so a
//! stale record left behind by a torn write can never pass for a new one.

use crate::cipher::Dek;
use std::io;

pub(super) const HEAD: usize = 16;
pub(super) const FRAME: usize = 9;
const MAGIC: &[u8; 8] = b"RSWALv1\n";
/// No record is longer; a greater length is damage. As large as a message between managers: what is proposed as a
/// whole is one record, and one that cannot be written ends the log. *Unit:* bytes.
const LONGEST: usize = 16 << 20;
const _: () = assert!(LONGEST > crate::propose::WHOLE + crate::propose::WHOLE / 8, "a whole is one record");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A prost `Entry`.
    Entry = 1,
    /// Every entry after this `LogId` is gone; empty: all are.
    TruncateAfter = 2,
    /// The last `LogId` known to be committed.
    Committed = 3,
    /// Everything before this offset (u64) of this segment was on disk when this was written.
    Synced = 4,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        [Self::Entry, Self::TruncateAfter, Self::Committed, Self::Synced]
            .into_iter()
            .find(|k| *k as u8 == byte)
    }
}

pub(super) fn head(sequence: u64) -> [u8; HEAD] {
    let mut out = [0; HEAD];
    out[..8].copy_from_slice(MAGIC);
    out[8..].copy_from_slice(&sequence.to_le_bytes());
    out
}

fn place(sequence: u64, offset: u64, kind: Kind) -> [u8; 17] {
    let mut out = [0; 17];
    out[..8].copy_from_slice(&sequence.to_le_bytes());
    out[8..16].copy_from_slice(&offset.to_le_bytes());
    out[16] = kind as u8;
    out
}

fn checksum(len: [u8; 4], kind: u8, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&len), &[kind]), payload)
}

/// Returns the bytes of a record that will stand at `offset`.
pub(super) fn frame(dek: &Dek, sequence: u64, offset: u64, kind: Kind, plain: &[u8]) -> io::Result<Vec<u8>> {
    let sealed = dek.seal(&place(sequence, offset, kind), plain)?;
    if sealed.len() > LONGEST {
        return Err(io::Error::other(format!("log record of {} bytes is too long", plain.len())));
    }
    let len = u32::try_from(sealed.len()).map_err(io::Error::other)?.to_le_bytes();
    let crc = checksum(len, kind as u8, &sealed).to_le_bytes();
    Ok([len.as_slice(), &crc, &[kind as u8], &sealed].concat())
}

/// A record read back.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) offset: u64,
    /// Of the whole record. *Unit:* bytes.
    pub(super) len: usize,
    pub(super) kind: Kind,
    pub(super) plain: Vec<u8>,
}

/// Why no record could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing was written here.
    End,
    Damaged(&'static str),
    /// Whole, but not written here with this key: no crash does that.
    Foreign,
}

/// Reads the record at `offset` of a segment's bytes.
pub(super) fn read(dek: &Dek, sequence: u64, bytes: &[u8], offset: usize) -> Result<Record, Fault> {
    let rest = bytes.get(offset..).unwrap_or_default();
    let Some((frame, rest)) = rest.split_at_checked(FRAME) else {
        return Err(if rest.iter().all(|b| *b == 0) { Fault::End } else { Fault::Damaged("cut short") });
    };
    if frame.iter().all(|b| *b == 0) {
        return Err(Fault::End);
    }
    let word = |at: usize| [frame[at], frame[at + 1], frame[at + 2], frame[at + 3]];
    let len = u32::from_le_bytes(word(0)) as usize;
    if len == 0 || len > LONGEST {
        return Err(Fault::Damaged("impossible length"));
    }
    let payload = rest.get(..len).ok_or(Fault::Damaged("cut short"))?;
    if checksum(word(0), frame[8], payload) != u32::from_le_bytes(word(4)) {
        return Err(Fault::Damaged("wrong checksum"));
    }
    let kind = Kind::of(frame[8]).ok_or(Fault::Damaged("unknown kind of record"))?;
    let plain = dek.open(&place(sequence, offset as u64, kind), payload).map_err(|_| Fault::Foreign)?;
    Ok(Record { offset: offset as u64, len: FRAME + len, kind, plain })
}

/// Returns true if a record behind `offset` testifies that `offset` had reached the disk: then damage there is
/// loss, not a write that a crash tore.
pub(super) fn was_synced(dek: &Dek, sequence: u64, bytes: &[u8], offset: usize) -> bool {
    (offset + 1..bytes.len().saturating_sub(FRAME)).any(|at| {
        bytes[at + 8] == Kind::Synced as u8
            && read(dek, sequence, bytes, at).is_ok_and(|record| {
                record.plain.try_into().is_ok_and(|durable| u64::from_le_bytes(durable) > offset as u64)
            })
    })
}

/// Reads one record whose bytes were taken from `offset` of a segment, and returns its plain text.
pub(super) fn read_at(dek: &Dek, sequence: u64, record: &[u8], offset: u64) -> Result<Vec<u8>, Fault> {
    let (frame, payload) = record.split_at_checked(FRAME).ok_or(Fault::Damaged("cut short"))?;
    let kind = Kind::of(frame[8]).ok_or(Fault::Damaged("unknown kind of record"))?;
    dek.open(&place(sequence, offset, kind), payload).map_err(|_| Fault::Foreign)
}
