//! Plugins are read, kept, granted and removed; what is no plugin, or would lead out of its folder, is refused.

use super::*;
use flate2::read::GzDecoder;
use std::io::{Cursor, Read as _};

async fn plugins(root: &Path) -> Plugins {
    let images = Store::open(&root.join("images"), false).await.unwrap();
    Plugins::open(&root.join("plugins"), &images).await.unwrap()
}

fn header(kind: tar::EntryType, size: usize) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_size(size as u64);
    header
}

/// A plugin's folder, with files of these names in its root.
fn folder(config: Option<&str>, files: &[&str]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    if let Some(config) = config {
        let mut header = header(tar::EntryType::Regular, config.len());
        tar.append_data(&mut header, "config.json", config.as_bytes()).unwrap();
    }
    for file in files {
        let mut header = header(tar::EntryType::Regular, file.len());
        tar.append_data(&mut header, format!("rootfs/{file}"), file.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

async fn make(plugins: &Plugins, name: &str, config: &str, files: &[&str]) -> Result<Plugin> {
    let context = plugins.read(Cursor::new(folder(Some(config), files))).await?;
    let config = context.config.clone();
    plugins.create(&name.parse()?, context, config, Value::Null).await
}

fn blobs(root: &Path) -> usize {
    let ingest = fs::read_dir(root.join("plugins/ingest")).unwrap().count();
    assert_eq!(ingest, 0, "half-written blobs");
    fs::read_dir(root.join("plugins/blobs/sha256")).unwrap().count()
}

#[tokio::test]
async fn a_plugin_is_kept_under_its_name_until_it_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = plugins(dir.path()).await;
    let one = make(&store, "a/b", "{}", &["run"]).await.unwrap();
    assert_eq!((one.name.as_str(), one.config.as_slice(), one.id.len()), ("a/b:latest", &b"{}"[..], 64));
    let taken = make(&store, "a/b:latest", "{}", &["run"]).await.unwrap_err();
    assert_eq!(taken.to_string(), "plugin a/b:latest already exists");
    let two = make(&store, "a/b:2", "{\"x\": 1}", &["run"]).await.unwrap();
    // The same layer, and of each a configuration and a manifest.
    assert_eq!(blobs(dir.path()), 5);

    let settings = serde_json::json!({ "Env": ["A=1"] });
    store.set("a/b", settings.clone()).await.unwrap();
    drop(store);
    let store = plugins(dir.path()).await;
    for name in ["a/b", "docker.io/a/b:latest", &one.id, &one.id[..20]] {
        assert_eq!(
            store.find(name).await.unwrap(),
            Plugin { settings: settings.clone(), ..one.clone() },
            "{name}"
        );
    }
    assert!(matches!(store.find("nobody").await, Err(Error::NoPlugin(_))));
    assert_eq!(store.remove("a/b").await.unwrap().id, one.id);
    assert_eq!(store.list().await.unwrap(), [two], "and what it needs");
    assert_eq!(blobs(dir.path()), 3);
    store.remove("a/b:2").await.unwrap();
    assert_eq!(blobs(dir.path()), 0);
}

#[tokio::test]
async fn a_root_keeps_its_files_links_and_attributes_below_its_own_top() {
    let dir = tempfile::tempdir().unwrap();
    let store = plugins(dir.path()).await;
    let mut tar = tar::Builder::new(Vec::new());
    let long = "x".repeat(150);
    for folder in ["./rootfs/", "./rootfs/dev"] {
        tar.append_data(&mut header(tar::EntryType::Directory, 0), folder, io::empty()).unwrap();
    }
    let value = [("SCHILY.xattr.security.capability", &b"\x01\n\x02"[..])];
    tar.append_pax_extensions(value).unwrap();
    tar.append_data(&mut header(tar::EntryType::Regular, 3), format!("./rootfs/{long}"), &b"run"[..])
        .unwrap();
    tar.append_link(&mut header(tar::EntryType::Link, 0), "rootfs/hard", format!("rootfs/{long}")).unwrap();
    tar.append_link(&mut header(tar::EntryType::Symlink, 0), "rootfs/soft", "/rootfs/else").unwrap();
    let mut null = header(tar::EntryType::Char, 0);
    null.set_device_major(1).unwrap();
    null.set_device_minor(3).unwrap();
    tar.append_data(&mut null, "rootfs/dev/null", io::empty()).unwrap();
    tar.append_data(&mut header(tar::EntryType::Regular, 2), "./config.json", &b"{}"[..]).unwrap();
    tar.append_data(&mut header(tar::EntryType::Regular, 2), "README", &b"no"[..]).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    io::Write::write_all(&mut gzip, &tar.into_inner().unwrap()).unwrap();

    let context = store.read(Cursor::new(gzip.finish().unwrap())).await.unwrap();
    assert_eq!(context.config, b"{}");
    let mut plain = Vec::new();
    GzDecoder::new(context.rootfs.reopen().unwrap()).read_to_end(&mut plain).unwrap();
    assert_eq!(context.diff_id, Digest::of(&plain));
    let mut entries = crate::tarball::Reader::new(plain.as_slice());
    let mut seen = Vec::new();
    while let Some(entry) = entries.next_entry().unwrap() {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if entry.path == long.as_bytes() {
            assert_eq!(entry.xattrs, [(b"security.capability".to_vec(), value[0].1.to_vec())]);
        }
        seen.push((text(&entry.path), text(&entry.link), entry.device));
    }
    let wanted = [
        ("./", "", (0, 0)),
        ("dev/", "", (0, 0)),
        (&long, "", (0, 0)),
        ("hard", &long, (0, 0)),
        ("soft", "/rootfs/else", (0, 0)),
        ("dev/null", "", (1, 3)),
    ];
    let wanted = wanted.map(|(path, link, device)| (path.to_owned(), link.to_owned(), device));
    let bare = |path: &str| path.trim_end_matches('/').to_owned();
    let all = |list: &[(String, String, (u32, u32))]| -> Vec<_> {
        list.iter().map(|(path, link, device)| (bare(path), link.clone(), *device)).collect()
    };
    assert_eq!(all(&seen), all(&wanted));
}

#[tokio::test]
async fn what_is_no_plugins_folder_is_refused_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = plugins(dir.path()).await;
    let long = "x".repeat(2 << 20);
    let mut link = tar::Builder::new(Vec::new());
    link.append_link(&mut header(tar::EntryType::Link, 0), "rootfs/passwd", "etc/passwd").unwrap();
    let mut out = header(tar::EntryType::Regular, 0);
    out.as_gnu_mut().unwrap().name[..12].copy_from_slice(b"rootfs/../..");
    out.set_cksum();
    let mut above = tar::Builder::new(Vec::new());
    above.append(&out, io::empty()).unwrap();
    for (tar, why) in [
        (folder(None, &["run"]), "config not found"),
        (folder(Some("{}"), &[]), "no rootfs found"),
        (folder(Some(&long), &["run"]), "its configuration takes"),
        (link.into_inner().unwrap(), "a hard link to a file that is not in rootfs"),
        (above.into_inner().unwrap(), "leads out of the plugin's folder"),
        (b"not a tar, but as long as a header of one".repeat(20), "cannot read archive"),
    ] {
        let refused = store.read(Cursor::new(tar)).await.unwrap_err().to_string();
        assert!(refused.contains(why), "{why}: {refused}");
    }
    drop(store.read(Cursor::new(folder(Some("{}"), &["run"]))).await.unwrap());
    assert_eq!(blobs(dir.path()), 0);
    assert!(store.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_record_that_cannot_be_read_takes_no_other_plugin_with_it_and_no_blob() {
    let dir = tempfile::tempdir().unwrap();
    let store = plugins(dir.path()).await;
    let one = make(&store, "one", "{}", &["run"]).await.unwrap();
    let two = make(&store, "two", "{\"x\": 2}", &["other"]).await.unwrap();
    let before = blobs(dir.path());
    drop(store);
    fs::write(dir.path().join(format!("plugins/records/{}.json", one.id)), "{\"name\": \"on").unwrap();
    fs::write(dir.path().join("plugins/ingest/left"), "half").unwrap();
    let half = dir.path().join("plugins/records/left.new");
    fs::write(&half, "{").unwrap();
    let store = plugins(dir.path()).await;
    assert_eq!(store.list().await.unwrap(), [two]);
    assert!(!half.exists());
    store.remove("two").await.unwrap();
    assert_eq!(blobs(dir.path()), before, "whose they are is not known");
}
