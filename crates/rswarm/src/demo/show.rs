//! The script of `rswarm demo`: form a cluster, deploy, ask, scale, pull a plug, watch it heal.

use super::{DEMO_PORT, DemoArgs, HELLO_STACK, browser_port, cgroup_parent, forward, forward_path, lab};
use crate::{cli, commands, output};
use anyhow::{Context, Result, bail};
use docker_api::{client::Client, types};
use lab::{HostPaths, Lab, host_address};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Longest any one step may take before the demo counts as failed.
const STEP_LIMIT: Duration = Duration::from_secs(60);

/// The steps and how long each took.
#[derive(Debug)]
struct Clock {
    start: Instant,
    step: Instant,
    done: Vec<(String, Duration)>,
}

impl Clock {
    fn new() -> Self {
        Self { start: Instant::now(), step: Instant::now(), done: Vec::new() }
    }

    fn begin(&mut self, what: &str) -> Result<()> {
        self.step = Instant::now();
        output::line(&format!("\n== {what}"))
    }

    fn end(&mut self, what: &str) {
        self.done.push((what.to_owned(), self.step.elapsed()));
    }
}

/// Runs the demo inside its namespaces.
pub(super) async fn run(dir: PathBuf, args: DemoArgs) -> Result<()> {
    let mut lab = Lab::new(dir.clone(), cgroup_parent(&dir)).await?;
    let result = tokio::select! {
        result = script(&mut lab, &dir, &args) => result,
        signal = tokio::signal::ctrl_c() => {
            signal.context("cannot wait for Ctrl-C")?;
            output::line("\ninterrupted; cleaning up")
        }
    };
    if result.is_err() {
        for n in 1..=args.hosts {
            show_log(&HostPaths::new(&dir, n), n);
        }
    }
    result
}

/// A failed demo says what its daemons said.
fn show_log(paths: &HostPaths, n: u8) {
    let text = std::fs::read_to_string(paths.daemon_log()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    eprintln!("--- daemon of host{n}, last lines:");
    for line in &lines[lines.len().saturating_sub(25)..] {
        eprintln!("{line}");
    }
}

fn client(dir: &Path, n: u8) -> Result<Client> {
    Ok(Client::new(&format!("unix://{}", HostPaths::new(dir, n).socket().display()))?)
}

async fn script(lab: &mut Lab, dir: &Path, args: &DemoArgs) -> Result<()> {
    let mut clock = Clock::new();
    let hosts = 1..=args.hosts;

    clock.begin(&format!("{} hosts, each in namespaces of its own", args.hosts))?;
    for n in hosts.clone() {
        lab.start_host(n).await?;
    }
    for n in hosts.clone() {
        wait_for_daemon(dir, n).await?;
    }
    clock.end("hosts up");

    clock.begin("one swarm of managers")?;
    form_swarm(dir, args.hosts).await?;
    commands::cluster::node(&client(dir, 1)?, cli::Node::Ls(plain_list())).await?;
    clock.end("swarm formed");

    let (files, hello) = match &args.file {
        Some(file) => (vec![file.clone()], false),
        None => {
            clock.begin("the image this program carries, loaded on host1 only")?;
            commands::image::hello(&client(dir, 1)?).await?;
            clock.end("image loaded");
            let file = dir.join("stack.yml");
            std::fs::write(&file, HELLO_STACK).with_context(|| format!("cannot write {}", file.display()))?;
            (vec![file], true)
        }
    };
    clock.begin(&format!(
        "rswarm deploy {}",
        args.file.as_deref().unwrap_or(Path::new("examples/hello/stack.yml")).display()
    ))?;
    let deploy = cli::DeployArgs::unattended(files, STEP_LIMIT);
    commands::deploy::run(&client(dir, 1)?, &deploy).await?;
    show_tasks(&client(dir, 1)?).await?;
    clock.end("stack running");

    if hello {
        hello_script(lab, dir, args.hosts, &mut clock).await?;
    }
    if args.keep {
        // The last one's plug is pulled.
        let up = if hello && args.hosts > 1 { args.hosts - 1 } else { args.hosts };
        keep(dir, up, hello).await?;
    }
    summary(&clock)
}

async fn hello_script(lab: &mut Lab, dir: &Path, hosts: u8, clock: &mut Clock) -> Result<()> {
    clock.begin("every host answers on the published port, whichever runs the task")?;
    let mut count = 0;
    for n in 1..=hosts {
        let (seen, text) = ask(n).await?;
        if seen <= count {
            bail!("the visit count went from {count} to {seen}");
        }
        count = seen;
        output::line(&format!("host{n}:{DEMO_PORT}  {text}"))?;
    }
    clock.end("all hosts asked");

    clock.begin("rswarm scale hello_web=6")?;
    let scale =
        cli::ScaleArgs { services: vec!["hello_web=6".to_owned()], detach: false, timeout: STEP_LIMIT };
    commands::service::scale(&client(dir, 1)?, &scale).await?;
    clock.end("scaled to 6");

    if hosts < 2 {
        return Ok(());
    }
    clock.begin(&format!("pull the plug of host{hosts}"))?;
    lab.kill_host(hosts)?;
    recover(dir, hosts).await?;
    clock.end("recovered from the loss of a host");
    show_tasks(&client(dir, 1)?).await?;
    for n in 1..hosts {
        let (seen, text) = ask(n).await?;
        output::line(&format!("host{n}:{DEMO_PORT}  {text}"))?;
        // The counter's volume is local to its host: with that host gone it may start over, and says so.
        if seen <= count {
            output::line("  (the counter's host is gone; its volume was local, so it counts anew)")?;
        }
        count = seen;
    }
    Ok(())
}

async fn wait_for_daemon(dir: &Path, n: u8) -> Result<()> {
    let client = client(dir, n)?;
    let deadline = Instant::now() + STEP_LIMIT;
    loop {
        match client.version().await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                return Err(error).with_context(|| format!("the daemon of host{n} does not answer"));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn form_swarm(dir: &Path, hosts: u8) -> Result<()> {
    let first = client(dir, 1)?;
    let listen_addr = "0.0.0.0:2377".to_owned();
    let init = types::SwarmInit {
        listen_addr: listen_addr.clone(),
        advertise_addr: host_address(1).to_string(),
        ..Default::default()
    };
    first.swarm_init(&init).await.context("swarm init")?;
    let tokens = first.swarm().await?.join_tokens.context("no join tokens")?;
    for n in 2..=hosts {
        let join = types::SwarmJoin {
            listen_addr: listen_addr.clone(),
            advertise_addr: host_address(n).to_string(),
            remote_addrs: vec![format!("{}:2377", host_address(1))],
            // An even number of managers survives no more losses than one fewer: of two, none.
            join_token: if n <= 3 && hosts > 2 { tokens.manager.clone() } else { tokens.worker.clone() },
            ..Default::default()
        };
        client(dir, n)?.swarm_join(&join).await.with_context(|| format!("host{n}: swarm join"))?;
    }
    let deadline = Instant::now() + STEP_LIMIT;
    loop {
        let ready = first.nodes(&[]).await?.iter().filter(|node| node.status.state == "ready").count();
        if ready == usize::from(hosts) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("only {ready} of {hosts} nodes are ready");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn plain_list() -> cli::ListArgs {
    cli::ListArgs { quiet: false, format: None, filter: Vec::new() }
}

async fn show_tasks(client: &Client) -> Result<()> {
    let filters = r#"{"desired-state":{"running":true}}"#;
    output::line(&commands::service::task_list(client, filters, cli::TasksShown::default()).await?.table())
}

/// Asks a host's published port and returns the visit count and the whole greeting.
async fn ask(n: u8) -> Result<(u64, String)> {
    let deadline = Instant::now() + STEP_LIMIT;
    loop {
        match get(n).await {
            Ok(body) => {
                let count = body.rsplit(' ').next().and_then(|word| word.trim().parse().ok());
                let count = count.with_context(|| format!("host{n} answered {body:?}"))?;
                return Ok((count, body.trim().to_owned()));
            }
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn get(n: u8) -> Result<String> {
    let request = async {
        let mut stream = tokio::net::TcpStream::connect((host_address(n), DEMO_PORT)).await?;
        stream.write_all(b"GET / HTTP/1.0\r\nHost: demo\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(3), request)
        .await
        .with_context(|| format!("host{n} does not answer within 3 s"))?
        .with_context(|| format!("host{n} port {DEMO_PORT}"))?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        _ => bail!("host{n} answered {answer:?}"),
    }
}

/// Waits until every service runs in full without the lost host.
async fn recover(dir: &Path, lost: u8) -> Result<()> {
    let client = client(dir, 1)?;
    let name = format!("host{lost}");
    let deadline = Instant::now() + STEP_LIMIT;
    // First the swarm must notice; until then everything looks well.
    loop {
        let nodes = client.nodes(&[]).await.unwrap_or_default();
        if nodes.iter().any(|n| n.description.hostname == name && n.status.state == "down") {
            break;
        }
        if Instant::now() > deadline {
            bail!("{name} is not seen as down within {STEP_LIMIT:?}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    output::line(&format!("{name} is down"))?;
    let names: BTreeSet<String> = client.services(&[]).await?.into_iter().map(|s| s.spec.name).collect();
    commands::converge::converge(&client, &names, STEP_LIMIT).await
}

/// Leaves everything up until Ctrl-C.
async fn keep(dir: &Path, hosts: u8, hello: bool) -> Result<()> {
    let mut known = BTreeSet::new();
    output::line("\n== up until Ctrl-C. From another terminal:")?;
    let socket = HostPaths::new(dir, 1).socket();
    output::line(&format!("  rswarm -H unix://{} node ls", socket.display()))?;
    output::line(&format!("  docker -H unix://{} service ls", socket.display()))?;
    for n in 1..=hosts {
        forward(forward_path(dir, n, DEMO_PORT), n, DEMO_PORT, false, &mut known)?;
        if hello {
            output::line(&format!(
                "  browser: http://127.0.0.1:{}/   (port {DEMO_PORT} of host{n})",
                browser_port(n)
            ))?;
        }
    }
    std::future::pending::<()>().await;
    Ok(())
}

fn summary(clock: &Clock) -> Result<()> {
    output::line("\n== timings")?;
    for (what, took) in &clock.done {
        output::line(&format!("{:>8.2} s  {what}", took.as_secs_f64()))?;
    }
    output::line(&format!("{:>8.2} s  in all", clock.start.elapsed().as_secs_f64()))
}
