//! Secrets, configs, networks and volumes.

use super::{each, image, inspect, pairs};
use crate::{
    cli::{Blob, ListArgs, Network, Volume},
    list::{self, List},
    output,
};
use anyhow::{Context, Result};
use axum::body::Body;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use docker_api::{client::Client, types};
use std::path::Path;

fn read(file: &Path) -> Result<Vec<u8>> {
    if file == Path::new("-") {
        let mut data = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin(), &mut data).context("cannot read standard input")?;
        return Ok(data);
    }
    std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

pub(crate) async fn secret(client: &Client, command: Blob) -> Result<()> {
    match command {
        Blob::Create { name, file, label } => {
            let data = BASE64_STANDARD.encode(read(&file)?);
            let spec = types::SecretSpec { name, labels: pairs(&label), data, ..Default::default() };
            output::line(&client.secret_create(&spec).await?.id)
        }
        Blob::Ls(args) => {
            let filters = list::filters(&args.filter)?;
            let secrets = client.secrets(&[("filters", &filters)]).await?;
            print(secrets.into_iter().map(|s| (s.id, s.spec.name, s.created_at, s.updated_at)), &args)
        }
        Blob::Inspect(args) => inspect(client, "secrets", &args).await,
        Blob::Rm(names) => {
            each(&names.names, async |name| Ok(client.secret_remove(&client.secret(name).await?.id).await?))
                .await
        }
    }
}

pub(crate) async fn config(client: &Client, command: Blob) -> Result<()> {
    match command {
        Blob::Create { name, file, label } => {
            let data = BASE64_STANDARD.encode(read(&file)?);
            let spec = types::ConfigSpec { name, labels: pairs(&label), data, ..Default::default() };
            output::line(&client.config_create(&spec).await?.id)
        }
        Blob::Ls(args) => {
            let filters = list::filters(&args.filter)?;
            let configs = client.configs(&[("filters", &filters)]).await?;
            print(configs.into_iter().map(|c| (c.id, c.spec.name, c.created_at, c.updated_at)), &args)
        }
        Blob::Inspect(args) => inspect(client, "configs", &args).await,
        Blob::Rm(names) => {
            each(&names.names, async |name| Ok(client.config_remove(&client.config(name).await?.id).await?))
                .await
        }
    }
}

fn print(
    rows: impl Iterator<Item = (String, String, types::Time, types::Time)>,
    args: &ListArgs,
) -> Result<()> {
    let mut table =
        List::new(&[("ID", "ID"), ("NAME", "Name"), ("CREATED", "CreatedAt"), ("UPDATED", "UpdatedAt")]);
    let now = list::now();
    for (id, name, created, updated) in rows {
        let ago = |t: types::Time| format!("{} ago", list::human(now.since(t.timestamp())));
        table.row(vec![id, name, ago(created), ago(updated)]);
    }
    table.print(args)
}

pub(crate) async fn network(client: &Client, command: Network) -> Result<()> {
    match command {
        Network::Create { driver, subnet, gateway, ip_range, attachable, internal, label, options, name } => {
            let config = types::IpamConfig {
                subnet: subnet.unwrap_or_default(),
                gateway: gateway.unwrap_or_default(),
                ip_range: ip_range.unwrap_or_default(),
                ..Default::default()
            };
            let given = config != types::IpamConfig::default();
            let spec = types::NetworkCreate {
                name,
                driver,
                attachable,
                internal,
                labels: pairs(&label),
                options: pairs(&options),
                ipam: given.then(|| types::Ipam { config: vec![config], ..Default::default() }),
                ..Default::default()
            };
            output::line(&client.network_create(&spec).await?.id)
        }
        Network::Connect { alias, ip, network, container } => {
            let ipam = ip.map(|ipv4_address| types::EndpointIpam { ipv4_address, ..Default::default() });
            let endpoint = types::EndpointSettings {
                aliases: (!alias.is_empty()).then_some(alias),
                ipam_config: ipam,
                ..Default::default()
            };
            let connect = types::NetworkConnect { container, endpoint_config: Some(endpoint) };
            Ok(client.network_connect(&network, &connect).await?)
        }
        Network::Disconnect { force, network, container } => {
            let disconnect = types::NetworkDisconnect { container, force };
            Ok(client.network_disconnect(&network, &disconnect).await?)
        }
        Network::Ls(args) => {
            let filters = list::filters(&args.filter)?;
            let mut table = List::new(&[
                ("NETWORK ID", "ID"),
                ("NAME", "Name"),
                ("DRIVER", "Driver"),
                ("SCOPE", "Scope"),
            ]);
            let mut networks = client.networks(&[("filters", &filters)]).await?;
            networks.sort_by(|a, b| a.name.cmp(&b.name));
            for n in networks {
                table.row(vec![n.id.chars().take(12).collect(), n.name, n.driver, n.scope]);
            }
            table.print(&args)
        }
        Network::Prune(args) => super::prune::run(client, super::prune::Kind::Networks, &args).await,
        Network::Inspect(args) => inspect(client, "networks", &args).await,
        Network::Rm(names) => each(&names.names, async |name| Ok(client.network_remove(name).await?)).await,
    }
}

pub(crate) async fn volume(client: &Client, command: Volume) -> Result<()> {
    match command {
        Volume::Create { label, options, name } => {
            let spec = types::VolumeCreate {
                name: name.unwrap_or_default(),
                driver_opts: pairs(&options),
                labels: pairs(&label),
                ..Default::default()
            };
            output::line(&client.volume_create(&spec).await?.name)
        }
        Volume::Ls(args) => {
            let filters = list::filters(&args.filter)?;
            let mut table = List::new(&[("VOLUME NAME", "Name"), ("DRIVER", "Driver")]);
            for v in client.volumes(&[("filters", &filters)]).await?.volumes {
                table.row(vec![v.name, v.driver]);
            }
            table.print(&args)
        }
        Volume::Export { output, name } => {
            image::download(client.volume_export(&name).await?, output.as_deref()).await
        }
        Volume::Import { input, force, name } => {
            let tar = image::upload(input.as_deref()).await?;
            output::line(&client.volume_import(&name, &[("force", flag(force))], tar).await?.name)
        }
        Volume::Cp { force, source, target } => {
            let query = [("from", source.as_str()), ("force", flag(force))];
            output::line(&client.volume_import(&target, &query, Body::empty()).await?.name)
        }
        Volume::Prune(args) => super::prune::run(client, super::prune::Kind::Volumes, &args).await,
        Volume::Inspect(args) => inspect(client, "volumes", &args).await,
        Volume::Rm { names, force } => {
            each(&names, async |name| Ok(client.volume_remove(name, force).await?)).await
        }
    }
}

fn flag(set: bool) -> &'static str {
    if set { "1" } else { "0" }
}
