//! A persistent ordered map of shared objects: cloning is O(1), iteration order is the key order.

use std::{ops::RangeBounds, sync::Arc};

#[cfg(debug_assertions)]
thread_local! {
    static LOOKS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Returns how often this thread has looked into tables and indexes so far: one for each key that was asked for and each
/// object that was gone over. A test holds by it how work grows, which a clock on a loaded machine cannot tell. Counted
/// in debug builds only; 0 in others.
pub fn looks() -> u64 {
    #[cfg(debug_assertions)]
    return LOOKS.get();
    #[cfg(not(debug_assertions))]
    0
}

/// Counts one look.
#[inline]
pub(crate) fn look() {
    #[cfg(debug_assertions)]
    LOOKS.set(LOOKS.get() + 1);
}

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
        look();
        self.0.get(key)
    }

    pub fn contains(&self, key: &K) -> bool {
        look();
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
        self.0.values().inspect(|_| look())
    }

    pub fn range<R: RangeBounds<K>>(&self, range: R) -> impl Iterator<Item = (&K, &Arc<V>)> {
        self.0.range(range).inspect(|_| look())
    }

    pub(crate) fn insert(&mut self, key: K, value: Arc<V>) {
        self.0.insert_mut(key, value);
    }

    pub(crate) fn remove(&mut self, key: &K) {
        self.0.remove_mut(key);
    }
}
