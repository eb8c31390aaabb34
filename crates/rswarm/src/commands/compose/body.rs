//! From a service of the file to what the Docker API makes a container of.

use super::{
    container::{self, Around},
    project::{Project, label},
    remote,
};
use crate::output;
use anyhow::{Context, Result, bail};
use compose::StackService;
use docker_api::types;
use image::Digest;
use model::FileRef;
use std::collections::BTreeMap;

/// What a container is made of.
pub(super) struct Recipe {
    pub(super) body: types::ContainerCreate,
    /// Networks besides the first, which a daemon before API 1.44 takes one by one.
    pub(super) more_networks: Vec<(String, types::EndpointSettings)>,
    /// Written into it before it starts: path in the container, who may read it, content.
    pub(super) files: Vec<(FileRef<String>, Vec<u8>)>,
}

/// Returns what a service's containers are made of. `containers`: the first container of each service so far.
///
/// # Errors
/// Something that the service refers to is not there.
pub(super) fn recipe(
    project: &Project,
    service: &StackService,
    containers: &BTreeMap<String, String>,
) -> Result<Recipe> {
    let (own_files, file_mounts) = files(project, service)?;
    let mut networks = endpoints(project, service)?;
    let mac = service.host.as_ref().and_then(|host| host.mac_address.as_ref());
    if let (Some((_, first)), Some(mac)) = (networks.first_mut(), mac) {
        first.mac_address.clone_from(mac);
    }
    let around = Around {
        env: project.environment(service),
        identity: identity(project, service),
        files: file_mounts,
        network: networks.first().map(|(name, _)| name.clone()),
        containers,
    };
    let (config, host_config) = container::of(service, around)?;
    let mut networks = networks.into_iter();
    let mut body = types::ContainerCreate {
        config,
        host_config: Some(host_config),
        networking_config: networks.next().map(|(name, endpoint)| types::NetworkingConfig {
            endpoints_config: [(name, Some(endpoint))].into(),
        }),
    };
    let more_networks: Vec<_> = networks.collect();
    let mut hashed = serde_json::to_vec(&(&body, &more_networks))?;
    for (file, data) in &own_files {
        hashed.extend(format!("{}{:?}", file.target, file.mode).into_bytes());
        hashed.extend(data);
    }
    body.config.labels.insert(label::HASH.to_owned(), hash(&hashed));
    Ok(Recipe { body, more_networks, files: own_files })
}

/// Returns what tells one wish from another, in hexadecimal digits.
pub(super) fn hash(wanted: &[u8]) -> String {
    let digest = Digest::of(wanted).to_string();
    digest.rsplit(':').next().unwrap_or_default().to_owned()
}

/// Returns the labels that say whose container it is.
fn identity(project: &Project, service: &StackService) -> Vec<(String, String)> {
    let condition = |condition| match condition {
        model::DependencyCondition::Started => "service_started",
        model::DependencyCondition::Healthy => "service_healthy",
        model::DependencyCondition::CompletedSuccessfully => "service_completed_successfully",
    };
    let restarts = |key: &String| service.host.as_ref().is_some_and(|h| h.restarts_with.contains(key));
    let needs = project.needs(service);
    let needs = needs.iter().map(|(key, c)| format!("{key}:{}:{}", condition(*c), restarts(key)));
    let files = project.files.iter().map(|f| match remote::is_remote(f) {
        true => f.display().to_string(),
        false => std::path::absolute(f).unwrap_or_else(|_| f.clone()).display().to_string(),
    });
    [
        (label::PROJECT, project.name.clone()),
        (label::SERVICE, service.key.clone()),
        (label::FOLDER, project.folder.display().to_string()),
        (label::FILES, files.collect::<Vec<_>>().join(",")),
        (label::DEPENDS, needs.collect::<Vec<_>>().join(",")),
        (label::VERSION, env!("CARGO_PKG_VERSION").to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// Returns the networks of a service, that with the highest priority first.
pub(super) fn endpoints(
    project: &Project,
    service: &StackService,
) -> Result<Vec<(String, types::EndpointSettings)>> {
    let mut attachments: Vec<_> = service.networks.iter().collect();
    attachments.sort_by_key(|a| std::cmp::Reverse(a.address.priority));
    let stack = project.stack()?;
    let endpoint = |attachment: &&compose::StackAttachment| {
        let address = &attachment.address;
        let ipam = types::EndpointIpam {
            ipv4_address: address.ipv4.map(|ip| ip.to_string()).unwrap_or_default(),
            ipv6_address: address.ipv6.map(|ip| ip.to_string()).unwrap_or_default(),
            link_local_ips: address.link_local.clone(),
        };
        let endpoint = types::EndpointSettings {
            ipam_config: Some(ipam).filter(|ipam| *ipam != types::EndpointIpam::default()),
            aliases: Some(attachment.aliases.clone()),
            mac_address: address.mac.clone().unwrap_or_default(),
            gw_priority: address.gateway_priority,
            driver_opts: (!address.driver_opts.is_empty()).then(|| address.driver_opts.clone()),
            ..Default::default()
        };
        (attachment.network.clone(), endpoint)
    };
    debug_assert!(attachments.iter().all(|a| stack.networks.iter().any(|n| n.name == a.network)));
    Ok(attachments.iter().map(endpoint).collect())
}

type Files = (Vec<(FileRef<String>, Vec<u8>)>, Vec<types::Mount>);

/// Secrets and configs: a file of this host is mounted, other content is written into the container.
fn files(project: &Project, service: &StackService) -> Result<Files> {
    let stack = project.stack()?;
    let (mut written, mut mounted) = (Vec::new(), Vec::new());
    let mut add = |wanted: &FileRef<String>,
                   folder: &str,
                   file: Option<&std::path::PathBuf>,
                   data: Option<&[u8]>| {
        let target = match wanted.target.starts_with('/') {
            true => wanted.target.clone(),
            false => format!("{folder}{}", wanted.target),
        };
        if file.is_some() && (wanted.mode != 0o444 || wanted.uid != "0" || wanted.gid != "0") {
            output::warning(&format!(
                "service {}: {} is mounted, and keeps the owner and mode that it has here",
                service.key, wanted.name
            ));
        }
        match (file, data) {
            (Some(file), _) => {
                if !file.exists() {
                    bail!("service {}: {} is missing", service.key, file.display());
                }
                mounted.push(types::Mount {
                    kind: "bind".to_owned(),
                    source: file.display().to_string(),
                    target,
                    read_only: true,
                    ..Default::default()
                });
            }
            (None, Some(data)) => written.push((FileRef { target, ..wanted.clone() }, data.to_vec())),
            (None, None) => bail!(
                "service {}: {} has no content; hint: one host keeps no external ones, and a variable must be set",
                service.key,
                wanted.name
            ),
        }
        Ok(())
    };
    for wanted in &service.secrets {
        let secret =
            stack.secrets.iter().find(|s| s.name == wanted.id).context("a secret without definition")?;
        add(wanted, "/run/secrets/", secret.file.as_ref(), secret.data.as_ref().map(|d| d.0.as_slice()))?;
    }
    for wanted in &service.configs {
        let config =
            stack.configs.iter().find(|c| c.name == wanted.id).context("a config without definition")?;
        add(wanted, "/", config.file.as_ref(), config.data.as_deref())?;
    }
    Ok((written, mounted))
}

/// Returns a tar of files, by their paths from the root.
///
/// # Errors
/// An owner that is no number.
pub(super) fn tar_of(files: &[(FileRef<String>, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (file, data) in files {
        let number = |text: &str| -> Result<u64> {
            text.parse().with_context(|| format!("{}: owner {text:?} is no number", file.name))
        };
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(file.mode);
        header.set_uid(number(&file.uid)?);
        header.set_gid(number(&file.gid)?);
        tar.append_data(&mut header, file.target.trim_start_matches('/'), data.as_slice())?;
    }
    Ok(tar.into_inner()?)
}
