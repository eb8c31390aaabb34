//! From an OCI profile to a BPF program: a binary search over ranges of system call numbers.
//!
//! A profile is a few hundred names, most of them with the same answer; neighbours with the same answer make one
//! range, and about six comparisons find it, where a chain of tests would need hundreds on each system call.

use super::numbers::number;
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator,
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

/// `AUDIT_ARCH_X86_64`. Source: linux/audit.h.
const ARCHITECTURE: u32 = 0xC000_003E;
/// Set in the numbers of the x32 calling convention, which nothing uses and no profile covers.
const X32_BIT: u32 = 0x4000_0000;

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
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    let program = assemble(&ranges(profile, default)?, default);
    if program.len() > INSTRUCTIONS_MAX {
        return Err(format!("seccomp profile needs {} instructions, the kernel takes 4096", program.len()));
    }
    Ok((program, flags(profile)?))
}

fn flags(profile: &LinuxSeccomp) -> Result<u32, String> {
    let mut flags = 0;
    for flag in profile.flags().iter().flatten() {
        flags |= match flag {
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => 1 << 1,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => 1 << 2,
            // One thread: there is nothing to synchronize.
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 0,
            other => return Err(format!("seccomp flag {other} is not supported")),
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
fn ranges(profile: &LinuxSeccomp, default: u32) -> Result<Vec<(u32, Verdict)>, String> {
    let mut verdicts: BTreeMap<u32, Verdict> = BTreeMap::new();
    for rule in profile.syscalls().iter().flatten() {
        let answer = action(rule.action(), rule.errno_ret())?;
        let arguments: Vec<LinuxSeccompArg> = rule.args().clone().unwrap_or_default();
        if arguments.iter().any(|argument| argument.index() > 5) {
            return Err(format!("seccomp rule for {:?} names an argument beyond the sixth", rule.names()));
        }
        for number in rule.names().iter().filter_map(|name| number(name)) {
            let verdict =
                verdicts.entry(number).or_insert_with(|| Verdict { rules: Vec::new(), otherwise: default });
            if arguments.is_empty() {
                // The first unconditional rule counts; Docker's order has none that contradict.
                if verdict.otherwise == default {
                    verdict.otherwise = answer;
                }
            } else {
                verdict.rules.push((arguments.clone(), answer));
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
    let mut next = 0;
    for (number, verdict) in verdicts {
        if number > next {
            add(next, plain.clone());
        }
        // Conditions that lead to the same answer anyway are no conditions.
        let trivial = verdict.rules.iter().all(|(_, answer)| *answer == verdict.otherwise);
        add(number, if trivial { Verdict { rules: Vec::new(), ..verdict } } else { verdict });
        next = number + 1;
    }
    add(next, plain);
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

fn assemble(ranges: &[(u32, Verdict)], default: u32) -> Vec<Instruction> {
    // A foreign architecture has other numbers, so it gets no system call at all.
    let foreign = if default == RET_ALLOW { RET_KILL_PROCESS } else { RET_ERRNO | ENOSYS };
    let mut program = vec![
        op(LOAD, OFFSET_ARCHITECTURE),
        test(JUMP_EQUAL, ARCHITECTURE, 1, 0),
        op(RETURN, foreign),
        op(LOAD, OFFSET_NUMBER),
        test(JUMP_GREATER_EQUAL, X32_BIT, 0, 1),
        op(RETURN, RET_ERRNO | ENOSYS),
    ];
    program.extend(search(ranges));
    program
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
    let low_at = OFFSET_ARGUMENTS + 8 * u32::try_from(argument.index()).expect("checked to be below six");
    let high_at = low_at + 4;
    let halves = |value: u64| ((value >> 32) as u32, value as u32);
    let (high, low) = halves(argument.value());
    match argument.op() {
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
            let (wanted_high, wanted_low) = halves(argument.value_two().unwrap_or(0));
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
    use super::*;
    use crate::{caps, default_seccomp};
    use oci_spec::runtime::{LinuxSeccompArgBuilder, LinuxSeccompBuilder, LinuxSyscallBuilder};

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

    fn ask(program: &[Instruction], name: &str, arguments: [u64; 6]) -> u32 {
        run(program, ARCHITECTURE, number(name).unwrap(), arguments)
    }

    #[test]
    fn dockers_default_profile_answers_as_docker() {
        let (program, flags) = compile(&default_seccomp(&caps::default_caps())).unwrap();
        assert!(program.len() < 300, "{} instructions", program.len());
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
            ("socket", 40, eperm),
            ("personality", 0, RET_ALLOW),
            ("personality", 8, RET_ALLOW),
            ("personality", 0xFFFF_FFFF, RET_ALLOW),
            ("personality", 0x0004_0000, eperm),
            ("personality", 1 << 32, eperm),
        ] {
            assert_eq!(ask(&program, name, [first, 0, 0, 0, 0, 0]), answer, "{name}({first:#x})");
        }
        assert_eq!(run(&program, 0x4000_0003, 1, [0; 6]), RET_ERRNO | ENOSYS, "a 32-bit call");
        assert_eq!(run(&program, ARCHITECTURE, X32_BIT | 1, [0; 6]), RET_ERRNO | ENOSYS, "an x32 call");
        assert_eq!(run(&program, ARCHITECTURE, 9999, [0; 6]), eperm, "a future call");
    }

    #[test]
    fn capabilities_open_their_calls() {
        let (program, _) = compile(&default_seccomp(&caps::all_caps())).unwrap();
        for name in ["mount", "unshare", "clone3", "bpf", "reboot", "open_by_handle_at", "kcmp"] {
            assert_eq!(ask(&program, name, [0; 6]), RET_ALLOW, "{name}");
        }
        assert_eq!(ask(&program, "clone", [0x1000_0000, 0, 0, 0, 0, 0]), RET_ALLOW);
    }

    #[test]
    fn every_name_of_the_default_profile_exists_here() {
        let profile = default_seccomp(&caps::all_caps());
        for name in profile.syscalls().iter().flatten().flat_map(|rule| rule.names()) {
            assert!(number(name).is_some(), "{name}");
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
            let argument = LinuxSeccompArgBuilder::default()
                .index(2_usize)
                .op(operator)
                .value(value)
                .value_two(two as u64);
            let rule = LinuxSyscallBuilder::default()
                .names(vec!["read".to_owned()])
                .action(LinuxSeccompAction::ScmpActErrno)
                .args(vec![argument.build().unwrap()]);
            let profile = LinuxSeccompBuilder::default()
                .default_action(LinuxSeccompAction::ScmpActAllow)
                .syscalls(vec![rule.build().unwrap()])
                .build()
                .unwrap();
            let (program, _) = compile(&profile).unwrap();
            for (values, answer) in [(matching, RET_ERRNO | EPERM), (failing, RET_ALLOW)] {
                for value in values {
                    assert_eq!(
                        ask(&program, "read", [0, 0, value, 0, 0, 0]),
                        answer,
                        "{operator} {value:#x}"
                    );
                }
            }
        }
    }
}
