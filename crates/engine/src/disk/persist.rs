//! How state gets to the disk: whole files, replaced atomically, on the platter before anyone is told. A record that
//! changes often ([`append_json`]) has a line for each change, of which the last whole one counts: no file is made and
//! none deleted, and what need not outlive a power cut cannot take with it what was written for good.

use crate::error::{Error, Result};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

/// Replaces `path` by `value` as JSON: temporary file, fsync, rename, fsync of the folder. Blocking.
///
/// # Errors
/// On any I/O error; the old file is then still whole.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    sys::durable::replace(path, &json(path, value)?, 0o600).map_err(Error::io("write", path))
}

/// As [`write_json`] for two records of one folder, which is synced once.
///
/// # Errors
/// As [`write_json`], of the first that could not be written.
pub(crate) fn write_both<A: Serialize, B: Serialize>(one: (&Path, &A), other: (&Path, &B)) -> Result<()> {
    let (first, second) = (json(one.0, one.1)?, json(other.0, other.1)?);
    let changes = [(one.0, Some(&*first)), (other.0, Some(&*second))];
    match sys::durable::change_all(changes, 0o600).into_iter().next() {
        Some((path, error)) => Err(Error::io("write", path)(error)),
        None => Ok(()),
    }
}

/// As [`write_json`], but does not wait for the platter: for what can be found out again after a crash.
pub(crate) fn write_json_lazily<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    sys::durable::replace_for_this_boot(path, &json(path, value)?, 0o600).map_err(Error::io("write", path))
}

/// *Limit* of a record's lines; one that would have more is replaced by the last. *Unit:* bytes.
const LINES_MAX: u64 = 64 << 10;

/// Adds `value` as a line to the record at `path`, to be read by [`read_last_json`]; `synced`: on the platter when it
/// returns. Blocking.
///
/// # Errors
/// On any I/O error; what was there before is then still whole.
pub(crate) fn append_json<T: Serialize>(path: &Path, value: &T, synced: bool) -> Result<()> {
    let line = [b"\n", &*json(path, value)?, b"\n"].concat(); // begins anew behind one that was torn
    let write = || {
        let mut file = fs::OpenOptions::new().append(true).open(path)?;
        if file.metadata()?.len() + line.len() as u64 > LINES_MAX {
            return sys::durable::replace(path, &line, 0o600);
        }
        file.write_all(&line)?;
        if synced { file.sync_data() } else { Ok(()) }
    };
    write().map_err(Error::io("write", path))
}

fn json<T: Serialize>(path: &Path, value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|source| Error::State { path: path.to_owned(), source })
}

/// *Limit* of a record. *Unit:* bytes. None that was written here comes near it.
const RECORD_MAX: u64 = 256 << 20;

/// Reads what [`write_json`] wrote; `None` if it does not exist.
///
/// # Errors
/// It is no file, too large, or not what is expected; the error names it.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let Some(bytes) = read_record(path)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|source| Error::State { path: path.to_owned(), source })
}

/// Reads the last whole line of what [`append_json`] wrote, or what [`write_json`] did; `None` if it does not exist.
///
/// # Errors
/// As [`read_json`], if no line is whole.
pub(crate) fn read_last_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let Some(bytes) = read_record(path)? else { return Ok(None) };
    let mut failed = None;
    // A power cut may leave the room of what was added last, and nothing in it: no line ends before that.
    let ends = |byte: &u8| matches!(byte, b'\n' | 0);
    for line in bytes.rsplit(ends).filter(|line| !line.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(value) => {
                if let Some(error) = failed {
                    tracing::warn!(
                        path = %path.display(), %error,
                        "a record is torn or damaged at its end: what it said before counts"
                    );
                }
                return Ok(Some(value));
            }
            Err(error) => drop(failed.get_or_insert(error)),
        }
    }
    // Nothing at all fails as an empty file does.
    let failed = failed.map_or_else(|| serde_json::from_slice::<T>(b"").map(drop), Err);
    failed.map(|()| None).map_err(|source| Error::State { path: path.to_owned(), source })
}

fn read_record(path: &Path) -> Result<Option<Vec<u8>>> {
    let read = || {
        let about = fs::metadata(path)?;
        if !about.is_file() || about.len() > RECORD_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no file that was written here"));
        }
        fs::read(path)
    };
    match read() {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("read", path)(e)),
    }
}

/// As [`read_json`], for a record without which the daemon goes on: one that is damaged is put aside beside where it
/// was, and said to be.
pub(crate) fn read_or_set_aside<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let error = match read_json(path) {
        Ok(found) => return found,
        Err(error) => error,
    };
    let aside = set_aside(path);
    let moved = fs::rename(path, &aside).map_err(|e| e.to_string()).err();
    tracing::error!(
        path = %path.display(), error = model::with_causes(&error), not_moved = moved,
        hint = format!("mend {} and move it back, or delete it", aside.display()),
        "a record is damaged and was set aside"
    );
    None
}

/// Returns where a damaged record is put.
pub(crate) fn set_aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".damaged");
    name.into()
}

/// Serializes by `Display` and `FromStr` (ids).
pub(crate) mod display {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::{fmt::Display, str::FromStr};

    pub(crate) fn serialize<T: Display, S: Serializer>(v: &T, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(v)
    }

    pub(crate) fn deserialize<'de, T, D>(d: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

/// Serializes a moment as nanoseconds since 1970.
pub(crate) mod nanos {
    use model::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(t: &Timestamp, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_i64(t.0)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Timestamp, D::Error> {
        i64::deserialize(d).map(Timestamp)
    }
}

/// As [`nanos`], for a moment that may not have come yet.
pub(crate) mod nanos_option {
    use model::Timestamp;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(t: &Option<Timestamp>, s: S) -> Result<S::Ok, S::Error> {
        t.map(|t| t.0).serialize(s)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Timestamp>, D::Error> {
        Ok(Option::<i64>::deserialize(d)?.map(Timestamp))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(path: &Path) -> Result<Option<Vec<u32>>> {
        read_last_json(path)
    }

    #[test]
    fn the_last_whole_line_of_a_record_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        assert_eq!(last(&path).unwrap(), None);
        assert!(append_json(&path, &[1], true).is_err(), "it is made by write_json");
        write_json(&path, &[1]).unwrap();
        assert_eq!(last(&path).unwrap(), Some(vec![1]));
        append_json(&path, &[2, 3], false).unwrap();
        append_json(&path, &[4, 5, 6], true).unwrap();
        assert_eq!(last(&path).unwrap(), Some(vec![4, 5, 6]));

        // What a power cut leaves of the last line: a part, or nothing but room.
        let whole = fs::read(&path).unwrap();
        let line = "\n[4,5,6]\n".len();
        for len in whole.len() - line..whole.len() - 1 {
            for torn in [whole[..len].to_vec(), [&whole[..len], &vec![0; whole.len() - len]].concat()] {
                fs::write(&path, torn).unwrap();
                let expected = if len == whole.len() - 1 { vec![4, 5, 6] } else { vec![2, 3] };
                assert_eq!(last(&path).unwrap(), Some(expected), "{len}");
                append_json(&path, &[7], true).unwrap();
                assert_eq!(last(&path).unwrap(), Some(vec![7]), "{len}");
            }
        }
    }

    #[test]
    fn what_was_written_for_good_counts_when_the_first_line_that_was_added_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        write_json(&path, &[1]).unwrap();
        let good = fs::read(&path).unwrap();
        append_json(&path, &[2, 3], false).unwrap();
        let whole = fs::read(&path).unwrap();
        for len in good.len()..whole.len() {
            let torn = [&whole[..len], &vec![0; whole.len() - len]].concat();
            fs::write(&path, torn).unwrap();
            let expected = if len == whole.len() - 1 { vec![2, 3] } else { vec![1] };
            assert_eq!(last(&path).unwrap(), Some(expected), "{len}");
            append_json(&path, &[7], true).unwrap();
            assert_eq!(last(&path).unwrap(), Some(vec![7]), "{len}");
        }
    }

    #[test]
    fn a_record_without_a_whole_line_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        for damage in ["", "\n\n", "[1", "\0\0", "{}\n[1"] {
            fs::write(&path, damage).unwrap();
            assert!(matches!(last(&path), Err(Error::State { .. })), "{damage:?}");
        }
    }

    #[test]
    fn a_record_that_changes_often_does_not_grow_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        write_json(&path, &vec![0; 1000]).unwrap();
        for number in 0..200 {
            append_json(&path, &vec![number; 1000], false).unwrap();
            assert_eq!(last(&path).unwrap(), Some(vec![number; 1000]));
            assert!(fs::metadata(&path).unwrap().len() <= LINES_MAX);
        }
    }
}
