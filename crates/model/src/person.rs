//! People who use a swarm. Nodes are not people: a node's certificate never gives a person's rights.

use crate::NodeId;

/// Who asks for something, as the managers have made sure of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Of the user; of an operator the name of the account on the manager's host.
    pub name: String,
    pub role: PersonRole,
    /// Where the request came from, for people to read: an address, or `unix uid 0 on HOST`.
    pub from: String,
    /// The node whose front door took the request.
    pub via: NodeId,
}

/// What a person may do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PersonRole {
    /// Everything.
    Admin,
    /// Services, networks, secrets and configs; nothing of nodes, tokens, keys or users.
    Deploy {
        /// Patterns of the stacks it may change; empty: every stack, and what belongs to none.
        stacks: Vec<String>,
    },
    /// Looks, except at secrets, tokens and keys.
    #[default]
    Read,
}
