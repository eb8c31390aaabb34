//! Docker's default profile: what a container may ask of the kernel.

use crate::{
    caps::{Capabilities, Capability},
    config::{
        Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag,
        LinuxSeccompOperator, LinuxSyscall,
    },
};
use std::sync::{Arc, Mutex, PoisonError};

/// Always allowed, on whatever machine has it. `io_uring_*` is not, as in Docker since 25.
const ALLOWED: &str = "accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32 clock_adjtime \
    clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep \
    clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 \
    epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit \
    exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 \
    fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat \
    fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait \
    futex_waitv futex_wake futimesat getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid \
    getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom \
    getresgid getresgid32 getresuid getresuid32 getrlimit get_robust_list getrusage getsid getsockname getsockopt \
    get_thread_area gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init \
    inotify_init1 inotify_rm_watch io_cancel ioctl io_destroy io_getevents io_pgetevents io_pgetevents_time64 \
    ioprio_get ioprio_set io_setup io_submit ipc kill landlock_add_rule landlock_create_ruleset \
    landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr listxattrat llistxattr \
    _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret \
    mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open \
    mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget \
    msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat _newselect open openat \
    openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 \
    prctl pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read \
    readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr \
    removexattrat rename renameat renameat2 restart_syscall riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending \
    rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 \
    rt_tgsigqueueinfo sched_getaffinity sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min \
    sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr \
    sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 \
    send sendfile sendfile64 sendmmsg sendmsg sendto setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 \
    setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid \
    setresuid32 setreuid setreuid32 setrlimit set_robust_list setsid setsockopt set_thread_area set_tid_address \
    setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 \
    sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs statfs64 statmount statx symlink symlinkat \
    sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime \
    timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime \
    timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime \
    utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev \
    process_vm_readv process_vm_writev ptrace";

/// Allowed on this machine and those that it runs programs of.
#[cfg(target_arch = "x86_64")]
const OF_THIS_MACHINE: &str = "arch_prctl modify_ldt";
#[cfg(target_arch = "aarch64")]
const OF_THIS_MACHINE: &str =
    "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls";

/// The machines that a profile covers here. Source: moby `archMap`.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURES: [Arch; 3] = [Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32];
#[cfg(target_arch = "aarch64")]
const ARCHITECTURES: [Arch; 2] = [Arch::ScmpArchAarch64, Arch::ScmpArchArm];

/// Allowed to who has the capability.
const WITH_CAPABILITY: [(Capability, &str); 13] = [
    (Capability::DacReadSearch, "open_by_handle_at"),
    (
        Capability::SysAdmin,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr \
         lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl \
         quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    (Capability::SysBoot, "reboot"),
    (Capability::SysChroot, "chroot"),
    (Capability::SysModule, "delete_module init_module finit_module"),
    (Capability::SysPacct, "acct"),
    (Capability::SysPtrace, "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    (Capability::SysRawio, "iopl ioperm"),
    (Capability::SysTime, "settimeofday stime clock_settime clock_settime64"),
    (Capability::SysTtyConfig, "vhangup"),
    (Capability::SysNice, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    (Capability::Syslog, "syslog"),
    (Capability::Bpf, "bpf"),
];
const PERFMON: (Capability, &str) = (Capability::Perfmon, "perf_event_open");

/// `CLONE_NEW*` of namespaces, which clone may not be asked for.
const NAMESPACE_FLAGS: u64 = 0x7E02_0000;
/// The kernel's own ciphers, a large and seldom used way into it.
const AF_ALG: u64 = 38;
/// Reaches the hypervisor.
const AF_VSOCK: u64 = 40;
const PERSONALITIES: [u64; 5] = [0, 8, 0x0002_0000, 0x0002_0008, 0xFFFF_FFFF];
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Returns Docker's default profile for a container with these capabilities. Source: moby/profiles
/// `seccomp/default.json`, 2026.
///
/// Nearly all containers of a host have the same ones, so the last profile is kept.
#[must_use]
pub fn default_seccomp(capabilities: Capabilities) -> Arc<LinuxSeccomp> {
    static LAST: Mutex<Option<(Capabilities, Arc<LinuxSeccomp>)>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    match last.as_ref() {
        Some((of, profile)) if *of == capabilities => Arc::clone(profile),
        _ => {
            let profile = Arc::new(dockers_default(capabilities));
            *last = Some((capabilities, Arc::clone(&profile)));
            profile
        }
    }
}

fn dockers_default(capabilities: Capabilities) -> LinuxSeccomp {
    let mut syscalls = vec![rule(ALLOWED, LinuxSeccompAction::ScmpActAllow, None, &[])];
    syscalls.push(rule(OF_THIS_MACHINE, LinuxSeccompAction::ScmpActAllow, None, &[]));
    for (capability, names) in WITH_CAPABILITY.into_iter().chain([PERFMON]) {
        if capabilities.contains(capability) {
            syscalls.push(rule(names, LinuxSeccompAction::ScmpActAllow, None, &[]));
        }
    }
    let allow = |name, argument| rule(name, LinuxSeccompAction::ScmpActAllow, None, &[argument]);
    for (operator, family) in [
        (LinuxSeccompOperator::ScmpCmpLt, AF_ALG),
        (LinuxSeccompOperator::ScmpCmpEq, AF_ALG + 1),
        (LinuxSeccompOperator::ScmpCmpGt, AF_VSOCK),
    ] {
        syscalls.push(allow("socket", argument(0, operator, family, None)));
    }
    for value in PERSONALITIES {
        syscalls.push(allow("personality", argument(0, LinuxSeccompOperator::ScmpCmpEq, value, None)));
    }
    if !capabilities.contains(Capability::SysAdmin) {
        let no_namespaces = argument(0, LinuxSeccompOperator::ScmpCmpMaskedEq, NAMESPACE_FLAGS, Some(0));
        syscalls.push(allow("clone", no_namespaces));
        // Its flags are behind a pointer, so libc is told to fall back to clone.
        syscalls.push(rule("clone3", LinuxSeccompAction::ScmpActErrno, Some(ENOSYS), &[]));
    }
    LinuxSeccomp {
        default_action: LinuxSeccompAction::ScmpActErrno,
        default_errno_ret: Some(EPERM),
        architectures: Some(ARCHITECTURES.to_vec()),
        flags: None,
        syscalls: Some(syscalls),
    }
}

fn rule(
    names: &str,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    arguments: &[LinuxSeccompArg],
) -> LinuxSyscall {
    let names = names.split_ascii_whitespace().map(str::to_owned).collect();
    let args = (!arguments.is_empty()).then(|| arguments.to_vec());
    LinuxSyscall { names, action, errno_ret, args }
}

fn argument(index: usize, op: LinuxSeccompOperator, value: u64, value_two: Option<u64>) -> LinuxSeccompArg {
    LinuxSeccompArg { index, value, value_two, op }
}

/// A profile as Docker's files have it: an OCI profile, some of whose rules depend on capabilities, machine and kernel.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct DockerProfile {
    default_action: LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Vec<Arch>,
    #[serde(default)]
    arch_map: Option<Vec<ArchMap>>,
    flags: Option<Vec<LinuxSeccompFilterFlag>>,
    listener_path: Option<String>,
    #[serde(default)]
    syscalls: Option<Vec<DockerRule>>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: Arch,
    sub_architectures: Option<Vec<Arch>>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct DockerRule {
    #[serde(default)]
    name: String,
    #[serde(default)]
    names: Vec<String>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<LinuxSeccompArg>>,
    #[serde(default)]
    includes: Option<Condition>,
    #[serde(default)]
    excludes: Option<Condition>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    #[serde(default)]
    caps: Option<Vec<String>>,
    #[serde(default)]
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

#[cfg(target_arch = "x86_64")]
const DOCKERS_NAME: &str = "amd64";
#[cfg(target_arch = "aarch64")]
const DOCKERS_NAME: &str = "arm64";

/// Reads a profile in the form that `docker run --security-opt seccomp=FILE` sends, for a container with these
/// capabilities, and tries that it can be carried out.
///
/// # Errors
/// In words: it is no such JSON, contradicts itself, or asks for what is not done here.
///
/// *Source:* moby/profiles `seccomp/seccomp_linux.go`, `setupSeccomp`.
pub fn read_seccomp(text: &str, capabilities: Capabilities) -> Result<LinuxSeccomp, String> {
    let profile: DockerProfile = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut architectures = profile.architectures;
    if let Some(map) = profile.arch_map.filter(|map| !map.is_empty()) {
        if !architectures.is_empty() {
            return Err(
                "both 'architectures' and 'archMap' are specified in the seccomp profile, use either \
                        'architectures' or 'archMap'"
                    .into(),
            );
        }
        if let Some(own) = map.into_iter().find(|entry| entry.architecture == ARCHITECTURES[0]) {
            architectures.push(own.architecture);
            architectures.extend(own.sub_architectures.into_iter().flatten());
        }
    }
    let kernel = rustix::system::uname();
    let kernel = kernel_version(&kernel.release().to_string_lossy()).ok_or("this kernel has no version")?;
    let mut syscalls = Vec::new();
    for mut call in profile.syscalls.into_iter().flatten() {
        if !call.name.is_empty() {
            if !call.names.is_empty() {
                return Err(
                    "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or \
                            'names'"
                        .into(),
                );
            }
            call.names.push(std::mem::take(&mut call.name));
        }
        let holds = |condition: &Condition, every: bool| condition.holds(every, capabilities, kernel);
        let excluded = call.excludes.as_ref().map_or(Ok(false), |condition| holds(condition, false))?;
        let included = call.includes.as_ref().map_or(Ok(true), |condition| holds(condition, true))?;
        if excluded || !included || call.names.is_empty() {
            continue;
        }
        syscalls.push(LinuxSyscall {
            names: call.names,
            action: call.action,
            errno_ret: call.errno_ret,
            args: call.args.filter(|arguments| !arguments.is_empty()),
        });
    }
    if profile.listener_path.is_some_and(|path| !path.is_empty()) {
        return Err("listenerPath is not supported".into());
    }
    let profile = LinuxSeccomp {
        default_action: profile.default_action,
        default_errno_ret: profile.default_errno_ret,
        architectures: Some(architectures),
        flags: profile.flags,
        syscalls: Some(syscalls),
    };
    super::compile(&profile)?;
    Ok(profile)
}

impl Condition {
    /// `every`: all of it, else any of it.
    fn holds(&self, every: bool, held: Capabilities, kernel: (u32, u32)) -> Result<bool, String> {
        let mut answers = Vec::new();
        if let Some(arches) = self.arches.as_ref().filter(|arches| !arches.is_empty()) {
            answers.push(arches.iter().any(|arch| arch == DOCKERS_NAME));
        }
        if let Some(names) = self.caps.as_ref().filter(|names| !names.is_empty()) {
            let has =
                |name: &String| Capability::named(name).is_some_and(|capability| held.contains(capability));
            answers.push(if every { names.iter().all(has) } else { names.iter().any(has) });
        }
        if let Some(text) = self.min_kernel.as_ref().filter(|text| !text.is_empty()) {
            let least = kernel_version(text).ok_or_else(|| format!("minKernel {text:?} is no version"))?;
            answers.push(kernel >= least);
        }
        Ok(if every { answers.iter().all(|yes| *yes) } else { answers.iter().any(|yes| *yes) })
    }
}

/// Reads `6.1` of `6.1.0-42-amd64`.
fn kernel_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
