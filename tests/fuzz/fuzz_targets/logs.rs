//! A line of a container's log is read or passed over.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::logs(input));
