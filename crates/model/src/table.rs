//! A persistent ordered map of shared objects: cloning is O(1), iteration order is the key order.

use std::{ops::RangeBounds, sync::Arc};

/// Objects by id.
#[derive(Clone)]
pub struct Table<K: Ord, V>(rpds::RedBlackTreeMapSync<K, Arc<V>>);

impl<K: Ord, V> Default for Table<K, V> {
    fn default() -> Self {
        Self(rpds::RedBlackTreeMapSync::new_sync())
    }
}

impl<K: Ord + std::fmt::Debug, V> std::fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl<K: Ord, V: PartialEq> PartialEq for Table<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<K: Ord + Clone, V> Table<K, V> {
    pub fn get(&self, key: &K) -> Option<&Arc<V>> {
        self.0.get(key)
    }

    pub fn contains(&self, key: &K) -> bool {
        self.0.contains_key(key)
    }

    pub fn len(&self) -> usize {
        self.0.size()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns all objects in key order.
    pub fn values(&self) -> impl Iterator<Item = &Arc<V>> {
        self.0.values()
    }

    pub fn range<R: RangeBounds<K>>(&self, range: R) -> impl Iterator<Item = (&K, &Arc<V>)> {
        self.0.range(range)
    }

    pub(crate) fn insert(&mut self, key: K, value: Arc<V>) {
        self.0.insert_mut(key, value);
    }

    pub(crate) fn remove(&mut self, key: &K) {
        self.0.remove_mut(key);
    }
}
