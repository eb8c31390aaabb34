//! bpf(2), as far as device rules of cgroup v2 need it.

use crate::process::check;
use rustix::io::{Errno, Result};
use std::{
    ffi::CStr,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;
/// Size of one eBPF instruction.
const INSTRUCTION_BYTES: usize = 8;

/// The part of `union bpf_attr` that BPF_PROG_LOAD reads here.
#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
}

/// The part of `union bpf_attr` that BPF_PROG_ATTACH reads here.
#[repr(C)]
#[derive(Default)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

/// Loads a device program (eBPF in the kernel's layout) and attaches it to a cgroup2 directory, where it stays
/// until the cgroup is removed.
///
/// # Errors
/// As bpf(2); `ACCES` or `INVAL` when the verifier refuses the program, `PERM` without CAP_BPF.
pub fn attach_device_program(cgroup: BorrowedFd<'_>, program: &[u8]) -> Result<()> {
    const LICENSE: &CStr = c"Apache-2.0";
    let count = u32::try_from(program.len() / INSTRUCTION_BYTES).map_err(|_| Errno::INVAL)?;
    let load = Load {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: count,
        insns: program.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        ..Load::default()
    };
    // JUSTIFICATION: no crate in use speaks bpf(2).
    // SAFETY: the struct is a prefix of `union bpf_attr` of the size given; the pointers in it are valid for
    // `insn_cnt` instructions and a C string while the call lasts; the kernel copies both.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size_of::<Load>()) };
    let number = i32::try_from(check(result)?).map_err(|_| Errno::BADF)?;
    // JUSTIFICATION: the kernel hands the descriptor out as a number.
    // SAFETY: it is new and nobody else owns it.
    let loaded = unsafe { OwnedFd::from_raw_fd(number) };
    let raw = |fd: i32| u32::try_from(fd).map_err(|_| Errno::BADF);
    let attach = Attach {
        target_fd: raw(cgroup.as_raw_fd())?,
        attach_bpf_fd: raw(loaded.as_raw_fd())?,
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI,
    };
    // JUSTIFICATION: as above.
    // SAFETY: the struct is a prefix of `union bpf_attr` of the size given and holds no pointers.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attach, size_of::<Attach>()) };
    check(result).map(|_| ())
}
