//! Help in the order in which people look: commands in groups, what is typed daily first.
//!
//! clap has one list of commands; the groups here are its template for the levels that have many.

use clap::Command;
use std::fmt::Write as _;

/// Titles, and the commands below each.
type Groups = &'static [(&'static str, &'static [&'static str])];

/// *Unit:* columns of the terminal that help is made for at least.
const WIDTH: usize = 80;

pub(super) const ROOT: Groups = &[
    (
        "Every day",
        &[
            "run", "exec", "ps", "logs", "build", "pull", "push", "images", "compose", "deploy", "login",
            "logout", "search", "version", "info", "help",
        ],
    ),
    ("The swarm", &["swarm", "node", "service", "scale", "stack", "secret", "config", "user", "audit"]),
    ("What a host has", &["container", "image", "network", "volume", "builder", "system", "context"]),
    (
        "Containers",
        &[
            "create", "start", "stop", "restart", "kill", "pause", "unpause", "rm", "rename", "update",
            "wait", "attach", "cp", "diff", "export", "commit", "inspect", "port", "stats", "top", "events",
        ],
    ),
    ("Images", &["tag", "rmi", "history", "save", "load", "import"]),
    ("This program", &["daemon", "doctor", "demo", "completion", "man"]),
];

pub(super) const COMPOSE: Groups = &[
    ("Every day", &["up", "down", "ps", "logs", "exec", "run", "build", "watch", "config", "ls"]),
    (
        "Life of containers",
        &["create", "start", "stop", "restart", "pause", "unpause", "kill", "rm", "scale", "wait"],
    ),
    ("What is there", &["attach", "top", "stats", "port", "images", "volumes", "events", "version"]),
    ("Files and images", &["cp", "commit", "export", "pull", "push", "publish"]),
];

/// Has a command's help show its commands in groups, and its options below them.
pub(super) fn grouped(command: Command, groups: Groups, options: &str) -> Command {
    let styles = command.get_styles();
    let (title, literal) = (*styles.get_header(), *styles.get_literal());
    let names = groups.iter().flat_map(|(_, names)| names.iter());
    let width = names.map(|name| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (heading, names) in groups {
        let _infallible = writeln!(text, "{title}{heading}:{title:#}");
        for name in *names {
            let about = command.find_subcommand(name).and_then(Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            let pad = " ".repeat(width - name.len());
            let lines = wrapped(&about, WIDTH - width - 4).join(&format!("\n{}", " ".repeat(width + 4)));
            let _infallible = writeln!(text, "  {literal}{name}{literal:#}{pad}  {lines}");
        }
        text.push('\n');
    }
    let template = format!(
        "{{before-help}}{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{text}{title}{options}:{title:#}\n\
         {{options}}{{after-help}}"
    );
    command.help_template(template)
}

/// Returns the text in lines of at most so many characters, unless a word is longer.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().expect("there is always a line");
        if last.is_empty() {
            last.push_str(word);
        } else if last.chars().count() + 1 + word.chars().count() <= width {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_command_is_in_one_group() {
        let root = super::super::whole();
        let compose = root.find_subcommand("compose").unwrap();
        for (command, groups) in [(&root, ROOT), (compose, COMPOSE)] {
            let shown: Vec<&str> = groups.iter().flat_map(|(_, names)| names.iter().copied()).collect();
            let once: BTreeSet<&str> = shown.iter().copied().collect();
            assert_eq!(once.len(), shown.len(), "none is in two groups");
            let there: BTreeSet<&str> =
                command.get_subcommands().filter(|c| !c.is_hide_set()).map(Command::get_name).collect();
            assert_eq!(once, there, "of {}", command.get_name());
        }
    }

    #[test]
    fn commands_stand_in_their_groups_and_global_options_last_on_every_level() {
        let mut root = super::super::whole();
        let help = root.render_long_help().to_string();
        let place = |text: &str| help.find(text).unwrap_or_else(|| panic!("{text:?} is missing in\n{help}"));
        assert!(place("Every day:\n  run ") < place("The swarm:\n  swarm ") && !help.contains("\nCommands:"));
        assert!(place("  man ") < place("\nGlobal options:\n") && !help.contains("{{"));
        assert!(!help.contains("lab-host") && !help.contains("  oci "), "what is hidden is not shown");
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
        last(&root, "rswarm");
    }

    fn last(command: &Command, path: &str) {
        for below in command.get_subcommands().filter(|c| !c.is_hide_set()) {
            let path = format!("{path} {}", below.get_name());
            let help = below.clone().render_long_help().to_string();
            if path != "rswarm compose" {
                let place = help.find("\nGlobal options:\n");
                let place = place.unwrap_or_else(|| panic!("{path} has no global options:\n{help}"));
                let host = help.find("-H, --host").unwrap_or_default();
                assert!(host > place, "{path}: -H stands among its own options\n{help}");
                for heading in ["\nOptions:\n", "\nArguments:\n", "\nCommands:\n"] {
                    assert!(
                        help.find(heading).is_none_or(|at| at < place),
                        "{path}: {heading} is behind\n{help}"
                    );
                }
            }
            last(below, &path);
        }
    }
}
