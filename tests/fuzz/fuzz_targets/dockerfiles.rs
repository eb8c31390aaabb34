//! A Dockerfile is read or refused; so are its variables.
#![no_main]

use image::dockerfile::{Dockerfile, parse_one};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let lookup: image::dockerfile::Lookup<'_> = &|name| (name.len() < 3).then(|| format!("{name} /a*b$"));
    if let Ok(file) = Dockerfile::parse(text) {
        for step in file.stages.iter().flat_map(|stage| &stage.steps).chain(&file.globals) {
            if let Ok(instruction) = step.instruction.expand(file.escape, lookup) {
                let _known = image::Config::default().apply(&instruction);
            }
        }
    }
    drop(parse_one(text, '`'));
    drop(image::Config::default().apply_change(text));
    drop(image::dockerfile::expand(text, '\\', lookup));
});
