//! What the command line says of itself to shells and to man(1): made of the types that parse it, so that it cannot say
//! anything else.

use crate::{cli::Cli, output};
use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use std::path::Path;

/// Prints a shell's completion script.
///
/// # Errors
/// Standard output is closed.
pub(crate) fn completion(shell: clap_complete::Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "rswarm", &mut script);
    output::line(String::from_utf8(script).context("the script is no text")?.trim_end())
}

/// Writes `rswarm.1`, `rswarm-service.1`, `rswarm-service-ps.1` and so on into a folder.
///
/// # Errors
/// The folder cannot be made or written.
pub(crate) fn pages(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut command = Cli::command();
    command.build();
    page(folder, &command)
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
        let mut command = Cli::command();
        command.build();
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), count(&command));
        let page = std::fs::read_to_string(folder.join("rswarm-service-ps.1")).unwrap();
        assert!(page.contains("why they do not run") && page.contains("no\\-trunc"), "{page}");
        assert!(!folder.join("rswarm-lab.1").exists(), "it is hidden");
    }

    #[test]
    fn shells_learn_all_commands() {
        for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "rswarm", &mut script);
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains("join-token") && script.contains("no-trunc"), "{shell}");
        }
    }
}
