//! Tells by its first bytes how a stream is compressed, and undoes it.

use crate::error::Error;
use flate2::read::MultiGzDecoder;
use std::io::{self, BufReader, Chain, Cursor, Read};

/// How a layer is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// Judges by the first bytes (six are enough).
    ///
    /// # Errors
    /// A compression we know by sight, but do not undo.
    pub(crate) fn of(head: &[u8]) -> Result<Self, Error> {
        let skippable = head.len() >= 4 && head[0] & 0xf0 == 0x50 && head[1..4] == [0x2a, 0x4d, 0x18];
        match head {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Self::Zstd),
            _ if skippable => Ok(Self::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', ..] => Err(Error::Compression("xz")),
            [b'B', b'Z', b'h', ..] => Err(Error::Compression("bzip2")),
            _ => Ok(Self::None),
        }
    }

    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::None => crate::manifest::OCI_LAYER,
            Self::Gzip => crate::manifest::OCI_LAYER_GZIP,
            Self::Zstd => crate::manifest::OCI_LAYER_ZSTD,
        }
    }

    /// Wraps a reader whose first bytes this was judged by.
    pub(crate) fn reader<'a>(self, inner: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
        Ok(match self {
            Self::None => Box::new(inner),
            Self::Gzip => Box::new(MultiGzDecoder::new(BufReader::with_capacity(128 << 10, inner))),
            Self::Zstd => Box::new(zstd::stream::read::Decoder::new(inner)?),
        })
    }
}

/// A stream with its first bytes put back.
pub(crate) type Whole<R> = Chain<Cursor<Vec<u8>>, R>;

/// Reads the first bytes of a stream and gives them back in front of it.
pub(crate) fn sniff<R: Read>(mut inner: R) -> io::Result<(Vec<u8>, Whole<R>)> {
    let mut head = Vec::new();
    (&mut inner).take(6).read_to_end(&mut head)?;
    Ok((head.clone(), Cursor::new(head).chain(inner)))
}
