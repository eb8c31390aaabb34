//! The program inside `rswarm/hello`, the image this binary carries: the binary itself, called `/hello`.
//!
//! `hello web` greets with NAME, its host name and a visit count; `hello counter` keeps that count and speaks the
//! one Redis command the web service needs, so a real Redis can stand in; `hello check ADDR` is the healthcheck,
//! `hello get ADDR/PATH` shows an answer where there is no curl; `hello deaf` does nothing and ignores SIGTERM; for `hello sink` and `hello blast` see [`load`],
//! for `hello echo` and `hello ask` [`datagrams`].

use super::{datagrams, load};
use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, Signal};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream, ToSocketAddrs},
    path::Path,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Longest a peer may keep a connection of ours waiting.
const PATIENCE: Duration = Duration::from_secs(5);
/// More connections at once than this are answered one after the other.
const CONNECTIONS_MAX: usize = 64;

/// Runs `hello ARGS`.
pub(crate) fn run(args: &[String]) -> Result<ExitCode> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    if args.first() != Some(&"deaf") {
        end_at_sigterm()?;
    }
    match args.as_slice() {
        ["deaf"] => std::thread::sleep(Duration::MAX),
        ["web"] => web()?,
        ["counter"] => counter(Path::new("/data/visits"))?,
        ["check", address] => check(address)?,
        ["get", address] => get(address)?,
        ["sink", port] => load::sink(port.parse().with_context(|| format!("{port:?} is no port"))?)?,
        ["echo", port] => datagrams::echo(port.parse().with_context(|| format!("{port:?} is no port"))?)?,
        ["ask", address] => datagrams::ask(address)?,
        ["blast", kind, address, seconds] => load::blast(kind, address, seconds)?,
        _ => bail!("usage: hello web | counter | check ADDRESS | get ADDRESS[/PATH]"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Ends the process at SIGTERM and SIGINT, which the first process of a container must ask for: by itself it ignores
/// them. Call before any thread exists.
fn end_at_sigterm() -> Result<()> {
    let stop = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    stop.thread_block().context("cannot block signals")?;
    std::thread::spawn(move || match stop.wait() {
        Ok(_) => std::process::exit(0),
        Err(error) => drop(crate::output::line(&format!("cannot wait for signals: {error}"))),
    });
    Ok(())
}

/// Serves each connection on a thread of its own, `CONNECTIONS_MAX` at once, until SIGTERM.
fn serve(port: u16, answer: impl Fn(TcpStream) -> Result<()> + Send + Sync + 'static) -> Result<()> {
    let listener =
        TcpListener::bind(("0.0.0.0", port)).with_context(|| format!("cannot listen on port {port}"))?;
    crate::output::line(&format!("listening on port {port}"))?;
    let answer = Arc::new(answer);
    let slots = Arc::new((Mutex::new(0usize), std::sync::Condvar::new()));
    for stream in listener.incoming() {
        // A connection that ended before it was taken (its host was lost) is that connection's matter.
        let patient = |stream: TcpStream| -> std::io::Result<TcpStream> {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(stream)
        };
        let stream = match stream {
            Err(error) if error.kind() != std::io::ErrorKind::ConnectionAborted => return Err(error.into()),
            taken => taken.and_then(patient),
        };
        let Ok(stream) = stream else { continue };
        let (answer, slots) = (Arc::clone(&answer), Arc::clone(&slots));
        let mut busy = slots.0.lock().unwrap_or_else(PoisonError::into_inner);
        while *busy == CONNECTIONS_MAX {
            busy = slots.1.wait(busy).unwrap_or_else(PoisonError::into_inner);
        }
        *busy += 1;
        drop(busy);
        std::thread::spawn(move || {
            // A client that hung up is no news; anything else should be seen in the task's log.
            if let Err(error) = answer(stream)
                && !is_hang_up(&error)
            {
                let _shown = crate::output::line(&format!("request failed: {error:#}"));
            }
            *slots.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
            slots.1.notify_one();
        });
    }
    Ok(())
}

/// Did the other side close the connection before it had its answer?
fn is_hang_up(error: &anyhow::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    matches!(kind, Some(BrokenPipe | ConnectionReset))
}

fn web() -> Result<()> {
    let name = std::env::var("NAME").unwrap_or_else(|_| "world".to_owned());
    let counter = std::env::var("COUNTER").unwrap_or_else(|_| "counter:6379".to_owned());
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default().trim().to_owned();
    serve(80, move |stream| greet(stream, &name, &host, &counter))
}

fn greet(mut stream: TcpStream, name: &str, host: &str, counter: &str) -> Result<()> {
    let client = stream.peer_addr()?.ip();
    let mut request = String::new();
    let mut reader = BufReader::new((&stream).take(8192));
    reader.read_line(&mut request)?;
    // The rest of the head must be read, or closing would reset the connection under the answer.
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let (status, body) = match request.split(' ').nth(1) {
        Some("/healthz") => ("200 OK", "ok\n".to_owned()),
        Some("/") => match visit(counter) {
            Ok(count) => {
                ("200 OK", format!("Hello {name}! I am {host}. You are {client}. Visits: {count}\n"))
            }
            Err(error) => {
                ("503 Service Unavailable", format!("Hello {name}! I am {host}. No counter: {error:#}\n"))
            }
        },
        _ => ("404 Not Found", "not found\n".to_owned()),
    };
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    );
    // In one piece: who has read the first line may go.
    stream.write_all(answer.as_bytes())?;
    Ok(())
}

/// Asks the counter for the next visit. Source: RESP, the Redis protocol: `INCR key` answers `:n`.
fn visit(counter: &str) -> Result<u64> {
    let address = counter.to_socket_addrs().with_context(|| format!("cannot resolve {counter}"))?.next();
    let address = address.with_context(|| format!("{counter} has no address"))?;
    let mut stream =
        TcpStream::connect_timeout(&address, PATIENCE).with_context(|| format!("cannot reach {counter}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"*2\r\n$4\r\nINCR\r\n$6\r\nvisits\r\n")?;
    let mut line = String::new();
    BufReader::new(stream.take(64)).read_line(&mut line)?;
    line.trim()
        .strip_prefix(':')
        .and_then(|n| n.parse().ok())
        .with_context(|| format!("{counter} said {line:?}"))
}

/// Counts visits; a count is on disk before it is told.
fn counter(file: &Path) -> Result<()> {
    let stored = match std::fs::read_to_string(file) {
        Ok(text) => text.trim().parse().with_context(|| format!("{} holds no number", file.display()))?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => 0,
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", file.display())),
    };
    let count = Mutex::new(stored);
    let file = file.to_owned();
    serve(6379, move |mut stream| {
        let mut reader = BufReader::new(stream.try_clone()?.take(1 << 20));
        let mut line = String::new();
        loop {
            // A command is an array of bulk strings: `*n`, then n times `$length` and the bytes.
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let Some(words) =
                line.trim().strip_prefix('*').and_then(|n| n.parse::<usize>().ok()).filter(|n| *n <= 8)
            else {
                bail!("not a Redis command: {line:?}");
            };
            let mut command = Vec::new();
            for _ in 0..words {
                let (mut length, mut word) = (String::new(), String::new());
                reader.read_line(&mut length)?;
                reader.read_line(&mut word)?;
                command.push(word.trim().to_ascii_lowercase());
            }
            if command.first().map(String::as_str) != Some("incr") {
                stream.write_all(b"-ERR this counter only knows INCR\r\n")?;
                continue;
            }
            let next = {
                let mut count = count.lock().unwrap_or_else(PoisonError::into_inner);
                let next: u64 = *count + 1;
                keep(&file, next)?;
                *count = next;
                next
            };
            write!(stream, ":{next}\r\n")?;
        }
    })
}

fn keep(file: &Path, count: u64) -> Result<()> {
    let new = file.with_extension("new");
    let mut out = std::fs::File::create(&new).with_context(|| format!("cannot write {}", new.display()))?;
    writeln!(out, "{count}")?;
    out.sync_data()?;
    std::fs::rename(&new, file).with_context(|| format!("cannot rename {}", new.display()))
}

/// Prints what an address answers, whatever its status says, as curl does; port 80 unless one is named.
fn get(address: &str) -> Result<()> {
    let (host, path) = address.split_once('/').unwrap_or((address, ""));
    let with_port = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let mut stream = TcpStream::connect(&with_port).with_context(|| format!("cannot reach {with_port}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(1 << 20).read_to_end(&mut answer).with_context(|| format!("{with_port} broke off"))?;
    let answer = String::from_utf8_lossy(&answer);
    let (_, body) = answer.split_once("\r\n\r\n").with_context(|| format!("{with_port} speaks no HTTP"))?;
    crate::output::line(body.trim_end())
}

fn check(address: &str) -> Result<()> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("cannot reach {address}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /healthz HTTP/1.1\r\nHost: {address}\r\n\r\n")?;
    let mut reader = BufReader::new(stream.take(1 << 20));
    let mut line = String::new();
    reader.read_line(&mut line)?;
    if !line.starts_with("HTTP/1.1 200") {
        bail!("{address} said {line:?}");
    }
    // The rest is read too: to go in the middle of an answer is an error for who gives it.
    std::io::copy(&mut reader, &mut std::io::sink()).with_context(|| format!("{address} broke off"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_hears_the_whole_answer_out() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let asking = std::thread::spawn(move || check(&address));
        let (mut stream, _) = listener.accept().expect("who asks");
        let mut reader = BufReader::new(stream.try_clone().expect("the same connection"));
        let mut line = String::new();
        while reader.read_line(&mut line).expect("the request") > 2 {
            line.clear();
        }
        // More than fits into what a connection holds: it can be written only while it is read.
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").expect("the head");
        stream.write_all(&vec![b'x'; (1 << 20) - 100]).expect("who asked to listen to the end");
        drop((stream, reader));
        asking.join().expect("no panic").expect("a good answer");
    }

    #[test]
    fn who_hung_up_is_no_news() {
        let io = |kind| anyhow::Error::from(std::io::Error::from(kind));
        assert!(is_hang_up(&io(std::io::ErrorKind::BrokenPipe)));
        assert!(!is_hang_up(&io(std::io::ErrorKind::TimedOut)));
        assert!(!is_hang_up(&anyhow::anyhow!("not a Redis command")));
    }
}
