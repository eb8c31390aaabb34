//! What people and bad luck do to a simulated swarm.

use super::{HOSTS, MANAGERS, Sim};
use crate::tests::state::service_spec;
use model::*;
use std::sync::Arc;

const SERVICES_MAX: usize = 3;
const NETWORKS_MAX: usize = 3;

impl Sim {
    fn fresh(&mut self) -> u128 {
        self.ids += 1;
        self.ids
    }

    fn put(&mut self, object: Object) {
        let at = self.wall(0);
        // What contradicts the state is refused, as a person's request would be.
        self.commit(&Batch { at, changes: vec![Change::Put(object)] }).ok();
    }

    /// One request of a person, if there is a leader to take it.
    pub(super) fn person_acts(&mut self) {
        if self.leader.is_none() {
            return;
        }
        let services: Vec<_> =
            self.newest().services.values().filter(|s| !s.pending_delete).cloned().collect();
        let networks: Vec<_> =
            self.newest().networks.values().filter(|n| !n.pending_delete).cloned().collect();
        let some_service = |sim: &mut Self| services.get(sim.random.below(SERVICES_MAX)).cloned();
        match self.random.below(12) {
            0 | 1 if networks.len() < NETWORKS_MAX => self.create_network(),
            2 | 3 if services.len() < SERVICES_MAX => self.create_service(&networks),
            4 | 5 => {
                let replicas = 1 + self.random.below(3) as u64;
                if let Some(service) = some_service(self) {
                    self.edit_service(&service, |spec| spec.mode = Mode::Replicated { replicas });
                }
            }
            6 | 7 => {
                if let Some(service) = some_service(self) {
                    self.edit_service(&service, |spec| Arc::make_mut(&mut spec.task).force_update += 1);
                }
            }
            8 => {
                if let Some(service) = some_service(self) {
                    self.tell(format!("rm {}", service.spec.name));
                    self.put(Object::Service(Arc::new(Service {
                        pending_delete: true,
                        ..Service::clone(&service)
                    })));
                }
            }
            9 => {
                if let Some(network) = networks.get(self.random.below(NETWORKS_MAX)) {
                    self.tell(format!("rm {}", network.spec.name));
                    self.put(Object::Network(Arc::new(Network {
                        pending_delete: true,
                        ..Network::clone(network)
                    })));
                }
            }
            10 => {
                let node = NodeId(self.random.below(HOSTS) as u128 + 1);
                let availability =
                    if self.random.once_in(2) { Availability::Drain } else { Availability::Active };
                self.set_availability(node, availability);
            }
            _ => {}
        }
    }

    pub(super) fn set_availability(&mut self, node: NodeId, availability: Availability) {
        let mut node = Node::clone(&self.newest().nodes.get(&node).expect("a node").clone());
        if node.spec.availability != availability {
            self.tell(format!("node {} is to be {availability:?}", node.id.0));
            node.spec.availability = availability;
            self.put(Object::Node(Arc::new(node)));
        }
    }

    fn create_network(&mut self) {
        self.names += 1;
        let name = format!("net{}", self.names);
        self.tell(format!("network create {name}"));
        let (id, spec) = (NetworkId(self.fresh()), NetworkSpec::new(name, NetworkDriver::Overlay));
        let (meta, allocation, pending_delete) = (Meta::default(), None, false);
        self.put(Object::Network(Arc::new(Network { id, meta, spec, allocation, pending_delete })));
    }

    fn create_service(&mut self, networks: &[Arc<Network>]) {
        self.names += 1;
        let mut spec = service_spec(&format!("svc{}", self.names));
        spec.mode = Mode::Replicated { replicas: 1 + self.random.below(3) as u64 };
        if self.random.once_in(3) {
            spec.update.order = UpdateOrder::StartFirst;
        }
        (spec.update.monitor, spec.rollback.monitor) = (Duration::from_secs(1), Duration::from_secs(1));
        spec.update.parallelism = self.random.below(3) as u64;
        spec.update.on_failure =
            if self.random.once_in(2) { FailureAction::Continue } else { FailureAction::Rollback };
        if self.random.once_in(2) {
            spec.endpoint.ports.push(PortConfig {
                name: String::new(),
                protocol: Protocol::Tcp,
                target: 80,
                published: 8000 + u16::try_from(self.random.below(3)).unwrap_or(0),
                mode: PublishMode::Ingress,
            });
        }
        let task = Arc::make_mut(&mut spec.task);
        task.restart.delay = Duration::from_secs(1);
        for network in networks.iter().filter(|_| self.random.below(3) > 0) {
            task.networks.push(NetworkAttachmentSpec::new(network.id, Vec::new()));
        }
        self.tell(format!("service create {} on {} networks", spec.name, spec.task.networks.len()));
        let service = Service {
            id: ServiceId(self.fresh()),
            meta: Meta::default(),
            spec: Arc::new(spec),
            spec_version: 1,
            previous: None,
            stack: None,
            endpoint: Endpoint::default(),
            update: None,
            pending_delete: false,
            job_iteration: 0,
            registry_auth: None,
        };
        self.put(Object::Service(Arc::new(service)));
    }

    fn edit_service(&mut self, service: &Arc<Service>, edit: impl FnOnce(&mut ServiceSpec)) {
        let mut service = Service::clone(service);
        let mut spec = ServiceSpec::clone(&service.spec);
        edit(&mut spec);
        self.tell(format!("service update {}: {:?}, {}", spec.name, spec.mode, spec.task.force_update));
        service.previous = Some(std::mem::replace(&mut service.spec, Arc::new(spec)));
        service.spec_version += 1;
        service.update = None;
        self.put(Object::Service(Arc::new(service)));
    }

    /// Something breaks, or is mended.
    pub(super) fn luck_changes(&mut self) {
        let host = self.random.below(HOSTS);
        let broken = (0..HOSTS).filter(|h| !self.works(*h)).count();
        if !self.works(host) {
            return self.mend(host);
        }
        // More at once is only the same again, slower.
        if broken >= 2 {
            return;
        }
        let (at, disk) = (self.at, self.random.once_in(3));
        let what = match self.random.below(8) {
            0 | 1 => {
                // Often for about as long as it takes until it is given up.
                let soon = self.random.once_in(2);
                let heals_at = at + self.random.millis(2500, 5000);
                let this = &mut self.hosts[host];
                (this.cut, this.heals_at) = (true, soon.then_some(heals_at));
                "is cut off"
            }
            2 | 3 => {
                self.hosts[host].stop_daemon(at);
                "has no daemon"
            }
            4 => {
                self.hosts[host].power_off(at, disk);
                if disk { "has no power, and what it wrote last is lost" } else { "has no power" }
            }
            6 => {
                self.stalled_until = self.at + self.random.millis(200, 9000);
                self.tell(format!("managers stand still until {:.2} s", self.stalled_until.as_secs_f64()));
                return;
            }
            5 => {
                self.ahead[host] = self.random.millis(0, 7_200_000);
                "has its clock set"
            }
            _ => {
                self.depose();
                return;
            }
        };
        self.touched(host, what);
    }

    fn works(&self, host: usize) -> bool {
        let host = &self.hosts[host];
        host.power && host.daemon && !host.cut
    }

    fn touched(&mut self, host: usize, what: &str) {
        self.disturbed_at = self.at;
        self.hosts[host].changed_at = [self.at, self.hosts[host].changed_at[0]];
        if host < MANAGERS && !self.works(host) {
            self.managers[host].touched_at = self.at;
        }
        self.tell(format!("host {} {what}", host + 1));
    }

    pub(super) fn mend(&mut self, host: usize) {
        if self.works(host) {
            return;
        }
        let this = &mut self.hosts[host];
        (this.power, this.daemon, this.cut, this.heals_at) = (true, true, false, None);
        self.touched(host, "is mended");
    }
}
