//! Tells the program which commit it was made of. What is built without a repository or without git does not know.

use std::process::Command;

fn main() {
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

/// Returns what git says; `None` if it is not there or has nothing to say.
fn git(args: &[&str]) -> Option<String> {
    let answer = Command::new("git").args(args).output().ok().filter(|answer| answer.status.success())?;
    let text = String::from_utf8(answer.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}
