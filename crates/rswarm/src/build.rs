//! What this program was made of.

/// Semantic version.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit, 40 hex digits; `unknown` when it was built outside a repository.
pub(crate) const COMMIT: &str = env!("RSWARM_COMMIT");
/// When that was committed, RFC 3339; or `unknown`.
pub(crate) const COMMIT_DATE: &str = env!("RSWARM_COMMIT_DATE");
/// The machine it runs on, as Rust names it.
pub(crate) const TARGET: &str = env!("RSWARM_TARGET");
/// All of these, for `--version`.
pub(crate) const LONG: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit: ",
    env!("RSWARM_COMMIT"),
    "\ndate:   ",
    env!("RSWARM_COMMIT_DATE"),
    "\ntarget: ",
    env!("RSWARM_TARGET")
);
