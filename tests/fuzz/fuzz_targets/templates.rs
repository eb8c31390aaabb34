//! A template is read or refused, and filled in at no more than its cost.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::templates(input));
