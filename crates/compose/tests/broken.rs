//! A hundred and more files that cannot be deployed, and what their authors are told. Each file of `tests/broken` has
//! its error beside it.

use compose::{Sources, load};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

fn told(text: &str) -> Option<String> {
    let sources = Sources {
        files: vec![("stack.yml".into(), text.to_owned())],
        project_dir: "/srv/shop".into(),
        env: BTreeMap::from([("HOME".to_owned(), "/home/me".to_owned())]),
        ..Sources::default()
    };
    let nothing = BTreeMap::<PathBuf, Vec<u8>>::new();
    load(&sources, &nothing).err().map(|error| error.to_string())
}

#[test]
fn every_broken_file_is_refused_in_words_that_help() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken");
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "yml"))
        .collect();
    files.sort();
    assert!(files.len() >= 100, "{}", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let error = told(&text).unwrap_or_else(|| panic!("{} loads", file.display()));
        let expected = fs::read_to_string(file.with_extension("error")).unwrap_or_default();
        if error != expected.trim_end() {
            wrong.push(format!("{}:\n  want {}\n  have {error}", file.display(), expected.trim_end()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_meant_to_hurt_is_refused() {
    let laughs: String = (1..12).fold("a0: &a0 [x]\n".to_owned(), |text, n| {
        let ten = vec![format!("*a{}", n - 1); 10].join(", ");
        format!("{text}a{n}: &a{n} [{ten}]\n")
    });
    let deep = format!("services: {}", "[".repeat(100_000));
    let long_key = format!("services: {{web: {{image: a, {}: 1}}}}", "k".repeat(1 << 20));
    let ports = "services: {web: {image: a, ports: ['1-65535:1-65535', '1-65535:2-65535']}}".to_owned();
    let big = format!("services:\n  web:\n    image: a\n    labels:\n{}", "      - x\n".repeat(1 << 20));
    for (name, text) in
        [("laughs", laughs), ("deep", deep), ("long key", long_key), ("ten megabytes", big), ("ports", ports)]
    {
        let error = told(&text).unwrap_or_else(|| panic!("{name} loads"));
        assert!(error.len() < 2 << 20 && error.contains("stack.yml"), "{name}: {error:.200}");
    }
}
