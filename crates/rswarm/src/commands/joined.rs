//! This process's streams, joined with those of a container or of a process in one, until one of both ends is over.

use super::container::print;
use anyhow::Result;
use docker_api::{client::Hijacked, detach_keys::DetachKeys};
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
