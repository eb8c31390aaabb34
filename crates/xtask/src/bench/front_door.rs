//! The Docker API of a daemon over its Unix socket, on one connection that is kept: a command line's start would
//! be most of what is measured.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// One HTTP/1.1 connection to a daemon, ours or Docker's.
pub(super) struct FrontDoor {
    reader: BufReader<UnixStream>,
}

impl FrontDoor {
    /// Connects to the daemon that listens at `socket`.
    pub(super) fn open(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).with_context(|| format!("{}", socket.display()))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    /// Returns what the daemon answers, unread: this program is no release build, and its reading would be measured.
    pub(super) fn bytes(&mut self, path: &str) -> Result<Vec<u8>> {
        self.answer_to("GET", path, &Value::Null)
    }

    /// Returns what the daemon answers.
    pub(super) fn get(&mut self, path: &str) -> Result<Value> {
        self.ask("GET", path, &Value::Null)
    }

    /// Sends a body and returns the answer.
    pub(super) fn post(&mut self, path: &str, body: &Value) -> Result<Value> {
        self.ask("POST", path, body)
    }

    /// Removes an object.
    pub(super) fn delete(&mut self, path: &str) -> Result<Value> {
        self.ask("DELETE", path, &Value::Null)
    }

    fn ask(&mut self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let answer = self.answer_to(method, path, body)?;
        if answer.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&answer).with_context(|| format!("{method} {path}"))
    }

    fn answer_to(&mut self, method: &str, path: &str, body: &Value) -> Result<Vec<u8>> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.reader.get_mut().write_all(request.as_bytes())?;
        let (status, body) = self.answer().with_context(|| format!("{method} {path}"))?;
        if !(200..300).contains(&status) {
            bail!("{method} {path}: {status} {}", String::from_utf8_lossy(&body));
        }
        Ok(body)
    }

    fn answer(&mut self) -> Result<(u16, Vec<u8>)> {
        let status = self.line()?;
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no HTTP answer")?;
        let (mut length, mut chunked) = (0, false);
        loop {
            let line = self.line()?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            chunked |= line.starts_with("transfer-encoding:") && line.contains("chunked");
        }
        let mut body = Vec::new();
        if !chunked {
            self.take(length, &mut body)?;
            return Ok((status, body));
        }
        loop {
            let length = usize::from_str_radix(&self.line()?, 16).context("no chunk length")?;
            self.take(length, &mut body)?;
            self.line()?;
            if length == 0 {
                return Ok((status, body));
            }
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            bail!("the daemon hung up");
        }
        line.truncate(line.trim_end().len());
        Ok(line)
    }

    fn take(&mut self, length: usize, body: &mut Vec<u8>) -> Result<()> {
        let start = body.len();
        body.resize(start + length, 0);
        Ok(self.reader.read_exact(&mut body[start..])?)
    }
}
