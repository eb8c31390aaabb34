//! What the container of a task printed last: often the one thing that says why it ended.

use anyhow::{Context as _, Result};
use docker_api::client::Client;
use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use std::time::Duration;

/// How long a node may take to show a log.
const PATIENCE: Duration = Duration::from_secs(5);

/// Returns the last lines of the log of a task, in its own order; of one with a terminal nothing is known.
///
/// # Errors
/// The node that has it does not show it in time.
pub(crate) async fn of(client: &Client, task: &str, lines: u32) -> Result<String> {
    tokio::time::timeout(PATIENCE, log(client, task, lines)).await.context("the log does not come in time")?
}

async fn log(client: &Client, task: &str, lines: u32) -> Result<String> {
    let query = [("stdout", "1"), ("stderr", "1"), ("tail", &*lines.to_string())];
    let answer = client.logs("tasks", task, &query).await?;
    let mut bytes = Vec::new();
    let mut chunks = answer.into_body().into_data_stream();
    while let Some(chunk) = chunks.next().await {
        bytes.extend_from_slice(&chunk.map_err(std::io::Error::other)?);
    }
    Ok(unframed(&bytes))
}

/// Takes Docker's frames off: one byte of stream, three of nothing, four of length.
fn unframed(mut bytes: &[u8]) -> String {
    let mut text = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<8>() {
        let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let (content, rest) = rest.split_at(length.min(rest.len()));
        text.extend_from_slice(content);
        bytes = rest;
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn frames_are_taken_off() {
        let framed = b"\x01\0\0\0\0\0\0\x03ab\n\x02\0\0\0\0\0\0\x02c\n";
        assert_eq!(super::unframed(framed), "ab\nc\n");
    }
}
