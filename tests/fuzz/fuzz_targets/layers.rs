//! Whatever a tar holds, it is unpacked below its folder or refused.
#![no_main]

use std::{fs, os::fd::OwnedFd};

libfuzzer_sys::fuzz_target!(|tar: &[u8]| {
    let dir = tempfile::tempdir().expect("a folder");
    let (inside, outside) = (dir.path().join("inside"), dir.path().join("outside"));
    fs::create_dir(&inside).expect("a folder");
    fs::write(&outside, "untouched").expect("a file");
    std::os::unix::fs::symlink("../outside", inside.join("way-out")).expect("a link");
    let before = fs::metadata(&outside).expect("a file").modified().expect("a time");
    let folder = OwnedFd::from(fs::File::open(&inside).expect("a folder"));
    let options = image::TreeOptions { squash: true, ..image::TreeOptions::default() };
    drop(image::unpack_tree(tar, folder, options));
    let names: Vec<_> =
        fs::read_dir(dir.path()).expect("a folder").map(|e| e.expect("an entry").file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(fs::read(&outside).expect("a file"), b"untouched");
    assert_eq!(fs::metadata(&outside).expect("a file").modified().expect("a time"), before);
});
