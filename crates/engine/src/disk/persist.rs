//! How state gets to the disk: whole files, replaced atomically, on the platter before anyone is told.

use crate::error::{Error, Result};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs, io,
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
    let read = || {
        let about = fs::metadata(path)?;
        if !about.is_file() || about.len() > RECORD_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no file that was written here"));
        }
        fs::read(path)
    };
    match read() {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| Error::State { path: path.to_owned(), source }),
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
