//! Tokens -> nodes. Source: Go's `text/template/parse/parse.go`.

use crate::{
    DEPTH_MAX, Error, Words, builtin,
    lex::{self, Piece, Token},
};
use serde_json::Value;

#[derive(Debug, Clone)]
pub(crate) enum Node {
    Text(String),
    /// Prints what the pipe gives, unless it only sets a variable.
    Print(Pipe),
    If(Branch),
    With(Branch),
    Range(Branch),
    Break,
    Continue,
}

/// What is done if the pipe gives something, and what if not.
#[derive(Debug, Clone)]
pub(crate) struct Branch {
    pub(crate) pipe: Pipe,
    pub(crate) then: Vec<Node>,
    pub(crate) otherwise: Vec<Node>,
}

/// `$name := first | second | third`.
#[derive(Debug, Clone)]
pub(crate) struct Pipe {
    /// The variables that it sets, with their `$`.
    pub(crate) sets: Vec<String>,
    /// They are new (`:=`), not there before (`=`).
    pub(crate) declares: bool,
    pub(crate) commands: Vec<Vec<Operand>>,
}

#[derive(Debug, Clone)]
pub(crate) enum Operand {
    Dot,
    Literal(Value),
    Variable(String),
    Function(String),
    Pipe(Box<Pipe>),
    /// `.A.B` of an operand; of the dot, if it stands alone.
    Fields(Box<Operand>, Vec<String>),
}

/// What a list of nodes ends with.
enum Stop {
    Text,
    End,
    Else(Vec<Token>, usize),
}

struct Parser<'w> {
    pieces: std::vec::IntoIter<Piece>,
    words: &'w dyn Words,
    /// Names of the variables that can be seen.
    variables: Vec<String>,
    /// Ranges around what is read.
    ranges: usize,
    depth: usize,
    line: usize,
}

/// Reads a whole template.
///
/// # Errors
/// [`Error::Parse`] with the line.
pub(crate) fn template(text: &str, words: &dyn Words) -> Result<Vec<Node>, Error> {
    let mut parser = Parser {
        pieces: lex::pieces(text)?.into_iter(),
        words,
        variables: vec!["$".to_owned()],
        ranges: 0,
        depth: 0,
        line: 1,
    };
    let (nodes, end) = parser.nodes()?;
    match end {
        Stop::Text => Ok(nodes),
        Stop::End => Err(parser.failed("unexpected {{end}}")),
        Stop::Else(..) => Err(parser.failed("unexpected {{else}}")),
    }
}

impl Parser<'_> {
    fn failed(&self, why: impl Into<String>) -> Error {
        Error::Parse { line: self.line, why: why.into() }
    }

    fn nodes(&mut self) -> Result<(Vec<Node>, Stop), Error> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let tokens = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action { line, tokens } => {
                    self.line = line;
                    trimmed(tokens)
                }
            };
            let Some(Token::Word(word)) = tokens.first() else {
                nodes.push(Node::Print(self.pipe(&tokens, false)?));
                continue;
            };
            match (word.as_str(), trimmed(tokens[1..].to_vec())) {
                ("end", rest) if rest.is_empty() => return Ok((nodes, Stop::End)),
                ("else", rest) => return Ok((nodes, Stop::Else(rest, self.line))),
                ("break" | "continue", rest) if rest.is_empty() => {
                    if self.ranges == 0 {
                        return Err(self.failed(format!("{{{{{word}}}}} outside {{{{range}}}}")));
                    }
                    nodes.push(if word == "break" { Node::Break } else { Node::Continue });
                }
                ("if" | "with" | "range", rest) => nodes.push(self.branch(word, &rest)?),
                ("define" | "template" | "block", _) => {
                    return Err(
                        self.failed(format!("{{{{{word}}}}} is not supported: a template is one text"))
                    );
                }
                _ => nodes.push(Node::Print(self.pipe(&tokens, false)?)),
            }
        }
        Ok((nodes, Stop::Text))
    }

    fn branch(&mut self, word: &str, tokens: &[Token]) -> Result<Node, Error> {
        self.deeper()?;
        let seen = self.variables.len();
        let pipe = self.pipe(tokens, word == "range")?;
        let within = usize::from(word == "range");
        self.ranges += within;
        let (then, end) = self.nodes()?;
        self.ranges -= within;
        self.variables.truncate(seen + pipe.sets.len() * usize::from(pipe.declares));
        let otherwise = match end {
            Stop::End => Vec::new(),
            Stop::Text => {
                return Err(self.failed(format!("unexpected end of text: {{{{{word}}}}} has no {{{{end}}}}")));
            }
            Stop::Else(rest, line) => {
                self.line = line;
                match rest.first() {
                    None => {
                        let (nodes, end) = self.nodes()?;
                        match end {
                            Stop::End => nodes,
                            Stop::Else(..) => return Err(self.failed("expected end; found {{else}}")),
                            Stop::Text => {
                                return Err(self.failed("unexpected end of text: {{else}} has no {{end}}"));
                            }
                        }
                    }
                    // `{{else if X}}` is `{{else}}{{if X}}` with one `{{end}}` for both.
                    Some(Token::Word(next)) if next == word && word != "range" => {
                        vec![self.branch(word, &trimmed(rest[1..].to_vec()))?]
                    }
                    Some(_) => {
                        return Err(
                            self.failed(format!("unexpected words after {{{{else}}}} of {{{{{word}}}}}"))
                        );
                    }
                }
            }
        };
        self.variables.truncate(seen);
        self.depth -= 1;
        let branch = Branch { pipe, then, otherwise };
        Ok(match word {
            "if" => Node::If(branch),
            "with" => Node::With(branch),
            _ => Node::Range(branch),
        })
    }

    fn deeper(&mut self) -> Result<(), Error> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            Err(self.failed(format!("nests deeper than {DEPTH_MAX}")))
        } else {
            Ok(())
        }
    }

    /// Reads a pipe; `two`: it may set two variables, as `range` does.
    fn pipe(&mut self, tokens: &[Token], two: bool) -> Result<Pipe, Error> {
        self.deeper()?;
        let (sets, declares, rest) = self.sets(tokens, two)?;
        let mut commands = Vec::new();
        for command in split(rest, &Token::Pipe).map_err(|why| self.failed(why))? {
            commands.push(self.command(&trimmed(command.to_vec()))?);
        }
        for later in commands.iter().skip(1) {
            // What is piped becomes the last argument of the next, which must take one.
            if !matches!(later.first(), Some(Operand::Function(_) | Operand::Fields(..))) {
                return Err(self.failed("non executable command in pipeline"));
            }
        }
        if declares {
            self.variables.extend(sets.iter().cloned());
        }
        self.depth -= 1;
        Ok(Pipe { sets, declares, commands })
    }

    /// Reads `$a, $b :=` before a pipe.
    fn sets<'t>(&self, tokens: &'t [Token], two: bool) -> Result<(Vec<String>, bool, &'t [Token]), Error> {
        let mut depth = 0_usize;
        let at = tokens.iter().position(|token| {
            match token {
                Token::Open => depth += 1,
                Token::Close => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0 && matches!(token, Token::Declare | Token::Assign)
        });
        let Some(at) = at else { return Ok((Vec::new(), false, tokens)) };
        let declares = tokens[at] == Token::Declare;
        let mut sets = Vec::new();
        for group in tokens[..at].split(|token| *token == Token::Comma) {
            match trimmed(group.to_vec()).as_slice() {
                [Token::Variable(name)] if declares || self.variables.contains(name) => {
                    sets.push(name.clone())
                }
                [Token::Variable(name)] => return Err(self.failed(format!("undefined variable {name:?}"))),
                _ => return Err(self.failed("only variables can be set")),
            }
        }
        if sets.len() > if two { 2 } else { 1 } {
            return Err(self.failed("too many declarations"));
        }
        Ok((sets, declares, &tokens[at + 1..]))
    }

    fn command(&mut self, tokens: &[Token]) -> Result<Vec<Operand>, Error> {
        let mut operands = Vec::new();
        let mut rest = tokens;
        while !rest.is_empty() {
            let (operand, after) = self.operand(rest)?;
            operands.push(operand);
            rest = match after {
                [] => after,
                [Token::Space, after @ ..] => after,
                _ => return Err(self.failed("unexpected operand: a blank is missing before it")),
            };
        }
        match operands.first() {
            None => Err(self.failed("missing value for command")),
            Some(Operand::Literal(Value::Null)) => Err(self.failed("nil is not a command")),
            Some(_) => Ok(operands),
        }
    }

    fn operand<'t>(&mut self, tokens: &'t [Token]) -> Result<(Operand, &'t [Token]), Error> {
        let (first, mut rest) = match tokens {
            [Token::Dot, rest @ ..] => (Operand::Dot, rest),
            [Token::Field(_), ..] => (Operand::Dot, tokens),
            [Token::Literal(value), rest @ ..] => (Operand::Literal(value.clone()), rest),
            [Token::Variable(name), rest @ ..] => {
                if !self.variables.contains(name) {
                    return Err(self.failed(format!("undefined variable {name:?}")));
                }
                (Operand::Variable(name.clone()), rest)
            }
            [Token::Word(word), rest @ ..] => (self.word(word)?, rest),
            [Token::Open, rest @ ..] => {
                let end = matching(rest).ok_or_else(|| self.failed("unclosed left paren"))?;
                let pipe = self.pipe(&trimmed(rest[..end].to_vec()), false)?;
                (Operand::Pipe(Box::new(pipe)), &rest[end + 1..])
            }
            [other, ..] => return Err(self.failed(format!("unexpected {other:?} in operand"))),
            [] => return Err(self.failed("missing value for command")),
        };
        let mut fields = Vec::new();
        while let [Token::Field(name), after @ ..] = rest {
            fields.push(name.clone());
            rest = after;
        }
        match first {
            first if fields.is_empty() => Ok((first, rest)),
            Operand::Literal(_) => Err(self.failed("a constant has no fields")),
            Operand::Dot if matches!(tokens, [Token::Dot, ..]) => {
                Err(self.failed("unexpected . after term \".\""))
            }
            first => Ok((Operand::Fields(Box::new(first), fields), rest)),
        }
    }

    fn word(&self, word: &str) -> Result<Operand, Error> {
        Ok(match word {
            "true" => Operand::Literal(true.into()),
            "false" => Operand::Literal(false.into()),
            "nil" => Operand::Literal(Value::Null),
            _ if builtin::knows(word) || self.words.knows(word) => Operand::Function(word.to_owned()),
            _ => return Err(self.failed(format!("function {word:?} not defined"))),
        })
    }
}

/// Returns where the parenthesis is closed that was opened before.
fn matching(tokens: &[Token]) -> Option<usize> {
    let mut depth = 0_usize;
    tokens.iter().position(|token| match token {
        Token::Open => {
            depth += 1;
            false
        }
        Token::Close if depth == 0 => true,
        Token::Close => {
            depth -= 1;
            false
        }
        _ => false,
    })
}

/// Splits at what is not within parentheses.
fn split<'t>(tokens: &'t [Token], at: &Token) -> Result<Vec<&'t [Token]>, String> {
    let (mut parts, mut from, mut depth) = (Vec::new(), 0, 0_usize);
    for (here, token) in tokens.iter().enumerate() {
        match token {
            Token::Open => depth += 1,
            Token::Close => depth = depth.checked_sub(1).ok_or("unexpected right paren")?,
            _ if depth == 0 && token == at => {
                parts.push(&tokens[from..here]);
                from = here + 1;
            }
            _ => {}
        }
    }
    parts.push(&tokens[from..]);
    Ok(parts)
}

/// Drops blanks at both ends.
fn trimmed(mut tokens: Vec<Token>) -> Vec<Token> {
    while tokens.last() == Some(&Token::Space) {
        tokens.pop();
    }
    let blanks = tokens.iter().take_while(|token| **token == Token::Space).count();
    tokens.drain(..blanks);
    tokens
}
