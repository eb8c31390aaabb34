//! What can be typed of people: users of the swarm, and what was done by whom.

use super::{InspectArgs, ListArgs, Names, parse_duration};
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum User {
    /// Let somebody use the swarm.
    Add(UserAdd),
    /// List users.
    Ls(ListArgs),
    /// Show users with their tokens.
    Inspect(InspectArgs),
    /// Change a user's role.
    Update(UserAdd),
    /// Remove users: their tokens and certificates are worth nothing at once.
    Rm(Names),
    /// Set or change a password, asked for here.
    Passwd(UserPasswd),
    /// What a user shows instead of a password.
    #[command(subcommand)]
    Token(UserToken),
    /// Make a key and a certificate to be shown with --tlsverify, also by docker.
    Cert(UserCert),
    /// Take back one certificate or token: it is worth nothing at once. `inspect` shows what a user has.
    Revoke(UserRevoke),
    /// Act as a user towards this daemon from now on.
    Login(UserLogin),
    /// Forget the login.
    Logout,
    /// Show who one is to the swarm.
    Whoami(super::FormatArgs),
}

#[derive(Debug, Args)]
pub(crate) struct UserAdd {
    /// Name of the user.
    pub(crate) name: String,
    /// admin: everything; deploy: services and stacks; read: looks, but not at secrets.
    #[arg(long, value_parser = ["admin", "deploy", "read"])]
    pub(crate) role: String,
    /// With role deploy: only stacks of this name, * and ? as in a shell; may be repeated.
    #[arg(long, value_name = "PATTERN")]
    pub(crate) stack: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct UserPasswd {
    /// Name of the user.
    pub(crate) name: String,
    /// Read the password from standard input.
    #[arg(long)]
    pub(crate) password_stdin: bool,
    /// No login by password any more.
    #[arg(long, conflicts_with = "password_stdin")]
    pub(crate) remove: bool,
}

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum UserToken {
    /// Make a token; it is printed once.
    Create {
        /// Name of the user.
        user: String,
        /// What it is for.
        #[arg(long, default_value = "")]
        label: String,
        #[command(flatten)]
        life: Life,
    },
    /// List a user's tokens.
    Ls {
        /// Name of the user.
        user: String,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Remove tokens by id: they are worth nothing at once.
    Rm {
        /// Name of the user.
        user: String,
        /// Ids of tokens, as `ls` shows them.
        #[arg(required = true)]
        tokens: Vec<String>,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Life {
    /// How long it is good for, e.g. 12h or 30d; never: it does not expire.
    #[arg(long, default_value = "90d", value_parser = parse_life)]
    pub(crate) expires: Lifetime,
}

/// How long a token is good for; `None`: it does not expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lifetime(pub(crate) Option<std::time::Duration>);

#[derive(Debug, Args)]
pub(crate) struct UserCert {
    /// Name of the user.
    pub(crate) name: String,
    /// Folder for key.pem and cert.pem, made if it is not there.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: PathBuf,
    /// How long it is good for, e.g. 12h or 30d.
    #[arg(long, default_value = "90d", value_parser = parse_days)]
    pub(crate) expires: std::time::Duration,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true, args = ["certificate", "token"])]
pub(crate) struct UserRevoke {
    /// Name of the user.
    pub(crate) name: String,
    /// Serial number of a certificate; may be repeated.
    #[arg(long, value_name = "SERIAL")]
    pub(crate) certificate: Vec<String>,
    /// Id of a token; may be repeated.
    #[arg(long, value_name = "ID")]
    pub(crate) token: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct UserLogin {
    /// Log in with this user's password; without it a token is asked for.
    pub(crate) name: Option<String>,
    /// Read the password from standard input.
    #[arg(long, requires = "name")]
    pub(crate) password_stdin: bool,
    /// Read the token from standard input.
    #[arg(long, conflicts_with = "name")]
    pub(crate) token_stdin: bool,
    /// With a password: how long the login lasts, e.g. 12h or 30d.
    #[arg(long, default_value = "12h", value_parser = parse_days)]
    pub(crate) expires: std::time::Duration,
}

#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// From then on: 10m (ago), 2026-01-31T12:00:00Z, or seconds since 1970.
    #[arg(long)]
    pub(crate) since: Option<String>,
    /// What this user did.
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// What was done to this: a kind, a name, or both, e.g. service, web, "service web".
    #[arg(long)]
    pub(crate) object: Option<String>,
    /// `json`, `table`, or a template such as '{{.Person}}'.
    #[arg(long)]
    pub(crate) format: Option<String>,
}

/// Reads `30d` beside what [`parse_duration`] reads.
fn parse_days(text: &str) -> Result<std::time::Duration, String> {
    let days = text.strip_suffix('d').and_then(|days| days.parse::<u64>().ok());
    match days.and_then(|days| days.checked_mul(24 * 3600)) {
        Some(seconds) if seconds > 0 => Ok(std::time::Duration::from_secs(seconds)),
        Some(_) => Err(format!("{text:?} is no time at all")),
        None => {
            let life =
                parse_duration(text).map_err(|_| format!("{text:?} is not a time such as 12h or 30d"))?;
            if life.as_secs() == 0 { Err(format!("{text:?} is less than a second")) } else { Ok(life) }
        }
    }
}

fn parse_life(text: &str) -> Result<Lifetime, String> {
    if text == "never" { Ok(Lifetime(None)) } else { parse_days(text).map(|life| Lifetime(Some(life))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_read_as_people_write_them() {
        let seconds = |text| parse_life(text).map(|life| life.0.map(|d| d.as_secs()));
        assert_eq!(seconds("90d"), Ok(Some(90 * 86_400)));
        assert_eq!(seconds("1h30m"), Ok(Some(5400)));
        assert_eq!(seconds("never"), Ok(None));
        for bad in ["", "0d", "5", "1ms", "-1d", "999999999999999999d"] {
            assert!(parse_life(bad).is_err(), "{bad}");
        }
    }
}
