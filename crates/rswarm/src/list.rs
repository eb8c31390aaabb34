//! Lists as Docker prints them: a table, only ids, JSON lines, or one of Go's templates such as `{{.ID}}: {{.Name}}`.

use crate::{cli::ListArgs, output};
use anyhow::{Result, bail};
use serde_json::{Map, Value};
use template::{Template, Words};

/// Rows of named values; the first column is what `--quiet` prints.
#[derive(Debug)]
pub(crate) struct List {
    /// Header of the table, name in templates.
    columns: Vec<(&'static str, &'static str)>,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    values: Vec<String>,
    /// What templates see too, or see otherwise than the table shows it.
    fields: Map<String, Value>,
    /// They see nothing else.
    whole: bool,
}

impl List {
    pub(crate) fn new(columns: &[(&'static str, &'static str)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, values: Vec<String>) {
        self.row_with(values, Value::Null);
    }

    /// Adds a row of which templates see the fields of this object too, in the place of columns of that name.
    pub(crate) fn row_with(&mut self, values: Vec<String>, object: Value) {
        self.add(values, object, false);
    }

    /// Adds a row of which templates see this object, and nothing else.
    pub(crate) fn row_as(&mut self, values: Vec<String>, object: Value) {
        self.add(values, object, true);
    }

    fn add(&mut self, values: Vec<String>, object: Value, whole: bool) {
        debug_assert_eq!(values.len(), self.columns.len(), "a value for each column");
        let fields = if let Value::Object(fields) = object { fields } else { Map::new() };
        self.rows.push(Row { values, fields, whole });
    }

    /// Orders the rows as a person would: `host2` before `host10`. *Source:* docker/cli `sortorder.NaturalLess` in
    /// its lists of nodes, services, stacks, networks, volumes, secrets and configs.
    pub(crate) fn sort_by(&mut self, column: &str) {
        let at = self.columns.iter().position(|(_, name)| *name == column).expect("a column of this list");
        self.rows.sort_by(|a, b| alphanumeric_sort::compare_str(&a.values[at], &b.values[at]));
    }

    /// Prints the list in the form asked for.
    ///
    /// # Errors
    /// The template is not one, or standard output is closed.
    pub(crate) fn print(&self, args: &ListArgs) -> Result<()> {
        if args.quiet {
            return self.rows.iter().try_for_each(|row| output::line(&self.quiet(row)));
        }
        match args.format.as_deref() {
            None | Some("table") => output::line(&self.table()),
            Some(format) => {
                let lines = self.formatted(format)?;
                lines.iter().try_for_each(|text| output::line(text))
            }
        }
    }

    fn quiet(&self, row: &Row) -> String {
        let first = self.columns.first().map(|(_, name)| *name).unwrap_or_default();
        let given = row.fields.get(first).and_then(Value::as_str);
        given.unwrap_or(&row.values[0]).to_owned()
    }

    /// Returns the rows through a template; `table TEMPLATE` has a line of headers above them and aligns at tabs.
    fn formatted(&self, format: &str) -> Result<Vec<String>> {
        // Source: docker/cli `cli/command/formatter/formatter.go`.
        let (text, table) = match format.strip_prefix("table") {
            Some(rest) => (rest.trim_matches(' '), true),
            None => (format, false),
        };
        let template = Format::parse(text)?;
        let mut lines = Vec::new();
        if table {
            let names = self.rows.iter().flat_map(|row| row.fields.keys());
            let mut headers: Map<String, Value> = names.map(|name| (name.clone(), heading(name))).collect();
            headers.extend(self.columns.iter().map(|(header, name)| ((*name).to_owned(), (*header).into())));
            lines.push(template.fill(&Value::Object(headers), &Headers)?);
        }
        for row in &self.rows {
            let columns = self.columns.iter().zip(&row.values).filter(|_| !row.whole);
            let columns = columns.map(|((_, name), v)| ((*name).to_owned(), v.clone().into()));
            let fields = columns.chain(row.fields.clone());
            lines.push(template.fill(&Value::Object(fields.collect()), &Cli::default())?);
        }
        Ok(if table { vec![aligned(&lines)] } else { lines })
    }

    /// Returns the table with aligned columns.
    pub(crate) fn table(&self) -> String {
        let headers: Vec<&str> = self.columns.iter().map(|(header, _)| *header).collect();
        let mut lines = vec![headers.join("\t")];
        lines.extend(self.rows.iter().map(|row| row.values.join("\t")));
        aligned(&lines)
    }
}

/// Narrowest column of a table, and the blanks between two. *Unit:* characters. Source: docker/cli
/// `cli/command/formatter/formatter.go`, `postFormat`.
const COLUMN_MIN: usize = 10;
const COLUMN_GAP: usize = 3;

/// Aligns lines at their tabs.
fn aligned(lines: &[String]) -> String {
    let cells: Vec<Vec<&str>> = lines.iter().map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<usize> = Vec::new();
    for row in &cells {
        // The last cell is followed by no other: it makes no column wider.
        for (at, cell) in row.iter().enumerate().take(row.len().saturating_sub(1)) {
            widths.resize(widths.len().max(at + 1), COLUMN_MIN);
            widths[at] = widths[at].max(cell.chars().count() + COLUMN_GAP);
        }
    }
    let line = |row: &Vec<&str>| {
        let (last, before) = row.split_last().expect("a split has at least one part");
        let padded = before.iter().zip(&widths).map(|(cell, w)| format!("{cell:w$}"));
        (padded.collect::<String>() + last).trim_end().to_owned()
    };
    cells.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Returns the header of a field that is no column: `CreatedAt` is `CREATED AT`.
fn heading(name: &str) -> Value {
    let mut header = String::new();
    let mut before = None;
    for c in name.chars() {
        if c.is_uppercase() && before.is_some_and(char::is_lowercase) {
            header.push(' ');
        }
        header.extend(c.to_uppercase());
        before = Some(c);
    }
    header.into()
}

/// A template as `--format` takes it.
pub(crate) struct Format(Template);

impl Format {
    /// Reads `json` or a template; `\t` and `\n` outside of actions are what they say.
    ///
    /// # Errors
    /// It is not a template.
    pub(crate) fn parse(format: &str) -> Result<Self> {
        let text = match format {
            "json" => "{{json .}}".to_owned(),
            format => format.replace("\\t", "\t").replace("\\n", "\n"),
        };
        Ok(Self(Template::parse(&text, &Cli::default())?))
    }

    fn fill(&self, value: &Value, words: &dyn Words) -> Result<String> {
        Ok(self.0.render(value, words)?)
    }

    /// Fills it in.
    ///
    /// # Errors
    /// It asks for a field that is not there.
    pub(crate) fn render(&self, value: &Value) -> Result<String> {
        self.fill(value, &Cli::default())
    }

    /// As [`Self::render`], of an object as the API has it under `kind`, e.g. `services`.
    ///
    /// # Errors
    /// It asks for a field that is not there.
    pub(crate) fn render_object(&self, kind: &str, value: &Value) -> Result<String> {
        let times: &[&str] = match kind {
            "services" => &["CreatedAt", "UpdatedAt", "StartedAt", "CompletedAt", "LastExecution"],
            "tasks" => &["CreatedAt", "UpdatedAt", "Timestamp"],
            "nodes" | "secrets" | "configs" => &["CreatedAt", "UpdatedAt"],
            "networks" => &["Created"],
            "images" => &["LastTagTime"],
            // Those of containers and volumes are texts in Docker's structs, too.
            _ => &[],
        };
        self.fill(value, &Cli { times })
    }
}

/// Fills a template in, or returns JSON for `json`.
///
/// # Errors
/// It is not a template, or asks for a field that is not there.
pub(crate) fn render(format: &str, value: &Value) -> Result<String> {
    Format::parse(format)?.render(value)
}

/// Docker's functions, over objects as the API words them.
#[derive(Default)]
struct Cli {
    /// Fields that are times in Docker's structs of this kind of object, and not texts.
    times: &'static [&'static str],
}

/// Fields that are durations in Docker's structs, wherever they are. *Unit:* nanoseconds.
/// Source: moby `api/types/container/config.go` (`HealthcheckConfig`), `api/types/swarm/{service,task,swarm,container}.go`.
const DURATIONS: [&str; 10] = [
    "Interval",
    "Timeout",
    "StartPeriod",
    "StartInterval",
    "StopGracePeriod",
    "Delay",
    "Window",
    "Monitor",
    "HeartbeatPeriod",
    "NodeCertExpiry",
];

impl Words for Cli {
    fn knows(&self, name: &str) -> bool {
        template::docker::knows(name)
    }

    fn call(&self, name: &str, args: &[&Value]) -> Result<Value, String> {
        template::docker::call(name, args)
    }

    /// Docker's CLI reads objects into Go's structs: they say `ID` where JSON has `Id`, hold what JSON leaves out, and
    /// their maps have nothing where nothing is.
    fn missing(&self, object: &Map<String, Value>, key: &str, asked: bool) -> Result<Value, String> {
        let other = if key == "ID" { object.get("Id") } else { None };
        match other {
            Some(id) => Ok(id.clone()),
            None if asked || (!object.is_empty() && object.values().all(Value::is_string)) => Ok(Value::Null),
            None => Err(format!("no field {key:?} in this object")),
        }
    }

    fn printed(&self, name: &str, value: &Value) -> Option<String> {
        match value {
            Value::Number(nanos) if DURATIONS.contains(&name) => nanos.as_i64().map(template::duration),
            Value::String(text) if self.times.contains(&name) => template::time(text),
            _ => None,
        }
    }

    /// `{{.Label "tier"}}` of what has `Labels`, as lists have it.
    fn method(&self, on: &Value, name: &str, args: &[&Value]) -> Option<Result<Value, String>> {
        let (labels, [Value::String(key)]) = (on.get("Labels")?, args) else { return None };
        if name != "Label" {
            return None;
        }
        let pair = |pair: &str| pair.split_once('=').filter(|(k, _)| k == key).map(|(_, v)| v.to_owned());
        let value = match labels {
            Value::String(all) => all.split(',').find_map(pair),
            labels => labels.get(key).and_then(Value::as_str).map(str::to_owned),
        };
        Some(Ok(value.unwrap_or_default().into()))
    }
}

/// What fills the line of headers: every function leaves its first argument as it is. Source: docker/cli
/// `templates/templates.go`, `HeaderFunctions`.
struct Headers;

impl Words for Headers {
    fn knows(&self, name: &str) -> bool {
        Cli::default().knows(name)
    }

    fn call(&self, name: &str, args: &[&Value]) -> Result<Value, String> {
        if name == "pad" {
            Cli::default().call(name, args)
        } else {
            Ok(args.first().map_or(Value::Null, |v| (*v).clone()))
        }
    }

    fn missing(&self, _object: &Map<String, Value>, key: &str, _asked: bool) -> Result<Value, String> {
        Ok(heading(key))
    }

    fn method(&self, _on: &Value, name: &str, args: &[&Value]) -> Option<Result<Value, String>> {
        // As Docker heads a column of labels: by the last part of their name.
        let [Value::String(key)] = args else { return None };
        let last = key.rsplit(['.', '/']).next().unwrap_or(key);
        (name == "Label").then(|| Ok(last.replace(['-', '_'], " ").into()))
    }
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
    fn objects_show_durations_and_their_kinds_times_as_docker_does() {
        let value = serde_json::json!({
            "CreatedAt": "2026-12-01T10:00:00.500000000Z",
            "Spec": {"UpdateConfig": {"Delay": 90_000_000_000_i64}, "Healthcheck": {"Retries": 3, "Interval": 500_000}},
        });
        let shown = |kind, format| Format::parse(format).unwrap().render_object(kind, &value).unwrap();
        assert_eq!(shown("services", "{{.CreatedAt}}"), "2026-12-01 10:00:00.5 +0000 UTC");
        assert_eq!(shown("volumes", "{{.CreatedAt}}"), "2026-12-01T10:00:00.500000000Z");
        assert_eq!(shown("services", "{{.Spec.UpdateConfig.Delay}}"), "1m30s");
        assert_eq!(shown("services", "{{json .Spec.UpdateConfig.Delay}}"), "90000000000");
        let health = "{{with .Spec.Healthcheck}}{{.Interval}} x {{.Retries}}{{end}}";
        assert_eq!(shown("containers", health), "500\u{b5}s x 3");
    }

    #[test]
    fn objects_read_as_dockers_cli_shows_them() {
        let value = serde_json::json!({
            "Id": "x", "State": {"Status": "running"}, "Config": {"Labels": {"tier": "gold"}, "Env": ["A=1", "B=2"]},
            "Endpoint": {"VirtualIPs": [{"Addr": "10.0.0.2/24"}, {"Addr": "10.1.0.2/24"}], "Ports": [1, 2, 3]},
        });
        for (format, shown) in [
            ("{{.ID}} {{.Id}}", "x x"),
            ("{{range .Endpoint.VirtualIPs}}{{.Addr}} {{end}}", "10.0.0.2/24 10.1.0.2/24 "),
            ("{{len .Endpoint.Ports}}", "3"),
            ("{{index .Config.Labels \"tier\"}}{{index .Config.Labels \"nope\"}}", "gold"),
            ("{{.Config.Labels.nope}}", "<no value>"),
            ("{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}", "none"),
            ("{{with .State}}{{with .Health}}x{{end}}{{.Status}}{{end}}", "running"),
            ("{{join .Config.Env \",\"}} {{json .Config.Labels}}", "A=1,B=2 {\"tier\":\"gold\"}"),
            ("{{.State.Status | upper}}\\t{{title .State.Status}}\\n", "RUNNING\tRunning\n"),
            ("{{slice .Id 0 1}}{{printf \"%5s\" (truncate .State.Status 3)}}", "x  run"),
            ("json", &value.to_string()),
        ] {
            assert_eq!(render(format, &value).unwrap(), shown, "{format}");
        }
        assert!(render("{{.State.Health.Status}}", &value).is_err());
    }

    #[test]
    fn names_are_ordered_as_people_count() {
        let mut list = List::new(&[("ID", "ID"), ("NAME", "Name")]);
        for name in ["host10", "host2", "a", "host1", "host2b"] {
            list.row(vec![format!("id of {name}"), name.to_owned()]);
        }
        list.sort_by("Name");
        assert_eq!(list.formatted("{{.Name}}").unwrap(), ["a", "host1", "host2", "host2b", "host10"]);
    }

    #[test]
    fn lists_are_tables_of_any_template() {
        let mut list = List::new(&[("NODE ID", "ID"), ("HOSTNAME", "Hostname")]);
        let labels = "tier=gold,a=b";
        let fields = |own: bool, id: &str| serde_json::json!({"ID": id, "Self": own, "Labels": labels});
        list.row_with(vec!["n1 *".into(), "a".into()], fields(true, "n1"));
        list.row_with(vec!["n2".into(), "long-name-of-a-host".into()], fields(false, "n2"));
        for (format, shown) in [
            (
                "table {{.Hostname}}\\t{{.ID}}",
                &["HOSTNAME              NODE ID\na                     n1\nlong-name-of-a-host   n2"][..],
            ),
            (
                "table {{upper .ID}}\\t{{.Label \"com.x.tier\"}}|",
                &["NODE ID   tier|\nN1        |\nN2        |"],
            ),
            ("{{.ID}}{{if .Self}} *{{end}} {{.Label \"tier\"}}", &["n1 * gold", "n2 gold"]),
            ("{{.Hostname | len}}", &["1", "19"]),
            ("{{json .ID}}", &["\"n1\"", "\"n2\""]),
        ] {
            assert_eq!(list.formatted(format).unwrap(), shown, "{format}");
        }
        let json = &list.formatted("json").unwrap()[0];
        assert_eq!(json, "{\"ID\":\"n1\",\"Hostname\":\"a\",\"Self\":true,\"Labels\":\"tier=gold,a=b\"}");
        assert_eq!(list.quiet(&list.rows[0]), "n1");
        for wrong in ["{{.ID", "table {{.ID}} {{nope}}", "{{.Nope}}"] {
            assert!(list.formatted(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn columns_line_up() {
        let mut list = List::new(&[("ID", "ID"), ("NAME", "Name")]);
        list.row(vec!["1".into(), "a-long-name".into()]);
        list.row(vec!["22".into(), "b".into()]);
        assert_eq!(list.table(), "ID        NAME\n1         a-long-name\n22        b");
    }
}
