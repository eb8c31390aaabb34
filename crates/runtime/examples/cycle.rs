//! Measures create, start, wait and remove of a container through the shim: `cycle SHIM ROOTFS COUNT`.

use runtime::{ContainerPlan, Event, LogTarget, Rootfs, Shim, ShimProgram};
use rustix::event::{PollFd, PollFlags};
use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().collect();
    let [_, shim, rootfs, count] = args.as_slice() else {
        return Err("usage: cycle SHIM ROOTFS COUNT".into());
    };
    let program = ShimProgram::sealed(Path::new(shim), Vec::new())?;
    let temp = env::temp_dir().join(format!("cycle-{}", std::process::id()));
    let mut phases: Vec<[Duration; 5]> = Vec::new();
    for n in 0..count.parse()? {
        let dir = temp.join(format!("{n}"));
        for name in ["upper", "work"] {
            fs::create_dir_all(dir.join(name))?;
        }
        let mut spec = runtime::default_spec(vec!["/bin/busybox".into(), "true".into()]);
        let cgroup = format!("/rswarm-cycle/{}-{n}", std::process::id());
        if let Some(linux) = &mut spec.linux {
            linux.cgroups_path = Some(cgroup.clone().into());
        }
        let plan = ContainerPlan {
            id: format!("{n:064x}"),
            dir: dir.join("state"),
            spec,
            rootfs: Rootfs::Overlay {
                lowers: vec![PathBuf::from(rootfs)],
                upper: dir.join("upper"),
                work: dir.join("work"),
            },
            log: LogTarget::JsonFile {
                path: dir.join("log"),
                max_size_bytes: None,
                max_files: 1,
                attrs: Vec::new(),
                forward: None,
            },
            tty: false,
            stdin_open: false,
            init: false,
            userns_squash: false,
        };
        let mut at = vec![Instant::now()];
        let mut shim = Shim::spawn(&program, &plan)?;
        at.push(Instant::now());
        shim.start()?;
        at.push(Instant::now());
        loop {
            match shim.next_event()? {
                Some(Event::Exited(_)) => break,
                Some(_) => {}
                None => drop(rustix::event::poll(&mut [PollFd::new(&shim, PollFlags::IN)], None)?),
            }
        }
        at.push(Instant::now());
        if n == 0 {
            let status = fs::read_to_string(format!("/proc/{}/smaps_rollup", shim.shim_pid()))?;
            println!(
                "{}",
                status
                    .lines()
                    .filter(|l| l.starts_with("Rss") || l.starts_with("Pss:") || l.starts_with("Private_D"))
                    .collect::<Vec<_>>()
                    .join(" ")
            );
        }
        shim.shutdown()?;
        at.push(Instant::now());
        runtime::remove(&plan.dir, Some(&cgroup)).map_err(|errors| format!("{errors:?}"))?;
        at.push(Instant::now());
        let mut phase = [Duration::ZERO; 5];
        for (n, pair) in at.windows(2).enumerate() {
            phase[n] = pair[1] - pair[0];
        }
        phases.push(phase);
        fs::remove_dir_all(&dir)?;
    }
    fs::remove_dir_all(&temp)?;
    runtime::cgroup::remove_if_empty("/rswarm-cycle");
    for (n, name) in ["create", "start", "wait", "shutdown", "remove"].iter().enumerate() {
        let mut times: Vec<_> = phases.iter().map(|phase| phase[n]).collect();
        times.sort();
        println!("{name}: median {:?} min {:?}", times[times.len() / 2], times[0]);
    }
    let mut totals: Vec<Duration> = phases.iter().map(|phase| phase.iter().sum()).collect();
    totals.sort();
    println!("total: median {:?} min {:?}", totals[totals.len() / 2], totals[0]);
    Ok(())
}
