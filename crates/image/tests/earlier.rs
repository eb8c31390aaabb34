//! A store of images that the program of an earlier commit has written is opened by this one. `earlier/COMMIT` is its folder,
//! without layers: what is unpacked has no form of its own.

use image::Store;
use std::{fs, path::Path};
use testkit::earlier;

#[tokio::test]
async fn images_of_earlier_versions_are_there_and_what_newer_ones_add_is_no_damage() {
    for commit in earlier::COMMITS {
        let dir = tempfile::tempdir().unwrap();
        earlier::copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/earlier").join(commit), dir.path());
        let record = dir.path().join("images.json");
        let read = || -> serde_json::Value { serde_json::from_slice(&fs::read(&record).unwrap()).unwrap() };
        for image in read()["images"].as_object().unwrap().values() {
            for layer in image["layers"].as_array().unwrap() {
                let digest = layer["blob"]["digest"].as_str().unwrap().replace(':', "/");
                // Nobody looks into it until it is unpacked.
                fs::write(dir.path().join("blobs").join(digest), "").unwrap();
            }
        }
        for _ in 0..2 {
            let store = Store::open(dir.path(), true).await.unwrap();
            let images = store.list().await;
            let tags: Vec<String> = images.into_iter().flat_map(|image| image.repo_tags).collect();
            assert!(tags.len() == 1 && tags[0].contains("rswarm/hello"), "{commit}: {tags:?}");
            drop(store);
            let mut newer = read();
            newer["not_known_yet"] = serde_json::json!([1]);
            let image = newer["images"].as_object_mut().unwrap().values_mut().next().unwrap();
            image["not_known_yet"] = serde_json::json!("x");
            fs::write(&record, newer.to_string()).unwrap();
        }
        let files = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let damaged: Vec<_> = files.filter(|name| name.to_string_lossy().contains("damaged")).collect();
        assert!(damaged.is_empty(), "{commit}: {damaged:?}");
    }
}
