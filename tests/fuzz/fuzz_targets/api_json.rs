//! Bodies and filters of requests are read or refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::api_json(input));
