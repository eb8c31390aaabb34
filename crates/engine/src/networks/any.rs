//! Networks that a container can be on: of this host, and overlays of the swarm that it is a member of.

use crate::{
    ask::config::{EndpointConfig, SwarmAttachments},
    error::Result,
    networks::local::LocalNetwork,
    seen::container::Endpoint,
};
use async_trait::async_trait;
use model::NetworkId;

/// An overlay network that containers may be put on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlayNetwork {
    pub id: NetworkId,
    pub name: String,
}

/// What is asked for a container that is about to be on overlay networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachmentRequest {
    /// The container's id.
    pub container: String,
    /// Its name, by which the others on the networks find it.
    pub name: String,
    pub networks: Vec<(OverlayNetwork, Vec<String>)>,
}

/// The swarm that this host is a member of.
#[async_trait]
pub trait Overlays: Send + Sync + 'static {
    /// Finds an overlay network by name, id or unique prefix; `None` when there is none, or no swarm.
    ///
    /// # Errors
    /// The managers do not answer; `Forbidden` when containers may not be put on it.
    async fn find(&self, wanted: &str) -> Result<Option<OverlayNetwork>>;

    /// Claims an address on each of the networks, in their order. They are free again once no snapshot of the
    /// container has them in [`crate::Container::overlays`].
    ///
    /// # Errors
    /// There is no address left, or the managers did not give one in time.
    async fn attach(&self, request: AttachmentRequest) -> Result<SwarmAttachments>;
}

/// A network that a container is on, or is to be on.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "one at a time is looked at; there is no list of them")]
pub(crate) enum AnyNetwork {
    Local(LocalNetwork),
    Overlay(OverlayNetwork),
}

impl AnyNetwork {
    pub(crate) fn id(&self) -> String {
        match self {
            Self::Local(network) => network.id.clone(),
            Self::Overlay(network) => network.id.to_string(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Local(network) => &network.name,
            Self::Overlay(network) => &network.name,
        }
    }
}

impl Endpoint {
    /// What a container asks of a network, before it is on it.
    pub(crate) fn wanted(network: &AnyNetwork, asked: &EndpointConfig) -> Self {
        Self {
            network_id: network.id(),
            overlay: matches!(network, AnyNetwork::Overlay(_)),
            aliases: asked.aliases.clone(),
            wanted_address: asked.ipv4_address,
            wanted_address6: asked.ipv6_address,
            wanted_mac: asked.mac_address.clone(),
            links: asked.links.clone(),
            gateway_priority: asked.gateway_priority,
            driver_opts: asked.driver_opts.clone(),
            link_local: asked.link_local.clone(),
            ..Self::default()
        }
    }
}
