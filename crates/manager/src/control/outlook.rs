//! What would become of a stack, and how nodes stand to a service: the planner asked about a state that is not stored.

use model::{Change, ServiceId, Tables};
use plan::Clock;
use proto::{
    WireId as _,
    control::{
        ApplyStackRequest, ExplainServiceReply, ForeseeStackReply, Outlook, explain_service_reply::Verdict,
        outlook,
    },
};
use std::sync::Arc;
use tonic::Status;

/// Returns where the tasks of a stack's services would be after these changes.
///
/// # Errors
/// FAILED_PRECONDITION: the changes do not fit the state.
pub(super) async fn of_stack(
    clock: Clock,
    view: Arc<Tables>,
    changes: Vec<Change>,
    request: ApplyStackRequest,
) -> Result<ForeseeStackReply, Status> {
    beside(move || {
        let after = view.assume(&changes).map_err(|e| Status::failed_precondition(e.to_string()))?;
        let names = request.services.iter().filter_map(|s| s.spec.as_ref()).map(|spec| spec.name.as_str());
        let services: Vec<ServiceId> =
            names.filter_map(|name| after.service_named(name)).map(|service| service.id).collect();
        let mut ids = || crate::random::random_id().expect("the system has randomness");
        let foreseen = plan::foresee(&after, clock, &services, &mut ids);
        let services = foreseen.into_iter().map(|seen| Outlook {
            service: after.services.get(&seen.service).map(|s| s.spec.name.clone()).unwrap_or_default(),
            placed: seen
                .placed
                .into_iter()
                .map(|(node, tasks)| outlook::Placed { node: node.to_wire(), tasks })
                .collect(),
            waiting: seen
                .waiting
                .into_iter()
                .map(|(reason, tasks)| outlook::Waiting { reason, tasks })
                .collect(),
            is_whole: seen.is_whole,
        });
        Ok(ForeseeStackReply { services: services.collect() })
    })
    .await
}

/// Returns how each node stands to one more task of a service.
///
/// # Errors
/// None of its own.
pub(super) async fn of_nodes(
    clock: Clock,
    view: Arc<Tables>,
    service: ServiceId,
) -> Result<ExplainServiceReply, Status> {
    beside(move || {
        let verdicts = plan::verdicts(&view, clock, service).into_iter();
        let nodes = verdicts.map(|v| Verdict { node: v.node.to_wire(), obstacles: v.obstacles });
        Ok(ExplainServiceReply { nodes: nodes.collect() })
    })
    .await
}

/// Planning takes its time; the runtime's threads have other things to do.
async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Status::internal(e.to_string()))?
}
