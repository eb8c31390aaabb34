//! Places on overlay networks for containers that a person started here.
//!
//! ```text
//!  engine: start ── Overlays::attach ── Work.Attach ──> manager: a task that attaches, with addresses
//!            ^                                                 |
//!            `──── the assignment <──── Executor::start <──────' the session of this node's agent
//!  engine: the run is over ──> Executor::wait ends ──> the task is COMPLETE, its addresses are free
//! ```

use crate::{swarm::NodeSwarm, waiting::Waiting};
use docker_api::server::{ApiError, Swarm as _, SwarmStatus};
use engine::{AttachmentRequest, OverlayAttachment, OverlayNetwork, SwarmAttachments};
use model::{NetworkAttachmentSpec, NetworkId, Task, TaskId};
use proto::{
    WireId as _,
    dispatcher::{self, AttachRequest, FindNetworkRequest, work_client::WorkClient},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};
use tonic::{Code, transport::Channel};

/// How long a start waits for its addresses, with all that lies between.
const ATTACH_LIMIT: Duration = Duration::from_secs(30);
/// HTTP status of a manager that does not answer.
const UNAVAILABLE: u16 = 503;
/// Between two looks at what is not there yet.
const PAUSE: Duration = Duration::from_millis(100);

/// The swarm as the engine sees it.
pub(crate) struct SwarmOverlays {
    pub(crate) swarm: NodeSwarm,
    pub(crate) waiting: Arc<Waiting>,
}

#[async_trait::async_trait]
impl engine::Overlays for SwarmOverlays {
    async fn find(&self, wanted: &str) -> engine::Result<Option<OverlayNetwork>> {
        if matches!(self.swarm.status(), SwarmStatus::Inactive) {
            return Ok(None);
        }
        let failed = |e: ApiError| failed(format!("find network {wanted}"), e);
        let request = FindNetworkRequest { id_or_name: wanted.to_owned() };
        let found = self.swarm.work(|mut manager| {
            let request = request.clone();
            async move { manager.find_network(request).await }
        });
        match found.await {
            Ok(reply) => {
                let id = NetworkId::from_wire(&reply.id).map_err(|e| failed(e.into()))?;
                Ok(Some(OverlayNetwork { id, name: reply.name }))
            }
            Err(status) if status.code() == Code::NotFound => Ok(None),
            // As the managers would say at the start.
            Err(status) if status.code() == Code::PermissionDenied => Err(engine::Error::Forbidden(format!(
                "Could not attach to network {wanted}: rpc error: code = PermissionDenied desc = {}",
                status.message()
            ))),
            Err(status) => Err(failed(status.into())),
        }
    }

    async fn attach(&self, request: AttachmentRequest) -> engine::Result<SwarmAttachments> {
        let deadline = Instant::now() + ATTACH_LIMIT;
        let names: Vec<&str> = request.networks.iter().map(|(network, _)| network.name.as_str()).collect();
        let operation = || format!("attach to network {}", names.join(", "));
        let id = TaskId(random().map_err(|e| failed(operation(), ApiError::internal(e.to_string())))?);
        let (given, task) = oneshot::channel();
        self.waiting.all().insert(id, given);
        let outcome = timeout_at(deadline, async {
            self.ask(&request, id).await?;
            task.await.map_err(|_| ApiError::unavailable("this node is leaving the swarm"))
        })
        .await;
        self.waiting.all().remove(&id);
        match outcome {
            Ok(Ok(task)) => Ok(places(&task, &request)),
            Ok(Err(error)) => Err(failed(operation(), error)),
            Err(_) => Err(failed(operation(), ApiError::unavailable(self.reason(id).await))),
        }
    }
}

fn failed(operation: String, error: ApiError) -> engine::Error {
    engine::Error::Network { operation, source: error.into() }
}

impl SwarmOverlays {
    /// Asks the managers for a task; waits for a membership that is only being taken up.
    async fn ask(&self, request: &AttachmentRequest, id: TaskId) -> Result<(), ApiError> {
        let networks = request
            .networks
            .iter()
            .map(|(network, aliases)| (&NetworkAttachmentSpec::new(network.id, aliases.clone())).into());
        let message = AttachRequest {
            task: id.to_wire(),
            container: request.container.clone(),
            name: request.name.clone(),
            networks: networks.collect(),
        };
        loop {
            let asked = async {
                let ask = |mut manager: WorkClient<Channel>| {
                    let message = message.clone();
                    async move { manager.attach(message).await }
                };
                self.swarm.work(ask).await.map_err(ApiError::from)
            };
            match asked.await {
                Ok(_) => return Ok(()),
                Err(error) if !self.swarm.is_member() || error.status.as_u16() != UNAVAILABLE => {
                    return Err(error);
                }
                Err(error) => {
                    tracing::debug!(%error, "no place on an overlay network yet");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Returns why a task was not given in time.
    async fn reason(&self, id: TaskId) -> String {
        let late = || "the swarm gave no address in time".to_owned();
        let asked = self.swarm.work(|mut manager| {
            let request = dispatcher::AttachmentRequest { task: id.to_wire() };
            async move { manager.attachment(request).await }
        });
        match asked.await {
            Ok(reply) if !reply.reason.is_empty() => reply.reason,
            Ok(_) | Err(_) => late(),
        }
    }
}

fn places(task: &Task, request: &AttachmentRequest) -> SwarmAttachments {
    let name = |id| request.networks.iter().find(|(network, _)| network.id == id);
    let overlays = task.attachments.iter().map(|attachment| OverlayAttachment {
        network: attachment.network,
        network_name: name(attachment.network).map(|(n, _)| n.name.clone()).unwrap_or_default(),
        task: task.id,
        address: attachment.address,
        aliases: attachment.aliases.clone(),
    });
    SwarmAttachments { overlays: overlays.collect(), gateway: task.gateway_address }
}

fn random() -> Result<u128, getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(u128::from_le_bytes(bytes))
}
