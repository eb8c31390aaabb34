//! A store after its other members are gone, and a backup on its way through a file.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use model::{
    Batch, Change, Cluster, ClusterId, FEATURE_LEVEL, Labels, Meta, NodeId, Object, Secret, SecretBytes,
    SecretId, SecretSpec, Tables, Timestamp,
};
use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};
use store::{
    ConnectError, Dek, OpenError, Options, Seed, Store,
    backup::{BackupError, pack, unpack},
    salvage, seed,
};
use tonic::transport::{Channel, Endpoint};

const LIMIT: Duration = Duration::from_secs(60);

fn secret(number: u128, bytes: usize) -> Object {
    // Noise, so that it takes as much room packed.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let data = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    });
    Object::Secret(Arc::new(Secret {
        id: SecretId(number),
        meta: Meta::default(),
        spec: SecretSpec {
            templated: false,
            name: format!("s{number}"),
            labels: Labels::new(),
            data: SecretBytes(data.take(bytes).collect()),
        },
    }))
}

fn cluster(feature_level: u32) -> Object {
    Object::Cluster(Arc::new(Cluster { feature_level, ..Cluster::new(ClusterId(1)) }))
}

fn batch(objects: Vec<Object>) -> Batch {
    Batch { at: Timestamp(1), changes: objects.into_iter().map(Change::Put).collect() }
}

async fn nobody(_: Option<NodeId>, addr: SocketAddr) -> Result<Channel, ConnectError> {
    Ok(Endpoint::from_shared(format!("http://{addr}"))?.connect().await?)
}

fn addr() -> SocketAddr {
    "127.0.0.1:9".parse().unwrap()
}

fn dek() -> Dek {
    Dek::new(&[7; 32])
}

async fn open(dir: &Path, raft_id: u64) -> Result<Store, OpenError> {
    Store::open(dir, Options::new(raft_id, NodeId(1), addr(), dek(), Arc::new(nobody))).await
}

async fn leads(store: &Store) {
    let mut leader = store.handle().leader();
    tokio::time::timeout(LIMIT, leader.wait_for(|l| l.me)).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_lost_the_others_goes_on_alone_under_another_number_with_all_it_had() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    let store = open(&old, 7).await.unwrap();
    store.bootstrap().await.unwrap();
    leads(&store).await;
    store.handle().propose(batch(vec![cluster(FEATURE_LEVEL), secret(1, 9)])).await.unwrap();
    // Another member, of which nothing is heard ever after.
    let handle = store.handle();
    let other = handle.add_member(8, NodeId(2), addr());
    tokio::time::timeout(Duration::from_millis(300), other).await.unwrap_err();
    assert_eq!(handle.members().len(), 2);
    let before = handle.view();
    let busy = salvage(&old, &dek(), 7).await.unwrap_err();
    assert!(matches!(busy, OpenError::InUse { .. }), "{busy}");
    store.shutdown().await;

    let salvaged = salvage(&old, &dek(), 7).await.unwrap();
    assert_eq!(salvaged.tables, *before);
    let wrong = salvage(&old, &Dek::new(&[8; 32]), 7).await;
    assert!(wrong.is_err(), "another key opens it");
    let made = Seed { raft_id: 9, node: NodeId(1), addr: addr(), dek: dek(), term: salvaged.term };
    seed(&new, &made, salvaged.tables).await.unwrap();

    for round in 0..2 {
        let store = open(&new, 9).await.unwrap();
        leads(&store).await;
        let handle = store.handle();
        assert_eq!(handle.members().len(), 1, "round {round}");
        let (index, _) = handle.propose(batch(vec![secret(10 + round, 9)])).await.unwrap();
        assert!(index > before.index, "versions do not go back");
        assert_eq!(handle.view().secrets.len(), 2 + usize::try_from(round).unwrap());
        store.shutdown().await;
    }
    assert!(matches!(open(&new, 7).await, Err(OpenError::Log(_))), "not under its old number");
    assert_eq!(salvage(&old, &dek(), 7).await.unwrap().tables, *before, "the old one is as it was");
}

#[test]
fn a_backup_holds_the_state_and_nothing_less_passes_for_it() {
    let mut tables = Tables::default();
    let objects = std::iter::once(cluster(FEATURE_LEVEL)).chain((1..9).map(|n| secret(n, 100_000)));
    tables.apply(5, &batch(objects.collect())).unwrap();
    tables.index = 5;
    let bytes = pack(&tables, Timestamp(3)).unwrap().unwrap().concat();
    let back = unpack(&bytes).unwrap();
    assert_eq!((&back.tables, back.tables.index, back.made_at), (&tables, 5, Timestamp(3)));

    assert_eq!(unpack(b"").unwrap_err(), BackupError::Foreign);
    assert_eq!(unpack(b"PK\x03\x04 something else").unwrap_err(), BackupError::Foreign);
    for cut in (9..bytes.len()).step_by(997) {
        let torn = unpack(&bytes[..cut]);
        assert!(matches!(torn, Err(BackupError::Damaged(_))), "cut at {cut}: {torn:?}");
        let mut changed = bytes.clone();
        changed[cut] ^= 4;
        assert!(matches!(unpack(&changed), Err(BackupError::Damaged(_))), "changed at {cut}");
    }
    let mut newer = Tables::default();
    newer.apply(1, &batch(vec![cluster(FEATURE_LEVEL + 1)])).unwrap();
    let newer = unpack(&pack(&newer, Timestamp(3)).unwrap().unwrap().concat()).unwrap_err();
    assert!(newer.to_string().contains("hint: install the version that made it"), "{newer}");
    assert!(pack(&Tables::default(), Timestamp(3)).unwrap().is_none(), "there is no swarm");
}
