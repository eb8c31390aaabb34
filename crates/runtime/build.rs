//! Builds the shim as a small program of its own and hands it to the library, which carries it inside.
//!
//! Only for release builds: the shim's size decides what every container costs, but a second compilation would
//! slow every change down. Without it the library says so and the whole program is started as a shim instead.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// Set for the build of the shim itself, which carries nothing.
const INNER: &str = "RSWARM_BUILDS_SHIM";
/// Smaller and, not being relocated at start, with nearly no memory of its own.
const RUSTFLAGS: &str = "-Ctarget-feature=+crt-static\x1f-Crelocation-model=static";

/// What the program has at `opt-level` 3 and the shim has in it, too.
const SMALL_HERE: [&str; 5] = ["runtime", "sys", "prost", "bytes", "memchr"];

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={INNER}");
    let out = PathBuf::from(variable("OUT_DIR")?);
    let carried = out.join("rswarm-shim");
    if variable("PROFILE")? != "release" || env::var_os(INNER).is_some() {
        return fs::write(carried, []);
    }
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-changed=../sys/src");
    match build(&out) {
        Ok(built) => fs::copy(built, carried).map(|_| ()),
        Err(error) => {
            println!(
                "cargo::warning=containers will cost more memory, the small shim could not be built: {error}"
            );
            fs::write(carried, [])
        }
    }
}

fn build(out: &Path) -> io::Result<PathBuf> {
    let target = variable("TARGET")?;
    let directory = out.join("shim");
    let small = SMALL_HERE
        .map(|package| ["--config".into(), format!("profile.release.package.{package}.opt-level='s'")]);
    let status = Command::new(variable("CARGO")?)
        .args(["build", "--quiet", "--offline", "--release", "--package", "runtime", "--bin", "runtime-shim"])
        .args(["--config", "profile.release.opt-level='s'", "--config", "profile.release.lto='fat'"])
        .args(["--config", "profile.release.codegen-units=1", "--config", "profile.release.panic='abort'"])
        .args(small.iter().flatten())
        .args(["--target", &target, "--target-dir"])
        .arg(&directory)
        .current_dir(variable("CARGO_MANIFEST_DIR")?)
        .env(INNER, "1")
        .env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS)
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .status()?;
    if !status.success() {
        return Err(io::Error::other(format!("cargo ended with {status}")));
    }
    Ok(directory.join(target).join("release/runtime-shim"))
}

fn variable(name: &str) -> io::Result<String> {
    env::var(name).map_err(|error| io::Error::other(format!("{name}: {error}")))
}
