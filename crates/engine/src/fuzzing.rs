//! What the fuzz targets of `tests/fuzz` need and nobody else.

/// Reads a line of a log file.
pub fn log_line(line: &str) {
    drop(crate::logs::read::parse(line));
}
