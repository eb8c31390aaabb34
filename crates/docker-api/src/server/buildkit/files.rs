//! A client's folder, fetched over its session and made into the tar that the engine's builder reads.
//!
//! The client sends a description of every entry at once; the content of a file comes when it is asked for. One file is
//! asked for at a time, so nothing is kept but the descriptions.
//! *Source:* tonistiigi/fsutil `receive.go`, `send.go`; buildkit `session/filesync`.

use crate::client::escape;
use futures::StreamExt as _;
use proto::buildkit::{
    files::{Packet, Stat, packet::PacketType},
    filesync::file_sync_client::FileSyncClient,
    upload::{BytesMessage, upload_client::UploadClient},
};
use std::{collections::VecDeque, io};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream},
    sync::mpsc,
    task::JoinSet,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status, Streaming,
    metadata::{AsciiMetadataKey, AsciiMetadataValue},
    transport::Channel,
};

/// *Unit:* bytes that wait for the builder.
const BUFFER: usize = 256 << 10;
/// *Limit* of entries in a folder: their descriptions are kept in memory.
const ENTRIES_MAX: usize = 4_000_000;
const BLOCK: usize = 512;

/// Of Go's `os.FileMode`.
mod go {
    pub(super) const DIR: u32 = 1 << 31;
    pub(super) const SYMLINK: u32 = 1 << 27;
    pub(super) const DEVICE: u32 = 1 << 26;
    pub(super) const PIPE: u32 = 1 << 25;
    pub(super) const SOCKET: u32 = 1 << 24;
    pub(super) const SETUID: u32 = 1 << 23;
    pub(super) const SETGID: u32 = 1 << 22;
    pub(super) const CHAR_DEVICE: u32 = 1 << 21;
    pub(super) const STICKY: u32 = 1 << 20;
    /// Whatever is not a plain file.
    pub(super) const TYPE: u32 = DIR | SYMLINK | DEVICE | PIPE | SOCKET | CHAR_DEVICE | 1 << 19;
}

/// What of a client's folder is wanted.
#[derive(Debug, Clone, Default)]
pub(super) struct Folder {
    /// As the client offers it: `context`, `dockerfile`.
    pub(super) name: String,
    /// Patterns as of `.dockerignore`; empty = everything.
    pub(super) include: Vec<String>,
    pub(super) exclude: Vec<String>,
}

/// Returns a folder as a tar. What goes wrong is an error of the reader.
pub(super) fn tar(channel: Channel, folder: Folder) -> impl AsyncRead + Send + Unpin {
    piped(move |mut to| async move { fetch(channel, folder, &mut to).await })
}

/// Returns what a client uploads.
pub(super) fn upload(channel: Channel, path: String, host: String) -> impl AsyncRead + Send + Unpin {
    piped(move |mut to| async move {
        let mut request = Request::new(futures::stream::pending::<BytesMessage>());
        for (key, value) in [("urlpath", path), ("urlhost", host)] {
            let value = AsciiMetadataValue::try_from(value).map_err(io::Error::other)?;
            request.metadata_mut().insert(key, value);
        }
        let answer = UploadClient::new(channel).pull(request).await.map_err(refused)?;
        let mut messages = answer.into_inner();
        while let Some(message) = messages.message().await.map_err(refused)? {
            to.write_all(&message.data).await?;
        }
        Ok(())
    })
}

fn refused(status: Status) -> io::Error {
    io::Error::other(status.message().to_owned())
}

/// Returns the reading end of what a task writes; its error is the reader's last.
fn piped<F>(write: impl FnOnce(DuplexStream) -> F + Send + 'static) -> impl AsyncRead + Send + Unpin
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let (to, from) = tokio::io::duplex(BUFFER);
    let (failed, failure) = mpsc::channel(1);
    let mut writer = JoinSet::new();
    writer.spawn(async move {
        if let Err(error) = write(to).await {
            drop(failed.send(error).await);
        }
    });
    Piped { from, failure, writer }
}

struct Piped {
    from: DuplexStream,
    failure: mpsc::Receiver<io::Error>,
    /// Nobody reads any more: nobody writes.
    #[expect(dead_code, reason = "held for its drop")]
    writer: JoinSet<()>,
}

impl AsyncRead for Piped {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        to: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        let before = to.filled().len();
        let read = std::pin::Pin::new(&mut self.from).poll_read(cx, to);
        if !matches!(read, std::task::Poll::Ready(Ok(()))) || to.filled().len() > before {
            return read;
        }
        // The end: why?
        match std::task::ready!(self.failure.poll_recv(cx)) {
            Some(error) => std::task::Poll::Ready(Err(error)),
            None => std::task::Poll::Ready(Ok(())),
        }
    }
}

/// Asks for a folder; header values that are not plain text are escaped, and said to be.
fn request(folder: &Folder, outgoing: ReceiverStream<Packet>) -> io::Result<Request<ReceiverStream<Packet>>> {
    let mut request = Request::new(outgoing);
    let name = std::slice::from_ref(&folder.name);
    for (key, values) in
        [("dir-name", name), ("include-patterns", &folder.include), ("exclude-patterns", &folder.exclude)]
    {
        let is_plain = values.iter().all(|v| v.bytes().all(|b| (b' '..=b'~').contains(&b)));
        for value in values {
            let value = if is_plain { value.clone() } else { escape(value) };
            let value = AsciiMetadataValue::try_from(value).map_err(io::Error::other)?;
            request.metadata_mut().append(AsciiMetadataKey::from_static(key), value);
        }
        if !is_plain && !values.is_empty() {
            let key = AsciiMetadataKey::from_bytes(format!("{key}-encoded").as_bytes())
                .map_err(io::Error::other)?;
            request.metadata_mut().insert(key, AsciiMetadataValue::from_static("1"));
        }
    }
    Ok(request)
}

/// A file whose content is coming.
struct Current {
    id: u32,
    size: u64,
    left: u64,
}

async fn fetch(channel: Channel, folder: Folder, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let (ask, outgoing) = mpsc::channel(8);
    let request = request(&folder, ReceiverStream::new(outgoing))?;
    let client = FileSyncClient::new(channel).max_decoding_message_size(super::MESSAGE_MAX);
    let mut packets = { client }.diff_copy(request).await.map_err(refused)?.into_inner();
    let mut waiting: VecDeque<(u32, Stat)> = VecDeque::new();
    let (mut count, mut complete, mut current) = (0u32, false, None::<Current>);
    // The folder itself: a tar without an entry is no tar.
    let root = Stat { path: "./".to_owned(), mode: go::DIR | 0o755, ..Stat::default() };
    begin(0, &root, to).await?;
    loop {
        while current.is_none()
            && let Some((id, stat)) = waiting.pop_front()
        {
            current = begin(id, &stat, to).await?;
            if let Some(file) = &current {
                send(&ask, PacketType::PacketReq, file.id).await?;
            }
        }
        if complete && current.is_none() {
            break;
        }
        let packet = next(&mut packets).await?;
        match packet.r#type() {
            PacketType::PacketStat => match packet.stat {
                Some(stat) => {
                    if waiting.len() >= ENTRIES_MAX {
                        return Err(io::Error::other("the build context has too many files"));
                    }
                    waiting.push_back((count, stat));
                    count += 1;
                }
                None => complete = true,
            },
            PacketType::PacketData => match &mut current {
                Some(file) if file.id == packet.id => {
                    let take = packet.data.len().min(usize::try_from(file.left).unwrap_or(usize::MAX));
                    to.write_all(&packet.data[..take]).await?;
                    file.left -= take as u64;
                    if packet.data.is_empty() {
                        // It may have become shorter since it was described.
                        let rest = file.left + padding(file.size);
                        tokio::io::copy(&mut tokio::io::repeat(0).take(rest), to).await?;
                        current = None;
                    }
                }
                _ => return Err(io::Error::other("the client sends a file that was not asked for")),
            },
            PacketType::PacketReq | PacketType::PacketFin | PacketType::PacketErr => {
                return Err(io::Error::other("the client breaks the file protocol"));
            }
        }
    }
    to.write_all(&[0; 2 * BLOCK]).await?;
    to.shutdown().await?;
    send(&ask, PacketType::PacketFin, 0).await?;
    while let Some(packet) = packets.next().await {
        if packet.map_err(refused)?.r#type() == PacketType::PacketFin {
            break;
        }
    }
    Ok(())
}

async fn send(to: &mpsc::Sender<Packet>, kind: PacketType, id: u32) -> io::Result<()> {
    let packet = Packet { r#type: kind.into(), id, ..Packet::default() };
    to.send(packet).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
}

async fn next(packets: &mut Streaming<Packet>) -> io::Result<Packet> {
    let packet = packets.message().await.map_err(refused)?;
    let packet = packet.ok_or_else(|| io::Error::other("the client ended in the middle of its files"))?;
    if packet.r#type() == PacketType::PacketErr {
        return Err(io::Error::other(String::from_utf8_lossy(&packet.data).into_owned()));
    }
    Ok(packet)
}

/// Writes the head of an entry; returns the file whose content belongs behind it.
async fn begin(id: u32, stat: &Stat, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<Option<Current>> {
    let Some((head, size)) = head(stat)? else { return Ok(None) };
    to.write_all(&head).await?;
    Ok((size > 0).then_some(Current { id, size, left: size }))
}

/// Returns the tar header of an entry and the size of its content; `None` for sockets, which no tar holds.
fn head(stat: &Stat) -> io::Result<Option<(Vec<u8>, u64)>> {
    let mode = stat.mode;
    let is_plain = mode & go::TYPE == 0;
    let kind = match mode {
        _ if is_plain && !stat.linkname.is_empty() => tar::EntryType::Link,
        _ if is_plain => tar::EntryType::Regular,
        _ if mode & go::DIR != 0 => tar::EntryType::Directory,
        _ if mode & go::SYMLINK != 0 => tar::EntryType::Symlink,
        _ if mode & go::PIPE != 0 => tar::EntryType::Fifo,
        _ if mode & go::CHAR_DEVICE != 0 => tar::EntryType::Char,
        _ if mode & go::DEVICE != 0 => tar::EntryType::Block,
        _ => return Ok(None),
    };
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    let special = [(go::SETUID, 0o4000), (go::SETGID, 0o2000), (go::STICKY, 0o1000)];
    let special = special.iter().filter(|(theirs, _)| mode & theirs != 0).map(|(_, ours)| ours).sum::<u32>();
    header.set_mode(mode & 0o777 | special);
    header.set_uid(stat.uid.into());
    header.set_gid(stat.gid.into());
    header.set_mtime(u64::try_from(stat.mod_time / 1_000_000_000).unwrap_or(0));
    let size = match kind {
        tar::EntryType::Regular => u64::try_from(stat.size)
            .map_err(|_| io::Error::other(format!("{}: {} is no size of a file", stat.path, stat.size)))?,
        _ => 0,
    };
    header.set_size(size);
    if matches!(kind, tar::EntryType::Char | tar::EntryType::Block) {
        let number = |n: i64| u32::try_from(n).map_err(io::Error::other);
        header.set_device_major(number(stat.devmajor)?)?;
        header.set_device_minor(number(stat.devminor)?)?;
    }
    let mut tar = tar::Builder::new(Vec::new());
    match kind {
        tar::EntryType::Link | tar::EntryType::Symlink => {
            tar.append_link(&mut header, &stat.path, &stat.linkname)?
        }
        _ => tar.append_data(&mut header, &stat.path, io::empty())?,
    }
    // Not `into_inner`: that writes the end of the archive.
    Ok(Some((std::mem::take(tar.get_mut()), size)))
}

/// Returns how many bytes fill a file's last block.
fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(stats: &[Stat]) -> Vec<String> {
        let mut archive = Vec::new();
        for stat in stats {
            let Some((head, size)) = head(stat).unwrap() else { continue };
            archive.extend(head);
            archive.extend(std::iter::repeat_n(b'x', usize::try_from(size + padding(size)).unwrap()));
        }
        archive.extend([0; 2 * BLOCK]);
        let mut archive = tar::Archive::new(archive.as_slice());
        let show = |entry: io::Result<tar::Entry<'_, _>>| {
            let entry = entry.unwrap();
            let (header, path) = (entry.header(), entry.path().unwrap().display().to_string());
            let link = entry.link_name().unwrap().map_or(String::new(), |l| format!(" -> {}", l.display()));
            format!("{path}{link} {:?} {:o} {}", header.entry_type(), header.mode().unwrap(), entry.size())
        };
        archive.entries().unwrap().map(show).collect()
    }

    #[test]
    fn a_file_of_less_than_nothing_is_none() {
        let refused = head(&Stat { path: "a".into(), mode: 0o644, size: -1, ..Stat::default() }).unwrap_err();
        assert_eq!(refused.to_string(), "a: -1 is no size of a file");
    }

    #[test]
    fn what_a_client_describes_becomes_entries_of_a_tar() {
        let stat = |path: &str, mode, size, linkname: &str| Stat {
            path: path.into(),
            mode,
            size,
            linkname: linkname.into(),
            ..Stat::default()
        };
        let long = "d/".to_owned() + &"n".repeat(200);
        let seen = entries(&[
            stat("d", go::DIR | 0o755, 4096, ""),
            stat("d/f", 0o644, 700, ""),
            stat("d/empty", 0o600 | go::SETUID, 0, ""),
            stat("d/s", go::SYMLINK | 0o777, 3, "f"),
            stat("d/hard", 0o644, 700, "d/f"),
            stat("d/pipe", go::PIPE | 0o600, 0, ""),
            stat("d/socket", go::SOCKET | 0o600, 0, ""),
            stat(&long, 0o644, 512, ""),
        ]);
        assert_eq!(
            seen,
            [
                "d Directory 755 0".to_owned(),
                "d/f Regular 644 700".to_owned(),
                "d/empty Regular 4600 0".to_owned(),
                "d/s -> f Symlink 777 0".to_owned(),
                "d/hard -> d/f Link 644 0".to_owned(),
                "d/pipe Fifo 600 0".to_owned(),
                format!("{long} Regular 644 512"),
            ]
        );
    }
}
