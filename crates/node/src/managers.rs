//! Questions to whichever manager can tell.

use crate::connect::Connections;
use proto::dispatcher::work_client::WorkClient;
use std::{net::SocketAddr, time::Duration};
use tokio::time::timeout;
use tonic::{Status, transport::Channel};

/// How long a request waits for a manager that answers.
pub(crate) const MANAGER_LIMIT: Duration = Duration::from_secs(10);

/// Asks managers, one after the other, until one can tell.
///
/// # Errors
/// The last refusal; UNAVAILABLE if no manager is known.
pub(crate) async fn ask_a_manager<T, Fut>(
    managers: impl IntoIterator<Item = SocketAddr>,
    connections: &Connections,
    ask: impl Fn(WorkClient<Channel>) -> Fut,
) -> Result<T, Status>
where
    Fut: Future<Output = Result<tonic::Response<T>, Status>>,
{
    let mut last = Status::unavailable("no manager is known");
    for addr in managers {
        let asked = ask(WorkClient::new(connections.manager(addr, None)));
        last = match timeout(MANAGER_LIMIT, asked).await {
            Ok(Ok(answer)) => return Ok(answer.into_inner()),
            Ok(Err(status)) if is_passing(&status) => status,
            Ok(Err(status)) => return Err(status),
            Err(_) => Status::deadline_exceeded(format!("manager {addr} does not answer")),
        };
    }
    Err(last)
}

/// Returns true for a refusal that another manager, or the same one later, may not repeat.
pub(crate) fn is_passing(status: &tonic::Status) -> bool {
    use tonic::Code;
    matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::Aborted | Code::Cancelled | Code::Unknown
    )
}
