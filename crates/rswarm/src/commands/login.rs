//! `rswarm login` and `logout`, and the accounts that `pull` and `push` use: Docker's own `config.json`.
//!
//! *Source:* docker CLI, "docker login": `auths` by registry, base64 of `user:password`.

use crate::{
    cli::{LoginArgs, LogoutArgs},
    output,
};
use anyhow::{Context, Result, bail};
use base64::{Engine, prelude::BASE64_STANDARD};
use docker_api::{client::Client, types::AuthConfig};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::{BufRead, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

/// What Docker calls its hub in `config.json`.
const HUB: &str = "https://index.docker.io/v1/";

fn file() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("DOCKER_CONFIG") {
        return Ok(PathBuf::from(folder).join("config.json"));
    }
    let home = std::env::var_os("HOME").context("neither DOCKER_CONFIG nor HOME is set")?;
    Ok(PathBuf::from(home).join(".docker/config.json"))
}

fn read() -> Result<Value> {
    let path = file()?;
    match std::fs::read(&path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).with_context(|| format!("cannot read {}", path.display()))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(json!({})),
        Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Replaces the file; for the owner's eyes only.
fn write(config: &Value) -> Result<()> {
    let path = file()?;
    let folder = path.parent().context("a folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let new = path.with_extension("json.new");
    let write = || -> std::io::Result<()> {
        let mut options = std::fs::OpenOptions::new();
        let mut out = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        out.write_all(serde_json::to_string_pretty(config)?.as_bytes())?;
        out.sync_all()?;
        std::fs::rename(&new, &path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

fn key(server: Option<&str>) -> String {
    match server {
        None | Some("docker.io" | "index.docker.io") => HUB.to_owned(),
        Some(server) => server.trim_start_matches("https://").trim_start_matches("http://").to_owned(),
    }
}

/// Returns the account for an image's registry, if there is one.
///
/// # Errors
/// The file is there and cannot be read.
pub(crate) fn account(image: &str) -> Result<Option<AuthConfig>> {
    let registry = match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => Some(first),
        _ => None,
    };
    let key = key(registry);
    let config = read()?;
    Ok(config["auths"].get(&key).map(|entry| account_of(&key, entry)))
}

/// Returns all accounts, by registry as the file names them.
///
/// # Errors
/// As [`account`].
pub(crate) fn accounts() -> Result<BTreeMap<String, AuthConfig>> {
    let config = read()?;
    let entries = config["auths"].as_object().into_iter().flatten();
    Ok(entries.map(|(key, entry)| (key.clone(), account_of(key, entry))).collect())
}

fn account_of(key: &str, entry: &Value) -> AuthConfig {
    let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let mut account = AuthConfig {
        identity_token: text("identitytoken"),
        server_address: key.to_owned(),
        ..AuthConfig::default()
    };
    if let Ok(pair) = BASE64_STANDARD.decode(text("auth"))
        && let Ok(pair) = String::from_utf8(pair)
        && let Some((user, password)) = pair.split_once(':')
    {
        user.clone_into(&mut account.username);
        password.clone_into(&mut account.password);
    }
    account
}

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
    let account = AuthConfig { username, password, server_address: server.clone(), ..AuthConfig::default() };
    let said = client.login(&account).await?;
    let mut config = read()?;
    let entry = if said.identity_token.is_empty() {
        json!({"auth": BASE64_STANDARD.encode(format!("{}:{}", account.username, account.password))})
    } else {
        json!({"identitytoken": said.identity_token})
    };
    config["auths"][server] = entry;
    write(&config)?;
    output::line(&said.status)
}

pub(crate) fn logout(args: &LogoutArgs) -> Result<()> {
    let server = key(args.server.as_deref());
    let mut config = read()?;
    let known = config["auths"].as_object_mut().and_then(|auths| auths.remove(&server));
    if known.is_some() {
        write(&config)?;
    }
    output::line(&format!("Removing login credentials for {server}"))
}
