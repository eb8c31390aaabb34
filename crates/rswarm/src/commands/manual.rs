//! What the command line says of itself to shells and to man(1): made of the types that parse it, so that it cannot say
//! anything else.

use crate::{cli, output};
use anyhow::{Context as _, Result};
use std::{io::IsTerminal as _, path::Path};

/// Prints a shell's completion script.
///
/// # Errors
/// Standard output is closed.
pub(crate) fn completion(shell: clap_complete::Shell) -> Result<()> {
    output::line(script(shell)?.trim_end())
}

/// Returns a script that calls this program for what can be typed, and so knows names too.
fn script(shell: clap_complete::Shell) -> Result<String> {
    let shells = clap_complete::env::Shells::builtins();
    let name = shell.to_string();
    let writer = shells.completer(&name).with_context(|| format!("there is no completion for {name}"))?;
    let mut script = Vec::new();
    writer.write_registration(super::names::VARIABLE, "rswarm", "rswarm", "rswarm", &mut script)?;
    String::from_utf8(script).context("the script is no text")
}

/// Prints the help of a command.
///
/// # Errors
/// There is no such command, or it is hidden; standard output is closed.
pub(crate) fn help(words: &[String]) -> Result<()> {
    let mut root = cli::whole();
    let mut command = &mut root;
    for word in words {
        let path = command.get_bin_name().unwrap_or("rswarm").to_owned();
        command = command
            .find_subcommand_mut(word)
            .filter(|below| !below.is_hide_set())
            .with_context(|| format!("{path} has no command {word:?}; hint: `{path} --help` lists them"))?;
    }
    let help = command.render_long_help();
    let colour = std::io::stdout().is_terminal();
    let help = if colour { help.ansi().to_string() } else { help.to_string() };
    output::styled(help.trim_end())
}

/// Writes `rswarm.1`, `rswarm-service.1`, `rswarm-service-ps.1` and so on into a folder.
///
/// # Errors
/// The folder cannot be made or written.
pub(crate) fn pages(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    page(folder, &cli::whole())
}

fn page(folder: &Path, command: &clap::Command) -> Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let path = folder.join(format!("{name}.1"));
    let mut text = Vec::new();
    let man = clap_mangen::Man::new(command.clone());
    man.render(&mut text).with_context(|| format!("cannot render the page of {name}"))?;
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    command.get_subcommands().filter(|below| !below.is_hide_set()).try_for_each(|below| page(folder, below))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(command: &clap::Command) -> usize {
        1 + command.get_subcommands().filter(|below| !below.is_hide_set()).map(count).sum::<usize>()
    }

    #[test]
    fn each_command_has_its_page() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("man1");
        pages(&folder).unwrap();
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), count(&cli::whole()));
        let page = std::fs::read_to_string(folder.join("rswarm-service-ps.1")).unwrap();
        assert!(page.contains("why they do not run") && page.contains("no\\-trunc"), "{page}");
        assert!(!folder.join("rswarm-lab.1").exists(), "it is hidden");
    }

    #[test]
    fn help_knows_what_is_shown_and_nothing_else() {
        for words in [&["swarm", "join-token"][..], &["ps"], &[]] {
            assert!(
                help(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()).is_ok(),
                "{words:?}"
            );
        }
        for (words, said) in [
            (&["lab"][..], "rswarm has no command \"lab\"; hint: `rswarm --help` lists them"),
            (
                &["swarm", "nope"],
                "rswarm swarm has no command \"nope\"; hint: `rswarm swarm --help` lists them",
            ),
        ] {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(help(&words).unwrap_err().to_string(), said);
        }
    }

    #[test]
    fn shells_learn_all_commands() {
        for shell in <clap_complete::Shell as clap::ValueEnum>::value_variants() {
            let script = script(*shell).unwrap();
            assert!(script.contains(super::super::names::VARIABLE), "{shell}: {script}");
        }
        let offered = |words: &[&str]| {
            let words: Vec<std::ffi::OsString> = words.iter().map(Into::into).collect();
            let at = words.len() - 1;
            let found = clap_complete::engine::complete(&mut cli::whole(), words, at, None).unwrap();
            found.into_iter().map(|c| c.get_value().to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(offered(&["rswarm", "swarm", "join-t"]), ["join-token"]);
        assert_eq!(offered(&["rswarm", "service", "ps", "--no-t"]), ["--no-trunc"]);
        assert!(!offered(&["rswarm", ""]).contains(&"lab".to_owned()), "it is hidden");
    }
}
