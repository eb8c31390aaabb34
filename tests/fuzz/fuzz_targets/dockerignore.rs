//! Patterns are read or refused, and judge every path in good time.
#![no_main]

use image::dockerfile::{IgnoreList, Pattern};

libfuzzer_sys::fuzz_target!(|input: (&str, &str)| {
    let (rules, path) = input;
    if let Ok(list) = IgnoreList::parse(rules) {
        let _ignored = list.ignores(path);
    }
    if let Ok(pattern) = Pattern::of_path(rules) {
        let _fits = pattern.matches(path);
    }
});
