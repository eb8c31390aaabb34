//! What it costs to ask who calls: a status report or an assignment must not notice.
//!
//! `gate`: one decision, beside nothing; and acknowledged writes of three stores that let in members only, as a share of
//! those of three stores that let in whoever comes. Every status report is such a write, and every assignment follows one.

use super::{Row, raft};
use anyhow::{Result, ensure};
use manager::{Method, standing::Known};
use model::{
    Batch, Change, Cluster, ClusterId, Meta, Node, NodeId, NodeSpec, NodeState, NodeStatus, Object, Role,
    Tables, Timestamp,
};
use pki::{Identity, tls::Peer};
use std::{path::Path, sync::Arc, time::Instant};
use store::Admission;
use tonic::Request;

const NODES: u16 = 1_000;
const REMOVED: u128 = 1_000;
const CALLS: u32 = 200_000;
/// Turns of each kind of store, one after the other, so that a slow moment of the machine meets both.
const ROUNDS: usize = 3;
/// Share of the writes without a gate that must be left with one.
const TARGET: f64 = 0.97;

pub(super) fn bench(_program: &Path) -> Result<Vec<Row>> {
    let mut rows = vec![one_decision()?];
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (mut with, mut without) = (0.0, 0.0);
    for _ in 0..ROUNDS {
        without += runtime.block_on(raft::writes_a_second(64, Admission::Anyone))?;
        let known = Admission::Members(Arc::new(|_, _| Box::pin(async { true })));
        with += runtime.block_on(raft::writes_a_second(64, known))?;
    }
    let note = format!("three stores, 64 writers, {ROUNDS} turns each; target {TARGET}");
    rows.push(Row::new("gate: acknowledged writes with it / without it", with / without, "").note(note));
    Ok(rows)
}

/// Measures one decision in a swarm of a thousand nodes, from which a thousand were removed.
fn one_decision() -> Result<Row> {
    let tables = swarm()?;
    let cluster = ClusterId(1);
    let mut request = Request::new(());
    let identity = Some(Identity { node: NodeId(500), role: Role::Worker, cluster });
    request.extensions_mut().insert(Peer { identity, expired: None, addr: "192.0.2.1:2377".parse()? });
    let start = Instant::now();
    for _ in 0..CALLS {
        manager::admit(Method::ReadBlob, std::hint::black_box(&request), &Known::State(&tables))?;
    }
    let nanos = start.elapsed().as_nanos() as f64 / f64::from(CALLS);
    Ok(Row::new("gate: one decision", nanos, "ns")
        .note("1,000 nodes, 1,000 removed; once a call, not once a message"))
}

fn swarm() -> Result<Tables> {
    let mut cluster = Cluster::new(ClusterId(1));
    for gone in 0..REMOVED {
        cluster.revoke(NodeId(1_000_000 + gone), 0, Timestamp(1));
    }
    let node = |index: u16| Node {
        id: NodeId(u128::from(index)),
        meta: Meta::default(),
        spec: NodeSpec::default(),
        index,
        certified_role: Role::Worker,
        description: None,
        status: NodeStatus { state: NodeState::Ready, ..NodeStatus::default() },
        manager: None,
    };
    let nodes = (1..=NODES).map(|index| Change::Put(Object::Node(Arc::new(node(index)))));
    let cluster = Change::Put(Object::Cluster(Arc::new(cluster)));
    let mut tables = Tables::default();
    let batch = Batch { at: Timestamp(1), changes: std::iter::once(cluster).chain(nodes).collect() };
    let applied = tables.apply(1, &batch);
    ensure!(applied.is_ok(), "the state of the benchmark contradicts itself: {applied:?}");
    Ok(tables)
}
