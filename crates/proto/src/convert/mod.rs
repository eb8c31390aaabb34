//! `model` <-> `types`: every noun has `From<&model::X> for types::X` and `TryFrom<types::X> for model::X`.
//!
//! Which fields a message has stands in `proto/types.proto`; how one field travels is decided by its two types (trait
//! `Field`): ids are 16 bytes big endian, addresses their text form, durations and times nanoseconds,
//! enums must name a known value, and a message that the model cannot do without must be there.

mod network;
mod object;
pub use object::SpecCache;
mod swarm;
mod workload;

#[cfg(test)]
mod tests;

use crate::types;
use model::{Duration, SecretBytes, Timestamp};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// A message that does not mean anything to this version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field {field:?} of a message {problem}")]
pub struct Invalid {
    /// Dotted path, e.g. `spec.task.container.mounts.kind`.
    pub field: String,
    pub problem: Problem,
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("is missing")]
    Missing,
    #[error("has the unknown value {0}")]
    UnknownValue(i32),
    #[error("is an id of {0} bytes instead of 16")]
    IdLength(usize),
    #[error("is out of range: {0}")]
    OutOfRange(u64),
    #[error("is not an address: {0:?}")]
    NotAnAddress(String),
}

impl Problem {
    /// Returns the error for `field`.
    pub fn of(self, field: &str) -> Invalid {
        Invalid { field: field.to_owned(), problem: self }
    }
}

impl Invalid {
    /// Returns the same error seen from the message that holds `outer`.
    #[must_use]
    pub fn within(mut self, outer: &str) -> Self {
        self.field = if self.field.is_empty() { outer.to_owned() } else { format!("{outer}.{}", self.field) };
        self
    }
}

/// One field: its form in `model` (`Self`) and in a message (`P`).
pub(crate) trait Field<P>: Sized {
    fn put(&self) -> P;
    fn take(wire: P) -> Result<Self, Invalid>;
}

/// Reads one field of a message, naming it in the error.
pub(crate) fn take<M: Field<P>, P>(field: &str, wire: P) -> Result<M, Invalid> {
    M::take(wire).map_err(|e| e.within(field))
}

macro_rules! same {
    ($($t:ty),*) => {$(
        impl Field<$t> for $t {
            fn put(&self) -> $t {
                self.clone()
            }
            fn take(wire: $t) -> Result<Self, Invalid> {
                Ok(wire)
            }
        }
    )*};
}
same!(bool, u8, u32, u64, i32, i64, String);

macro_rules! narrow {
    ($($t:ty),*) => {$(
        impl Field<u32> for $t {
            fn put(&self) -> u32 {
                u32::from(*self)
            }
            fn take(wire: u32) -> Result<Self, Invalid> {
                Self::try_from(wire).map_err(|_| Problem::OutOfRange(u64::from(wire)).of(""))
            }
        }
    )*};
}
narrow!(u8, u16);

macro_rules! text {
    ($($t:ty),*) => {$(
        impl Field<String> for $t {
            fn put(&self) -> String {
                self.to_string()
            }
            fn take(wire: String) -> Result<Self, Invalid> {
                wire.parse().map_err(|_| Problem::NotAnAddress(wire).of(""))
            }
        }
    )*};
}
text!(IpAddr, SocketAddr, ipnet::IpNet, ipnet::Ipv4Net);

macro_rules! ids {
    ($($t:ident),*) => {$(
        impl Field<Vec<u8>> for model::$t {
            fn put(&self) -> Vec<u8> {
                self.0.to_be_bytes().to_vec()
            }
            fn take(wire: Vec<u8>) -> Result<Self, Invalid> {
                id_value(&wire).map(model::$t)
            }
        }
        impl WireId for model::$t {
            fn to_wire(self) -> Vec<u8> {
                self.put()
            }
            fn from_wire(bytes: &[u8]) -> Result<Self, Invalid> {
                id_value(bytes).map(Self)
            }
        }
    )*};
}
ids!(ClusterId, NodeId, ServiceId, TaskId, NetworkId, SecretId, ConfigId, StackId, UserId, AuditId);

/// An id as it travels: 16 bytes, big endian.
pub trait WireId: Sized + Copy {
    /// Returns its 16 bytes.
    fn to_wire(self) -> Vec<u8>;
    /// Reads it.
    ///
    /// # Errors
    /// When there are not 16 bytes.
    fn from_wire(bytes: &[u8]) -> Result<Self, Invalid>;
}

fn id_value(bytes: &[u8]) -> Result<u128, Invalid> {
    <[u8; 16]>::try_from(bytes).map(u128::from_be_bytes).map_err(|_| Problem::IdLength(bytes.len()).of(""))
}

impl Field<i64> for Timestamp {
    fn put(&self) -> i64 {
        self.0
    }
    fn take(wire: i64) -> Result<Self, Invalid> {
        Ok(Self(wire))
    }
}

impl Field<Vec<u8>> for SecretBytes {
    fn put(&self) -> Vec<u8> {
        self.0.clone()
    }
    fn take(wire: Vec<u8>) -> Result<Self, Invalid> {
        Ok(Self(wire))
    }
}

/// Saturates at 584 years.
impl Field<types::Duration> for Duration {
    fn put(&self) -> types::Duration {
        types::Duration { nanos: u64::try_from(self.as_nanos()).unwrap_or(u64::MAX) }
    }
    fn take(wire: types::Duration) -> Result<Self, Invalid> {
        Ok(Self::from_nanos(wire.nanos))
    }
}
impl Field<Option<types::Duration>> for Duration {
    fn put(&self) -> Option<types::Duration> {
        Some(self.put())
    }
    fn take(wire: Option<types::Duration>) -> Result<Self, Invalid> {
        required(wire)
    }
}

impl<M: Field<P>, P> Field<Option<P>> for Option<M> {
    fn put(&self) -> Option<P> {
        self.as_ref().map(Field::put)
    }
    fn take(wire: Option<P>) -> Result<Self, Invalid> {
        wire.map(M::take).transpose()
    }
}

impl<M: Field<P>, P> Field<Vec<P>> for Vec<M> {
    fn put(&self) -> Vec<P> {
        self.iter().map(Field::put).collect()
    }
    fn take(wire: Vec<P>) -> Result<Self, Invalid> {
        wire.into_iter().map(M::take).collect()
    }
}

impl<M: Field<P>, P> Field<BTreeMap<String, P>> for BTreeMap<String, M> {
    fn put(&self) -> BTreeMap<String, P> {
        self.iter().map(|(key, value)| (key.clone(), value.put())).collect()
    }
    fn take(wire: BTreeMap<String, P>) -> Result<Self, Invalid> {
        wire.into_iter().map(|(key, value)| Ok((key, M::take(value)?))).collect()
    }
}

impl<M: Field<P>, P> Field<P> for Arc<M> {
    fn put(&self) -> P {
        M::put(self)
    }
    fn take(wire: P) -> Result<Self, Invalid> {
        M::take(wire).map(Self::new)
    }
}

/// Reads a message that must be there.
pub(crate) fn required<M: Field<P>, P>(wire: Option<P>) -> Result<M, Invalid> {
    M::take(wire.ok_or_else(|| Problem::Missing.of(""))?)
}

/// Reads a message that earlier versions did not write.
pub(crate) fn or_default<M: Field<P> + Default, P>(wire: Option<P>) -> Result<M, Invalid> {
    wire.map_or_else(|| Ok(M::default()), M::take)
}

/// Gives a pair of types with a hand-written `Field<types::X>` the public conversions and the required form; `later`:
/// where it is missing an earlier version wrote what it is in, and it is as the model has it by default.
macro_rules! public {
    ($($model:ty => $wire:ty),* $(,)?) => {$(
        $crate::convert::public!(@ $model, $wire, $crate::convert::required);
    )*};
    (later $model:ty => $wire:ty) => {
        $crate::convert::public!(@ $model, $wire, $crate::convert::or_default);
    };
    (@ $model:ty, $wire:ty, $missing:path) => {
        impl $crate::convert::Field<Option<$wire>> for $model {
            fn put(&self) -> Option<$wire> {
                Some(self.put())
            }
            fn take(wire: Option<$wire>) -> Result<Self, $crate::convert::Invalid> {
                $missing(wire)
            }
        }
        impl From<&$model> for $wire {
            fn from(from: &$model) -> Self {
                $crate::convert::Field::put(from)
            }
        }
        impl TryFrom<$wire> for $model {
            type Error = $crate::convert::Invalid;
            fn try_from(wire: $wire) -> Result<Self, $crate::convert::Invalid> {
                $crate::convert::Field::take(wire)
            }
        }
    };
}

/// Messages whose fields have the model's names: which these are stands in `proto/types.proto` alone. One that is not
/// in both does not compile.
macro_rules! messages {
    ($($model:ty => $wire:ident)*) => {$(
        $crate::generated::fields!([$model] $wire);
        $crate::convert::public!($model => $crate::types::$wire);
    )*};
}

/// One of them, with its fields.
macro_rules! message {
    ([$model:ty] $wire:ident { $($field:ident),* }) => {
        impl $crate::convert::Field<$crate::types::$wire> for $model {
            fn put(&self) -> $crate::types::$wire {
                let Self { $($field),* } = self;
                $crate::types::$wire { $($field: $crate::convert::Field::put($field)),* }
            }
            fn take(wire: $crate::types::$wire) -> Result<Self, $crate::convert::Invalid> {
                let $crate::types::$wire { $($field),* } = wire;
                Ok(Self { $($field: $crate::convert::take(stringify!($field), $field)?),* })
            }
        }
    };
}

/// Enums: each variant named in both worlds; 0 and unknown numbers are errors.
macro_rules! enums {
    ($($name:ident { $($variant:ident $(= $wire:ident)?),* $(,)? })*) => {$(
        impl $crate::convert::Field<i32> for model::$name {
            fn put(&self) -> i32 {
                match self {
                    $(Self::$variant => $crate::convert::enums!(@wire $name $variant $($wire)?) as i32),*
                }
            }
            fn take(wire: i32) -> Result<Self, $crate::convert::Invalid> {
                $(if wire == $crate::convert::enums!(@wire $name $variant $($wire)?) as i32 {
                    return Ok(Self::$variant);
                })*
                Err($crate::convert::Problem::UnknownValue(wire).of(""))
            }
        }
        impl From<model::$name> for $crate::types::$name {
            fn from(from: model::$name) -> Self {
                match from {
                    $(model::$name::$variant => $crate::convert::enums!(@wire $name $variant $($wire)?)),*
                }
            }
        }
        impl TryFrom<$crate::types::$name> for model::$name {
            type Error = $crate::convert::Invalid;
            fn try_from(wire: $crate::types::$name) -> Result<Self, $crate::convert::Invalid> {
                $crate::convert::Field::take(wire as i32)
            }
        }
    )*};
    (@wire $name:ident $variant:ident) => { $crate::types::$name::$variant };
    (@wire $name:ident $variant:ident $wire:ident) => { $crate::types::$name::$wire };
}

pub(crate) use {enums, message, messages, public};
