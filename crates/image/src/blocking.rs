//! Work that may block, off the threads of the asynchronous runtime.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};

/// Runs `work` on a thread of its own; what it is doing it finishes even if nobody waits any more.
///
/// As [`spawn_blocking`], but there are a hundred kinds of work, and everything about a task is compiled anew (3 KB) for
/// each type that it is made of: here all are of one, and waiting for it knows of the result alone.
pub fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Blocking<T> {
    let result = Arc::new(Mutex::new(None));
    let place = Arc::clone(&result);
    let work: Box<dyn FnOnce() + Send> = Box::new(move || {
        let done = work();
        *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
    });
    Blocking { work: spawn_blocking(work), result }
}

/// Work that has begun. Ends with what it returned, or with an error: it panicked, or the runtime ended before it began.
#[derive(Debug)]
#[must_use = "whether it went well is not known before it was waited for"]
pub struct Blocking<T> {
    work: JoinHandle<()>,
    result: Arc<Mutex<Option<T>>>,
}

impl<T> Future for Blocking<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = ready!(Pin::new(&mut self.work).poll(context));
        Poll::Ready(ended.map(|()| {
            let done = self.result.lock().unwrap_or_else(PoisonError::into_inner).take();
            done.expect("work that has ended without a panic has left its result")
        }))
    }
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
