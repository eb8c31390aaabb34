//! Work that may block, off the threads of the asynchronous runtime.

use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::{JoinError, spawn_blocking};

/// Runs `work` on a thread of its own; what it is doing it finishes even if nobody waits any more.
///
/// As [`spawn_blocking`], but there are a hundred kinds of work, and everything about a task is compiled anew (3 KB) for
/// each type that it is made of: here all are of one.
///
/// # Errors
/// It panicked, or the runtime ended before it began.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    let result = Arc::new(Mutex::new(None));
    let place = Arc::clone(&result);
    let work: Box<dyn FnOnce() + Send> = Box::new(move || {
        let done = work();
        *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
    });
    spawn_blocking(work).await?;
    let done = result.lock().unwrap_or_else(PoisonError::into_inner).take();
    Ok(done.expect("work that has ended without a panic has left its result"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_returns_its_result_and_a_panic_stays_one() {
        assert_eq!(blocking(|| 7).await.unwrap(), 7);
        assert!(blocking(|| -> u8 { panic!("as it should") }).await.unwrap_err().is_panic());
    }
}
