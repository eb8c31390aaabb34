//! A store that the program of an earlier commit has written is opened by this one: its log, its snapshot and its vote.
//! `earlier/COMMIT` is its folder, without the room at the end of files that was not used yet.

use model::{NodeId, SecretId};
use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};
use store::{ConnectError, Dek, Options, Store};
use testkit::earlier::copy;
use tokio::time::timeout;
use tonic::transport::Channel;

/// With how many secrets each was written, in as many entries; a snapshot was made of the first ones.
const EARLIER: [(&str, u128); 1] = [("85afa86", 25)];
const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_store_that_an_earlier_version_wrote_has_all_that_was_in_it_and_goes_on() {
    for (commit, secrets) in EARLIER {
        let dir = tempfile::tempdir().unwrap();
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/earlier").join(commit), dir.path());
        let connect = |_: Option<NodeId>, _: SocketAddr| async {
            Err::<Channel, ConnectError>("nobody is there".into())
        };
        let addr = "127.0.0.1:2377".parse().unwrap();
        // Twice: what this version adds to it, it reads as well.
        for time in 1..=2 {
            let options = Options::new(1, NodeId(1), addr, Dek::new(&[9; 32]), Arc::new(connect));
            let store = Store::open(dir.path(), options).await.unwrap();
            let mut leader = store.handle().leader();
            timeout(DEADLINE, leader.wait_for(|leader| leader.me)).await.unwrap().unwrap();
            timeout(DEADLINE, store.handle().read_index()).await.unwrap().unwrap();
            let view = store.handle().view();
            let missing: Vec<u128> =
                (1..=secrets).filter(|id| !view.secrets.contains(&SecretId(*id))).collect();
            assert!(missing.is_empty(), "{commit}, opened {time} times: {missing:?} are missing");
            assert_eq!(view.objects().count() as u128, secrets, "{commit}");
            store.shutdown().await;
        }
    }
}
