//! What every node answers to the others (`proto/node.proto`), and the client side of it: tunnels to a front door
//! and images fetched from a node that has them.

use docker_api::server::{BoxedIo, FrontDoor, Origin};
use futures::{Stream, StreamExt, TryStreamExt};
use model::Role;
use proto::node::{
    Bytes as Chunk, ReadBlobRequest, ResolveImageReply, ResolveImageRequest, peer_client::PeerClient,
    peer_server::Peer,
};
use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio_util::io::{CopyToBytes, ReaderStream, SinkWriter, StreamReader};
use tokio_util::sync::PollSender;
use tonic::{Request, Response, Status, Streaming, transport::Channel};

/// *Unit:* bytes of one message of a stream.
const CHUNK_BYTES: usize = 64 * 1024;

type ChunkStream = Pin<Box<dyn Stream<Item = Result<Chunk, Status>> + Send>>;

/// Serves the `Peer` service of this node.
#[derive(Debug, Clone)]
pub(crate) struct PeerService {
    pub(crate) images: image::Store,
    /// This node's own front door, once it is open.
    pub(crate) door: FrontDoorCell,
}

/// The front door is made after what it stands for, so it is filled in later.
pub(crate) type FrontDoorCell = Arc<OnceLock<FrontDoor>>;

/// Deny by default: who may not call is told so, and nothing else.
fn only(request: &Request<impl Sized>, managers_only: bool) -> Result<(), Status> {
    let identity = pki::tls::Peer::of(request).and_then(|peer| peer.identity);
    match identity {
        Some(identity) if !managers_only || identity.role == Role::Manager => Ok(()),
        Some(_) => Err(Status::permission_denied("only managers may reach another node's front door")),
        None => Err(Status::unauthenticated("a node certificate is needed")),
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    type TunnelStream = ChunkStream;
    type ReadBlobStream = ChunkStream;

    async fn tunnel(&self, request: Request<Streaming<Chunk>>) -> Result<Response<ChunkStream>, Status> {
        only(&request, true)?;
        let door =
            self.door.get().ok_or_else(|| Status::unavailable("the front door is not open yet"))?.clone();
        let (ours, theirs) = tokio::io::duplex(CHUNK_BYTES);
        let (from_door, mut to_door) = tokio::io::split(ours);
        // Ends when the caller's streams are dropped and with them our end of the duplex.
        let serving = async move { door.connection(theirs, Origin::Peer).await };
        let mut incoming = request.into_inner();
        // One stream drives both directions, so that both end when the caller goes away.
        let forward = async move {
            while let Some(chunk) = incoming.message().await? {
                to_door.write_all(&chunk.data).await.map_err(|e| Status::aborted(e.to_string()))?;
            }
            // The caller closed its side: pass the half-close on.
            to_door.shutdown().await.map_err(|e| Status::aborted(e.to_string()))
        };
        let backward = ReaderStream::with_capacity(from_door, CHUNK_BYTES)
            .map(|read| read.map(|data| Some(Chunk { data })).map_err(|e| Status::aborted(e.to_string())));
        let forward = async { tokio::join!(forward, serving).0 };
        let forward = futures::stream::once(forward).map_ok(|()| None);
        // `backward` ends the tunnel; `forward` alone (a half-close) does not.
        let both = join_until_second_ends(forward.boxed(), backward.boxed());
        Ok(Response::new(Box::pin(both.try_filter_map(|chunk| async move { Ok(chunk) }))))
    }

    async fn resolve_image(
        &self,
        request: Request<ResolveImageRequest>,
    ) -> Result<Response<ResolveImageReply>, Status> {
        only(&request, false)?;
        let wanted = request.into_inner().reference;
        let reference =
            wanted.parse::<image::Reference>().map_err(|e| Status::invalid_argument(e.to_string()))?;
        let Some(manifest) = self.images.manifest_for(&reference).await else {
            return Err(Status::not_found(format!("no such image: {wanted}")));
        };
        Ok(Response::new(ResolveImageReply {
            media_type: manifest.media_type,
            digest: manifest.digest.to_string(),
            manifest: manifest.bytes.to_vec(),
        }))
    }

    async fn read_blob(&self, request: Request<ReadBlobRequest>) -> Result<Response<ChunkStream>, Status> {
        only(&request, false)?;
        let ReadBlobRequest { digest, offset, .. } = request.into_inner();
        let parsed = digest.parse::<image::Digest>().map_err(|e| Status::invalid_argument(e.to_string()))?;
        let Some(path) = self.images.blob_path(&parsed) else {
            return Err(Status::not_found(format!("no such blob: {digest}")));
        };
        let unreadable = |e: std::io::Error| Status::internal(format!("cannot read blob {digest}: {e}"));
        let mut file = tokio::fs::File::open(path).await.map_err(unreadable)?;
        file.seek(std::io::SeekFrom::Start(offset)).await.map_err(unreadable)?;
        let stream = ReaderStream::with_capacity(file, CHUNK_BYTES)
            .map(|read| read.map(|data| Chunk { data }).map_err(|e| Status::internal(e.to_string())));
        Ok(Response::new(Box::pin(stream)))
    }
}

/// Yields the items of both streams until `second` ends or either fails.
fn join_until_second_ends<T: Send + 'static>(
    first: Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>,
    second: Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>,
) -> impl Stream<Item = Result<T, Status>> + Send {
    futures::stream::unfold(Some((first.fuse(), second)), |state| async {
        let (mut first, mut second) = state?;
        let item = tokio::select! {
            biased;
            item = second.next() => item?,
            Some(item) = first.next() => item,
        };
        let next = item.is_ok().then_some((first, second));
        Some((item, next))
    })
}

/// Opens a raw connection to the front door of the node at the other end of `channel`.
///
/// # Errors
/// The node does not answer, or does not let this node in.
pub(crate) async fn open_tunnel(channel: Channel) -> Result<BoxedIo, Status> {
    let (to_node, outgoing) = tokio::sync::mpsc::channel::<Chunk>(16);
    let outgoing = tokio_stream::wrappers::ReceiverStream::new(outgoing);
    let incoming = PeerClient::new(channel).tunnel(outgoing).await?.into_inner();
    let reader = StreamReader::new(incoming.map(|chunk| match chunk {
        Ok(chunk) => Ok(chunk.data),
        Err(status) => Err(std::io::Error::other(status)),
    }));
    let sink = PollSender::new(to_node);
    let sink = futures::SinkExt::with(sink, |data| async move {
        Ok::<_, tokio_util::sync::PollSendError<Chunk>>(Chunk { data })
    });
    let sink = futures::SinkExt::sink_map_err(sink, |_| std::io::Error::from(std::io::ErrorKind::BrokenPipe));
    let writer = SinkWriter::new(CopyToBytes::new(Box::pin(sink)));
    Ok(Box::new(tokio::io::join(reader, writer)))
}
