//! Nodes + dot -> text. Source: Go's `text/template/exec.go`.

#![expect(
    clippy::ptr_arg,
    reason = "a value that is borrowed stays so when it is cloned: that costs nothing"
)]

use crate::{
    FUEL, STEP, Words, builtin,
    parse::{Branch, Node, Operand, Pipe},
    verbs,
};
use serde_json::{Map, Value};
use std::borrow::Cow;

type Result<T> = std::result::Result<T, String>;

/// What goes on after a list of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

struct Run<'a> {
    words: &'a dyn Words,
    out: String,
    variables: Vec<(&'a str, Cow<'a, Value>)>,
    fuel: usize,
    /// A key that is not there is only asked about.
    asked: bool,
}

/// Fills a template in.
///
/// # Errors
/// What it asks for is not there, is not what a function takes, or costs too much.
pub(crate) fn render(nodes: &[Node], dot: &Value, words: &dyn Words) -> Result<String> {
    let variables = vec![("$", Cow::Borrowed(dot))];
    let mut run = Run { words, out: String::new(), variables, fuel: FUEL, asked: false };
    run.nodes(nodes, &Cow::Borrowed(dot))?;
    Ok(run.out)
}

/// Says whether Go takes a value for true: neither zero nor empty.
pub(crate) fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(a) => !a.is_empty(),
        Value::Object(o) => !o.is_empty(),
    }
}

/// *Unit:* bytes that a copy of a value takes, about.
fn weight(value: &Value) -> usize {
    match value {
        Value::String(s) => s.len(),
        Value::Array(all) => all.iter().map(weight).sum::<usize>() + 32 * all.len(),
        Value::Object(all) => all.iter().map(|(k, v)| k.len() + weight(v)).sum::<usize>() + 64 * all.len(),
        _ => 0,
    }
}

impl<'a> Run<'a> {
    fn pay(&mut self, bytes: usize) -> Result<()> {
        let left = self.fuel.checked_sub(bytes.saturating_add(STEP));
        self.fuel = left.ok_or_else(|| format!("it costs more than {FUEL} bytes and steps"))?;
        Ok(())
    }

    /// Returns a copy that costs what it weighs; a borrowed value costs nothing.
    fn copy(&mut self, value: &Cow<'a, Value>) -> Result<Cow<'a, Value>> {
        if let Cow::Owned(value) = value {
            self.pay(weight(value))?;
        }
        Ok(value.clone())
    }

    fn nodes(&mut self, nodes: &'a [Node], dot: &Cow<'a, Value>) -> Result<Flow> {
        for node in nodes {
            self.pay(0)?;
            let flow = match node {
                Node::Text(text) => {
                    self.pay(text.len())?;
                    self.out.push_str(text);
                    Flow::On
                }
                Node::Print(pipe) => {
                    let value = self.pipe(pipe, dot)?;
                    if pipe.sets.is_empty() {
                        let text = match pipe.commands.as_slice() {
                            [command] => self.typed(command, &value),
                            _ => None,
                        };
                        let text = match text {
                            Some(text) => text,
                            None if value.is_null() => "<no value>".to_owned(),
                            None => verbs::plain(&value),
                        };
                        self.pay(text.len())?;
                        self.out.push_str(&text);
                    }
                    Flow::On
                }
                Node::Break => Flow::Break,
                Node::Continue => Flow::Continue,
                Node::If(branch) | Node::With(branch) => {
                    self.branch(branch, dot, matches!(node, Node::With(_)))?
                }
                Node::Range(branch) => self.range(branch, dot)?,
            };
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    /// Returns how a field is printed whose type says so.
    fn typed(&self, operands: &[Operand], value: &Value) -> Option<String> {
        match operands {
            [Operand::Fields(_, names)] => self.words.printed(names.last()?, value),
            _ => None,
        }
    }

    fn branch(&mut self, branch: &'a Branch, dot: &Cow<'a, Value>, moves_dot: bool) -> Result<Flow> {
        let mark = self.variables.len();
        let before = std::mem::replace(&mut self.asked, true);
        let value = self.pipe(&branch.pipe, dot);
        self.asked = before;
        let value = value?;
        let flow = match (truth(&value), moves_dot) {
            (true, true) => self.nodes(&branch.then, &value),
            (true, false) => self.nodes(&branch.then, dot),
            (false, _) => self.nodes(&branch.otherwise, dot),
        };
        self.variables.truncate(mark);
        flow
    }

    fn range(&mut self, branch: &'a Branch, dot: &Cow<'a, Value>) -> Result<Flow> {
        let mark = self.variables.len();
        // The variables of a range are its key and element, not the whole.
        let over = self.value(&branch.pipe, dot)?;
        let items: Vec<(Value, Cow<'a, Value>)> = match over {
            Cow::Borrowed(Value::Array(all)) => {
                all.iter().enumerate().map(|(i, v)| (Value::from(i), Cow::Borrowed(v))).collect()
            }
            Cow::Owned(Value::Array(all)) => {
                all.into_iter().enumerate().map(|(i, v)| (Value::from(i), Cow::Owned(v))).collect()
            }
            Cow::Borrowed(Value::Object(all)) => {
                let mut all: Vec<_> =
                    all.iter().map(|(k, v)| (Value::from(k.as_str()), Cow::Borrowed(v))).collect();
                all.sort_by(|(a, _), (b, _)| a.as_str().cmp(&b.as_str()));
                all
            }
            Cow::Owned(Value::Object(all)) => {
                let mut all: Vec<_> = all.into_iter().map(|(k, v)| (Value::from(k), Cow::Owned(v))).collect();
                all.sort_by(|(a, _), (b, _)| a.as_str().cmp(&b.as_str()));
                all
            }
            over => match (over.as_i64(), &*over) {
                (_, Value::Null) => Vec::new(),
                (Some(n), _) => {
                    let n = usize::try_from(n).unwrap_or(0);
                    self.pay(n.saturating_mul(64))?;
                    (0..n).map(|i| (Value::from(i), Cow::Owned(Value::from(i)))).collect()
                }
                _ => return Err(format!("range can't iterate over {}", verbs::plain(&over))),
            },
        };
        self.pay(items.len() * 64)?;
        if items.is_empty() {
            return self.nodes(&branch.otherwise, dot);
        }
        for (key, item) in items {
            match branch.pipe.sets.as_slice() {
                [] => {}
                [one] => self.set(one, item.clone(), branch.pipe.declares),
                [first, second, ..] => {
                    self.set(first, Cow::Owned(key), branch.pipe.declares);
                    self.set(second, item.clone(), branch.pipe.declares);
                }
            }
            let flow = self.nodes(&branch.then, &item)?;
            self.variables.truncate(mark);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn set(&mut self, name: &'a str, value: Cow<'a, Value>, declares: bool) {
        let there = self.variables.iter_mut().rev().find(|(n, _)| *n == name).filter(|_| !declares);
        match there {
            Some(place) => place.1 = value,
            None => self.variables.push((name, value)),
        }
    }

    fn pipe(&mut self, pipe: &'a Pipe, dot: &Cow<'a, Value>) -> Result<Cow<'a, Value>> {
        let value = self.value(pipe, dot)?;
        for name in &pipe.sets {
            let value = self.copy(&value)?;
            self.set(name, value, pipe.declares);
        }
        Ok(value)
    }

    /// Returns what a pipe gives, without setting its variables.
    fn value(&mut self, pipe: &'a Pipe, dot: &Cow<'a, Value>) -> Result<Cow<'a, Value>> {
        let mut value = None;
        for command in &pipe.commands {
            value = Some(self.command(command, dot, value)?);
        }
        value.ok_or_else(|| "an empty pipeline".to_owned())
    }

    fn command(
        &mut self,
        operands: &'a [Operand],
        dot: &Cow<'a, Value>,
        piped: Option<Cow<'a, Value>>,
    ) -> Result<Cow<'a, Value>> {
        self.pay(0)?;
        let (first, rest) = operands.split_first().ok_or("an empty command")?;
        match first {
            // These two look at no more of their arguments than decides.
            Operand::Function(name) if name == "and" || name == "or" => {
                let mut last = None;
                for operand in rest {
                    let value = self.operand(operand, dot)?;
                    if truth(&value) == (name == "or") {
                        return Ok(value);
                    }
                    last = Some(value);
                }
                piped
                    .or(last)
                    .ok_or_else(|| format!("wrong number of args for {name}: want at least 1 got 0"))
            }
            Operand::Function(name) => {
                let mut args = rest.iter().map(|o| self.operand(o, dot)).collect::<Result<Vec<_>>>()?;
                for (at, operand) in rest.iter().enumerate() {
                    if let Some(text) = self.typed(std::slice::from_ref(operand), &args[at])
                        && builtin::prints_as_text(name, &args, at)
                    {
                        args[at] = Cow::Owned(Value::from(text));
                    }
                }
                args.extend(piped);
                for value in &args {
                    self.pay(weight(value))?;
                }
                let args: Vec<&Value> = args.iter().map(|value| &**value).collect();
                let made = if self.words.knows(name) {
                    self.words.call(name, &args)
                } else {
                    builtin::call(name, &args)
                };
                let made = made.map_err(|why| format!("error calling {name}: {why}"))?;
                self.pay(weight(&made))?;
                Ok(Cow::Owned(made))
            }
            Operand::Fields(of, names) if !rest.is_empty() || piped.is_some() => {
                let (name, path) = names.split_last().ok_or("a field without a name")?;
                let on = self.operand(of, dot)?;
                let on = path.iter().try_fold(on, |on, name| self.field(on, name))?;
                let mut args = rest.iter().map(|o| self.operand(o, dot)).collect::<Result<Vec<_>>>()?;
                args.extend(piped);
                let args: Vec<&Value> = args.iter().map(|value| &**value).collect();
                let made = self.words.method(&on, name, &args);
                let made = made.unwrap_or_else(|| {
                    Err(format!("{name} has arguments but cannot be invoked as function"))
                })?;
                self.pay(weight(&made))?;
                Ok(Cow::Owned(made))
            }
            _ if !rest.is_empty() || piped.is_some() => Err("can't give argument to non-function".to_owned()),
            operand => self.operand(operand, dot),
        }
    }

    fn operand(&mut self, operand: &'a Operand, dot: &Cow<'a, Value>) -> Result<Cow<'a, Value>> {
        match operand {
            Operand::Dot => self.copy(dot),
            Operand::Literal(value) => Ok(Cow::Borrowed(value)),
            Operand::Variable(name) => {
                let found =
                    self.variables.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value.clone());
                let found = found.ok_or_else(|| format!("undefined variable {name}"))?;
                if let Cow::Owned(value) = &found {
                    self.pay(weight(value))?;
                }
                Ok(found)
            }
            Operand::Function(_) => self.command(std::slice::from_ref(operand), dot, None),
            Operand::Pipe(pipe) => {
                let mark = self.variables.len();
                let value = self.pipe(pipe, dot);
                self.variables.truncate(mark);
                value
            }
            Operand::Fields(of, names) => {
                let value = self.operand(of, dot)?;
                names.iter().try_fold(value, |value, name| self.field(value, name))
            }
        }
    }

    fn field(&self, value: Cow<'a, Value>, name: &str) -> Result<Cow<'a, Value>> {
        let missing =
            |object: &Map<String, Value>| self.words.missing(object, name, self.asked).map(Cow::Owned);
        match value {
            Cow::Borrowed(Value::Object(object)) => match object.get(name) {
                Some(found) => Ok(Cow::Borrowed(found)),
                None => missing(object),
            },
            Cow::Owned(Value::Object(mut object)) => match object.swap_remove(name) {
                Some(found) => Ok(Cow::Owned(found)),
                None => missing(&object),
            },
            value if value.is_null() && self.asked => Ok(Cow::Owned(Value::Null)),
            value if value.is_null() => Err(format!("nil data; no field {name:?} in it")),
            value => Err(format!("can't evaluate field {name} in {}", verbs::kind(&value))),
        }
    }
}
