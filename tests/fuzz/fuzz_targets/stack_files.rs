//! A stack file is read or refused.
#![no_main]

use std::{collections::BTreeMap, path::PathBuf};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let sources = compose::Sources {
        files: vec![("stack.yml".into(), text.into())],
        project_dir: "/srv/shop".into(),
        ..compose::Sources::default()
    };
    let files: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    if let Ok((stack, _)) = compose::load(&sources, &files) {
        drop(stack.to_yaml());
    }
    // The same on one host, with all services, and without what cannot be honoured.
    let one_host = compose::Sources {
        place: compose::Place::Host,
        profiles: vec!["*".into()],
        lenient: true,
        ..sources.clone()
    };
    drop(compose::load(&one_host, &files));
    // Docker's dialect: what it prints is read again.
    if let Ok(yaml) = compose::docker::config(&sources, &files, true) {
        let again = compose::Sources { files: vec![("again.yml".into(), yaml)], ..sources };
        drop(compose::docker::config(&again, &files, false));
    }
});
