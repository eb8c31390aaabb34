//! A backup: the whole state at one index as a file that any manager can be made of.
//!
//! ```text
//!  "RSBACKv1" then blocks: [len u32][crc32c u32][zstd of records]
//!  records    length-delimited prost: one BackupHeader, then every Object
//! ```
//! It is not sealed with a member's key, which only that member has: whoever takes it away keeps it secret.

use crate::{snapshot::Builder, types::SnapshotMeta};
use model::{ClusterId, FEATURE_LEVEL, Tables, Timestamp};
use prost::Message as _;
use proto::{WireId as _, raft as wire, types};
use std::io;

const MAGIC: &[u8; 8] = b"RSBACKv1";
const FORMAT: u32 = 1;
/// Records are gathered into blocks of about this. *Unit:* bytes.
const BLOCK: usize = 256 << 10;
/// *Limit* of one, unpacked: an object has some megabytes. *Unit:* bytes.
const UNPACKED_MAX: usize = 64 << 20;
const FRAME: usize = 8;

/// What a backup was made of.
#[derive(Debug, Clone)]
pub struct Backup {
    pub cluster: ClusterId,
    pub made_at: Timestamp,
    pub tables: Tables,
}

/// Why bytes are no backup to go on from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    #[error("this is no backup of a swarm")]
    Foreign,
    #[error("the backup is damaged or was cut short: {0}; hint: take another copy of it")]
    Damaged(String),
    #[error(
        "the backup is of a newer version (format {format}, feature level {level}), and this one understands format \
         {FORMAT} and level {FEATURE_LEVEL}; hint: install the version that made it"
    )]
    Newer { format: u32, level: u32 },
}

/// Returns a state as the pieces of a file, in order. `None`: there is no swarm in it.
///
/// # Errors
/// It cannot be packed.
pub fn pack(tables: &Tables, at: Timestamp) -> io::Result<Option<Vec<Vec<u8>>>> {
    let Some(cluster) = &tables.cluster else { return Ok(None) };
    let header = wire::BackupHeader {
        format: FORMAT,
        feature_level: cluster.feature_level,
        cluster: cluster.id.to_wire(),
        index: tables.index,
        made_at: at.0,
        objects: tables.objects().count() as u64,
    };
    let mut pieces = vec![MAGIC.to_vec()];
    let mut block = header.encode_length_delimited_to_vec();
    for object in tables.objects() {
        if block.len() >= BLOCK {
            pieces.push(packed(&block)?);
            block.clear();
        }
        types::Object::from(&object).encode_length_delimited(&mut block).map_err(io::Error::other)?;
    }
    pieces.push(packed(&block)?);
    Ok(Some(pieces))
}

fn packed(plain: &[u8]) -> io::Result<Vec<u8>> {
    let packed = zstd::bulk::compress(plain, 3)?;
    let len = u32::try_from(packed.len()).map_err(io::Error::other)?;
    Ok([len.to_le_bytes().as_slice(), &crc32c::crc32c(&packed).to_le_bytes(), &packed].concat())
}

/// Reads a backup.
///
/// # Errors
/// [`BackupError`].
pub fn unpack(bytes: &[u8]) -> Result<Backup, BackupError> {
    let damaged = |why: &str| BackupError::Damaged(why.to_owned());
    let mut rest = bytes.strip_prefix(MAGIC).ok_or(BackupError::Foreign)?;
    let mut head = None;
    let mut builder = Builder::default();
    while !rest.is_empty() {
        let (frame, behind) =
            rest.split_first_chunk::<FRAME>().ok_or_else(|| damaged("a block is missing"))?;
        let word = |at: usize| u32::from_le_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
        let whole = behind.split_at_checked(word(0) as usize);
        let (block, behind) = whole.ok_or_else(|| damaged("the last block is not whole"))?;
        if crc32c::crc32c(block) != word(4) {
            return Err(damaged("a block has another checksum"));
        }
        let plain = zstd::bulk::decompress(block, UNPACKED_MAX).map_err(|e| damaged(&e.to_string()))?;
        let mut records = plain.as_slice();
        if head.is_none() {
            let header = wire::BackupHeader::decode_length_delimited(&mut records)
                .map_err(|e| damaged(&e.to_string()))?;
            let (format, level) = (header.format, header.feature_level);
            if format != FORMAT || level > FEATURE_LEVEL {
                return Err(BackupError::Newer { format, level });
            }
            head = Some(header);
        }
        while !records.is_empty() {
            let object = types::Object::decode_length_delimited(&mut records);
            let object = object.map_err(|e| damaged(&e.to_string()))?;
            builder.add(object).map_err(|e| BackupError::Damaged(model::with_causes(&e)))?;
        }
        rest = behind;
    }
    let head = head.ok_or_else(|| damaged("it has no block"))?;
    if builder.objects != head.objects {
        return Err(BackupError::Damaged(format!("it has {} of {} objects", builder.objects, head.objects)));
    }
    let mut tables = builder.finish(&SnapshotMeta::default());
    tables.index = head.index;
    let cluster = ClusterId::from_wire(&head.cluster).map_err(|e| damaged(&e.to_string()))?;
    if tables.cluster.as_ref().map(|c| c.id) != Some(cluster) {
        return Err(damaged("its swarm is not the one it names"));
    }
    Ok(Backup { cluster, made_at: Timestamp(head.made_at), tables })
}
