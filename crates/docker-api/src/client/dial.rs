//! Ways to a daemon: a unix socket, TCP with or without TLS, or `ssh` to a host whose `rswarm system dial-stdio` reaches its own.

use super::{CONNECT_TIMEOUT, Client, Error, Host, Result};
use rustls_pki_types::ServerName;
use std::{
    io,
    pin::Pin,
    process::Stdio,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Join, ReadBuf},
    net::{TcpStream, UnixStream},
    process::{Child, ChildStdin, ChildStdout, Command},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// A byte stream to a daemon.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// A byte stream and whoever is at its other end, who ends with this value: a running `ssh`, a task of this process.
pub(super) struct Held<S, T> {
    pub(super) io: S,
    pub(super) _by: T,
}

impl<S: AsyncRead + Unpin, T: Unpin> AsyncRead for Held<S, T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin, T: Unpin> AsyncWrite for Held<S, T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl Client {
    /// Opens a connection to the daemon.
    ///
    /// # Errors
    /// When it cannot be reached within 10 s; what `ssh` has to say it says on standard error.
    pub async fn dial(&self) -> Result<Box<dyn Connection>> {
        if let Some(stand_in) = &self.stand_in {
            return Ok(stand_in.connect());
        }
        Ok(match self.host() {
            Host::Unix(path) => Box::new(self.connected(UnixStream::connect(path)).await?),
            Host::Tcp(addr) => {
                let stream = self.connected(TcpStream::connect(addr)).await?;
                stream.set_nodelay(true)?;
                match &self.tls {
                    None => Box::new(stream),
                    Some(config) => Box::new(self.connected(encrypted(stream, addr, config)).await?),
                }
            }
            Host::Ssh { destination, port } => Box::new(self.connected(ssh(destination, *port)).await?),
        })
    }

    async fn connected<S>(&self, connect: impl Future<Output = io::Result<S>>) -> Result<S> {
        let failed = |source| Error::Connect { host: self.host().clone(), source };
        tokio::time::timeout(CONNECT_TIMEOUT, connect)
            .await
            .map_err(|_| failed(io::ErrorKind::TimedOut.into()))?
            .map_err(failed)
    }
}

async fn encrypted(
    stream: TcpStream,
    addr: &str,
    config: &Arc<rustls::ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host).trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned())
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, format!("{host:?}: {e}")))?;
    TlsConnector::from(Arc::clone(config)).connect(name, stream).await
}

/// Starts `ssh` as Docker's CLI does. *Source:* docker/cli `cli/connhelper`.
async fn ssh(destination: &str, port: Option<u16>) -> io::Result<Held<Join<ChildStdout, ChildStdin>, Child>> {
    let mut command = Command::new("ssh");
    command.args(["-o", "ConnectTimeout=30", "-T"]);
    if let Some(port) = port {
        command.args(["-p", &port.to_string()]);
    }
    // What looks like an option is a destination.
    command.args(["--", destination, "rswarm", "system", "dial-stdio"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut ssh = command
        .spawn()
        .map_err(|e| io::Error::new(e.kind(), format!("cannot start ssh: {e}; is it installed?")))?;
    let (Some(input), Some(output)) = (ssh.stdin.take(), ssh.stdout.take()) else {
        return Err(io::Error::other("ssh has no pipes"));
    };
    Ok(Held { io: tokio::io::join(output, input), _by: ssh })
}
