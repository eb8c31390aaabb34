//! What would become of a stack, and how nodes stand to a service: the planner asked about a state that is not stored.

use crate::{turns::Turns, under_way::Account};
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
/// FAILED_PRECONDITION: the changes do not fit the state. Those of [`Turns::take`].
pub(super) async fn of_stack(
    turns: &Turns,
    account: Account,
    clock: Clock,
    view: Arc<Tables>,
    changes: Vec<Change>,
    request: ApplyStackRequest,
) -> Result<ForeseeStackReply, Status> {
    let work = move || {
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
    };
    turns.take(account, work).await
}

/// Returns how each node stands to one more task of a service.
///
/// # Errors
/// Those of [`Turns::take`].
pub(super) async fn of_nodes(
    turns: &Turns,
    account: Account,
    clock: Clock,
    view: Arc<Tables>,
    service: ServiceId,
) -> Result<ExplainServiceReply, Status> {
    let work = move || {
        let verdicts = plan::verdicts(&view, clock, service).into_iter();
        let nodes = verdicts.map(|v| Verdict { node: v.node.to_wire(), obstacles: v.obstacles });
        Ok(ExplainServiceReply { nodes: nodes.collect() })
    };
    turns.take(account, work).await
}
