//! A name that is read and written is the same name.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(name) = text.parse::<image::Reference>() {
        let again: image::Reference = name.canonical().parse().expect("what is written can be read");
        assert_eq!(again.canonical(), name.canonical());
        drop(name.to_string().parse::<image::Reference>().expect("so can the familiar form"));
    }
});
