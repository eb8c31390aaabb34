//! The end of a change of the root certificate. Runs on the leader only.
//!
//! ```text
//!  update_swarm -> Cluster.rotation: new root, cross-signed by the old one
//!     -> sessions tell every node both roots -> each renews at once, signed by the new root -> says so
//!     -> all have: the new root is the root, with new join tokens; the old one is trusted no more
//! ```
//! A node that is down holds the end up until it is back or removed, as in Docker.

use crate::{ca, shared::Shared};
use model::{Change, Cluster, Duration, Object, Tables};
use pki::Authority;
use std::sync::Arc;
use tonic::Status;
use tracing::{info, warn};

const RETRY: Duration = Duration::from_secs(1);

pub(crate) async fn run(shared: Arc<Shared>) {
    let mut applied = shared.store.watch();
    loop {
        applied.borrow_and_update();
        match finish(&shared).await {
            Ok(()) => {}
            Err(error) => {
                warn!(%error, "cannot finish the change of the root certificate, will retry");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        }
        if applied.changed().await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn finish(shared: &Shared) -> Result<(), Status> {
    let Some(cluster) = finished(&shared.store.view())? else { return Ok(()) };
    match shared.change(vec![Change::Put(Object::Cluster(Arc::new(cluster)))]).await {
        Ok(_) => {
            info!("every node has a certificate of the new root; the old one is trusted no more");
            Ok(())
        }
        Err(status) if status.code() == tonic::Code::Aborted => Ok(()), // changed meanwhile: looked at again
        Err(status) => Err(status),
    }
}

/// Returns the swarm with its new root, once every node has a certificate of it.
fn finished(view: &Tables) -> Result<Option<Cluster>, Status> {
    let Some((cluster, rotation)) = view.cluster.as_ref().and_then(|c| Some((c, c.rotation.as_ref()?)))
    else {
        return Ok(None);
    };
    let new = Authority::last_of(&rotation.cert).map_err(|e| Status::internal(e.to_string()))?;
    let has = |node: &model::Node| {
        node.description.as_ref().is_some_and(|d| d.tls.issuer_public_key == new.public_key)
    };
    if !view.nodes.values().all(|node| has(node)) {
        return Ok(None);
    }
    let mut done = Cluster::clone(cluster);
    done.root_ca_cert.clone_from(&rotation.cert);
    done.root_ca_key.clone_from(&rotation.key);
    done.worker_token = ca::new_token(&rotation.cert)?;
    done.manager_token = ca::new_token(&rotation.cert)?;
    done.rotation = None;
    Ok(Some(done))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::state::state;
    use model::{NodeTls, SecretBytes};
    use pki::RootCa;

    #[test]
    fn the_new_root_counts_alone_when_every_node_has_a_certificate_of_it() {
        let (old, new) =
            (RootCa::generate(model::ClusterId(1)).unwrap(), RootCa::generate(model::ClusterId(1)).unwrap());
        let tables = state().cluster().node(1).node(2).tables();
        let mut cluster = Cluster::clone(tables.cluster.as_ref().unwrap());
        cluster.meta = model::Meta::default(); // stored anew below
        cluster.root_ca_cert = old.cert_pem().to_owned();
        cluster.root_ca_key = SecretBytes(old.key_pem().into_bytes());
        assert!(
            ca::new_rotation(&cluster, old.cert_pem(), old.key_pem().as_bytes()).is_err(),
            "it has that one"
        );
        assert!(
            ca::new_rotation(&cluster, new.cert_pem(), old.key_pem().as_bytes()).is_err(),
            "another's key"
        );
        cluster.rotation =
            Some(ca::new_rotation(&cluster, new.cert_pem(), new.key_pem().as_bytes()).unwrap());
        assert_eq!(cluster.trusted_roots(), format!("{}{}", old.cert_pem(), new.cert_pem()));
        let issuer_public_key = Authority::last_of(new.cert_pem()).unwrap().public_key;
        let with = |renewed: &[u128]| {
            let mut state = state().node(1).node(2).put(Object::Cluster(Arc::new(cluster.clone())));
            for id in renewed {
                let tls = NodeTls { issuer_public_key: issuer_public_key.clone(), ..NodeTls::default() };
                state = state.change_node(*id, |n| n.description.as_mut().unwrap().tls = tls);
            }
            finished(&state.tables()).unwrap()
        };
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[1]), None);
        let done = with(&[1, 2]).unwrap();
        assert_eq!((done.rotation.is_none(), done.trusted_roots()), (true, new.cert_pem().to_owned()));
        let token: pki::JoinToken = String::from_utf8(done.worker_token.0).unwrap().parse().unwrap();
        assert_eq!(token.digest, new.digest());
    }
}
