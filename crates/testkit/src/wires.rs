//! Wires between hosts that are cut, also in one direction only: frames are dropped where the lab's switch passes them
//! on, so that no host sees its link go down. Needs root, `nft` and `nsenter`.

use crate::{Lab, traces};
use anyhow::{Context, Result, bail};
use std::{
    collections::BTreeSet,
    fmt::Write as _,
    io::Write as _,
    process::{Command, Stdio},
};

/// Hosts from and to which nothing comes through.
pub type Cut = BTreeSet<(u8, u8)>;

impl Lab {
    /// Drops all frames of these pairs of hosts (from, to) from now on, and no others.
    ///
    /// # Errors
    /// A program is missing, this is not root, or the lab has ended.
    pub fn cut_wires(&self, cut: &Cut) -> Result<()> {
        let lab = traces::lab_of(self.dir()).context("the lab has no process")?;
        let mut child = Command::new("nsenter")
            .arg(format!("--net={}", lab.join("ns/net").display()))
            .args(["nft", "-f", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run nsenter")?;
        child.stdin.take().context("no input")?.write_all(rules(cut).as_bytes())?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("nft: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}

/// Returns the rules that put these in place of all that were there.
fn rules(cut: &Cut) -> String {
    let mut rules = "add table bridge wires\ndelete table bridge wires\n".to_owned();
    if cut.is_empty() {
        return rules;
    }
    rules += "table bridge wires {\n chain forward {\n  type filter hook forward priority 0;\n";
    for (from, to) in cut {
        // Writing to a string cannot fail.
        let _written = writeln!(rules, "  iifname \"h{from}\" oifname \"h{to}\" drop");
    }
    rules + " }\n}\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cut_before_is_whole_again() {
        assert_eq!(rules(&Cut::new()), "add table bridge wires\ndelete table bridge wires\n");
        let one_way = rules(&Cut::from([(3, 1)]));
        assert!(one_way.contains("delete table") && one_way.contains("iifname \"h3\" oifname \"h1\" drop"));
        assert!(!one_way.contains("iifname \"h1\""), "{one_way}");
    }
}
