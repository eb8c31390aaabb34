//! `rswarm login` and `logout`.

use super::credentials::{Credentials, key};
use crate::{
    cli::{LoginArgs, LogoutArgs},
    output,
};
use anyhow::{Result, bail};
use docker_api::{client::Client, types::AuthConfig};
use std::io::BufRead;

pub(crate) async fn login(client: &Client, args: &LoginArgs) -> Result<()> {
    let mut input = std::io::stdin().lock();
    let mut line = || -> Result<String> {
        let mut line = String::new();
        input.read_line(&mut line)?;
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    };
    let username = match &args.username {
        Some(username) => username.clone(),
        None if args.password_stdin => bail!("--password-stdin needs --username"),
        None => {
            output::prompt("Username: ")?;
            line()?
        }
    };
    let password = match &args.password {
        Some(password) => {
            output::warning(
                "a password on the command line is seen by everybody on this machine; use --password-stdin",
            );
            password.clone()
        }
        None if args.password_stdin => line()?,
        None => {
            output::prompt("Password: ")?;
            let _silent = crate::terminal::silent()?;
            let password = line()?;
            output::line("")?;
            password
        }
    };
    let server = key(args.server.as_deref());
    let account = AuthConfig { username, password, server_address: server, ..AuthConfig::default() };
    let said = client.login(&account).await?;
    let kept = AuthConfig { identity_token: said.identity_token, ..account };
    Credentials::read()?.keep(&kept)?;
    output::line(&said.status)
}

pub(crate) fn logout(args: &LogoutArgs) -> Result<()> {
    let server = key(args.server.as_deref());
    Credentials::read()?.forget(&server)?;
    output::line(&format!("Removing login credentials for {server}"))
}
