//! This process's streams, joined with those of a container or of a process in one, until one of both ends is over.

use crate::{cli::ContainerFlags, output};
use anyhow::{Context as _, Result, bail};
use docker_api::{
    client::{Demux, Frame, Hijacked},
    detach_keys::DetachKeys,
};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// How long the daemon may take to close its end of what was left: it sees the same keys.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);
/// *Unit:* bytes of what is typed that are passed on at once.
const TYPED_MAX: usize = 8 << 10;

/// How it was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// There is no more output.
    Ended,
    /// By the keys for it: what runs there goes on.
    Left,
}

/// Joins a hijacked connection with this process's streams until the output ends, or the keys are typed at which one
/// leaves: they count at a terminal alone.
///
/// # Errors
/// The stream was cut, or standard output cannot be written.
pub(super) async fn pump(streams: Hijacked, tty: bool, stdin: bool, keys: DetachKeys) -> Result<Over> {
    let (from, mut to) = tokio::io::split(streams.io);
    let left = AtomicBool::new(false);
    let input = async {
        if stdin {
            left.store(typed(tokio::io::stdin(), &mut to, tty.then_some(keys)).await, Ordering::Relaxed);
        }
        if left.load(Ordering::Relaxed) {
            return tokio::time::sleep(LEAVE_LIMIT).await;
        }
        drop(to.shutdown().await);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        printed = print(from, tty) => printed?,
        () = input => {}
    }
    Ok(if left.load(Ordering::Relaxed) { Over::Left } else { Over::Ended })
}

/// Passes on what is typed, until there is no more, or the keys came at which one leaves: those are passed on too.
/// Returns true if they came.
async fn typed(
    mut from: impl AsyncRead + Unpin,
    to: &mut (impl AsyncWrite + Unpin),
    mut keys: Option<DetachKeys>,
) -> bool {
    let mut buffer = vec![0; TYPED_MAX];
    loop {
        let read = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return false,
            Ok(read) => read,
        };
        let came = keys.as_mut().is_some_and(|keys| keys.pass(&buffer[..read]).1);
        let passed = async {
            to.write_all(&buffer[..read]).await?;
            to.flush().await
        };
        // The other side may have stopped reading; its output still counts.
        let passed = passed.await.is_ok();
        if came || !passed {
            return came;
        }
    }
}

/// Which streams of a new container are joined. *Source:* docker/cli `cli/command/container/opts.go`, `--attach`.
pub(crate) struct Joined {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
}

impl Joined {
    pub(crate) fn of(flags: &ContainerFlags) -> Self {
        let said = |stream: &str| flags.attach.iter().any(|named| named == stream);
        let outputs = flags.attach.is_empty();
        Self {
            stdin: flags.interactive || said("stdin"),
            stdout: outputs || said("stdout"),
            stderr: outputs || said("stderr"),
        }
    }
}

/// Writes output where it belongs: raw for a terminal, else by Docker's frames.
pub(super) async fn print(mut from: impl AsyncRead + Unpin, raw: bool) -> Result<()> {
    let (mut out, mut err) = (output::stream(), tokio::io::stderr());
    if raw {
        tokio::io::copy(&mut from, &mut out).await.context("the stream was cut")?;
        return out.flush().await.context("cannot write to standard output");
    }
    let mut demux = Demux::new(from);
    while let Some(frame) = demux.next().await? {
        match frame {
            Frame::Stdout(bytes) => {
                out.write_all(&bytes).await?;
                out.flush().await?;
            }
            Frame::Stderr(bytes) => {
                err.write_all(&bytes).await?;
                err.flush().await?;
            }
            Frame::SystemError(bytes) => bail!("{}", String::from_utf8_lossy(&bytes)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_types_the_keys_has_left_and_the_daemon_hears_them() {
        for (said, written, tty, leaves) in [
            ("", "ls\n\u{10}\u{11}", true, true),
            ("", "ls\n\u{10}\u{11}", false, false),
            ("", "ls\n\u{10}", true, false),
            ("ctrl-a,d", "x\u{1}d", true, true),
            ("ctrl-a,d", "\u{10}\u{11}", true, false),
        ] {
            let keys = tty.then(|| DetachKeys::parse(said).expect("keys"));
            let mut passed = Vec::new();
            assert_eq!(typed(written.as_bytes(), &mut passed, keys).await, leaves, "{written:?}");
            assert_eq!(passed, written.as_bytes());
        }
    }
}
