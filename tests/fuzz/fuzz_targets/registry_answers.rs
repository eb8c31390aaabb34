//! What a registry answers is read or refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|answer: &[u8]| image::fuzzing::registry_answer(answer));
