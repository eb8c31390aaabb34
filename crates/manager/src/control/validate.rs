//! What is wrong with a spec, in Docker's words. Pure: a spec and the state in, a refusal out.
//! Source: swarmkit `manager/controlapi`, `api/validation`.

mod networks;

pub(crate) use networks::attachment;
pub(super) use networks::{network, network_name, network_unused, room_for};

use super::amounts;
use crate::ingress;
use model::{
    ALIASES_MAX, ATTACHMENT_OPTIONS_LEVEL, BindRecursion, CONFINEMENT_LEVEL, Config, ConfigSpec,
    ContainerSpec, DOCKER_NETWORK_OPTIONS, EndpointMode, GenericRequests, Mode, MountKind,
    NODE_NETWORK_LEVEL, NetworkDriver, ObjectRef, PORTS_MAX, Protocol, PublishMode, Resources, Secret,
    SecretSpec, ServiceId, ServiceSpec, TASKS_MAX, TEMPLATES_LEVEL, Tables, Want, resource::TOGETHER_LEVEL,
};
use std::collections::{BTreeMap, BTreeSet};
use tonic::Status;

const SECRET_BYTES_MAX: usize = 500 * 1024;
const CONFIG_BYTES_MAX: usize = 1000 * 1024;
const MEMORY_BYTES_MIN: u64 = 4 << 20;
const CPU_NANOS_MIN: u64 = 1_000_000;
const RATIO_PPM_MAX: u32 = 1_000_000;

fn invalid(text: impl Into<String>) -> Status {
    Status::invalid_argument(text)
}

/// Checks a service that is new (`id` = `None`) or changed.
pub(super) fn service(tables: &Tables, spec: &ServiceSpec, id: Option<ServiceId>) -> Result<(), Status> {
    dns_name(&spec.name)?;
    task_count(tables, spec, id)?;
    container(tables, spec)?;
    resources(&spec.task.resources.limits)?;
    resources(&spec.task.resources.reservations)?;
    generic_resources(tables, &spec.task.resources.generic)?;
    for constraint in &spec.task.placement.constraints {
        constraint.to_string().parse::<model::Constraint>().map_err(|e| invalid(e.to_string()))?;
    }
    for policy in [&spec.update, &spec.rollback] {
        if policy.max_failure_ratio_ppm > RATIO_PPM_MAX {
            return Err(invalid(
                "TaskSpec: update-maxfailureratio cannot be greater than 1 or bigger than 0",
            ));
        }
    }
    networks(tables, spec)?;
    endpoint(spec)?;
    ingress::check(tables, spec)?;
    own_ports(tables, spec)?;
    port_count(tables, spec, id)?;
    amounts::check(tables, spec, id)?;
    port_conflicts(tables, spec, id)
}

/// Refuses more tasks than a swarm can have: each costs the managers memory, also while no node takes it.
fn task_count(tables: &Tables, spec: &ServiceSpec, id: Option<ServiceId>) -> Result<(), Status> {
    let mine = spec.mode.slots();
    let others = tables.services.values().filter(|other| Some(other.id) != id && !other.pending_delete);
    let others = others.fold(0_u64, |sum, other| sum.saturating_add(other.spec.mode.slots()));
    if mine == 0 || mine.saturating_add(others) <= TASKS_MAX {
        return Ok(());
    }
    Err(invalid(format!(
        "service {}: {mine} tasks are asked for, and other services ask for {others}: a swarm has at most {TASKS_MAX}; \
         hint: fewer replicas here or there",
        spec.name
    )))
}

/// Checks that an update may turn `old` into `new`.
pub(super) fn service_change(old: &ServiceSpec, new: &ServiceSpec) -> Result<(), Status> {
    if old.name != new.name {
        return Err(Status::unimplemented("renaming services is not supported"));
    }
    let same_mode = matches!(
        (old.mode, new.mode),
        (Mode::Replicated { .. }, Mode::Replicated { .. })
            | (Mode::Global, Mode::Global)
            | (Mode::ReplicatedJob { .. }, Mode::ReplicatedJob { .. })
            | (Mode::GlobalJob, Mode::GlobalJob)
    );
    if same_mode { Ok(()) } else { Err(Status::unimplemented("service mode change is not allowed")) }
}

/// Source: swarmkit `isValidDNSName`: `^[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*$`.
fn dns_name(name: &str) -> Result<(), Status> {
    if name.is_empty() {
        return Err(invalid("meta: name must be provided"));
    }
    if name.len() > 63 {
        return Err(invalid("name must be 63 characters or fewer"));
    }
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inner = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if inner && ends(name.chars().next()) && ends(name.chars().last()) {
        Ok(())
    } else {
        Err(invalid("name must be valid as a DNS name component"))
    }
}

/// Source: swarmkit `validateConfigOrSecretAnnotations`.
fn file_name(name: &str) -> Result<(), Status> {
    if name.is_empty() {
        return Err(invalid("name must be provided"));
    }
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inner = name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if name.len() <= 64 && inner && ends(name.chars().next()) && ends(name.chars().last()) {
        Ok(())
    } else {
        Err(invalid(
            "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]",
        ))
    }
}

pub(super) fn secret(tables: &Tables, spec: &SecretSpec) -> Result<(), Status> {
    let data = &spec.data.0;
    file_name(&spec.name)?;
    if data.is_empty() || data.len() >= SECRET_BYTES_MAX {
        return Err(invalid(format!(
            "secret data must be larger than 0 and less than {SECRET_BYTES_MAX} bytes"
        )));
    }
    template_of_data(tables, "secret", spec.templated, data)
}

/// Checks data whose template driver is `golang`.
fn template_of_data(tables: &Tables, kind: &str, templated: bool, data: &[u8]) -> Result<(), Status> {
    if !templated {
        return Ok(());
    }
    let level = tables.cluster.as_ref().map_or(0, |cluster| cluster.feature_level);
    if level < TEMPLATES_LEVEL {
        return Err(Status::failed_precondition(format!(
            "{kind} with a template driver: not understood by every manager: the swarm is at feature level {level}, and \
             {TEMPLATES_LEVEL} is needed; hint: install this version on all managers"
        )));
    }
    template::task::check_payload(data)
        .map_err(|error| invalid(format!("{kind} with a template driver: {error}")))
}

pub(super) fn config(tables: &Tables, spec: &ConfigSpec) -> Result<(), Status> {
    let data = &spec.data;
    file_name(&spec.name)?;
    if data.is_empty() || data.len() >= CONFIG_BYTES_MAX {
        return Err(invalid(format!(
            "config data must be larger than 0 and less than {CONFIG_BYTES_MAX} bytes"
        )));
    }
    template_of_data(tables, "config", spec.templated, data)
}

fn container(tables: &Tables, spec: &ServiceSpec) -> Result<(), Status> {
    let container = &spec.task.container;
    if container.image.is_empty() {
        return Err(invalid("ContainerSpec: image reference must be provided"));
    }
    if container.image.chars().any(char::is_whitespace) {
        return Err(invalid(format!("ContainerSpec: {:?} is not a valid repository/tag", container.image)));
    }
    let host_network = spec.task.networks.iter().any(|attachment| {
        tables.networks.get(&attachment.network).is_some_and(|n| n.spec.driver == NetworkDriver::Host)
    });
    let mut mounts = BTreeSet::new();
    for mount in &container.mounts {
        if mount.target.is_empty() {
            return Err(invalid("ContainerSpec: mount target must be provided"));
        }
        if !mounts.insert(&mount.target) {
            return Err(invalid(format!("ContainerSpec: duplicate mount point: {}", mount.target)));
        }
    }
    container.check(host_network).map_err(|e| invalid(e.to_string()))?;
    let example = template::task::Values::example(&spec.name, &spec.labels);
    template::task::container(container, &example).map_err(|e| invalid(e.to_string()))?;
    understood_by_all(tables, container)?;
    let mut targets: BTreeMap<&str, &str> = BTreeMap::new();
    for file in &container.secrets {
        if !tables.secrets.contains(&file.id) {
            return Err(invalid(format!("secret not found: {}", file.name)));
        }
        if let Some(other) = targets.insert(&file.target, &file.name) {
            return Err(conflicting_target("secret", other, &file.name, &file.target));
        }
    }
    targets.clear();
    for file in &container.configs {
        if !tables.configs.contains(&file.id) {
            return Err(invalid(format!("config not found: {}", file.name)));
        }
        if let Some(other) = targets.insert(&file.target, &file.name) {
            return Err(conflicting_target("config", other, &file.name, &file.target));
        }
    }
    Ok(())
}

/// Refuses what a manager of an older version would drop from the spec: the container would be less confined than its
/// author believes.
fn understood_by_all(tables: &Tables, container: &ContainerSpec) -> Result<(), Status> {
    let level = tables.cluster.as_ref().map_or(0, |cluster| cluster.feature_level);
    if level >= CONFINEMENT_LEVEL.max(TEMPLATES_LEVEL) {
        return Ok(());
    }
    if container.asks_for_service_labels() {
        return Err(Status::failed_precondition(format!(
            "ContainerSpec: templates with labels of the service are not understood by every manager: the swarm is at \
             feature level {level}, and {TEMPLATES_LEVEL} is needed; hint: install this version on all managers"
        )));
    }
    let users = container.host.as_ref().is_some_and(|host| host.users.is_some());
    let recursion = container.mounts.iter().find(|mount| match mount.kind {
        MountKind::Bind { recursion, .. } => recursion != BindRecursion::Enabled,
        MountKind::Volume { .. } | MountKind::Tmpfs { .. } => false,
    });
    let what = match (users, recursion) {
        (true, _) => "a user namespace of its own choice (UsernsMode)".to_owned(),
        (false, Some(mount)) => format!("the recursion of the bind mount at {}", mount.target),
        (false, None) => return Ok(()),
    };
    Err(Status::failed_precondition(format!(
        "ContainerSpec: {what} is not understood by every manager: the swarm is at feature level {level}, and \
         {CONFINEMENT_LEVEL} is needed; hint: install this version on all managers"
    )))
}

fn conflicting_target(kind: &str, one: &str, other: &str, target: &str) -> Status {
    invalid(format!("{kind} references '{one}' and '{other}' have a conflicting target: '{target}'"))
}

fn generic_resources(tables: &Tables, wants: &GenericRequests) -> Result<(), Status> {
    let level = feature_level(tables);
    for (kind, want) in wants {
        let nothing = match want {
            Want::Count(n) => *n == 0,
            Want::These(names) => names.is_empty(),
            Want::TheseAndMore { .. } if level < TOGETHER_LEVEL => {
                return Err(Status::failed_precondition(format!(
                    "generic resource {kind}: by number and by name at once is not understood by every manager: the swarm \
                     is at feature level {level}, and {TOGETHER_LEVEL} is needed; hint: install this version on all \
                     managers"
                )));
            }
            Want::TheseAndMore { names, more } => names.is_empty() || *more == 0,
            Want::All => false,
        };
        if kind.is_empty() || nothing {
            return Err(invalid(format!(
                "invalid generic resource {kind:?}: a kind and at least 1 are needed"
            )));
        }
    }
    Ok(())
}

fn feature_level(tables: &Tables) -> u32 {
    tables.cluster.as_ref().map_or(0, |cluster| cluster.feature_level)
}

fn resources(resources: &Resources) -> Result<(), Status> {
    if resources.cpu_nanos != 0 && resources.cpu_nanos < CPU_NANOS_MIN {
        let cpus = resources.cpu_nanos as f64 / 1e9;
        return Err(invalid(format!("invalid cpu value {cpus}: Must be at least 0.001")));
    }
    if resources.memory_bytes != 0 && resources.memory_bytes < MEMORY_BYTES_MIN {
        return Err(invalid(format!(
            "invalid memory value {}: Must be at least 4MiB",
            resources.memory_bytes
        )));
    }
    Ok(())
}

fn networks(tables: &Tables, spec: &ServiceSpec) -> Result<(), Status> {
    let mut seen = BTreeSet::new();
    for attachment in &spec.task.networks {
        let network = tables
            .networks
            .get(&attachment.network)
            .filter(|n| !n.pending_delete)
            .ok_or_else(|| invalid(format!("network {} not found", attachment.network)))?;
        if network.spec.driver == NetworkDriver::Ingress {
            return Err(invalid(format!(
                "Service cannot be explicitly attached to the ingress network {:?}",
                network.spec.name
            )));
        }
        if !seen.insert(attachment.network) {
            return Err(invalid(format!("network {} is named twice", network.spec.name)));
        }
        let aliases = attachment.aliases.len();
        if aliases > ALIASES_MAX {
            return Err(invalid(format!(
                "service {}: {aliases} aliases on network {}, and at most {ALIASES_MAX} are kept: each node answers for \
                 each of them, with the addresses of all tasks",
                spec.name, network.spec.name
            )));
        }
        driver_options(tables, &network.spec.name, attachment)?;
        let (name, driver) = (&network.spec.name, network.spec.driver);
        node_network_understood(tables, network.spec.driver)?;
        if driver != NetworkDriver::Overlay && spec.task.networks.len() > 1 {
            return Err(invalid(format!("network {name} is a node's own: no other goes with it")));
        }
        let by_ingress = spec.endpoint.ports.iter().any(|port| port.mode == PublishMode::Ingress);
        match driver {
            NetworkDriver::None if !spec.endpoint.ports.is_empty() => {
                return Err(invalid(format!("network {name}: what has no network cannot publish ports")));
            }
            NetworkDriver::Bridge if by_ingress => {
                return Err(invalid(format!(
                    "network {name} is a node's own: a port can be published in mode host alone; hint: \
                     --publish mode=host,.."
                )));
            }
            NetworkDriver::Overlay
            | NetworkDriver::Host
            | NetworkDriver::None
            | NetworkDriver::Bridge
            | NetworkDriver::Ingress => {}
        }
    }
    Ok(())
}

/// What another driver may know is kept and shown; what Docker's own drivers would do is refused, as none of it is done
/// to the interface of a task.
fn driver_options(
    tables: &Tables,
    network: &str,
    attachment: &model::NetworkAttachmentSpec,
) -> Result<(), Status> {
    if attachment.driver_opts.is_empty() {
        return Ok(());
    }
    let level = feature_level(tables);
    if level < ATTACHMENT_OPTIONS_LEVEL {
        return Err(Status::failed_precondition(format!(
            "network {network}: driver options of an attachment are not understood by every manager: the swarm is at \
             feature level {level}, and {ATTACHMENT_OPTIONS_LEVEL} is needed; hint: install this version on all managers"
        )));
    }
    match attachment.driver_opts.keys().find(|key| key.starts_with(DOCKER_NETWORK_OPTIONS)) {
        Some(key) => Err(invalid(format!(
            "network {network}: the driver option {key:?} of an attachment is not supported in services"
        ))),
        None => Ok(()),
    }
}

/// Refuses networks that an agent of an older version would take for the host's own.
fn node_network_understood(tables: &Tables, driver: NetworkDriver) -> Result<(), Status> {
    let level = feature_level(tables);
    match driver {
        NetworkDriver::None | NetworkDriver::Bridge if level < NODE_NETWORK_LEVEL => {
            Err(Status::failed_precondition(format!(
                "the networks none and bridge are not understood by every node: the swarm is at feature level {level}, \
                 and {NODE_NETWORK_LEVEL} is needed; hint: install this version on all managers"
            )))
        }
        NetworkDriver::Overlay
        | NetworkDriver::Host
        | NetworkDriver::None
        | NetworkDriver::Bridge
        | NetworkDriver::Ingress => Ok(()),
    }
}

fn endpoint(spec: &ServiceSpec) -> Result<(), Status> {
    let mut published = BTreeSet::new();
    for port in &spec.endpoint.ports {
        if port.target == 0 {
            return Err(invalid("EndpointSpec: a port needs a target"));
        }
        if spec.endpoint.mode == EndpointMode::DnsRr && port.mode == PublishMode::Ingress {
            return Err(invalid(
                "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
            ));
        }
        if port.published != 0 && !published.insert((port.protocol, port.published, port.mode)) {
            return Err(invalid("EndpointSpec: duplicate published ports provided"));
        }
    }
    Ok(())
}

/// The ports by which the swarm itself lives: a service that took one would cut the nodes off from each other, and
/// with them the way to remove it. What else a node's port is used for, that node knows.
fn own_ports(tables: &Tables, spec: &ServiceSpec) -> Result<(), Status> {
    let managers = tables.nodes.values().filter_map(|node| node.manager.as_ref());
    let doors: BTreeSet<u16> = managers.map(|manager| manager.addr.port()).collect();
    let tunnels = tables.cluster.as_ref().map(|cluster| cluster.data_path_port);
    for port in spec.endpoint.ports.iter().filter(|p| p.published != 0) {
        let user = match port.protocol {
            Protocol::Tcp if doors.contains(&port.published) => "the managers of the swarm listen on it",
            Protocol::Udp if tunnels == Some(port.published) => {
                "the nodes' tunnels arrive by it (data path port)"
            }
            Protocol::Tcp | Protocol::Udp | Protocol::Sctp => continue,
        };
        return Err(invalid(format!(
            "port '{}/{}' cannot be published: {user}; hint: choose another published port",
            port.published, port.protocol
        )));
    }
    Ok(())
}

/// Refuses more published ports than nodes can give away.
fn port_count(tables: &Tables, spec: &ServiceSpec, id: Option<ServiceId>) -> Result<(), Status> {
    let mine = spec.endpoint.ports.len();
    let others = tables.services.values().filter(|other| Some(other.id) != id && !other.pending_delete);
    let others: usize = others.map(|other| other.spec.endpoint.ports.len()).sum();
    if mine == 0 || mine + others <= PORTS_MAX {
        return Ok(());
    }
    Err(invalid(format!(
        "service {}: it publishes {mine} ports, and other services publish {others}: a swarm has at most {PORTS_MAX}; \
         hint: fewer ports here or there",
        spec.name
    )))
}

/// Refuses ports that are another service's: see [`Tables::port_holder`].
fn port_conflicts(tables: &Tables, spec: &ServiceSpec, id: Option<ServiceId>) -> Result<(), Status> {
    for port in spec.endpoint.ports.iter().filter(|p| p.published != 0) {
        if let Some((other, clash)) = tables.port_holder(port, id) {
            let mode = match clash.mode {
                PublishMode::Ingress => "an ingress port",
                PublishMode::Host => "a host-published port",
            };
            let (number, name) = (port.published, &other.spec.name);
            return Err(invalid(format!(
                "port '{number}' is already in use by service '{name}' ({}) as {mode}",
                other.id
            )));
        }
    }
    Ok(())
}

pub(super) fn secret_unused(tables: &Tables, secret: &Secret) -> Result<(), Status> {
    let users = users(tables, ObjectRef::Secret(secret.id));
    in_use("secret", &secret.spec.name, &users)
}

pub(super) fn config_unused(tables: &Tables, config: &Config) -> Result<(), Status> {
    let users = users(tables, ObjectRef::Config(config.id));
    in_use("config", &config.spec.name, &users)
}

fn users(tables: &Tables, key: ObjectRef) -> Vec<&str> {
    tables.services_using(key).map(|s| s.spec.name.as_str()).collect()
}

fn in_use(kind: &str, name: &str, users: &[&str]) -> Result<(), Status> {
    let plural = match users.len() {
        0 => return Ok(()),
        1 => "service",
        _ => "services",
    };
    let users = users.join(", ");
    Err(invalid(format!("{kind} '{name}' is in use by the following {plural}: {users}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::state::{service_spec, state};
    use model::{NetworkId, PortConfig, SecretId};
    use std::sync::Arc;

    /// Checks what a new service with these changes is told.
    fn check(change: impl FnOnce(&mut ServiceSpec), said: &str) {
        let tables = state().node(1).network(1).service(1, &[1], &[(80, 8080)]).tables();
        let mut spec = service_spec("new");
        change(&mut spec);
        let told = service(&tables, &spec, None).err().map_or_else(String::new, |s| s.message().to_owned());
        assert_eq!(told, said);
    }

    fn publish(spec: &mut ServiceSpec, port: u16, mode: PublishMode) {
        let protocol = model::Protocol::Tcp;
        spec.endpoint.ports.push(PortConfig {
            name: String::new(),
            protocol,
            target: 80,
            published: port,
            mode,
        });
    }

    #[test]
    fn service_specs_are_refused_in_dockers_words() {
        check(|_| {}, "");
        check(|s| s.name = String::new(), "meta: name must be provided");
        for name in ["-a", "a.b", "ä", "a_"] {
            check(|s| s.name = name.into(), "name must be valid as a DNS name component");
        }
        check(|s| s.name = "a".repeat(64), "name must be 63 characters or fewer");
        check(
            |s| Arc::make_mut(&mut s.task).container.image = String::new(),
            "ContainerSpec: image reference must be provided",
        );
        check(
            |s| Arc::make_mut(&mut s.task).resources.limits.memory_bytes = 1,
            "invalid memory value 1: Must be at least 4MiB",
        );
        check(
            |s| {
                s.endpoint.mode = EndpointMode::DnsRr;
                publish(s, 9, PublishMode::Ingress);
            },
            "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
        );
    }

    #[test]
    fn more_tasks_than_a_swarm_can_have_are_refused_whatever_the_mode() {
        let tables = state().node(1).service(1, &[], &[]).tables();
        let others = tables.services.values().map(|s| s.spec.mode.slots()).sum::<u64>();
        let free = TASKS_MAX - others;
        let asked = |mode: Mode, id: Option<ServiceId>| {
            let mut spec = service_spec("web");
            spec.mode = mode;
            service(&tables, &spec, id).map_err(|refused| refused.message().to_owned())
        };
        assert_eq!(asked(Mode::Replicated { replicas: free }, None), Ok(()));
        let jobs = |total| Mode::ReplicatedJob { max_concurrent: 1, total };
        assert_eq!(asked(jobs(free), None), Ok(()));
        for mode in
            [Mode::Replicated { replicas: free + 1 }, Mode::Replicated { replicas: u64::MAX }, jobs(free + 1)]
        {
            let said = asked(mode, None).unwrap_err();
            assert!(said.contains("service web: ") && said.contains("a swarm has at most 16384"), "{said}");
        }
        // What a service asks for already does not count against it.
        let me = tables.services.values().next().map(|s| s.id);
        assert_eq!(asked(Mode::Replicated { replicas: TASKS_MAX }, me), Ok(()));
    }

    #[test]
    fn a_service_has_as_many_names_on_a_network_as_nodes_answer_for() {
        let tables = state().node(1).network(1).tables();
        let asked = |count: usize| {
            let mut spec = service_spec("web");
            let aliases = (0..count).map(|n| format!("a{n}")).collect();
            let attachment = model::NetworkAttachmentSpec::new(model::NetworkId(1), aliases);
            Arc::make_mut(&mut spec.task).networks = vec![attachment];
            service(&tables, &spec, None).map_err(|refused| refused.message().to_owned())
        };
        assert_eq!(asked(ALIASES_MAX), Ok(()));
        let said = asked(ALIASES_MAX + 1).unwrap_err();
        assert!(said.starts_with("service web: 257 aliases on network"), "{said}");
    }

    #[test]
    fn more_published_ports_than_nodes_can_give_away_are_refused() {
        let tables = state().node(1).service(1, &[], &[(80, 8080)]).tables();
        let asked = |count: usize, id: Option<ServiceId>| {
            let mut spec = service_spec("web");
            (0..count).for_each(|_| publish(&mut spec, 0, PublishMode::Ingress));
            service(&tables, &spec, id).map_err(|refused| refused.message().to_owned())
        };
        assert_eq!(asked(PORTS_MAX - 1, None), Ok(()));
        let said = asked(PORTS_MAX, None).unwrap_err();
        assert!(
            said.contains("service web: it publishes 16384 ports, and other services publish 1"),
            "{said}"
        );
        let me = tables.services.values().next().map(|service| service.id);
        assert_eq!(asked(PORTS_MAX, me), Ok(()), "its own do not count twice");
    }

    #[test]
    fn ports_of_the_swarm_itself_cannot_be_published() {
        let tables = state().cluster().node(1).manager(1, 2377).tables();
        let tunnels = tables.cluster.as_ref().map(|cluster| cluster.data_path_port).unwrap();
        let told = |protocol, port, mode| {
            let mut spec = service_spec("new");
            publish(&mut spec, port, mode);
            spec.endpoint.ports[0].protocol = protocol;
            service(&tables, &spec, None).err().map_or_else(String::new, |s| s.message().to_owned())
        };
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        for mode in [PublishMode::Ingress, PublishMode::Host] {
            assert_eq!(
                told(tcp, 2377, mode),
                "port '2377/tcp' cannot be published: the managers of the swarm listen on it; hint: choose another published port"
            );
            assert_eq!(
                told(udp, tunnels, mode),
                format!(
                    "port '{tunnels}/udp' cannot be published: the nodes' tunnels arrive by it (data path port); hint: choose another published port"
                )
            );
            assert_eq!(
                told(udp, 2377, mode) + &told(tcp, tunnels, mode),
                "",
                "the numbers of another protocol"
            );
        }
    }

    #[test]
    fn a_template_that_cannot_be_filled_in_is_refused() {
        for (text, words) in [
            ("{{.Nope.Name}}", "no field \"Nope\""),
            ("{{.Node.Hostname", "unclosed action"),
            ("{{nope .Task.Slot}}", "function \"nope\" not defined"),
        ] {
            let mut spec = service_spec("new");
            Arc::make_mut(&mut spec.task).container.env.push(format!("X={text}"));
            let refused = service(&state().cluster().tables(), &spec, None).unwrap_err();
            assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{text}");
            assert!(refused.message().contains(words), "{text}: {}", refused.message());
        }
        let mut spec = service_spec("new");
        spec.labels.insert("tier".into(), "gold".into());
        let container = &mut Arc::make_mut(&mut spec.task).container;
        container.hostname = Some("{{.Service.Labels.tier}}-{{.Task.Slot}}".into());
        service(&state().cluster().tables(), &spec, None).unwrap();
    }

    #[test]
    fn data_with_a_template_driver_is_a_template_that_every_manager_understands() {
        let spec = |data: &str| ConfigSpec {
            name: "c".into(),
            labels: model::Labels::new(),
            data: data.into(),
            templated: true,
        };
        let tables = state().cluster().tables();
        config(&tables, &spec("{{secret \"password\"}} {{.Task.Slot}}")).unwrap();
        config(&tables, &ConfigSpec { templated: false, ..spec("{{nope") }).unwrap();
        assert_eq!(config(&tables, &spec("{{nope")).unwrap_err().code(), tonic::Code::InvalidArgument);
        let mut cluster = model::Cluster::clone(tables.cluster.as_ref().unwrap());
        (cluster.meta, cluster.feature_level) = (model::Meta::default(), TEMPLATES_LEVEL - 1);
        let older = state().put(model::Object::Cluster(Arc::new(cluster))).tables();
        assert_eq!(config(&older, &spec("x")).unwrap_err().code(), tonic::Code::FailedPrecondition);
        config(&older, &ConfigSpec { templated: false, ..spec("x") }).unwrap();
    }

    #[test]
    fn what_an_older_manager_would_drop_is_refused() {
        let at = |level: u32, change: fn(&mut ContainerSpec)| {
            let mut cluster = model::Cluster::clone(state().cluster().tables().cluster.as_ref().unwrap());
            (cluster.meta, cluster.feature_level) = (model::Meta::default(), level);
            let tables = state().put(model::Object::Cluster(Arc::new(cluster))).tables();
            let mut spec = service_spec("new");
            change(&mut Arc::make_mut(&mut spec.task).container);
            service(&tables, &spec, None).err().map_or_else(String::new, |s| s.message().to_owned())
        };
        let users: fn(&mut ContainerSpec) = |c| {
            c.host = Some(model::HostOptions { users: Some("host".into()), ..Default::default() });
        };
        let shallow: fn(&mut ContainerSpec) = |c| {
            let (source, recursion) = ("/srv".into(), BindRecursion::Disabled);
            let kind = MountKind::Bind { source, propagation: None, create: false, recursion };
            c.mounts.push(model::Mount { kind, target: "/there".into(), read_only: false });
        };
        let labels: fn(&mut ContainerSpec) = |c| c.env.push("X={{.Service.Labels}}".into());
        for (change, words) in
            [(users, "UsernsMode"), (shallow, "bind mount at /there"), (labels, "labels of the service")]
        {
            let refused = at(CONFINEMENT_LEVEL - 1, change);
            assert!(refused.contains(words) && refused.contains("install this version on all"), "{refused}");
            assert_eq!(at(CONFINEMENT_LEVEL, change), "");
        }
    }

    #[test]
    fn what_is_asked_of_networks_and_generic_resources_is_what_every_manager_understands() {
        let at = |level: u32, change: fn(&mut model::TaskSpec)| {
            let mut cluster = model::Cluster::clone(state().cluster().tables().cluster.as_ref().unwrap());
            (cluster.meta, cluster.feature_level) = (model::Meta::default(), level);
            let mesh = crate::ingress::usual(NetworkId(7), &cluster);
            let state = state().put(model::Object::Cluster(Arc::new(cluster))).network(1);
            let tables = state.put(model::Object::Network(Arc::new(mesh))).tables();
            let mut spec = service_spec("new");
            change(Arc::make_mut(&mut spec.task));
            service(&tables, &spec, None).err().map_or_else(String::new, |s| s.message().to_owned())
        };
        fn on_network(task: &mut model::TaskSpec, option: &str) {
            let mut attachment = model::NetworkAttachmentSpec::new(NetworkId(1), Vec::new());
            attachment.driver_opts.insert(option.to_owned(), "1".into());
            task.networks = vec![attachment];
        }
        let both: fn(&mut model::TaskSpec) = |task| {
            let want = Want::TheseAndMore { names: ["a".to_owned()].into(), more: 1 };
            task.resources.generic.insert("gpu".into(), want);
        };
        let theirs: fn(&mut model::TaskSpec) = |task| on_network(task, "org.example.colour");
        for (change, level) in [(both, TOGETHER_LEVEL), (theirs, ATTACHMENT_OPTIONS_LEVEL)] {
            assert!(at(level - 1, change).contains("install this version on all managers"));
            assert_eq!(at(level, change), "");
        }
        let dockers = at(model::FEATURE_LEVEL, |task| on_network(task, "com.docker.network.endpoint.ifname"));
        assert!(dockers.contains("com.docker.network.endpoint.ifname"), "{dockers}");
        let on_mesh = at(model::FEATURE_LEVEL, |task| {
            task.networks = vec![model::NetworkAttachmentSpec::new(NetworkId(7), Vec::new())];
        });
        assert_eq!(on_mesh, "Service cannot be explicitly attached to the ingress network \"ingress\"");
    }

    #[test]
    fn kernel_parameters_of_a_host_are_refused() {
        check(
            |s| {
                let container = &mut Arc::make_mut(&mut s.task).container;
                container.sysctls.insert("kernel.core_pattern".into(), "x".into());
            },
            "invalid ContainerSpec.Sysctls: sysctl \"kernel.core_pattern\" is not in a separate kernel namespace",
        );
    }

    #[test]
    fn published_ports_have_one_owner() {
        let taken = format!(
            "port '80' is already in use by service 'service1' ({}) as an ingress port",
            ServiceId(1)
        );
        check(|s| publish(s, 80, PublishMode::Ingress), &taken);
        check(|s| publish(s, 80, PublishMode::Host), &taken);
        check(|s| publish(s, 81, PublishMode::Ingress), "");
        check(
            |s| {
                publish(s, 81, PublishMode::Ingress);
                publish(s, 81, PublishMode::Ingress);
            },
            "EndpointSpec: duplicate published ports provided",
        );
        let tables = state().service(1, &[], &[(80, 8080)]).tables();
        let own = tables.services.get(&ServiceId(1)).unwrap();
        assert!(service(&tables, &own.spec, Some(ServiceId(1))).is_ok(), "its own port is no conflict");
    }

    #[test]
    fn mode_and_name_of_a_service_are_fixed() {
        let old = service_spec("a");
        let replicas = ServiceSpec { mode: Mode::Replicated { replicas: 9 }, ..old.clone() };
        assert!(service_change(&old, &replicas).is_ok());
        let global = ServiceSpec { mode: Mode::Global, ..old.clone() };
        assert_eq!(
            service_change(&old, &global).unwrap_err().message(),
            "service mode change is not allowed"
        );
        let renamed = ServiceSpec { name: "b".into(), ..old.clone() };
        assert_eq!(
            service_change(&old, &renamed).unwrap_err().message(),
            "renaming services is not supported"
        );
    }

    #[test]
    fn what_a_service_uses_cannot_be_removed() {
        let tables = state().network(1).secret(1).service(1, &[1], &[]).service_secret(1, 1).tables();
        let secret = tables.secrets.get(&SecretId(1)).unwrap();
        assert_eq!(
            secret_unused(&tables, secret).unwrap_err().message(),
            "secret 'secret1' is in use by the following service: service1"
        );
        assert!(
            network_unused(&tables, NetworkId(1)).unwrap_err().message().contains("is in use by service")
        );
        let removed = state().network(1).service(1, &[1], &[]).change_service(1, |s| s.pending_delete = true);
        assert!(network_unused(&removed.tables(), NetworkId(1)).is_ok());
    }

    #[test]
    fn secrets_and_configs_have_limits() {
        let (tables, labels) = (state().tables(), model::Labels::new);
        let secret = |name: &str, data: &[u8]| {
            let data = model::SecretBytes(data.to_vec());
            super::secret(
                &tables,
                &SecretSpec { name: name.into(), labels: labels(), data, templated: false },
            )
        };
        let config = |name: &str, data: &[u8]| {
            let data = data.to_vec();
            super::config(
                &tables,
                &ConfigSpec { name: name.into(), labels: labels(), data, templated: false },
            )
        };
        assert!(secret("a", b"x").is_ok());
        assert!(secret("a", &[]).is_err() && secret("a", &vec![0; SECRET_BYTES_MAX]).is_err());
        assert!(
            config("a", &vec![0; SECRET_BYTES_MAX]).is_ok()
                && config("a", &vec![0; CONFIG_BYTES_MAX]).is_err()
        );
        assert!(secret("a b", b"x").is_err() && secret("a.b-c_d", b"x").is_ok());
    }
}
