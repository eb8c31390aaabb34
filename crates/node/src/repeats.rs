//! A line of the log that comes again and again is told when it comes first, then ever more seldom, with how often it came
//! meanwhile: whoever asks a manager without a leader forty times a second does not fill its disk.
//!
//! Lines are the same that stand at one place of the program and say the same of the same; whose they are makes no
//! difference. None is lost that differs in anything: each write's line in the audit log has a version of its own.

use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    fmt::{self, Write as _},
    hash::{Hash as _, Hasher as _},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use tracing::{Event, Level, Subscriber, field::Field};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::Writer,
        time::{FormatTime as _, SystemTime},
    },
    registry::LookupSpan,
};

/// After a line was told, until it is told again if it goes on; doubles each time.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(64);
/// *Limit* of lines that are remembered.
const REMEMBERED: usize = 256;
/// *Limit* of what is remembered of one. *Unit:* bytes.
const LINE_BYTES: usize = 512;

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Text,
    /// An object of JSON.
    Json,
}

impl Shape {
    /// A line of what came `times` more often in `time`.
    fn with(self, line: &str, times: u64, time: Duration) -> String {
        let seconds = time.as_secs();
        match (self, line.strip_suffix('}')) {
            (Self::Json, Some(fields)) => {
                format!(r#"{fields},"repeated":{times},"within_seconds":{seconds}}}"#)
            }
            _ => format!("{line} repeated={times} within_seconds={seconds}"),
        }
    }

    /// A line of what came so often since it was told last, and comes no more.
    fn over(self, at: &str, text: &str, times: u64, time: Duration) -> String {
        let seconds = time.as_secs();
        match self {
            Self::Text => format!("{at}  INFO repeated={times} within_seconds={seconds}: {text}"),
            Self::Json => serde_json::json!({
                "timestamp": at, "level": "INFO", "message": text, "repeated": times, "within_seconds": seconds,
            })
            .to_string(),
        }
    }
}

/// Formats as `inner` does, and leaves out what was told a moment ago.
#[derive(Debug)]
pub(crate) struct Seldom<F> {
    inner: F,
    shape: Shape,
    told: Mutex<Told>,
}

impl<F> Seldom<F> {
    /// `inner` makes lines of `shape`.
    pub(crate) fn new(inner: F, shape: Shape) -> Self {
        Self { inner, shape, told: Mutex::default() }
    }
}

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Tell,
    /// It was left out so often, in that time.
    TellWith(u64, Duration),
    LeaveOut,
}

/// A line that was told.
#[derive(Debug)]
struct Line {
    at: Instant,
    /// When it came last.
    seen: Instant,
    pause: Duration,
    /// How often it was left out since it was told.
    left_out: u64,
    text: String,
}

impl Line {
    /// It comes no more.
    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.seen) > self.pause * 2
    }

    /// Returns what nobody was told of it, if anything.
    fn left_out(self) -> Option<LeftOut> {
        let time = self.seen.duration_since(self.at);
        (self.left_out > 0).then_some((self.left_out, time, self.text))
    }
}

/// What was left out of a line: how often, in what time, and what it said.
type LeftOut = (u64, Duration, String);

#[derive(Debug, Default)]
struct Told {
    lines: HashMap<u64, Line>,
    /// What was forgotten for want of room, until it is told.
    pushed_out: Vec<LeftOut>,
}

impl Told {
    fn judge(&mut self, key: u64, now: Instant) -> Verdict {
        if let Some(line) = self.lines.get_mut(&key) {
            line.seen = now;
            let since = now.duration_since(line.at);
            if since < line.pause {
                line.left_out += 1;
                return Verdict::LeaveOut;
            }
            let left_out = std::mem::take(&mut line.left_out);
            (line.at, line.pause) = (now, (line.pause * 2).min(PAUSE_MAX));
            return if left_out == 0 { Verdict::Tell } else { Verdict::TellWith(left_out, since) };
        }
        if self.lines.len() >= REMEMBERED
            && let Some(oldest) = self.lines.iter().min_by_key(|(_, line)| line.seen).map(|(key, _)| *key)
        {
            self.pushed_out.extend(self.lines.remove(&oldest).and_then(Line::left_out));
        }
        let line = Line { at: now, seen: now, pause: PAUSE, left_out: 0, text: String::new() };
        self.lines.insert(key, line);
        Verdict::Tell
    }

    /// Keeps what a line says, for when it comes no more.
    fn keep(&mut self, key: u64, text: &str) {
        if let Some(line) = self.lines.get_mut(&key) {
            let end = (0..=LINE_BYTES.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
            text[..end.unwrap_or_default()].clone_into(&mut line.text);
        }
    }

    /// Forgets what comes no more; returns what of that was left out.
    fn over(&mut self, now: Instant) -> Vec<LeftOut> {
        let over = self.lines.extract_if(|_, line| line.is_over(now)).map(|(_, line)| line);
        over.filter_map(Line::left_out).collect()
    }

    /// Returns what was left out of lines that others have pushed out.
    fn pushed_out(&mut self) -> Vec<LeftOut> {
        std::mem::take(&mut self.pushed_out)
    }
}

/// Tells lines apart.
struct Key(DefaultHasher);

impl Key {
    fn of(event: &Event<'_>) -> u64 {
        let mut key = Self(DefaultHasher::new());
        event.metadata().callsite().hash(&mut key.0);
        event.record(&mut key);
        key.0.finish()
    }
}

impl tracing::field::Visit for Key {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        field.name().hash(&mut self.0);
        // A hash takes whatever comes.
        let _taken = write!(self, "{value:?}");
    }
}

impl fmt::Write for Key {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

impl<S, N, F> FormatEvent<S, N> for Seldom<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        // Whoever asks for more than that wants to see all of it.
        if *event.metadata().level() > Level::INFO {
            return self.inner.format_event(context, writer, event);
        }
        let (key, now) = (Key::of(event), Instant::now());
        let told = || self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left_out = told().over(now);
        let verdict = told().judge(key, now);
        left_out.extend(told().pushed_out());
        for (times, time, text) in left_out {
            let mut at = String::new();
            SystemTime.format_time(&mut Writer::new(&mut at))?;
            writeln!(writer, "{}", self.shape.over(&at, &text, times, time))?;
        }
        if verdict == Verdict::LeaveOut {
            return Ok(());
        }
        let mut line = String::new();
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        let line = line.trim_end_matches('\n');
        told().keep(key, line);
        match verdict {
            Verdict::TellWith(times, time) => writeln!(writer, "{}", self.shape.with(line, times, time)),
            Verdict::Tell | Verdict::LeaveOut => writeln!(writer, "{line}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::{io, sync::Arc};
    use tracing_subscriber::layer::SubscriberExt as _;

    #[test]
    fn a_line_of_json_stays_one_object() {
        let time = Duration::from_secs(3);
        let line = Shape::Json.with(r#"{"message":"no leader"}"#, 40, time);
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line, serde_json::json!({"message": "no leader", "repeated": 40, "within_seconds": 3}));
        let over = Shape::Json.over("now", r#"{"message":"no leader"}"#, 7, time);
        let over: Value = serde_json::from_str(&over).unwrap();
        assert_eq!(
            (over["repeated"].as_u64(), over["message"].as_str()),
            (Some(7), Some(r#"{"message":"no leader"}"#))
        );
    }

    #[test]
    fn what_goes_on_is_told_ever_more_seldom_with_how_often_it_came_and_anew_after_a_while() {
        let (mut told, start) = (Told::default(), Instant::now());
        let tenth = |n: u32| start + Duration::from_millis(100) * n;
        let mut said = Vec::new();
        for n in 0..=700 {
            assert_eq!(told.over(tenth(n)), [], "it goes on");
            match told.judge(7, tenth(n)) {
                Verdict::LeaveOut => {}
                verdict => said.push((n, verdict)),
            }
        }
        let with = |times, seconds| Verdict::TellWith(times, Duration::from_secs(seconds));
        let expected = [
            (0, Verdict::Tell),
            (10, with(9, 1)),
            (30, with(19, 2)),
            (70, with(39, 4)),
            (150, with(79, 8)),
            (310, with(159, 16)),
            (630, with(319, 32)),
        ];
        assert_eq!(said, expected);
        told.keep(7, "nothing works");
        let late = tenth(700) + PAUSE_MAX * 2 + Duration::from_millis(1);
        assert_eq!(told.over(late), [(70, Duration::from_secs(7), "nothing works".to_owned())]);
        assert_eq!(told.judge(7, late), Verdict::Tell);
        assert_eq!(told.judge(8, late), Verdict::Tell, "another line");
    }

    #[test]
    fn what_is_remembered_has_an_end() {
        let (mut told, start) = (Told::default(), Instant::now());
        for key in 0..2000 {
            told.judge(key, start + Duration::from_micros(key));
        }
        assert_eq!(told.lines.len(), REMEMBERED);
        assert_eq!(told.judge(1999, start + Duration::from_millis(3)), Verdict::LeaveOut);
        assert_eq!(told.judge(0, start + Duration::from_millis(3)), Verdict::Tell);
    }

    #[test]
    fn what_is_pushed_out_by_others_is_told_with_how_often_it_came() {
        let (mut told, start) = (Told::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        told.judge(7, start);
        told.keep(7, "nothing works");
        assert_eq!(told.judge(7, at(5)), Verdict::LeaveOut);
        assert_eq!(told.judge(7, at(9)), Verdict::LeaveOut);
        for key in 0..REMEMBERED as u64 {
            assert_eq!(told.pushed_out(), [], "there is room");
            told.judge(1000 + key, at(10));
        }
        assert_eq!(told.pushed_out(), [(2, Duration::from_millis(9), "nothing works".to_owned())]);
        assert_eq!(told.pushed_out(), [], "it is told once");
        assert_eq!(told.judge(7, at(11)), Verdict::Tell);
    }

    /// What was written.
    #[derive(Debug, Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_same_of_the_same_is_one_line_and_everything_else_is_told() {
        let paper = Paper::default();
        let writer = paper.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .event_format(Seldom::new(tracing_subscriber::fmt::format(), Shape::Text));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            for n in 0..50 {
                tracing::warn!(status = 503, error = "there is no leader", "request failed");
                tracing::info!(n, "each of its own");
                tracing::debug!("who asks for it gets it");
            }
        });
        let said = String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
        let count = |words: &str| said.lines().filter(|line| line.contains(words)).count();
        // A machine that stands still for a second meanwhile tells it twice.
        let failed = count("request failed status=503 error=\"there is no leader\"");
        assert!((1..=3).contains(&failed), "{failed}: {said}");
        assert_eq!((count("each of its own"), count("who asks for it")), (50, 50));
    }
}
