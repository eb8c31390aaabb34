//! Text -> text between actions, and the tokens of each action. Source: Go's `text/template/parse/lex.go`.

use crate::Error;
use serde_json::{Number, Value};

/// A piece of a template.
#[derive(Debug)]
pub(crate) enum Piece {
    Text(String),
    Action { line: usize, tokens: Vec<Token> },
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    /// Between two operands; `.A .B` is not `.A.B`.
    Space,
    Open,
    Close,
    Pipe,
    Comma,
    Declare,
    Assign,
    Dot,
    Field(String),
    /// With its `$`.
    Variable(String),
    Word(String),
    Literal(Value),
}

/// What Go trims beside `{{-` and `-}}`.
const BLANK: [char; 4] = [' ', '\t', '\r', '\n'];

/// Cuts a template into its pieces.
///
/// # Errors
/// An action or a comment is not closed, or holds what is no token.
pub(crate) fn pieces(text: &str) -> Result<Vec<Piece>, Error> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim_next = false;
    let line_at = |rest: &str| 1 + text[..text.len() - rest.len()].matches('\n').count();
    loop {
        let (before, action) = match rest.find("{{") {
            Some(at) => (&rest[..at], Some(&rest[at + 2..])),
            None => (rest, None),
        };
        let mut before = if trim_next { before.trim_start_matches(BLANK) } else { before };
        let trims = action
            .is_some_and(|action| action.strip_prefix('-').is_some_and(|after| after.starts_with(BLANK)));
        if trims {
            before = before.trim_end_matches(BLANK);
        }
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        let Some(action) = action else { return Ok(pieces) };
        let line = line_at(action);
        let failed = |why: String| Error::Parse { line, why };
        let action = if trims { &action[1..] } else { action };
        if let Some(comment) = action.trim_start_matches(BLANK).strip_prefix("/*") {
            let Some((_, after)) = comment.split_once("*/") else {
                return Err(failed("unclosed comment".to_owned()));
            };
            (rest, trim_next) =
                match (after.strip_prefix("}}"), after.trim_start_matches(BLANK).strip_prefix("-}}")) {
                    (Some(rest), _) => (rest, false),
                    (None, Some(rest)) => (rest, true),
                    (None, None) => return Err(failed("comment ends before closing delimiter".to_owned())),
                };
            continue;
        }
        let (tokens, after, trim) = tokens(action).map_err(failed)?;
        pieces.push(Piece::Action { line, tokens });
        (rest, trim_next) = (after, trim);
    }
}

/// Reads the tokens of one action; returns too what is behind it, and whether blanks go there.
fn tokens(action: &str) -> Result<(Vec<Token>, &str, bool), String> {
    let mut tokens = Vec::new();
    let mut rest = action;
    loop {
        let blanks = rest.len() - rest.trim_start_matches(BLANK).len();
        if blanks > 0 {
            if let Some(after) = rest[blanks..].strip_prefix("-}}") {
                return Ok((tokens, after, true));
            }
            rest = &rest[blanks..];
            tokens.push(Token::Space);
        }
        if let Some(after) = rest.strip_prefix("}}") {
            return Ok((tokens, after, false));
        }
        let Some(first) = rest.chars().next() else { return Err("unclosed action".to_owned()) };
        let (token, taken) = match first {
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            '|' => (Token::Pipe, 1),
            ',' => (Token::Comma, 1),
            ':' if rest.starts_with(":=") => (Token::Declare, 2),
            '=' => (Token::Assign, 1),
            '"' => quoted(rest)?,
            '\'' => character(rest)?,
            '`' => match rest[1..].split_once('`') {
                Some((raw, _)) => (Token::Literal(raw.into()), raw.len() + 2),
                None => return Err("unterminated raw quoted string".to_owned()),
            },
            '$' => {
                let name = name(&rest[1..]);
                (Token::Variable(format!("${name}")), 1 + name.len())
            }
            '.' if rest[1..].starts_with(|c: char| c.is_ascii_digit()) => number(rest)?,
            '.' => match name(&rest[1..]) {
                "" => (Token::Dot, 1),
                name => (Token::Field(name.to_owned()), 1 + name.len()),
            },
            '+' | '-' | '0'..='9' => number(rest)?,
            c if c.is_alphabetic() || c == '_' => {
                let name = name(rest);
                (Token::Word(name.to_owned()), name.len())
            }
            other => return Err(format!("unexpected {other:?} in action")),
        };
        rest = &rest[taken..];
        let named = matches!(
            token,
            Token::Field(_) | Token::Variable(_) | Token::Word(_) | Token::Dot | Token::Literal(_)
        );
        let ends = |c: char| BLANK.contains(&c) || matches!(c, '.' | ',' | '|' | ':' | ')' | '(' | '=' | '}');
        if named && let Some(next) = rest.chars().next().filter(|c| !ends(*c)) {
            return Err(format!("bad character {next:?}"));
        }
        tokens.push(token);
    }
}

fn name(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// Reads a `"string"` as Go writes it.
fn quoted(text: &str) -> Result<(Token, usize), String> {
    let mut value = String::new();
    let mut at = 1;
    loop {
        match text[at..].chars().next() {
            Some('"') => return Ok((Token::Literal(value.into()), at + 1)),
            None | Some('\n') => return Err("unterminated quoted string".to_owned()),
            Some('\\') => {
                let (c, taken) = escape(&text[at..])?;
                value.push(c);
                at += taken;
            }
            Some(c) => {
                value.push(c);
                at += c.len_utf8();
            }
        }
    }
}

/// Reads a `'c'`: a number, as in Go.
fn character(text: &str) -> Result<(Token, usize), String> {
    let unterminated = || "unterminated character constant".to_owned();
    let (c, taken) = match text[1..].chars().next() {
        Some('\\') => escape(&text[1..])?,
        Some(c) if c != '\'' && c != '\n' => (c, c.len_utf8()),
        _ => return Err(unterminated()),
    };
    if !text[1 + taken..].starts_with('\'') {
        return Err(unterminated());
    }
    Ok((Token::Literal(u32::from(c).into()), taken + 2))
}

/// Reads one escape that begins with `\`.
fn escape(text: &str) -> Result<(char, usize), String> {
    let invalid = || "invalid syntax: unknown escape in a string".to_owned();
    let coded = |digits: usize, radix: u32, skip: usize| {
        let code = text.get(skip..skip + digits).ok_or_else(invalid)?;
        let code = u32::from_str_radix(code, radix).map_err(|_| invalid())?;
        Ok((char::from_u32(code).ok_or_else(invalid)?, skip + digits))
    };
    let c = match text[1..].chars().next().ok_or_else(invalid)? {
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        c @ ('\\' | '\'' | '"') => c,
        'x' => return coded(2, 16, 2),
        'u' => return coded(4, 16, 2),
        'U' => return coded(8, 16, 2),
        '0'..='7' => return coded(3, 8, 1),
        _ => return Err(invalid()),
    };
    Ok((c, 2))
}

fn number(text: &str) -> Result<(Token, usize), String> {
    let mut end = 0;
    let mut before = ' ';
    for c in text.chars() {
        let sign = matches!(c, '+' | '-') && (end == 0 || matches!(before, 'e' | 'E'));
        if !sign && !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_') {
            break;
        }
        end += c.len_utf8();
        before = c;
    }
    let typed = &text[..end];
    let bad = || format!("bad number syntax: {typed:?}");
    let digits = typed.replace('_', "");
    let (negative, bare) = match digits.strip_prefix(['+', '-']) {
        Some(bare) => (digits.starts_with('-'), bare),
        None => (false, digits.as_str()),
    };
    let lower = bare.to_ascii_lowercase();
    let based = [("0x", 16), ("0o", 8), ("0b", 2)]
        .into_iter()
        .find_map(|(prefix, radix)| lower.strip_prefix(prefix).map(|rest| (rest, radix)));
    let whole = match based {
        Some((rest, radix)) => Some(i64::from_str_radix(rest, radix).map_err(|_| bad())?),
        None if lower.len() > 1 && lower.starts_with('0') && lower.bytes().all(|b| b.is_ascii_digit()) => {
            Some(i64::from_str_radix(&lower, 8).map_err(|_| bad())?)
        }
        None => lower.parse().ok(),
    };
    let value = match whole {
        Some(whole) => Value::from(if negative { -whole } else { whole }),
        None => {
            let parsed: f64 = lower.parse().ok().filter(|f: &f64| f.is_finite()).ok_or_else(bad)?;
            Value::Number(Number::from_f64(if negative { -parsed } else { parsed }).ok_or_else(bad)?)
        }
    };
    Ok((Token::Literal(value), end))
}
