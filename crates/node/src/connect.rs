//! gRPC connections from this node to the others: one per peer and expectation, kept, encrypted and mutual.

use crate::gate::Gate;
use model::{NodeId, Role};
use pki::{Credentials, Expected};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::runtime::Handle;
use tonic::transport::{Channel, Endpoint};

/// Whom a channel must end at, beside its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Whom {
    Manager,
    Node(NodeId),
}

/// Channels to other nodes. A channel connects when first used and again whenever it broke.
#[derive(Debug)]
pub(crate) struct Connections {
    credentials: Credentials,
    gate: Arc<Gate>,
    channels: Mutex<BTreeMap<(SocketAddr, Whom), Channel>>,
    /// Where the connections live, whoever asks for them first.
    runtime: Handle,
}

impl Connections {
    /// The connections live on the threads of whoever calls this.
    pub(crate) fn new(credentials: Credentials, gate: Arc<Gate>) -> Self {
        Self { credentials, gate, channels: Mutex::default(), runtime: Handle::current() }
    }

    /// Returns who may be called on.
    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    pub(crate) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Returns a channel that ends at a manager, if named at this very one, or nowhere.
    pub(crate) fn manager(&self, addr: SocketAddr, node: Option<NodeId>) -> Channel {
        self.channel(addr, node.map_or(Whom::Manager, Whom::Node))
    }

    /// Returns a channel that ends at this very node or nowhere.
    pub(crate) fn node(&self, addr: SocketAddr, node: NodeId) -> Channel {
        self.channel(addr, Whom::Node(node))
    }

    /// Returns a new channel to a manager that begins with the certificate of now; it is not kept.
    pub(crate) fn new_to_manager(&self, addr: SocketAddr) -> Channel {
        self.dial(addr, Whom::Manager)
    }

    /// Forgets all channels: what they began with counts no more.
    pub(crate) fn renew(&self) {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn channel(&self, addr: SocketAddr, whom: Whom) -> Channel {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.entry((addr, whom)).or_insert_with(|| self.dial(addr, whom)).clone()
    }

    fn dial(&self, addr: SocketAddr, whom: Whom) -> Channel {
        let (expected, as_manager) = match whom {
            Whom::Manager => (Expected::Role(Role::Manager), true),
            Whom::Node(node) => (Expected::Node(node), false),
        };
        let gate = Arc::clone(&self.gate);
        let admit: pki::tls::Admit = Arc::new(move |identity| gate.may_be_called(identity.node, as_manager));
        let connector = pki::tls::connector(&self.credentials, expected);
        let _there = self.runtime.enter();
        endpoint(addr).connect_with_connector_lazy(connector.known_to(&self.gate.guests, admit))
    }
}

/// Returns an endpoint with the timeouts every node-to-node connection has. The scheme is `http` because our own
/// connector adds the TLS.
pub(crate) fn endpoint(addr: SocketAddr) -> Endpoint {
    Endpoint::from_shared(format!("http://{addr}"))
        .expect("an address is a valid authority")
        .connect_timeout(Duration::from_secs(3))
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(3))
        .keep_alive_while_idle(true)
        .tcp_nodelay(true)
}
