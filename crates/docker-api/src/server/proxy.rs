//! Requests about a container of another host: the same request, through a tunnel to that host's front door.

use model::NodeId;
use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

/// How many exec instances are remembered.
const REMEMBERED: usize = 4096;

/// On which node the exec instances are that were made through this door.
#[derive(Debug, Default)]
pub(super) struct RemoteExecs(Mutex<VecDeque<(String, NodeId)>>);

impl RemoteExecs {
    pub(super) fn remember(&self, exec: String, node: NodeId) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() == REMEMBERED {
            known.pop_front();
        }
        known.push_back((exec, node));
    }

    pub(super) fn node(&self, exec: &str) -> Option<NodeId> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().rev().find(|(id, _)| id == exec).map(|(_, node)| *node)
    }
}
