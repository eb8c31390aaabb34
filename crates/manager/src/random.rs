//! New ids.

use tonic::Status;

/// Returns 128 random bits: a new id.
///
/// # Errors
/// The system has none to give.
pub(crate) fn random_id() -> Result<u128, Status> {
    ids()()
}

/// Returns what draws ids, on whatever thread it is asked.
pub(crate) fn ids() -> impl FnMut() -> Result<u128, Status> + Send + 'static {
    #[cfg(test)]
    let lot = drawn::here();
    move || {
        #[cfg(test)]
        if let Some(lot) = &lot {
            return Ok(lot.draw());
        }
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|e| Status::internal(format!("no randomness: {e}")))?;
        Ok(u128::from_be_bytes(bytes))
    }
}

/// Ids that follow from a seed, for a simulation on one thread.
#[cfg(test)]
pub(crate) mod drawn {
    use std::{
        cell::RefCell,
        sync::{Arc, Mutex, PoisonError},
    };

    thread_local! {
        static HERE: RefCell<Option<Lot>> = const { RefCell::new(None) };
    }

    #[derive(Debug, Clone)]
    pub(crate) struct Lot(Arc<Mutex<u64>>);

    impl Lot {
        pub(super) fn draw(&self) -> u128 {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let mut half = || {
                *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
                let mut mixed = *state;
                mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
                u128::from(mixed ^ (mixed >> 31))
            };
            (half() << 64) | half()
        }
    }

    pub(super) fn here() -> Option<Lot> {
        HERE.with_borrow(Clone::clone)
    }

    /// Has all ids of this thread drawn by this seed from now on.
    pub(crate) fn by(seed: u64) {
        HERE.set(Some(Lot(Arc::new(Mutex::new(seed)))));
    }
}
