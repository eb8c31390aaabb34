//! Docker's JSON, as it is on the wire: names, zero values and omissions are Docker's, meaning is not judged here.
//!
//! A request may leave anything out, send `null` for it, or send fields nobody here knows: as dockerd, we take
//! it. An answer writes `[]` and `{}`, never `null`, but for what a prune has removed: clients tell by `null` that this was
//! nothing. *Source:* moby `api/swagger.yaml`, API 1.51.
//!
//! In the tables below `field: Type = "Name"` is always written and `field: Type => "Name"` only when it is not
//! its type's default (Go's `omitempty`).

/// Returns what a prune has removed, as it is told: `None` is nothing.
pub fn some_of<T>(removed: Vec<T>) -> Option<Vec<T>> {
    Some(removed).filter(|removed| !removed.is_empty())
}

/// Declares wire structs from `field: Type = "WireName"` tables. What is answered by the thousand may borrow, as a `Cow`.
macro_rules! wire {
    (@fields [$($meta:tt)*] $name:ident [$($life:lifetime)?] [$($done:tt)*]
        [$($wire:literal $field:ident)*] [$($part:ident)*] [$(($kind:ident $($put:tt)*))*]) => {
        #[derive(Debug, Clone, PartialEq, Default)]
        $($meta)*
        pub struct $name$(<$life>)? { $($done)* }

        impl$(<$life>)? $name$(<$life>)? {
            /// Names on the wire, but for those of flattened parts.
            pub const KEYS: &'static [&'static str] = &[$($wire),*];
        }

        impl$(<$life>)? crate::types::json::Fields for $name$(<$life>)? {
            fn set<'json>(
                &mut self,
                name: &str,
                value: crate::types::Json<'json>,
            ) -> Result<Option<crate::types::Json<'json>>, serde_json::Error> {
                match name {
                    $($wire => {
                        self.$field = crate::types::Wire::read(value)?;
                        return Ok(None);
                    })*
                    _ => {}
                }
                $(let Some(value) = self.$part.set(name, value)? else { return Ok(None) };)*
                Ok(Some(value))
            }

            fn spelled(&self, name: &str) -> Option<&'static str> {
                Self::KEYS.iter().copied().find(|own| own.eq_ignore_ascii_case(name))
                    $(.or_else(|| self.$part.spelled(name)))*
            }

            fn put(&self, object: &mut crate::types::json::Object<'_>) {
                object.make_room(Self::KEYS.len());
                $(wire!(@put $kind self object $($put)*);)*
            }
        }

        impl$(<$life>)? crate::types::Wire for $name$(<$life>)? {
            fn read(json: crate::types::Json<'_>) -> Result<Self, serde_json::Error> {
                let mut it = Self::default();
                crate::types::json::fill(&mut it, concat!("struct ", stringify!($name)), json)?;
                Ok(it)
            }
        }

        impl$(<$life>)? crate::types::Written for $name$(<$life>)? {
            fn write(&self, to: &mut crate::types::Text) {
                crate::types::json::write(self, to);
            }
        }

        impl$(<$life>)? serde::Serialize for $name$(<$life>)? {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                crate::types::json::serialize(self, to)
            }
        }
    };
    (@put always $self:ident $object:ident $wire:literal $field:ident) => {
        $object.field(concat!(",\"", $wire, "\":"), &$self.$field);
    };
    (@put given $self:ident $object:ident $wire:literal $field:ident) => {
        if !crate::types::is_default(&$self.$field) {
            wire!(@put always $self $object $wire $field);
        }
    };
    (@put part $self:ident $object:ident $field:ident) => {
        $self.$field.put($object);
    };
    (@fields $meta:tt $name:ident $life:tt [$($done:tt)*] [$($names:tt)*] $parts:tt [$($put:tt)*]
        $(#[$doc:meta])* $field:ident : $type:ty = $wire:literal, $($rest:tt)*) => {
        wire!(@fields $meta $name $life [$($done)* $(#[$doc])* pub $field: $type,]
            [$($names)* $wire $field] $parts [$($put)* (always $wire $field)] $($rest)*);
    };
    (@fields $meta:tt $name:ident $life:tt [$($done:tt)*] [$($names:tt)*] $parts:tt [$($put:tt)*]
        $(#[$doc:meta])* $field:ident : $type:ty => $wire:literal, $($rest:tt)*) => {
        wire!(@fields $meta $name $life [$($done)* $(#[$doc])* pub $field: $type,]
            [$($names)* $wire $field] $parts [$($put)* (given $wire $field)] $($rest)*);
    };
    (@fields $meta:tt $name:ident $life:tt [$($done:tt)*] $names:tt [$($parts:tt)*] [$($put:tt)*]
        $(#[$doc:meta])* flatten $field:ident : $type:ty, $($rest:tt)*) => {
        wire!(@fields $meta $name $life [$($done)* $(#[$doc])* pub $field: $type,]
            $names [$($parts)* $field] [$($put)* (part $field)] $($rest)*);
    };
    ($($(#[$meta:meta])* $name:ident $(<$life:lifetime>)? { $($body:tt)* })*) => {
        $(wire!(@fields [$(#[$meta])*] $name [$($life)?] [] [] [] [] $($body)*);)*
    };
}

mod container;
mod image;
mod json;
mod network;
mod node;
mod plugin;
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
pub use json::{Json, Text, Wire, Written};
pub use network::*;
pub use node::*;
pub use plugin::*;
pub use secret::*;
pub use service::*;
pub use swarm::*;
pub use system::*;
pub use task::*;
pub use time::Time;
pub use user::*;
pub use volume::*;

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
pub fn parse<T: Wire>(json: &[u8]) -> Result<T, serde_json::Error> {
    T::read(serde_json::from_slice(json)?)
}

/// A string or a list of strings. Source: moby `strslice`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StrSlice(pub Vec<String>);

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
