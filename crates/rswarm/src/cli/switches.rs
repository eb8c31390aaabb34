//! Flags as Docker's command line takes them, which is Go's pflag: a switch may have a value (`--rm=false`, `-d=true`),
//! and what is said twice counts as it was said last.
//!
//! clap takes a switch without a value only. What it refuses is looked at once more here, so that a line without such
//! values costs nothing.

use clap::{Arg, ArgAction, ArgMatches, Command, Error, error::ErrorKind};
use std::ffi::OsString;

/// Parses a command line. `command` is parsed with; `whole` has everything that can be typed, and is made when a value
/// of a switch is looked for.
///
/// # Errors
/// The line is no command, or asks for help.
pub(super) fn parse(
    command: impl Fn() -> Command,
    whole: impl Fn() -> Command,
    args: &[OsString],
) -> Result<ArgMatches, Error> {
    let mut args = args.to_vec();
    loop {
        let error = match command().args_override_self(true).try_get_matches_from(&args) {
            Ok(matches) => return Ok(matches),
            Err(error) => error,
        };
        let of_a_switch = matches!(error.kind(), ErrorKind::TooManyValues | ErrorKind::UnknownArgument);
        match of_a_switch.then(|| without_value(&whole(), &args)).flatten() {
            Some(fewer) => args = fewer, // one `=` less each time
            None => return Err(error),
        }
    }
}

/// Returns the line with its first switch that has a value said without it; `None` if there is none. What stands behind
/// an image or a service is its own, and comes after whatever clap refuses.
fn without_value(whole: &Command, args: &[OsString]) -> Option<Vec<OsString>> {
    let mut typed = vec![whole];
    for (at, word) in args.iter().enumerate().skip(1) {
        let Some(word) = word.to_str() else { continue };
        if word == "--" {
            return None;
        }
        if let Some(below) = typed.last().and_then(|command| command.find_subcommand(word)) {
            typed.push(below);
            continue;
        }
        let Some((said, value)) = word.split_once('=').filter(|_| word.starts_with('-')) else { continue };
        let (Some(on), true) = (truth(value), is_switch(&typed, said)) else { continue };
        let mut fewer = args.to_vec();
        let kept = if on { Some(said.to_owned()) } else { without_last(said) };
        fewer.splice(at..=at, kept.map(OsString::from));
        if !on {
            // Said before, it is taken back.
            let mut place = 0..;
            fewer.retain(|word| place.next().is_some_and(|place| place >= at) || *word != said);
        }
        return Some(fewer);
    }
    None
}

/// *Source:* Go's `strconv.ParseBool`.
fn truth(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Returns true of `--name` or `-abc` if each is a switch of one of the commands.
fn is_switch(typed: &[&Command], said: &str) -> bool {
    let has = |is_it: &dyn Fn(&Arg) -> bool| {
        let args = || typed.iter().flat_map(|command| command.get_arguments());
        args().any(|arg| matches!(arg.get_action(), ArgAction::SetTrue) && is_it(arg))
    };
    match said.strip_prefix("--") {
        Some(name) => has(&|arg| {
            arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|names| names.contains(&name))
        }),
        None => {
            let mut letters = said.chars().skip(1).peekable();
            letters.peek().is_some() && letters.all(|letter| has(&|arg| arg.get_short() == Some(letter)))
        }
    }
}

/// Of `-abc`, the value is that of the last: `-ab` stays.
fn without_last(said: &str) -> Option<String> {
    let letters = said.strip_prefix('-').filter(|rest| !rest.starts_with('-'))?;
    let mut letters = letters.chars();
    letters.next_back();
    let left = letters.as_str();
    (!left.is_empty()).then(|| format!("-{left}"))
}

#[cfg(test)]
mod tests {
    use super::super::{Cli, Command as Typed, Service, command, whole};
    use super::*;
    use clap::FromArgMatches as _;

    fn typed(line: &str) -> Typed {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let matches = parse(command, whole, &words).unwrap_or_else(|error| panic!("{line}: {error}"));
        Cli::from_arg_matches(&matches).unwrap().command
    }

    fn refused(line: &str) -> String {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        parse(command, whole, &words).expect_err(line).to_string()
    }

    #[test]
    fn a_switch_may_say_whether_it_is_on() {
        for (line, all, quiet) in [
            ("rswarm ps --all=true", true, false),
            ("rswarm ps -a=1 -q=T", true, true),
            ("rswarm ps -aq=false", true, false),
            ("rswarm ps --all --all=false --quiet=True", false, true),
            ("rswarm ps -a=false -q", false, true),
        ] {
            let Typed::Ps(args) = typed(line) else { panic!("{line}") };
            assert_eq!((args.all, args.list.quiet), (all, quiet), "{line}");
        }
        assert!(matches!(typed("rswarm service ls --quiet=false"), Typed::Service(Service::Ls(_))));
    }

    #[test]
    fn what_a_container_is_given_is_its_own() {
        let Typed::Run(args) = typed("rswarm run --rm=true -it=false web program --rm=true -d=false") else {
            panic!("another command");
        };
        let flags = &args.container.flags;
        assert!(flags.rm && flags.interactive && !flags.tty && !args.detach, "{args:?}");
        assert_eq!(args.container.command(), ["program", "--rm=true", "-d=false"]);
    }

    #[test]
    fn what_is_said_twice_counts_as_it_was_said_last() {
        let Typed::Run(args) = typed("rswarm run --name a --rm --name b --rm -e A=1 -e B=2 web") else {
            panic!("another command");
        };
        assert_eq!(args.container.flags.name.as_deref(), Some("b"));
        assert_eq!(args.container.flags.env, ["A=1", "B=2"]);
    }

    #[test]
    fn what_is_no_truth_and_what_is_no_switch_is_refused() {
        assert!(refused("rswarm ps --all=maybe").contains("maybe"));
        assert!(refused("rswarm ps --nothing=true").contains("--nothing"));
        assert!(refused("rswarm ps -Z=true").contains("-Z"));
        assert!(refused("rswarm ps --all=true --nothing").contains("--nothing"));
    }
}
