//! Long lists.

use serde::{Serialize, Serializer};

/// A list whose rows are made one by one while it is written: a thousand containers are megabytes at once.
pub(super) struct Rows<T, F>(pub(super) Vec<T>, pub(super) F);

impl<T, Row: Serialize, F: Fn(&T) -> Row> Serialize for Rows<T, F> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.iter().map(&self.1))
    }
}
