//! What volumes hold, as tars.

use crate::kit::{Host, chain, guest_with, squashed};
use engine::{ContainerConfig, Engine, Error, StopOptions, VolumeConfig};
use std::{
    fs,
    io::Cursor,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::PathBuf,
};
use tokio::io::AsyncReadExt;

fn with_volume(steps: &[&str], volume: &str) -> ContainerConfig {
    guest_with(steps, |c| c.host.binds = vec![format!("{volume}:/data")])
}

fn content(host: &Host, volume: &str) -> PathBuf {
    host.on(async |engine| engine.volume(volume).unwrap().mountpoint)
}

/// Makes a volume with a file of this name and text.
fn filled(host: &Host, volume: &str, file: &str) -> PathBuf {
    let config = VolumeConfig {
        name: volume.into(),
        labels: [("of".to_owned(), volume.to_owned())].into(),
        ..VolumeConfig::default()
    };
    let folder = host.on(async |engine| engine.volume_create(config).await.unwrap()).mountpoint;
    fs::write(folder.join(file), file).unwrap();
    folder
}

async fn export(engine: &Engine, volume: &str) -> Vec<u8> {
    let mut tar = Vec::new();
    engine.volume_export(volume).await.unwrap().read_to_end(&mut tar).await.unwrap();
    tar
}

fn import(host: &Host, volume: &str, tar: &[u8], force: bool) -> Result<(), Error> {
    let tar = Cursor::new(tar.to_vec());
    host.on(async |engine| engine.volume_import(volume, tar, force).await.map(drop))
}

/// What is in the folder of all volumes.
fn folders(host: &Host) -> Vec<String> {
    let entries = fs::read_dir(host.path("data/volumes")).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn volume_goes_out_and_comes_back_as_it_was() {
    let host = Host::new();
    let old = filled(&host, "old", "a");
    fs::hard_link(old.join("a"), old.join("b")).unwrap();
    fs::create_dir(old.join("sub")).unwrap();
    std::os::unix::fs::symlink("../a", old.join("sub/link")).unwrap();
    fs::set_permissions(&old, fs::Permissions::from_mode(0o2750)).unwrap();
    if !squashed() {
        chown(old.join("a"), Some(33), Some(34)).unwrap();
    }
    let tar = host.on(async |engine| export(&engine, "old").await);
    import(&host, "new", &tar, false).unwrap();

    let new = content(&host, "new");
    let stat = |name: &str| {
        let (was, is) = (fs::symlink_metadata(old.join(name)), fs::symlink_metadata(new.join(name)));
        let seen = |m: fs::Metadata| (m.mode(), m.uid(), m.gid(), m.modified().unwrap());
        (seen(was.unwrap()), seen(is.unwrap()))
    };
    for name in ["", "a", "sub", "sub/link"] {
        let (was, is) = stat(name);
        assert_eq!(was, is, "{name:?}");
    }
    assert_eq!(fs::metadata(new.join("a")).unwrap().ino(), fs::metadata(new.join("b")).unwrap().ino());
    assert_eq!(host.run(with_volume(&["list:/data", "read:/data/sub/link"], "new")).stdout, "a b sub\na");
}

#[test]
fn content_is_replaced_only_by_force_and_only_while_no_container_runs_with_it() {
    let host = Host::new();
    filled(&host, "source", "new");
    filled(&host, "target", "old");
    let tar = host.on(async |engine| export(&engine, "source").await);

    let error = import(&host, "target", &tar, false).unwrap_err();
    assert!(matches!(&error, Error::Conflict(text) if text.contains("--force")), "{error}");
    let running = host.start(with_volume(&["wait:/data/end"], "target"));
    let error = import(&host, "target", &tar, true).unwrap_err();
    assert!(matches!(&error, Error::Conflict(text) if text.contains(&running)), "{error}");
    assert!(content(&host, "target").join("old").exists());

    host.on(async |engine| {
        engine
            .stop(
                &running,
                StopOptions { timeout: Some(std::time::Duration::ZERO), ..StopOptions::default() },
            )
            .await
            .unwrap();
    });
    import(&host, "target", &tar, true).unwrap();
    assert_eq!(host.run(with_volume(&["list:/data"], "target")).stdout, "new\n");
    assert_eq!(folders(&host), ["source", "target"], "what it held is gone");
}

#[test]
fn broken_archive_changes_nothing() {
    let host = Host::new();
    filled(&host, "old", "kept");
    let mut tar = host.on(async |engine| export(&engine, "old").await);
    let cut_between_entries = &tar[..tar.len() - 1024];
    let broken = [b"no archive at all".as_slice(), &[0x1f, 0x8b, 8], &tar[..700], cut_between_entries];
    for broken in broken {
        for name in ["old", "new"] {
            let error = import(&host, name, broken, true).unwrap_err();
            assert!(matches!(error, Error::InvalidParameter(_)), "{}", chain(&error));
        }
    }
    // Whoever sends it goes away.
    tar.truncate(700);
    host.on(async |engine| {
        let gone = tokio_util::io::StreamReader::new(futures::stream::iter([
            Ok(bytes::Bytes::from(tar)),
            Err(std::io::Error::other("gone")),
        ]));
        let error = engine.volume_import("new", gone, false).await.unwrap_err();
        assert!(chain(&error).contains("gone"), "{}", chain(&error));
    });
    assert_eq!(folders(&host), ["old"]);
    assert_eq!(fs::read_to_string(content(&host, "old").join("kept")).unwrap(), "kept");
}

#[test]
fn copy_has_content_and_labels_of_its_source() {
    let host = Host::new();
    filled(&host, "source", "file");
    filled(&host, "other", "x");
    let copy =
        |target: &str, force| host.on(async |engine| engine.volume_copy("source", target, force).await);
    let made = copy("copy", false).unwrap();
    assert_eq!(made.labels["of"], "source");
    assert_eq!(fs::read_to_string(made.mountpoint.join("file")).unwrap(), "file");
    assert!(matches!(copy("copy", false), Err(Error::Conflict(_))), "it has content now");
    let kept = copy("other", true).unwrap();
    assert_eq!((kept.labels["of"].as_str(), kept.mountpoint.join("file").exists()), ("other", true));
    let missing = host.on(async |engine| engine.volume_copy("nothing", "copy2", false).await);
    assert!(matches!(missing, Err(Error::NoSuchVolume(_))));
    assert!(matches!(copy("../evil", false), Err(Error::InvalidParameter(_))));
    assert_eq!(folders(&host), ["copy", "other", "source"]);
}

#[test]
fn folder_of_the_host_is_exported_but_never_replaced() {
    let host = Host::new();
    host.shared();
    fs::write(host.path("shared/file"), "of the host").unwrap();
    let device = host.path("shared").display().to_string();
    let config = VolumeConfig {
        name: "device".into(),
        driver_opts: [("type", "none"), ("o", "bind"), ("device", &device)]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
        ..VolumeConfig::default()
    };
    host.on(async |engine| engine.volume_create(config).await.unwrap());
    let copy = host.on(async |engine| engine.volume_copy("device", "copy", false).await.unwrap());
    assert_eq!(fs::read_to_string(copy.mountpoint.join("file")).unwrap(), "of the host");
    let error = host.on(async |engine| engine.volume_copy("copy", "device", true).await.unwrap_err());
    assert!(error.to_string().contains(&device), "{error}");
}
