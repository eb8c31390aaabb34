//! What can be wrong with a stack file, and where.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A place in a stack file. Lines and columns count from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At {
    pub file: Arc<Path>,
    pub line: u32,
    pub column: u32,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// Why a stack file cannot be deployed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no stack file was given")]
    NoFiles,
    #[error("{at}: {text}")]
    Yaml { at: At, text: String },
    #[error("{at}: {path}: unknown key {key:?}{}", hint(.suggestion))]
    UnknownKey { at: At, path: String, key: String, suggestion: Option<String> },
    #[error("{at}: {path}: {key:?} is not supported: {why}")]
    UnsupportedKey { at: At, path: String, key: String, why: &'static str },
    /// A value that means something on one host, and cannot be honoured by a swarm.
    #[error("{at}: {path}: {text}")]
    Unsupported { at: At, path: String, text: String },
    /// A value of the wrong type, out of range or of a form that nothing has.
    #[error("{at}: {path}: {text}")]
    Invalid { at: At, path: String, text: String },
    /// A name that is used but not defined.
    #[error("{at}: {path}: undefined {kind} {name:?}{}", hint(.suggestion))]
    Undefined { at: At, path: String, kind: &'static str, name: String, suggestion: Option<String> },
    #[error("{at}: {path}: invalid interpolation format: {value:?}: {why}")]
    Interpolation { at: At, path: String, value: String, why: String },
    /// `${NAME:?message}` and `${NAME?message}`.
    #[error("{at}: {path}: required variable {name} is missing a value: {message}")]
    RequiredVariable { at: At, path: String, name: String, message: String },
    #[error("{at}: {path}: cannot read {}", file.display())]
    Read {
        at: At,
        path: String,
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    /// As Docker Compose words it.
    #[error("{at}: {path}: env file {} not found; hint: `required: false` does without", file.display())]
    NoEnvFile { at: At, path: String, file: PathBuf },
    #[error("{}:{line}: {text}", file.display())]
    EnvFile { file: PathBuf, line: usize, text: String },
    #[error("cannot read {}", file.display())]
    ReadDefaultEnv {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "invalid stack name {name:?}: want lower-case letters, digits, '-' and '_', a letter or digit first"
    )]
    Name { name: String },
    #[error("{at}: {path}: services depend on each other in a circle: {circle}")]
    Circle { at: At, path: String, circle: String },
}

impl Error {
    /// Returns the place in a stack file that it is about.
    pub fn at(&self) -> Option<&At> {
        match self {
            Self::Yaml { at, .. }
            | Self::UnknownKey { at, .. }
            | Self::UnsupportedKey { at, .. }
            | Self::Unsupported { at, .. }
            | Self::Invalid { at, .. }
            | Self::Undefined { at, .. }
            | Self::Interpolation { at, .. }
            | Self::RequiredVariable { at, .. }
            | Self::Read { at, .. }
            | Self::NoEnvFile { at, .. }
            | Self::Circle { at, .. } => Some(at),
            Self::NoFiles | Self::EnvFile { .. } | Self::ReadDefaultEnv { .. } | Self::Name { .. } => None,
        }
    }
}

fn hint(suggestion: &Option<String>) -> String {
    suggestion.as_ref().map_or_else(String::new, |s| format!("\nhint: did you mean {s:?}?"))
}

/// Returns the candidate that a misspelt word was most likely meant to be.
pub(crate) fn suggest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let limit = (word.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|c| (distance(&word.to_lowercase().replace('-', "_"), c), c))
        .filter(|(d, _)| *d <= limit)
        .min()
        .map(|(_, c)| c.to_owned())
}

/// Counts insertions, deletions, replacements and swaps of neighbours.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    // The first row and column: nothing turned into a prefix, or the other way.
    let edge = |i: usize| {
        (0..=b.len())
            .map(|j| {
                if i == 0 {
                    j
                } else if j == 0 {
                    i
                } else {
                    0
                }
            })
            .collect()
    };
    let mut rows: Vec<Vec<usize>> = (0..=a.len()).map(edge).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            rows[i][j] = change.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                rows[i][j] = rows[i][j].min(rows[i - 2][j - 2] + 1);
            }
        }
    }
    rows[a.len()][b.len()]
}
