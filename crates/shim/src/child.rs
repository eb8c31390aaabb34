//! What a new process does between clone and exec, in order. It is a copy of the single-threaded shim, so it may
//! run ordinary code; it never returns.

use super::{
    conversation::{ChildEnds, is_pipe},
    failure::{At, Failure, text},
    mounts, paths,
    users::Users,
};
use crate::{
    cgroup::Group,
    hooks,
    wire::{self, Answer, Body, Caps, Launch, Process, Received},
};
use rustix::{
    event::{PollFd, PollFlags},
    fs::{Gid, Mode, OFlags, Uid},
    io::Errno,
    mount::{MoveMountFlags, OpenTreeFlags},
    process::{DumpableBehavior, Pid, Signal, WaitOptions},
    pty::OpenptFlags,
};
use std::{
    convert::Infallible,
    ffi::{CString, OsStr},
    fs,
    io::Read,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};
use sys::{
    process::{Cloned, SingleThreaded, Vectors},
    seccomp::Instruction,
};

/// Number of capabilities known here. Source: linux/capability.h.
pub const CAPABILITIES: u32 = 41;
/// Number of `CAP_SYS_ADMIN`.
const SYS_ADMIN: u32 = 21;

const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const DEFAULT_UMASK: u32 = 0o022;

/// What the container's first process needs.
#[derive(Debug)]
pub(super) struct First<'a> {
    pub(super) launch: &'a Launch,
    pub(super) dir: &'a Path,
    pub(super) group: Option<&'a Group>,
    /// Namespaces that exist already, by kind.
    pub(super) joined: Vec<(i32, OwnedFd)>,
    pub(super) new_cgroup_namespace: bool,
    pub(super) proof: SingleThreaded,
    /// What the usher made ready, where there is a user namespace.
    pub(super) prepared: Option<mounts::Prepared>,
}

/// What a further process needs.
#[derive(Debug)]
pub(super) struct Further<'a> {
    pub(super) launch: &'a Launch,
    pub(super) group: Option<&'a Group>,
    pub(super) init: BorrowedFd<'a>,
    pub(super) proof: SingleThreaded,
}

/// Runs `steps`, which end in exec or in a reason; tells the reason and ends.
pub(super) fn run(
    conversation: OwnedFd,
    steps: impl FnOnce(BorrowedFd<'_>) -> Result<Infallible, Failure>,
) -> ! {
    let result = catch_unwind(AssertUnwindSafe(|| steps(conversation.as_fd())));
    let failure = match result {
        Ok(Err(failure)) => failure,
        Err(_) => Failure::other("the container's process panicked while it was made; see shim.log".into()),
    };
    let body = Body::Failed(wire::Failed { message: failure.message, exec_code: failure.exec_code });
    // If the shim is gone there is nobody to tell.
    drop(wire::send(conversation.as_fd(), &Answer { version: wire::VERSION, seq: 0, body: Some(body) }, &[]));
    sys::process::exit_now(if failure.exec_code == 0 { 1 } else { failure.exec_code })
}

/// What the usher of a container with a user namespace does for its first process, to which it then goes.
pub(super) fn prepare(
    plan: &First<'_>,
    process: &Process,
    users: &Users,
) -> Result<mounts::Prepared, Failure> {
    set_oom_score(process, false)?;
    raise_limits(process)?;
    hide()?;
    enter_group(plan.group)?;
    join(&plan.joined)?;
    let prepared = mounts::prepare(plan.launch, plan.dir, users)?;
    sys::process::join_namespaces(users.namespace.as_fd(), libc::CLONE_NEWUSER)
        .at(|| "cannot join the user namespace".into())?;
    Ok(prepared)
}

fn enter_group(group: Option<&Group>) -> Result<(), Failure> {
    let entered = group.map_or(Ok(()), Group::enter);
    entered.map_err(|error| Failure::other(format!("cannot enter the cgroup: {error}")))
}

fn join(namespaces: &[(i32, OwnedFd)]) -> Result<(), Failure> {
    namespaces.iter().try_for_each(|(flag, fd)| {
        sys::process::join_namespaces(fd.as_fd(), *flag).at(|| format!("cannot join namespace {flag:#x}"))
    })
}

/// Becomes root of the user namespace, where so far this process is nobody.
fn become_root() -> Result<(), Failure> {
    let step = || "cannot become root of the user namespace".to_owned();
    rustix::thread::set_thread_groups(&[]).at(step)?;
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).at(step)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).at(step)
}

/// Sets kernel parameters; returns those that could not be, and why.
fn set_sysctls<'a>(sysctls: impl Iterator<Item = &'a wire::Pair>) -> Vec<(&'a wire::Pair, std::io::Error)> {
    let set = |pair: &wire::Pair| fs::write(format!("/proc/sys/{}", pair.key), &pair.value);
    sysctls.filter_map(|pair| set(pair).err().map(|error| (pair, error))).collect()
}

/// The container's first process.
pub(super) fn first(
    plan: &First<'_>,
    process: &Process,
    ends: ChildEnds,
    conversation: BorrowedFd<'_>,
) -> Result<Infallible, Failure> {
    let launch = plan.launch;
    if plan.prepared.is_none() {
        set_oom_score(process, launch.userns_squash)?;
        hide()?;
        enter_group(plan.group)?;
        join(&plan.joined)?;
    }
    if plan.new_cgroup_namespace {
        sys::process::unshare_namespaces(libc::CLONE_NEWCGROUP)
            .at(|| "cannot make a cgroup namespace".into())?;
    }
    let mut refused = set_sysctls(launch.sysctls.iter());
    let mut memory = None;
    if plan.prepared.is_some() {
        // Its owner is the host's root, as which this process still passes.
        memory = paths::open_here("/proc/self/mem", OFlags::WRONLY).ok().filter(|_| launch.init);
        become_root()?;
        // Some parameters are the host's root's, others that of the namespace; it depends on the kernel, too.
        refused = set_sysctls(refused.into_iter().map(|(sysctl, _)| sysctl));
    }
    if let Some((sysctl, error)) = refused.into_iter().next() {
        Err(error).at(|| format!("cannot set sysctl {}", sysctl.key))?;
    }
    if launch.hooks.as_ref().is_some_and(|hooks| !hooks.create_runtime.is_empty()) {
        tell(conversation, &[])?;
        await_start(conversation);
    }
    mounts::build(launch, plan.dir, plan.group, plan.prepared.as_ref())?;
    if let Some(name) = &launch.hostname {
        rustix::system::sethostname(name.as_bytes()).at(|| format!("cannot set hostname {name:?}"))?;
    }
    if let Some(name) = &launch.domainname {
        rustix::system::setdomainname(name.as_bytes()).at(|| format!("cannot set domain name {name:?}"))?;
    }
    let streams = open_streams(process, ends, true, conversation)?;
    if !process.tty {
        tell(conversation, &[])?;
    }
    await_start(conversation);
    if launch.init {
        become_init(plan, process, streams, memory, conversation)
    } else {
        execute(launch, process, streams, true)
    }
}

/// A further process: the container exists, its program is executed at once.
pub(super) fn further(
    plan: &Further<'_>,
    process: &Process,
    ends: ChildEnds,
    conversation: BorrowedFd<'_>,
) -> Result<Infallible, Failure> {
    let launch = plan.launch;
    let of_container = launch.process.as_ref().and_then(|process| process.oom_score_adj);
    let oom_score_adj = process.oom_score_adj.or(of_container);
    let process = &Process {
        oom_score_adj,
        seccomp: launch.process.as_ref().map(|process| process.seccomp.clone()).unwrap_or_default(),
        seccomp_flags: launch.process.as_ref().map_or(0, |process| process.seccomp_flags),
        apparmor_profile: launch
            .process
            .as_ref()
            .map(|process| process.apparmor_profile.clone())
            .unwrap_or_default(),
        ..process.clone()
    };
    set_oom_score(process, launch.userns_squash)?;
    hide()?;
    enter_group(plan.group)?;
    let mut flags = libc::CLONE_NEWNS;
    if launch.users.is_some() {
        raise_limits(process)?;
        flags |= libc::CLONE_NEWUSER;
    }
    for namespace in &launch.namespaces {
        flags |= i32::try_from(namespace.flag).unwrap_or(0);
    }
    // A child cannot change its own process namespace; it was born in the right one.
    flags &= !libc::CLONE_NEWPID;
    sys::process::join_namespaces(plan.init, flags).at(|| "cannot join the container's namespaces".into())?;
    if launch.users.is_some() {
        become_root()?;
    }
    rustix::process::chdir("/").at(|| "cannot change into the container".into())?;
    let _ = plan.proof;
    let streams = open_streams(process, ends, false, conversation)?;
    execute(launch, process, streams, false)
}

fn tell(conversation: BorrowedFd<'_>, fds: &[BorrowedFd<'_>]) -> Result<(), Failure> {
    let done = Answer { version: wire::VERSION, seq: 0, body: Some(Body::Done(wire::Empty {})) };
    wire::send(conversation, &done, fds).at(|| "cannot tell the shim".into())
}

/// Waits for the word to start; ends when the shim is gone.
fn await_start(conversation: BorrowedFd<'_>) {
    loop {
        match wire::receive::<Answer>(conversation) {
            Ok(Received::Message(..)) => return,
            Ok(Received::Nothing) => {
                let mut fds = [PollFd::from_borrowed_fd(conversation, PollFlags::IN)];
                if !matches!(rustix::event::poll(&mut fds, None), Ok(_) | Err(Errno::INTR)) {
                    sys::process::exit_now(1);
                }
            }
            Ok(Received::End) | Err(_) => sys::process::exit_now(1),
        }
    }
}

/// Keeps processes of the container from looking into this copy of the shim and through its descriptors, which
/// lead to the host (CVE-2016-9962, CVE-2024-21626). Ends with exec.
fn hide() -> Result<(), Failure> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .at(|| "cannot hide the process".into())
}

fn set_oom_score(process: &Process, squash: bool) -> Result<(), Failure> {
    // The shim's own score is inherited and must not stay.
    let score = process.oom_score_adj.unwrap_or(0);
    match fs::write("/proc/self/oom_score_adj", score.to_string()) {
        Err(_) if squash => Ok(()),
        result => result.at(|| format!("cannot set oom_score_adj {score}")),
    }
}

/// Descriptors that become 0, 1 and 2.
struct Streams {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

fn open_streams(
    process: &Process,
    ends: ChildEnds,
    console: bool,
    conversation: BorrowedFd<'_>,
) -> Result<Streams, Failure> {
    if process.tty {
        let step = || "cannot open the terminal".to_owned();
        let slave = open_terminal(process, console, conversation)?;
        let copy = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 3).at(step);
        return Ok(Streams { stdin: copy(&slave)?, stdout: copy(&slave)?, stderr: slave });
    }
    let null = |flags| {
        let step = || "cannot open /dev/null".to_owned();
        let null = paths::open_here("/dev/null", flags).at(step)?;
        if paths::is_null_device(&null).at(step)? {
            return Ok(null);
        }
        Err(Failure::other("/dev/null of the container is not the null device".into()))
    };
    // The program may open /dev/stdout again, as its own user.
    for pipe in [&ends.stdin, &ends.stdout, &ends.stderr].into_iter().flatten() {
        if !is_pipe(pipe) {
            continue;
        }
        rustix::fs::fchown(pipe, Some(Uid::from_raw(process.uid)), Some(Gid::from_raw(process.gid))).ok();
    }
    Ok(Streams {
        stdin: ends.stdin.map_or_else(|| null(OFlags::RDONLY), Ok)?,
        stdout: ends.stdout.map_or_else(|| null(OFlags::WRONLY), Ok)?,
        stderr: ends.stderr.map_or_else(|| null(OFlags::WRONLY), Ok)?,
    })
}

/// Opens a terminal of the container's own devpts, sends its master to the shim and returns the slave.
fn open_terminal(process: &Process, console: bool, conversation: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    let step = || "cannot open a terminal in /dev/pts".to_owned();
    let master = paths::open_here("/dev/pts/ptmx", OFlags::RDWR).at(step)?;
    rustix::pty::unlockpt(&master).at(step)?;
    let slave = rustix::pty::ioctl_tiocgptpeer(
        &master,
        OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
    )
    .at(step)?;
    if process.rows > 0 && process.cols > 0 {
        let cells = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
        sys::process::set_terminal_size(master.as_fd(), cells(process.rows), cells(process.cols)).at(step)?;
    }
    rustix::fs::fchown(&slave, Some(Uid::from_raw(process.uid)), None).ok();
    if console {
        let step = || "cannot make /dev/console".to_owned();
        let flags = OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let place = rustix::fs::open("/dev/console", flags, Mode::from_raw_mode(0o620)).at(step)?;
        let flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        let tree = rustix::mount::open_tree(&slave, c"", flags).at(step)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        rustix::mount::move_mount(&tree, c"", &place, c"", flags).at(step)?;
    }
    tell(conversation, &[master.as_fd()])?;
    Ok(slave)
}

/// Makes the program a child of this process, which stays as pid 1: it passes signals on and reaps.
fn become_init(
    plan: &First<'_>,
    process: &Process,
    streams: Streams,
    memory: Option<OwnedFd>,
    conversation: BorrowedFd<'_>,
) -> Result<Infallible, Failure> {
    // Whoever enters the container must not look into this copy of the shim.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .at(|| "cannot hide the init".into())?;
    sys::signal::block_all().at(|| "cannot block signals".into())?;
    let launch = plan.launch;
    // Best effort: the name that Docker's init has. Before there is a program that could read what stood there.
    rustix::thread::set_name(c"docker-init").ok();
    show_as_init(process, memory);
    match sys::process::clone3(plan.proof, 0, None).at(|| "cannot clone the program's process".into())? {
        Cloned::Child => {
            let conversation =
                rustix::io::fcntl_dupfd_cloexec(conversation, 3).at(|| "cannot copy".into())?;
            run(conversation, |_| execute(launch, process, streams, true))
        }
        Cloned::Parent { pid, pidfd } => {
            drop((pidfd, streams));
            rustix::process::chdir("/").at(|| "cannot change directory".into())?;
            take_identity(process, launch.userns_squash, 0)?;
            die_with_shim();
            sys::process::close_all_and_become(init_loop, pid.as_raw_nonzero().get())
        }
    }
}

/// Shows `/sbin/docker-init -- PROGRAM..` as the command line in place of the shim's, which names paths of the host. As
/// much of it as there was room for; Linux shows it from this process' own memory. Source: proc_pid_cmdline(5),
/// `arg_start` and `arg_end` of proc_pid_stat(5). `memory`: this process's own, where it was opened before.
fn show_as_init(process: &Process, memory: Option<OwnedFd>) {
    let mut line = b"/sbin/docker-init\0--\0".to_vec();
    for word in &process.args {
        line.extend(word.iter().chain(&[0]));
    }
    let kernels = |path, flags| {
        paths::open_here(path, flags).ok().filter(|file| paths::is_proc(file).is_ok()).map(fs::File::from)
    };
    let mut stat = String::new();
    if kernels("/proc/self/stat", OFlags::RDONLY).and_then(|mut f| f.read_to_string(&mut stat).ok()).is_none()
    {
        return;
    }
    let fields =
        stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect::<Vec<_>>()).unwrap_or_default();
    // The first of these is the third of all.
    let number = |nth: usize| fields.get(nth - 3).and_then(|text| text.trim().parse::<u64>().ok());
    let memory = memory.map(fs::File::from);
    let memory = memory.or_else(|| kernels("/proc/self/mem", OFlags::WRONLY));
    for (from, to, text) in [(48, 49, line.as_slice()), (50, 51, &[])] {
        let (Some(from), Some(to)) = (number(from), number(to)) else { return };
        let mut room = vec![0; usize::try_from(to.saturating_sub(from)).unwrap_or(0).min(1 << 20)];
        let length = text.len().min(room.len().saturating_sub(1));
        room[..length].copy_from_slice(&text[..length]);
        // Best effort: whether it is shown or not, nothing depends on it.
        if let Some(memory) = &memory {
            std::os::unix::fs::FileExt::write_all_at(memory, &room, from).ok();
        }
    }
}

/// Passes signals to the program, reaps whoever ends, and ends as the program did.
fn init_loop(program: i32) -> Infallible {
    let program = Pid::from_raw(program);
    loop {
        let signal = sys::signal::wait_any().unwrap_or(libc::SIGCHLD);
        if signal != libc::SIGCHLD {
            if let (Some(pid), Some(signal)) = (program, Signal::from_named_raw(signal)) {
                rustix::process::kill_process(pid, signal).ok();
            }
            continue;
        }
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if Some(pid) == program {
                let code =
                    status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
                sys::process::exit_now(code.unwrap_or(1));
            }
        }
    }
}

/// The program ends when its shim is killed: a container without supervisor is none.
fn die_with_shim() {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).ok();
}

/// Becomes the program; `first`: the container's own, not an exec's.
fn execute(launch: &Launch, process: &Process, streams: Streams, first: bool) -> Result<Infallible, Failure> {
    let squash = launch.userns_squash;
    rustix::process::setsid().at(|| "cannot make a session".into())?;
    if process.tty {
        rustix::process::ioctl_tiocsctty(&streams.stdin).at(|| "cannot take the terminal".into())?;
    }
    rustix::stdio::dup2_stdin(&streams.stdin).at(|| "cannot set standard input".into())?;
    rustix::stdio::dup2_stdout(&streams.stdout).at(|| "cannot set standard output".into())?;
    rustix::stdio::dup2_stderr(&streams.stderr).at(|| "cannot set standard error".into())?;
    drop(streams);
    set_rlimits(process, squash)?;
    let candidates = Program::find(process);
    let args = vectors(process.args.iter().cloned());
    let env = vectors(environment(process));
    rustix::process::umask(Mode::from_raw_mode(process.umask.unwrap_or(DEFAULT_UMASK)));
    confine(process)?;
    sys::process::close_on_exec_from(3).at(|| "cannot close descriptors".into())?;
    sys::signal::reset_all();

    // Root may enter directories that the user may not, and the other way round on network filesystems.
    let entered = enter_directory(&process.cwd);
    let program = seccomp(process);
    // A profile may deny anything but what follows its filter, so that is as little as there can be: with
    // no_new_privs nothing but execve. Without, only a privileged process may install a filter, and it gives that
    // privilege away afterwards.
    let gives_up = !program.is_empty() && !process.no_new_privs;
    take_identity(process, squash, if gives_up { 1 << SYS_ADMIN } else { 0 })?;
    if entered.is_err() {
        enter_directory(&process.cwd)?;
    }
    die_with_shim();
    if let Some(all) = launch.hooks.as_ref().filter(|_| first) {
        let pid = rustix::process::getpid();
        hooks::run(&all.start_container, launch, hooks::Status::Created, pid).map_err(Failure::other)?;
    }
    if process.no_new_privs {
        rustix::thread::set_no_new_privs(true).at(|| "cannot set no_new_privs".into())?;
    }
    if !program.is_empty() {
        sys::seccomp::install(&program, process.seccomp_flags)
            .at(|| "cannot install the seccomp filter".into())?;
    }
    let Caps { effective, permitted, inheritable, .. } = process.caps.unwrap_or_default();
    if gives_up && effective & permitted & (1 << SYS_ADMIN) == 0 {
        sys::caps::set(effective, permitted, inheritable).at(|| "cannot set capabilities".into())?;
    }
    Err(candidates.execute(&args, &env))
}

/// Has the program run under the AppArmor profile that was asked for. Source: kernel
/// Documentation/admin-guide/LSM/apparmor.rst; runc `libcontainer/apparmor`.
fn confine(process: &Process) -> Result<(), Failure> {
    let profile = &process.apparmor_profile;
    if profile.is_empty() {
        return Ok(());
    }
    let step = || format!("unable to apply apparmor profile {profile:?}");
    let open = |path: &str| paths::open_here(path, OFlags::WRONLY);
    let place = open("/proc/self/attr/apparmor/exec").or_else(|_| open("/proc/self/attr/exec")).at(step)?;
    paths::is_proc(&place).at(step)?;
    rustix::io::write(&place, format!("exec {profile}").as_bytes()).map(drop).at(step)
}

fn set_rlimits(process: &Process, squash: bool) -> Result<(), Failure> {
    for limit in &process.rlimits {
        match sys::process::set_rlimit(limit.resource, limit.soft, limit.hard) {
            // Raising a hard limit is for the real root.
            Err(Errno::PERM) if squash => {}
            result => result.at(|| format!("cannot set rlimit {}", limit.resource))?,
        }
    }
    Ok(())
}

/// Raises hard limits to those that are asked for, while this process has the host's right to do so; [`set_rlimits`]
/// does the rest in the user namespace.
fn raise_limits(process: &Process) -> Result<(), Failure> {
    for limit in &process.rlimits {
        let step = || format!("cannot set rlimit {}", limit.resource);
        let (soft, hard) = sys::process::rlimit(limit.resource).at(step)?;
        if limit.hard > hard {
            sys::process::set_rlimit(limit.resource, soft, limit.hard).at(step)?;
        }
    }
    Ok(())
}

/// Changes the working directory, and refuses one that is outside of the root (CVE-2024-21626).
fn enter_directory(cwd: &[u8]) -> Result<(), Failure> {
    let shown = String::from_utf8_lossy(cwd);
    let step = || format!("chdir to cwd ({shown:?}) set in config.json failed");
    rustix::process::chdir(OsStr::from_bytes(cwd)).map_err(|errno| {
        let exec_code = match errno {
            Errno::NOENT => 127,
            Errno::ACCESS => 126,
            _ => 0,
        };
        Failure { exec_code, ..Failure::at(step(), errno) }
    })?;
    let inside = rustix::process::getcwd(Vec::new()).is_ok_and(|path| path.as_bytes().first() == Some(&b'/'));
    if inside {
        Ok(())
    } else {
        Err(Failure::other("current working directory is outside of container root".into()))
    }
}

/// User, groups and capabilities; those of `kept` stay besides.
fn take_identity(process: &Process, squash: bool, kept: u64) -> Result<(), Failure> {
    let wanted = process.caps.unwrap_or_default();
    for capability in 0..64 {
        if wanted.bounding & (1 << capability) == 0 {
            sys::caps::drop_from_bounding_set(capability).at(|| "cannot drop capabilities".into())?;
        }
    }
    // Capabilities survive the change of user until they are set right below.
    rustix::thread::set_keep_capabilities(true).at(|| "cannot keep capabilities".into())?;
    let unmapped = |result: Result<(), Errno>, what: &str| match result {
        Err(Errno::PERM | Errno::INVAL) if squash => Ok(()),
        result => result.at(|| format!("cannot set {what}")),
    };
    let groups: Vec<Gid> = process.groups.iter().map(|&gid| Gid::from_raw(gid)).collect();
    unmapped(rustix::thread::set_thread_groups(&groups), "supplementary groups")?;
    let gid = Gid::from_raw(process.gid);
    unmapped(rustix::thread::set_thread_res_gid(gid, gid, gid), "group")?;
    let uid = Uid::from_raw(process.uid);
    unmapped(rustix::thread::set_thread_res_uid(uid, uid, uid), "user")?;
    let Caps { effective, permitted, inheritable, ambient, .. } = wanted;
    sys::caps::set(effective | kept, permitted | kept, inheritable)
        .at(|| "cannot set capabilities".into())?;
    // What is not inheritable cannot be ambient; `runc spec` asks for it all the same.
    let ambient = ambient & inheritable & permitted;
    for capability in (0..CAPABILITIES).filter(|n| ambient & (1 << n) != 0) {
        sys::caps::raise_ambient(capability).at(|| "cannot set ambient capabilities".into())?;
    }
    Ok(())
}

fn seccomp(process: &Process) -> Vec<Instruction> {
    let mut program = Vec::with_capacity(process.seccomp.len() / 8);
    for bytes in process.seccomp.chunks_exact(8) {
        program.push(Instruction {
            code: u16::from_le_bytes([bytes[0], bytes[1]]),
            jump_true: bytes[2],
            jump_false: bytes[3],
            k: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        });
    }
    program
}

fn c_string(bytes: Vec<u8>) -> CString {
    // The daemon refuses NUL in what it hands over.
    CString::new(bytes.into_iter().take_while(|&byte| byte != 0).collect::<Vec<_>>()).unwrap_or_default()
}

fn vectors(strings: impl Iterator<Item = Vec<u8>>) -> Vectors {
    Vectors::new(strings.map(c_string).collect())
}

/// The environment, with HOME from the container's passwd when nobody set it, as runc does.
fn environment(process: &Process) -> impl Iterator<Item = Vec<u8>> {
    let mut env = process.env.clone();
    if !env.iter().any(|entry| entry.starts_with(b"HOME=")) {
        let passwd = passwd().unwrap_or_default();
        let home = home_of(&passwd, process.uid).unwrap_or_else(|| b"/".to_vec());
        env.push([b"HOME=", home.as_slice()].concat());
    }
    env.into_iter()
}

/// Reads the container's /etc/passwd, if that is an ordinary file of ordinary length.
fn passwd() -> Option<Vec<u8>> {
    /// *Unit:* bytes.
    const MAX: u64 = 16 << 20;
    let file = fs::File::from(paths::open_here("/etc/passwd", OFlags::RDONLY).ok()?);
    let mut content = Vec::new();
    file.metadata().ok().filter(fs::Metadata::is_file)?;
    file.take(MAX).read_to_end(&mut content).ok()?;
    Some(content)
}

fn home_of(passwd: &[u8], uid: u32) -> Option<Vec<u8>> {
    let uid = uid.to_string();
    passwd.split(|&byte| byte == b'\n').find_map(|line| {
        let fields: Vec<&[u8]> = line.split(|&byte| byte == b':').collect();
        (fields.len() >= 6 && fields[2] == uid.as_bytes()).then(|| fields[5].to_vec())
    })
}

/// The program and where it may be.
struct Program {
    name: String,
    searched: bool,
    places: Vec<CString>,
}

impl Program {
    fn find(process: &Process) -> Self {
        let name = process.args.first().cloned().unwrap_or_default();
        let shown = String::from_utf8_lossy(&name).into_owned();
        if name.contains(&b'/') {
            return Self { name: shown, searched: false, places: vec![c_string(name)] };
        }
        let path =
            process.env.iter().rev().find_map(|entry| entry.strip_prefix(b"PATH=")).unwrap_or(DEFAULT_PATH);
        let places = path.split(|&byte| byte == b':').filter(|dir| !dir.is_empty() && !name.is_empty());
        let places = places.map(|dir| c_string([dir, b"/", &name].concat())).collect();
        Self { name: shown, searched: true, places }
    }

    /// Tries each place. The texts are Go's and runc's: clients look for them.
    fn execute(&self, args: &Vectors, env: &Vectors) -> Failure {
        let name = &self.name;
        for place in &self.places {
            let errno = sys::process::execve(place, args, env);
            let there = rustix::fs::stat(place.as_c_str());
            let shown = place.to_string_lossy();
            let (message, exec_code) = match errno {
                Errno::NOENT | Errno::NOTDIR | Errno::ACCESS
                    if self.searched && !matches!(there, Ok(stat) if runnable(stat.st_mode)) =>
                {
                    continue;
                }
                Errno::NOENT if there.is_ok() => (format!("exec {shown}: no such file or directory"), 127),
                Errno::NOENT | Errno::NOTDIR => {
                    (format!("exec: {name:?}: stat {shown}: {}", text(errno)), 127)
                }
                Errno::ACCESS if matches!(there, Ok(stat) if is_directory(stat.st_mode)) => {
                    (format!("exec: {name:?}: is a directory"), 126)
                }
                Errno::ACCESS => (format!("exec: {name:?}: permission denied"), 126),
                other => (format!("exec {shown}: {}", text(other)), 126),
            };
            return Failure { message, exec_code };
        }
        Failure { message: format!("exec: {name:?}: executable file not found in $PATH"), exec_code: 127 }
    }
}

fn is_directory(mode: u32) -> bool {
    mode & libc::S_IFMT == libc::S_IFDIR
}

fn runnable(mode: u32) -> bool {
    mode & libc::S_IFMT == libc::S_IFREG && mode & 0o111 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_comes_from_passwd() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:33::/var/www:/bin/false\n";
        assert_eq!(home_of(passwd, 33), Some(b"/var/www".to_vec()));
        assert_eq!(home_of(passwd, 0), Some(b"/root".to_vec()));
        assert_eq!(home_of(passwd, 7), None);
    }
}
