//! Numbers by name, and their text. *Source:* OpenMetrics 1.0; Prometheus text format 0.0.4 for who does not know it.

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text, text},
    metrics::MetricType,
    registry::Registry,
};
use std::{borrow::Cow, collections::BTreeMap, fmt, sync::Arc};

/// By the name of each.
pub(super) type Labels = Vec<(&'static str, String)>;

/// A number.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Counter(f64),
    Gauge(f64),
    Timing(model::Timing),
}

impl Value {
    fn kind(&self) -> MetricType {
        match self {
            Self::Counter(_) => MetricType::Counter,
            Self::Gauge(_) => MetricType::Gauge,
            Self::Timing(_) => MetricType::Histogram,
        }
    }
}

#[derive(Debug)]
struct Family {
    help: &'static str,
    rows: Vec<(Labels, Value)>,
}

/// All numbers of one look.
#[derive(Debug, Default)]
pub(super) struct Families(BTreeMap<Cow<'static, str>, Family>);

impl Families {
    fn add(&mut self, name: &'static str, help: &'static str, labels: Labels, value: Value) {
        let family = self.0.entry(name.into()).or_insert_with(|| Family { help, rows: Vec::new() });
        family.rows.push((labels, value));
    }

    /// Adds a number that goes up and down.
    pub(super) fn gauge(&mut self, name: &'static str, help: &'static str, labels: Labels, value: f64) {
        self.add(name, help, labels, Value::Gauge(value));
    }

    /// Adds one that only grows; its name in the text ends with `_total`.
    pub(super) fn counter(&mut self, name: &'static str, help: &'static str, labels: Labels, value: f64) {
        self.add(name, help, labels, Value::Counter(value));
    }

    pub(super) fn timing(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: Labels,
        timing: model::Timing,
    ) {
        self.add(name, help, labels, Value::Timing(timing));
    }

    /// Returns the text: OpenMetrics, or what older readers know.
    pub(super) fn text(self, open_metrics: bool) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Arc::new(self)));
        let mut to = String::new();
        let written = if open_metrics {
            text::encode(&mut to, &registry)
        } else {
            prometheus_text::encode(&mut to, &registry)
        };
        written.expect("a String takes everything");
        to
    }
}

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, Family { help, rows }) in &self.0 {
            let Some((_, first)) = rows.first() else { continue };
            let mut family = encoder.encode_descriptor(name, help, None, first.kind())?;
            for (labels, value) in rows {
                if labels.is_empty() {
                    encode(value, &mut family)?;
                } else {
                    encode(value, &mut family.encode_family(labels)?)?;
                }
            }
        }
        Ok(())
    }
}

fn encode(value: &Value, to: &mut MetricEncoder<'_>) -> Result<(), fmt::Error> {
    match value {
        Value::Counter(number) => to.encode_counter::<NoLabelSet, f64, f64>(number, None),
        Value::Gauge(number) => to.encode_gauge(number),
        Value::Timing(timing) => {
            to.encode_histogram::<NoLabelSet>(timing.sum, timing.count, &timing.buckets, None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn families() -> Families {
        let mut families = Families::default();
        let row = |name: &str| vec![("name", name.to_owned())];
        families.gauge("b_bytes", "Bytes.", row("web"), 1.5);
        families.gauge("b_bytes", "Bytes.", row("a \"b\"\n\\"), 2.0);
        families.counter("a", "Count.", Vec::new(), 7.0);
        let timings = model::Timings::default();
        timings.note(std::time::Duration::from_millis(3));
        families.timing("c_seconds", "Took.", Vec::new(), timings.read());
        families
    }

    #[test]
    fn each_family_is_described_once_with_its_rows_behind_it() {
        let text = families().text(true);
        assert!(text.starts_with("# HELP a Count.\n# TYPE a counter\na_total 7"), "{text}");
        assert_eq!(text.matches("# TYPE b_bytes gauge").count(), 1);
        assert!(text.contains("b_bytes{name=\"web\"} 1.5\nb_bytes{name=\"a \\\"b\\\"\\n\\\\\"} 2"), "{text}");
        assert!(text.contains("c_seconds_bucket{le=\"0.005\"} 1\n"), "{text}");
        assert!(text.contains("c_seconds_bucket{le=\"+Inf\"} 1\n") && text.ends_with("# EOF\n"), "{text}");
        let older = families().text(false);
        assert!(older.contains("a_total 7") && !older.contains("EOF"), "{older}");
    }
}
