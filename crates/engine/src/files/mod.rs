//! The files of a container: its layers, what lies over and beside them, and the ways in and out while it runs and
//! while it does not.
//!
//! *Start reading at* `layers::Layers`, then `archive`.

pub(crate) mod archive;
pub(crate) mod below;
pub(crate) mod changes;
pub(crate) mod commit;
pub(crate) mod copy_up;
pub(crate) mod down_tree;
pub(crate) mod etc;
pub(crate) mod image_mounts;
pub(crate) mod init_layer;
pub(crate) mod layers;
pub(crate) mod mounts;
pub(crate) mod secrets;
pub(crate) mod trees;
