//! A name that is read and written is the same name.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::references(input));
