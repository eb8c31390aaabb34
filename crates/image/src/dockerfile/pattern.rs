//! Patterns over paths and texts: `.dockerignore`, sources of COPY, `${name#pattern}`. One matcher for all three: the
//! pattern becomes a list of states, the text walks over those of them that it has reached, once: no pattern takes more
//! than (length of the pattern) x (length of the text) steps, one without stars about as many as fit.
//!
//! *Source:* moby `patternmatcher`, Go `path/filepath.Match`, Docker's documentation of `.dockerignore`.

/// A pattern that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    #[error("syntax error in pattern \"{0}\"")]
    Syntax(String),
    #[error("a pattern of {0} bytes is longer than any path ({PATTERN_BYTES_MAX})")]
    Long(usize),
    #[error("the patterns are more than {PATTERNS_MAX} or {LIST_BYTES_MAX} bytes together")]
    Many,
}

/// *Limit* of one pattern. Source: Linux `PATH_MAX`.
const PATTERN_BYTES_MAX: usize = 4096;
/// *Limit* of a list of them: each is held against each file of a context.
const PATTERNS_MAX: usize = 10_000;
/// *Limit* of a list of patterns. *Unit:* bytes.
const LIST_BYTES_MAX: usize = 1 << 20;

/// One state of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    One(char),
    /// Any one character; of a path: but a slash.
    AnyOne {
        slash: bool,
    },
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    /// Any number of characters; of a path: but slashes.
    Many {
        slash: bool,
    },
    /// What follows, up to and with [`State::Folder`], may be left out.
    Optional,
    /// Any text that ends with a slash.
    Folder,
}

/// What the stars of a pattern stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One name of a path.
    Name,
    /// One name; `**` any number of them.
    Ignore,
    /// Any text.
    Text,
}

/// A pattern ready to be matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    states: Vec<State>,
}

impl Pattern {
    /// Reads the pattern of a source of COPY. *Source:* Go `filepath.Match`.
    ///
    /// # Errors
    /// A class without end, or a backslash at the end.
    pub fn of_path(text: &str) -> Result<Self, InvalidPattern> {
        Self::read(text, Kind::Name)
    }

    /// Reads a pattern over any text, as shells have them in `${name#pattern}`.
    ///
    /// # Errors
    /// As [`Pattern::of_path`].
    pub(super) fn of_text(text: &str) -> Result<Self, InvalidPattern> {
        Self::read(text, Kind::Text)
    }

    fn read(text: &str, kind: Kind) -> Result<Self, InvalidPattern> {
        if text.len() > PATTERN_BYTES_MAX {
            return Err(InvalidPattern::Long(text.len()));
        }
        let invalid = || InvalidPattern::Syntax(text.to_owned());
        let mut states = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '*' if kind == Kind::Ignore && chars.peek() == Some(&'*') => {
                    chars.next();
                    if chars.peek() == Some(&'/') {
                        chars.next();
                    }
                    if chars.peek().is_none() {
                        states.push(State::Many { slash: true });
                    } else {
                        states.extend([State::Optional, State::Folder]);
                    }
                }
                '*' => states.push(State::Many { slash: kind == Kind::Text }),
                '?' => states.push(State::AnyOne { slash: kind == Kind::Text }),
                '\\' => states.push(State::One(chars.next().ok_or_else(invalid)?)),
                '[' => states.push(class(&mut chars).ok_or_else(invalid)?),
                c => states.push(State::One(c)),
            }
        }
        Ok(Self { states })
    }

    /// Returns true if the whole text fits.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.ends(text).last() == Some(text.len())
    }

    /// Returns the lengths (*unit:* bytes) of all beginnings of the text that fit, shortest first.
    ///
    /// Only the states that the text has reached cost something: of a pattern without stars that is one.
    pub(super) fn ends<'a>(&'a self, text: &'a str) -> impl Iterator<Item = usize> + 'a {
        let end = self.states.len();
        let mut active = Reached::default();
        self.reach(0, &mut active);
        let first = active.is(end).then_some(0);
        let mut next = Reached::default();
        let mut chars = text.char_indices();
        first.into_iter().chain(std::iter::from_fn(move || {
            while !active.0.is_empty() {
                let (at, c) = chars.next()?;
                self.step(&active, c, &mut next);
                std::mem::swap(&mut active, &mut next);
                if active.is(end) {
                    return Some(at + c.len_utf8());
                }
            }
            None
        }))
    }

    /// Adds a state and those that are reached from it without a character.
    fn reach(&self, at: usize, active: &mut Reached) {
        if !active.add(at) {
            return;
        }
        match self.states.get(at) {
            Some(State::Many { .. }) => self.reach(at + 1, active),
            Some(State::Optional) => {
                self.reach(at + 1, active);
                self.reach(at + 2, active);
            }
            Some(State::One(_) | State::AnyOne { .. } | State::Class { .. } | State::Folder) | None => {}
        }
    }

    fn step(&self, active: &Reached, c: char, next: &mut Reached) {
        next.0.clear();
        for &at in &active.0 {
            let Some(state) = self.states.get(at) else { continue };
            let (stays, goes_on) = match state {
                State::One(wanted) => (false, *wanted == c),
                State::AnyOne { slash } => (false, *slash || c != '/'),
                State::Class { negated, ranges } => (
                    false,
                    c != '/' && ranges.iter().any(|(from, to)| (*from..=*to).contains(&c)) != *negated,
                ),
                State::Many { slash } => (*slash || c != '/', false),
                State::Optional => (false, false),
                State::Folder => (true, c == '/'),
            };
            if stays {
                self.reach(at, next);
            }
            if goes_on {
                self.reach(at + 1, next);
            }
        }
    }
}

/// The states that a text has reached, in order.
#[derive(Debug, Default)]
struct Reached(Vec<usize>);

impl Reached {
    /// Adds a state; `false` if it is there. States come nearly in order, so it is found at the end.
    fn add(&mut self, at: usize) -> bool {
        match self.0.binary_search(&at) {
            Ok(_) => false,
            Err(place) => {
                self.0.insert(place, at);
                true
            }
        }
    }

    fn is(&self, at: usize) -> bool {
        self.0.last() == Some(&at)
    }
}

/// Reads `a-z]`, `^abc]`.
fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<State> {
    let negated = chars.next_if(|c| matches!(c, '^' | '!')).is_some();
    let mut ranges = Vec::new();
    let one = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| match chars.next()? {
        '\\' => chars.next(),
        c => Some(c),
    };
    loop {
        if !ranges.is_empty() && chars.next_if_eq(&']').is_some() {
            return Some(State::Class { negated, ranges });
        }
        let from = one(chars)?;
        let to = if chars.next_if_eq(&'-').is_some() { one(chars)? } else { from };
        ranges.push((from, to));
    }
}

/// The lines of a `.dockerignore`, or the patterns of `COPY --exclude`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IgnoreList {
    rules: Vec<(bool, Pattern)>,
    exceptions: bool,
}

impl IgnoreList {
    /// Reads the content of a `.dockerignore`.
    ///
    /// # Errors
    /// The first pattern that cannot be read.
    pub fn parse(content: &str) -> Result<Self, InvalidPattern> {
        let lines = content.trim_start_matches('\u{feff}').lines().filter(|line| !line.starts_with('#'));
        Self::new(lines)
    }

    /// Reads patterns; a leading `!` makes an exception of what came before.
    ///
    /// # Errors
    /// As [`IgnoreList::parse`].
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidPattern> {
        let mut list = Self::default();
        let mut bytes = 0;
        for text in patterns {
            let text = text.trim();
            let (exception, text) = match text.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, text),
            };
            let text = super::values::clean_path(text);
            let text = text.trim_start_matches('/');
            if text.is_empty() {
                continue;
            }
            bytes += text.len();
            if list.rules.len() >= PATTERNS_MAX || bytes > LIST_BYTES_MAX {
                return Err(InvalidPattern::Many);
            }
            list.exceptions |= exception;
            list.rules.push((exception, Pattern::read(text, Kind::Ignore)?));
        }
        Ok(list)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Returns true if nothing below an ignored folder can come back.
    #[must_use]
    pub fn prunes(&self) -> bool {
        !self.exceptions
    }

    /// Returns true if a path (relative, with slashes) or a folder on the way to it is left out.
    #[must_use]
    pub fn ignores(&self, path: &str) -> bool {
        let folder_or_all = |end: usize| end == path.len() || path[end..].starts_with('/');
        let mut ignored = false;
        for (exception, pattern) in &self.rules {
            if *exception == ignored && pattern.ends(path).any(folder_or_all) {
                ignored = !exception;
            }
        }
        ignored
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_ignored(list: &str, ignored: &str, kept: &str) {
        let list = IgnoreList::parse(list).unwrap();
        for path in ignored.split_whitespace() {
            assert!(list.ignores(path), "{path} should be left out");
        }
        for path in kept.split_whitespace() {
            assert!(!list.ignores(path), "{path} should stay");
        }
    }

    #[test]
    fn dockerignore_means_what_docker_says_it_means() {
        check_ignored("*/temp*", "some/temp some/temporary.txt some/temp/deep", "temp a/b/temp");
        check_ignored("*/*/temp*", "a/b/temp a/b/tempo", "a/temp temp");
        check_ignored("temp?", "tempa tempb/x", "temp tempab a/tempa");
        check_ignored("**/*.go", "x.go a/x.go a/b/x.go", "x.goo go");
        check_ignored("**", "a a/b .x", "");
        check_ignored("a/**", "a/b a/b/c", "b ab");
        check_ignored("a/**/z", "a/z a/b/z a/b/c/z a/z/y", "a/b z");
        check_ignored("*.md\n!README.md", "x.md", "README.md docs/x.md");
        check_ignored(
            "*.md\n!README*.md\nREADME-secret.md",
            "x.md README-secret.md",
            "README.md README-x.md",
        );
        check_ignored("*.md\nREADME-secret.md\n!README*.md", "x.md", "README.md README-secret.md");
        check_ignored("/node_modules/\n", "node_modules node_modules/a", "a/node_modules");
        check_ignored("# node\n./a\nb/../c\n\n .git ", "a c .git .git/config", "b node");
        check_ignored("[a-c]x\n\\[d]", "ax bx [d]", "dx d");
        check_ignored("[^a]x", "bx", "ax x");
        check_ignored("*\n!keep", "a b/c", "keep keep/this");
        assert!(IgnoreList::parse("[a").is_err());
        assert!(!IgnoreList::parse("*\n!a").unwrap().prunes());
    }

    #[test]
    fn path_patterns_stay_within_a_name() {
        let fits = |pattern: &str, text: &str| Pattern::of_path(pattern).unwrap().matches(text);
        assert!(fits("*.txt", "a.txt") && fits("a?c", "abc") && fits("d/*.c", "d/x.c") && fits("**", "abc"));
        assert!(!fits("*.txt", "d/a.txt") && !fits("a?c", "a/c") && !fits("d*", "d/x"));
        assert!(fits("a\\*", "a*") && !fits("a\\*", "ab"));
        assert!(Pattern::of_path("a\\").is_err());
    }

    #[test]
    fn no_pattern_takes_for_ever() {
        let pattern = Pattern::of_path(&"*a".repeat(200)).unwrap();
        assert!(!pattern.matches(&"a".repeat(2000).replace('a', "ab")));
        // Each folder on the way is judged in the same walk, and a name that does not begin so costs one step.
        let deep = "a/".repeat(2000) + "x";
        let rules = (0..200).map(|n| format!("{}{n}", "b".repeat(4000))).collect::<Vec<_>>();
        let list = IgnoreList::new(rules.iter().map(String::as_str)).unwrap();
        assert!((0..100).all(|_| !list.ignores(&deep)));
        let stars = IgnoreList::new(["***/".repeat(100).as_str(), &"*".repeat(400)]).unwrap();
        assert!(stars.ignores(&deep));
    }

    #[test]
    fn what_is_longer_than_a_path_or_too_many_is_refused() {
        assert_eq!(Pattern::of_path(&"a".repeat(5000)), Err(InvalidPattern::Long(5000)));
        for lines in ["a\n".repeat(20_000), format!("{}\n", "b".repeat(4000)).repeat(300)] {
            assert_eq!(IgnoreList::parse(&lines), Err(InvalidPattern::Many));
        }
    }
}
