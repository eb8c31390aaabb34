//! `rswarm swarm backup`, `restore`, `recover` and `readdress`: what is left when a swarm's managers are not, or not
//! where they were.
//!
//! A passphrase stays in this process: the daemon gives the state to who asks on its own socket, and it is sealed here.

use super::placed::{self, Placed};
use crate::{
    cli::{SwarmBackup, SwarmReaddress, SwarmRecover, SwarmRestore},
    output,
};
use anyhow::{Context as _, Result, bail};
use docker_api::client::Client;
use std::{
    fs,
    io::{IsTerminal as _, Read as _, Write as _},
    path::Path,
};

/// What is said where no passphrase is asked for.
const IN_THE_CLEAR: &str = "the backup is not encrypted: whoever reads it has the swarm's keys, tokens and secrets; hint: \
                            --encrypt, or --passphrase-file";

pub(crate) async fn backup(client: &Client, args: &SwarmBackup) -> Result<()> {
    if args.to.is_none() && std::io::stdout().is_terminal() {
        bail!("a backup is not for a terminal; hint: --to FILE, or redirect");
    }
    args.to.as_deref().map_or(Ok(()), placed::check)?;
    let passphrase = match &args.passphrase_file {
        Some(file) => Some(first_line(file)?),
        None if args.encrypt => Some(ask_twice()?),
        None => None,
    };
    let mut bytes = client.swarm_backup().await?;
    match passphrase {
        Some(passphrase) => bytes = pki::passphrase::seal(&passphrase, &bytes)?,
        None => output::warning(IN_THE_CLEAR),
    }
    let Some(to) = &args.to else {
        return output::bytes(&bytes).context("cannot write the backup");
    };
    let placed = Placed::begin(to)?;
    placed
        .file()
        .and_then(|mut file| file.write_all(&bytes))
        .with_context(|| format!("cannot write {}", to.display()))?;
    placed.finish()?;
    output::line(&format!("{} bytes in {}", bytes.len(), to.display()))
}

fn first_line(file: &Path) -> Result<String> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn ask_twice() -> Result<String> {
    let first = super::user::secret("Passphrase: ", false)?;
    if super::user::secret("Again: ", false)? != first {
        bail!("these were two passphrases; nothing was written");
    }
    Ok(first)
}

pub(crate) async fn restore(client: &Client, args: &SwarmRestore) -> Result<()> {
    let from_stdin = args.file.as_os_str() == "-";
    let mut bytes = Vec::new();
    if from_stdin {
        std::io::stdin().read_to_end(&mut bytes).context("cannot read the backup from standard input")?;
    } else {
        bytes = fs::read(&args.file).with_context(|| format!("cannot read {}", args.file.display()))?;
    }
    if pki::passphrase::is_sealed(&bytes) {
        let passphrase = match &args.passphrase_file {
            Some(file) => first_line(file)?,
            None if from_stdin => bail!("the backup is encrypted; hint: --passphrase-file"),
            None => super::user::secret("Passphrase: ", false)?,
        };
        bytes = pki::passphrase::open(&passphrase, &bytes)
            .with_context(|| format!("cannot open {}", args.file.display()))?;
    } else if args.passphrase_file.is_some() {
        output::warning("the backup is not encrypted: the passphrase is not used");
    }
    let force = if args.force { "1" } else { "0" };
    let mut query = vec![("force", force)];
    let given = [
        ("advertiseaddr", &args.advertise_addr),
        ("listenaddr", &args.listen_addr),
        ("datapathaddr", &args.data_path_addr),
        ("availability", &args.availability),
    ];
    query.extend(given.iter().filter_map(|(key, value)| Some((*key, value.as_deref()?))));
    let node = client.swarm_restore(&query, bytes).await?;
    output::line(&format!(
        "The swarm is restored: this node ({node}) is its one manager.\n\nIts other nodes come back by themselves once \
         they reach it, former managers as workers.\n`rswarm node ls` shows them; `rswarm node rm` forgets those that \
         are gone for good."
    ))
}

pub(crate) async fn recover(client: &Client, args: &SwarmRecover) -> Result<()> {
    let force = if args.force { "1" } else { "0" };
    let mut query = vec![("force", force)];
    let given = [
        ("advertiseaddr", &args.advertise_addr),
        ("listenaddr", &args.listen_addr),
        ("datapathaddr", &args.data_path_addr),
    ];
    query.extend(given.iter().filter_map(|(key, value)| Some((*key, value.as_deref()?))));
    let node = client.swarm_recover(&query).await?;
    output::line(&format!(
        "The swarm goes on: this node ({node}) is its one manager.\n\nLost managers that come back are workers; \
         `rswarm node promote` makes managers of them again."
    ))
}

pub(crate) async fn readdress(client: &Client, args: &SwarmReaddress) -> Result<()> {
    let mut query = vec![("advertiseaddr", args.advertise_addr.as_str())];
    let given = [("listenaddr", &args.listen_addr), ("datapathaddr", &args.data_path_addr)];
    query.extend(given.iter().filter_map(|(key, value)| Some((*key, value.as_deref()?))));
    client.swarm_readdress(&query).await?;
    output::line(
        "This node has its new address; `rswarm node ls` and `node inspect` show it once the managers know it.",
    )
}
