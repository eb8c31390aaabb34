//! `run --rm` of a program that ends at once, by our CLI on our daemon; runc, crun and dockerd are the peers.

use super::{Row, dockerd, hosts::succeed, median, milliseconds, oci, ratio};
use anyhow::{Result, bail};
use std::{path::Path, time::Instant};
use testkit::Lab;

pub(super) fn bench(program: &Path) -> Result<Vec<Row>> {
    let lab = Lab::start(program, 1)?;
    succeed(lab.rswarm(1, &["image", "hello"]))?;
    let once = |network: &str| -> Result<f64> {
        let start = Instant::now();
        let ran = lab.rswarm(1, &["run", "--rm", "--network", network, "rswarm/hello", "none"]);
        if !ran.stderr.contains("usage: hello") {
            bail!("{ran:?}");
        }
        Ok(milliseconds(start.elapsed()))
    };
    let mut rows = Vec::new();
    let mut ours = Vec::new();
    for network in ["none", "bridge"] {
        once(network)?;
        let times = (0..40).map(|_| once(network)).collect::<Result<Vec<_>>>()?;
        let ms = median(times);
        ours.push(ms);
        let name = format!("run --rm, --network {network}, median of 40");
        rows.push(Row::new(name, ms, "ms").note("CLI, API, engine, shim and removal"));
    }
    drop(lab);
    for peer in oci::PEERS {
        rows.push(match oci::run(peer, program, &["hello", "none"], 1, 20) {
            Ok(times) => {
                let ms = median(times);
                Row::new(format!("{peer} run of the same program, median of 20"), ms, "ms")
                    .note(ratio(ours[0], ms, peer))
            }
            Err(error) => Row::missing(format!("{peer} run"), format!("{error:#}")),
        });
    }
    rows.push(match dockerd::run(program, 20) {
        Ok(times) => {
            let ms = median(times);
            Row::new("dockerd: docker run --rm, --network none, median of 20", ms, "ms")
                .note(ratio(ours[0], ms, "dockerd"))
        }
        Err(error) => Row::missing("dockerd: docker run --rm", format!("{error:#}")),
    });
    Ok(rows)
}
