//! The start of a container, in order: network, files of /etc, spec, shim, program. Whatever fails takes down what
//! was made before it.

use crate::{
    ask::{
        config::{EndpointConfig, NetworkMode},
        gate,
    },
    error::{Error, Result, runtime_failed},
    files::{
        etc::{self, Resolver},
        image_mounts,
        layers::Layers,
        secrets,
    },
    life::{
        health,
        owner::{Owner, Places},
    },
    networks::{
        any::AnyNetwork,
        endpoint, links,
        local::LocalNetwork,
        overlay::{on_overlay, wanted_place},
    },
    seen::container::*,
    spec::{
        cdi, oci,
        parts::{Parts, Tmpfs},
        userns, users,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    net::{IpAddr, Ipv6Addr},
    os::{fd::OwnedFd, unix::fs::chown},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::Instant;

/// How long the server of a volume may take to answer.
const MOUNT_LIMIT: Duration = Duration::from_secs(90);

/// The network side of a start.
#[derive(Debug, Default)]
struct Network {
    /// `None` = the host's.
    netns: Option<PathBuf>,
    addresses: Vec<IpAddr>,
    /// Ours, where names of containers are answered.
    resolver: Option<Resolver>,
    /// To be kept by the shim while there is no daemon.
    name_sockets: Option<network::NameSockets>,
}

/// Has the shim keep the sockets of the container's name server: questions wait through a daemon's restart.
/// Judges one more network for a container by the one that it was made for.
/// *Source:* moby `daemon/container_operations.go`, `updateNetworkSettings`.
fn may_join(made_for: &NetworkMode, to: &AnyNetwork) -> Result<()> {
    let without_interfaces = match to {
        AnyNetwork::Local(local) if !local.has_interfaces() => Some(local.name.as_str()),
        AnyNetwork::Local(_) | AnyNetwork::Overlay(_) => None,
    };
    Err(Error::invalid(match (made_for, without_interfaces) {
        (NetworkMode::Host | NetworkMode::Container(_), _) => {
            "container sharing network namespace with another container or host cannot be connected to any other network"
        }
        (_, Some("host")) => {
            "cannot connect container to host network - container must be created in host network mode"
        }
        (NetworkMode::None, _) | (_, Some(_)) => {
            "container cannot be connected to multiple networks with one of the networks in private (none) mode"
        }
        (NetworkMode::Bridge | NetworkMode::Named(_) | NetworkMode::Swarm, None) => return Ok(()),
    }))
}

fn keep(shim: &runtime::Shim, id: &str, sockets: Option<&network::NameSockets>) {
    if let Some(sockets) = sockets
        && let Err(error) = shim.keep(&sockets.as_fds())
    {
        tracing::warn!(container.id = id, %error, "names will not resolve while the daemon restarts");
    }
}

/// Collects from the shims under `run_root` the sockets of name servers that they keep, by container, for the
/// network service of a daemon that starts. Blocking.
#[must_use]
pub fn kept_name_sockets(run_root: &Path) -> BTreeMap<String, network::NameSockets> {
    let entries = std::fs::read_dir(run_root.join("c")).into_iter().flatten().flatten();
    let kept = entries.filter_map(|entry| {
        let sockets = runtime::Shim::connect(&entry.path()).ok()?.kept().ok()?;
        let [udp, tcp] = <[_; 2]>::try_from(sockets).ok()?;
        Some((entry.file_name().into_string().ok()?, network::NameSockets::new(udp, tcp)))
    });
    kept.collect()
}

impl Owner {
    /// Starts it; on failure nothing of it is left and `state` says why.
    pub(crate) async fn start(&mut self) -> Result<()> {
        self.container.stopped_for_host = false;
        let result = self.try_start().await;
        if let Err(e) = &result {
            self.take_down().await;
            self.early.clear();
            let state = &mut self.container.state;
            state.error = e.to_string();
            state.exit_code = match e {
                Error::Start { exit_code, .. } => *exit_code,
                _ => 128,
            };
            state.pid = None;
            state.finished_at = Some(crate::now());
            if state.status != Status::Created {
                state.status = Status::Exited;
            }
            self.container.exits += 1;
            self.container.ports.clear();
            self.container.netns = None;
            self.container.networks.values_mut().for_each(Endpoint::leave);
            self.event("die", [("exitCode", self.container.state.exit_code.to_string())]);
            self.note().await;
        }
        result
    }

    async fn try_start(&mut self) -> Result<()> {
        let id = self.container.id.clone();
        let image: image::Digest = self
            .container
            .image_id
            .parse()
            .map_err(|_| Error::NoSuchImage(self.container.image_id.clone()))?;
        let lowers = self
            .inner
            .images
            .rootfs(&image)
            .await
            .map_err(|e| Error::Image {
                operation: format!("unpack image {}", self.container.config.image),
                source: e.into(),
            })?
            .dirs;
        let mut users = self.user_namespace().await?;
        let netns = users.as_mut().and_then(runtime::UserNamespace::take_network);
        let mut network = self.set_up_network(netns).await?;
        let name_sockets = network.name_sockets.take();
        let plan = self.plan(lowers, network, users.as_ref()).await?;
        let (inner, working) = (self.inner.clone(), self.inner.clone());
        self.mount_volumes().await?;
        // Until it is known to run: its files are seen through its processes from then on.
        let _alone = working.trees.start(&id).await?;
        let _mounting = working.mounting.read().await;
        let (early, once) = (std::mem::take(&mut self.early), self.container.config.stdin_once);
        let (shim, at) = crate::blocking(move || {
            let failed = |e| runtime_failed("start", &id, e);
            let (dir, hooked) = (plan.dir.clone(), plan.spec.hooks.is_some());
            let mut shim = runtime::Shim::spawn(&inner.shim, &plan).map_err(failed)?;
            drop(users); // the shim has it
            for ends in early {
                shim.attach(ends.attached(once)).map_err(|e| runtime_failed("attach", &id, e))?;
            }
            keep(&shim, &id, name_sockets.as_ref());
            // Before it runs: it may have ended before anybody looks at a clock again.
            let at = crate::now();
            shim.start().map_err(failed)?;
            if hooked {
                runtime::poststart(&dir, &id, shim.pid()).map_err(failed)?;
            }
            Ok((shim, at))
        })
        .await?;
        for warning in shim.warnings() {
            tracing::warn!(container.id = %self.container.id, warning, "container started with less than asked");
        }
        let pid = shim.pid();
        self.adopt(shim)?;
        self.running(pid, at);
        self.note().await;
        links::tell(&self.inner, &self.container).await;
        self.tell_of_places(Places::Taken);
        self.event("start", []);
        tracing::info!(container.id = %self.container.id, "container started");
        Ok(())
    }

    async fn user_namespace(&self) -> Result<Option<runtime::UserNamespace>> {
        let Some(map) = self.container.users.clone() else { return Ok(None) };
        let (inner, container) = (self.inner.clone(), self.container.clone());
        crate::blocking(move || userns::open(&inner, &container, &map)).await.map(Some)
    }

    /// Mounts the volumes that are filesystems.
    async fn mount_volumes(&self) -> Result<()> {
        let (volumes, inner, id) = (self.volumes(), self.inner.clone(), self.container.id.clone());
        let mount = move || volumes.iter().try_for_each(|volume| inner.volumes.acquire(volume, &id));
        match tokio::time::timeout(MOUNT_LIMIT, crate::blocking(mount)).await {
            Ok(mounted) => mounted,
            Err(_) => {
                self.inner.volumes.release(&self.container.id);
                Err(Error::Conflict(format!(
                    "a volume of the container is not mounted within {MOUNT_LIMIT:?}"
                )))
            }
        }
    }

    /// The state of a run that has just begun.
    fn running(&mut self, pid: u32, at: model::Timestamp) {
        let state = &mut self.container.state;
        *state = ContainerState {
            status: Status::Running,
            pid: Some(pid),
            started_at: Some(at),
            finished_at: state.finished_at,
            ..ContainerState::default()
        };
        self.started = Some(Instant::now());
        self.begin_health();
    }

    /// Begins healthchecks, if there are any.
    pub(crate) fn begin_health(&mut self) {
        self.health = health::Plan::of(self.container.config.healthcheck.as_ref());
        if let Some(plan) = &self.health {
            let status = HealthStatus::Starting;
            let known = self.container.state.health.take();
            let health = known.unwrap_or(Health { status, failing_streak: 0, log: vec![] });
            let ran = self.started.map(|s| s.elapsed()).unwrap_or_default();
            self.probe_at = Some(Instant::now() + plan.pause(health.status, ran));
            self.container.state.health = Some(health);
        }
    }

    // ---- network ----

    /// `netns`: the network namespace that it shall have, if that was made already.
    async fn set_up_network(&mut self, netns: Option<OwnedFd>) -> Result<Network> {
        let config = self.container.config.clone();
        let host = &config.host;
        match &host.network_mode {
            NetworkMode::Host => return Ok(Network::default()),
            NetworkMode::Container(other) => {
                let other = self.inner.inspect(other)?;
                if !other.state.is_running() {
                    return Err(Error::Conflict(format!(
                        "cannot join network namespace of a non running container: {}",
                        other.id
                    )));
                }
                return Ok(Network { netns: other.netns.clone(), ..Network::default() });
            }
            NetworkMode::Bridge | NetworkMode::Named(_) | NetworkMode::None | NetworkMode::Swarm => {}
        }
        let mut attachments = Vec::new();
        let mut gateway = host.swarm.as_ref().and_then(|s| s.gateway);
        let mut binding = None;
        self.claim_overlays(&mut gateway).await?;
        for (name, endpoint) in &self.container.networks {
            let places = host.swarm.iter().flat_map(|s| &s.overlays).chain(&self.container.overlays);
            if let Some(overlay) = places.into_iter().find(|o| o.network_name == *name) {
                attachments.push(on_overlay(overlay));
                continue;
            }
            let local = self.inner.networks.find(&endpoint.network_id)?;
            if local.has_interfaces() {
                gateway = None; // the network leads outside
                binding = binding.or(crate::networks::local::host_binding(&local));
                crate::networks::api::ensure_bridge(&self.inner, &local).await?;
                attachments.push(self.attachment(&local, endpoint)?);
            }
        }
        let refused = |e: model::SysctlError| Error::invalid(e.to_string());
        // A file's name to a parameter's: what is a dot in the one is a slash in the other.
        let swapped = |c| match c {
            '/' => '.',
            '.' => '/',
            other => other,
        };
        let spec = network::SandboxSpec {
            id: self.container.id.clone(),
            hostname: self.hostname(),
            attachments,
            gateway: gateway.map(|address| network::Gateway { address }),
            ports: self.port_requests(binding),
            dns: network::DnsOptions {
                servers: host.dns.clone(),
                search: host.dns_search.clone(),
                options: host.dns_options.clone(),
            },
            sysctls: host
                .sysctls
                .iter()
                .map(|(k, v)| Ok((model::sysctl_path(k, v, gate::own_namespaces(host)).map_err(refused)?, v)))
                .filter(|read| read.as_ref().map_or(true, |(path, _)| path.starts_with("net/")))
                .map(|read| read.map(|(path, v)| (path.chars().map(swapped).collect(), v.clone())))
                .collect::<Result<_>>()?,
        };
        let operation = format!("set up networking of container {}", self.container.name);
        let service = &self.inner.network;
        let mut spec = spec;
        let info = loop {
            let made = match &netns {
                Some(netns) => {
                    let netns = netns
                        .try_clone()
                        .map_err(Error::io("share the network namespace of", "the container"))?;
                    service.create_sandbox_in(spec.clone(), netns).await
                }
                None => service.create_sandbox(spec.clone()).await,
            };
            match made {
                // Of a range of ports the next one may be free.
                Err(error) if self.takes_next_port(&mut spec.ports, &error) => {}
                made => break made.map_err(crate::networks::local::failed(operation))?,
            }
        };
        let network = Network {
            netns: Some(info.netns_path.clone()),
            name_sockets: info.name_sockets.clone(),
            addresses: info
                .interfaces
                .iter()
                .filter(|i| !i.network.is_empty())
                .flat_map(|i| [Some(i.address.addr()), i.address6.map(|net| net.addr().into())])
                .flatten()
                .collect(),
            resolver: self.own_resolver(&info),
        };
        self.take_network(&info);
        Ok(network)
    }

    /// Returns the name server of its network: on a network of its own, and where the host has none that it reaches.
    fn own_resolver(&self, info: &network::SandboxInfo) -> Option<Resolver> {
        let user_defined = self.container.networks.keys().any(|n| n != "bridge" && n != "none");
        let wanted = user_defined || self.host_resolver().servers.is_empty();
        info.dns_server.filter(|_| wanted).map(|server| Resolver {
            servers: vec![server],
            search: info.dns_search.clone(),
            options: info.dns_options.clone(),
        })
    }

    /// Gives a running container that is on its first network of its own the names of it. What somebody has written
    /// into its resolv.conf stays. Source: moby `libnetwork/sandbox_dns_unix.go`, `rebuildDNS`.
    fn renew_resolver(&self, info: &network::SandboxInfo) -> Result<()> {
        let path = &self.container.resolv_conf_path;
        let Some(resolver) = self.own_resolver(info) else { return Ok(()) };
        let is_ours = fs::read_to_string(path).is_ok_and(|text| text == self.host_resolver().text());
        if is_ours { write(path, &resolver.text()) } else { Ok(()) }
    }

    fn attachment(&self, local: &LocalNetwork, endpoint: &Endpoint) -> Result<network::SandboxAttachment> {
        let mut names = vec![self.container.name.clone(), self.container.id[..12].to_owned()];
        let mut known: HashSet<String> = names.iter().cloned().collect();
        names.extend(endpoint.aliases.iter().filter(|alias| known.insert((*alias).clone())).cloned());
        let mac = endpoint.wanted_mac.as_ref().map(|text| text.parse()).transpose();
        let options = endpoint::options(&endpoint.links, endpoint.gateway_priority, &endpoint.driver_opts)?;
        Ok(network::SandboxAttachment::Bridge {
            network: local.id.clone(),
            address: endpoint.wanted_address,
            address6: endpoint.wanted_address6,
            mac: mac.map_err(|e: network::Error| Error::invalid(e.to_string()))?,
            names,
            options: network::LegOptions { link_local: endpoint.link_local.clone(), ..options },
        })
    }

    /// `binding`: where ports are published of which it is not said.
    fn port_requests(&self, binding: Option<IpAddr>) -> Vec<network::PortBinding> {
        let config = &self.container.config;
        let mut ports: Vec<_> = config
            .host
            .port_bindings
            .iter()
            .map(|b| network::PortBinding {
                protocol: b.container.protocol,
                host_ip: b.host_ip.or(binding),
                host_port: b.host_port.filter(|p| *p > 0),
                container_port: b.container.number,
            })
            .collect();
        if config.host.publish_all_ports {
            let bound: BTreeSet<_> = config.host.port_bindings.iter().map(|b| b.container).collect();
            ports.extend(config.exposed_ports.iter().filter(|p| !bound.contains(p)).map(|p| {
                network::PortBinding {
                    protocol: p.protocol,
                    host_ip: binding,
                    host_port: None,
                    container_port: p.number,
                }
            }));
        }
        ports
    }

    /// Goes on to the next port of a range whose present one is taken; false if there is none.
    fn takes_next_port(&self, ports: &mut [network::PortBinding], error: &network::Error) -> bool {
        let (network::Error::PortInUse { port: taken, .. } | network::Error::PortHeld { port: taken, .. }) =
            error
        else {
            return false;
        };
        for (asked, port) in self.container.config.host.port_bindings.iter().zip(ports) {
            if port.host_port == Some(*taken) && asked.last_port.is_some_and(|last| *taken < last) {
                port.host_port = Some(taken + 1);
                return true;
            }
        }
        false
    }

    /// Shows what the sandbox has become.
    pub(crate) fn take_network(&mut self, info: &network::SandboxInfo) {
        self.container.netns = Some(info.netns_path.clone());
        for endpoint in self.container.networks.values_mut() {
            let Some(interface) = info.interfaces.iter().find(|i| i.network == endpoint.network_id) else {
                continue;
            };
            endpoint.endpoint_id = format!("{:0<64}", interface.mac.replace(':', "") + &info.id[..52]);
            endpoint.address = Some(interface.address.addr());
            endpoint.prefix_len = interface.address.prefix_len();
            endpoint.gateway = interface.gateway;
            endpoint.address6 = interface.address6.map(|net| net.addr());
            endpoint.prefix6_len = interface.address6.map_or(0, |net| net.prefix_len());
            endpoint.gateway6 = interface.gateway6;
            endpoint.mac.clone_from(&interface.mac);
        }
        let ipv6 = info.interfaces.iter().any(|i| i.gateway6.is_some());
        let published = |p: &network::PortBinding| {
            let everywhere6 = (ipv6 && p.host_ip.is_none()).then_some(Ipv6Addr::UNSPECIFIED.into());
            let at = |host_ip| PublishedPort {
                container: crate::ask::config::Port { number: p.container_port, protocol: p.protocol },
                host_ip,
                host_port: p.host_port.unwrap_or(0),
            };
            let more = everywhere6.map(|ip| at(Some(ip)));
            std::iter::once(at(p.host_ip)).chain(more).collect::<Vec<_>>()
        };
        self.container.ports = info.ports.iter().flat_map(published).collect();
    }

    pub(crate) async fn connect(&mut self, to: AnyNetwork, endpoint: EndpointConfig) -> Result<()> {
        let container = self.container.name.clone();
        let name = to.name().to_owned();
        if self.container.networks.contains_key(&name) {
            // Before it runs it is only noted down where it will be, once. *Source:* moby `updateNetworkSettings`.
            return match self.container.state.is_running() {
                true => Err(Error::EndpointExists { container, network: name }),
                false => Ok(()),
            };
        }
        may_join(&self.container.config.host.network_mode, &to)?;
        let made = Endpoint::wanted(&to, &endpoint);
        if self.container.state.is_running() {
            let attachment = match &to {
                AnyNetwork::Local(local) => {
                    crate::networks::api::ensure_bridge(&self.inner, local).await?;
                    self.attachment(local, &made)?
                }
                AnyNetwork::Overlay(_) => {
                    // It has a way outside, or none was wanted.
                    let places = self.claim(vec![wanted_place(&name, &made)?]).await?;
                    let attachment = places.overlays.first().map(on_overlay);
                    self.container.overlays.extend(places.overlays);
                    self.publish();
                    attachment.ok_or_else(|| Error::Conflict(format!("no address on network {name}")))?
                }
            };
            let operation = format!("connect container {container} to network {name}");
            let network = &self.inner.network;
            let info = network
                .connect(&self.container.id, attachment)
                .await
                .map_err(crate::networks::local::failed(operation));
            if info.is_err() {
                self.leave_overlay(&name);
            }
            let info = info?;
            self.container.networks.insert(name, made);
            self.take_network(&info);
            self.renew_resolver(&info)?;
            if let (Some(sockets), Some(shim)) = (info.name_sockets, self.shim.clone()) {
                let id = self.container.id.clone();
                crate::blocking(move || {
                    let shim = shim.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    keep(&shim, &id, Some(&sockets));
                    Ok(())
                })
                .await?;
            }
        } else {
            self.container.networks.insert(name, made);
        }
        self.save().await
    }

    pub(crate) async fn disconnect(&mut self, from: &AnyNetwork) -> Result<()> {
        let name = from.name();
        let is_running = self.container.state.is_running();
        if is_running && self.container.config.host.network_mode == NetworkMode::Host && name == "host" {
            return Err(Error::invalid(
                "cannot disconnect container from host network - container was created in host network mode",
            ));
        }
        if !self.container.networks.contains_key(name) {
            return Err(Error::NotConnected {
                container: self.container.id.clone(),
                network: name.to_owned(),
            });
        }
        if is_running {
            let operation = format!("disconnect container {} from network {name}", self.container.name);
            let network = &self.inner.network;
            let info = network
                .disconnect(&self.container.id, &from.id())
                .await
                .map_err(crate::networks::local::failed(operation))?;
            self.container.networks.remove(name);
            self.take_network(&info);
            self.leave_overlay(name);
        } else {
            self.container.networks.remove(name);
        }
        self.save().await
    }

    // ---- files and spec ----

    pub(crate) fn hostname(&self) -> String {
        let config = &self.container.config;
        let own_network = config.host.network_mode != NetworkMode::Host && config.host.uts_mode != "host";
        match (&config.hostname, &config.host.network_mode) {
            (Some(name), _) if !name.is_empty() => name.clone(),
            // As in Docker: who shares the network is called as its owner.
            (_, NetworkMode::Container(other)) => match self.inner.inspect(other) {
                Ok(other) => {
                    let name = other.config.hostname.clone().filter(|name| !name.is_empty());
                    name.unwrap_or_else(|| other.id[..12].to_owned())
                }
                Err(_) => self.container.id[..12].to_owned(),
            },
            _ if own_network => self.container.id[..12].to_owned(),
            _ => self.inner.hostname.clone(),
        }
    }

    fn host_resolver(&self) -> Resolver {
        let host = &self.container.config.host;
        Resolver::of_host(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default()).overridden(
            &host.dns,
            &host.dns_search,
            &host.dns_options,
        )
    }

    /// Writes hosts, hostname and resolv.conf; returns what to bind where.
    fn write_etc(&self, network: &Network) -> Result<Vec<(PathBuf, String, bool)>> {
        let config = &self.container.config;
        let host = &config.host;
        let writable = !host.read_only;
        let bind = |path: &Path, target: &str| (path.to_owned(), target.to_owned(), writable);
        let mut files = vec![bind(&self.container.hostname_path, "/etc/hostname")];
        let owner = self.container.users.as_ref().map(|map| userns::owner(Some(map), 0, 0)).transpose()?;
        let write = |path: &Path, text: &str| -> Result<()> {
            write(path, text)?;
            match owner {
                Some((uid, gid)) => chown(path, Some(uid), Some(gid)).map_err(Error::io("chown", path)),
                None => Ok(()),
            }
        };
        write(&self.container.hostname_path, &format!("{}\n", self.hostname()))?;
        if let NetworkMode::Container(other) = &host.network_mode {
            let other = self.inner.inspect(other)?;
            files.push(bind(&other.hosts_path, "/etc/hosts"));
            files.push(bind(&other.resolv_conf_path, "/etc/resolv.conf"));
        } else {
            let resolver = match (&host.network_mode, &network.resolver) {
                (NetworkMode::Host, _) => fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
                (_, Some(ours)) => ours.text(),
                (_, None) => self.host_resolver().text(),
            };
            write(&self.container.resolv_conf_path, &resolver)?;
            let gateways = match self.inner.defaults().host_gateway.as_slice() {
                [] => self.container.networks.values().find_map(|e| e.gateway).into_iter().collect(),
                set => set.to_vec(),
            };
            let mut extra = extra_hosts(&host.extra_hosts, &gateways)?;
            let _writing = links::writing();
            extra.extend(links::lines(&self.inner, &self.container)?);
            let domain = config.domainname.as_deref().unwrap_or_default();
            let hosts = if host.network_mode == NetworkMode::Host {
                let mut text = fs::read_to_string("/etc/hosts").unwrap_or_default();
                for (name, address) in &extra {
                    text += &format!("{address}\t{name}\n");
                }
                text
            } else {
                etc::hosts(&extra, &network.addresses, &self.hostname(), domain)
            };
            write(&self.container.hosts_path, &hosts)?;
            files.push(bind(&self.container.hosts_path, "/etc/hosts"));
            files.push(bind(&self.container.resolv_conf_path, "/etc/resolv.conf"));
        }
        // A mount of the caller's own at the same place wins.
        let mounted: HashSet<&str> = self.container.mounts.iter().map(|m| m.destination.as_str()).collect();
        files.retain(|(_, target, _)| !mounted.contains(target.as_str()));
        Ok(files)
    }

    async fn plan(
        &self,
        lowers: Vec<PathBuf>,
        network: Network,
        users: Option<&runtime::UserNamespace>,
    ) -> Result<runtime::ContainerPlan> {
        let config = self.container.config.clone();
        let mut files = self.write_etc(&network)?;
        files.extend(secrets::binds(&self.inner, &self.container.id, &config.host.files)?);
        let images = image_mounts::all(&self.inner.images, &self.container).await?;
        let pid_of = self.joined("pid", &config.host.pid_mode)?;
        let ipc_of = self.joined("ipc", &config.host.ipc_mode)?;
        let (upper, work) = (self.dir.join("upper"), self.dir.join("work"));
        let mut folders = vec![upper.clone()];
        folders.extend(lowers.iter().cloned());
        let (hostname, cgroup) = (self.hostname(), self.cgroup());
        let links = links::environment(&self.inner, &self.container)?;
        let (container, run_dir, squash) =
            (self.container.clone(), self.run_dir.clone(), self.inner.userns_squash);
        let host = self.inner.hostname.clone();
        let users = users.map(runtime::UserNamespace::path);
        let cdi_dirs = self.inner.defaults().cdi_spec_dirs.clone();
        crate::blocking(move || {
            let identity = users::resolve(
                &Layers { folders },
                config.user.as_deref().unwrap_or_default(),
                &config.host.group_add,
            )?;
            let tmpfs = tmpfs_mounts(&container)?;
            let edits = match config.host.device_requests.as_slice() {
                [] => cdi::Edits::default(),
                requests => cdi::Inventory::read(&cdi_dirs).edits(requests)?,
            };
            let spec = oci::spec(&Parts {
                config: &config,
                hostname: &hostname,
                links: &links,
                identity: &identity,
                mounts: &container.mounts,
                images: &images,
                tmpfs: &tmpfs,
                files: &files,
                edits: &edits,
                netns: network.netns.as_deref(),
                pid_of,
                ipc_of,
                cgroups_path: &cgroup,
                userns_squash: squash,
                users: container.users.as_ref().zip(users.as_deref()),
            })?;
            Ok(runtime::ContainerPlan {
                id: container.id.clone(),
                dir: run_dir,
                spec,
                rootfs: runtime::Rootfs::Overlay { lowers, upper, work },
                log: crate::logs::driver::target(&container, &host)?,
                tty: config.tty,
                stdin_open: config.open_stdin,
                init: config.host.init.unwrap_or(false),
                userns_squash: squash,
            })
        })
        .await
    }

    /// Returns the pid whose namespace `container:<id>` names.
    fn joined(&self, kind: &str, mode: &str) -> Result<Option<u32>> {
        let Some(other) = mode.strip_prefix("container:") else { return Ok(None) };
        let other = self.inner.inspect(other)?;
        let not_running = || {
            Error::Conflict(format!("cannot join {kind} namespace of a non running container: {}", other.id))
        };
        other.state.pid.map(Some).ok_or_else(not_running)
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(Error::io("write", path))
}

/// `gateways`: what `host-gateway` stands for; a line for each.
fn extra_hosts(lines: &[String], gateways: &[IpAddr]) -> Result<Vec<(String, String)>> {
    let mut hosts = Vec::new();
    for line in lines {
        let (name, address) = line.split_once('=').or_else(|| line.split_once(':')).ok_or_else(|| {
            Error::invalid(format!("invalid argument \"{line}\" for extra host: bad format"))
        })?;
        if address == "host-gateway" {
            if gateways.is_empty() {
                return Err(Error::invalid(
                    "unable to derive the IP value for host-gateway: the container has no gateway",
                ));
            }
            hosts.extend(gateways.iter().map(|gateway| (name.to_owned(), gateway.to_string())));
            continue;
        }
        let bare = address.trim_matches(['[', ']']);
        let address = bare
            .parse::<IpAddr>()
            .map_err(|_| Error::invalid(format!("invalid IP address in add-host: \"{address}\"")))?;
        hosts.push((name.to_owned(), address.to_string()));
    }
    Ok(hosts)
}

fn tmpfs_mounts(container: &Container) -> Result<Vec<Tmpfs>> {
    let plan = crate::files::mounts::Plan::of(&container.config, |_| Ok(vec![]))?;
    let tmpfs = |wanted: crate::files::mounts::Wanted| match wanted.source {
        crate::files::mounts::Source::Tmpfs(mut options) => {
            if !wanted.writable && !options.split(',').any(|o| o == "ro") {
                options = if options.is_empty() { "ro".into() } else { format!("{options},ro") };
            }
            Some(Tmpfs { destination: wanted.destination, options })
        }
        _ => None,
    };
    Ok(plan.by_destination.into_values().filter_map(tmpfs).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_hosts_take_both_separators_and_the_gateway() {
        let lines = ["db:10.0.0.5", "v6=[::1]", "me:host-gateway"].map(str::to_owned);
        let gateways = ["172.17.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        let got = extra_hosts(&lines, &gateways).unwrap();
        assert_eq!(got[0], ("db".into(), "10.0.0.5".into()));
        assert_eq!(got[1], ("v6".into(), "::1".into()));
        assert_eq!((got[2].1.as_str(), got[3].1.as_str()), ("172.17.0.1", "fd00::1"));
        assert!(extra_hosts(&lines, &[]).is_err());
        assert!(extra_hosts(&["bad".to_owned()], &[]).is_err());
    }
}
