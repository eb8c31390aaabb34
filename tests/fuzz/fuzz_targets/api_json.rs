//! Bodies and filters of requests are read or refused.
#![no_main]

use docker_api::{server::Filters, types};

libfuzzer_sys::fuzz_target!(|json: &[u8]| {
    drop(types::parse::<types::ContainerCreate>(json));
    drop(types::parse::<types::ServiceSpec>(json));
    drop(types::parse::<types::NetworkCreate>(json));
    drop(types::parse::<types::ExecCreate>(json));
    drop(types::parse::<types::SwarmSpec>(json));
    if let Ok(text) = std::str::from_utf8(json) {
        drop(Filters::parse(text));
    }
});
