//! Dockerfiles as people write them, built by the same `docker` CLI here and by a real dockerd's classic builder: the
//! configuration, the history and every file of the images are the same.

use crate::lab;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    io::Read as _,
    path::{Path, PathBuf},
};
use testkit::{Dockerd, Lab, Networks, Output};

fn root() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).to_owned()
}

/// One of the two that are compared.
enum Builder<'a> {
    Ours(&'a Lab),
    Theirs(&'a Dockerd),
}

impl Builder<'_> {
    fn docker(&self, args: &[&str]) -> Output {
        match self {
            Self::Ours(lab) => lab.docker(1, args),
            Self::Theirs(dockerd) => dockerd.docker(args).expect("docker runs"),
        }
    }

    /// Builds a folder, and returns what the image is.
    fn build(&self, folder: &Path, name: &str, out: &Path) -> Made {
        let folder = folder.display().to_string();
        let args = ["--build-arg", "SUFFIX=given", "--build-arg", "HTTP_PROXY=http://proxy.example"];
        let build =
            [&["build", "--network", "none", "-t", name, "--label", "from=cli"], &args[..], &[&folder]]
                .concat();
        let built = self.docker(&build);
        assert_eq!(built.code, 0, "{name}: {built:?}");
        let config = self.docker(&["image", "inspect", "--format", "{{json .Config}}", name]).ok();
        let config: Value = serde_json::from_str(&config).expect("JSON");
        let history = self.docker(&["history", "--no-trunc", "--format", "{{.CreatedBy}}", name]).ok();
        let about = self
            .docker(&["image", "inspect", "--format", "{{.Author}}|{{.Os}}|{{.Architecture}}", name])
            .ok();
        let out = out.join(name).with_extension("tar").display().to_string();
        let id = self.docker(&["create", name, "nothing"]).ok();
        self.docker(&["export", "-o", &out, id.trim()]).ok();
        self.docker(&["rm", id.trim()]).ok();
        Made { config: meaningful(&config), history: plain(&history), about, files: files(Path::new(&out)) }
    }
}

#[derive(Debug, PartialEq)]
struct Made {
    config: BTreeMap<String, Value>,
    history: Vec<String>,
    about: String,
    files: BTreeMap<String, String>,
}

/// Leaves out what is empty, and what names the container that dockerd's builder kept the configuration of.
fn meaningful(config: &Value) -> BTreeMap<String, Value> {
    let of_a_container = ["Hostname", "Image", "ArgsEscaped"];
    let empty = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    };
    let fields = config.as_object().expect("an object").iter();
    let kept = fields.filter(|(name, value)| !empty(value) && !of_a_container.contains(&name.as_str()));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Leaves out the digests of what was copied, which each builder has its own way for, and Go's way to print a struct.
fn plain(history: &str) -> Vec<String> {
    let line = |line: &str| {
        if line.contains("#(nop)  HEALTHCHECK") {
            return "HEALTHCHECK".to_owned();
        }
        let mut words: Vec<&str> = line.split(' ').collect();
        for word in &mut words {
            for kind in ["file:", "dir:", "multi:"] {
                if let Some(at) = word.find(kind).filter(|at| word.len() == at + kind.len() + 64) {
                    *word = &word[..at + kind.len()];
                }
            }
        }
        words.join(" ")
    };
    history.lines().map(line).collect()
}

/// Reads an exported file system: kind, permissions, owner, target and content of every file.
fn files(tar: &Path) -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let mut archive = tar::Archive::new(std::fs::File::open(tar).expect("a tar"));
    for entry in archive.entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").display().to_string();
        let path = path.trim_start_matches("./").trim_end_matches('/').to_owned();
        let first = path.split('/').next().unwrap_or_default();
        // dockerd makes what it mounts on, in every container.
        let of_the_engine = ["etc", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab", ".dockerenv"];
        if path.is_empty()
            || ["dev", "proc", "sys"].contains(&first)
            || of_the_engine.contains(&path.as_str())
        {
            continue;
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("content");
        let header = entry.header();
        let link =
            entry.link_name().expect("a target").map(|to| to.display().to_string()).unwrap_or_default();
        let shown = if content.len() < 200 {
            String::from_utf8_lossy(&content).into_owned()
        } else {
            format!("{} bytes, sum {}", content.len(), sum(&content))
        };
        let kind = format!("{:?}", header.entry_type());
        let mode = header.mode().expect("a mode") & 0o7777;
        let (uid, gid) = (header.uid().expect("an owner"), header.gid().expect("a group"));
        // A hard link is the file it is a name of, whichever name comes first.
        let said = match header.entry_type().is_hard_link() {
            true => {
                found.get(link.trim_start_matches("./").trim_start_matches('/')).cloned().expect("its file")
            }
            false => format!("{kind} {mode:o} {uid}:{gid} {link} {shown}"),
        };
        found.insert(path, said);
    }
    found
}

fn sum(content: &[u8]) -> u64 {
    content.iter().fold(14_695_981_039_346_656_037, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(1_099_511_628_211)
    })
}

#[test]
#[ignore = "oracle: docker, dockerd, Debian packages"]
fn ten_dockerfiles_give_what_dockerds_classic_builder_gives() {
    let dockerd = Dockerd::start(Some(&root().join("target/oracle-dockerd")), Networks::None);
    let dockerd = dockerd.expect("run `cargo xtask oracles`");
    let lab = lab(1);
    let base = root().join("target/test-images/lang.tar").display().to_string();
    let (ours, theirs) = (Builder::Ours(&lab), Builder::Theirs(&dockerd));
    for builder in [&ours, &theirs] {
        builder.docker(&["import", "--change", "ENV LANG=C", &base, "lang"]).ok();
    }
    let folder = root().join("tests/e2e/dockerfiles");
    let mut cases: Vec<PathBuf> =
        std::fs::read_dir(&folder).expect("cases").map(|entry| entry.expect("a case").path()).collect();
    cases.sort();
    assert!(cases.len() >= 10);
    let mut wrong = Vec::new();
    for case in cases {
        let name = case.file_name().expect("a name").to_string_lossy().into_owned();
        let mine = ours.build(&case, &name, lab.dir());
        let other = theirs.build(&case, &name, dockerd.dir());
        if (&mine.config, &mine.history, &mine.about) != (&other.config, &other.history, &other.about) {
            let shown = |made: &Made| format!("{:#?}\n{:#?}\n{}", made.config, made.history, made.about);
            wrong.push(format!("{name}\nours {}\ndockerd's {}", shown(&mine), shown(&other)));
        }
        let differ = |path: &&String| mine.files.get(*path) != other.files.get(*path);
        let paths: std::collections::BTreeSet<&String> =
            mine.files.keys().chain(other.files.keys()).collect();
        wrong.extend(paths.iter().copied().filter(differ).map(|path| {
            let (ours, theirs) = (mine.files.get(path), other.files.get(path));
            format!("{name}: {path}: ours {ours:?}, dockerd's {theirs:?}")
        }));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
