//! Networks of this host as they are made, found, changed and removed.
//!
//! The kernel side is the network room's. The predefined bridge is made in the kernel when the first container needs it.

use crate::{
    ask::{config::EndpointConfig, defaults::BridgeIpv6, gate},
    error::{Error, Result, unfit},
    inner::Inner,
    life::command::Command,
    networks::{any::AnyNetwork, local::*, overlay},
    seen::{
        container::{Container, Filters, Pruned},
        event::{Event, EventKind},
    },
};
use ipnet::IpNet;
use model::{MTU_OPTION, confine};
use std::{collections::BTreeMap, sync::Arc};

/// Gives the network `bridge` the addresses and size that the operator chose. While containers are on it it stays as
/// it was when they were started.
pub(crate) async fn configure_default_bridge(inner: &Inner) -> Result<()> {
    let network = inner.network("bridge")?;
    let mut wanted = predefined("bridge", "bridge");
    let defaults = inner.defaults();
    if let Some(bridge) = defaults.bridge {
        wanted.subnet = Some(bridge.trunc());
        wanted.gateway = Some(bridge.addr().into());
    }
    if let Some(mtu) = defaults.bridge_mtu_bytes {
        wanted.options.insert(MTU_OPTION.into(), mtu.to_string());
    }
    if let Some(icc) = defaults.bridge_icc {
        wanted.options.insert("com.docker.network.bridge.enable_icc".into(), icc.to_string());
    }
    if let Some(address) = defaults.bridge_binding {
        wanted.options.insert("com.docker.network.bridge.host_binding_ipv4".into(), address.to_string());
    }
    wanted.ip_range = defaults.bridge_range;
    match defaults.bridge_ipv6 {
        Some(BridgeIpv6::Subnet(subnet)) => wanted.subnet6 = Some(subnet),
        Some(BridgeIpv6::Any) => {
            wanted.subnet6 = network.subnet6.or_else(|| unique_local_subnet(&network.id))
        }
        None => {}
    }
    judge_options(&wanted.options)?;
    judge_addresses(&wanted)?;
    let addresses = |n: &LocalNetwork| (n.subnet, n.gateway, n.ip_range, n.subnet6);
    let same = addresses(&wanted) == addresses(&network);
    if same && wanted.options == network.options {
        return Ok(());
    }
    if !network.containers.is_empty() {
        tracing::warn!(
            "network bridge is in use and stays as it is; hint: start again without containers on it"
        );
        return Ok(());
    }
    let LocalNetwork { subnet, gateway, ip_range, subnet6, gateway6, options, .. } = wanted;
    let network = LocalNetwork { subnet, gateway, ip_range, subnet6, gateway6, options, ..network };
    inner.network.remove_bridge(&network.id).await.map_err(failed("change network bridge"))?;
    inner.networks.insert(network)
}

/// Makes sure the kernel has the bridge; safe to repeat.
pub(crate) async fn ensure_bridge(inner: &Inner, network: &LocalNetwork) -> Result<()> {
    let spec = bridge_spec(network)?;
    let operation = format!("create network {}", network.name);
    inner.network.create_bridge(spec).await.map_err(failed(operation))?;
    Ok(())
}

impl Inner {
    pub(crate) async fn network_create(&self, mut config: NetworkConfig) -> Result<LocalNetwork> {
        if is_predefined(&config.name) {
            return Err(Error::PredefinedName(config.name));
        }
        confine::object_name("Name", &config.name).map_err(unfit)?;
        if let Some(subnet) = config.subnet {
            confine::subnet("IPAM.Config.Subnet", subnet.into()).map_err(unfit)?;
        }
        if let Some(subnet) = config.subnet6 {
            confine::subnet("IPAM.Config.Subnet", subnet.into()).map_err(unfit)?;
        }
        if matches!(config.driver.as_str(), "host" | "null") {
            return Err(Error::Forbidden(format!(
                "only one instance of {:?} network is allowed",
                config.driver
            )));
        }
        if !matches!(config.driver.as_str(), "" | "bridge" | "macvlan") {
            return Err(Error::invalid(format!(
                "could not find plugin {} in v1 plugin registry: plugin not found",
                config.driver
            )));
        }
        if self.networks.all().iter().any(|n| n.name == config.name) {
            return Err(Error::NetworkExists(config.name));
        }
        let defaults = self.defaults();
        let driver = if config.driver.is_empty() { "bridge" } else { config.driver.as_str() };
        for (key, value) in defaults.network_options.get(driver).into_iter().flatten() {
            config.options.entry(key.clone()).or_insert_with(|| value.clone());
        }
        judge_options(&config.options)?;
        let id = crate::random_id();
        let mut network = LocalNetwork {
            subnet6: config.subnet6.map(|s| s.trunc()).or(unique_local_subnet(&id).filter(|_| config.ipv6)),
            gateway6: config.gateway6,
            ip_range6: config.ip_range6.map(|range| range.trunc()),
            ipam_options: config.ipam_options,
            aux_addresses: config.aux_addresses,
            id,
            name: config.name,
            created_at: crate::now(),
            driver: if config.driver.is_empty() { "bridge".into() } else { config.driver },
            subnet: config.subnet.map(|s| s.trunc()),
            gateway: config.gateway,
            ip_range: config.ip_range,
            internal: config.internal,
            attachable: config.attachable,
            labels: config.labels,
            options: config.options,
            containers: BTreeMap::new(),
        };
        judge_addresses(&network)?;
        if network.subnet.is_some() {
            self.make_bridge(&mut network).await?;
        } else {
            let mut taken = self.networks.subnets();
            // Nothing of the kernel's stands in the way of these, but no container could be on both.
            let swarm = self.network.swarm_subnets().await.map_err(failed("read the swarm's subnets"))?;
            taken.extend(
                swarm.into_iter().filter_map(|net| if let IpNet::V4(v4) = net { Some(v4) } else { None }),
            );
            let mut free = defaults.subnets().filter(|p| !taken.iter().any(|t| overlaps(*p, *t)));
            loop {
                let Some(subnet) = free.next() else {
                    return Err(Error::Conflict(
                        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network".into(),
                    ));
                };
                network.subnet = Some(subnet);
                match self.make_bridge(&mut network).await {
                    Err(Error::Network { source, .. })
                        if matches!(source.downcast_ref(), Some(network::Error::SubnetInUse { .. })) => {}
                    other => break other?,
                }
            }
        }
        self.network_event("create", &network, None);
        Ok(network)
    }

    /// The record first, then the kernel: a bridge without a record cannot be left by a kill.
    async fn make_bridge(&self, network: &mut LocalNetwork) -> Result<()> {
        self.networks.insert(network.clone())?;
        let made = match bridge_spec(network) {
            Ok(spec) => {
                let operation = format!("create network {}", network.name);
                self.network.create_bridge(spec).await.map_err(failed(operation))
            }
            Err(e) => Err(e),
        };
        match made {
            Ok(bridge) => {
                network.gateway = Some(bridge.gateway);
                network.gateway6 = bridge.gateway6;
                self.networks.insert(network.clone())
            }
            Err(e) => {
                self.networks.forget(&network.id)?;
                Err(e)
            }
        }
    }

    pub(crate) fn networks(&self, filters: &Filters) -> Vec<LocalNetwork> {
        let containers = self.registry.snapshots();
        let passes = |n: &LocalNetwork| {
            filters.name_matches(&n.name)
                && filters.any("id", |v| n.id.starts_with(v))
                && filters.any("driver", |v| n.driver == v)
                && filters.any("scope", |v| v == "local")
                && filters.any("type", |v| (v == "builtin") == n.is_predefined())
                && filters.labels_match(&n.labels)
        };
        let mut all: Vec<_> = self.networks.all().into_iter().filter(passes).collect();
        for network in &mut all {
            network.containers = members(&network.id, &containers);
        }
        all.retain(|n| {
            filters.any("dangling", |v| {
                matches!(v, "1" | "true") == (n.containers.is_empty() && !n.is_predefined())
            })
        });
        all
    }

    pub(crate) fn network(&self, wanted: &str) -> Result<LocalNetwork> {
        let mut network = self.networks.find(wanted)?;
        network.containers = members(&network.id, &self.registry.snapshots());
        Ok(network)
    }

    pub(crate) fn network_members(&self, id: &str) -> BTreeMap<String, NetworkMember> {
        members(id, &self.registry.snapshots())
    }

    pub(crate) async fn network_remove(&self, wanted: &str) -> Result<()> {
        let network = self.network(wanted)?;
        if network.is_predefined() {
            return Err(Error::PredefinedNetwork(network.name));
        }
        if !network.containers.is_empty() {
            let containers =
                network.containers.values().map(|m| m.name.clone()).collect::<Vec<_>>().join(", ");
            return Err(Error::NetworkInUse { name: network.name, containers });
        }
        let operation = format!("remove network {}", network.name);
        self.network.remove_bridge(&network.id).await.map_err(failed(operation))?;
        self.networks.forget(&network.id)?;
        self.network_event("destroy", &network, None);
        Ok(())
    }

    pub(crate) async fn network_prune(&self, filters: &Filters) -> Result<Pruned> {
        let before = filters.until()?;
        let containers = self.registry.snapshots();
        let mut pruned = Pruned::default();
        for network in self.networks(&Filters::default()) {
            let used = containers.iter().any(|c| c.networks.values().any(|e| e.network_id == network.id));
            let old = before.is_none_or(|t| network.created_at < t);
            if !used && old && !network.is_predefined() && filters.labels_match(&network.labels) {
                self.network_remove(&network.id).await?;
                pruned.removed.push(network.name);
            }
        }
        self.pruned_event(EventKind::Network, 0);
        Ok(pruned)
    }

    pub(crate) async fn network_connect(
        &self,
        network: &str,
        container: &str,
        endpoint: EndpointConfig,
    ) -> Result<()> {
        gate::of_endpoint(&endpoint)?;
        let network = self.any_network(network).await?;
        match &network {
            AnyNetwork::Local(local) if local.is_predefined() && !endpoint.links.is_empty() => {
                return Err(Error::invalid("EndpointsConfig.Links are for user defined networks"));
            }
            AnyNetwork::Local(_) => {}
            AnyNetwork::Overlay(overlay) => overlay::check(overlay, &endpoint)?,
        }
        let connected = network.clone();
        self.ask(container, |reply| Command::Connect(Box::new(connected), endpoint, reply)).await?;
        self.member_event("connect", &network, container)
    }

    pub(crate) async fn network_disconnect(&self, network: &str, container: &str) -> Result<()> {
        let network = match self.networks.find(network) {
            Ok(local) => AnyNetwork::Local(local),
            Err(error) => self.inspect(container)?.overlay(network).ok_or(error)?,
        };
        let left = network.clone();
        self.ask(container, |reply| Command::Disconnect(Box::new(left), reply)).await?;
        self.member_event("disconnect", &network, container)
    }

    fn member_event(&self, action: &str, network: &AnyNetwork, container: &str) -> Result<()> {
        let container = Some(self.inspect(container)?.id.clone());
        match network {
            AnyNetwork::Local(local) => self.network_event(action, local, container),
            AnyNetwork::Overlay(overlay) => {
                self.network_event_of(action, overlay.id.to_string(), &overlay.name, "overlay", container);
            }
        }
        Ok(())
    }

    /// Tells that a container has joined or left a network, known by its name and id alone.
    pub(crate) fn membership_event(&self, action: &str, name: &str, id: &str, container: &str) {
        let driver = self.networks.find(id).map_or_else(|_| "overlay".to_owned(), |n| n.driver);
        self.network_event_of(action, id.to_owned(), name, &driver, Some(container.to_owned()));
    }

    pub(crate) fn network_event(&self, action: &str, network: &LocalNetwork, container: Option<String>) {
        self.network_event_of(action, network.id.clone(), &network.name, &network.driver, container);
    }

    fn network_event_of(
        &self,
        action: &str,
        id: String,
        name: &str,
        driver: &str,
        container: Option<String>,
    ) {
        let mut attributes =
            BTreeMap::from([("name".to_owned(), name.to_owned()), ("type".to_owned(), driver.to_owned())]);
        attributes.extend(container.map(|id| ("container".to_owned(), id)));
        self.publish(Event::now(EventKind::Network, action, id, attributes));
    }
}

fn members(network: &str, containers: &[Arc<Container>]) -> BTreeMap<String, NetworkMember> {
    let on_it = |c: &Arc<Container>| {
        let endpoint = c.networks.values().find(|e| e.network_id == network)?;
        let member = NetworkMember { name: c.name.clone(), endpoint: endpoint.clone() };
        c.state.is_running().then(|| (c.id.clone(), member))
    };
    containers.iter().filter_map(on_it).collect()
}
