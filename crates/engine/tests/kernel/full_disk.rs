//! A disk that gets full: what needs room fails and says so, what is there stays whole, and when there is room again
//! everything goes on.

use crate::{
    build::build,
    kit::{self, Host, guest},
};
use engine::{CommitOptions, Error};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// *Unit:* bytes.
const DISK: u64 = 64 << 20;
/// Room that is left on the full disk: for records, not for content. *Unit:* bytes.
const LEFT: u64 = 256 << 10;
/// What does not fit.
const MUCH: usize = 8 << 20;

/// A host with a small disk, and the file that fills it.
struct Full {
    host: Host,
    filler: PathBuf,
}

impl Full {
    fn new() -> Self {
        let host = Host::on_disk_of(DISK);
        let filler = host.path("data/filler");
        Self { host, filler }
    }

    fn fill(&self) {
        let stat = rustix::fs::statvfs(self.host.path("data")).unwrap();
        let bytes = (stat.f_bavail * stat.f_frsize).saturating_sub(LEFT);
        let file = fs::File::create(&self.filler).unwrap();
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes).unwrap();
    }

    fn free(&self) {
        fs::remove_file(&self.filler).unwrap();
    }

    fn images(&self) -> Vec<String> {
        self.host
            .on(async |engine| engine.images().list().await.into_iter().map(|i| i.id.to_string()).collect())
    }

    /// Every file of images and builds with its size: no half of anything may be left.
    fn files(&self) -> BTreeMap<PathBuf, u64> {
        let mut all = BTreeMap::new();
        for folder in ["data/images", "data/build"] {
            list(&self.host.path(folder), &mut all);
        }
        all
    }
}

fn list(folder: &Path, into: &mut BTreeMap<PathBuf, u64>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        // What is being removed just now is not left.
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_dir() {
            list(&entry.path(), into);
        } else {
            into.insert(entry.path(), meta.len());
        }
    }
}

/// Bytes that do not compress.
fn noise(bytes: usize) -> String {
    let mut state = 88_172_645_463_325_252_u64;
    let mut text = String::with_capacity(bytes);
    while text.len() < bytes {
        // Source: Marsaglia, "Xorshift RNGs".
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push_str(&format!("{state:016x}"));
    }
    text
}

#[track_caller]
fn tells_of_the_disk(text: &str) {
    assert!(text.to_lowercase().contains("no space left"), "{text}");
}

#[test]
fn an_import_that_does_not_fit_leaves_nothing() {
    let full = Full::new();
    let mut tar = tar::Builder::new(Vec::new());
    let content = noise(MUCH);
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, "much", content.as_bytes()).unwrap();
    let tar = tar.into_inner().unwrap();
    let import = || {
        let tar = std::io::Cursor::new(tar.clone());
        full.host.on(async |engine| engine.images().import(tar, image::ImportOptions::default()).await)
    };
    full.fill();
    let (images, files) = (full.images(), full.files());
    tells_of_the_disk(&kit::chain(&import().unwrap_err()));
    assert_eq!((full.images(), full.files()), (images.clone(), files));
    full.free();
    import().unwrap();
    assert_eq!(full.images().len(), images.len() + 1);
}

#[test]
fn a_commit_that_does_not_fit_leaves_nothing() {
    let full = Full::new();
    let text = noise(100_000);
    let steps: Vec<String> = (0..15).map(|n| format!("write:/file{n}={text}")).collect();
    let id = full.host.start(guest(&steps.iter().map(String::as_str).collect::<Vec<_>>()));
    assert_eq!(full.host.wait(&id), 0);
    let commit = || full.host.on(async |engine| engine.commit(&id, CommitOptions::default()).await);
    full.fill();
    let (images, files) = (full.images(), full.files());
    tells_of_the_disk(&kit::chain(&commit().unwrap_err()));
    assert_eq!((full.images(), full.files()), (images.clone(), files));
    full.free();
    commit().unwrap();
    assert_eq!(full.images().len(), images.len() + 1);
}

#[test]
fn a_build_that_does_not_fit_leaves_nothing() {
    let full = Full::new();
    let content = noise(MUCH);
    let files = [("Dockerfile", "FROM guest\nCOPY much /much\n"), ("much", content.as_str())];
    full.fill();
    let before = (full.images(), full.files());
    tells_of_the_disk(&build(&full.host, &files).id.unwrap_err());
    kit::becomes(&before, || (full.images(), full.files()));
    full.free();
    build(&full.host, &files).ok();
}

#[test]
fn a_container_whose_log_does_not_fit_goes_on() {
    let full = Full::new();
    let (shared, text) = (full.host.shared(), noise(100_000));
    let lines: Vec<String> = (0..20).map(|n| format!("{n} {text}\n")).collect();
    fs::write(full.host.path("shared/lines"), lines.concat()).unwrap();
    full.fill();
    let config = kit::guest_with(&["read:/shared/lines", "exit:5"], |c| c.host.binds = vec![shared]);
    let id = full.host.start(config);
    assert_eq!(full.host.wait(&id), 5, "its program never notices");
    let (said, _) = full.host.logs(&id);
    assert!(said.starts_with(&lines[0]), "what fits is there");
    assert!(said.len() < 20 * text.len(), "and the rest is not");
    full.free();
    assert_eq!(full.host.run(guest(&["say:and on"])).stdout, "and on\n");
}

#[test]
fn a_container_that_cannot_be_recorded_is_refused_and_others_go() {
    let full = Full::new();
    let old = full.host.create(guest(&["say:still here"]));
    full.fill();
    // Not even the room for records.
    let stat = rustix::fs::statvfs(full.host.path("data")).unwrap();
    let last = fs::File::create(full.host.path("data/last")).unwrap();
    rustix::fs::fallocate(&last, rustix::fs::FallocateFlags::empty(), 0, stat.f_bavail * stat.f_frsize)
        .unwrap();
    let refused: Error = full.host.try_create(guest(&["say:never"])).unwrap_err();
    tells_of_the_disk(&kit::chain(&refused));
    let all = || {
        let all = engine::ListOptions { all: true, ..engine::ListOptions::default() };
        full.host.on(async |engine| engine.list(all).await.unwrap().len())
    };
    assert_eq!(all(), 1);
    full.host.remove(&old).unwrap();
    assert_eq!(all(), 0);
    fs::remove_file(full.host.path("data/last")).unwrap();
    full.free();
    assert_eq!(full.host.run(guest(&["say:and on"])).stdout, "and on\n");
}
