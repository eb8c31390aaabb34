//! Hostile JSON for every field that a reader reads: the fields are found by asking the reader itself which names and
//! which kinds of values it takes, so that a new one is attacked without a word here.
//!
//! ```text
//!  words of the types' tables --.
//!  a reader of bodies ----------+--> fields() --> bodies(): the body as it should be, with one hostile value each
//! ```

use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, fmt, path::Path};

/// How deep fields nest, at most.
const DEPTH: usize = 12;
/// A name that no field has.
const NOBODYS: &str = "Zq9";

/// A kind of JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Number,
    Text,
    List,
    Object,
}

impl Kind {
    pub const ALL: [Self; 5] = [Self::Bool, Self::Number, Self::Text, Self::List, Self::Object];

    /// Returns a value of this kind that does no harm.
    pub fn harmless(self) -> Value {
        match self {
            Self::Bool => json!(true),
            Self::Number => json!(1),
            Self::Text => json!("x"),
            Self::List => json!([]),
            Self::Object => json!({}),
        }
    }

    /// Numbers at the ends of their range, names that lead elsewhere, what is long or deep.
    fn hostile(self) -> Vec<Value> {
        match self {
            Self::Bool => vec![json!(true)],
            Self::Number => {
                vec![
                    json!(-1),
                    json!(i64::MIN),
                    json!(i64::MAX),
                    json!(u64::MAX),
                    json!(1_u64 << 32),
                    json!(0.5),
                ]
            }
            Self::Text => texts().into_iter().map(Value::String).collect(),
            Self::List => vec![json!([null]), Value::Array(vec![json!("a"); 3000]), nested()],
            Self::Object => vec![nested()],
        }
    }
}

/// Texts that end early, lead elsewhere, are another line, a template, no number, steer a terminal, turn what is read
/// around, or are long.
pub fn texts() -> Vec<String> {
    let short = [
        "",
        "\0",
        "a\nb",
        "../../../../etc/passwd",
        "{{.Nope}}",
        "-1",
        "NaN",
        "99999999999999999999",
        "\u{1b}[2J\u{202e}",
    ];
    short.into_iter().map(str::to_owned).chain([":/é".repeat(30_000)]).collect()
}

/// Lists in each other, as deep as JSON may be.
fn nested() -> Value {
    (0..100).fold(json!(1), |inner, _| json!([inner]))
}

/// A step into JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Key(String),
    /// The first one of a list.
    Item,
}

/// A place that a request has for a value.
#[derive(Debug, Clone)]
pub struct Field {
    pub path: Vec<Step>,
    /// What may be there.
    pub kinds: Vec<Kind>,
    /// Any name may stand below it.
    is_map: bool,
}

impl Field {
    /// Returns true if whatever is there is read: later, or by somebody else.
    pub fn is_anything(&self) -> bool {
        self.kinds.len() == Kind::ALL.len()
    }

    /// Returns the last name on the way to it.
    pub fn name(&self) -> &str {
        let names = self.path.iter().rev().filter_map(|step| match step {
            Step::Key(name) => Some(name.as_str()),
            Step::Item => None,
        });
        names.into_iter().next().unwrap_or_default()
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.path {
            match step {
                Step::Key(name) => write!(f, ".{name}")?,
                Step::Item => f.write_str("[]")?,
            }
        }
        Ok(())
    }
}

/// Sets what is at a path, and makes what is on the way.
pub fn put(all: &mut Value, path: &[Step], value: Value) {
    let mut at = all;
    for step in path {
        at = match step {
            Step::Key(name) => {
                if !at.is_object() {
                    *at = json!({});
                }
                &mut at[name]
            }
            Step::Item => {
                if at.as_array().is_none_or(Vec::is_empty) {
                    *at = json!([null]);
                }
                &mut at[0]
            }
        };
    }
    *at = value;
}

/// Finds the fields of what a reader reads.
struct Explorer<'a> {
    reads: &'a dyn Fn(&[u8]) -> bool,
    words: &'a [String],
    found: Vec<Field>,
}

impl Explorer<'_> {
    fn takes(&self, path: &[Step], value: Value) -> bool {
        let mut all = json!({});
        put(&mut all, path, value);
        (self.reads)(all.to_string().as_bytes())
    }

    fn kinds(&self, path: &[Step]) -> Vec<Kind> {
        Kind::ALL.into_iter().filter(|kind| self.takes(path, kind.harmless())).collect()
    }

    /// Returns those of these names that are read: what nobody reads may be anything.
    fn read_of<'w>(&self, path: &[Step], words: &'w [String]) -> Vec<&'w String> {
        let all_of =
            |kind: Kind| words.iter().map(|word| (word.clone(), kind.harmless())).collect::<Map<_, _>>();
        if Kind::ALL.into_iter().all(|kind| self.takes(path, Value::Object(all_of(kind)))) {
            return Vec::new();
        }
        match words {
            [] => Vec::new(),
            [one] => vec![one],
            many => {
                let (left, right) = many.split_at(many.len() / 2);
                [self.read_of(path, left), self.read_of(path, right)].concat()
            }
        }
    }

    fn explore(&mut self, path: &mut Vec<Step>) {
        assert!(path.len() < DEPTH, "fields do not end: {path:?}");
        let kinds = self.kinds(path);
        if !path.is_empty() && kinds.len() == Kind::ALL.len() {
            // Kept as it is, whatever it is.
            self.found.push(Field { path: path.clone(), kinds, is_map: false });
            return;
        }
        if kinds.contains(&Kind::List) {
            self.explore_below(path, Step::Item);
        }
        let mut is_map = false;
        if kinds.contains(&Kind::Object) {
            is_map = !self.read_of(path, &[NOBODYS.to_owned()]).is_empty();
            if is_map {
                self.explore_below(path, Step::Key(NOBODYS.to_owned()));
            } else {
                for word in self.read_of(path, self.words) {
                    self.explore_below(path, Step::Key(word.clone()));
                }
            }
        }
        if !path.is_empty() {
            self.found.push(Field { path: path.clone(), kinds, is_map });
        }
    }

    fn explore_below(&mut self, path: &mut Vec<Step>, step: Step) {
        path.push(step);
        self.explore(path);
        path.pop();
    }
}

/// Returns the fields of what `reads` takes, called by some of these words. `reads`: returns true for JSON that it takes.
pub fn fields(reads: &dyn Fn(&[u8]) -> bool, words: &[String]) -> Vec<Field> {
    let mut explorer = Explorer { reads, words, found: Vec::new() };
    explorer.explore(&mut Vec::new());
    explorer.found
}

/// Returns every name that stands as `= "Name"` or `=> "Name"` in the sources of a folder, in one spelling each.
///
/// # Panics
/// When there is no such folder.
pub fn vocabulary(folder: &Path) -> Vec<String> {
    let mut words = BTreeMap::new();
    for file in std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let text = std::fs::read_to_string(file.expect("a file").path()).expect("a source");
        for line in text.lines() {
            let quoted = line.split_once("= \"").or_else(|| line.split_once("=> \"")).map(|(_, rest)| rest);
            if let Some((word, _)) = quoted.and_then(|rest| rest.split_once('"')) {
                words.entry(word.to_ascii_lowercase()).or_insert_with(|| word.to_owned());
            }
        }
    }
    words.into_values().collect()
}

/// A body with one hostile value.
#[derive(Debug, Clone)]
pub struct Body {
    pub path: Vec<Step>,
    pub value: Value,
    pub json: Value,
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut = |text: String| text.chars().take(60).collect::<String>();
        for step in &self.path {
            match step {
                Step::Key(name) => write!(f, ".{}", cut(name.escape_default().to_string()))?,
                Step::Item => f.write_str("[]")?,
            }
        }
        write!(f, " = {}", cut(self.value.to_string()))
    }
}

/// Returns bodies like `base`, each with one hostile value in one field, or one hostile name in a map.
pub fn bodies(base: &Value, fields: &[Field]) -> Vec<Body> {
    let mut all = Vec::new();
    for field in fields {
        let values = field.kinds.iter().flat_map(|kind| kind.hostile());
        let mut places: Vec<_> = values.map(|value| (field.path.clone(), value)).collect();
        if field.is_map {
            let below = [field.path.as_slice(), &[Step::Key(NOBODYS.to_owned())]].concat();
            let like = fields.iter().find(|other| other.path == below);
            let kind = like.and_then(|like| like.kinds.first()).copied().unwrap_or(Kind::Text);
            places.extend(
                texts()
                    .into_iter()
                    .map(|name| ([field.path.as_slice(), &[Step::Key(name)]].concat(), kind.harmless())),
            );
        }
        for (path, value) in places {
            let mut json = base.clone();
            put(&mut json, &path, value.clone());
            all.push(Body { path, value, json });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `{"A": {"B": [number]}, "M": {name: text}, "V": anything}`.
    fn reads(json: &[u8]) -> bool {
        let Ok(Value::Object(all)) = serde_json::from_slice::<Value>(json) else { return false };
        let b =
            |b: &Value| b.as_array().is_some_and(|items| items.iter().all(|i| i.is_number() || i.is_null()));
        all.iter().all(|(name, value)| match name.as_str() {
            "A" => value.as_object().is_some_and(|a| a.get("B").is_none_or(b)),
            "M" => value.as_object().is_some_and(|m| m.values().all(Value::is_string)),
            _ => true,
        })
    }

    #[test]
    fn every_field_that_is_read_is_found_with_what_it_takes() {
        let words = ["A", "B", "C", "M", "V"].map(str::to_owned);
        let found = fields(&reads, &words);
        let shown: Vec<_> = found.iter().map(|f| format!("{f} {:?}", f.kinds)).collect();
        assert_eq!(
            shown,
            [".A.B[] [Number]", ".A.B [List]", ".A [Object]", ".M.Zq9 [Text]", ".M [Object]"],
            "what takes anything is no field"
        );
        let bodies = bodies(&json!({"C": 1}), &found);
        let with = |text: &str| {
            let wanted: Value = serde_json::from_str(text).expect("JSON");
            bodies.iter().any(|body| body.json == wanted)
        };
        assert!(with(r#"{"C":1,"A":{"B":[-1]}}"#) && with(r#"{"C":1,"M":{"Zq9":"NaN"}}"#));
        assert!(with(r#"{"C":1,"M":{"a\nb":"x"}}"#));
    }
}
