//! A stack file is read or refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::stack_files(input));
