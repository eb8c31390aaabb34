//! Docker's own dialect of stack files: what `docker stack config` prints for the same files, or an error where it
//! refuses them. Versions 3.0 to 3.13; a file without one is of the newest.
//!
//! ```text
//!  each file: tree --template--> tree --canon, by the tables of schema--> long forms --join--> the next file's
//! ```
//! One table says of every key since which version it is there, what its values are, how the long form looks, and how
//! the values of two files come together.
//!
//! Source: docker/cli `cli/compose/{loader,schema,template,types}`. Where that has quirks, we have them: whoever moves
//! from Docker finds the same stack.
//!
//! *Start reading at* [`config`].

mod canon;
mod join;
mod ports;
mod schema;
mod services;
mod template;

use crate::{
    Error, Files, Sources,
    read::Item,
    tree::{self, Entry, Node, Value},
    yaml,
};
use schema::Version;

/// Returns the merged, interpolated files in Docker's long forms, as YAML. `interpolate`: variables get their values
/// from the environment, and from nowhere else.
///
/// # Errors
/// The first [`Error`] found.
pub fn config(sources: &Sources, files: &dyn Files, interpolate: bool) -> Result<String, Error> {
    let mut version: Option<Version> = None;
    let mut merged: Option<Node> = None;
    for (path, text) in &sources.files {
        // Of several documents Docker reads the first.
        let mut tree = tree::parse(path, text)?.swap_remove(0);
        if !matches!(tree.value, Value::Map(_)) {
            return Err(Item::root(&tree).invalid("want a mapping with \"services\" at the top"));
        }
        let own = Version::of(&tree)?;
        if version.as_ref().is_some_and(|version| *version != own) {
            let at = tree.get("version").map_or(tree.at.clone(), |node| node.at.clone());
            let text = "the files are of different versions".to_owned();
            return Err(Error::Invalid { at, path: "version".into(), text });
        }
        if interpolate {
            template::tree(&mut tree, &sources.env)?;
        }
        let cx = canon::Context { version: own.clone(), sources, files };
        let long = cx.file(&tree)?;
        merged = Some(match merged {
            Some(base) => join::files(base, long),
            None => long,
        });
        version = Some(own);
    }
    let (Some(mut merged), Some(version)) = (merged, version) else { return Err(Error::NoFiles) };
    if let Value::Map(entries) = &mut merged.value {
        entries.retain(|entry| entry.key != "version");
        let at = merged.at.clone();
        let node = Node::new(Value::Str(version.to_string()), at.clone());
        entries.push(Entry { key: "version".to_owned(), at, node });
    }
    Ok(yaml::write(&merged))
}
