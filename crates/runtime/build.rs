//! Builds the shim as a small program of its own and hands it to the library, which carries it inside.
//!
//! Only for release builds: the shim's size decides what every container costs, but a second compilation would
//! slow every change down. Without it the library says so and the whole program is started as a shim instead.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// Smaller and, not being relocated at start, with nearly no memory of its own.
const RUSTFLAGS: &str = "-Ctarget-feature=+crt-static\x1f-Crelocation-model=static";

/// What the program has at `opt-level` 3 and the shim has in it, too.
const SMALL_HERE: [&str; 4] = ["sys", "prost", "bytes", "memchr"];

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(variable("OUT_DIR")?);
    let carried = out.join("rswarm-shim");
    if variable("PROFILE")? != "release" {
        return fs::write(carried, []);
    }
    println!("cargo::rerun-if-changed=../shim/src");
    println!("cargo::rerun-if-changed=../sys/src");
    // A release without it would work, and every container would cost some ten times the memory: nobody would notice.
    match build(&out).and_then(|built| fs::copy(built, carried)) {
        Ok(_) => {}
        Err(error) => println!(
            "cargo::error=the shim, which a release build carries inside, could not be built: {error}; hint: what stands \
             above is the compiler's, and `cargo build --release -p shim --bin rswarm-shim` builds it alone"
        ),
    }
    Ok(())
}

fn build(out: &Path) -> io::Result<PathBuf> {
    let target = variable("TARGET")?;
    let directory = out.join("shim");
    // The folders of this machine have the names in it that they have in the program.
    let given = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let renamed = given.split('\x1f').filter(|flag| flag.starts_with("--remap-path-prefix="));
    let flags: Vec<&str> = RUSTFLAGS.split('\x1f').chain(renamed).collect();
    let small = SMALL_HERE
        .map(|package| ["--config".into(), format!("profile.release.package.{package}.opt-level='s'")]);
    let status = Command::new(variable("CARGO")?)
        .args(["build", "--quiet", "--offline", "--release", "--package", "shim", "--bin", "rswarm-shim"])
        .args(["--config", "profile.release.opt-level='s'", "--config", "profile.release.lto='fat'"])
        .args(["--config", "profile.release.codegen-units=1", "--config", "profile.release.panic='abort'"])
        .args(small.iter().flatten())
        .args(["--target", &target, "--target-dir"])
        .arg(&directory)
        .current_dir(variable("CARGO_MANIFEST_DIR")?)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .status()?;
    if !status.success() {
        return Err(io::Error::other(format!("cargo ended with {status}")));
    }
    Ok(directory.join(target).join("release/rswarm-shim"))
}

fn variable(name: &str) -> io::Result<String> {
    env::var(name).map_err(|error| io::Error::other(format!("{name}: {error}")))
}
