//! Load for measuring a network, in the hello program so that it is in every image: `hello sink PORT` answers,
//! `hello blast KIND ADDRESS SECONDS` asks one connection's worth of
//!
//! - `bytes`: as many as go through, told as bits per second that arrived;
//! - `requests`: 64 bytes there and 64 back, one after the other, told as requests per second;
//! - `connections`: new ones, one after the other, told as connections per second. These go to PORT + 1, where
//!   the sink hangs up at once.
//!
//! It prints the rate and how many attempts failed.

use anyhow::{Context, Result, bail};
use nix::sys::socket::{setsockopt, sockopt};
use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    time::{Duration, Instant},
};

const CHUNK_BYTES: usize = 128 * 1024;
const REQUEST_BYTES: usize = 64;
/// First byte of a connection: what it is for.
const SWALLOW: u8 = b's';
const ECHO: u8 = b'e';
/// Longest a peer may keep a connection waiting.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs `hello sink PORT` until SIGTERM.
pub(crate) fn sink(port: u16) -> Result<()> {
    let brief = listen(port.checked_add(1).context("port 65535 has no next one")?)?;
    let listener = listen(port)?;
    std::thread::spawn(move || {
        // A plain close: a reset could overtake the other side's connect, which would fail then.
        brief.incoming().for_each(drop);
    });
    crate::output::line(&format!("listening on port {port}"))?;
    for stream in listener.incoming() {
        let stream = stream?;
        std::thread::spawn(move || {
            if let Err(error) = answer(stream) {
                drop(crate::output::line(&format!("connection failed: {error:#}")));
            }
        });
    }
    Ok(())
}

fn listen(port: u16) -> Result<TcpListener> {
    TcpListener::bind(("0.0.0.0", port)).with_context(|| format!("cannot listen on port {port}"))
}

/// Closes with a reset: nothing of the connection stays behind in TIME_WAIT, on either side.
fn reset_at_close(stream: &TcpStream) -> Result<()> {
    let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(stream, sockopt::Linger, &at_once).context("cannot set SO_LINGER")
}

fn answer(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut purpose = [0];
    stream.read_exact(&mut purpose)?;
    match purpose[0] {
        SWALLOW => {
            let mut chunk = vec![0; CHUNK_BYTES];
            let mut count: u64 = 0;
            loop {
                match stream.read(&mut chunk)? {
                    0 => break,
                    read => count += read as u64,
                }
            }
            stream.write_all(&count.to_be_bytes())?;
        }
        ECHO => {
            let mut request = [0; REQUEST_BYTES];
            while stream.read_exact(&mut request).is_ok() {
                stream.write_all(&request)?;
            }
        }
        other => bail!("unknown purpose {other}"),
    }
    Ok(())
}

/// Runs `hello blast KIND ADDRESS SECONDS`.
pub(crate) fn blast(kind: &str, address: &str, seconds: &str) -> Result<()> {
    let span = Duration::from_secs(seconds.parse().with_context(|| format!("{seconds:?} is no number"))?);
    let target = address.to_socket_addrs().with_context(|| format!("cannot resolve {address}"))?.next();
    let target = target.with_context(|| format!("{address} has no address"))?;
    let (rate, failed) = match kind {
        "bytes" => (bytes(target, span)?, 0),
        "requests" => (requests(target, span)?, 0),
        "connections" => connections(target, span)?,
        _ => bail!("{kind:?} is none of bytes, requests, connections"),
    };
    crate::output::line(&format!("{rate:.0} {failed}"))
}

fn connect(target: SocketAddr, purpose: u8) -> Result<TcpStream> {
    let mut stream =
        TcpStream::connect_timeout(&target, PATIENCE).with_context(|| format!("cannot reach {target}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    stream.write_all(&[purpose])?;
    Ok(stream)
}

fn bytes(target: SocketAddr, span: Duration) -> Result<f64> {
    let mut stream = connect(target, SWALLOW)?;
    let chunk = vec![0; CHUNK_BYTES];
    let start = Instant::now();
    while start.elapsed() < span {
        stream.write_all(&chunk)?;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut count = [0; 8];
    stream.read_exact(&mut count)?;
    #[expect(clippy::cast_precision_loss, reason = "a rate is not exact")]
    Ok(u64::from_be_bytes(count) as f64 * 8.0 / start.elapsed().as_secs_f64())
}

fn requests(target: SocketAddr, span: Duration) -> Result<f64> {
    let mut stream = connect(target, ECHO)?;
    let mut request = [0; REQUEST_BYTES];
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < span {
        stream.write_all(&request)?;
        stream.read_exact(&mut request)?;
        count += 1;
    }
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}

fn connections(mut target: SocketAddr, span: Duration) -> Result<(f64, u32)> {
    target.set_port(target.port() + 1);
    let start = Instant::now();
    let (mut made, mut failed) = (0, 0);
    while start.elapsed() < span {
        match TcpStream::connect_timeout(&target, PATIENCE) {
            Ok(mut stream) => {
                reset_at_close(&stream)?;
                // Ends when the sink hangs up, as an end or as a reset.
                drop(stream.read(&mut [0]));
                made += 1;
            }
            Err(_) => failed += 1,
        }
    }
    Ok((f64::from(made) / start.elapsed().as_secs_f64(), failed))
}
