//! What reads foreign bytes, a function for each. Whatever the input is, a target returns: it never panics and never
//! takes long. libFuzzer (`fuzz_targets`) and the ordinary test (`main.rs`) call the same functions.

use std::{collections::BTreeMap, fs, os::fd::OwnedFd, path::PathBuf};

/// Bodies and filters of requests are read or refused.
pub fn api_json(input: &[u8]) {
    use docker_api::{server::Filters, types};

    drop(types::parse::<types::ContainerCreate>(input));
    drop(types::parse::<types::ServiceSpec>(input));
    drop(types::parse::<types::NetworkCreate>(input));
    drop(types::parse::<types::ExecCreate>(input));
    drop(types::parse::<types::SwarmSpec>(input));
    drop(Filters::parse(text(input)));
}

/// A Dockerfile is read or refused; so are its variables.
pub fn dockerfiles(input: &[u8]) {
    use image::dockerfile::{Dockerfile, Lookup, expand, parse_one};

    let text = text(input);
    let lookup: Lookup<'_> = &|name| (name.len() < 3).then(|| format!("{name} /a*b$"));
    if let Ok(file) = Dockerfile::parse(text) {
        for step in file.stages.iter().flat_map(|stage| &stage.steps).chain(&file.globals) {
            if let Ok(instruction) = step.instruction.expand(file.escape, lookup) {
                let _known = image::Config::default().apply(&instruction);
            }
        }
    }
    drop(parse_one(text, '`'));
    drop(image::Config::default().apply_change(text));
    drop(expand(text, '\\', lookup));
}

/// Patterns are read or refused, and judge every path in good time. The first line is the path.
pub fn dockerignore(input: &[u8]) {
    use image::dockerfile::{IgnoreList, Pattern};

    let (path, rules) = text(input).split_once('\n').unwrap_or_default();
    if let Ok(list) = IgnoreList::parse(rules) {
        let _ignored = list.ignores(path);
    }
    if let Ok(pattern) = Pattern::of_path(rules) {
        let _fits = pattern.matches(path);
    }
}

/// Whatever a tar holds, it is unpacked below its folder or refused.
pub fn layers(input: &[u8]) {
    let dir = tempfile::tempdir().expect("a folder");
    let (inside, outside) = (dir.path().join("inside"), dir.path().join("outside"));
    fs::create_dir(&inside).expect("a folder");
    fs::write(&outside, "untouched").expect("a file");
    std::os::unix::fs::symlink("../outside", inside.join("way-out")).expect("a link");
    let before = fs::metadata(&outside).expect("a file").modified().expect("a time");
    let folder = OwnedFd::from(fs::File::open(&inside).expect("a folder"));
    let options = image::TreeOptions { squash: true, ..image::TreeOptions::default() };
    drop(image::unpack_tree(input, folder, options));
    let names: Vec<_> =
        fs::read_dir(dir.path()).expect("a folder").map(|e| e.expect("an entry").file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(fs::read(&outside).expect("a file"), b"untouched");
    assert_eq!(fs::metadata(&outside).expect("a file").modified().expect("a time"), before);
}

/// A line of a container's log is read or passed over.
pub fn logs(input: &[u8]) {
    engine::fuzzing::log_line(text(input));
}

/// A name that is read and written is the same name.
pub fn references(input: &[u8]) {
    if let Ok(name) = text(input).parse::<image::Reference>() {
        let again: image::Reference = name.canonical().parse().expect("what is written can be read");
        assert_eq!(again.canonical(), name.canonical());
        drop(name.to_string().parse::<image::Reference>().expect("so can the familiar form"));
    }
}

/// What a registry answers is read or refused.
pub fn registry_answers(input: &[u8]) {
    image::fuzzing::registry_answer(input);
}

/// A stack file is read or refused.
pub fn stack_files(input: &[u8]) {
    let sources = compose::Sources {
        files: vec![("stack.yml".into(), text(input).into())],
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
}

/// A template of a format, a service or a log's tag is read or refused, and filled in at no more than its cost.
pub fn templates(input: &[u8]) {
    let text = text(input);
    let values =
        template::task::Values::example("web", &BTreeMap::from([("tier".to_owned(), "gold".to_owned())]));
    drop(values.fill(text));
    let dot = serde_json::json!({"A": [1, "b", null, {"C": 0.5}], "D": {"e": "f"}, "G": "text", "H": true});
    drop(template::fill(text, &dot, &template::docker::Docker));
}

/// Returns the input up to its first byte that is no text.
fn text(input: &[u8]) -> &str {
    input.utf8_chunks().next().map_or("", |chunk| chunk.valid())
}
