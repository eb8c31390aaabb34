//! From an OCI profile to a BPF program: a binary search over ranges of system call numbers.
//!
//! A profile is a few hundred names, most of them with the same answer; neighbours with the same answer make one
//! range, and about six comparisons find it, where a chain of tests would need hundreds on each system call.

use super::numbers::{Machine, number};
use crate::config::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator,
};
use std::collections::BTreeMap;
use sys::seccomp::Instruction;

/// `BPF_LD | BPF_W | BPF_ABS`: loads a word of `struct seccomp_data`.
const LOAD: u16 = 0x20;
/// `BPF_ALU | BPF_AND | BPF_K`.
const AND: u16 = 0x54;
/// `BPF_JMP | BPF_JA`.
const JUMP: u16 = 0x05;
/// `BPF_JMP | BPF_JEQ | BPF_K`.
const JUMP_EQUAL: u16 = 0x15;
/// `BPF_JMP | BPF_JGT | BPF_K`.
const JUMP_GREATER: u16 = 0x25;
/// `BPF_JMP | BPF_JGE | BPF_K`.
const JUMP_GREATER_EQUAL: u16 = 0x35;
/// `BPF_RET | BPF_K`.
const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data`. Source: linux/seccomp.h.
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCHITECTURE: u32 = 4;
const OFFSET_ARGUMENTS: u32 = 16;

/// `AUDIT_ARCH_*`. Source: linux/audit.h.
const AUDIT_X86_64: u32 = 0xC000_003E;
const AUDIT_X86: u32 = 0x4000_0003;
const AUDIT_AARCH64: u32 = 0xC000_00B7;
const AUDIT_ARM: u32 = 0x4000_0028;
/// `__ARM_NR_BASE`: what ARM alone has lies above all calls to come. Source: arch/arm, asm/unistd.h.
const ARM_PRIVATE: u32 = 0x000f_0000;
/// Set in the numbers of the x32 calling convention.
const X32_BIT: u32 = 0x4000_0000;

#[cfg(target_arch = "x86_64")]
const NATIVE: Machine = Machine::X86_64;
#[cfg(target_arch = "aarch64")]
const NATIVE: Machine = Machine::Aarch64;

/// What 32-bit x86 asks of the kernel through one call with a number. Source: linux/net.h, linux/ipc.h.
const SOCKET_CALLS: [(&str, u64); 20] = [
    ("socket", 1),
    ("bind", 2),
    ("connect", 3),
    ("listen", 4),
    ("accept", 5),
    ("getsockname", 6),
    ("getpeername", 7),
    ("socketpair", 8),
    ("send", 9),
    ("recv", 10),
    ("sendto", 11),
    ("recvfrom", 12),
    ("shutdown", 13),
    ("setsockopt", 14),
    ("getsockopt", 15),
    ("sendmsg", 16),
    ("recvmsg", 17),
    ("accept4", 18),
    ("recvmmsg", 19),
    ("sendmmsg", 20),
];
const IPC_CALLS: [(&str, u64); 12] = [
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
];

const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_KILL_THREAD: u32 = 0;
const RET_TRAP: u32 = 0x0003_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_TRACE: u32 = 0x7ff0_0000;
const RET_LOG: u32 = 0x7ffc_0000;
const RET_ALLOW: u32 = 0x7fff_0000;
const ENOSYS: u32 = 38;
const EPERM: u32 = 1;

/// Longest program that the kernel takes. Source: `BPF_MAXINSNS`.
const INSTRUCTIONS_MAX: usize = 4096;

/// What one system call gets: the first rule whose arguments match, else `otherwise`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Verdict {
    rules: Vec<(Vec<LinuxSeccompArg>, u32)>,
    otherwise: u32,
}

/// Returns the program and the flags for seccomp(2).
///
/// # Errors
/// In words: an action or flag that this program does not do, or a profile that is too long. Names that this
/// machine does not have are skipped, as every runtime does.
pub(crate) fn compile(profile: &LinuxSeccomp) -> Result<(Vec<Instruction>, u32), String> {
    let default = action(profile.default_action, profile.default_errno_ret)?;
    let mut machines = vec![NATIVE];
    for architecture in profile.architectures.iter().flatten() {
        let machine = match architecture {
            Arch::ScmpArchX86_64 => Machine::X86_64,
            Arch::ScmpArchX86 => Machine::X86,
            Arch::ScmpArchX32 => Machine::X32,
            Arch::ScmpArchAarch64 => Machine::Aarch64,
            Arch::ScmpArchArm => Machine::Arm,
            _ => continue, // no kernel of ours runs programs of it
        };
        if !machines.contains(&machine) {
            machines.push(machine);
        }
    }
    let tables = machines.into_iter().map(|machine| Ok((machine, ranges(profile, default, machine)?)));
    let program = assemble(&tables.collect::<Result<BTreeMap<_, _>, String>>()?, default);
    if program.len() > INSTRUCTIONS_MAX {
        return Err(format!("seccomp profile needs {} instructions, the kernel takes 4096", program.len()));
    }
    Ok((program, flags(profile)?))
}

fn flags(profile: &LinuxSeccomp) -> Result<u32, String> {
    let mut flags = 0;
    for flag in profile.flags.iter().flatten() {
        flags |= match flag {
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => 1 << 1,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => 1 << 2,
            // One thread: there is nothing to synchronize.
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 0,
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
                return Err("seccomp flag SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV is not supported".into());
            }
        };
    }
    Ok(flags)
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32, String> {
    let errno = errno.unwrap_or(EPERM) & 0xffff;
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => RET_KILL_THREAD,
        LinuxSeccompAction::ScmpActKillProcess => RET_KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => RET_TRAP,
        LinuxSeccompAction::ScmpActErrno => RET_ERRNO | errno,
        LinuxSeccompAction::ScmpActTrace => RET_TRACE | errno,
        LinuxSeccompAction::ScmpActLog => RET_LOG,
        LinuxSeccompAction::ScmpActAllow => RET_ALLOW,
        LinuxSeccompAction::ScmpActNotify => {
            return Err("seccomp action SCMP_ACT_NOTIFY is not supported".into());
        }
    })
}

/// Returns where each range of numbers starts, the first at 0, with its verdict.
fn ranges(profile: &LinuxSeccomp, default: u32, machine: Machine) -> Result<Vec<(u32, Verdict)>, String> {
    let mut verdicts: BTreeMap<u32, Verdict> = BTreeMap::new();
    for rule in profile.syscalls.iter().flatten() {
        let answer = action(rule.action, rule.errno_ret)?;
        let arguments: Vec<LinuxSeccompArg> = rule.args.clone().unwrap_or_default();
        if arguments.iter().any(|argument| argument.index > 5) {
            return Err(format!("seccomp rule for {:?} names an argument beyond the sixth", rule.names));
        }
        let mut decide = |number: u32, arguments: Vec<LinuxSeccompArg>| {
            let verdict =
                verdicts.entry(number).or_insert_with(|| Verdict { rules: Vec::new(), otherwise: default });
            if arguments.is_empty() {
                // The first unconditional rule counts; Docker's order has none that contradict.
                if verdict.otherwise == default {
                    verdict.otherwise = answer;
                }
            } else {
                verdict.rules.push((arguments, answer));
            }
        };
        for name in &rule.names {
            if let Some(number) = number(name, machine) {
                for arguments in alternatives(&arguments) {
                    decide(number, arguments);
                }
            }
            // What is behind a pointer cannot be judged, so a condition on it says nothing there.
            if machine == Machine::X86 && arguments.is_empty() {
                for (through, calls) in [("socketcall", &SOCKET_CALLS[..]), ("ipc", &IPC_CALLS[..])] {
                    let of = calls.iter().find(|(call, _)| *call == name);
                    if let (Some((_, call)), Some(number)) = (of, number(through, machine)) {
                        decide(number, vec![equal(0, *call)]);
                    }
                }
            }
        }
    }
    let plain = Verdict { rules: Vec::new(), otherwise: default };
    let mut ranges: Vec<(u32, Verdict)> = vec![(0, plain.clone())];
    let mut add = |start: u32, verdict: Verdict| match ranges.last_mut() {
        Some((at, last)) if *at == start => *last = verdict,
        Some((_, last)) if *last == verdict => {}
        _ => ranges.push((start, verdict)),
    };
    // A program that is newer than the profile must see that a call is missing, to fall back to an older one. Source:
    // runc `libcontainer/seccomp/patchbpf`.
    let lenient = matches!(default, RET_ALLOW | RET_LOG) || default & 0xffff_0000 == RET_TRACE;
    let newer = if lenient { default } else { RET_ERRNO | ENOSYS };
    let newer = Verdict { rules: Vec::new(), otherwise: newer };
    let mut next = 0;
    for (number, verdict) in verdicts {
        if number > next {
            let to_come = next < ARM_PRIVATE && number >= ARM_PRIVATE;
            add(next, if to_come { newer.clone() } else { plain.clone() });
        }
        // Conditions that lead to the same answer anyway are no conditions.
        let trivial = verdict.rules.iter().all(|(_, answer)| *answer == verdict.otherwise);
        add(number, if trivial { Verdict { rules: Vec::new(), ..verdict } } else { verdict });
        next = number + 1;
    }
    add(next, newer);
    ranges.dedup_by(|b, a| a.1 == b.1);
    Ok(ranges)
}

fn op(code: u16, k: u32) -> Instruction {
    Instruction { code, jump_true: 0, jump_false: 0, k }
}

/// Tests the accumulator; the targets are counted in instructions after this one.
fn test(code: u16, k: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code, jump_true, jump_false, k }
}

fn assemble(tables: &BTreeMap<Machine, Vec<(u32, Verdict)>>, default: u32) -> Vec<Instruction> {
    let mut program = vec![op(LOAD, OFFSET_ARCHITECTURE)];
    for (machine, ranges) in tables {
        let (audit, block) = match machine {
            Machine::X86_64 => (AUDIT_X86_64, x86_64(ranges, tables.get(&Machine::X32), default)),
            Machine::X32 => continue, // a part of the one above
            Machine::X86 => (AUDIT_X86, plain(ranges)),
            Machine::Aarch64 => (AUDIT_AARCH64, plain(ranges)),
            Machine::Arm => (AUDIT_ARM, plain(ranges)),
        };
        let length = u32::try_from(block.len()).expect("bounded by the number of system calls");
        program.extend([test(JUMP_EQUAL, audit, 1, 0), op(JUMP, length)]);
        program.extend(block);
    }
    // Programs of a machine that the profile does not cover, as with libseccomp.
    program.push(op(RETURN, RET_KILL_THREAD));
    program
}

fn plain(ranges: &[(u32, Verdict)]) -> Vec<Instruction> {
    let mut block = vec![op(LOAD, OFFSET_NUMBER)];
    block.extend(search(ranges));
    block
}

fn x86_64(ranges: &[(u32, Verdict)], x32: Option<&Vec<(u32, Verdict)>>, default: u32) -> Vec<Instruction> {
    let own = search(ranges);
    let length = u32::try_from(own.len()).expect("bounded by the number of system calls");
    let mut block = vec![op(LOAD, OFFSET_NUMBER), test(JUMP_GREATER_EQUAL, X32_BIT, 0, 1), op(JUMP, length)];
    block.extend(own);
    // A tracer's "no call at all".
    block.extend([test(JUMP_EQUAL, u32::MAX, 0, 1), op(RETURN, default)]);
    match x32 {
        Some(ranges) => {
            block.push(op(AND, !X32_BIT));
            block.extend(search(ranges));
        }
        None => block.push(op(RETURN, RET_KILL_THREAD)),
    }
    block
}

/// Two conditions on one argument are two rules. Source: runc `libcontainer/seccomp`, `matchCall`.
fn alternatives(arguments: &[LinuxSeccompArg]) -> Vec<Vec<LinuxSeccompArg>> {
    let twice =
        arguments.iter().any(|one| arguments.iter().filter(|other| other.index == one.index).count() > 1);
    if twice { arguments.iter().map(|one| vec![*one]).collect() } else { vec![arguments.to_vec()] }
}

fn equal(index: usize, value: u64) -> LinuxSeccompArg {
    LinuxSeccompArg { index, value, value_two: None, op: LinuxSeccompOperator::ScmpCmpEq }
}

fn search(ranges: &[(u32, Verdict)]) -> Vec<Instruction> {
    if let [(_, verdict)] = ranges {
        return leaf(verdict);
    }
    let middle = ranges.len() / 2;
    let (left, right) = (search(&ranges[..middle]), search(&ranges[middle..]));
    let start = ranges[middle].0;
    let mut program = match u8::try_from(left.len()) {
        Ok(distance) => vec![test(JUMP_GREATER_EQUAL, start, distance, 0)],
        // Conditional jumps reach 255 instructions only.
        Err(_) => {
            let distance = u32::try_from(left.len()).expect("bounded by the number of system calls");
            vec![test(JUMP_GREATER_EQUAL, start, 0, 1), op(JUMP, distance)]
        }
    };
    program.extend(left);
    program.extend(right);
    program
}

fn leaf(verdict: &Verdict) -> Vec<Instruction> {
    let mut program = Vec::new();
    for (arguments, answer) in &verdict.rules {
        program.extend(rule(arguments, *answer));
    }
    program.push(op(RETURN, verdict.otherwise));
    program
}

/// Placeholders for "next rule" and "argument matches" until the distance is known.
const FAIL: u8 = 254;
const PASS: u8 = 255;

/// All arguments must match for the answer; otherwise control falls through behind the rule.
fn rule(arguments: &[LinuxSeccompArg], answer: u32) -> Vec<Instruction> {
    let mut tests: Vec<Vec<Instruction>> = arguments.iter().map(compare).collect();
    let mut behind: usize = 1; // the RETURN
    for block in tests.iter_mut().rev() {
        let length = block.len();
        for (at, instruction) in block.iter_mut().enumerate() {
            let to_end = length - at - 1;
            let fix = |jump: u8| match jump {
                FAIL => u8::try_from(to_end + behind).expect("at most six short blocks"),
                PASS => u8::try_from(to_end).expect("a short block"),
                other => other,
            };
            if instruction.code & 7 == JUMP {
                instruction.jump_true = fix(instruction.jump_true);
                instruction.jump_false = fix(instruction.jump_false);
            }
        }
        behind += length;
    }
    let mut program: Vec<Instruction> = tests.into_iter().flatten().collect();
    program.push(op(RETURN, answer));
    program
}

/// Compares a 64-bit argument in two halves.
fn compare(argument: &LinuxSeccompArg) -> Vec<Instruction> {
    let low_at = OFFSET_ARGUMENTS + 8 * u32::try_from(argument.index).expect("checked to be below six");
    let high_at = low_at + 4;
    let halves = |value: u64| ((value >> 32) as u32, value as u32);
    let (high, low) = halves(argument.value);
    match argument.op {
        LinuxSeccompOperator::ScmpCmpEq => vec![
            op(LOAD, high_at),
            test(JUMP_EQUAL, high, 0, FAIL),
            op(LOAD, low_at),
            test(JUMP_EQUAL, low, PASS, FAIL),
        ],
        LinuxSeccompOperator::ScmpCmpNe => vec![
            op(LOAD, high_at),
            test(JUMP_EQUAL, high, 0, PASS),
            op(LOAD, low_at),
            test(JUMP_EQUAL, low, FAIL, PASS),
        ],
        LinuxSeccompOperator::ScmpCmpGt => ordered(high_at, low_at, (high, low), JUMP_GREATER, PASS, FAIL),
        LinuxSeccompOperator::ScmpCmpGe => {
            ordered(high_at, low_at, (high, low), JUMP_GREATER_EQUAL, PASS, FAIL)
        }
        LinuxSeccompOperator::ScmpCmpLe => ordered(high_at, low_at, (high, low), JUMP_GREATER, FAIL, PASS),
        LinuxSeccompOperator::ScmpCmpLt => {
            ordered(high_at, low_at, (high, low), JUMP_GREATER_EQUAL, FAIL, PASS)
        }
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            let (wanted_high, wanted_low) = halves(argument.value_two.unwrap_or(0));
            vec![
                op(LOAD, high_at),
                op(AND, high),
                test(JUMP_EQUAL, wanted_high, 0, FAIL),
                op(LOAD, low_at),
                op(AND, low),
                test(JUMP_EQUAL, wanted_low, PASS, FAIL),
            ]
        }
    }
}

/// `greater` where the argument is above the value (or equal, by `last`), `not` where it is below.
fn ordered(
    high_at: u32,
    low_at: u32,
    (high, low): (u32, u32),
    last: u16,
    greater: u8,
    not: u8,
) -> Vec<Instruction> {
    vec![
        op(LOAD, high_at),
        test(JUMP_GREATER, high, greater, 0),
        test(JUMP_EQUAL, high, 0, not),
        op(LOAD, low_at),
        test(last, low, greater, not),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::numbers::known;
    use super::*;
    use crate::config::LinuxSyscall;
    use crate::{caps, default_seccomp};

    /// The kernel's classic BPF machine, as far as these programs use it.
    fn run(program: &[Instruction], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let mut words = vec![number, architecture, 0, 0];
        for argument in arguments {
            words.extend([argument as u32, (argument >> 32) as u32]);
        }
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let Instruction { code, jump_true, jump_false, k } = program[at];
            at += 1;
            let mut jump = |yes: bool| at += usize::from(if yes { jump_true } else { jump_false });
            match code {
                LOAD => accumulator = words[k as usize / 4],
                AND => accumulator &= k,
                JUMP => at += k as usize,
                JUMP_EQUAL => jump(accumulator == k),
                JUMP_GREATER => jump(accumulator > k),
                JUMP_GREATER_EQUAL => jump(accumulator >= k),
                RETURN => return k,
                _ => panic!("instruction {code:#x}"),
            }
        }
    }

    fn docker(text: &str, caps: crate::Capabilities) -> Vec<Instruction> {
        compile(&crate::read_seccomp(text, caps).unwrap()).unwrap().0
    }

    #[test]
    fn rules_of_dockers_files_hold_for_whom_they_name() {
        let text = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,
            "archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]},
                       {"architecture":"SCMP_ARCH_AARCH64","subArchitectures":["SCMP_ARCH_ARM"]},
                       {"architecture":"SCMP_ARCH_S390X","subArchitectures":null}],
            "syscalls":[
            {"names":["read","socket"],"action":"SCMP_ACT_ALLOW","comment":"","includes":{},"excludes":{}},
            {"names":["mount"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
            {"names":["ptrace"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8"}},
            {"names":["kcmp"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"400.1"}},
            {"names":["acct"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_CHOWN"]}},
            {"name":"fchown","action":"SCMP_ACT_ALLOW","args":null},
            {"names":["bpf"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["s390x"]}}]}"#;
        let (plain, all) = (docker(text, caps::default_caps()), docker(text, caps::all_caps()));
        let eperm = RET_ERRNO | EPERM;
        for (name, ordinary, mighty) in [
            ("read", RET_ALLOW, RET_ALLOW),
            ("mount", eperm, RET_ALLOW),
            ("ptrace", RET_ALLOW, RET_ALLOW),
            ("kcmp", eperm, eperm),
            ("acct", eperm, eperm),
            ("fchown", RET_ALLOW, RET_ALLOW),
            ("bpf", eperm, eperm),
        ] {
            // Newer than all that is named: said to be missing.
            let or_missing = |answer: u32, program: &[Instruction]| {
                let got = ask(program, name, [0; 6]);
                assert!(got == answer || (answer == eperm && got == RET_ERRNO | ENOSYS), "{name}: {got:#x}");
            };
            or_missing(ordinary, &plain);
            or_missing(mighty, &all);
        }
        if NATIVE == Machine::X86_64 {
            let socketcall = |call| run(&plain, AUDIT_X86, 102, [call, 0, 0, 0, 0, 0]);
            assert_eq!((socketcall(1), socketcall(2)), (RET_ALLOW, eperm));
            assert_eq!(run(&plain, AUDIT_X86_64, X32_BIT, [0; 6]), RET_KILL_THREAD);
        }
        // Those of the other machine's programs that this one starts.
        let (audit, below) = match NATIVE {
            Machine::Aarch64 => (AUDIT_ARM, Machine::Arm),
            Machine::X86_64 | Machine::X86 | Machine::X32 | Machine::Arm => (AUDIT_X86, Machine::X86),
        };
        let below = |name| run(&plain, audit, number(name, below).unwrap(), [0; 6]);
        assert_eq!((below("read"), below("fchown"), below("mount")), (RET_ALLOW, RET_ALLOW, eperm));
    }

    #[test]
    fn profiles_that_cannot_be_carried_out_are_refused() {
        for text in [
            "",
            "{}",
            r#"{"defaultAction":"SCMP_ACT_KILL""#,
            r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#,
            r#"{"defaultAction":"SCMP_ACT_NONSENSE"}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"action":"SCMP_ACT_ALLOW","name":"a","names":["b"]}]}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],
                "archMap":[{"architecture":"SCMP_ARCH_X86_64"}]}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x"}"#,
        ] {
            assert!(crate::read_seccomp(text, caps::default_caps()).is_err(), "{text}");
        }
    }

    #[test]
    fn two_conditions_on_one_argument_are_two_rules() {
        let program = docker(
            r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["socket"],"action":"SCMP_ACT_ALLOW",
                "args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":0,"value":2,"op":"SCMP_CMP_EQ"}]}]}"#,
            caps::default_caps(),
        );
        for (family, answer) in [(1, RET_ALLOW), (2, RET_ALLOW), (3, RET_ERRNO | EPERM)] {
            assert_eq!(ask(&program, "socket", [family, 0, 0, 0, 0, 0]), answer);
        }
    }

    /// `AUDIT_ARCH_*` of this machine and of another.
    const AUDITS: [u32; 2] = match NATIVE {
        Machine::Aarch64 => [AUDIT_AARCH64, AUDIT_X86_64],
        Machine::X86_64 | Machine::X86 | Machine::X32 | Machine::Arm => [AUDIT_X86_64, AUDIT_AARCH64],
    };

    fn ask(program: &[Instruction], name: &str, arguments: [u64; 6]) -> u32 {
        run(program, AUDITS[0], number(name, NATIVE).unwrap(), arguments)
    }

    #[test]
    fn dockers_default_profile_answers_as_docker() {
        let (program, flags) = compile(&default_seccomp(caps::default_caps())).unwrap();
        assert!(program.len() < 900, "{} instructions", program.len());
        assert_eq!(flags, 0);
        let eperm = RET_ERRNO | EPERM;
        for (name, first, answer) in [
            ("read", 0, RET_ALLOW),
            ("execve", 0, RET_ALLOW),
            ("mseal", 0, RET_ALLOW),
            ("chroot", 0, RET_ALLOW),
            ("mount", 0, eperm),
            ("unshare", 0, eperm),
            ("setns", 0, eperm),
            ("bpf", 0, eperm),
            ("keyctl", 0, eperm),
            ("io_uring_setup", 0, eperm),
            ("clone3", 0, RET_ERRNO | ENOSYS),
            ("clone", 0x0112, RET_ALLOW),
            ("clone", 0x1000_0000, eperm),
            ("clone", 0x4002_0000, eperm),
            ("socket", 2, RET_ALLOW),
            ("socket", 37, RET_ALLOW),
            ("socket", 38, eperm),
            ("socket", 39, RET_ALLOW),
            ("socket", 40, eperm),
            ("socket", 41, RET_ALLOW),
            ("getxattrat", 0, RET_ALLOW),
            ("personality", 0, RET_ALLOW),
            ("personality", 8, RET_ALLOW),
            ("personality", 0xFFFF_FFFF, RET_ALLOW),
            ("personality", 0x0004_0000, eperm),
            ("personality", 1 << 32, eperm),
        ] {
            assert_eq!(ask(&program, name, [first, 0, 0, 0, 0, 0]), answer, "{name}({first:#x})");
        }
        assert_eq!(run(&program, AUDITS[1], 1, [0; 6]), RET_KILL_THREAD, "another machine's call");
        assert_eq!(run(&program, AUDITS[0], 9999, [0; 6]), RET_ERRNO | ENOSYS, "a future call");
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn dockers_default_profile_knows_the_other_ways_into_this_machine() {
        let (program, _) = compile(&default_seccomp(caps::default_caps())).unwrap();
        let eperm = RET_ERRNO | EPERM;
        let x86 = |name: &str, first| {
            run(&program, AUDIT_X86, number(name, Machine::X86).unwrap(), [first, 0, 0, 0, 0, 0])
        };
        assert_eq!(
            (x86("read", 0), x86("mount", 0), x86("clone3", 0)),
            (RET_ALLOW, eperm, RET_ERRNO | ENOSYS)
        );
        assert_eq!((x86("socket", 38), x86("socket", 2), x86("waitpid", 0)), (eperm, RET_ALLOW, RET_ALLOW));
        let x32 =
            |name: &str| run(&program, AUDIT_X86_64, X32_BIT | number(name, Machine::X32).unwrap(), [0; 6]);
        assert_eq!((x32("read"), x32("ioctl"), x32("mount")), (RET_ALLOW, RET_ALLOW, eperm));
        assert_eq!(run(&program, AUDIT_X86, 9999, [0; 6]), RET_ERRNO | ENOSYS, "a future call");
        assert_eq!(run(&program, AUDIT_X86_64, u32::MAX, [0; 6]), eperm, "no call");
    }

    #[test]
    #[cfg(target_arch = "aarch64")]
    fn dockers_default_profile_knows_the_other_ways_into_this_machine() {
        let (program, _) = compile(&default_seccomp(caps::default_caps())).unwrap();
        let eperm = RET_ERRNO | EPERM;
        let arm = |name: &str, first| {
            run(&program, AUDIT_ARM, number(name, Machine::Arm).unwrap(), [first, 0, 0, 0, 0, 0])
        };
        assert_eq!(
            (arm("read", 0), arm("mount", 0), arm("clone3", 0)),
            (RET_ALLOW, eperm, RET_ERRNO | ENOSYS)
        );
        assert_eq!(
            (arm("socket", 38), arm("socket", 2), arm("cacheflush", 0)),
            (eperm, RET_ALLOW, RET_ALLOW)
        );
        assert_eq!(run(&program, AUDIT_ARM, 9999, [0; 6]), RET_ERRNO | ENOSYS, "a future call");
    }

    #[test]
    fn calls_to_come_are_missing_below_those_that_arm_alone_has_too() {
        let program = docker(
            r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_ARM"],"syscalls":[
                {"names":["read","sync_file_range2","cacheflush","set_tls"],"action":"SCMP_ACT_ALLOW"}]}"#,
            caps::default_caps(),
        );
        let (eperm, missing) = (RET_ERRNO | EPERM, RET_ERRNO | ENOSYS);
        for (number, answer) in [
            (3, RET_ALLOW),
            (4, eperm),
            (341, RET_ALLOW),
            (342, missing),
            (9999, missing),
            (ARM_PRIVATE + 2, RET_ALLOW),
            (ARM_PRIVATE + 3, eperm),
            (ARM_PRIVATE + 5, RET_ALLOW),
            (ARM_PRIVATE + 6, missing),
        ] {
            assert_eq!(run(&program, AUDIT_ARM, number, [0; 6]), answer, "{number}");
        }
    }

    #[test]
    fn capabilities_open_their_calls() {
        let (program, _) = compile(&default_seccomp(caps::all_caps())).unwrap();
        for name in ["mount", "unshare", "clone3", "bpf", "reboot", "open_by_handle_at", "kcmp"] {
            assert_eq!(ask(&program, name, [0; 6]), RET_ALLOW, "{name}");
        }
        assert_eq!(ask(&program, "clone", [0x1000_0000, 0, 0, 0, 0, 0]), RET_ALLOW);
    }

    #[test]
    fn every_name_of_the_default_profile_exists_here() {
        let profile = default_seccomp(caps::all_caps());
        for name in profile.syscalls.iter().flatten().flat_map(|rule| &rule.names) {
            assert!(known(name) || name == "riscv_hwprobe", "{name}");
        }
    }

    #[test]
    fn operators_compare_all_64_bits() {
        use LinuxSeccompOperator as Op;
        let big = 0x1_0000_0005_u64;
        for (operator, value, two, matching, failing) in [
            (Op::ScmpCmpEq, big, 0, vec![big], vec![5, 0x2_0000_0005]),
            (Op::ScmpCmpNe, big, 0, vec![5, big + 1], vec![big]),
            (Op::ScmpCmpLt, big, 0, vec![0, 5, big - 1, 0xFFFF_FFFF], vec![big, big + 1, 2 << 32]),
            (Op::ScmpCmpLe, big, 0, vec![0, big], vec![big + 1, 2 << 32]),
            (Op::ScmpCmpGe, big, 0, vec![big, 2 << 32], vec![big - 1, 9]),
            (Op::ScmpCmpGt, big, 0, vec![big + 1, 2 << 32], vec![big, 9]),
            (Op::ScmpCmpMaskedEq, 0xF0, 0x10, vec![0x10, 0x1F], vec![0x20, 0]),
        ] {
            let argument = LinuxSeccompArg { index: 2, op: operator, value, value_two: Some(two) };
            let rule = LinuxSyscall {
                names: vec!["read".to_owned()],
                action: LinuxSeccompAction::ScmpActErrno,
                errno_ret: None,
                args: Some(vec![argument]),
            };
            let profile = LinuxSeccomp {
                default_action: LinuxSeccompAction::ScmpActAllow,
                default_errno_ret: None,
                architectures: None,
                flags: None,
                syscalls: Some(vec![rule]),
            };
            let (program, _) = compile(&profile).unwrap();
            for (values, answer) in [(matching, RET_ERRNO | EPERM), (failing, RET_ALLOW)] {
                for value in values {
                    assert_eq!(
                        ask(&program, "read", [0, 0, value, 0, 0, 0]),
                        answer,
                        "{operator:?} {value:#x}"
                    );
                }
            }
        }
    }
}
