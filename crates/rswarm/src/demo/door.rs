//! A connection between a client outside the lab's namespaces and a port of a host.
//!
//! From outside a connection that was refused, one that was cut off and one that nobody answered look alike: the client's
//! own ends. A client that asks for it is told which it was, as the last line it gets: `lab: WORD ADDRESS CAUSE`, with
//!
//! - `refused`: no connection, at once;
//! - `reset`: there was one, and it was broken off;
//! - `silent`: no connection in [`PATIENCE`].
//!
//! A host that connects and then says nothing leaves the client waiting, who knows best how long.

use std::{io, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
};

/// How long a connection may take. Less than a client waits for its answer.
const PATIENCE: Duration = Duration::from_secs(4);

/// Connects `client` to a port of a host; one that is `told` hears why it gets no answer.
pub(super) async fn serve(mut client: UnixStream, to: SocketAddr, told: bool) {
    let why = match tokio::time::timeout(PATIENCE, TcpStream::connect(to)).await {
        Ok(Ok(mut server)) => match carry(&mut client, &mut server).await {
            Ok(()) => return,
            Err(error) => format!("reset {to} {error}"),
        },
        Ok(Err(error)) => format!("refused {to} {error}"),
        Err(_) => format!("silent {to} no connection within {PATIENCE:?}"),
    };
    if told {
        // The client may be gone; what it has sent must be read, or it is cut off before it has read this.
        drop(client.write_all(format!("lab: {why}\n").as_bytes()).await);
        drop(client.shutdown().await);
        let mut nowhere = tokio::io::sink();
        drop(tokio::time::timeout(PATIENCE, tokio::io::copy(&mut client, &mut nowhere)).await);
    }
}

/// Carries bytes both ways until both sides have hung up.
///
/// # Errors
/// The host broke it off; or the client did, who then hears nothing of it.
async fn carry(client: &mut UnixStream, server: &mut TcpStream) -> io::Result<()> {
    let ((client_in, client_out), (server_in, server_out)) = (client.split(), server.split());
    // The kernel tells of a reset once, whichever way is tried next.
    tokio::try_join!(one_way(client_in, server_out), one_way(server_in, client_out)).map(drop)
}

async fn one_way(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut chunk = vec![0; 16 << 10];
    loop {
        match from.read(&mut chunk).await? {
            0 => break,
            length => to.write_all(&chunk[..length]).await?,
        }
    }
    // The other side may have hung up by itself.
    drop(to.shutdown().await);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{setsockopt, sockopt};
    use tokio::net::TcpListener;

    /// Returns what a client that is told hears of a port.
    async fn heard(to: SocketAddr) -> String {
        let (mut near, far) = UnixStream::pair().unwrap();
        let serving = serve(far, to, true);
        let asking = async {
            near.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
            let mut said = String::new();
            near.read_to_string(&mut said).await.unwrap();
            drop(near);
            said
        };
        tokio::join!(serving, asking).1
    }

    #[tokio::test]
    async fn a_client_is_told_whether_it_was_refused_or_cut_off_and_nothing_more_than_its_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let answers = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nok").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut asked = Vec::new();
            stream.read_to_end(&mut asked).await.unwrap();
        };
        // It hangs up when it has its answer: whoever serves it ends then.
        let (said, ()) = tokio::join!(heard(to), answers);
        assert_eq!(said, "HTTP/1.0 200 OK\r\n\r\nok");

        let breaks_off = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_exact(&mut [0; 4]).await.unwrap();
            let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
            setsockopt(&stream, sockopt::Linger, &at_once).unwrap();
        };
        let (said, ()) = tokio::join!(heard(to), breaks_off);
        assert!(said.starts_with(&format!("lab: reset {to} ")), "{said:?}");

        drop(listener);
        let said = heard(to).await;
        assert!(said.starts_with(&format!("lab: refused {to} ")) && said.ends_with('\n'), "{said:?}");
    }
}
