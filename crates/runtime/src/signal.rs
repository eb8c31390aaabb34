//! Signals by name or number.

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// Reads `SIGTERM`, `term`, `15`, `RTMIN+3`; `None` when there is no such signal.
#[must_use]
pub fn parse_signal(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |rest: &str| rest.parse::<i32>().ok().filter(|n| (0..=RTMAX - RTMIN).contains(n));
    match name {
        "RTMIN" => Some(RTMIN),
        "RTMAX" => Some(RTMAX),
        "IOT" => Some(6),
        "CLD" => Some(17),
        "POLL" => Some(29),
        _ => NAMES.iter().position(|n| *n == name).and_then(|i| i32::try_from(i + 1).ok()).or_else(|| {
            let up = name.strip_prefix("RTMIN+").and_then(offset).map(|n| RTMIN + n);
            up.or_else(|| name.strip_prefix("RTMAX-").and_then(offset).map(|n| RTMAX - n))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_in_every_form_docker_takes() {
        for (text, number) in [
            ("KILL", 9),
            ("SIGTERM", 15),
            ("sighup", 1),
            ("15", 15),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("SYS", 31),
            ("WINCH", 28),
        ] {
            assert_eq!(parse_signal(text), Some(number), "{text}");
        }
        for bad in ["", "0", "65", "SIGFOO", "RTMIN+99", "-9"] {
            assert_eq!(parse_signal(bad), None, "{bad}");
        }
    }
}
