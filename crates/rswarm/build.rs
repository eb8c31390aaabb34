//! Tells the program which commit it was made of (what is built without a repository or without git does not know), and
//! the linker to pack what it leaves to be relocated at start.

use std::process::Command;

/// The first C library whose start code unpacks relocations, also of a static program. *Source:* glibc 2.36, NEWS
/// ("DT_RELR").
const UNPACKS_RELOCATIONS: (u32, u32) = (2, 36);

fn main() {
    // A program loaded anywhere has some 100,000 addresses to mend: 24 bytes each, or one bit. Start code that does not
    // know of the packed form would leave them as they are, and the program would end at once.
    if c_library().is_some_and(|version| version >= UNPACKS_RELOCATIONS) {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    println!("cargo::rustc-env=RSWARM_TARGET={}", std::env::var("TARGET").unwrap_or_default());
    let commit = git(&["log", "-1", "--format=%H"]);
    println!("cargo::rustc-env=RSWARM_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    // The commit's date, not the build's: the same source makes the same program.
    let date = git(&["log", "-1", "--format=%cI"]);
    println!("cargo::rustc-env=RSWARM_COMMIT_DATE={}", date.as_deref().unwrap_or("unknown"));
    println!("cargo::rerun-if-changed=build.rs");
    // Where the commit stands: of a branch in its own file, which a repository may have packed away.
    let branch = git(&["symbolic-ref", "-q", "HEAD"]);
    for name in [Some("HEAD".to_owned()), branch].into_iter().flatten() {
        if let Some(path) =
            git(&["rev-parse", "--git-path", &name]).filter(|p| std::path::Path::new(p).exists())
        {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

/// Returns the version of the C library that is linked in; `None` if it is not the one of this machine, or not glibc.
fn c_library() -> Option<(u32, u32)> {
    let (host, target) = (std::env::var("HOST").ok()?, std::env::var("TARGET").ok()?);
    let answer = says(Command::new("getconf").arg("GNU_LIBC_VERSION")).filter(|_| host == target)?;
    let (major, minor) = answer.strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.split('.').next()?.parse().ok()?))
}

fn git(args: &[&str]) -> Option<String> {
    says(Command::new("git").args(args))
}

/// Returns what a command says; `None` if it is not there or has nothing to say.
fn says(command: &mut Command) -> Option<String> {
    let answer = command.output().ok().filter(|answer| answer.status.success())?;
    let text = String::from_utf8(answer.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}
