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
    Xz,
    Bzip2,
}

impl Compression {
    /// Judges by the first bytes (six are enough).
    pub(crate) fn of(head: &[u8]) -> Self {
        let skippable = head.len() >= 4 && head[0] & 0xf0 == 0x50 && head[1..4] == [0x2a, 0x4d, 0x18];
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ if skippable => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', ..] => Self::Xz,
            [b'B', b'Z', b'h', ..] => Self::Bzip2,
            _ => Self::None,
        }
    }

    /// Returns the type of a layer stored so; `None` if layers are not: OCI has no name for it.
    pub(crate) fn media_type(self) -> Option<&'static str> {
        match self {
            Self::None => Some(crate::manifest::OCI_LAYER),
            Self::Gzip => Some(crate::manifest::OCI_LAYER_GZIP),
            Self::Zstd => Some(crate::manifest::OCI_LAYER_ZSTD),
            Self::Xz | Self::Bzip2 => None,
        }
    }

    /// Wraps a reader whose first bytes this was judged by.
    pub(crate) fn reader<'a>(self, inner: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
        Ok(match self {
            Self::None => Box::new(inner),
            Self::Gzip => Box::new(MultiGzDecoder::new(BufReader::with_capacity(128 << 10, inner))),
            Self::Zstd => Box::new(zstd::stream::read::Decoder::new(inner)?),
            Self::Xz => Box::new(lzma_rust2::XzReader::new(BufReader::with_capacity(128 << 10, inner), true)),
            Self::Bzip2 => Box::new(bzip2::read::MultiBzDecoder::new(inner)),
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

/// Returns the plain tar that a stream is, compressed or not; `None` if it is none.
///
/// # Errors
/// The stream cannot be read.
pub fn plain_tar<'a>(stream: impl Read + Send + 'a) -> Result<Option<Box<dyn Read + Send + 'a>>, Error> {
    let (head, whole) = sniff(stream).map_err(Error::Archive)?;
    let mut plain = Compression::of(&head).reader(whole).map_err(Error::Archive)?;
    let mut block = Vec::new();
    // What looks compressed and is not is a file like any other.
    if (&mut plain).take(512).read_to_end(&mut block).is_err() || !is_header(&block) {
        return Ok(None);
    }
    Ok(Some(Box::new(Cursor::new(block).chain(plain))))
}

/// Judges by the sum that every header of a tar carries. *Source:* tar(5), "checksum".
fn is_header(block: &[u8]) -> bool {
    let Some(field) = block.get(148..156).filter(|_| block.len() == 512) else { return false };
    let digits = field.iter().copied().skip_while(|b| *b == b' ').take_while(u8::is_ascii_digit);
    let claimed = digits.fold(0_u32, |sum, digit| sum.wrapping_mul(8).wrapping_add(u32::from(digit - b'0')));
    let sum = |blank: &[u8], rest: [&[u8]; 2]| {
        rest.iter().copied().chain([blank]).flatten().map(|byte| u32::from(*byte)).sum::<u32>()
    };
    claimed != 0 && sum(b"        ", [&block[..148], &block[156..]]) == claimed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tars_are_known_by_their_headers_not_by_their_names() {
        let file = |bytes: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            io::Write::write_all(&mut file, bytes).unwrap();
            io::Seek::rewind(&mut file).unwrap();
            file
        };
        let mut tar = tar::Builder::new(Vec::new());
        tar.append_data(&mut tar::Header::new_gnu(), "a", io::empty()).unwrap();
        let tar = tar.into_inner().unwrap();
        let mut gzip = flate2::read::GzEncoder::new(tar.as_slice(), flate2::Compression::fast());
        let mut packed = Vec::new();
        gzip.read_to_end(&mut packed).unwrap();
        for bytes in [&tar, &packed] {
            let mut plain = Vec::new();
            plain_tar(file(bytes)).unwrap().unwrap().read_to_end(&mut plain).unwrap();
            assert_eq!(plain, tar);
        }
        for other in [&b""[..], b"hello", &[0x1f, 0x8b, 1, 2, 3, 4, 5], &[0; 1024]] {
            assert!(plain_tar(file(other)).unwrap().is_none());
        }
        let packed: &[u8] = include_bytes!("testdata/empty.tar.xz");
        assert!(plain_tar(file(packed)).unwrap().is_some());
        let packed: &[u8] = include_bytes!("testdata/empty.tar.bz2");
        assert!(plain_tar(file(packed)).unwrap().is_some());
    }
}
