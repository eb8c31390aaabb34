//! What every node answers to the others (`proto/node.proto`), and the client side of it: tunnels to a front door
//! and images fetched from a node that has them.

use crate::{clock::clock, connect::Connections, managers::ask_a_manager, record::Folder};
use docker_api::server::{BoxedIo, FrontDoor, Origin, Relayed};
use futures::{Stream, StreamExt, TryStreamExt};
use manager::{Account, Admitted, Method, Place};
use model::{Incarnation, NodeId};
use proto::{
    PersonalClaim, WireId as _,
    dispatcher::MayFetchRequest,
    node::{
        AnnounceReply, AnnounceRequest, Bytes as Chunk, ReadBlobRequest, ResolveImageReply,
        ResolveImageRequest, peer_client::PeerClient, peer_server::Peer,
    },
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncSeekExt, AsyncWriteExt},
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::{CopyToBytes, ReaderStream, SinkWriter, StreamReader};
use tokio_util::{sync::PollSender, task::AbortOnDropHandle};
use tonic::{Request, Response, Status, Streaming, transport::Channel};

/// *Unit:* bytes of one message of a stream.
const CHUNK_BYTES: usize = 64 * 1024;
/// *Limit* of what another node may send at a time: what hyper gathers for one write, and more. *Unit:* bytes.
pub(crate) const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// How long a manager's word counts that a node needs an image, and that it does not.
const YES_LASTS: Duration = Duration::from_secs(10);
const NO_LASTS: Duration = Duration::from_millis(500);
/// *Limit* of managers that announce themselves.
const MANAGERS_MAX: usize = 255;
/// *Limit* of answers that are remembered.
const ANSWERS_MAX: usize = 1024;
/// *Limit* of blobs that one node reads here at once: each is a descriptor, and lasts as long as its reader likes.
const BLOBS_MAX: usize = 32;
/// How long one more waits for its turn.
const BLOB_TURN: Duration = Duration::from_secs(60);

type ChunkStream = Pin<Box<dyn Stream<Item = Result<Chunk, Status>> + Send>>;

/// What a manager said of a node and an image, and when.
type Answers = BTreeMap<(NodeId, String), (bool, Instant)>;

/// Serves the `Peer` service of this node.
#[derive(Debug, Clone)]
pub(crate) struct PeerService {
    images: image::Store,
    /// This node's own front door, once it is open.
    door: FrontDoorCell,
    connections: Arc<Connections>,
    /// Says which managers there are to ask.
    folder: Folder,
    /// The threads that requests of people are served on.
    work: Handle,
    /// What managers said of late of who may fetch what.
    answers: Arc<Mutex<Answers>>,
    readers: Readers,
}

/// Who reads how many blobs.
#[derive(Debug, Clone, Default)]
struct Readers(Arc<Mutex<BTreeMap<NodeId, Arc<Semaphore>>>>);

impl Readers {
    /// Waits until a node may read one more, as long as it holds what this returns.
    async fn turn(&self, node: NodeId, limit: Duration) -> Result<OwnedSemaphorePermit, Status> {
        let places = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|_, places| Arc::strong_count(places) > 1);
            Arc::clone(all.entry(node).or_insert_with(|| Arc::new(Semaphore::new(BLOBS_MAX))))
        };
        match timeout(limit, places.acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) | Err(_) => {
                Err(Status::resource_exhausted(format!("node {node} reads {BLOBS_MAX} blobs here already")))
            }
        }
    }
}

impl PeerService {
    pub(crate) fn new(
        images: image::Store,
        door: FrontDoorCell,
        connections: Arc<Connections>,
        folder: Folder,
        work: Handle,
    ) -> Self {
        Self { images, door, connections, folder, work, answers: Arc::default(), readers: Readers::default() }
    }

    /// Returns the calling node, if it may call `method`.
    fn admit<T>(&self, method: Method, request: &Request<T>) -> Result<Admitted, Status> {
        self.connections.gate().judge(|known| manager::admit(method, request, known))
    }

    /// Returns the reference that an image stands for, if the caller may have it: a manager may, others if a manager
    /// says that they need it.
    async fn may_fetch(&self, caller: Admitted, image: &str) -> Result<image::Reference, Status> {
        let reference =
            image.parse::<image::Reference>().map_err(|e| Status::invalid_argument(e.to_string()))?;
        if !caller.manager && !self.needs(caller.node, image).await? {
            return Err(Status::permission_denied(format!(
                "node {} does not need image {image}",
                caller.node
            )));
        }
        Ok(reference)
    }

    /// Returns what managers say, or said a moment ago.
    async fn needs(&self, node: NodeId, image: &str) -> Result<bool, Status> {
        let key = (node, image.to_owned());
        let known = self.answers.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied();
        if let Some((may, at)) = known
            && at.elapsed() < if may { YES_LASTS } else { NO_LASTS }
        {
            return Ok(may);
        }
        let record = self.folder.load().ok().flatten();
        let record = record.ok_or_else(|| Status::unavailable("this node is in no swarm"))?;
        let managers = record.managers.into_iter().chain([record.advertise_addr]);
        let question = MayFetchRequest { node: node.to_wire(), image: image.to_owned() };
        let asked = ask_a_manager(managers, &self.connections, |mut manager| {
            let question = question.clone();
            async move { manager.may_fetch(question).await }
        });
        let may = asked.await?.may;
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= ANSWERS_MAX {
            answers.clear();
        }
        answers.insert(key, (may, Instant::now()));
        Ok(may)
    }

    /// Serves a connection to this node's own front door through the streams of a call.
    /// `place`: of whom it is for; free again at its end.
    fn enter(
        &self,
        origin: Origin,
        mut incoming: Streaming<Chunk>,
        place: Option<Place>,
    ) -> Result<Response<ChunkStream>, Status> {
        let door =
            self.door.get().ok_or_else(|| Status::unavailable("the front door is not open yet"))?.clone();
        let (ours, theirs) = tokio::io::duplex(CHUNK_BYTES);
        let (from_door, mut to_door) = tokio::io::split(ours);
        // Ends when the caller's streams are dropped and with them our end of the duplex.
        let serving = self.work.spawn(async move { door.connection(theirs, origin).await });
        let serving = AbortOnDropHandle::new(serving);
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
        let chunks = both.try_filter_map(|chunk| async move { Ok(chunk) });
        Ok(Response::new(Box::pin(chunks.inspect(move |_| {
            let _held_until_it_ends = &place;
        }))))
    }
}

/// The front door is made after what it stands for, so it is filled in later.
pub(crate) type FrontDoorCell = Arc<OnceLock<FrontDoor>>;

#[tonic::async_trait]
impl Peer for PeerService {
    type TunnelStream = ChunkStream;
    type RelayStream = ChunkStream;
    type ReadBlobStream = ChunkStream;

    async fn tunnel(&self, request: Request<Streaming<Chunk>>) -> Result<Response<ChunkStream>, Status> {
        self.admit(Method::Tunnel, &request)?;
        self.enter(Origin::Peer, request.into_inner(), None)
    }

    async fn relay(&self, request: Request<Streaming<Chunk>>) -> Result<Response<ChunkStream>, Status> {
        let gate = self.connections.gate();
        let (claim, node) =
            gate.judge(|known| manager::admit_person(Method::Relay, &request, known, clock()))?;
        let place = self.connections.under_way().take(Account::of(&claim))?;
        self.enter(Origin::Relay(Relayed { claim, node }), request.into_inner(), Some(place))
    }

    async fn resolve_image(
        &self,
        request: Request<ResolveImageRequest>,
    ) -> Result<Response<ResolveImageReply>, Status> {
        let caller = self.admit(Method::ResolveImage, &request)?;
        let ResolveImageRequest { reference: wanted, image } = request.into_inner();
        let image = if image.is_empty() { &wanted } else { &image };
        let named = self.may_fetch(caller, image).await?;
        let reference =
            wanted.parse::<image::Reference>().map_err(|e| Status::invalid_argument(e.to_string()))?;
        let is_it = reference == named
            || match &reference.digest {
                Some(digest) => self.images.is_part_of(&named, digest).await,
                None => false,
            };
        if !is_it {
            return Err(Status::permission_denied(format!("{wanted} is not image {image}")));
        }
        let Some(manifest) = self.images.manifest_for(&reference).await else {
            return Err(Status::not_found(format!("no such image: {wanted}")));
        };
        Ok(Response::new(ResolveImageReply {
            media_type: manifest.media_type,
            digest: manifest.digest.to_string(),
            manifest: manifest.bytes.to_vec(),
        }))
    }

    async fn announce(&self, request: Request<AnnounceRequest>) -> Result<Response<AnnounceReply>, Status> {
        let caller = self.admit(Method::Announce, &request)?;
        let gate = self.connections.gate();
        if !gate.may_be_called(caller.node, true) {
            return Err(Status::permission_denied("this node is a manager no more"));
        }
        let AnnounceRequest { incarnation, managers } = request.into_inner();
        let incarnation = incarnation.map(Incarnation::try_from).transpose();
        let incarnation = incarnation.map_err(|e| Status::invalid_argument(e.to_string()))?;
        let incarnation = incarnation.ok_or_else(|| Status::invalid_argument("no incarnation"))?;
        let managers: Result<Vec<SocketAddr>, _> = managers.iter().map(|addr| addr.parse()).collect();
        let managers =
            managers.map_err(|_| Status::invalid_argument("a manager's address is not IP:PORT"))?;
        if managers.is_empty() || managers.len() > MANAGERS_MAX {
            return Err(Status::invalid_argument("no managers, or too many"));
        }
        gate.hear_announcement(incarnation, managers);
        Ok(Response::new(AnnounceReply {}))
    }

    async fn read_blob(&self, request: Request<ReadBlobRequest>) -> Result<Response<ChunkStream>, Status> {
        let caller = self.admit(Method::ReadBlob, &request)?;
        let ReadBlobRequest { digest, offset, image } = request.into_inner();
        let reference = self.may_fetch(caller, &image).await?;
        let parsed = digest.parse::<image::Digest>().map_err(|e| Status::invalid_argument(e.to_string()))?;
        if !self.images.is_part_of(&reference, &parsed).await {
            return Err(Status::not_found(format!("no such blob of {image}: {digest}")));
        }
        let Some(path) = self.images.blob_path(&parsed) else {
            return Err(Status::not_found(format!("no such blob: {digest}")));
        };
        let place = self.readers.turn(caller.node, BLOB_TURN).await?;
        let unreadable = |e: std::io::Error| Status::internal(format!("cannot read blob {digest}: {e}"));
        let mut file = tokio::fs::File::open(path).await.map_err(unreadable)?;
        file.seek(std::io::SeekFrom::Start(offset)).await.map_err(unreadable)?;
        let stream = ReaderStream::with_capacity(file, CHUNK_BYTES).map(move |read| {
            let _held_while_it_is_read = &place;
            read.map(|data| Chunk { data }).map_err(|e| Status::internal(e.to_string()))
        });
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

/// Opens a raw connection to the front door of the node at the other end of `channel`, with the place of whom it is for.
///
/// # Errors
/// The node does not answer, or does not let this node in.
pub(crate) async fn open_tunnel(channel: Channel, place: Place) -> Result<BoxedIo, Status> {
    let (to_node, outgoing) = outgoing();
    let incoming = PeerClient::new(channel).tunnel(outgoing).await?.into_inner();
    Ok(joined(to_node, incoming, Some(place)))
}

/// Opens a raw connection to the front door of the manager at the other end of `channel`, for the person who claims to
/// ask.
///
/// # Errors
/// It does not answer, or does not let this person in.
pub(crate) async fn open_relay(channel: Channel, claim: PersonalClaim) -> Result<BoxedIo, Status> {
    let (to_node, outgoing) = outgoing();
    let incoming = PeerClient::with_interceptor(channel, claim).relay(outgoing).await?.into_inner();
    Ok(joined(to_node, incoming, None))
}

fn outgoing() -> (mpsc::Sender<Chunk>, ReceiverStream<Chunk>) {
    let (to_node, outgoing) = mpsc::channel(16);
    (to_node, ReceiverStream::new(outgoing))
}

/// Makes one connection of the two streams of a call.
fn joined(to_node: mpsc::Sender<Chunk>, incoming: Streaming<Chunk>, place: Option<Place>) -> BoxedIo {
    let reader = StreamReader::new(incoming.map(move |chunk| {
        let _held_until_it_ends = &place;
        match chunk {
            Ok(chunk) => Ok(chunk.data),
            Err(status) => Err(std::io::Error::other(status)),
        }
    }));
    let sink = PollSender::new(to_node);
    let sink = futures::SinkExt::with(sink, |data| async move {
        Ok::<_, tokio_util::sync::PollSendError<Chunk>>(Chunk { data })
    });
    let sink = futures::SinkExt::sink_map_err(sink, |_| std::io::Error::from(std::io::ErrorKind::BrokenPipe));
    let writer = SinkWriter::new(CopyToBytes::new(Box::pin(sink)));
    Box::new(tokio::io::join(reader, writer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_node_reads_so_many_blobs_at_once_and_keeps_no_other_from_it() {
        let (readers, soon) = (Readers::default(), Duration::from_millis(20));
        let mut held = Vec::new();
        for _ in 0..BLOBS_MAX {
            held.push(readers.turn(NodeId(1), BLOB_TURN).await.unwrap());
        }
        let refused = readers.turn(NodeId(1), soon).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        let other = readers.turn(NodeId(2), BLOB_TURN).await.unwrap();
        held.pop();
        held.push(readers.turn(NodeId(1), BLOB_TURN).await.unwrap());
        drop((held, other));
        drop(readers.turn(NodeId(3), BLOB_TURN).await.unwrap());
        assert_eq!(readers.0.lock().unwrap().len(), 1, "who reads nothing is forgotten");
    }
}
