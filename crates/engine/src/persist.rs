//! How state gets to the disk: whole files, replaced atomically, on the platter before anyone is told.

use crate::error::{Error, Result};
use serde::{Serialize, de::DeserializeOwned};
use std::{fs, path::Path};

/// Replaces `path` by `value` as JSON: temporary file, fsync, rename, fsync of the folder. Blocking.
///
/// # Errors
/// On any I/O error; the old file is then still whole.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let bytes = serde_json::to_vec(value).map_err(|source| Error::State { path: path.to_owned(), source })?;
    sys::durable::replace(path, &bytes, 0o600).map_err(Error::io("write", path))
}

/// As [`write_json`], but does not wait for the platter: for what can be found out again after a crash.
pub(crate) fn write_json_lazily<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let bytes = serde_json::to_vec(value).map_err(|source| Error::State { path: path.to_owned(), source })?;
    sys::durable::replace_for_this_boot(path, &bytes, 0o600).map_err(Error::io("write", path))
}

/// Reads what [`write_json`] wrote; `None` if it does not exist.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| Error::State { path: path.to_owned(), source }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("read", path)(e)),
    }
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
