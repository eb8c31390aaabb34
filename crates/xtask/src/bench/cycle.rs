//! A container's life through the runtime's shim alone, without daemon, image or network: create, start, wait,
//! remove. And what a shim costs while its container runs.

use super::{Row, median, milliseconds, oci, quantile, ratio};
use anyhow::{Context, Result, anyhow, bail};
use runtime::{ContainerPlan, Event, ExitStatus, LogTarget, Rootfs, Shim, ShimProgram};
use rustix::event::{PollFd, PollFlags};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const COUNT: usize = 100;
const SHIMS: usize = 20;

/// A program that ends at once and one that stays, in an image of a single layer.
struct Image {
    lower: PathBuf,
    program: PathBuf,
    ends: Vec<String>,
    /// What the first ends with.
    code: u8,
    stays: Vec<String>,
}

/// A static busybox when there is one: our own program is many times its size, and reading that is not the
/// runtime's work.
fn image(dir: &Path, program: &Path) -> Result<Image> {
    let lower = dir.join("lower");
    fs::create_dir(&lower)?;
    let busybox = Path::new("/bin/busybox");
    let is_static = |bytes: Vec<u8>| !bytes[..bytes.len().min(4096)].windows(8).any(|w| w == b"ld-linux");
    let (file, name, ends, code, stays) = if fs::read(busybox).is_ok_and(is_static) {
        (busybox, "busybox", ["true"], 0, ["sleep", "600"].as_slice())
    } else {
        (program, "hello", ["none"], 1, ["deaf"].as_slice())
    };
    fs::copy(file, lower.join(name))?;
    let words = |args: &[&str]| {
        std::iter::once(format!("/{name}")).chain(args.iter().map(|a| (*a).to_owned())).collect()
    };
    Ok(Image { program: lower.join(name), lower, ends: words(&ends), code, stays: words(stays) })
}

pub(super) fn bench(program: &Path) -> Result<Vec<Row>> {
    let dir = tempfile::tempdir()?;
    let image = image(dir.path(), program)?;
    // A debug build carries no small shim; the program to measure is one too, at the price of its size.
    let shim = if cfg!(debug_assertions) {
        ShimProgram::sealed(program, vec!["shim".into()])?
    } else {
        ShimProgram::of_this_program(Vec::new())?
    };
    let mut rows = Vec::new();
    cycle(&shim, &image, dir.path(), "warm")?;

    let mut ours = f64::NAN;
    for workers in [1, 2] {
        let start = Instant::now();
        let times = std::thread::scope(|scope| {
            let work = |worker: usize| {
                let (shim, image, dir) = (&shim, &image, dir.path());
                let each = move |n| cycle(shim, image, dir, &format!("{workers}-{worker}-{n}"));
                scope.spawn(move || (0..COUNT / workers).map(each).collect::<Result<Vec<_>>>())
            };
            let started: Vec<_> = (0..workers).map(work).collect();
            let done = started.into_iter().map(|w| w.join().map_err(|_| anyhow!("a worker panicked"))?);
            Ok::<_, anyhow::Error>(done.collect::<Result<Vec<_>>>()?.concat())
        })?;
        let each_second = times.len() as f64 / start.elapsed().as_secs_f64();
        let phase = |n: usize| median(times.iter().map(|t| milliseconds(t[n])).collect());
        let totals: Vec<f64> = times.iter().map(|t| milliseconds(t.iter().sum())).collect();
        let note = format!(
            "{}; create {:.2} start {:.2} wait {:.2} remove {:.2}, p99 {:.1}, {each_second:.0}/s; target 6",
            image.ends.join(" "),
            phase(0),
            phase(1),
            phase(2),
            phase(3),
            quantile(totals.clone(), 0.99),
        );
        let total = median(totals);
        if workers == 1 {
            ours = total;
        }
        let name = format!("container life through the shim, {workers} at a time, median of {COUNT}");
        rows.push(Row::new(name, total, "ms").note(note));
    }
    for peer in oci::PEERS {
        let args: Vec<&str> = image.ends[1..].iter().map(String::as_str).collect();
        rows.push(match oci::run(peer, &image.program, &args, image.code, COUNT) {
            Ok(times) => {
                let ms = median(times);
                let note = format!("{}; target 0.2 of runc", ratio(ours, ms, peer));
                Row::new(format!("{peer} run of the same program, median of {COUNT}"), ms, "ms").note(note)
            }
            Err(error) => Row::missing(format!("{peer} run of the same program"), format!("{error:#}")),
        });
    }
    rows.extend(memory(&shim, &image, dir.path())?);
    runtime::cgroup::remove_if_empty(&parent());
    Ok(rows)
}

fn parent() -> String {
    format!("/rswarm-bench-{}", std::process::id())
}

/// A container with its shim; both end with this value.
struct Container {
    plan: ContainerPlan,
    cgroup: String,
    layers: PathBuf,
    shim: Option<Shim>,
}

impl Container {
    fn create(program: &ShimProgram, image: &Image, dir: &Path, name: &str, args: &[String]) -> Result<Self> {
        let layers = dir.join(name);
        for layer in ["upper", "work"] {
            fs::create_dir_all(layers.join(layer))?;
        }
        let mut spec = runtime::default_spec(args.to_vec());
        let cgroup = format!("{}/{name}", parent());
        let linux = spec.linux.as_mut().context("the default spec is Linux's")?;
        linux.cgroups_path = Some(cgroup.clone().into());
        let plan = ContainerPlan {
            id: format!("bench-{name}"),
            dir: layers.join("state"),
            spec,
            rootfs: Rootfs::Overlay {
                lowers: vec![image.lower.clone()],
                upper: layers.join("upper"),
                work: layers.join("work"),
            },
            log: LogTarget::JsonFile {
                path: layers.join("log"),
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
        let mut container = Self { plan, cgroup, layers, shim: None };
        container.shim = Some(Shim::spawn(program, &container.plan)?);
        Ok(container)
    }

    fn shim(&mut self) -> &mut Shim {
        self.shim.as_mut().expect("a created container has a shim")
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        let shim = self.shim();
        loop {
            match shim.next_event()? {
                Some(Event::Exited(status)) => return Ok(status),
                Some(_) => {}
                None => drop(rustix::event::poll(&mut [PollFd::new(shim, PollFlags::IN)], None)?),
            }
        }
    }

    fn remove(&self) -> Result<()> {
        runtime::remove(&self.plan.dir, Some(&self.cgroup)).map_err(|errors| anyhow!("{errors:?}"))?;
        match fs::remove_dir_all(&self.layers) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.layers.exists()
            && let Err(error) = self.remove()
        {
            eprintln!("container {} not removed: {error:#}", self.plan.id);
        }
    }
}

/// Returns how long create, start, wait and remove took, directories of the writable layer included.
fn cycle(program: &ShimProgram, image: &Image, dir: &Path, name: &str) -> Result<[Duration; 4]> {
    let mut at = vec![Instant::now()];
    let mut container = Container::create(program, image, dir, name, &image.ends)?;
    at.push(Instant::now());
    container.shim().start()?;
    at.push(Instant::now());
    let status = container.wait()?;
    at.push(Instant::now());
    container.shim().shutdown()?;
    container.remove()?;
    at.push(Instant::now());
    if status.code != i32::from(image.code) {
        bail!("{} ended with exit code {}", image.ends.join(" "), status.code);
    }
    Ok([at[1] - at[0], at[2] - at[1], at[3] - at[2], at[4] - at[3]])
}

/// What a shim costs while its container runs.
fn memory(program: &ShimProgram, image: &Image, dir: &Path) -> Result<Vec<Row>> {
    let mut running = Vec::new();
    for n in 0..SHIMS {
        let mut container = Container::create(program, image, dir, &format!("m{n}"), &image.stays)?;
        container.shim().start()?;
        running.push(container);
    }
    let pids = running.iter_mut().map(|c| c.shim().shim_pid()).collect::<Vec<_>>();
    let rows = shim_rows(&pids, "alone");
    drop(running);
    rows
}

/// Returns rows for the memory of shims, means over all of them.
pub(super) fn shim_rows(shims: &[u32], of: &str) -> Result<Vec<Row>> {
    let all = shims.iter().map(|pid| Memory::of(*pid)).collect::<Result<Vec<_>>>()?;
    let mean = |part: fn(&Memory) -> f64| all.iter().map(part).sum::<f64>() / all.len() as f64;
    let note = format!("mean of {}, PSS {:.0}", all.len(), mean(|m| m.pss));
    Ok(vec![
        Row::new(format!("shim, {of}: RSS"), mean(|m| m.rss), "kB").note(format!("{note}; target 1200")),
        Row::new(format!("shim, {of}: private"), mean(|m| m.private), "kB")
            .note(format!("{note}; target 100")),
    ])
}

/// Memory of a process, in kB. Source: proc_pid_smaps_rollup(5).
struct Memory {
    rss: f64,
    pss: f64,
    /// Clean and dirty: what would be free without this process.
    private: f64,
}

impl Memory {
    fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        let field = |name: &str| -> f64 {
            let value =
                text.lines().find_map(|l| l.strip_prefix(name)?.strip_suffix("kB")?.trim().parse().ok());
            value.unwrap_or(0.0)
        };
        Ok(Self {
            rss: field("Rss:"),
            pss: field("Pss:"),
            private: field("Private_Clean:") + field("Private_Dirty:"),
        })
    }
}
