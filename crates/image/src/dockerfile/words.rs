//! Words of a Dockerfile: quotes, escapes and `${variables}`, as its `ENV COPY LABEL ...` have them.
//!
//! *Source:* BuildKit `frontend/dockerfile/shell/lex.go`, Docker's Dockerfile reference "Environment replacement".

use super::pattern::Pattern;

/// *Limit* of how deep `${a:-${b:-..}}` nests.
const DEPTH_MAX: usize = 64;
/// *Limit* of what the variables of one text become together: each of `ENV A=$A$A` doubles it. *Unit:* bytes.
const EXPANDED_MAX: usize = 1 << 20;

/// *Limit* of the steps that a pattern takes on a variable, which is tried at each place of it.
const STEPS_MAX: usize = 1 << 27;

/// Looks a variable up.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// How words are read.
#[derive(Clone, Copy)]
pub(super) struct Words<'a> {
    pub(super) escape: char,
    pub(super) lookup: Lookup<'a>,
    /// Quotes and escapes stay, and so do variables that are not set.
    pub(super) raw: bool,
}

impl Words<'_> {
    /// Returns the text as one word, blanks included.
    pub(super) fn one(self, text: &str) -> Result<String, String> {
        Ok(self.process(text)?.0)
    }

    /// Returns the words; an unquoted variable may become several, or none.
    pub(super) fn many(self, text: &str) -> Result<Vec<String>, String> {
        Ok(self.process(text)?.1)
    }

    fn process(self, text: &str) -> Result<(String, Vec<String>), String> {
        let mut scanner =
            Scanner { words: self, chars: text.chars().collect(), at: 0, depth: 0, expanded: 0 };
        let shown: String = text.chars().take(200).collect();
        scanner.until(None, self.raw).map_err(|reason| format!("failed to process \"{shown}\": {reason}"))
    }
}

/// Splits at blanks outside quotes; everything stays in the words as it is written.
pub(super) fn split(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            words.extend(word.take());
            continue;
        }
        let word = word.get_or_insert_default();
        word.push(c);
        match (c, quote) {
            // Within single quotes nothing is escaped.
            (c, None | Some('"')) if c == escape => word.extend(chars.next()),
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => quote = Some(c),
            _ => {}
        }
    }
    words.extend(word);
    words
}

struct Scanner<'a> {
    words: Words<'a>,
    chars: Vec<char>,
    at: usize,
    /// Of variables that are being read.
    depth: usize,
    /// What variables have become so far. *Unit:* bytes.
    expanded: usize,
}

#[derive(Default)]
struct Collected {
    words: Vec<String>,
    word: String,
}

impl Collected {
    fn split(&mut self, text: &str) {
        for c in text.chars() {
            if !c.is_whitespace() {
                self.word.push(c);
            } else if !self.word.is_empty() {
                self.words.push(std::mem::take(&mut self.word));
            }
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.words.push(self.word);
        }
        self.words
    }
}

impl Scanner<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek();
        self.at += usize::from(c.is_some());
        c
    }

    /// Reads up to `stop` or, without one, to the end.
    fn until(&mut self, stop: Option<char>, raw_escapes: bool) -> Result<(String, Vec<String>), String> {
        let (mut text, mut collected) = (String::new(), Collected::default());
        while let Some(c) = self.peek() {
            if stop == Some(c) {
                self.at += 1;
                return Ok((text, collected.finish()));
            }
            match c {
                '\'' | '"' => {
                    let quoted = if c == '"' { self.double_quoted()? } else { self.single_quoted()? };
                    collected.word.push_str(&quoted);
                    text.push_str(&quoted);
                }
                '$' => {
                    let value = self.dollar()?;
                    collected.split(&value);
                    text.push_str(&value);
                }
                _ => {
                    self.at += 1;
                    if c != self.words.escape {
                        collected.split(c.encode_utf8(&mut [0; 4]));
                        text.push(c);
                        continue;
                    }
                    let kept = raw_escapes.then_some(c);
                    for c in kept.into_iter().chain(self.next()) {
                        collected.word.push(c);
                        text.push(c);
                    }
                }
            }
        }
        match stop {
            Some(stop) => Err(format!("unexpected end of statement while looking for matching {stop}")),
            None => Ok((text, collected.finish())),
        }
    }

    fn single_quoted(&mut self) -> Result<String, String> {
        self.at += 1;
        let mut text = String::new();
        loop {
            match self.next() {
                Some('\'') => break,
                Some(c) => text.push(c),
                None => {
                    return Err("unexpected end of statement while looking for matching single-quote".into());
                }
            }
        }
        Ok(if self.words.raw { format!("'{text}'") } else { text })
    }

    fn double_quoted(&mut self) -> Result<String, String> {
        self.at += 1;
        let mut text = String::new();
        loop {
            match self.peek() {
                Some('"') => {
                    self.at += 1;
                    break;
                }
                Some('$') => text.push_str(&self.dollar()?),
                Some(c) => {
                    self.at += 1;
                    let mut taken = c;
                    if c == self.words.escape {
                        if self.words.raw {
                            text.push(c);
                        }
                        match self.peek() {
                            Some(next) if matches!(next, '"' | '$') || next == c => {
                                self.at += 1;
                                taken = next;
                            }
                            _ if self.words.raw => continue,
                            _ => {}
                        }
                    }
                    text.push(taken);
                }
                None => {
                    return Err("unexpected end of statement while looking for matching double-quote".into());
                }
            }
        }
        Ok(if self.words.raw { format!("\"{text}\"") } else { text })
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.peek() {
            let fits = match name.chars().next() {
                None => {
                    c == '_'
                        || c.is_ascii_alphanumeric()
                        || matches!(c, '@' | '*' | '#' | '?' | '-' | '$' | '!')
                }
                Some(first) if first.is_ascii_digit() => c.is_ascii_digit(),
                Some(first) if first == '_' || first.is_ascii_alphabetic() => {
                    c == '_' || c.is_ascii_alphanumeric()
                }
                Some(_) => false,
            };
            if !fits {
                break;
            }
            name.push(c);
            self.at += 1;
        }
        name
    }

    /// Reads a variable and returns what it becomes.
    fn dollar(&mut self) -> Result<String, String> {
        if self.depth == DEPTH_MAX {
            return Err(format!("variables nest deeper than {DEPTH_MAX}"));
        }
        self.depth += 1;
        let value = self.variable()?;
        self.depth -= 1;
        self.expanded += value.len();
        if self.expanded > EXPANDED_MAX {
            return Err(too_large());
        }
        Ok(value)
    }

    fn variable(&mut self) -> Result<String, String> {
        self.at += 1;
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            let unset = || if self.words.raw { format!("${name}") } else { String::new() };
            return Ok((self.words.lookup)(&name).unwrap_or_else(unset));
        }
        self.at += 1;
        match self.peek() {
            None => return Err("syntax error: missing '}'".into()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".into()),
            Some(_) => {}
        }
        let name = self.name();
        let value = (self.words.lookup)(&name);
        let mut modifier = self.next();
        let or_empty = modifier == Some(':');
        if or_empty {
            modifier = self.next();
        }
        let set = value.clone().filter(|value| !(or_empty && value.is_empty()));
        match modifier {
            Some('}') if !or_empty => {
                let unset = || if self.words.raw { format!("${{{name}}}") } else { String::new() };
                Ok(value.unwrap_or_else(unset))
            }
            Some('-') => {
                let word = self.until(Some('}'), false)?.0;
                Ok(set.unwrap_or(word))
            }
            Some('+') => {
                let word = self.until(Some('}'), false)?.0;
                Ok(set.map(|_| word).unwrap_or_default())
            }
            Some('?') => {
                let word = self.until(Some('}'), false)?.0;
                let reason = if word.is_empty() { "is not allowed to be unset".to_owned() } else { word };
                set.ok_or(format!("{name}: {reason}"))
            }
            Some(side @ ('#' | '%')) if !or_empty => {
                let word = self.until(Some('}'), true)?.0;
                cut(&value.unwrap_or_default(), &word, side)
            }
            Some('/') if !or_empty => {
                let all = self.peek() == Some('/');
                self.at += usize::from(all);
                let pattern = self.until(Some('/'), true)?.0;
                let with = self.until(Some('}'), true)?.0;
                replace(&value.unwrap_or_default(), &pattern, &with, all)
            }
            Some(c) => Err(format!("unsupported modifier ({c}) in substitution")),
            None => Err("syntax error: missing '}'".into()),
        }
    }
}

fn too_large() -> String {
    format!("variables become more than {EXPANDED_MAX} bytes")
}

fn check_steps(value: &str, pattern: &str) -> Result<(), String> {
    let steps = value.len().saturating_mul(value.len()).saturating_mul(pattern.len().max(1));
    if steps > STEPS_MAX { Err("the variable is too long for the pattern".into()) } else { Ok(()) }
}

/// `${name#pattern}`, `##`, `%`, `%%`.
fn cut(value: &str, word: &str, side: char) -> Result<String, String> {
    let longest = word.starts_with(side);
    let pattern = Pattern::of_text(if longest { &word[1..] } else { word }).map_err(|e| e.to_string())?;
    if side == '#' {
        if value.len().saturating_mul(word.len()) > STEPS_MAX {
            return Err("the variable is too long for the pattern".into());
        }
        let mut ends = pattern.ends(value);
        let end = if longest { ends.last() } else { ends.next() };
        return Ok(value[end.unwrap_or(0)..].to_owned());
    }
    check_steps(value, word)?;
    let mut starts = value.char_indices().map(|(at, _)| at).chain([value.len()]);
    let fits = |at: &usize| pattern.matches(&value[*at..]);
    let start = if longest { starts.find(fits) } else { starts.rfind(fits) };
    Ok(value[..start.unwrap_or(value.len())].to_owned())
}

/// `${name/pattern/with}`, `${name//pattern/with}`.
fn replace(value: &str, pattern: &str, with: &str, all: bool) -> Result<String, String> {
    check_steps(value, pattern)?;
    let pattern = Pattern::of_text(pattern).map_err(|e| e.to_string())?;
    let (mut text, mut rest, mut done) = (String::new(), value, false);
    while let Some(c) = rest.chars().next() {
        match pattern.ends(rest).last().filter(|end| *end > 0 && (all || !done)) {
            Some(end) => {
                text.push_str(with);
                if text.len() > EXPANDED_MAX {
                    return Err(too_large());
                }
                rest = &rest[end..];
                done = true;
            }
            None => {
                text.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(raw: bool) -> Words<'static> {
        let lookup: Lookup<'static> = &|name| match name {
            "A" => Some("a".into()),
            "EMPTY" => Some(String::new()),
            "LIST" => Some("x y".into()),
            "PATHS" => Some("/usr/bin:/bin:/usr".into()),
            "FILE" => Some("a.tar.gz".into()),
            _ => None,
        };
        Words { escape: '\\', lookup, raw }
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(words(false).one(text).as_deref(), Ok(expected), "{text}");
    }

    #[test]
    fn nothing_that_is_written_down_grows_without_bounds() {
        let nested = format!("{}x{}", "${N:-".repeat(200_000), "}".repeat(200_000));
        assert!(words(false).one(&nested).unwrap_err().contains("nest deeper"));
        let long = "x".repeat(300_000);
        let lookup: Lookup<'_> = &|_| Some(long.clone());
        let words = Words { escape: '\\', lookup, raw: false };
        assert_eq!(words.one("$A$A$A").unwrap().len(), 900_000);
        assert!(words.one("$A$A$A$A").unwrap_err().contains("become more than"));
        assert!(words.one("${A//x/yyyyyyyy}").unwrap_err().contains("too long"));
        assert!(words.one("${A%%*y}").unwrap_err().contains("too long"));
    }

    #[test]
    fn variables_quotes_and_escapes() {
        check("$A/${A}b$Ab", "a/ab");
        check("'$A' \"$A\" \\$A", "$A a $A");
        check("\"a\\\"b\\n\\\\\"", "a\"b\\n\\");
        check("${NONE:-x}${A:-x}${EMPTY:-x}${EMPTY-x}", "xax");
        check("${NONE:+x}${A:+x}${EMPTY:+x}${EMPTY+y}", "xy");
        check("${NONE:-${A}}${NONE-'$A'}", "a$A");
        check("100$ $ ${A}$", "100$ $ a$");
        check("${FILE%.*} ${FILE%%.*} ${FILE#*.} ${FILE##*.}", "a.tar a tar.gz gz");
        check("${PATHS/usr/opt} ${PATHS//usr/opt}", "/opt/bin:/bin:/usr /opt/bin:/bin:/opt");
        check("a\\", "a");
        for bad in ["${A", "${}", "'a", "\"a", "${A:x}", "${NONE:?}", "${A:#x}", "${A/x}"] {
            assert!(words(false).one(bad).is_err(), "{bad}");
        }
        let error = words(false).one("${NONE:?must be given}").unwrap_err();
        assert!(error.ends_with("NONE: must be given"), "{error}");
    }

    #[test]
    fn an_unquoted_variable_may_be_several_words() {
        assert_eq!(
            words(false).many("$LIST '$LIST' \"$LIST\" b\\ c $EMPTY").unwrap(),
            ["x", "y", "$LIST", "x y", "b c"]
        );
        assert_eq!(
            words(true).many("a '$A b' $NONE \"x\\\"y\"").unwrap(),
            ["a", "'$A b'", "$NONE", "\"x\\\"y\""]
        );
    }

    #[test]
    fn splitting_keeps_what_is_written() {
        assert_eq!(split("a=\"b c\"  d='e f'\tg=h\\ i", '\\'), ["a=\"b c\"", "d='e f'", "g=h\\ i"]);
        assert!(split("  ", '\\').is_empty());
    }
}
