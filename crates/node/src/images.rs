//! Images from the other nodes: any node that has one serves it, so a swarm needs no registry.

use crate::connect::Connections;
use futures::{StreamExt, TryStreamExt};
use image::{BlobSource, BoxAsyncRead, Digest, Manifest, Reference, SourceError};
use model::{NodeId, NodeState};
use proto::node::{ReadBlobRequest, ResolveImageRequest, peer_client::PeerClient};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio_util::io::StreamReader;
use tonic::{Code, Request, transport::Channel};

/// A peer that does not answer a question within this time is passed over.
const ASK_LIMIT: Duration = Duration::from_secs(5);

/// Another node, asked for images over mutual TLS. What it sends is believed only once its digest is checked.
#[derive(Debug)]
pub(crate) struct PeerSource {
    node: NodeId,
    channel: Channel,
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
        let mut request = Request::new(ResolveImageRequest { reference: reference.to_string() });
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
        let ask = ReadBlobRequest { digest: digest.to_string(), offset };
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

/// Returns every other node that is up as a source of images.
pub(crate) fn peers(
    connections: &Connections,
    nodes: &[model::Node],
    this: NodeId,
) -> Vec<Arc<dyn BlobSource>> {
    nodes
        .iter()
        .filter(|n| n.id != this && n.status.state == NodeState::Ready)
        .filter_map(|n| {
            let addr: SocketAddr = n.description.as_ref()?.addr;
            let source: Arc<dyn BlobSource> =
                Arc::new(PeerSource { node: n.id, channel: connections.node(addr, n.id) });
            Some(source)
        })
        .collect()
}
