//! The generated code that is kept is what its sources say. `UPDATE_EXPECT=1 cargo test -p protogen` writes it.

use protogen::GENERATED;
use std::{fs, path::Path};

#[test]
fn kept_code_is_what_the_proto_files_say() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/src/generated.rs");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&kept, GENERATED).expect("a file that can be written");
    }
    let found = fs::read_to_string(&kept).expect("the generated code");
    let other = found.lines().zip(GENERATED.lines()).position(|(kept, made)| kept != made);
    assert!(
        found == GENERATED,
        "{} is not what proto/ says, from line {} on: UPDATE_EXPECT=1 cargo test -p protogen",
        kept.display(),
        other.map_or(found.lines().count().min(GENERATED.lines().count()), |line| line) + 1
    );
}
