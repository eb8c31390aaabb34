//! Docker's json-file log, byte for byte. Source: moby `daemon/logger/jsonfilelog`, `pkg/jsonlog`.

use super::forward::Forward;
use crate::wire;
use std::{
    ffi::OsStr,
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Longest piece of a line in one entry; the rest follows in the next, without a newline between.
const ENTRY_BYTES_MAX: usize = 16 * 1024;

/// Which of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// An open log.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    size_bytes: u64,
    max_size_bytes: Option<u64>,
    max_files: u32,
    /// Ready to be written into each entry.
    attrs: String,
    /// Unfinished lines of both streams.
    pending: [Vec<u8>; 2],
    /// Entries made but not written.
    entries: String,
    forward: Option<Forward>,
}

impl Log {
    pub(super) fn open(plan: &wire::Log) -> io::Result<Self> {
        let path = PathBuf::from(OsStr::from_bytes(&plan.path));
        let file = open(&path)?;
        let size_bytes = file.metadata()?.len();
        let mut attrs = String::new();
        let mut sorted: Vec<_> = plan.attrs.iter().collect();
        sorted.sort_by(|a, b| a.key.cmp(&b.key));
        for (n, pair) in sorted.into_iter().enumerate() {
            attrs.push_str(if n == 0 { ",\"attrs\":{" } else { "," });
            push_json(&mut attrs, pair.key.as_bytes());
            attrs.push(':');
            push_json(&mut attrs, pair.value.as_bytes());
        }
        if !attrs.is_empty() {
            attrs.push('}');
        }
        let (max_size_bytes, max_files) = (plan.max_size_bytes, plan.max_files.max(1));
        let pending = [Vec::new(), Vec::new()];
        let entries = String::new();
        let forward = plan.forward.as_ref().map(Forward::open).transpose()?;
        Ok(Self { path, file, size_bytes, max_size_bytes, max_files, attrs, pending, entries, forward })
    }

    /// Takes what a stream said: whole lines are written, the rest waits.
    ///
    /// # Errors
    /// When the file cannot be written: the lines are lost, the log goes on with the next.
    pub(super) fn take(&mut self, stream: Stream, mut bytes: &[u8], now: SystemTime) -> io::Result<()> {
        let which = usize::from(stream == Stream::Stderr);
        while !bytes.is_empty() {
            let room = ENTRY_BYTES_MAX - self.pending[which].len();
            let newline = bytes.iter().take(room).position(|&byte| byte == b'\n');
            let (part, complete) = match newline {
                Some(at) => (at + 1, true),
                None if bytes.len() >= room => (room, true),
                None => (bytes.len(), false),
            };
            self.pending[which].extend_from_slice(&bytes[..part]);
            bytes = &bytes[part..];
            if complete {
                self.entry(stream, now);
            }
        }
        self.write()
    }

    /// Writes a last line that has no newline.
    pub(super) fn finish(&mut self, stream: Stream, now: SystemTime) -> io::Result<()> {
        if !self.pending[usize::from(stream == Stream::Stderr)].is_empty() {
            self.entry(stream, now);
        }
        self.write()
    }

    fn entry(&mut self, stream: Stream, now: SystemTime) {
        let line = &mut self.pending[usize::from(stream == Stream::Stderr)];
        if let Some(forward) = &self.forward {
            forward.send(stream, line, !line.ends_with(b"\n"), now);
        }
        self.entries.push_str("{\"log\":");
        push_json(&mut self.entries, line);
        line.clear();
        self.entries.push_str(",\"stream\":\"");
        self.entries.push_str(stream.name());
        self.entries.push('"');
        self.entries.push_str(&self.attrs);
        self.entries.push_str(",\"time\":\"");
        push_time(&mut self.entries, now);
        self.entries.push_str("\"}\n");
    }

    fn write(&mut self) -> io::Result<()> {
        let entries = std::mem::take(&mut self.entries);
        let mut result = Ok(());
        let mut rest = entries.as_str();
        while !rest.is_empty() {
            // With a limit the file may be changed between any two entries.
            let part = match self.max_size_bytes {
                Some(_) => rest.find('\n').map_or(rest.len(), |at| at + 1),
                None => rest.len(),
            };
            if let Err(error) = self.write_part(&rest.as_bytes()[..part]) {
                result = Err(error);
            }
            rest = &rest[part..];
        }
        // The buffer is kept for the next lines unless it was a flood.
        if entries.capacity() <= 4 * ENTRY_BYTES_MAX {
            self.entries = entries;
            self.entries.clear();
        }
        result
    }

    fn write_part(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.max_size_bytes.is_some_and(|max| self.size_bytes >= max) {
            self.rotate()?;
        }
        let result = self.file.write_all(bytes);
        match result {
            Ok(()) => self.size_bytes += bytes.len() as u64,
            // No half entry stays when the disk is full.
            Err(_) => self.file.set_len(self.size_bytes)?,
        }
        result
    }

    /// Renames `log` to `log.1`, `log.1` to `log.2` and so on, and begins a new file. The old one is never cut: who
    /// follows it reads to its end.
    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |n: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{n}"));
            PathBuf::from(name)
        };
        if self.max_files < 2 {
            match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        } else {
            // As far as there are any: it is not this number that a rotation costs.
            let is_free = |n: &u32| numbered(*n).symlink_metadata().is_err();
            let free = (1..self.max_files - 1).find(is_free).unwrap_or(self.max_files - 1);
            for n in (1..free).rev() {
                match fs::rename(numbered(n), numbered(n + 1)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            fs::rename(&self.path, numbered(1))?;
        }
        self.file = open(&self.path)?;
        self.size_bytes = 0;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

/// Appends a JSON string as Go's encoder writes it for HTML-safe output; bytes that are not UTF-8 become U+FFFD.
fn push_json(to: &mut String, bytes: &[u8]) {
    to.push('"');
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '"' => to.push_str("\\\""),
                '\\' => to.push_str("\\\\"),
                '\n' => to.push_str("\\n"),
                '\r' => to.push_str("\\r"),
                '\t' => to.push_str("\\t"),
                '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\x1f' => {
                    write!(to, "\\u{:04x}", u32::from(letter)).expect("a String takes everything");
                }
                _ => to.push(letter),
            }
        }
        // One replacement per byte, as Go counts them.
        for _ in chunk.invalid() {
            to.push_str("\\ufffd");
        }
    }
    to.push('"');
}

/// Appends a time as Go's RFC3339Nano: UTC, trailing zeros of the fraction left out.
fn push_time(to: &mut String, time: SystemTime) {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    write!(to, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
        .expect("a String takes everything");
    if since.subsec_nanos() != 0 {
        let fraction = format!("{:09}", since.subsec_nanos());
        to.push('.');
        to.push_str(fraction.trim_end_matches('0'));
    }
    to.push('Z');
}

/// Year, month and day of a day since 1970-01-01. Source: Howard Hinnant, "chrono-compatible low-level date
/// algorithms", `civil_from_days`.
pub(super) fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64, nanos: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos)
    }

    fn plan(dir: &tempfile::TempDir, max_size_bytes: Option<u64>, max_files: u32) -> wire::Log {
        let path = dir.path().join("log");
        let attrs = vec![
            wire::Pair { key: "b".into(), value: "2".into() },
            wire::Pair { key: "a".into(), value: "<1>".into() },
        ];
        wire::Log {
            path: path.into_os_string().into_encoded_bytes(),
            max_size_bytes,
            max_files,
            attrs,
            forward: None,
        }
    }

    fn content(plan: &wire::Log, suffix: &str) -> Option<String> {
        let path = format!("{}{suffix}", String::from_utf8_lossy(&plan.path));
        let text = fs::read_to_string(&path).ok();
        drop(fs::remove_file(&path));
        text
    }

    #[test]
    fn times_are_gos() {
        let shown = |time| {
            let mut text = String::new();
            push_time(&mut text, time);
            text
        };
        assert_eq!(shown(at(0, 0)), "1970-01-01T00:00:00Z");
        assert_eq!(shown(at(951_782_400, 120_000_000)), "2000-02-29T00:00:00.12Z");
        assert_eq!(shown(at(1_795_213_916, 1)), "2026-11-20T22:31:56.000000001Z");
    }

    #[test]
    fn strings_are_escaped_as_go_does() {
        let shown = |bytes: &[u8]| {
            let mut text = String::new();
            push_json(&mut text, bytes);
            text
        };
        assert_eq!(shown(b"a\"\\\t\r\n\x01<b>&"), r#""a\"\\\t\r\n\u0001\u003cb\u003e\u0026""#);
        assert_eq!(shown("é\u{2028}😀".as_bytes()), "\"é\\u2028😀\"");
        assert_eq!(shown(b"\xff\xe2\x82x"), r#""\ufffd\ufffd\ufffdx""#);
    }

    #[test]
    fn a_single_file_is_replaced_and_who_has_the_old_one_open_reads_it_whole() {
        use std::io::Read as _;
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(&dir, Some(10), 1);
        let mut log = Log::open(&plan).unwrap();
        log.take(Stream::Stdout, b"one\n", at(0, 0)).unwrap();
        let mut old = File::open(dir.path().join("log")).unwrap();
        log.take(Stream::Stdout, b"two\n", at(0, 0)).unwrap();
        let mut text = String::new();
        old.read_to_string(&mut text).unwrap();
        assert!(text.contains("one") && !text.contains("two"), "{text}");
        let new = content(&plan, "").unwrap();
        assert!(new.contains("two") && !new.contains("one"), "{new}");
        assert_eq!(content(&plan, ".1"), None);
    }

    #[test]
    fn lines_become_entries_and_long_ones_are_split() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(&dir, None, 1);
        let mut log = Log::open(&plan).unwrap();
        log.take(Stream::Stdout, b"one\ntw", at(0, 0)).unwrap();
        log.take(Stream::Stderr, b"bad\n", at(1, 0)).unwrap();
        log.take(Stream::Stdout, b"o\nlast", at(2, 0)).unwrap();
        log.finish(Stream::Stdout, at(3, 0)).unwrap();
        log.finish(Stream::Stderr, at(3, 0)).unwrap();
        let tail = |time: &str, stream: &str| {
            format!(
                r#","stream":"{stream}","attrs":{{"a":"\u003c1\u003e","b":"2"}},"time":"1970-01-01T00:00:0{time}Z"}}"#
            )
        };
        let expected = [
            format!(r#"{{"log":"one\n"{}"#, tail("0", "stdout")),
            format!(r#"{{"log":"bad\n"{}"#, tail("1", "stderr")),
            format!(r#"{{"log":"two\n"{}"#, tail("2", "stdout")),
            format!(r#"{{"log":"last"{}"#, tail("3", "stdout")),
        ];
        assert_eq!(content(&plan, "").unwrap().lines().collect::<Vec<_>>(), expected);

        let mut log = Log::open(&plan).unwrap();
        log.take(Stream::Stdout, &[b"x".repeat(ENTRY_BYTES_MAX), b"y\n".to_vec()].concat(), at(0, 0))
            .unwrap();
        let text = content(&plan, "").unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert!(
            lines[0].contains(&format!("{}\"", "x".repeat(ENTRY_BYTES_MAX))) && lines[1].contains(r#""y\n""#)
        );
    }

    /// Four thousand million renames would take an hour each time.
    #[test]
    fn what_a_rotation_costs_is_what_there_is() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(&dir, Some(1), u32::MAX);
        let mut log = Log::open(&plan).unwrap();
        for n in 0..4 {
            log.take(Stream::Stdout, format!("{n}\n").as_bytes(), at(0, 0)).unwrap();
        }
        // One that somebody took away: the next takes its place.
        fs::remove_file(dir.path().join("log.2")).unwrap();
        log.take(Stream::Stdout, b"4\n", at(0, 0)).unwrap();
        let numbers = |suffix| content(&plan, suffix)?.chars().nth(8);
        assert_eq!(
            ["", ".1", ".2", ".3", ".4"].map(numbers),
            [Some('4'), Some('3'), Some('2'), Some('0'), None]
        );
    }

    #[test]
    fn full_files_are_renamed_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(&dir, Some(150), 3);
        let mut log = Log::open(&plan).unwrap();
        for n in 0..8 {
            log.take(Stream::Stdout, format!("{n}\n").as_bytes(), at(0, 0)).unwrap();
        }
        let numbers = |suffix| -> Option<String> {
            Some(content(&plan, suffix)?.lines().filter_map(|line| line.chars().nth(8)).collect())
        };
        assert_eq!(
            (numbers(""), numbers(".1"), numbers(".2"), numbers(".3")),
            (Some("67".into()), Some("45".into()), Some("23".into()), None)
        );
    }
}
