//! Go's templates, in which Docker's users write what lists show (`--format`), what a task's environment holds, the tag
//! of a log and the data of a secret.
//!
//! ```text
//! text --Template::parse--> nodes --render(dot, words)--> text
//!         lex, parse                 run, builtin, verbs
//! ```
//! [`Words`] is what one use of templates adds to Go's own functions: [`docker`] what Docker's CLI and log tags have,
//! [`task`] what services have.
//!
//! Invariants: no I/O; what a template may cost is bounded whatever it says ([`FUEL`], [`DEPTH_MAX`]), as a manager reads
//! those of people who may only deploy.
//!
//! *Start reading at* [`Template::render`]. Source: Go's `text/template`, `text/template/parse` and `fmt`.
//!
//! # Why
//! - 2026-11-30: own code. Of the two crates that know this language one is "passively maintained" and knows neither
//!   `break`, `else with` nor an end to what a template costs; the other is a fork of it in its first version, with
//!   functions that read clocks and keys.
//! - 2026-11-30: left out are `define`, `template`, `block`, `call` and `js`: a format is one text, and nobody's
//!   documentation of these commands has one of them. They are refused by name.

mod builtin;
pub mod docker;
mod lex;
mod parse;
mod run;
pub mod task;
mod verbs;

pub use serde_json::{Map, Value};
pub use verbs::{duration, plain, time};

/// What rendering one template may cost. *Unit:* bytes made, where each step counts as `STEP` of them.
pub const FUEL: usize = 16 << 20;

/// What one step costs of [`FUEL`].
const STEP: usize = 256;

/// How deep actions and parentheses may nest.
pub const DEPTH_MAX: usize = 64;

/// A text that is no template, or a template that cannot be filled in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text is not a template.
    #[error("template parsing error: template: :{line}: {why}")]
    Parse {
        /// *Range:* from 1.
        line: usize,
        /// What is wrong there.
        why: String,
    },
    /// The template asks for what is not there, or for too much.
    #[error("template: {0}")]
    Run(String),
}

/// What a use of templates adds to Go's own functions, and how it reads objects.
pub trait Words {
    /// Says whether there is a function of that name, so that one that does not exist is refused before anything runs.
    fn knows(&self, name: &str) -> bool;

    /// Calls a function of that name; [`Words::knows`] it.
    ///
    /// # Errors
    /// Its arguments are not what it takes.
    fn call(&self, name: &str, args: &[&Value]) -> Result<Value, String>;

    /// Returns what stands for a key that an object does not have; `asked` where it is only asked about (`if`, `with`).
    ///
    /// # Errors
    /// It is a mistake to name one.
    fn missing(&self, _object: &Map<String, Value>, key: &str, _asked: bool) -> Result<Value, String> {
        Err(format!("no field {key:?} in this object"))
    }

    /// Returns how the field `name` of Go's object is printed, if its type says so and not its value: a duration is a
    /// number of nanoseconds in JSON, and `1m30s` in a text.
    fn printed(&self, _name: &str, _value: &Value) -> Option<String> {
        None
    }

    /// Calls what Go's object has as a method with arguments, if it has one of that name: `.Label "tier"`.
    fn method(&self, _on: &Value, _name: &str, _args: &[&Value]) -> Option<Result<Value, String>> {
        None
    }
}

/// A template that was understood.
#[derive(Debug, Clone)]
pub struct Template {
    nodes: Vec<parse::Node>,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// [`Error::Parse`]: it is none, or uses a function that neither Go nor `words` has.
    pub fn parse(text: &str, words: &dyn Words) -> Result<Self, Error> {
        parse::template(text, words).map(|nodes| Self { nodes })
    }

    /// Fills the template in with `dot`.
    ///
    /// # Errors
    /// [`Error::Run`]: it asks for a field that is not there, calls a function with what it does not take, or costs more
    /// than [`FUEL`].
    pub fn render(&self, dot: &Value, words: &dyn Words) -> Result<String, Error> {
        run::render(&self.nodes, dot, words).map_err(Error::Run)
    }
}

/// Reads a template and fills it in.
///
/// # Errors
/// As [`Template::parse`] and [`Template::render`].
pub fn fill(text: &str, dot: &Value, words: &dyn Words) -> Result<String, Error> {
    Template::parse(text, words)?.render(dot, words)
}
