//! Compiles `proto/**.proto` with `protox`: no `protoc` is needed to build rswarm.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    let mut files = Vec::<PathBuf>::new();
    for folder in [&root, &root.join("buildkit")] {
        for entry in std::fs::read_dir(folder)? {
            files.push(entry?.path());
        }
    }
    files.retain(|f| f.extension().is_some_and(|e| e == "proto"));
    files.sort();
    println!("cargo:rerun-if-changed={}", root.display());
    let descriptors = protox::compile(&files, [&root])?;
    tonic_prost_build::configure()
        .btree_map(".")
        .include_file("rswarm.rs")
        .bytes(".rswarm.node.v1.Bytes")
        .compile_fds(descriptors)?;
    Ok(())
}
