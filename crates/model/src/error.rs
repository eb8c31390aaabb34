//! How errors read.

use std::error::Error;

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
}
