//! Device rules for cgroup v2: an eBPF program that is asked on every open and mknod.
//!
//! The rules are tested from the last to the first, because the last one that fits decides; without any that
//! fits the answer is no.

use crate::config::{LinuxDeviceCgroup, LinuxDeviceType};

// Registers and opcodes. Source: linux/bpf.h; kernel Documentation/bpf/standardization/instruction-set.rst.
const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const R4: u8 = 4;
const R5: u8 = 5;
/// `BPF_LDX | BPF_MEM | BPF_W`.
const LOAD_WORD: u8 = 0x61;
/// `BPF_ALU | BPF_AND | BPF_K`, `.. | BPF_RSH | ..`, `BPF_ALU | BPF_MOV | BPF_X`, `BPF_ALU64 | BPF_MOV | BPF_K`.
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const MOVE_REGISTER: u8 = 0xbc;
const MOVE: u8 = 0xb7;
/// `BPF_JMP | BPF_JNE | BPF_K`, `BPF_JMP | BPF_JNE | BPF_X`.
const JUMP_UNEQUAL: u8 = 0x55;
const JUMP_UNEQUAL_REGISTER: u8 = 0x5d;
const EXIT: u8 = 0x95;

/// `BPF_DEVCG_DEV_BLOCK`, `_CHAR`; `BPF_DEVCG_ACC_MKNOD`, `_READ`, `_WRITE`.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
const MKNOD: i32 = 1;
/// Instructions of an answer: set the result, exit.
const ANSWER: usize = 2;
const READ: i32 = 2;
const WRITE: i32 = 4;

fn instruction(opcode: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[0] = opcode;
    bytes[1] = source << 4 | destination;
    bytes[2..4].copy_from_slice(&offset.to_le_bytes());
    bytes[4..8].copy_from_slice(&immediate.to_le_bytes());
    bytes
}

/// Returns the program in the kernel's layout.
///
/// # Errors
/// In words: a rule that names no possible device.
pub(super) fn program(rules: &[LinuxDeviceCgroup]) -> Result<Vec<u8>, String> {
    // struct bpf_cgroup_dev_ctx { u32 access_type; /* access << 16 | type */ u32 major; u32 minor; }
    let mut program = vec![
        instruction(LOAD_WORD, R2, R1, 0, 0),
        instruction(AND, R2, 0, 0, 0xffff),
        instruction(LOAD_WORD, R3, R1, 0, 0),
        instruction(SHIFT_RIGHT, R3, 0, 0, 16),
        instruction(LOAD_WORD, R4, R1, 4, 0),
        instruction(LOAD_WORD, R5, R1, 8, 0),
    ];
    for rule in rules.iter().rev() {
        let block = test(rule)?;
        let decides_all = block.len() == ANSWER;
        program.extend(block);
        if decides_all {
            // The kernel refuses a program with parts that cannot be reached.
            return Ok(program.concat());
        }
    }
    program.extend([instruction(MOVE, R0, 0, 0, 0), instruction(EXIT, 0, 0, 0, 0)]);
    Ok(program.concat())
}

fn test(rule: &LinuxDeviceCgroup) -> Result<Vec<[u8; 8]>, String> {
    let kind = match rule.kind.unwrap_or_default() {
        LinuxDeviceType::A => None,
        LinuxDeviceType::B => Some(BLOCK),
        LinuxDeviceType::C | LinuxDeviceType::U => Some(CHARACTER),
        LinuxDeviceType::P => return Err("device rules do not apply to pipes".into()),
    };
    let access =
        rule.access.as_deref().unwrap_or("rwm").chars().try_fold(0, |bits, letter| match letter {
            'r' => Ok(bits | READ),
            'w' => Ok(bits | WRITE),
            'm' => Ok(bits | MKNOD),
            other => Err(format!("device access {other:?} is none of r, w, m")),
        })?;
    let number = |n: Option<i64>| {
        n.filter(|&n| n >= 0)
            .map(|n| i32::try_from(n).map_err(|_| format!("device number {n} is too large")))
            .transpose()
    };
    let (major, minor) = (number(rule.major)?, number(rule.minor)?);
    let mut tests = Vec::new();
    if let Some(kind) = kind {
        tests.push((JUMP_UNEQUAL, R2, 0, kind));
    }
    if access != READ | WRITE | MKNOD {
        // All that is asked for must be covered: r1 = asked & rule; r1 == asked.
        tests.push((MOVE_REGISTER, R1, R3, 0));
        tests.push((AND, R1, 0, access));
        tests.push((JUMP_UNEQUAL_REGISTER, R1, R3, 0));
    }
    if let Some(major) = major {
        tests.push((JUMP_UNEQUAL, R4, 0, major));
    }
    if let Some(minor) = minor {
        tests.push((JUMP_UNEQUAL, R5, 0, minor));
    }
    let length = tests.len();
    let mut block = Vec::with_capacity(length + ANSWER);
    for (at, (opcode, destination, source, immediate)) in tests.into_iter().enumerate() {
        // Jumps go behind this block: the remaining tests and the two instructions of the answer.
        let jumps = matches!(opcode, JUMP_UNEQUAL | JUMP_UNEQUAL_REGISTER);
        let offset =
            if jumps { i16::try_from(length - at - 1 + ANSWER).map_err(|_| "block too long")? } else { 0 };
        block.push(instruction(opcode, destination, source, offset, immediate));
    }
    block.extend([instruction(MOVE, R0, 0, 0, i32::from(rule.allow)), instruction(EXIT, 0, 0, 0, 0)]);
    Ok(block)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shim::{cgroup::Group, wire::Pair};
    use std::process::Command;

    /// A v2 group where this host lets us make one: its core files need no controllers.
    fn v2_group(name: &str) -> Option<Group> {
        let value = testkit::v2_hierarchy()?;
        let group = Group::new(&testkit::fresh_group(name), &[Pair { key: String::new(), value }]);
        group.create().ok().map(|()| group)
    }

    #[test]
    fn v2_device_program_lets_only_the_allowed_through() {
        let Some(group) = v2_group("devices") else { return };
        let rule = |allow, kind, major, minor, access| {
            LinuxDeviceCgroup::new(allow, Some(kind), major, minor, access)
        };
        let rules = [
            rule(false, LinuxDeviceType::A, None, None, "rwm"),
            rule(true, LinuxDeviceType::C, Some(1), Some(3), "rw"),
            rule(true, LinuxDeviceType::C, Some(1), Some(5), "r"),
        ];
        group.attach_device_program(&program(&rules).unwrap()).unwrap();
        let file = group.dir("").unwrap().join("cgroup.procs");
        let script = format!(
            "echo $$ > {}; (: < /dev/null) && echo 1; (: > /dev/null) && echo 2; (: < /dev/zero) && echo 3; \
             (: > /dev/zero) && echo 4; (: < /dev/full) && echo 5; true",
            file.display()
        );
        let output = Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "1\n2\n3\n");
        group.remove().unwrap();
    }
}
