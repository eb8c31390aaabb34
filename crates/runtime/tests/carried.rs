//! A release build carries the shim or is none.

use std::{path::Path, process::Command};

#[test]
fn release_build_whose_shim_cannot_be_built_fails_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("script");
    let crate_ = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rustc = Path::new(env!("CARGO")).with_file_name("rustc");
    let compiled = Command::new(rustc)
        .args(["--edition", "2024", "-o"])
        .arg(&script)
        .arg(crate_.join("build.rs"))
        .status()
        .unwrap();
    assert!(compiled.success(), "{compiled}");
    let ended = Command::new(&script)
        .env("PROFILE", "release")
        .env("OUT_DIR", folder.path())
        .env("TARGET", format!("{}-unknown-linux-gnu", std::env::consts::ARCH))
        .env("CARGO_MANIFEST_DIR", crate_)
        .env("CARGO", "/bin/false")
        .output()
        .unwrap();
    let said = String::from_utf8(ended.stdout).unwrap();
    // Cargo fails the build for this line, whatever the exit status is.
    assert!(said.lines().any(|line| line.starts_with("cargo::error=the shim")), "{said}");
    assert!(!folder.path().join("rswarm-shim").exists(), "an empty shim was left in its place");
}
