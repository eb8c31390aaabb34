//! What a run showed: a line for each step, a table of the kinds of fault, JSON.

use super::{
    draw::Planned,
    load::{Failed, Judged, Requests},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fmt::Write as _, time::Duration};
use testkit::Failure;

/// A recovery that is told with what it waited for.
const LONG: Duration = Duration::from_secs(5);

/// A fault as it happened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Happened {
    pub(super) planned: Planned,
    pub(super) host: u8,
    /// The host led when it began.
    pub(super) led: bool,
}

/// When faults began, and when the last one was over. *Unit:* milliseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) began: u64,
    pub(super) over: u64,
}

impl Failed {
    /// Says where and how it failed, and when, by the faults that happened around it.
    pub(super) fn story(&self, span: Span) -> String {
        let seconds = |from: u64| Duration::from_millis(self.at.saturating_sub(from)).as_secs_f64();
        let when = if self.at < span.began {
            "before it began".to_owned()
        } else if self.at < span.over {
            format!("{:.1} s after it began", seconds(span.began))
        } else {
            format!("{:.1} s after it was over", seconds(span.over))
        };
        let (host, how, took) = (self.host, self.how.word(), self.took.as_secs_f64());
        format!("host{host}, {when} (at {}): {how} in {took:.3} s: {}", self.at, self.why)
    }
}

/// What a step showed.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) number: usize,
    pub(super) faults: Vec<Happened>,
    pub(super) span: Span,
    /// From the end of the faults until all was as asked.
    pub(super) recovery: Duration,
    /// What was not as asked last of all.
    pub(super) missing: String,
    pub(super) requests: Requests,
    /// The longest time without an answer of a client of UDP, on a host that was not hit.
    pub(super) udp_silence: Duration,
    pub(super) judged: Judged,
}

impl Step {
    fn was_hit(&self, host: u8) -> bool {
        self.faults.iter().any(|fault| fault.host == host)
    }

    /// Returns how many requests failed at hosts that were hit, and at others.
    fn failed(&self) -> (usize, usize) {
        let hit = self.requests.failed.iter().filter(|failed| self.was_hit(failed.host)).count();
        (hit, self.requests.failed.len() - hit)
    }

    fn kind(&self) -> &'static str {
        match self.faults.as_slice() {
            [one] => one.planned.kind.name(),
            _ => "two at once",
        }
    }

    /// Says what happened, and what became of it.
    pub(super) fn story(&self) -> String {
        let what: Vec<String> = self.faults.iter().map(Happened::story).collect();
        let (hit, elsewhere) = self.failed();
        let requests = if hit + elsewhere == 0 {
            format!("{} requests, none failed", self.requests.asked)
        } else {
            let how = Failure::ALL.map(|how| format!("{} {}", self.requests.count(how), how.word()));
            let (asked, how) = (self.requests.asked, how.join(", "));
            format!("of {asked} requests {hit} failed there, {elsewhere} elsewhere ({how})")
        };
        format!(
            "step {}: {}; all as asked {:.1} s later; {requests}; UDP silent for {:.1} s; {} reads and writes \
             ({} replaced) and {} configs explained{}",
            self.number,
            what.join(", and at once "),
            self.recovery.as_secs_f64(),
            self.udp_silence.as_secs_f64(),
            self.judged.operations,
            self.judged.replaced,
            self.judged.configs,
            self.told_missing(),
        )
    }

    /// Says what took long, if something did.
    fn told_missing(&self) -> String {
        let short: String = self.missing.chars().take(300).collect();
        if self.recovery < LONG { String::new() } else { format!("; last of all: {short}") }
    }

    fn json(&self) -> Value {
        let faults = self.faults.iter().map(|fault| {
            json!({
                "kind": fault.planned.kind.name(),
                "host": fault.host,
                "leader": fault.led,
                "seconds": fault.planned.seconds,
            })
        });
        let (hit, elsewhere) = self.failed();
        let how = Failure::ALL.map(|how| (how.word().to_owned(), json!(self.requests.count(how))));
        let told = self.requests.failed.iter().filter(|failed| !failed.why.is_empty());
        json!({
            "step": self.number,
            "faults": faults.collect::<Vec<_>>(),
            "recovery_seconds": self.recovery.as_secs_f64(),
            "missing_last": self.missing,
            "requests": {
                "asked": self.requests.asked,
                "failed_at_hosts_hit": hit,
                "failed_elsewhere": elsewhere,
                "how": how.into_iter().collect::<serde_json::Map<_, _>>(),
                "told": told.map(|failed| failed.story(self.span)).collect::<Vec<_>>(),
            },
            "udp_silence_seconds": self.udp_silence.as_secs_f64(),
            "operations": self.judged.operations,
            "replaced": self.judged.replaced,
            "configs": self.judged.configs,
        })
    }
}

impl Happened {
    pub(super) fn story(&self) -> String {
        let led = if self.led { " (the leader)" } else { "" };
        format!("{} of host{}{led} for {} s", self.planned.kind.name(), self.host, self.planned.seconds)
    }
}

/// What steps of one kind showed together.
#[derive(Debug, Clone, Default, PartialEq)]
struct Kind {
    steps: usize,
    asked: u64,
    failed: (usize, usize),
    /// *Unit:* seconds.
    recoveries: Vec<f64>,
    udp_silence: Duration,
}

impl Kind {
    /// Returns the time within which half of them were over, and that of the longest. *Unit:* seconds.
    fn recovery(&self) -> (f64, f64) {
        let mut sorted = self.recoveries.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |n: usize| sorted.get(n).copied().unwrap_or_default();
        (at(sorted.len().saturating_sub(1) / 2), at(sorted.len().saturating_sub(1)))
    }
}

fn kinds(steps: &[Step]) -> BTreeMap<&'static str, Kind> {
    let mut kinds = BTreeMap::<&'static str, Kind>::new();
    for step in steps {
        let kind = kinds.entry(step.kind()).or_default();
        let (hit, elsewhere) = step.failed();
        kind.steps += 1;
        kind.asked += step.requests.asked;
        kind.failed = (kind.failed.0 + hit, kind.failed.1 + elsewhere);
        kind.recoveries.push(step.recovery.as_secs_f64());
        kind.udp_silence = kind.udp_silence.max(step.udp_silence);
    }
    kinds
}

/// Returns the table of the kinds of fault.
pub(super) fn table(steps: &[Step]) -> String {
    let mut table = format!(
        "{:<16} {:>5} {:>9} {:>12} {:>10} {:>12} {:>12} {:>10}\n",
        "fault",
        "count",
        "requests",
        "failed there",
        "elsewhere",
        "recovery p50",
        "recovery max",
        "UDP silent"
    );
    for (name, kind) in kinds(steps) {
        let (half, longest) = kind.recovery();
        let (hit, elsewhere) = kind.failed;
        let silent = kind.udp_silence.as_secs_f64();
        // Writing to a string cannot fail.
        let _written = writeln!(
            table,
            "{name:<16} {:>5} {:>9} {hit:>12} {elsewhere:>10} {half:>10.1} s {longest:>10.1} s {silent:>8.1} s",
            kind.steps, kind.asked
        );
    }
    table
}

/// Returns the run for programs; `broken`: what an invariant that broke says.
pub(super) fn json(seed: u64, steps: &[Step], broken: Option<&str>) -> Value {
    let kinds = kinds(steps).into_iter().map(|(name, kind)| {
        let ((half, longest), (hit, elsewhere)) = (kind.recovery(), kind.failed);
        let kind = json!({
            "count": kind.steps,
            "requests": kind.asked,
            "failed_at_hosts_hit": hit,
            "failed_elsewhere": elsewhere,
            "recovery_seconds_p50": half,
            "recovery_seconds_max": longest,
            "udp_silence_seconds_max": kind.udp_silence.as_secs_f64(),
        });
        (name.to_owned(), kind)
    });
    json!({
        "seed": seed,
        "steps": steps.iter().map(Step::json).collect::<Vec<_>>(),
        "kinds": kinds.collect::<serde_json::Map<_, _>>(),
        "broken": broken,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nemesis::{draw::Target, fault};

    fn step(number: usize, kind: fault::Kind, recovery_ms: u64, failed: &[(u8, Failure)]) -> Step {
        let fail = |(host, how): &(u8, Failure)| {
            let why = "198.18.0.4:8080 why".to_owned();
            Failed { host: *host, how: *how, at: 12_500, took: Duration::from_millis(2), why }
        };
        let failed = failed.iter().map(fail).collect();
        let planned = Planned { kind, target: Target::Leader, seconds: 3 };
        Step {
            number,
            faults: vec![Happened { planned, host: 2, led: true }],
            span: Span { began: 10_000, over: 13_000 },
            recovery: Duration::from_millis(recovery_ms),
            missing: "\"web\" runs 3 of 4".to_owned(),
            requests: Requests { asked: 100, failed },
            udp_silence: Duration::from_millis(200),
            judged: Judged::default(),
        }
    }

    #[test]
    fn steps_are_told_and_counted_by_kind_and_by_where_requests_failed() {
        use Failure::{Refused, Silent};
        let killed = fault::Kind::HostDies;
        let steps = [
            step(1, killed, 1000, &[(2, Refused), (4, Silent)]),
            step(2, killed, 5000, &[(2, Refused)]),
            step(3, killed, 2000, &[]),
            step(4, fault::Kind::Drain, 500, &[]),
        ];
        let said = steps[0].story();
        assert!(said.contains("host-dies of host2 (the leader) for 3 s; all as asked 1.0 s later"), "{said}");
        assert!(
            said.contains(
                "of 100 requests 1 failed there, 1 elsewhere (1 refused, 0 reset, 1 silent, 0 wrong)"
            ),
            "{said}"
        );
        let told = |span| steps[0].requests.failed[1].story(span);
        let during = "host4, 2.5 s after it began (at 12500): silent in 0.002 s: 198.18.0.4:8080 why";
        assert_eq!(told(steps[0].span), during);
        assert!(told(Span { began: 10_000, over: 12_000 }).contains("0.5 s after it was over"));
        let tells = |step: &Step| step.story().ends_with("; last of all: \"web\" runs 3 of 4");
        assert!(tells(&steps[1]) && !tells(&steps[0]));
        assert!(steps[2].story().contains("100 requests, none failed"));
        let table = table(&steps);
        let row: Vec<&str> =
            table.lines().find(|l| l.starts_with("host-dies")).unwrap().split_whitespace().collect();
        assert_eq!(row, ["host-dies", "3", "300", "2", "1", "2.0", "s", "5.0", "s", "0.2", "s"]);
        let json = json(7, &steps, Some("step 5: why"));
        assert_eq!(json["kinds"]["drain"]["count"], 1);
        assert_eq!(json["steps"][0]["requests"]["failed_elsewhere"], 1);
        assert_eq!((&json["seed"], &json["broken"]), (&json!(7), &json!("step 5: why")));
    }
}
