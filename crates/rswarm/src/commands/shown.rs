//! What lists and messages show of the swarm's objects, whichever command prints them.

use anyhow::Result;
use docker_api::client::Client;
use std::collections::BTreeMap;

/// Returns display names of all nodes, by id.
pub(crate) async fn node_names(client: &Client) -> Result<BTreeMap<String, String>> {
    let nodes = client.nodes(&[]).await?;
    Ok(nodes.into_iter().map(|n| (n.id, n.description.hostname)).collect())
}

/// Returns a word of the API as a list begins a cell with it.
pub(crate) fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
