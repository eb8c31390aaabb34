//! Docker's JSON, as it is on the wire: names, zero values and omissions are Docker's, meaning is not judged here.
//!
//! A request may leave anything out, send `null` for it, or send fields nobody here knows: as dockerd, we take
//! it. An answer writes `[]` and `{}`, never `null`. *Source:* moby `api/swagger.yaml`, API 1.51.
//!
//! In the tables below `field: Type = "Name"` is always written and `field: Type => "Name"` only when it is not
//! its type's default (Go's `omitempty`).

/// Declares wire structs from `field: Type = "WireName"` tables.
macro_rules! wire {
    (@fields [$($meta:tt)*] $name:ident [$($done:tt)*]) => {
        #[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        $($meta)*
        pub struct $name { $($done)* }
    };
    (@fields $meta:tt $name:ident [$($done:tt)*]
        $(#[$doc:meta])* $field:ident : $type:ty = $wire:literal, $($rest:tt)*) => {
        wire!(@fields $meta $name
            [$($done)* $(#[$doc])* #[serde(rename = $wire)] pub $field: $type,] $($rest)*);
    };
    (@fields $meta:tt $name:ident [$($done:tt)*]
        $(#[$doc:meta])* $field:ident : $type:ty => $wire:literal, $($rest:tt)*) => {
        wire!(@fields $meta $name
            [$($done)* $(#[$doc])*
             #[serde(rename = $wire, skip_serializing_if = "crate::types::is_default")] pub $field: $type,]
            $($rest)*);
    };
    (@fields $meta:tt $name:ident [$($done:tt)*]
        $(#[$doc:meta])* flatten $field:ident : $type:ty, $($rest:tt)*) => {
        wire!(@fields $meta $name
            [$($done)* $(#[$doc])* #[serde(flatten)] pub $field: $type,] $($rest)*);
    };
    (@keys [$($done:tt)*]) => { &[$($done)*] };
    (@keys [$($done:tt)*]
        $(#[$doc:meta])* $field:ident : $type:ty = $wire:literal, $($rest:tt)*) => {
        wire!(@keys [$($done)* $wire,] $($rest)*)
    };
    (@keys [$($done:tt)*]
        $(#[$doc:meta])* $field:ident : $type:ty => $wire:literal, $($rest:tt)*) => {
        wire!(@keys [$($done)* $wire,] $($rest)*)
    };
    (@keys [$($done:tt)*]
        $(#[$doc:meta])* flatten $field:ident : $type:ty, $($rest:tt)*) => {
        wire!(@keys [$($done)*] $($rest)*)
    };
    ($($(#[$meta:meta])* $name:ident { $($body:tt)* })*) => {
        $(wire!(@fields [$(#[$meta])*] $name [] $($body)*);
        impl $name {
            /// Names on the wire, but for those of flattened parts.
            pub const KEYS: &[&str] = wire!(@keys [] $($body)*);
        })*
    };
}

mod container;
mod go;
mod image;
mod network;
mod node;
mod secret;
mod service;
mod swarm;
mod system;
mod task;
mod time;
mod user;
mod volume;

pub use container::*;
pub use image::*;
pub use network::*;
pub use node::*;
pub use secret::*;
pub use service::*;
pub use swarm::*;
pub use system::*;
pub use task::*;
pub use time::Time;
pub use user::*;
pub use volume::*;

use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// Labels, options: any string map.
pub type StringMap = BTreeMap<String, String>;

pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Reads JSON the way Go does: `null` means "not given", names of fields fit whatever their case.
///
/// # Errors
/// When the text is not JSON or a field has another type than Docker's.
pub fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, serde_json::Error> {
    let mut value = serde_json::from_slice(json)?;
    drop_nulls(&mut value);
    T::deserialize(go::Go(value))
}

fn drop_nulls(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        serde_json::Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// A string or a list of strings. Source: moby `strslice`.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
#[serde(transparent)]
pub struct StrSlice(pub Vec<String>);

impl<'de> serde::Deserialize<'de> for StrSlice {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Either {
            One(String),
            Many(Vec<String>),
        }
        Ok(Self(match <Either as serde::Deserialize>::deserialize(from)? {
            Either::One(s) => vec![s],
            Either::Many(v) => v,
        }))
    }
}

wire! {
    /// Answer to a creation: `{"ID": ..}`; containers and networks say `Id` (see [`Created`]).
    ObjectId {
        id: String = "ID",
    }
    Created {
        id: String = "Id",
        warnings: Vec<String> = "Warnings",
    }
    NetworkCreated {
        id: String = "Id",
        warning: String = "Warning",
    }
    ErrorBody {
        message: String = "message",
    }
    ObjectVersion {
        index: u64 = "Index",
    }
    /// An empty object: `{}`.
    Empty {
    }
}
