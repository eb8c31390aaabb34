//! Messages that a node has begun and not ended: bounded per node, and in time.
//!
//! A certificate lets a node make a thousand calls at once on each of its connections, and a message is kept until it is
//! whole. Without this a node in others' hands would have a manager keep beginnings without end, for ever. Managers are not
//! held to it: entries of the log are large, and whoever has a manager's key has the swarm.
//!
//! ```text
//!  call --> Began: its messages' heads are read as they pass
//!             '-- announced bytes --> Beginnings: sum per node, at most UNDER_WAY_MAX
//! ```

use hyper::body::Frame;
use model::NodeId;
use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Sleep, sleep};
use tonic::{
    Status,
    body::Body,
    codegen::{Bytes, http::Request},
};

/// *Limit* of messages of one node that are under way, by the lengths that their heads announce: two of the longest, a
/// person's that a worker relays. *Unit:* bytes.
const UNDER_WAY_MAX: usize = 2 * manager::REQUEST_BYTES_MAX;
/// How long a message may take from its first byte to its last; where a call is one message, from the call on. The longest
/// takes a minute at 10 Mbit/s.
const MESSAGE_LIMIT: Duration = Duration::from_secs(120);
/// Calls in which messages come whenever there is something to say.
const CONVERSATIONS: [&str; 4] = [
    "/rswarm.dispatcher.v1.Dispatcher/Session",
    "/rswarm.node.v1.Peer/Relay",
    "/rswarm.node.v1.Peer/Tunnel",
    "/rswarm.raft.v1.Raft/Snapshot",
];
/// *Unit:* bytes before each message: a flag and a length. *Source:* gRPC over HTTP2, "Length-Prefixed-Message".
const HEAD_BYTES: usize = 5;

/// What all nodes have under way; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Beginnings {
    bytes: Arc<Mutex<BTreeMap<NodeId, usize>>>,
    limit: Duration,
}

impl Default for Beginnings {
    fn default() -> Self {
        Self { bytes: Arc::default(), limit: MESSAGE_LIMIT }
    }
}

impl Beginnings {
    /// Returns a node's request with a body that is held to the limits.
    pub(crate) fn watch(&self, node: NodeId, request: Request<Body>) -> Request<Body> {
        let goes_on = CONVERSATIONS.contains(&request.uri().path());
        let share = Share { bytes: self.bytes.clone(), node, announced: 0 };
        let limit = self.limit;
        request.map(|inner| {
            let ends = (!goes_on).then(|| Box::pin(sleep(limit)));
            Body::new(Began { inner, share, goes_on, limit, ends, head: Vec::new(), missing: 0 })
        })
    }
}

/// What one call has under way, given back when dropped.
#[derive(Debug)]
struct Share {
    bytes: Arc<Mutex<BTreeMap<NodeId, usize>>>,
    node: NodeId,
    announced: usize,
}

impl Share {
    fn set(&mut self, announced: usize) -> Result<(), Status> {
        let mut all = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = all.get(&self.node).copied().unwrap_or_default() - self.announced;
        let sum = sum.saturating_add(announced);
        let fits = announced == 0 || sum <= UNDER_WAY_MAX;
        self.announced = if fits { announced } else { 0 };
        match if fits { sum } else { sum - announced } {
            0 => drop(all.remove(&self.node)),
            sum => drop(all.insert(self.node, sum)),
        }
        if fits {
            return Ok(());
        }
        Err(Status::resource_exhausted(format!(
            "node {} has more than {UNDER_WAY_MAX} bytes of messages under way",
            self.node
        )))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        drop(self.set(0));
    }
}

/// A body whose messages are counted while they come.
struct Began {
    inner: Body,
    share: Share,
    goes_on: bool,
    limit: Duration,
    /// Runs while something must come.
    ends: Option<Pin<Box<Sleep>>>,
    /// Of the head of the next message, what has come.
    head: Vec<u8>,
    /// *Unit:* bytes of the message under way that have not come.
    missing: usize,
}

impl Began {
    fn read(&mut self, mut data: &[u8]) -> Result<(), Status> {
        while !data.is_empty() {
            if self.missing > 0 {
                let (_, rest) = data.split_at(self.missing.min(data.len()));
                self.missing -= data.len() - rest.len();
                data = rest;
            } else {
                if self.head.is_empty() && self.ends.is_none() {
                    self.ends = Some(Box::pin(sleep(self.limit)));
                }
                let (more, rest) = data.split_at((HEAD_BYTES - self.head.len()).min(data.len()));
                self.head.extend_from_slice(more);
                data = rest;
                let Ok([_, length @ ..]) = <[u8; HEAD_BYTES]>::try_from(self.head.as_slice()) else {
                    continue;
                };
                self.missing = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                self.share.set(self.missing)?;
            }
            if self.missing == 0 {
                self.share.set(0)?;
                self.head.clear();
                // The end of a call that is one message is waited for, too.
                self.ends.take_if(|_| self.goes_on);
            }
        }
        Ok(())
    }
}

impl hyper::body::Body for Began {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                let over = self.ends.as_mut().is_some_and(|ends| ends.as_mut().poll(cx).is_ready());
                if !over {
                    return Poll::Pending;
                }
                Some(Err(Status::deadline_exceeded(format!(
                    "a message did not come whole within {} s",
                    self.limit.as_secs()
                ))))
            }
        };
        let frame = frame.map(|frame| {
            let frame = frame?;
            if let Some(data) = frame.data_ref() {
                self.read(data)?;
            }
            Ok(frame)
        });
        if matches!(frame, None | Some(Err(_))) {
            self.ends = None;
            drop(self.share.set(0));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt as _, StreamBody};
    use tokio::{sync::mpsc, time::timeout};
    use tokio_stream::wrappers::ReceiverStream;

    const UNARY: &str = "/rswarm.dispatcher.v1.Work/Attach";

    /// A call of a node, as its handler reads it.
    struct Call {
        says: mpsc::Sender<Result<Frame<Bytes>, Status>>,
        heard: Body,
    }

    impl Call {
        fn of(all: &Beginnings, node: u128, path: &str) -> Self {
            // Each piece is heard before the next one is said.
            let (says, frames) = mpsc::channel(1);
            let body = Body::new(StreamBody::new(ReceiverStream::new(frames)));
            let request = Request::builder().uri(path).body(body).unwrap();
            Self { says, heard: all.watch(NodeId(node), request).into_body() }
        }

        /// Sends bytes in pieces; returns the code of the refusal that they meet.
        async fn say(&mut self, bytes: &[u8]) -> Result<(), tonic::Code> {
            for piece in bytes.chunks(3) {
                self.says.send(Ok(Frame::data(Bytes::copy_from_slice(piece)))).await.unwrap();
                self.hear().await.expect("more")?;
            }
            Ok(())
        }

        async fn hear(&mut self) -> Option<Result<(), tonic::Code>> {
            let frame = self.heard.frame().await?;
            Some(frame.map(drop).map_err(|e| e.code()))
        }
    }

    fn head(length: usize) -> Vec<u8> {
        [&[0][..], &u32::try_from(length).unwrap().to_be_bytes()].concat()
    }

    #[tokio::test]
    async fn a_node_has_so_much_under_way_and_no_more() {
        let all = Beginnings::default();
        let half = UNDER_WAY_MAX / 2;
        let mut first = Call::of(&all, 1, UNARY);
        let mut second = Call::of(&all, 1, CONVERSATIONS[0]);
        assert_eq!(first.say(&head(half)).await, Ok(()));
        // What is whole counts no more, however it is cut.
        assert_eq!(second.say(&[head(4), vec![7; 4], head(0), head(half)].concat()).await, Ok(()));
        let mut third = Call::of(&all, 1, UNARY);
        assert_eq!(third.say(&head(1)).await, Err(tonic::Code::ResourceExhausted));
        assert_eq!(
            Call::of(&all, 2, UNARY).say(&head(half)).await,
            Ok(()),
            "another node is not kept from it"
        );
        drop(first);
        assert_eq!(Call::of(&all, 1, UNARY).say(&head(1)).await, Ok(()));
        let mut much = Call::of(&all, 3, UNARY);
        assert_eq!(much.say(&head(UNDER_WAY_MAX + 1)).await, Err(tonic::Code::ResourceExhausted));
        drop((second, third, much));
        assert!(all.bytes.lock().unwrap().is_empty(), "{all:?}");
    }

    #[tokio::test]
    async fn what_does_not_come_whole_in_time_is_given_up_and_silence_between_messages_is_not() {
        let limit = Duration::from_millis(50);
        let all = Beginnings { limit, ..Beginnings::default() };
        // Nothing, a part, and all but the end of the call.
        for said in [vec![], head(4), [head(4), vec![7; 4]].concat()] {
            let mut call = Call::of(&all, 1, UNARY);
            assert_eq!(call.say(&said).await, Ok(()));
            assert_eq!(call.hear().await, Some(Err(tonic::Code::DeadlineExceeded)), "{said:?}");
        }
        let mut whole = Call::of(&all, 1, UNARY);
        assert_eq!(whole.say(&[head(1), vec![7]].concat()).await, Ok(()));
        let Call { says, heard } = whole;
        drop(says);
        assert!(Call { says: mpsc::channel(1).0, heard }.hear().await.is_none(), "its end");

        let mut talk = Call::of(&all, 1, CONVERSATIONS[1]);
        assert_eq!(talk.say(&[head(1), vec![7]].concat()).await, Ok(()));
        assert!(timeout(limit * 3, talk.hear()).await.is_err(), "it may go on later");
        assert_eq!(talk.say(&head(9)).await, Ok(()));
        assert_eq!(talk.hear().await, Some(Err(tonic::Code::DeadlineExceeded)));
        assert!(all.bytes.lock().unwrap().is_empty(), "{all:?}");
    }

    /// A call that is new and has messages without end is no unary one.
    #[test]
    fn the_conversations_are_those_of_the_protocol() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
        let mut found = Vec::new();
        for file in
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|p| p.is_file())
        {
            let text = std::fs::read_to_string(file).unwrap();
            let (mut package, mut service) = (String::new(), String::new());
            for line in text.lines() {
                let words: Vec<&str> = line.split([' ', '(', ';']).filter(|word| !word.is_empty()).collect();
                match words.as_slice() {
                    ["package", name, ..] => package = (*name).to_owned(),
                    ["service", name, ..] => service = (*name).to_owned(),
                    ["rpc", name, "stream", ..] => found.push(format!("/{package}.{service}/{name}")),
                    _ => {}
                }
            }
        }
        found.sort();
        assert_eq!(found, CONVERSATIONS);
    }
}
