//! Compiles `proto/**.proto` with `protox` (no `protoc` is needed) to one file of Rust, for `src/lib.rs` to show.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
};

const HEAD: &str = "\
//! Generated from `proto/**.proto`; not for reading.
//! After a change there: `UPDATE_EXPECT=1 cargo test -p protogen` writes this file anew.

";

const FIELDS_HEAD: &str = "
/// Converts a message of `types` and its noun of `model`, field by field.
macro_rules! fields {
";

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let mut files = Vec::<PathBuf>::new();
    for folder in [&root, &root.join("buildkit")] {
        for entry in fs::read_dir(folder)? {
            files.push(entry?.path());
        }
    }
    files.retain(|f| f.extension().is_some_and(|e| e == "proto"));
    files.sort();
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={}", root.display());
    let descriptors = protox::compile(&files, [&root])?;
    let fields = fields(&descriptors);
    tonic_prost_build::configure()
        .btree_map(".")
        .include_file("modules.rs")
        .bytes(".rswarm.node.v1.Bytes")
        .compile_fds(descriptors)?;
    fs::write(out.join("generated.rs"), HEAD.to_owned() + &joined(&out, "modules.rs")? + &fields)?;
    Ok(())
}

/// Returns a macro that knows the fields of each message of nouns, for the conversions: a field that is added to such a
/// message is named there, and nowhere else in the crate. Messages that are a choice are converted by hand.
fn fields(descriptors: &protox::prost_reflect::prost_types::FileDescriptorSet) -> String {
    let mut text = FIELDS_HEAD.to_owned();
    let nouns = descriptors.file.iter().filter(|file| file.package() == "rswarm.types.v1");
    for message in nouns.flat_map(|file| &file.message_type) {
        let is_choice = message.field.iter().any(|f| f.oneof_index.is_some() && !f.proto3_optional());
        let names: Vec<&str> = message.field.iter().map(|field| field.name()).collect();
        if !is_choice {
            let (name, names) = (message.name(), names.join(", "));
            text +=
                &format!("    ([$model:ty] {name}) => {{\n        crate::convert::message! {{\n            ");
            text += &format!("[$model] {name} {{ {names} }}\n        }}\n    }};\n");
        }
    }
    text + "}\npub(crate) use fields;\n"
}

/// Returns this file of `folder` with each `include!` replaced by what it includes, indented as the `include!` was.
fn joined(folder: &Path, file: &str) -> Result<String, Box<dyn Error>> {
    let text =
        fs::read_to_string(folder.join(file)).map_err(|error| format!("cannot read {file}: {error}"))?;
    let mut whole = String::new();
    for line in text.lines() {
        let indent = &line[..line.len() - line.trim_start().len()];
        let included =
            line.trim_start().strip_prefix("include!(\"").and_then(|rest| rest.strip_suffix("\");"));
        let lines = match included {
            Some(name) => joined(folder, name)?,
            None => line.trim_start().to_owned(),
        };
        for line in lines.lines() {
            if !line.is_empty() {
                whole.push_str(indent);
                whole.push_str(line);
            }
            whole.push('\n');
        }
    }
    Ok(whole)
}
