//! Whatever a tar holds, it is unpacked below its folder or refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::layers(input));
