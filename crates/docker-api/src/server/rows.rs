//! Long lists.

use crate::types::{Text, Written};

/// A list whose rows are made one by one while it is written: a thousand containers are megabytes at once.
pub(super) struct Rows<T, F>(pub(super) Vec<T>, pub(super) F);

impl<T, F: Fn(&T, &mut Text)> Written for Rows<T, F> {
    fn write(&self, to: &mut Text) {
        to.list(&self.0, |to, item| self.1(item, to));
    }
}
