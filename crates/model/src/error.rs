//! How errors read, and panics that end one thing instead of a whole process.

use std::{
    any::Any,
    error::Error,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
};

/// Returns an error with its causes: `a: b: c`. Some causes are in their consequence's text already, and are not
/// said twice.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// A panic that was caught.
pub struct Panicked(pub Box<dyn Any + Send>);

impl std::fmt::Display for Panicked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = self.0.downcast_ref::<&str>().copied();
        let text = text.or_else(|| self.0.downcast_ref::<String>().map(String::as_str));
        write!(f, "panicked: {}", text.unwrap_or("(without a text)"))
    }
}

impl std::fmt::Debug for Panicked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Panicked({self})")
    }
}

impl Error for Panicked {}

/// Carries a future out, and returns what it returns or how it panicked.
///
/// # Errors
/// It panicked. Whatever it shared with others may be half changed: who goes on must begin anew with it.
pub async fn caught<T>(future: impl Future<Output = T>) -> Result<T, Panicked> {
    let mut future = pin!(future);
    std::future::poll_fn(move |context| {
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(payload) => Poll::Ready(Err(Panicked(payload))),
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt;

    #[derive(Debug)]
    struct Said(&'static str, Option<Box<Said>>);

    impl fmt::Display for Said {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Said {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|cause| cause as _)
        }
    }

    #[test]
    fn each_cause_is_said_once() {
        let of = |text, cause| Said(text, Some(Box::new(cause)));
        let error = of("cannot reach a", of("DNS error: no such name", Said("no such name", None)));
        assert_eq!(with_causes(&error), "cannot reach a: DNS error: no such name");
        assert_eq!(with_causes(&Said("alone", None)), "alone");
    }

    #[test]
    fn a_panic_is_caught_with_its_words() {
        fn end_of(future: impl Future<Output = u8>) -> Result<u8, String> {
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            match pin!(caught(future)).poll(&mut context) {
                Poll::Ready(outcome) => outcome.map_err(|p| p.to_string()),
                Poll::Pending => unreachable!("it waits for nothing"),
            }
        }
        assert_eq!(end_of(async { 7 }), Ok(7));
        assert_eq!(end_of(async { panic!("number {}", 7) }), Err("panicked: number 7".to_owned()));
    }
}
