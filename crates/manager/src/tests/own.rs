//! What a manager answers its own process, without a connection.

use super::swarm::{Running, Swarm, operator};
use model::NodeId;
use pki::{Identity, tls::Peer};
use proto::{
    PersonalClaim,
    control::{ListRequest, control_client::ControlClient},
    types::ObjectKind,
};
use tonic::{Code, Request, Status, service::Interceptor as _};

/// Asks for the nodes as somebody whose connection would say this of him.
async fn ask(manager: &Running, identity: Option<Identity>) -> Result<(), Status> {
    let peer = identity.map(|identity| Peer { identity: Some(identity), expired: None, addr: manager.addr });
    let mut claim = PersonalClaim::new(&operator());
    let mut control =
        ControlClient::with_interceptor(manager.manager.control(), move |request: Request<()>| {
            let mut request = claim.call(request)?;
            if let Some(peer) = peer {
                request.extensions_mut().insert(peer);
            }
            Ok(request)
        });
    let mut chunks =
        control.list(ListRequest { kind: ObjectKind::Node as i32, brief: false }).await?.into_inner();
    while let Some(chunk) = chunks.message().await? {
        assert!(!chunk.objects.is_empty());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_its_own_process_is_judged_like_one_over_a_connection() {
    let mut swarm = Swarm::new().await;
    let manager = &swarm.managers[0];
    let own = manager.credentials.identity();
    ask(manager, Some(own)).await.unwrap();
    let code = |outcome: Result<(), Status>| outcome.unwrap_err().code();
    assert_eq!(code(ask(manager, None).await), Code::Unauthenticated, "it came from nowhere");
    let stranger = Identity { node: NodeId(77), ..own };
    assert_eq!(code(ask(manager, Some(stranger)).await), Code::PermissionDenied, "no node of the swarm");
    swarm.managers[0].kill().await;
    let manager = &swarm.managers[0];
    assert_eq!(
        code(ask(manager, Some(own)).await),
        Code::Unavailable,
        "no connection was closed that it came over"
    );
}
