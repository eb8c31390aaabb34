//! Images from the other nodes: any node that has one serves it, so a swarm needs no registry.

use crate::connect::Connections;
use futures::{StreamExt, TryStreamExt};
use image::{BlobSource, BoxAsyncRead, Digest, Manifest, Reference, SourceError};
use model::NodeId;
use proto::node::{ReadBlobRequest, ResolveImageRequest, peer_client::PeerClient};
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};
use tokio_util::io::StreamReader;
use tonic::{Code, Request, transport::Channel};

/// A peer that does not answer a question within this time is passed over.
const ASK_LIMIT: Duration = Duration::from_secs(5);

/// Another node, asked for images over mutual TLS. What it sends is believed only once its digest is checked.
#[derive(Debug)]
pub(crate) struct PeerSource {
    node: NodeId,
    channel: Channel,
    /// Why it may be asked: a task here is made from this image.
    image: String,
}

impl PeerSource {
    fn client(&self) -> PeerClient<Channel> {
        PeerClient::new(self.channel.clone())
    }
}

fn absent<T>(status: tonic::Status) -> Result<Option<T>, SourceError> {
    if status.code() == Code::NotFound { Ok(None) } else { Err(status.into()) }
}

#[async_trait::async_trait]
impl BlobSource for PeerSource {
    async fn resolve(&self, reference: &Reference) -> Result<Option<Manifest>, SourceError> {
        let mut request =
            Request::new(ResolveImageRequest { reference: reference.to_string(), image: self.image.clone() });
        request.set_timeout(ASK_LIMIT);
        match self.client().resolve_image(request).await {
            Ok(reply) => {
                let reply = reply.into_inner();
                Ok(Some(Manifest::new(&reply.media_type, reply.manifest.into())))
            }
            Err(status) => absent(status),
        }
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<Option<BoxAsyncRead>, SourceError> {
        let ask = ReadBlobRequest { digest: digest.to_string(), offset, image: self.image.clone() };
        match tokio::time::timeout(ASK_LIMIT, self.client().read_blob(ask)).await? {
            Ok(reply) => {
                let bytes = reply.into_inner().map_ok(|chunk| chunk.data).map_err(std::io::Error::other);
                Ok(Some(Box::pin(StreamReader::new(bytes.boxed()))))
            }
            Err(status) => absent(status),
        }
    }

    fn name(&self) -> String {
        format!("node {}", self.node)
    }
}

/// How far a pull is: bytes of each layer that is on its way.
#[derive(Debug, Default)]
pub(crate) struct Pulled(BTreeMap<String, (u64, u64)>);

impl Pulled {
    /// Takes a step in; true if `text` says something else now.
    pub(crate) fn step(&mut self, step: &image::Progress, text: &mut String) -> bool {
        if step.status != "Downloading" || step.total == 0 {
            return false;
        }
        self.0.insert(step.id.clone(), (step.current, step.total));
        let (current, total) =
            self.0.values().fold((0, 0), |(current, total), (c, t)| (current + c, total + t));
        let megabytes = |bytes: u64| format!("{}.{}", bytes / 1_000_000, bytes / 100_000 % 10);
        *text = format!("pulling {} MB of {} MB", megabytes(current), megabytes(total));
        true
    }
}

/// Returns nodes as sources of an image, as the task names it that needs it.
pub(crate) fn peers(
    connections: &Connections,
    nodes: &[(NodeId, SocketAddr)],
    image: &str,
) -> Vec<Arc<dyn BlobSource>> {
    let sources = nodes.iter().map(|(node, addr)| {
        let channel = connections.images(*addr, *node);
        Arc::new(PeerSource { node: *node, channel, image: image.to_owned() }) as Arc<dyn BlobSource>
    });
    sources.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_adds_its_layers_up() {
        let (mut pulled, mut text) = (Pulled::default(), String::new());
        let mut say = |id: &str, status: &str, current, total| {
            let step = image::Progress { id: id.into(), status: status.into(), current, total };
            pulled.step(&step, &mut text).then(|| text.clone())
        };
        assert_eq!(say("a", "Pulling fs layer", 0, 0), None);
        assert_eq!(
            say("a", "Downloading", 1_000_000, 10_000_000).as_deref(),
            Some("pulling 1.0 MB of 10.0 MB")
        );
        assert_eq!(say("b", "Downloading", 550_000, 2_000_000).as_deref(), Some("pulling 1.5 MB of 12.0 MB"));
        assert_eq!(say("a", "Download complete", 0, 0), None);
    }
}
