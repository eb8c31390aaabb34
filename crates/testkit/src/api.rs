//! Requests to a daemon's front door that wait only so long, and what a manager's tables hold by its answers.

use crate::Lab;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// Asks the daemon that listens at `socket`, over a connection of its own, and returns status and body of its answer.
///
/// # Errors
/// There is none within `patience`: whether what was asked was done nobody knows.
pub fn request(
    socket: &Path,
    method: &str,
    path: &str,
    body: &str,
    patience: Duration,
) -> Result<(u16, String)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let length = body.len();
    write!(
        stream,
        "{method} /v1.51{path} HTTP/1.0\r\nHost: x\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split(' ').nth(1).context("no status")?.parse().context("no status")?;
    Ok((status, body.to_owned()))
}

impl Lab {
    /// Returns what a manager that leads has in its tables, as far as the API shows it: who leads answers from its own.
    ///
    /// # Errors
    /// A list cannot be had.
    pub fn dump(&self, n: u8) -> Result<Value> {
        Ok(json!({
            "configs": self.picked(n, "configs", &["ID", "Version", "CreatedAt", "UpdatedAt", "Spec"])?,
            "secrets": self.picked(n, "secrets", &["ID", "Version", "CreatedAt", "UpdatedAt", "Spec"])?,
            "services": self.picked(n, "services", &["ID", "CreatedAt", "Spec", "Endpoint"])?,
            "networks": self.picked(n, "networks", &["Id", "Name", "Scope", "IPAM", "Options", "Created"])?,
            "nodes": self.picked(n, "nodes", &["ID", "CreatedAt", "Spec"])?,
            "tasks": self.picked(
                n,
                "tasks",
                &["ID", "ServiceID", "Slot", "NodeID", "Spec", "DesiredState", "CreatedAt"],
            )?,
        }))
    }

    /// Returns these keys of all objects of the swarm of a kind, in order.
    fn picked(&self, n: u8, what: &str, keys: &[&str]) -> Result<Vec<Value>> {
        let text = self.api(n, &format!("/v1.51/{what}"))?;
        let objects: Vec<Value> =
            serde_json::from_str(&text).with_context(|| format!("no list of {what}"))?;
        let pick = |object: &Value| keys.iter().map(|key| object[*key].clone()).collect::<Value>();
        // A host's own networks stand beside the swarm's.
        let ours = objects.iter().filter(|object| object["Scope"] != "local");
        let mut all: Vec<Value> = ours.map(pick).collect();
        all.sort_by_key(Value::to_string);
        Ok(all)
    }
}

/// Compares what managers have in their tables, each with the number of its host.
///
/// # Errors
/// They have not the same, with the first table in which they differ, and how.
pub fn dumps_are_alike(dumps: &[(u8, Value)]) -> Result<()> {
    let Some(((first, reference), others)) = dumps.split_first() else { return Ok(()) };
    for (n, dump) in others {
        for (table, objects) in reference.as_object().context("no tables")? {
            if dump[table] != *objects {
                bail!("host {n} has other {table} than host {first}: {} and {objects}", dump[table]);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_with_another_table_is_named() {
        let dump = |config: &str| json!({"configs": [[config, 7]], "tasks": []});
        dumps_are_alike(&[]).expect("nobody differs");
        dumps_are_alike(&[(1, dump("a")), (2, dump("a"))]).expect("both have the same");
        let differ =
            dumps_are_alike(&[(1, dump("a")), (2, dump("a")), (3, dump("b"))]).expect_err("one differs");
        assert!(differ.to_string().starts_with("host 3 has other configs than host 1"), "{differ}");
    }
}
