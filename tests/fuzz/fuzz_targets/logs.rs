//! A line of a container's log is read or passed over.
#![no_main]

libfuzzer_sys::fuzz_target!(|line: &str| engine::fuzzing::log_line(line));
