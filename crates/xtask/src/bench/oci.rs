//! The peers runc and crun on a bundle of the same program. They make no layers, network or logs.

use anyhow::{Context, Result, bail};
use std::{path::Path, process::Command};

pub(super) const PEERS: [&str; 2] = ["runc", "crun"];

/// Runs peer `$1` `$2` times and prints how many microseconds each run took. In a mount namespace of its own,
/// where crun does not see the cgroup2 mount of a hybrid layout, which it refuses.
const LOOP: &str = r#"
if [ "$1" = crun ] && mountpoint -q /sys/fs/cgroup/unified; then umount -l /sys/fs/cgroup/unified; fi
for ((n = 0; n < $2; n++)); do
  start=$EPOCHREALTIME
  said=$("$1" run "bench-$$-$n" 2>&1 </dev/null); code=$?
  end=$EPOCHREALTIME
  if [ $code != "$3" ]; then echo "exit code $code: $said" >&2; exit 1; fi
  echo $((${end/./} - ${start/./}))
done
"#;

/// Returns how long `peer run` took each of `count` times, in milliseconds, of a `program` that ends at once with
/// exit code `code` when called with `args`.
pub(super) fn run(peer: &str, program: &Path, args: &[&str], code: u8, count: usize) -> Result<Vec<f64>> {
    let dir = tempfile::tempdir()?;
    let bundle = dir.path();
    std::fs::create_dir_all(bundle.join("rootfs"))?;
    let name = program.file_name().context("a program has a name")?;
    std::fs::copy(program, bundle.join("rootfs").join(name))?;
    let spec = Command::new(peer).arg("spec").current_dir(bundle).output().context("not installed")?;
    if !spec.status.success() {
        bail!("{peer} spec: {}", String::from_utf8_lossy(&spec.stderr).trim());
    }
    let path = bundle.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    let path_inside = format!("/{}", name.to_string_lossy());
    let words: Vec<&str> = std::iter::once(path_inside.as_str()).chain(args.iter().copied()).collect();
    config["process"]["args"] = serde_json::json!(words);
    config["process"]["terminal"] = false.into();
    std::fs::write(&path, config.to_string())?;
    // The first run warms the page cache.
    let (runs, code) = ((count + 1).to_string(), code.to_string());
    let ran = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "bash", "-c", LOOP, "bash", peer, &runs, &code])
        .current_dir(bundle)
        .output()
        .context("cannot run unshare")?;
    if !ran.status.success() {
        bail!("{}", String::from_utf8_lossy(&ran.stderr).trim());
    }
    let times = String::from_utf8_lossy(&ran.stdout);
    let times = times.lines().skip(1).map(|line| Ok(line.parse::<f64>()? / 1000.0));
    times.collect()
}
