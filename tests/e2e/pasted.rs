//! A new user's hour: what README and examples say to type is taken out of them and typed, on the hosts of a lab.

use crate::{SOON, lab, program, swarm};
use std::{
    fs,
    path::{Path, PathBuf},
};
use testkit::{Lab, Output, wait_for};

/// A folder of this repository's, wherever the test is run.
fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Returns what a file's header says to try.
fn tried(text: &str) -> Vec<String> {
    let header = text.lines().take_while(|line| line.starts_with('#'));
    let from =
        header.skip_while(|line| !line.starts_with("# Try:")).take_while(|line| !line.starts_with("# See:"));
    from.map(|line| line.trim_start_matches("# Try:").trim_start_matches('#').trim().to_owned()).collect()
}

/// Somebody at a terminal: what he types is run by a shell on a host of the lab.
struct Person {
    /// Where he is.
    folder: PathBuf,
    home: PathBuf,
    /// Programs found before those of this machine.
    bin: PathBuf,
    typed: usize,
}

impl Person {
    /// `examples` lie in his folder.
    fn at(lab: &Lab, name: &str) -> Self {
        let home = lab.dir().join(name);
        let (folder, bin) = (home.join("rswarm"), home.join("bin"));
        fs::create_dir_all(&bin).expect("a folder");
        copy(&repository().join("examples"), &folder.join("examples"));
        std::os::unix::fs::symlink(program(), bin.join("rswarm")).expect("a link");
        let person = Self { folder, home, bin, typed: 0 };
        // What the examples are looked at with, where that is not installed.
        let found = std::env::var_os("PATH")
            .is_some_and(|all| std::env::split_paths(&all).any(|folder| folder.join("curl").is_file()));
        if !found {
            person.program("curl", "exec rswarm hello get \"$1\"");
        }
        person
    }

    fn program(&self, name: &str, text: &str) -> PathBuf {
        let path = self.bin.join(name);
        testkit::write_program(&path, &format!("#!/bin/sh\n{text}\n"), 0o755);
        path
    }

    /// Runs a line on host `n` and returns how it ended; what has a Ctrl-C in its comment goes on until `ready` and gets
    /// one then.
    fn types(&mut self, lab: &mut Lab, n: u8, line: &str, ready: impl Fn(&str) -> bool) -> Output {
        if let Some(folder) = line.strip_prefix("cd ") {
            self.folder = self.folder.join(folder);
            return Output { code: 0, stdout: String::new(), stderr: String::new() };
        }
        self.typed += 1;
        let pid = self.home.join("pid");
        let script = self.program(
            &format!("typed-{}", self.typed),
            &format!(
                "cd {} || exit\nunset DOCKER_HOST DOCKER_CONFIG RSWARM_CONFIG RSWARM_TOKEN XDG_CONFIG_HOME\n\
                 PATH={}:$PATH HOME={} RSWARM_HOST=unix://{}\nexport PATH HOME RSWARM_HOST\n\
                 echo $$ >{}\n{}{line}",
                self.folder.display(),
                self.bin.display(),
                self.home.display(),
                lab.socket(n).display(),
                pid.display(),
                if line.contains("Ctrl-C") { "exec " } else { "" },
            ),
        );
        let typed = lab.exec(n, &[script.to_str().expect("a path")]).expect("a host that runs it");
        if line.contains("Ctrl-C") {
            wait_for(&format!("{line:?} to be there"), SOON, || {
                let said = typed.said();
                if ready(&said) { Ok(()) } else { Err(format!("{said}{}", lab.daemon_logs())) }
            });
            let interrupt = self.program("interrupt", &format!("kill -INT $(cat {})", pid.display()));
            lab.exec(n, &[interrupt.to_str().expect("a path")]).expect("a host").wait(SOON).expect("its end");
        }
        typed
            .wait(SOON * 3)
            .unwrap_or_else(|error| panic!("{line:?} does not end: {error:#}{}", lab.daemon_logs()))
    }

    /// Types what a file says to try and sees that it works; lines that are to fail say so.
    fn tries(&mut self, lab: &mut Lab, path: &Path) {
        let text = fs::read_to_string(path).expect("a readable file");
        let lines = tried(&text);
        assert!(!lines.is_empty(), "{} has nothing to try", path.display());
        for line in &lines {
            let said = self.types(lab, 1, line, |_| true);
            let failed = said.code != 0;
            assert_eq!(
                failed,
                line.contains("# fails"),
                "{}: {line}\n{said:?}{}",
                path.display(),
                lab.daemon_logs()
            );
            if line.contains("curl ") {
                let answered = said.stdout.contains("Hello ") || said.stdout.lines().any(|line| line == "ok");
                assert!(answered, "{}: {line}\n{said:?}{}", path.display(), lab.daemon_logs());
            }
        }
        let name = text.lines().find_map(|line| line.strip_prefix("name: ")).expect("a name");
        lab.rswarm(1, &["stack", "rm", name]).ok();
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a readable folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("its type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

fn sorted(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    all.sort();
    all
}

#[test]
fn what_the_lessons_say_to_try_works() {
    let mut lab = swarm(2, 1);
    let mut person = Person::at(&lab, "ann");
    let folder = repository().join("examples");
    let lessons: Vec<PathBuf> = sorted(&folder).into_iter().filter(|path| path.is_file()).collect();
    assert_eq!(lessons.len(), 8, "{lessons:?}");
    for lesson in lessons {
        person.tries(&mut lab, &lesson);
    }
    person.tries(&mut lab, &folder.join("hello/stack.yml"));
}

#[test]
fn what_the_applications_say_to_try_works() {
    let mut lab = swarm(3, 3);
    let mut person = Person::at(&lab, "ann");
    assert_eq!(person.types(&mut lab, 1, "rswarm image hello", |_| true).code, 0);
    for app in sorted(&repository().join("examples/apps")) {
        person.tries(&mut lab, &app.join("compose.yaml"));
    }
}

#[test]
fn what_the_laptops_project_says_to_try_works() {
    let mut lab = lab(1);
    let mut person = Person::at(&lab, "ann");
    let text = fs::read_to_string(repository().join("examples/laptop/compose.yaml")).expect("the project");
    let lines = tried(&text);
    assert!(lines.len() > 5, "{lines:?}");
    for line in &lines {
        // A log's first line, or what `watch` says when it watches.
        let said = person.types(&mut lab, 1, line, |said| {
            said.contains("Watch enabled")
                || (!line.contains(" watch ") && said.contains("listening on port 80"))
        });
        // Ctrl-C is 130 in a shell; `watch` and `logs` end well.
        let fine = said.code == 0 || (line.contains("Ctrl-C") && said.code == 130);
        assert!(fine, "{line}\n{said:?}{}", lab.daemon_logs());
        if line.contains("curl ") {
            assert!(said.stdout.contains("Hello laptop!"), "{line}: {said:?}");
        }
    }
    assert_eq!(lab.rswarm(1, &["ps", "-aq"]).ok(), "", "`down` leaves nothing");
}

/// What of README's blocks is not typed here, and why.
const NOT_TYPED: &[(&str, &str)] = &[
    ("cargo demo", "it has a test of its own"),
    ("cargo test", "it would be this test's"),
    ("cargo xtask dist", "tests of `xtask` pack"),
    ("sudo sh ", "this machine's own is not replaced: tests of `xtask` install on hosts of theirs"),
    ("curl -fsSL https://example.org", "there is no such server: `xtask`'s tests install from a folder"),
    ("sudo apt ", "this machine's own is not replaced: an oracle of `xtask` has dpkg do it"),
    ("docker ", "Docker's CLI is an oracle: `docker_cli` types its words"),
];

/// Returns the commands of a text's fenced blocks: the prompt ($ or #) and the line.
fn fenced(text: &str) -> Vec<(char, String)> {
    let mut commands = Vec::new();
    let mut kind = None;
    for line in text.lines() {
        kind = match (line.strip_prefix("```"), kind) {
            (Some(_), Some(_)) => None,
            (Some(kind), None) => Some(kind),
            (None, Some("console")) => {
                commands.extend(line.strip_prefix("# ").map(|line| ('#', line.to_owned())));
                commands.extend(line.strip_prefix("$ ").map(|line| ('$', line.to_owned())));
                kind
            }
            (None, Some("sh")) if !line.trim().is_empty() => {
                commands.push(('#', line.to_owned()));
                kind
            }
            (None, other) => other,
        };
    }
    commands
}

#[test]
fn what_the_readme_says_to_type_works() {
    let mut lab = lab(3);
    let (mut root, mut dan) = (Person::at(&lab, "root"), Person::at(&lab, "dan"));
    for person in [&root, &dan] {
        // Whoever has installed it has these at hand.
        let lesson = fs::read_to_string(repository().join("examples/01-one-service.yaml")).expect("a lesson");
        fs::write(person.folder.join("stack.yml"), lesson.replace("name: lesson1", "name: stack"))
            .expect("a file");
        fs::write(person.folder.join("shop.yaml"), lesson.replace("name: lesson1", "name: shop"))
            .expect("a file");
    }
    let text = fs::read_to_string(repository().join("README.md")).expect("the README");
    let commands = fenced(&text);
    let (mut token, mut login, mut certificate, mut typed) = (String::new(), String::new(), String::new(), 0);
    for (prompt, line) in &commands {
        if NOT_TYPED.iter().any(|(start, _)| line.starts_with(start)) {
            continue;
        }
        typed += 1;
        // What stands for something that only this swarm has.
        let line =
            line.replace("sudo ", "").replace("192.0.2.1", &Lab::address(1)).replace("SWMTKN-1-...", &token);
        let line = line.replace("5f0c...", &certificate);
        let joins = line.contains("swarm join ");
        let line = match line.as_str() {
            line if line.contains("user login") => format!("printf '%s\\n' {login} | {line}"),
            line => line.to_owned(),
        };
        for n in if joins { 2..=3 } else { 1..=1 } {
            let person = if *prompt == '$' { &mut dan } else { &mut root };
            let said = person.types(&mut lab, n, &line, |_| true);
            assert_eq!(said.code, 0, "{line}\n{said:?}{}", lab.daemon_logs());
            let word = |start: &str| {
                said.stdout.split_whitespace().find(|word| word.starts_with(start)).map(str::to_owned)
            };
            if line.contains("join-token") {
                token = word("SWMTKN-").expect("a join token");
            }
            if line.contains("swarm init") {
                root.types(&mut lab, 1, "rswarm image hello", |_| true).ok();
            }
            if line.contains("token create") {
                login = said.stdout.lines().next().unwrap_or_default().trim().to_owned();
                let made = root.types(&mut lab, 1, "rswarm user cert dan --out certificate", |_| true).ok();
                let shown = root.types(&mut lab, 1, "rswarm user inspect dan", |_| true).ok();
                certificate = serial(&shown).unwrap_or_else(|| panic!("no certificate: {made}{shown}"));
            }
        }
    }
    assert!(typed >= 12, "of {commands:?} only {typed} were typed");
}

/// Returns the serial number of the first certificate in what `user inspect` shows.
fn serial(shown: &str) -> Option<String> {
    let rest = shown.split("\"Certificates\"").nth(1)?;
    let field = rest.split("\"Serial\"").nth(1)?;
    field.split('"').nth(1).map(str::to_owned)
}
