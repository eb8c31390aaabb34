//! Load, import, save: what goes in comes out, evil tarballs stay in their layer, crashes and full disks leave nothing.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use image::{Digest, Error, ImportOptions, Progress, Reference, Removed, Store};
use std::{
    io::{Cursor, Write},
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};
use tokio::sync::mpsc;

/// Builds a tar entry by entry, also what no honest tar would hold.
struct Tarball(tar::Builder<Vec<u8>>);

impl Tarball {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn entry(mut self, kind: tar::EntryType, path: &str, link: &str, mode: u32, data: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(data.len() as u64);
        header.set_mtime(1_000_000_000);
        header.set_uid(7);
        header.set_gid(8);
        if kind == tar::EntryType::Char {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    fn file(self, path: &str, data: &[u8]) -> Self {
        self.entry(tar::EntryType::Regular, path, "", 0o644, data)
    }

    fn directory(self, path: &str) -> Self {
        self.entry(tar::EntryType::Directory, path, "", 0o755, b"")
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(tar::EntryType::Symlink, path, target, 0o777, b"")
    }

    fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(tar::EntryType::Link, path, target, 0o644, b"")
    }

    /// A PAX record for the entry that follows.
    fn pax(mut self, key: &str, value: &[u8]) -> Self {
        self.0.append_pax_extensions([(key, value)]).unwrap();
        self
    }

    fn done(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

struct Fixture {
    store: Store,
    root: tempfile::TempDir,
}

/// Whether this is root of a user namespace with one uid only, as an ordinary user's tests run.
fn single_uid() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    map.split_whitespace().last().is_none_or(|count| count != "4294967295")
}

async fn fixture() -> Fixture {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path(), single_uid()).await.unwrap();
    Fixture { store, root }
}

fn silent() -> mpsc::Sender<Progress> {
    mpsc::channel(1).0
}

impl Fixture {
    async fn import(&self, tar: Vec<u8>) -> Result<Digest, Error> {
        self.store.import(Cursor::new(tar), ImportOptions::default()).await
    }

    async fn import_as(&self, name: &str, tar: Vec<u8>) -> Digest {
        let options = ImportOptions { reference: Some(name.parse().unwrap()), ..ImportOptions::default() };
        self.store.import(Cursor::new(tar), options).await.unwrap()
    }

    async fn top_layer(&self, tar: Vec<u8>) -> PathBuf {
        let id = self.import(tar).await.unwrap();
        self.store.rootfs(&id).await.unwrap().dirs[0].clone()
    }

    fn leftovers(&self) -> Vec<String> {
        ["ingest", "layers", "blobs/sha256"]
            .iter()
            .flat_map(|directory| names(&self.root.path().join(directory)))
            .collect()
    }
}

fn names(path: &Path) -> Vec<String> {
    std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().expect("the program is installed (CI installs it)");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn the_folders_of_a_store_are_closed_to_others_from_the_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("images");
    drop(Store::open(&root, false).await.unwrap());
    for folder in ["", "blobs", "blobs/sha256", "ingest", "layers"] {
        let mode = root.join(folder).metadata().unwrap().mode() & 0o7777;
        assert_eq!(mode, 0o700, "{folder:?} is open to others: {mode:o}");
    }
}

#[tokio::test]
async fn imported_root_is_unpacked_as_it_was_and_configured() {
    let f = fixture().await;
    let tar = Tarball::new()
        .directory("./")
        .directory("bin/")
        .entry(tar::EntryType::Regular, "bin/su", "", 0o4755, b"#!")
        .symlink("lib", "usr/lib")
        .directory("usr/lib/")
        .file("lib/libc.so", b"elf")
        .hard_link("bin/hard", "bin/su")
        .entry(tar::EntryType::Char, "dev/null", "", 0o666, b"")
        .done();
    let options = ImportOptions {
        reference: Some("demo:1".parse().unwrap()),
        changes: vec!["CMD [\"/bin/su\"]".into(), "ENV A=b".into(), "EXPOSE 80".into()],
        created: Some(time::OffsetDateTime::UNIX_EPOCH),
        ..ImportOptions::default()
    };
    let id = f.store.import(Cursor::new(gzip(&tar)), options.clone()).await.unwrap();
    let again = f.store.import(Cursor::new(gzip(&tar)), options).await.unwrap();
    assert_eq!(id, again, "equal input and time give the same image");
    let image = f.store.get("demo:1").await.unwrap();
    assert_eq!(image.id, id);
    assert_eq!(image.repo_tags, ["demo:1"]);
    assert_eq!(image.config.config.cmd, ["/bin/su"]);
    assert_eq!(image.config.config.exposed_ports, ["80/tcp"]);
    let layers = f.store.rootfs(&id).await.unwrap();
    let top = &layers.dirs[0];
    let owner = if single_uid() { (0, 0) } else { (7, 8) };
    let su = std::fs::metadata(top.join("bin/su")).unwrap();
    assert_eq!(
        (su.mode() & 0o7777, su.uid(), su.gid(), su.nlink(), su.mtime()),
        (0o4755, owner.0, owner.1, 2, 1_000_000_000)
    );
    assert_eq!(std::fs::read(top.join("usr/lib/libc.so")).unwrap(), b"elf");
    let null = std::fs::symlink_metadata(top.join("dev/null"));
    assert_eq!(null.is_ok_and(|null| null.file_type().is_char_device()), !single_uid());
    assert_eq!(
        std::fs::metadata(top.join("bin")).unwrap().mtime(),
        1_000_000_000,
        "children do not change it"
    );
    assert_eq!(layers.read_file("/lib/libc.so").unwrap().unwrap(), b"elf");
    assert_eq!(layers.read_file("/etc/passwd").unwrap(), None);
    let pinned: Reference = format!("demo:1@{}", image.manifest).parse().unwrap();
    assert_eq!(f.store.manifest_for(&pinned).await.unwrap().digest, image.manifest);
    assert_eq!(f.store.get(&pinned.to_string()).await.unwrap().id, id);
}

#[tokio::test]
async fn a_layer_cannot_reach_outside_its_directory() {
    let f = fixture().await;
    let outside = f.root.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), b"secret").unwrap();
    let outside_text = outside.to_str().unwrap();
    let refused = [
        ("dots", Tarball::new().file("../evil", b"x")),
        ("dots inside", Tarball::new().directory("a/").file("a/../../evil", b"x")),
        ("hard link up", Tarball::new().hard_link("l", "../../../../../etc/passwd")),
        ("hard link absolute", Tarball::new().hard_link("l", &format!("{outside_text}/secret"))),
        ("hard link through symlink", Tarball::new().symlink("d", outside_text).hard_link("l", "d/secret")),
        ("whiteout up", Tarball::new().file(".wh...", b"")),
        (
            "overlay attribute",
            Tarball::new().pax("SCHILY.xattr.trusted.overlay.redirect", b"/etc").directory("d/"),
        ),
        (
            "user overlay attribute",
            Tarball::new().pax("SCHILY.xattr.user.overlay.opaque", b"y").directory("d/"),
        ),
        ("path hidden in PAX", Tarball::new().pax("path", b"../evil").file("innocent", b"x")),
        ("unknown type", Tarball::new().entry(tar::EntryType::new(b'Z'), "z", "", 0, b"")),
    ];
    for (what, tar) in refused {
        let error = f.import(tar.done()).await.unwrap_err();
        assert!(matches!(error, Error::Unpack { .. }), "{what}: {error}");
        assert_eq!(names(&f.root.path().join("layers")), [""; 0], "{what}");
    }
    // These stay inside: the link leads to the same path under the layer's root.
    let kept = Tarball::new()
        .directory(outside_text)
        .symlink("d", outside_text)
        .file("d/evil", b"x")
        .symlink("up", "../../../../../../../../../..")
        .file("up/evil2", b"x")
        .file("/absolute", b"x")
        .directory("swap/")
        .file("swap/a", b"x")
        .symlink("swap", outside_text)
        .file("swap/b", b"x");
    let top = f.top_layer(kept.done()).await;
    assert_eq!(names(&outside), ["secret"]);
    let inside = top.join(outside_text.trim_start_matches('/'));
    assert!(inside.join("evil").exists() && inside.join("b").exists());
    assert!(top.join("evil2").exists() && top.join("absolute").exists());
    // Where the link leads nowhere, a directory takes its place.
    let top = f.top_layer(Tarball::new().symlink("d", outside_text).file("d/evil", b"x").done()).await;
    assert!(std::fs::symlink_metadata(top.join("d")).unwrap().is_dir() && top.join("d/evil").exists());
}

#[tokio::test]
async fn whiteouts_become_overlayfs_marks_and_hide_files_from_readers() {
    let f = fixture().await;
    let lower = Tarball::new().file("etc/passwd", b"root").file("etc/group", b"g").file("opt/a", b"a").done();
    let upper = Tarball::new()
        .file("etc/.wh.group", b"")
        .directory("opt/")
        .file("opt/.wh..wh..opq", b"")
        .file("opt/b", b"b")
        .file(".wh.gone", b"")
        .directory("gone/")
        .done();
    let (lower_id, upper_id) = (f.import(lower).await.unwrap(), f.import(upper).await.unwrap());
    let mut dirs = f.store.rootfs(&upper_id).await.unwrap().dirs;
    let top = dirs[0].clone();
    dirs.extend(f.store.rootfs(&lower_id).await.unwrap().dirs);
    let group = std::fs::symlink_metadata(top.join("etc/group")).unwrap();
    assert!(group.file_type().is_char_device() && group.rdev() == 0);
    let opaque = |path: &str| {
        let mut value = [0; 1];
        let attribute = if single_uid() { "user.overlay.opaque" } else { "trusted.overlay.opaque" };
        rustix::fs::getxattr(top.join(path), attribute, &mut value).map(|_| value[0])
    };
    assert_eq!(opaque("opt"), Ok(b'y'));
    assert_eq!(opaque("gone"), Ok(b'y'), "a directory made over a whiteout hides what was below");
    let layers = image::Layers { dirs };
    assert_eq!(layers.read_file("/etc/passwd").unwrap().unwrap(), b"root");
    assert_eq!(layers.read_file("/etc/group").unwrap(), None);
    assert_eq!(layers.read_file("/opt/a").unwrap(), None);
    assert_eq!(layers.read_file("/opt/../opt/b").unwrap().unwrap(), b"b");
}

#[tokio::test]
async fn long_names_xattrs_and_sparse_files_of_gnu_tar_arrive() {
    let f = fixture().await;
    let source = tempfile::tempdir().unwrap();
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
    std::fs::create_dir(source.path().join("d".repeat(120))).unwrap();
    std::fs::write(source.path().join(&long), b"long").unwrap();
    let sparse = std::fs::File::create(source.path().join("sparse")).unwrap();
    sparse.set_len(8 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"middle", 4 << 20).unwrap();
    rustix::fs::fsetxattr(&sparse, "user.note", b"a\nb", rustix::fs::XattrFlags::empty()).unwrap();
    for format in ["gnu", "pax"] {
        let tar = source.path().with_extension(format);
        let format = format!("--format={format}");
        let mut command = Command::new("tar");
        command.args(["--sparse", &format, "-cf"]).arg(&tar).arg("-C").arg(source.path()).arg(".");
        if format.ends_with("pax") {
            command.args(["--xattrs", "--xattrs-include=user.*"]);
        }
        run(&mut command);
        let top = f.top_layer(std::fs::read(&tar).unwrap()).await;
        std::fs::remove_file(&tar).unwrap();
        assert_eq!(std::fs::read(top.join(&long)).unwrap(), b"long");
        let content = std::fs::read(top.join("sparse")).unwrap();
        assert_eq!((content.len(), &content[4 << 20..][..6]), (8 << 20, &b"middle"[..]), "{format}");
        assert!(std::fs::metadata(top.join("sparse")).unwrap().blocks() < 1024, "{format}: holes stay holes");
        if format.ends_with("pax") {
            let mut value = [0; 8];
            let length = rustix::fs::getxattr(top.join("sparse"), "user.note", &mut value).unwrap();
            assert_eq!(&value[..length], b"a\nb");
        }
    }
}

#[tokio::test]
#[ignore = "oracle: skopeo"]
async fn saved_images_load_elsewhere_and_in_skopeo_with_the_same_id_and_manifest() {
    let f = fixture().await;
    let id = f.import_as("demo:1", gzip(&Tarball::new().file("a", b"a").done())).await;
    f.store.tag("demo:1", &"registry.example:5000/team/demo:2".parse().unwrap()).await.unwrap();
    let manifest = f.store.get("demo:1").await.unwrap().manifest;
    let path = f.root.path().join("saved.tar");
    let file = tokio::fs::File::create(&path).await.unwrap();
    f.store.save(&["demo:1".into(), "registry.example:5000/team/demo:2".into()], file).await.unwrap();

    let other = fixture().await;
    let loaded = other.store.load(tokio::fs::File::open(&path).await.unwrap(), silent()).await.unwrap();
    assert!(loaded.iter().all(|loaded| loaded.id == id));
    let image = other.store.get("registry.example:5000/team/demo:2").await.unwrap();
    assert_eq!((image.id, image.manifest), (id, manifest));
    assert_eq!(image.repo_tags, ["demo:1", "registry.example:5000/team/demo:2"]);

    // Old docker-archive, made by skopeo out of ours; then OCI layout, gzipped.
    let text = path.to_str().unwrap();
    let (old, oci) = (f.root.path().join("old.tar"), f.root.path().join("oci.tar"));
    let copy = |to: String| {
        run(Command::new("skopeo").args([
            "copy",
            "-q",
            "--insecure-policy",
            &format!("docker-archive:{text}:demo:1"),
            &to,
        ]))
    };
    copy(format!("docker-archive:{}:fresh:9", old.display()));
    copy(format!("oci-archive:{}:docker.io/library/layout:3", oci.display()));
    let third = fixture().await;
    let loaded = third.store.load(tokio::fs::File::open(&old).await.unwrap(), silent()).await.unwrap();
    assert_eq!(loaded[0].id, id, "skopeo kept the configuration");
    assert_eq!(third.store.get("fresh:9").await.unwrap().id, id);
    let packed = gzip(&std::fs::read(&oci).unwrap());
    let loaded = third.store.load(Cursor::new(packed), silent()).await.unwrap();
    assert_eq!(loaded[0].tags, ["layout:3".parse().unwrap()]);
    let layers = third.store.rootfs(&loaded[0].id).await.unwrap();
    assert_eq!(layers.read_file("a").unwrap().unwrap(), b"a");
}

#[tokio::test]
async fn removal_takes_names_first_then_bytes_and_respects_holders() {
    let f = fixture().await;
    let id = f.import_as("demo:1", Tarball::new().file("a", b"a").done()).await;
    let other = f.import_as("other:1", Tarball::new().file("b", b"b").done()).await;
    f.store.tag(&id.short(), &"again:1".parse().unwrap()).await.unwrap();
    let error = f.store.remove(&id.short(), false).await.unwrap_err();
    assert!(
        error.to_string().contains("(must be forced) - image is referenced in multiple repositories"),
        "{error}"
    );
    assert_eq!(f.store.remove("again:1", false).await.unwrap(), [Removed::Untagged("again:1".into())]);
    f.store.hold(&id, "c0ffee").await.unwrap();
    let error = f.store.remove("demo:1", false).await.unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    assert_eq!(f.store.remove("demo:1", true).await.unwrap(), [Removed::Untagged("demo:1".into())]);
    assert!(f.store.rootfs(&id).await.unwrap().dirs[0].join("a").exists(), "the container can still start");
    f.store.release("c0ffee").await;
    let (removed, freed) = f.store.prune(false, |_| true).await.unwrap();
    assert_eq!(removed, [Removed::Deleted(id)]);
    assert!(freed > 0);
    let gone = f.store.remove("other:1", false).await.unwrap();
    assert!(gone.contains(&Removed::Untagged("other:1".into())) && gone.contains(&Removed::Deleted(other)));
    assert_eq!(f.leftovers(), [""; 0]);
    assert!(matches!(f.store.remove("demo:1", false).await, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn a_prune_takes_what_is_wanted_and_spares_the_rest() {
    let f = fixture().await;
    let one = f.import_as("one:1", Tarball::new().file("a", b"a").done()).await;
    let other = f.import_as("other:1", Tarball::new().file("b", b"b").done()).await;
    assert_eq!(f.store.prune(true, |_| false).await.unwrap().0, []);
    let (removed, _) = f.store.prune(true, move |image| image.id == one).await.unwrap();
    assert_eq!(removed, [Removed::Untagged("one:1".into()), Removed::Deleted(one)]);
    assert_eq!(f.store.get("other:1").await.unwrap().id, other);
}

#[tokio::test]
async fn half_made_things_of_a_crash_are_gone_after_open_and_images_stay() {
    let f = fixture().await;
    let id = f.import_as("demo:1", Tarball::new().file("a", b"a").done()).await;
    let root = f.root.path();
    std::fs::create_dir_all(root.join("layers/.new-1/diff/x")).unwrap();
    std::fs::create_dir_all(root.join("layers/.gone-2")).unwrap();
    std::fs::write(root.join("ingest/half"), b"x").unwrap();
    std::fs::write(root.join("images.new"), b"{\"half").unwrap();
    // A layer whose note was never written cannot be trusted.
    let layer = f.store.rootfs(&id).await.unwrap().dirs[0].clone();
    std::fs::remove_file(layer.parent().unwrap().join("layer.json")).unwrap();
    std::fs::write(layer.join("tampered"), b"").unwrap();
    let store = Store::open(root, single_uid()).await.unwrap();
    assert_eq!(names(&root.join("ingest")), [""; 0]);
    assert_eq!(names(&root.join("layers")).len(), 1);
    let dirs = store.rootfs(&id).await.unwrap().dirs;
    assert_eq!(names(&dirs[0]), ["a"], "unpacked again from its blob");

    std::fs::write(
        root.join("images.json"),
        b"{\"version\": 99, \"images\": {}, \"tags\": {}, \"digests\": {}, \"documents\": {}}",
    )
    .unwrap();
    assert!(Store::open(root, single_uid()).await.is_err(), "a later version's is left alone");
}

#[tokio::test]
async fn a_damaged_file_of_the_store_costs_one_image_at_most() {
    for damage in [&b""[..], b"{\"half", b"[]", b"\xff\x00garbage"] {
        let f = fixture().await;
        let root = f.root.path();
        let kept = f.import_as("kept:1", Tarball::new().file("a", b"a").done()).await;
        let last = f.import_as("last:1", Tarball::new().file("b", b"b").done()).await;
        std::fs::write(root.join("images.json"), damage).unwrap();
        let store = Store::open(root, single_uid()).await.unwrap();
        assert_eq!(store.get("kept:1").await.unwrap().id, kept, "its name was in the file before");
        let found = store.get(&last.to_string()).await.expect("an image is found again by its blobs");
        assert_eq!(store.rootfs(&found.id).await.unwrap().read_file("b").unwrap().unwrap(), b"b");
        assert!(root.join("images.json.damaged").exists());
        // Both files of names: the images are there without them.
        std::fs::write(root.join("images.json"), damage).unwrap();
        std::fs::write(root.join("images.json.before"), damage).unwrap();
        let store = Store::open(root, single_uid()).await.unwrap();
        assert!(store.get("kept:1").await.is_none());
        assert!(store.by_id(&kept).await.is_some() && store.by_id(&last).await.is_some());

        // A configuration: its image is gone until it is loaded again, which works.
        std::fs::write(root.join("blobs/sha256").join(last.hex()), damage).unwrap();
        // A layer's note: it is unpacked again.
        let layer = store.rootfs(&kept).await.unwrap().dirs[0].clone();
        std::fs::write(layer.parent().unwrap().join("layer.json"), damage).unwrap();
        let f = Fixture { store: Store::open(root, single_uid()).await.unwrap(), root: f.root };
        assert!(f.store.by_id(&last).await.is_none());
        let dirs = f.store.rootfs(&kept).await.unwrap().dirs;
        assert_eq!(names(&dirs[0]), ["a"]);
    }
}

#[tokio::test]
async fn broken_archives_say_what_is_wrong_and_leave_nothing() {
    let f = fixture().await;
    let good = Tarball::new().file("a", &[7; 3000]).done();
    let mut wrong_digest = Tarball::new();
    let blob = format!("blobs/sha256/{}", "0".repeat(64));
    let index = format!(
        "{{\"schemaVersion\":2,\"manifests\":[{{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"digest\":\"sha256:{}\",\"size\":2}}]}}",
        "0".repeat(64)
    );
    wrong_digest = wrong_digest.file(&blob, b"{}").file("index.json", index.as_bytes());
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("neither manifest.json nor index.json", good.clone()),
        ("cannot read archive", good[..1000].to_vec()),
        ("cannot read archive", b"no tar at all".repeat(100)),
        ("cannot read archive", b"\xfd7zXZ\0rest".to_vec()),
        ("cannot read archive", gzip(&good)[..40].to_vec()),
        (
            "blob 0000",
            Tarball::new().file("manifest.json", b"[{\"Config\":\"blob 0000\",\"Layers\":[]}]").done(),
        ),
        ("manifest has digest", wrong_digest.done()),
    ];
    for (what, bytes) in cases {
        let error = f.store.load(Cursor::new(bytes), silent()).await.unwrap_err().to_string();
        assert!(error.contains(what), "wanted {what:?}, got {error:?}");
        assert_eq!(names(&f.root.path().join("ingest")), [""; 0], "{what}");
    }
    assert!(f.import(good[..1000].to_vec()).await.is_err());
    f.store.prune(false, |_| true).await.unwrap();
    assert_eq!(f.leftovers(), [""; 0]);
}

/// Mounts a small tmpfs; the test program runs in mount namespaces of its own (see `.cargo/config.toml`).
fn small_disk() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    rustix::mount::mount(
        "tmpfs",
        directory.path(),
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        Some(c"size=4m"),
    )
    .expect("a tmpfs can be mounted: tests run as root of their own namespaces");
    directory
}

#[tokio::test]
async fn a_full_disk_is_a_clean_error_and_leaves_room_again() {
    let disk = small_disk();
    let store = Store::open(&disk.path().join("store"), single_uid()).await.unwrap();
    let f = Fixture { store, root: tempfile::tempdir().unwrap() };
    let large = Tarball::new().file("large", &vec![1; 3 << 20]).done();
    // The blob does not fit beside the unpacked file; gzipped it fits, the file alone does not.
    let larger = gzip(&Tarball::new().file("larger", &vec![1; 6 << 20]).done());
    for tar in [large, larger] {
        let error = f.import(tar).await.unwrap_err();
        let mut chain = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            chain = format!("{chain}: {inner}");
            cause = inner.source();
        }
        assert!(chain.contains("No space left on device"), "{chain}");
        f.store.prune(false, |_| true).await.unwrap();
    }
    f.import_as("small:1", Tarball::new().file("small", &vec![1; 1 << 20]).done()).await;
    rustix::mount::unmount(disk.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
}

#[tokio::test]
async fn a_store_of_one_uid_squashes_owners_and_leaves_devices_out() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path(), true).await.unwrap();
    let tar = Tarball::new()
        .file("a", b"a")
        .entry(tar::EntryType::Char, "null", "", 0o666, b"")
        .directory("opt/")
        .file("opt/.wh..wh..opq", b"")
        .file(".wh.b", b"")
        .done();
    let id = store.import(Cursor::new(tar), ImportOptions::default()).await.unwrap();
    let top = &store.rootfs(&id).await.unwrap().dirs[0];
    assert_eq!(std::fs::metadata(top.join("a")).unwrap().uid(), rustix::process::geteuid().as_raw());
    assert_eq!(std::fs::metadata(top.join("a")).unwrap().permissions().mode() & 0o777, 0o644);
    assert!(!top.join("null").exists());
    assert_eq!(std::fs::symlink_metadata(top.join("b")).unwrap().rdev(), 0);
    let mut value = [0; 1];
    assert_eq!(rustix::fs::getxattr(top.join("opt"), "user.overlay.opaque", &mut value), Ok(1));
}
