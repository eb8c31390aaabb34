//! Secrets, configs, networks and volumes.

use super::{each, image, inspect, pairs};
use crate::{
    cli::{Blob, ListArgs, Network, NetworkAddresses, Volume},
    list::{self, List},
    output,
};
use anyhow::{Context, Result, bail};
use axum::body::Body;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use docker_api::{client::Client, types};
use ipnet::IpNet;
use std::{net::IpAddr, path::Path};

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
        Blob::Create { name, file, label, driver, template_driver } => {
            let data = BASE64_STANDARD.encode(read(&file)?);
            let state = |name| types::DriverState { name, ..Default::default() };
            let (driver, templating) = (driver.map(state), template_driver.map(state));
            let spec = types::SecretSpec { name, labels: pairs(&label), data, driver, templating };
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
        Blob::Create { driver: Some(driver), .. } => {
            bail!("--driver {driver}: a config has no driver; the managers keep it")
        }
        Blob::Create { name, file, label, driver: None, template_driver } => {
            let data = BASE64_STANDARD.encode(read(&file)?);
            let templating = template_driver.map(|name| types::DriverState { name, ..Default::default() });
            let spec = types::ConfigSpec { name, labels: pairs(&label), data, templating };
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
    table.sort_by("Name");
    table.print(args)
}

/// Brings what belongs to one subnet together, as Docker's CLI does.
fn ipam(given: &NetworkAddresses) -> Result<Vec<types::IpamConfig>> {
    let mut configs: Vec<(Option<IpNet>, types::IpamConfig)> = Vec::new();
    for subnet in &given.subnet {
        let net = subnet.parse().with_context(|| format!("--subnet: invalid CIDR address: {subnet}"))?;
        configs.push((Some(net), types::IpamConfig { subnet: subnet.clone(), ..Default::default() }));
    }
    if configs.is_empty() {
        configs.push((None, types::IpamConfig::default()));
    }
    let of = |flag: &str, text: &str, address: &str| -> Result<usize> {
        let address: IpAddr = address.parse().with_context(|| format!("{flag}: invalid address: {text}"))?;
        let place = configs.iter().position(|(net, _)| net.is_none_or(|net| net.contains(&address)));
        place.with_context(|| format!("{flag}: no matching subnet for {text}"))
    };
    let gateways = given.gateway.iter().map(|g| of("--gateway", g, g)).collect::<Result<Vec<_>>>()?;
    let base = |range: &str| range.split_once('/').map_or(range, |(base, _)| base).to_owned();
    let ranges = given.ip_range.iter().map(|r| of("--ip-range", r, &base(r))).collect::<Result<Vec<_>>>()?;
    let aux = given.aux_address.iter().map(|text| {
        let (_, address) =
            text.split_once('=').with_context(|| format!("--aux-address: {text} is not name=address"))?;
        of("--aux-address", text, address)
    });
    let aux = aux.collect::<Result<Vec<_>>>()?;
    for (place, gateway) in gateways.into_iter().zip(&given.gateway) {
        configs[place].1.gateway.clone_from(gateway);
    }
    for (place, range) in ranges.into_iter().zip(&given.ip_range) {
        configs[place].1.ip_range.clone_from(range);
    }
    for (place, text) in aux.into_iter().zip(&given.aux_address) {
        configs[place].1.auxiliary_addresses.extend(pairs(std::slice::from_ref(text)));
    }
    Ok(configs.into_iter().map(|(_, config)| config).filter(|c| *c != types::IpamConfig::default()).collect())
}

pub(crate) async fn network(client: &Client, command: Network) -> Result<()> {
    match command {
        Network::Create { driver, addresses, attachable, internal, scope, label, options, name } => {
            let config = ipam(&addresses)?;
            let ipam_options = (!addresses.ipam_opt.is_empty()).then(|| pairs(&addresses.ipam_opt));
            let ipam = types::Ipam {
                config,
                driver: addresses.ipam_driver.clone().unwrap_or_default(),
                options: ipam_options,
            };
            let spec = types::NetworkCreate {
                name,
                driver,
                attachable,
                internal,
                labels: pairs(&label),
                options: pairs(&options),
                enable_ipv4: addresses.ipv4,
                enable_ipv6: addresses.ipv6.then_some(true),
                scope: scope.unwrap_or_default(),
                ipam: Some(ipam).filter(|ipam| *ipam != types::Ipam::default()),
                ..Default::default()
            };
            let created = client.network_create(&spec).await?;
            if !created.warning.is_empty() {
                output::warning(&created.warning);
            }
            output::line(&created.id)
        }
        Network::Connect {
            alias,
            ip,
            ip6,
            link_local_ip,
            link,
            driver_opt,
            gw_priority,
            network,
            container,
        } => {
            let ipam = types::EndpointIpam {
                ipv4_address: ip.unwrap_or_default(),
                ipv6_address: ip6.unwrap_or_default(),
                link_local_ips: link_local_ip,
            };
            let endpoint = types::EndpointSettings {
                aliases: (!alias.is_empty()).then_some(alias),
                ipam_config: Some(ipam).filter(|ipam| *ipam != types::EndpointIpam::default()),
                links: (!link.is_empty()).then_some(link),
                driver_opts: (!driver_opt.is_empty()).then(|| pairs(&driver_opt)),
                gw_priority,
                ..Default::default()
            };
            let connect = types::NetworkConnect { container, endpoint_config: Some(endpoint) };
            Ok(client.network_connect(&network, &connect).await?)
        }
        Network::Disconnect { force, network, container } => {
            let disconnect = types::NetworkDisconnect { container, force };
            Ok(client.network_disconnect(&network, &disconnect).await?)
        }
        Network::Ls { list: args, no_trunc } => {
            let filters = list::filters(&args.filter)?;
            let mut table = List::new(&[
                ("NETWORK ID", "ID"),
                ("NAME", "Name"),
                ("DRIVER", "Driver"),
                ("SCOPE", "Scope"),
            ]);
            for n in client.networks(&[("filters", &filters)]).await? {
                let id = if no_trunc { n.id } else { n.id.chars().take(12).collect() };
                table.row(vec![id, n.name, n.driver, n.scope]);
            }
            table.sort_by("Name");
            table.print(&args)
        }
        Network::Prune(args) => super::prune::run(client, super::prune::Kind::Networks, &args).await,
        Network::Inspect { inspect: args, verbose } => {
            inspect(client, if verbose { "networks?verbose=1" } else { "networks" }, &args).await
        }
        Network::Rm { names, force } => {
            each(&names, async |name| match client.network_remove(name).await {
                Err(error) if force && error.is_not_found() => Ok(()),
                removed => Ok(removed?),
            })
            .await
        }
    }
}

pub(crate) async fn volume(client: &Client, command: Volume) -> Result<()> {
    match command {
        Volume::Create { driver, label, options, name } => {
            let spec = types::VolumeCreate {
                name: name.unwrap_or_default(),
                driver,
                driver_opts: pairs(&options),
                labels: pairs(&label),
            };
            output::line(&client.volume_create(&spec).await?.name)
        }
        Volume::Ls(args) => {
            let filters = list::filters(&args.filter)?;
            let mut table = List::new(&[("VOLUME NAME", "Name"), ("DRIVER", "Driver")]);
            for v in client.volumes(&[("filters", &filters)]).await?.volumes {
                table.row(vec![v.name, v.driver]);
            }
            table.sort_by("Name");
            table.print(&args)
        }
        Volume::Export { output, name } => {
            output.as_deref().map_or(Ok(()), super::placed::check)?;
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
