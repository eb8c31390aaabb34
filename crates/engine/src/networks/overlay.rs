//! Containers that a person puts on the swarm's overlay networks. Whoever is a member of the swarm gives them their
//! addresses; they hold them from a start to the end of that run.

use crate::{
    ask::config::{EndpointConfig, OverlayAttachment, SwarmAttachments},
    error::{Error, Result},
    inner::Inner,
    life::{command::Command, owner::Owner},
    networks::any::{AnyNetwork, AttachmentRequest, OverlayNetwork, Overlays},
    seen::container::{Container, Endpoint},
};
use model::TaskId;
use std::{net::IpAddr, sync::Arc, time::Duration};

/// How long a start waits until the daemon, which has just begun, knows of its swarm.
const MEMBER_LIMIT: Duration = Duration::from_secs(10);

impl Inner {
    pub(crate) fn set_overlays(&self, overlays: Arc<dyn Overlays>) {
        self.overlays.send_replace(Some(overlays));
    }

    pub(crate) fn holder(&self, task: TaskId) -> Option<Arc<Container>> {
        let holds = |c: &Arc<Container>| c.overlays.iter().any(|place| place.task == task);
        self.registry.snapshots().into_iter().find(holds)
    }

    pub(crate) async fn take_off(&self, task: TaskId) -> Result<()> {
        let Some(container) = self.holder(task) else { return Ok(()) };
        for place in container.overlays.iter().filter(|place| place.task == task) {
            let network = OverlayNetwork { id: place.network, name: place.network_name.clone() };
            let left = Box::new(AnyNetwork::Overlay(network));
            self.ask(&container.id, |reply| Command::Disconnect(left, reply)).await?;
        }
        Ok(())
    }

    /// Finds a network of this host, else an overlay.
    ///
    /// # Errors
    /// `NoSuchNetwork`; `Forbidden` for an overlay that is not attachable.
    pub(crate) async fn any_network(&self, wanted: &str) -> Result<AnyNetwork> {
        match self.networks.find(wanted) {
            Err(Error::NoSuchNetwork(name)) => {
                let overlays = self.overlays.borrow().clone();
                let found = match overlays {
                    Some(overlays) => overlays.find(wanted).await?,
                    None => None,
                };
                found.map(AnyNetwork::Overlay).ok_or(Error::NoSuchNetwork(name))
            }
            local => local.map(AnyNetwork::Local),
        }
    }
}

impl Container {
    /// Finds an overlay network that a person put it on by name, id or prefix: also while no manager answers.
    pub(crate) fn overlay(&self, wanted: &str) -> Option<AnyNetwork> {
        let names = |(name, endpoint): &(&String, &Endpoint)| {
            endpoint.overlay && (*name == wanted || endpoint.network_id.starts_with(wanted))
        };
        let (name, endpoint) = self.networks.iter().find(names)?;
        let id = endpoint.network_id.parse().ok()?;
        Some(AnyNetwork::Overlay(OverlayNetwork { id, name: name.clone() }))
    }
}

impl Inner {
    /// Claims the addresses of a container on overlay networks.
    pub(crate) async fn attach(&self, request: AttachmentRequest) -> Result<SwarmAttachments> {
        let mut overlays = self.overlays.subscribe();
        let known = tokio::time::timeout(MEMBER_LIMIT, overlays.wait_for(Option::is_some)).await;
        let overlays = known.ok().and_then(std::result::Result::ok).and_then(|o| o.clone());
        let overlays = overlays.ok_or(Error::ShuttingDown)?;
        overlays.attach(request).await
    }
}

impl Owner {
    /// Gets the addresses of the overlay networks that a person put it on, and the way outside that comes with them.
    pub(crate) async fn claim_overlays(&mut self, gateway: &mut Option<IpAddr>) -> Result<()> {
        let on_overlays = self.container.networks.iter().filter(|(_, endpoint)| endpoint.overlay);
        let networks =
            on_overlays.map(|(name, endpoint)| wanted_place(name, endpoint)).collect::<Result<Vec<_>>>()?;
        if networks.is_empty() {
            return Ok(());
        }
        let places = self.claim(networks).await?;
        *gateway = gateway.or(places.gateway);
        self.container.overlays = places.overlays;
        // The places are freed unless a snapshot shows that it has them.
        self.publish();
        Ok(())
    }

    pub(crate) async fn claim(
        &self,
        networks: Vec<(OverlayNetwork, Vec<String>)>,
    ) -> Result<SwarmAttachments> {
        let (container, name) = (self.container.id.clone(), self.container.name.clone());
        self.inner.attach(AttachmentRequest { container, name, networks }).await
    }

    /// Gives the place on one overlay network back.
    pub(crate) fn leave_overlay(&mut self, name: &str) {
        self.container.overlays.retain(|o| o.network_name != name);
        self.publish();
    }
}

/// Refuses what overlay networks do not give.
pub(crate) fn check(network: &OverlayNetwork, asked: &EndpointConfig) -> Result<()> {
    if asked.ipv4_address.is_some() || asked.ipv6_address.is_some() || asked.mac_address.is_some() {
        return Err(Error::invalid(format!(
            "the swarm chooses the addresses on its network {}: --ip, --ip6 and --mac-address are not for it",
            network.name
        )));
    }
    let unknown = [
        ("Links", !asked.links.is_empty()),
        ("GwPriority", asked.gateway_priority != 0),
        ("DriverOpts", !asked.driver_opts.is_empty()),
        ("IPAMConfig.LinkLocalIPs", !asked.link_local.is_empty()),
    ];
    if let Some((key, _)) = unknown.into_iter().find(|(_, set)| *set) {
        return Err(Error::invalid(format!(
            "EndpointsConfig.{key} is for networks of this host, and {} is the swarm's",
            network.name
        )));
    }
    Ok(())
}

pub(crate) fn wanted_place(name: &str, endpoint: &Endpoint) -> Result<(OverlayNetwork, Vec<String>)> {
    let id = endpoint.network_id.parse().map_err(|_| Error::NoSuchNetwork(endpoint.network_id.clone()))?;
    Ok((OverlayNetwork { id, name: name.to_owned() }, endpoint.aliases.clone()))
}

pub(crate) fn on_overlay(place: &OverlayAttachment) -> network::SandboxAttachment {
    network::SandboxAttachment::Overlay {
        network: place.network,
        task: place.task,
        address: place.address,
        aliases: place.aliases.clone(),
    }
}
