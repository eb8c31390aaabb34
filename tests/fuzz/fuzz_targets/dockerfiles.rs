//! A Dockerfile is read or refused; so are its variables.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::dockerfiles(input));
