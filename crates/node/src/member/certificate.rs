//! Getting a certificate: of a node that joins, with a token, and of one that renews its own.

use crate::connect::endpoint;
use model::{NodeId, Role, with_causes};
use pki::{NodeKey, UnlockKey};
use proto::ca::{IssueCertificateReply, IssueCertificateRequest, ca_client::CaClient};
use std::{net::SocketAddr, time::Duration};
use tokio::time::timeout;
use tonic::transport::Channel;

/// How long a certificate request or a join may take.
pub(super) const CA_LIMIT: Duration = Duration::from_secs(20);

/// What a joiner or renewer gets.
#[derive(Debug)]
pub(crate) struct Issued {
    pub(crate) key_pem: String,
    pub(crate) chain_pem: String,
    pub(crate) root_pem: String,
    pub(crate) node: NodeId,
    pub(crate) role: Role,
    /// Of a manager, while autolock is on.
    pub(crate) lock: Option<UnlockKey>,
    /// Version of the swarm object that says so.
    pub(crate) lock_version: u64,
}

/// Has a fresh key certified over `channel`.
///
/// # Errors
/// The manager's refusal, or it does not answer.
pub(crate) async fn issue(
    channel: Channel,
    token: &str,
    availability: model::Availability,
) -> Result<Issued, tonic::Status> {
    let (key, csr_pem) = new_key()?;
    let request = IssueCertificateRequest {
        csr_pem,
        token: token.to_owned(),
        availability: proto::types::Availability::from(availability).into(),
    };
    let answer = timeout(CA_LIMIT, CaClient::new(channel).issue_certificate(request))
        .await
        .map_err(|_| tonic::Status::deadline_exceeded("the manager did not answer in time"))?;
    issued(&key, answer?.into_inner())
}

/// Returns a key and the request to certify it.
pub(super) fn new_key() -> Result<(NodeKey, String), tonic::Status> {
    let broken = |e: pki::CaError| tonic::Status::internal(with_causes(&e));
    let key = NodeKey::generate().map_err(broken)?;
    let csr_pem = key.csr_pem().map_err(broken)?;
    Ok((key, csr_pem))
}

/// Reads a manager's answer to the request of this key.
pub(super) fn issued(key: &NodeKey, reply: IssueCertificateReply) -> Result<Issued, tonic::Status> {
    let id: [u8; 16] = reply
        .node_id
        .as_slice()
        .try_into()
        .map_err(|_| tonic::Status::internal("the manager sent a malformed node id"))?;
    let role = match reply.role() {
        proto::types::Role::Manager => Role::Manager,
        proto::types::Role::Worker | proto::types::Role::Unspecified => Role::Worker,
    };
    let lock = match reply.unlock_key.as_deref().map(std::str::from_utf8) {
        None => None,
        Some(text) => Some(
            text.ok()
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| tonic::Status::internal("the manager sent a malformed unlock key"))?,
        ),
    };
    Ok(Issued {
        key_pem: key.pem(),
        chain_pem: reply.certificate_pem,
        root_pem: reply.root_pem,
        node: NodeId(u128::from_be_bytes(id)),
        role,
        lock,
        lock_version: reply.swarm_version,
    })
}

/// Connects to a manager known only by address and token, which pins its root certificate.
///
/// # Errors
/// Nobody answers there, or not whom the token promises.
pub(crate) async fn bootstrap_channel(
    addr: SocketAddr,
    token: &pki::JoinToken,
) -> Result<Channel, tonic::transport::Error> {
    endpoint(addr).connect_with_connector(pki::tls::bootstrap_connector(token.digest)).await
}
