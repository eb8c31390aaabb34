//! Why a container or a process in it could not be made, in Docker's words.

use rustix::io::Errno;
use std::io;

/// A text for the user, and Docker's exit code when it is about the program itself.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) message: String,
    /// 127 or 126; 0 = something else failed.
    pub(super) exec_code: i32,
}

impl Failure {
    pub(super) fn other(message: String) -> Self {
        Self { message, exec_code: 0 }
    }

    /// The same, and what it was part of.
    pub(super) fn during(self, whole: &str) -> Self {
        Self::other(format!("{whole}: {}", self.message))
    }

    /// `step: reason`.
    pub(super) fn at(step: impl Into<String>, errno: Errno) -> Self {
        Self::other(format!("{}: {}", step.into(), text(errno)))
    }
}

/// Names the step that failed.
pub(super) trait At<T> {
    fn at(self, step: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T> At<T> for Result<T, Errno> {
    fn at(self, step: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|errno| Failure::at(step(), errno))
    }
}

impl<T> At<T> for io::Result<T> {
    fn at(self, step: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| match error.raw_os_error() {
            Some(errno) => Failure::at(step(), Errno::from_raw_os_error(errno)),
            None => Failure::other(format!("{}: {error}", step())),
        })
    }
}

/// Returns the C library's text for an error, in lower case as Go writes it.
pub(super) fn text(errno: Errno) -> String {
    let full = io::Error::from(errno).to_string();
    let text = full.split_once(" (os error").map_or(full.as_str(), |(text, _)| text);
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_gos() {
        assert_eq!(text(Errno::NOENT), "no such file or directory");
        assert_eq!(Failure::at("mount proc", Errno::PERM).message, "mount proc: operation not permitted");
    }
}
