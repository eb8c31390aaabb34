//! Reads tar streams entry by entry, with bounded memory whatever the stream says.
//!
//! The `tar` crate decodes the 512-byte headers; what ties several headers into one entry (PAX records, GNU long
//! names, sparse maps) is done here, because values of PAX records may hold newlines (`security.capability`) and
//! sizes have to be bounded. *Source:* POSIX `pax`, GNU tar manual "Tar Internals", libarchive `tar.5`.

use std::io::{self, Read};
use tar::{EntryType, Header};

const BLOCK: u64 = 512;
/// *Unit:* bytes of one PAX header or long name. Paths end at 4096, xattrs at 64 KiB each.
const MAX_EXTENSION_BYTES: u64 = 1 << 20;
const MAX_SPARSE_CHUNKS: usize = 1 << 20;

/// One thing in a tar, with all its extension headers taken in.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) kind: EntryType,
    /// As written: may be absolute or hold `..`.
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    /// Seconds and nanoseconds since 1970.
    pub(crate) mtime: (i64, u32),
    /// *Unit:* bytes of the file once unpacked.
    pub(crate) size: u64,
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Offset and length of each piece of data; `None` when the data is the whole file.
    pub(crate) sparse: Option<Vec<(u64, u64)>>,
}

/// Reads entries; as a [`Read`], the data of the entry last returned.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    inner: R,
    /// *Unit:* bytes of the current entry not read yet, and of the padding after them.
    left: u64,
    padding: u64,
    ended: bool,
    marked: bool,
}

/// What extension headers say of the entry that follows.
#[derive(Debug, Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse_name: Option<Vec<u8>>,
    sparse_size: Option<u64>,
    sparse_major: Option<u64>,
    sparse_map: Vec<u64>,
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_owned())
}

impl<R: Read> Reader<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, left: 0, padding: 0, ended: false, marked: false }
    }

    /// Returns the next entry; unread data of the one before is skipped.
    pub(crate) fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        let mut extensions = Extensions::default();
        let mut described = false;
        loop {
            let Some(header) = self.next_header()? else {
                return if described { Err(invalid("extension header without an entry")) } else { Ok(None) };
            };
            let kind = header.entry_type();
            let stored = header.entry_size()?;
            match kind {
                EntryType::GNULongName => extensions.path = Some(self.extension_text(stored)?),
                EntryType::GNULongLink => extensions.link = Some(self.extension_text(stored)?),
                EntryType::XHeader => {
                    let records = self.extension(stored)?;
                    extensions.read_pax(&records)?;
                }
                EntryType::XGlobalHeader => drop(self.extension(stored)?),
                _ => return self.entry(&header, extensions).map(Some),
            }
            described |= kind != EntryType::XGlobalHeader;
        }
    }

    /// Tells whether the entries ended as POSIX wants it, with a block of zeros, and not because the stream did.
    pub(crate) fn at_end_mark(&self) -> bool {
        self.marked
    }

    /// Reads the stream to its end, past the end mark of the archive.
    pub(crate) fn drain(&mut self) -> io::Result<()> {
        io::copy(&mut self.inner, &mut io::sink()).map(drop)
    }

    fn next_header(&mut self) -> io::Result<Option<Header>> {
        if self.ended {
            return Ok(None);
        }
        let skip = self.left + self.padding;
        let skipped = io::copy(&mut (&mut self.inner).take(skip), &mut io::sink())?;
        if skipped < self.left {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // Some writers end with the last byte of the last file. *Source:* Go `archive/tar`, `Reader.next`.
        self.ended = skipped < skip;
        (self.left, self.padding) = (0, 0);
        if self.ended {
            return Ok(None);
        }
        let mut header = Header::new_old();
        self.ended = !self.read_block(header.as_mut_bytes())?;
        self.marked = !self.ended && header.as_bytes().iter().all(|byte| *byte == 0);
        self.ended |= self.marked;
        if self.ended {
            return Ok(None);
        }
        let bytes = header.as_bytes();
        let sum = bytes[..148].iter().chain(&bytes[156..]).map(|byte| u32::from(*byte)).sum::<u32>() + 8 * 32;
        if header.cksum()? != sum {
            return Err(invalid("not a tar archive: header checksum mismatch"));
        }
        Ok(Some(header))
    }

    /// Returns whether there was a block; part of one is an error.
    fn read_block(&mut self, block: &mut [u8]) -> io::Result<bool> {
        let mut filled = 0;
        while filled < block.len() {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => filled += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    fn begin_data(&mut self, stored: u64) -> io::Result<()> {
        self.padding =
            stored.checked_next_multiple_of(BLOCK).ok_or_else(|| invalid("entry size overflows"))? - stored;
        self.left = stored;
        Ok(())
    }

    fn extension(&mut self, stored: u64) -> io::Result<Vec<u8>> {
        if stored > MAX_EXTENSION_BYTES {
            return Err(invalid("extension header is too large"));
        }
        self.begin_data(stored)?;
        let mut data = Vec::new();
        self.read_to_end(&mut data)?;
        Ok(data)
    }

    fn extension_text(&mut self, stored: u64) -> io::Result<Vec<u8>> {
        let mut text = self.extension(stored)?;
        text.truncate(text.iter().position(|byte| *byte == 0).unwrap_or(text.len()));
        Ok(text)
    }

    fn entry(&mut self, header: &Header, extensions: Extensions) -> io::Result<Entry> {
        let stored = match extensions.size {
            Some(size) => size,
            None => header.entry_size()?,
        };
        let mut kind = header.entry_type();
        let path =
            extensions.sparse_name.or(extensions.path).unwrap_or_else(|| header.path_bytes().into_owned());
        let regular = kind.is_file() || kind.is_contiguous();
        if regular && path.ends_with(b"/") {
            kind = EntryType::Directory; // as written before POSIX
        }
        // Links and devices have no data, whatever the size field says (old writers left the target's size there).
        let has_data = regular || kind.is_gnu_sparse() || kind.is_dir();
        let mut entry = Entry {
            kind,
            path,
            link: extensions.link.or_else(|| header.link_name_bytes().map(Into::into)).unwrap_or_default(),
            mode: or_blank(&header.as_old().mode, header.mode())?,
            uid: extensions.uid.map_or_else(|| or_blank(&header.as_old().uid, header.uid()), Ok)?,
            gid: extensions.gid.map_or_else(|| or_blank(&header.as_old().gid, header.gid()), Ok)?,
            mtime: extensions
                .mtime
                .unwrap_or_else(|| (i64::try_from(header.mtime().unwrap_or(0)).unwrap_or(0), 0)),
            size: if has_data { stored } else { 0 },
            device: (
                header.device_major().ok().flatten().unwrap_or(0),
                header.device_minor().ok().flatten().unwrap_or(0),
            ),
            xattrs: extensions.xattrs,
            sparse: None,
        };
        let old_sparse = if kind.is_gnu_sparse() { Some(self.gnu_sparse_map(header)?) } else { None };
        self.begin_data(entry.size)?;
        if let Some((map, size)) = old_sparse {
            (entry.sparse, entry.size) = (Some(map), size);
        } else if extensions.sparse_major == Some(1) {
            entry.sparse = Some(self.pax_sparse_map()?);
            entry.size = extensions.sparse_size.ok_or_else(|| invalid("sparse entry without a size"))?;
        } else if let Some(size) = extensions.sparse_size {
            entry.sparse =
                Some(extensions.sparse_map.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect());
            entry.size = size;
        }
        if let Some(map) = &entry.sparse {
            check_sparse(map, entry.size, self.left)?;
        }
        Ok(entry)
    }

    /// GNU's old form: a map in the header and in blocks after it.
    fn gnu_sparse_map(&mut self, header: &Header) -> io::Result<(Vec<(u64, u64)>, u64)> {
        let gnu = header.as_gnu().ok_or_else(|| invalid("sparse entry without a GNU header"))?;
        let mut map = Vec::new();
        let mut take = |chunks: &[tar::GnuSparseHeader]| -> io::Result<()> {
            for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
                map.push((chunk.offset()?, chunk.length()?));
            }
            if map.len() > MAX_SPARSE_CHUNKS { Err(invalid("sparse map is too large")) } else { Ok(()) }
        };
        take(&gnu.sparse)?;
        let mut more = gnu.is_extended();
        while more {
            let mut extended = tar::GnuExtSparseHeader::new();
            if !self.read_block(extended.as_mut_bytes())? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            take(extended.sparse())?;
            more = extended.is_extended();
        }
        Ok((map, gnu.real_size()?))
    }

    /// PAX form 1.0: decimal numbers, one a line, in whole blocks before the data.
    fn pax_sparse_map(&mut self) -> io::Result<Vec<(u64, u64)>> {
        let mut used = 0;
        let mut number = || -> io::Result<u64> {
            let mut value = 0_u64;
            loop {
                let mut byte = [0];
                self.read_exact(&mut byte)?;
                used += 1;
                match byte[0] {
                    b'\n' => return Ok(value),
                    digit @ b'0'..=b'9' => {
                        let next = value.checked_mul(10).and_then(|v| v.checked_add(u64::from(digit - b'0')));
                        value = next.ok_or_else(|| invalid("sparse map overflows"))?;
                    }
                    _ => return Err(invalid("sparse map is not decimal")),
                }
            }
        };
        let count = usize::try_from(number()?).map_err(|_| invalid("sparse map is too large"))?;
        if count > MAX_SPARSE_CHUNKS {
            return Err(invalid("sparse map is too large"));
        }
        let map = (0..count).map(|_| Ok((number()?, number()?))).collect::<io::Result<_>>()?;
        let rest = u64::next_multiple_of(used, BLOCK) - used;
        io::copy(&mut (&mut *self).take(rest), &mut io::sink())?;
        Ok(map)
    }
}

/// Some writers leave fields blank where they mean zero, and Go reads them so.
fn or_blank<T: Default>(field: &[u8], number: io::Result<T>) -> io::Result<T> {
    let blank = field.iter().all(|byte| matches!(byte, 0 | b' '));
    if blank { Ok(T::default()) } else { number }
}

fn check_sparse(map: &[(u64, u64)], size: u64, stored: u64) -> io::Result<()> {
    let (mut end, mut total) = (0_u64, 0_u64);
    for (offset, length) in map {
        if *offset < end {
            return Err(invalid("sparse chunks overlap"));
        }
        end = offset.checked_add(*length).ok_or_else(|| invalid("sparse map overflows"))?;
        total += length;
    }
    if end > size || total != stored {
        return Err(invalid("sparse map does not match the data"));
    }
    Ok(())
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let count = self.inner.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        Ok(count)
    }
}

impl Extensions {
    fn read_pax(&mut self, mut records: &[u8]) -> io::Result<()> {
        let broken = || invalid("malformed PAX record");
        while !records.is_empty() && records[0] != 0 {
            let space = records.iter().take(20).position(|byte| *byte == b' ').ok_or_else(broken)?;
            let length: usize = text(&records[..space])?.parse().map_err(|_| broken())?;
            let record = records.get(space + 1..length).ok_or_else(broken)?;
            let record = record.strip_suffix(b"\n").ok_or_else(broken)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(broken)?;
            self.set(&record[..equals], &record[equals + 1..])?;
            records = &records[length..];
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let number = || text(value)?.parse::<u64>().map_err(|_| invalid("malformed number in a PAX record"));
        match key {
            // An empty value takes the key back.
            b"path" => self.path = Some(value.to_vec()).filter(|v| !v.is_empty()),
            b"linkpath" => self.link = Some(value.to_vec()).filter(|v| !v.is_empty()),
            b"size" => self.size = Some(number()?),
            b"uid" => self.uid = Some(number()?),
            b"gid" => self.gid = Some(number()?),
            b"mtime" => {
                self.mtime = Some(timestamp(text(value)?).ok_or_else(|| invalid("malformed PAX mtime"))?)
            }
            b"GNU.sparse.name" => self.sparse_name = Some(value.to_vec()),
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.sparse_size = Some(number()?),
            b"GNU.sparse.major" => self.sparse_major = Some(number()?),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => self.sparse_map.push(number()?),
            b"GNU.sparse.map" => {
                let numbers = text(value)?.split(',').filter(|n| !n.is_empty()).map(str::parse::<u64>);
                self.sparse_map =
                    numbers.collect::<Result<_, _>>().map_err(|_| invalid("malformed sparse map"))?;
            }
            key => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

fn text(bytes: &[u8]) -> io::Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| invalid("PAX record is not UTF-8"))
}

/// `1700000000.123456789`, also negative.
fn timestamp(text: &str) -> Option<(i64, u32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let nanos: u32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    if whole.starts_with('-') && nanos > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos));
    }
    Some((seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pax_values_may_hold_newlines_and_nul() {
        let mut extensions = Extensions::default();
        let mut record = b"SCHILY.xattr.security.capability=\x01\n\x00\n".to_vec();
        record.splice(0..0, b"41 ".iter().copied());
        record.push(b'\n');
        assert_eq!(record.len(), 41);
        record.extend(b"12 path=a/b\n");
        extensions.read_pax(&record).unwrap();
        assert_eq!(extensions.xattrs, [(b"security.capability".to_vec(), b"\x01\n\x00\n".to_vec())]);
        assert_eq!(extensions.path.unwrap(), b"a/b");
    }

    #[test]
    fn records_that_lie_about_their_length_are_refused() {
        for record in [&b"99 path=a\n"[..], b"3 a=b\n", b"x path=a\n", b"10 path=ab\n", b"8 nokey\n"] {
            assert!(Extensions::default().read_pax(record).is_err(), "{record:?}");
        }
    }

    #[test]
    fn a_gigantic_extension_header_is_refused_before_it_is_read() {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        header.set_size(1 << 40);
        header.set_cksum();
        let mut reader = Reader::new(header.as_bytes().chain(io::repeat(b'x')));
        assert_eq!(reader.next_entry().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn an_archive_may_end_with_its_last_byte_of_data_and_not_before() {
        let mut out = tar::Builder::new(Vec::new());
        let mut header = Header::new_ustar();
        header.set_size(3);
        header.set_mode(0o644);
        out.append_data(&mut header, "a", &b"abc"[..]).unwrap();
        let whole = out.into_inner().unwrap();
        let read = |length: usize, looks: bool| -> io::Result<(usize, bool)> {
            let (mut reader, mut entries) = (Reader::new(&whole[..length]), 0);
            while reader.next_entry()?.is_some() {
                entries += 1;
                if looks {
                    io::copy(&mut reader, &mut io::sink())?;
                }
            }
            Ok((entries, reader.at_end_mark()))
        };
        for looks in [true, false] {
            for (length, marked) in [(515, false), (600, false), (1024, false), (1536, true), (2048, true)] {
                assert_eq!(read(length, looks).unwrap(), (1, marked), "{length}");
            }
            for length in [100, 514] {
                let error = read(length, looks).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{length}");
            }
        }
    }

    #[test]
    fn fractions_of_seconds_are_kept() {
        assert_eq!(timestamp("12.5"), Some((12, 500_000_000)));
        assert_eq!(timestamp("-1.25"), Some((-2, 750_000_000)));
        assert_eq!(timestamp("7"), Some((7, 0)));
        assert_eq!(timestamp("x"), None);
    }
}
