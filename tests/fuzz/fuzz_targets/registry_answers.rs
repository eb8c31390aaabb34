//! What a registry answers is read or refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::registry_answers(input));
