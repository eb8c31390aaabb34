//! Hosts on one machine: each is a process tree in its own network, mount, pid and UTS namespace, all plugged
//! into one bridge. Used by `rswarm demo` and by the end-to-end tests.
//!
//! ```text
//!  lab (outer)            the person's namespaces; holds the listening sockets for a browser
//!   └ lab --inside        pid 1 of a namespace set that owns the bridge; an ordinary user is root in here
//!      ├ lab-host 1       pid 1 of host 1: plugs in, starts `rswarm daemon`, reaps
//!      ├ lab-host 2         └ daemon, shims, containers: SIGKILL to pid 1 ends them all, as a pulled plug does
//!      └ ...
//! ```
//!
//! Nothing needs cleaning up in the kernel: every link, mount and process lives in a namespace that ends with
//! its pid 1. Only the directory (and, as root, the cgroups) are removed by hand.

use anyhow::{Context, Result, bail};
use futures::TryStreamExt;
use nix::sched::{CloneFlags, unshare};
use rtnetlink::{
    Handle, LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder, packet_route::link::LinkAttribute,
};
use std::{
    collections::BTreeMap,
    io::{BufRead, Write},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Underlay of the hosts: RFC 2544's benchmarking range, which no real network routes.
/// Host N is 198.18.0.N; the lab itself is the gateway .254.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 254);
const PREFIX: u8 = 24;
const SWITCH: &str = "lab0";

/// Returns the underlay address of host `n`, counted from 1.
pub(crate) fn host_address(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 0, n)
}

/// Where a host keeps its things, and where its front door listens.
#[derive(Debug, Clone)]
pub(crate) struct HostPaths {
    pub(crate) root: PathBuf,
}

impl HostPaths {
    pub(crate) fn new(lab: &Path, n: u8) -> Self {
        Self { root: lab.join(format!("h{n}")) }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.root.join("run/docker.sock")
    }

    pub(crate) fn daemon_log(&self) -> PathBuf {
        self.root.join("daemon.log")
    }
}

/// Enters the namespaces a lab lives in. Call before any thread exists; the next child is
/// pid 1 of the new pid namespace.
///
/// # Errors
/// Names the namespace the kernel refused and what to do about it.
pub(crate) fn enter_namespaces() -> Result<()> {
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    let mut flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID;
    if !uid.is_root() {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    unshare(flags).with_context(|| {
        if uid.is_root() {
            "cannot make namespaces for the hosts".to_owned()
        } else {
            "this kernel refuses user namespaces to ordinary users; hint: set the sysctl \
             kernel.unprivileged_userns_clone=1 (Debian) or kernel.apparmor_restrict_unprivileged_userns=0 \
             (Ubuntu), or run as root"
                .to_owned()
        }
    })?;
    if !uid.is_root() {
        std::fs::write("/proc/self/setgroups", "deny").context("cannot deny setgroups")?;
        std::fs::write("/proc/self/uid_map", format!("0 {uid} 1")).context("cannot map the user id")?;
        std::fs::write("/proc/self/gid_map", format!("0 {gid} 1")).context("cannot map the group id")?;
    }
    make_mounts_private()
}

fn make_mounts_private() -> Result<()> {
    use nix::mount::{MsFlags, mount};
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("cannot make mounts private")
}

/// Gives the hosts of a lab files of subordinate ids of their own, in `dir`: a daemon may note some there, and those of
/// the machine are not for a lab to change. Call after [`enter_namespaces`]. Source: subuid(5).
pub(crate) fn own_subordinate_ids(dir: &Path) -> Result<()> {
    use nix::mount::{MsFlags, mount};
    for name in ["subuid", "subgid"] {
        let (own, of_machine) = (dir.join(name), Path::new("/etc").join(name));
        // Where there is no such file it cannot be covered either.
        if of_machine.exists() {
            std::fs::write(&own, "").with_context(|| format!("cannot make {}", own.display()))?;
            mount(Some(&own), &of_machine, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .with_context(|| format!("cannot cover {}", of_machine.display()))?;
        }
    }
    Ok(())
}

/// Mounts a /proc that shows this pid namespace. Call as its pid 1.
pub(crate) fn mount_proc() -> Result<()> {
    use nix::mount::{MsFlags, mount};
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>).context("cannot mount /proc")
}

/// Dies with the parent, even when that one is killed.
pub(crate) fn die_with_parent() -> Result<()> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).context("cannot tie to the parent")
}

fn netlink() -> Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection().context("cannot open netlink")?;
    // Ends when the handle is dropped.
    tokio::task::spawn_local(connection);
    Ok(handle)
}

async fn link_index(handle: &Handle, name: &str) -> Result<Option<u32>> {
    match handle.link().get().match_name(name.to_owned()).execute().try_next().await {
        Ok(link) => Ok(link.map(|l| l.header.index)),
        Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -nix::libc::ENODEV => Ok(None),
        Err(e) => Err(e).with_context(|| format!("cannot look up link {name}")),
    }
}

async fn set_up(handle: &Handle, name: &str, address: Option<(Ipv4Addr, u8)>) -> Result<u32> {
    let index = link_index(handle, name).await?.with_context(|| format!("there is no link {name}"))?;
    if let Some((address, prefix)) = address {
        let added = handle.address().add(index, address.into(), prefix).execute().await;
        added.with_context(|| format!("cannot give {name} the address {address}"))?;
    }
    let up = handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await;
    up.with_context(|| format!("cannot take {name} up"))?;
    Ok(index)
}

/// The bridge that joins the hosts. Lives in the lab's network namespace.
#[derive(Debug)]
pub(crate) struct Switch {
    handle: Handle,
    index: u32,
}

impl Switch {
    pub(crate) async fn new() -> Result<Self> {
        let handle = netlink()?;
        set_up(&handle, "lo", None).await?;
        handle
            .link()
            .add(LinkBridge::new(SWITCH).build())
            .execute()
            .await
            .context("cannot add the bridge")?;
        let index = set_up(&handle, SWITCH, Some((GATEWAY, PREFIX))).await?;
        Ok(Self { handle, index })
    }

    /// Gives the process `pid` (pid 1 of a host) a link `eth0` to this switch.
    pub(crate) async fn plug(&self, n: u8, pid: u32) -> Result<()> {
        let port = format!("h{n}");
        // That of a host which was killed goes with its namespace, a while after its last process.
        if let Some(old) = link_index(&self.handle, &port).await?
            && let Err(error) = self.handle.link().del(old).execute().await
        {
            tracing::debug!(%error, port, "the link went by itself");
        }
        let mut veth = LinkVeth::new(&port, &format!("p{n}")).build();
        veth.attributes.push(LinkAttribute::Controller(self.index));
        self.handle
            .link()
            .add(veth)
            .execute()
            .await
            .with_context(|| format!("cannot add the link of host {n}"))?;
        set_up(&self.handle, &port, None).await?;
        let peer =
            link_index(&self.handle, &format!("p{n}")).await?.context("the link's other end is gone")?;
        let moved = LinkUnspec::new_with_index(peer).setns_by_pid(pid).name("eth0".to_owned()).build();
        self.handle.link().set(moved).execute().await.with_context(|| format!("cannot plug host {n} in"))
    }

    /// Pulls the network cable of host `n`, or puts it back.
    pub(crate) async fn cable(&self, n: u8, plugged: bool) -> Result<()> {
        let port = format!("h{n}");
        let index =
            link_index(&self.handle, &port).await?.with_context(|| format!("host {n} is not plugged in"))?;
        let link = LinkUnspec::new_with_index(index);
        let link = if plugged { link.up() } else { link.down() };
        self.handle.link().set(link.build()).execute().await.with_context(|| format!("cannot set {port}"))
    }
}

/// Waits for `eth0`, then sets up this host's network. Runs as pid 1 of the host.
pub(crate) async fn configure_host(n: u8) -> Result<()> {
    let handle = netlink()?;
    set_up(&handle, "lo", None).await?;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while link_index(&handle, "eth0").await?.is_none() {
        if std::time::Instant::now() > deadline {
            bail!("host {n} was not plugged in within 10 s");
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    set_up(&handle, "eth0", Some((host_address(n), PREFIX))).await?;
    let default = RouteMessageBuilder::<Ipv4Addr>::new().gateway(GATEWAY).build();
    handle.route().add(default).execute().await.context("cannot add the default route")
}

/// A running host, seen from the lab.
#[derive(Debug)]
struct Host {
    /// `lab-host`, outside the host's pid namespace; pid 1 of the host is its child and dies with it.
    keeper: Child,
    commands: std::process::ChildStdin,
}

/// The hosts of a lab and the switch between them.
#[derive(Debug)]
pub(crate) struct Lab {
    dir: PathBuf,
    cgroup_parent: String,
    switch: Switch,
    hosts: BTreeMap<u8, Host>,
    /// Hosts whose daemon is another program than this one, or has more arguments.
    programs: BTreeMap<u8, String>,
}

impl Lab {
    pub(crate) async fn new(dir: PathBuf, cgroup_parent: String) -> Result<Self> {
        Ok(Self {
            dir,
            cgroup_parent,
            switch: Switch::new().await?,
            hosts: BTreeMap::new(),
            programs: BTreeMap::new(),
        })
    }

    /// Starts host `n` with its daemon; what it had on disk is still there.
    pub(crate) async fn start_host(&mut self, n: u8) -> Result<()> {
        if self.hosts.contains_key(&n) {
            bail!("host {n} is already up");
        }
        let paths = HostPaths::new(&self.dir, n);
        std::fs::create_dir_all(&paths.root)
            .with_context(|| format!("cannot make {}", paths.root.display()))?;
        let log = std::fs::OpenOptions::new().create(true).append(true).open(paths.daemon_log())?;
        let mut keeper = Command::new("/proc/self/exe")
            .args(["lab-host", "--index", &n.to_string(), "--cgroup-parent", &self.cgroup_parent, "--root"])
            .arg(&paths.root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start host {n}"))?;
        let commands = keeper.stdin.take().context("the host has no command pipe")?;
        // The keeper writes the pid of the host's pid 1 once its namespaces stand.
        let mut said = std::io::BufReader::new(keeper.stdout.take().context("the host has no answer pipe")?);
        let mut line = String::new();
        said.read_line(&mut line).context("the host did not answer")?;
        let Ok(pid) = line.trim().parse::<u32>() else {
            let log = std::fs::read_to_string(paths.daemon_log()).unwrap_or_default();
            bail!("host {n} did not start: {}", log.trim());
        };
        self.switch.plug(n, pid).await?;
        self.hosts.insert(n, Host { keeper, commands });
        self.start_daemon(n)
    }

    /// Pulls the plug of host `n`: SIGKILL to its pid 1 takes every process of it along.
    pub(crate) fn kill_host(&mut self, n: u8) -> Result<()> {
        let mut host = self.hosts.remove(&n).with_context(|| format!("host {n} is not up"))?;
        host.keeper.kill().with_context(|| format!("cannot kill host {n}"))?;
        host.keeper.wait().with_context(|| format!("cannot reap host {n}"))?;
        Ok(())
    }

    /// SIGKILL to the daemon alone; its containers run on.
    pub(crate) fn kill_daemon(&mut self, n: u8) -> Result<()> {
        self.command(n, "kill")
    }

    /// Starts the daemon of host `n` after [`Lab::kill_daemon`].
    pub(crate) fn start_daemon(&mut self, n: u8) -> Result<()> {
        let program = self.programs.get(&n).map_or("/proc/self/exe", String::as_str);
        let words = format!("start {program}");
        self.command(n, &words)
    }

    /// Has the daemon of host `n` be `program` with `more` arguments from its next start on.
    pub(crate) fn program(&mut self, n: u8, program: &str, more: &[&str]) {
        self.programs.insert(n, [&[program][..], more].concat().join(" "));
    }

    /// Starts this program with `args` in host `n`, beside its daemon. What it says goes to the file NAME in the
    /// host's directory, and when it has ended its exit code to NAME.code.
    pub(crate) fn exec(&mut self, n: u8, name: &str, args: &[&str]) -> Result<()> {
        self.command(n, &format!("exec {name} {}", args.join(" ")))
    }

    pub(crate) async fn cable(&self, n: u8, plugged: bool) -> Result<()> {
        self.switch.cable(n, plugged).await
    }

    fn command(&mut self, n: u8, word: &str) -> Result<()> {
        let host = self.hosts.get_mut(&n).with_context(|| format!("host {n} is not up"))?;
        writeln!(host.commands, "{word}").with_context(|| format!("host {n} takes no commands any more"))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for n in self.hosts.keys().copied().collect::<Vec<_>>() {
            if let Err(error) = self.kill_host(n) {
                tracing::warn!(%error, "host not ended");
            }
        }
    }
}
