//! Lists as Docker prints them: a table, only ids, JSON lines, or a template such as `{{.ID}}: {{.Name}}`.

use crate::{cli::ListArgs, output};
use anyhow::{Result, bail};
use serde_json::{Map, Value};

/// Rows of named values; the first column is what `--quiet` prints.
#[derive(Debug)]
pub(crate) struct List {
    /// Header of the table, name in templates.
    columns: &'static [(&'static str, &'static str)],
    rows: Vec<Vec<String>>,
}

impl List {
    pub(crate) fn new(columns: &'static [(&'static str, &'static str)]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, values: Vec<String>) {
        debug_assert_eq!(values.len(), self.columns.len(), "a value for each column");
        self.rows.push(values);
    }

    /// Prints the list in the form asked for.
    ///
    /// # Errors
    /// The template is not one, or standard output is closed.
    pub(crate) fn print(&self, args: &ListArgs) -> Result<()> {
        if args.quiet {
            return self.rows.iter().try_for_each(|row| output::line(&row[0]));
        }
        match args.format.as_deref() {
            None | Some("table") => output::line(&self.table()),
            Some(format) => {
                for row in &self.rows {
                    let fields = self
                        .columns
                        .iter()
                        .zip(row)
                        .map(|((_, name), v)| ((*name).to_owned(), v.clone().into()));
                    let value = Value::Object(fields.collect::<Map<_, _>>());
                    output::line(&render(format, &value)?)?;
                }
                Ok(())
            }
        }
    }

    /// Returns the table with aligned columns.
    pub(crate) fn table(&self) -> String {
        let mut widths: Vec<usize> = self.columns.iter().map(|(header, _)| header.len()).collect();
        for row in &self.rows {
            for (width, value) in widths.iter_mut().zip(row) {
                *width = (*width).max(value.chars().count());
            }
        }
        let line = |values: &mut dyn Iterator<Item = &str>| {
            let cells: Vec<String> = values.zip(&widths).map(|(v, w)| format!("{v:w$}")).collect();
            cells.join("   ").trim_end().to_owned()
        };
        let mut lines = vec![line(&mut self.columns.iter().map(|(header, _)| *header))];
        lines.extend(self.rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
        lines.join("\n")
    }
}

/// Fills a template: `json`, `{{json .}}`, `{{.A.B}}`, `{{json .A}}`, and plain text around them.
///
/// # Errors
/// Names the part that is not understood or the field that is not there.
pub(crate) fn render(template: &str, value: &Value) -> Result<String> {
    if template == "json" {
        return Ok(value.to_string());
    }
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(&before.replace("\\t", "\t").replace("\\n", "\n"));
        let Some((action, tail)) = after.split_once("}}") else {
            bail!("template parsing error: unclosed action in {template:?}");
        };
        rest = tail;
        let action = action.trim();
        let (json, path) = match action.strip_prefix("json ") {
            Some(path) => (true, path.trim()),
            None => (false, action),
        };
        let Some(path) = path.strip_prefix('.') else {
            bail!(
                "template parsing error: {action:?} is not a field; known are {{{{.Field}}}} and {{{{json .Field}}}}"
            );
        };
        let found = path.split('.').filter(|p| !p.is_empty()).try_fold(value, |value, key| value.get(key));
        let Some(found) = found else { bail!("template: no field {path:?} in this object") };
        match found {
            Value::String(text) if !json => out.push_str(text),
            other => out.push_str(&other.to_string()),
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Turns `-f key=value` flags into Docker's filters parameter.
///
/// # Errors
/// Names the flag that has no `=`.
pub(crate) fn filters(flags: &[String]) -> Result<String> {
    let mut all: Map<String, Value> = Map::new();
    for flag in flags {
        let Some((key, value)) = flag.split_once('=') else {
            bail!("invalid filter {flag:?} (should be KEY=VALUE)");
        };
        let values = all.entry(key.to_owned()).or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(values) = values {
            values.insert(value.to_owned(), true.into());
        }
    }
    Ok(Value::Object(all).to_string())
}

/// Adds one more filter to those that [`filters`] read.
///
/// # Errors
/// `filters` is not what [`filters`] returns.
pub(crate) fn with_filter(filters: &str, key: &str, values: Map<String, Value>) -> Result<String> {
    let mut all: Map<String, Value> = serde_json::from_str(filters)?;
    all.insert(key.to_owned(), Value::Object(values));
    Ok(Value::Object(all).to_string())
}

/// Returns the time of this host's clock.
pub(crate) fn now() -> model::Timestamp {
    let nanos = time::OffsetDateTime::now_utc().unix_timestamp_nanos();
    model::Timestamp(i64::try_from(nanos).unwrap_or(i64::MAX))
}

/// Returns how long ago something was, as Docker words it: `3 minutes`.
pub(crate) fn human(duration: std::time::Duration) -> String {
    let s = duration.as_secs();
    let count = |n: u64, unit: &str| if n == 1 { format!("{n} {unit}") } else { format!("{n} {unit}s") };
    match s {
        0 => "Less than a second".to_owned(),
        1..60 => count(s, "second"),
        60..120 => "About a minute".to_owned(),
        120..3600 => count(s / 60, "minute"),
        3600..7200 => "About an hour".to_owned(),
        7200..172_800 => count(s / 3600, "hour"),
        172_800..1_209_600 => count(s / 86_400, "day"),
        1_209_600..5_184_000 => count(s / 604_800, "week"),
        _ => count(s / 2_592_000, "month"),
    }
}

/// *Unit:* bytes in, Docker's decimal units out.
pub(crate) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in ["kB", "MB", "GB", "TB"] {
        if value < 1000.0 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    if value < 10.0 && unit != "B" { format!("{value:.2}{unit}") } else { format!("{value:.0}{unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_take_fields_and_say_what_they_do_not_know() {
        let value = serde_json::json!({"ID": "x", "Spec": {"Name": "web", "Replicas": 3}});
        assert_eq!(render("{{.ID}}: {{.Spec.Name}}", &value).unwrap(), "x: web");
        assert_eq!(render("{{json .Spec.Name}}", &value).unwrap(), "\"web\"");
        assert_eq!(render("{{.Spec.Replicas}}", &value).unwrap(), "3");
        assert!(render("{{.Nope}}", &value).unwrap_err().to_string().contains("Nope"));
        assert!(render("{{range .X}}", &value).is_err());
        assert!(render("{{.ID", &value).is_err());
    }

    #[test]
    fn columns_line_up() {
        let mut list = List::new(&[("ID", "ID"), ("NAME", "Name")]);
        list.row(vec!["1".into(), "a-long-name".into()]);
        list.row(vec!["22".into(), "b".into()]);
        assert_eq!(list.table(), "ID   NAME\n1    a-long-name\n22   b");
    }
}
