//! Patterns are read or refused, and judge every path in good time.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::dockerignore(input));
