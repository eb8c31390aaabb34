//! Patterns over paths and texts: `.dockerignore`, sources of COPY, `${name#pattern}`. One matcher for all three: the
//! pattern becomes a list of states, the text walks over all of them at once, so no pattern takes more than
//! (length of the pattern) x (length of the text) steps.
//!
//! *Source:* moby `patternmatcher`, Go `path/filepath.Match`, Docker's documentation of `.dockerignore`.

/// A pattern that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern \"{0}\"")]
pub struct InvalidPattern(pub String);

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
        let invalid = || InvalidPattern(text.to_owned());
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
    pub(super) fn ends<'a>(&'a self, text: &'a str) -> impl Iterator<Item = usize> + 'a {
        let mut active = vec![false; self.states.len() + 1];
        active[0] = true;
        self.close(&mut active);
        let first = active[self.states.len()].then_some(0);
        first.into_iter().chain(text.char_indices().filter_map(move |(at, c)| {
            active = self.step(&active, c);
            active[self.states.len()].then_some(at + c.len_utf8())
        }))
    }

    /// Adds the states that are reached without a character.
    fn close(&self, active: &mut [bool]) {
        for at in 0..self.states.len() {
            if !active[at] {
                continue;
            }
            match self.states[at] {
                State::Many { .. } => active[at + 1] = true,
                State::Optional => (active[at + 1], active[at + 2]) = (true, true),
                State::One(_) | State::AnyOne { .. } | State::Class { .. } | State::Folder => {}
            }
        }
    }

    fn step(&self, active: &[bool], c: char) -> Vec<bool> {
        let mut next = vec![false; active.len()];
        for at in (0..self.states.len()).filter(|at| active[*at]) {
            match &self.states[at] {
                State::One(wanted) => next[at + 1] |= *wanted == c,
                State::AnyOne { slash } => next[at + 1] |= *slash || c != '/',
                State::Class { negated, ranges } => {
                    next[at + 1] |=
                        c != '/' && ranges.iter().any(|(from, to)| (*from..=*to).contains(&c)) != *negated;
                }
                State::Many { slash } => next[at] |= *slash || c != '/',
                State::Optional => {}
                State::Folder => {
                    next[at] = true;
                    next[at + 1] |= c == '/';
                }
            }
        }
        self.close(&mut next);
        next
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
        for text in patterns {
            let text = text.trim();
            let (exception, text) = match text.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, text),
            };
            let text = crate::config::clean_path(text);
            let text = text.trim_start_matches('/');
            if text.is_empty() {
                continue;
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
        let parents = path.match_indices('/').map(|(at, _)| &path[..at]);
        let candidates: Vec<&str> = std::iter::once(path).chain(parents).collect();
        let mut ignored = false;
        for (exception, pattern) in &self.rules {
            if *exception == ignored && candidates.iter().any(|path| pattern.matches(path)) {
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
    }
}
