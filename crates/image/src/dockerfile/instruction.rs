//! What each instruction says.

use super::{
    Heredoc, Lookup, Stage, Step, SyntaxError,
    lines::Line,
    values::{json_list, parse_duration},
    words::{Words, split},
};
use crate::config::Healthcheck;

/// One instruction. Texts have their variables still in them until [`Instruction::expand`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    Add(Transfer),
    /// Names, and values if they have any.
    Arg(Vec<(String, Option<String>)>),
    Cmd(CommandLine),
    Copy(Transfer),
    Entrypoint(CommandLine),
    Env(Vec<(String, String)>),
    Expose(Vec<String>),
    Healthcheck(Healthcheck),
    Label(Vec<(String, String)>),
    Maintainer(String),
    /// The trigger as it is written.
    Onbuild(String),
    Run(Run),
    Shell(Vec<String>),
    Stopsignal(String),
    User(String),
    Volume(Vec<String>),
    Workdir(String),
}

/// A command in one of its two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// As it is executed.
    Exec(Vec<String>),
    /// What a shell is given.
    Shell(String),
}

/// `RUN`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub command: CommandLine,
    pub heredocs: Vec<Heredoc>,
    pub mounts: Vec<RunMount>,
    /// `default`, `none`, `host`.
    pub network: Option<String>,
}

/// `RUN --mount`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunMount {
    pub kind: MountKind,
    /// Stage or image; `None` = the build context, of a cache: nothing.
    pub from: Option<String>,
    pub source: Option<String>,
    pub target: Option<String>,
    /// `None` = as the kind has it.
    pub writable: Option<bool>,
    pub id: Option<String>,
    pub sharing: Sharing,
    /// Of secrets: an error if it is not given to the build.
    pub required: bool,
    /// *Unit:* bytes. Of tmpfs.
    pub size_bytes: Option<u64>,
    /// Permission bits.
    pub mode: Option<u32>,
    pub uid: u32,
    pub gid: u32,
    /// Of secrets: the variable that has it.
    pub env: Option<String>,
}

/// What is mounted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MountKind {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

/// Who else may use a cache at the same time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sharing {
    #[default]
    Shared,
    Private,
    Locked,
}

/// `COPY`, `ADD`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transfer {
    /// At least one.
    pub sources: Vec<TransferSource>,
    pub destination: String,
    /// Stage or image; `None` = the build context.
    pub from: Option<String>,
    pub chown: Option<String>,
    pub chmod: Option<String>,
    pub link: bool,
    /// The folders of a source come along.
    pub parents: bool,
    pub exclude: Vec<String>,
    /// `sha256:<hex>` of what a URL gives.
    pub checksum: Option<String>,
    /// Of `ADD` from git: `.git` stays.
    pub keep_git_dir: bool,
    /// Of `ADD`: whether an archive is unpacked; `None` = local ones are, downloaded ones are not.
    pub unpack: Option<bool>,
}

/// Where a file comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransferSource {
    /// Path, pattern or URL.
    Path(String),
    /// The Dockerfile itself.
    Inline(Heredoc),
}

/// Returns the first word in upper case.
pub(super) fn keyword(text: &str) -> String {
    text.split_whitespace().next().unwrap_or_default().to_ascii_uppercase()
}

/// Reads the line of a `FROM`.
pub(super) fn from(line: &Line, escape: char) -> Result<Stage, SyntaxError> {
    let bad = |reason: String| SyntaxError::new(line.number, reason);
    let (flags, rest) = flags(after_keyword(&line.text), escape);
    let mut platform = None;
    for flag in flags {
        match flag.split_once('=') {
            Some(("platform", value)) => platform = Some(value.to_owned()),
            _ => return Err(bad(unknown_flag(&flag))),
        }
    }
    let words: Vec<&str> = rest.split_whitespace().collect();
    let (base, name) = match words[..] {
        [base] => (base, None),
        [base, between, name] if between.eq_ignore_ascii_case("as") => {
            (base, Some(name.to_ascii_lowercase()))
        }
        _ => return Err(bad("FROM requires either one or three arguments".into())),
    };
    let named_well = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c))
    };
    if let Some(name) = name.as_deref().filter(|name| !named_well(name)) {
        return Err(bad(format!(
            "invalid name for build stage: \"{name}\", name can't start with a number or contain symbols"
        )));
    }
    Ok(Stage {
        name,
        base: base.to_owned(),
        platform,
        line: line.number,
        text: line.text.clone(),
        steps: Vec::new(),
    })
}

/// Reads any other line.
pub(super) fn parse(line: Line, escape: char) -> Result<Step, SyntaxError> {
    let Line { number, text, heredocs } = line;
    let instruction = read(&text, heredocs, escape).map_err(|reason| SyntaxError::new(number, reason))?;
    Ok(Step { line: number, text, instruction })
}

fn after_keyword(text: &str) -> &str {
    text.split_once(char::is_whitespace).map_or("", |(_, rest)| rest.trim())
}

fn unknown_flag(flag: &str) -> String {
    format!("unknown flag: {}", flag.split('=').next().unwrap_or_default())
}

/// Takes `--name[=value]` off the front.
fn flags(text: &str, escape: char) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = text;
    while rest.starts_with("--") {
        let mut flag = String::new();
        let mut end = rest.len();
        let mut quote = None;
        let mut chars = rest.char_indices();
        while let Some((at, c)) = chars.next() {
            match (c, quote) {
                (c, None) if c.is_whitespace() => {
                    end = at;
                    break;
                }
                (c, _) if c == escape => flag.extend(chars.next().map(|(_, c)| c)),
                (c, Some(open)) if c == open => quote = None,
                ('"' | '\'', None) => quote = Some(c),
                (c, _) => flag.push(c),
            }
        }
        rest = rest[end..].trim_start();
        match flag.strip_prefix("--") {
            Some("") | None => break,
            Some(flag) => flags.push(flag.to_owned()),
        }
    }
    (flags, rest)
}

fn read(text: &str, heredocs: Vec<Heredoc>, escape: char) -> Result<Instruction, String> {
    let name = keyword(text);
    let all = after_keyword(text);
    let takes_flags = matches!(name.as_str(), "ADD" | "COPY" | "HEALTHCHECK" | "RUN");
    let (flags, rest) = if takes_flags { flags(all, escape) } else { (Vec::new(), all) };
    let known = [
        "ADD",
        "ARG",
        "CMD",
        "COPY",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "HEALTHCHECK",
        "LABEL",
        "MAINTAINER",
        "ONBUILD",
        "RUN",
        "SHELL",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
    ];
    if !known.contains(&name.as_str()) {
        return Err(format!("unknown instruction: {name}"));
    }
    let exactly_one = matches!(name.as_str(), "MAINTAINER" | "STOPSIGNAL" | "USER" | "WORKDIR");
    if rest.is_empty() {
        let count = if exactly_one { "exactly one argument" } else { "at least one argument" };
        return Err(format!("{name} requires {count}"));
    }
    Ok(match name.as_str() {
        "ADD" => Instruction::Add(transfer(&name, rest, &flags, heredocs)?),
        "COPY" => Instruction::Copy(transfer(&name, rest, &flags, heredocs)?),
        "ARG" => {
            Instruction::Arg(split(rest, escape).iter().map(|word| argument(word)).collect::<Result<_, _>>()?)
        }
        "CMD" => Instruction::Cmd(command(rest)),
        "ENTRYPOINT" => Instruction::Entrypoint(command(rest)),
        "ENV" => Instruction::Env(pairs(&name, rest, escape)?),
        "LABEL" => Instruction::Label(pairs(&name, rest, escape)?),
        "EXPOSE" => Instruction::Expose(rest.split_whitespace().map(str::to_owned).collect()),
        "HEALTHCHECK" => Instruction::Healthcheck(healthcheck(rest, &flags)?),
        "MAINTAINER" => Instruction::Maintainer(rest.to_owned()),
        "ONBUILD" => Instruction::Onbuild(trigger(rest, &heredocs)?),
        "RUN" => Instruction::Run(run(rest, &flags, heredocs)?),
        "SHELL" => {
            let args = json_list(rest).filter(|args| !args.is_empty());
            Instruction::Shell(args.ok_or("SHELL requires the arguments to be in JSON form")?)
        }
        "STOPSIGNAL" => Instruction::Stopsignal(rest.to_owned()),
        "USER" => Instruction::User(rest.to_owned()),
        "VOLUME" => Instruction::Volume(list(rest)),
        _ => Instruction::Workdir(rest.to_owned()),
    })
}

fn command(text: &str) -> CommandLine {
    json_list(text).map_or_else(|| CommandLine::Shell(text.to_owned()), CommandLine::Exec)
}

fn list(text: &str) -> Vec<String> {
    json_list(text).unwrap_or_else(|| text.split_whitespace().map(str::to_owned).collect())
}

fn argument(word: &str) -> Result<(String, Option<String>), String> {
    let (name, value) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (word, None),
    };
    if name.is_empty() {
        return Err("ARG names can not be blank".to_owned());
    }
    Ok((name.to_owned(), value))
}

/// `A=1 B="2 3"`, or the old form `A 1 and more`.
fn pairs(keyword: &str, text: &str, escape: char) -> Result<Vec<(String, String)>, String> {
    let words = split(text, escape);
    if !words[0].contains('=') {
        let (name, value) = text
            .split_once(char::is_whitespace)
            .ok_or_else(|| format!("{keyword} must have two arguments"))?;
        return Ok(vec![(name.to_owned(), value.trim_start().to_owned())]);
    }
    let pair = |word: &String| match word.split_once('=') {
        Some(("", _)) => Err(format!("{keyword} names can not be blank")),
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err(format!("Syntax error - can't find = in \"{word}\". Must be of the form: name=value")),
    };
    words.iter().map(pair).collect()
}

fn trigger(text: &str, heredocs: &[Heredoc]) -> Result<String, String> {
    match keyword(text).as_str() {
        "ONBUILD" => Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".to_owned()),
        name @ ("FROM" | "MAINTAINER") => Err(format!("{name} isn't allowed as an ONBUILD trigger")),
        _ => {
            let documents = heredocs.iter().map(|h| format!("\n{}{}", h.content, h.name));
            Ok(text.to_owned() + &documents.collect::<String>())
        }
    }
}

fn healthcheck(text: &str, flags: &[String]) -> Result<Healthcheck, String> {
    let mut check = Healthcheck::default();
    for flag in flags {
        let (name, value) = flag.split_once('=').ok_or_else(|| unknown_flag(flag))?;
        let time =
            || parse_duration(value).ok_or_else(|| format!("{name} is no duration such as 1m30s: {value}"));
        match name {
            "interval" => check.interval = time()?,
            "timeout" => check.timeout = time()?,
            "start-period" => check.start_period = time()?,
            "start-interval" => check.start_interval = time()?,
            "retries" => check.retries = value.parse().map_err(|_| "retries is a number".to_owned())?,
            _ => return Err(unknown_flag(flag)),
        }
    }
    let (kind, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    check.test = match (kind.to_ascii_uppercase().as_str(), rest.trim()) {
        ("NONE", "") if flags.is_empty() => vec!["NONE".to_owned()],
        ("NONE", _) => return Err("HEALTHCHECK NONE takes no arguments".to_owned()),
        ("CMD", "") => return Err("Missing command after HEALTHCHECK CMD".to_owned()),
        ("CMD", rest) => match command(rest) {
            CommandLine::Exec(args) => std::iter::once("CMD".to_owned()).chain(args).collect(),
            CommandLine::Shell(text) => vec!["CMD-SHELL".to_owned(), text],
        },
        (other, _) => return Err(format!("Unknown type \"{other}\" in HEALTHCHECK (try CMD)")),
    };
    Ok(check)
}

fn flag_is_set(flag: &str, value: Option<&str>) -> Result<bool, String> {
    match value {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(_) => Err(format!("expecting boolean value for flag {flag}")),
    }
}

fn transfer(keyword: &str, rest: &str, flags: &[String], heredocs: Vec<Heredoc>) -> Result<Transfer, String> {
    let mut transfer = Transfer::default();
    let add = keyword == "ADD";
    for flag in flags {
        let (name, value) = flag.split_once('=').map_or((flag.as_str(), None), |(n, v)| (n, Some(v)));
        let given = || {
            value
                .map(str::to_owned)
                .filter(|v| !v.is_empty())
                .ok_or(format!("missing a value on flag: {name}"))
        };
        match name {
            "from" if !add => transfer.from = Some(given()?),
            "chown" => transfer.chown = Some(given()?),
            "chmod" => transfer.chmod = Some(given()?),
            "link" => transfer.link = flag_is_set(name, value)?,
            "parents" if !add => transfer.parents = flag_is_set(name, value)?,
            "exclude" => transfer.exclude.push(given()?),
            "checksum" if add => transfer.checksum = Some(given()?),
            "keep-git-dir" if add => transfer.keep_git_dir = flag_is_set(name, value)?,
            "unpack" if add => transfer.unpack = Some(flag_is_set(name, value)?),
            _ => return Err(unknown_flag(flag)),
        }
    }
    let mut words = list(rest);
    if words.len() < 2 {
        return Err(format!(
            "{keyword} requires at least two arguments, but only one was provided. Destination could not be determined"
        ));
    }
    transfer.destination = words.pop().unwrap_or_default();
    let mut heredocs = heredocs.into_iter();
    transfer.sources = words
        .into_iter()
        .map(|word| match word.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with("<<") {
            true => heredocs.next().map_or(TransferSource::Path(word), TransferSource::Inline),
            false => TransferSource::Path(word),
        })
        .collect();
    Ok(transfer)
}

fn run(rest: &str, flags: &[String], heredocs: Vec<Heredoc>) -> Result<Run, String> {
    let mut run = Run { command: command(rest), heredocs, mounts: Vec::new(), network: None };
    for flag in flags {
        match flag.split_once('=') {
            Some(("mount", value)) => run.mounts.push(mount(value)?),
            Some(("network", value @ ("default" | "none" | "host"))) => run.network = Some(value.to_owned()),
            Some(("network", value)) => return Err(format!("invalid network mode: {value}")),
            Some(("security", "sandbox")) => {}
            Some(("security", value)) => {
                return Err(format!("security mode \"{value}\" is not supported: only sandbox is"));
            }
            _ => return Err(unknown_flag(flag)),
        }
    }
    Ok(run)
}

/// Source: Docker's Dockerfile reference "RUN --mount".
fn mount(text: &str) -> Result<RunMount, String> {
    let mut mount = RunMount::default();
    let mut keys = Vec::new();
    for field in text.split(',') {
        let (key, value) = field.split_once('=').map_or((field, None), |(k, v)| (k, Some(v)));
        let given =
            || value.map(str::to_owned).ok_or(format!("invalid field \"{field}\" must be a key=value pair"));
        let number = |radix| {
            let value = given()?;
            u32::from_str_radix(&value, radix).map_err(|_| format!("invalid value {value} for {key}"))
        };
        let key = match key.to_ascii_lowercase().as_str() {
            "src" => "source".to_owned(),
            "dst" | "destination" => "target".to_owned(),
            "ro" => "readonly".to_owned(),
            "rw" => "readwrite".to_owned(),
            key => key.to_owned(),
        };
        keys.push(key.clone());
        match key.as_str() {
            "type" => {
                mount.kind = match given()?.as_str() {
                    "bind" => MountKind::Bind,
                    "cache" => MountKind::Cache,
                    "tmpfs" => MountKind::Tmpfs,
                    "secret" => MountKind::Secret,
                    "ssh" => MountKind::Ssh,
                    other => return Err(format!("unsupported mount type \"{other}\"")),
                };
            }
            "from" => mount.from = Some(given()?),
            "source" => mount.source = Some(given()?),
            "target" => mount.target = Some(given()?),
            "readonly" => mount.writable = Some(!flag_is_set(&key, value)?),
            "readwrite" => mount.writable = Some(flag_is_set(&key, value)?),
            "id" => mount.id = Some(given()?),
            "required" => mount.required = flag_is_set(&key, value)?,
            "sharing" => {
                mount.sharing = match given()?.as_str() {
                    "shared" => Sharing::Shared,
                    "private" => Sharing::Private,
                    "locked" => Sharing::Locked,
                    other => return Err(format!("unsupported sharing value \"{other}\"")),
                };
            }
            "size" => {
                let value = given()?;
                let size = bytes(&value).ok_or_else(|| format!("invalid value {value} for size"))?;
                mount.size_bytes = Some(size);
            }
            "mode" => mount.mode = Some(number(8)?),
            "uid" => mount.uid = number(10)?,
            "gid" => mount.gid = number(10)?,
            "env" => mount.env = Some(given()?),
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    let (name, known) = keys_of(mount.kind);
    if let Some(key) = keys.iter().find(|key| *key != "type" && !known.contains(&key.as_str())) {
        return Err(format!("{key} not allowed for \"{name}\" type mounts"));
    }
    if mount.kind == MountKind::Cache && mount.source.is_some() && mount.from.is_none() {
        return Err("source of a cache is a folder of what it is made from: from is required".to_owned());
    }
    if mount.kind == MountKind::Secret {
        if mount.source.is_some() && mount.id.is_some() {
            return Err("both source and id can't be set".to_owned());
        }
        if mount.source.is_none() && mount.target.is_none() && mount.id.is_none() {
            return Err("invalid secret mount. one of source, target required".to_owned());
        }
    }
    let needs_target = matches!(mount.kind, MountKind::Bind | MountKind::Cache | MountKind::Tmpfs);
    if needs_target && mount.target.is_none() {
        return Err("target is required".to_owned());
    }
    Ok(mount)
}

/// What a kind of mount is called, and the keys that mean something for it. BuildKit takes some of the others and does
/// nothing with them.
fn keys_of(kind: MountKind) -> (&'static str, &'static [&'static str]) {
    match kind {
        MountKind::Bind => ("bind", &["from", "source", "target", "readonly", "readwrite"]),
        MountKind::Cache => (
            "cache",
            &["id", "from", "source", "target", "readonly", "readwrite", "sharing", "mode", "uid", "gid"],
        ),
        MountKind::Tmpfs => ("tmpfs", &["target", "readwrite", "size"]),
        MountKind::Secret => {
            ("secret", &["id", "source", "target", "readonly", "required", "mode", "uid", "gid", "env"])
        }
        MountKind::Ssh => ("ssh", &["id", "target", "readonly", "required", "mode", "uid", "gid"]),
    }
}

/// `64m`, `1g`, `4096`.
fn bytes(text: &str) -> Option<u64> {
    let text = text.to_ascii_lowercase();
    let text = text.strip_suffix('b').unwrap_or(&text);
    let (number, factor) = match text.chars().last()? {
        'k' => (&text[..text.len() - 1], 1 << 10),
        'm' => (&text[..text.len() - 1], 1 << 20),
        'g' => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

impl Instruction {
    /// Replaces the variables where Docker does: not in commands, which leave that to their shell.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn expand(&self, escape: char, lookup: Lookup<'_>) -> Result<Self, String> {
        let words = Words { escape, lookup, raw: false };
        let one = |text: &String| words.one(text);
        let each = |texts: &[String]| texts.iter().map(one).collect::<Result<Vec<_>, _>>();
        let pair = |(name, value): &(String, String)| Ok::<_, String>((one(name)?, one(value)?));
        Ok(match self {
            Self::Add(transfer) => Self::Add(transfer.expand(words)?),
            Self::Copy(transfer) => Self::Copy(transfer.expand(words)?),
            Self::Arg(args) => {
                let arg = |(name, value): &(String, Option<String>)| {
                    Ok::<_, String>((one(name)?, value.as_ref().map(one).transpose()?))
                };
                Self::Arg(args.iter().map(arg).collect::<Result<_, _>>()?)
            }
            Self::Env(pairs) => Self::Env(pairs.iter().map(pair).collect::<Result<_, _>>()?),
            Self::Label(pairs) => Self::Label(pairs.iter().map(pair).collect::<Result<_, _>>()?),
            Self::Expose(ports) => {
                let ports = ports.iter().map(|port| words.many(port)).collect::<Result<Vec<_>, _>>()?;
                Self::Expose(ports.concat())
            }
            Self::Stopsignal(text) => Self::Stopsignal(one(text)?),
            Self::User(text) => Self::User(one(text)?),
            Self::Volume(paths) => Self::Volume(each(paths)?),
            Self::Workdir(text) => Self::Workdir(one(text)?),
            Self::Run(run) => {
                let mut run = run.clone();
                for mount in &mut run.mounts {
                    for text in [&mut mount.from, &mut mount.source, &mut mount.target, &mut mount.id] {
                        *text = text.as_ref().map(one).transpose()?;
                    }
                }
                Self::Run(run)
            }
            Self::Cmd(_)
            | Self::Entrypoint(_)
            | Self::Healthcheck(_)
            | Self::Maintainer(_)
            | Self::Onbuild(_)
            | Self::Shell(_) => self.clone(),
        })
    }
}

impl Transfer {
    fn expand(&self, words: Words<'_>) -> Result<Self, String> {
        let mut expanded = self.clone();
        let optional = |text: &Option<String>| text.as_ref().map(|text| words.one(text)).transpose();
        expanded.destination = words.one(&self.destination)?;
        for source in &mut expanded.sources {
            match source {
                TransferSource::Path(path) => *path = words.one(path)?,
                TransferSource::Inline(heredoc) if heredoc.expand => {
                    // Quotes are text in a document.
                    heredoc.content = expand_document(words, &heredoc.content)?;
                }
                TransferSource::Inline(_) => {}
            }
        }
        expanded.chown = optional(&self.chown)?;
        expanded.chmod = optional(&self.chmod)?;
        expanded.checksum = optional(&self.checksum)?;
        expanded.exclude = self.exclude.iter().map(|text| words.one(text)).collect::<Result<_, _>>()?;
        Ok(expanded)
    }
}

/// Replaces variables and nothing else: as in double quotes, with every quote escaped.
fn expand_document(words: Words<'_>, content: &str) -> Result<String, String> {
    let escaped = content.replace('"', &format!("{}\"", words.escape));
    words.one(&format!("\"{escaped}\""))
}
