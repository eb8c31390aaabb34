//! The time of this host.

use model::Timestamp;

/// Returns the time of day as this host has it: for what is shown, and for the lives of certificates.
pub(crate) fn clock() -> Timestamp {
    Timestamp(sys::clock::nanos())
}
