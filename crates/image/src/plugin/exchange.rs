//! Plugins and registries: what one there asks for, its way here, and the way back.
//!
//! *Source:* OCI distribution-spec, "Pull", "Push"; moby `plugin/fetch_linux.go`, `plugin/registry.go`.

use super::{CONFIG_BYTES_MAX, PLUGIN_CONFIG, Parts, Plugin, Plugins, look_up};
use crate::{
    digest::Digest,
    error::{Error, Result},
    manifest::{DOCKER_MANIFEST, Descriptor, Manifest},
    pull, push,
    reference::Reference,
    registry::{Access, Endpoint, Payload},
    store::{Auth, Ingest, Progress, RegistryOptions, blocking, parse_manifest, verify},
};
use serde_json::Value;
use tokio::{io::AsyncReadExt as _, sync::mpsc};

/// A plugin at its registry, of which only the configuration is here.
#[derive(Debug)]
pub struct Remote {
    /// The document, in Docker's JSON.
    pub config: Vec<u8>,
    reference: Reference,
    endpoint: Endpoint,
    manifest: Manifest,
    layers: Vec<Descriptor>,
}

impl Plugins {
    /// Asks a registry for a plugin's configuration.
    ///
    /// # Errors
    /// Nobody answers, the registry refuses, there is no such name, or what has it is no plugin.
    pub async fn look_at(
        &self,
        reference: &Reference,
        auth: Option<Auth>,
        registries: &RegistryOptions,
    ) -> Result<Remote> {
        let http = &self.inner.http;
        let endpoint = Endpoint::of(http, reference, Access::PullPlugin, auth, registries).await?;
        let unknown = || Error::ManifestUnknown { reference: reference.to_string() };
        let manifest = endpoint.manifest(&reference.wanted()).await?.ok_or_else(unknown)?;
        if let Some(digest) = reference.digest {
            verify("manifest", digest, manifest.digest)?;
        }
        let no_plugin = |what: &str| Error::Unusable {
            what: "plugin",
            reason: format!("{reference} is none: the registry has a document of type {what} there"),
        };
        if manifest.is_index() {
            return Err(no_plugin(&manifest.media_type));
        }
        let parsed = parse_manifest(&manifest)?;
        if parsed.config.media_type != PLUGIN_CONFIG {
            return Err(no_plugin(&parsed.config.media_type));
        }
        let size = parsed.config.size_bytes;
        super::bounded("configuration", usize::try_from(size).unwrap_or(usize::MAX))?;
        let config = document(&endpoint, &parsed.config.digest).await?;
        Ok(Remote { config, reference: reference.clone(), endpoint, manifest, layers: parsed.layers })
    }

    /// Fetches the layers of a plugin, and keeps it under a name: as a new one, or in place of `replaced` (its id).
    ///
    /// # Errors
    /// As [`Plugins::look_at`]; [`Error::PluginExists`]; what came is not what was promised; the disk. Nothing is left.
    pub async fn install(
        &self,
        name: &Reference,
        remote: Remote,
        settings: Value,
        replaced: Option<String>,
        progress: &mpsc::Sender<Progress>,
    ) -> Result<Plugin> {
        if replaced.is_none() {
            self.check_free(name)?;
        }
        let mut layers = Vec::new();
        for layer in &remote.layers {
            layers.push((self.fetch(&remote.endpoint, layer, progress).await?, Some(layer.digest)));
        }
        let Remote { config, reference, manifest, .. } = remote;
        let digest = manifest.digest;
        let parts = Parts { config, manifest: manifest.bytes.to_vec(), layers };
        let plugin = self.keep(name, &reference, parts, settings, replaced).await?;
        Progress::say(progress, "", format!("Digest: {digest}")).await;
        Ok(plugin)
    }

    async fn fetch(
        &self,
        endpoint: &Endpoint,
        layer: &Descriptor,
        progress: &mpsc::Sender<Progress>,
    ) -> Result<Ingest> {
        let blobs = self.inner.blobs.clone();
        let mut ingest = blocking(move || blobs.begin()).await?;
        let gone = || Error::NotFound(layer.digest.to_string());
        let mut reader = endpoint.blob(&layer.digest, 0).await?.ok_or_else(gone)?;
        pull::copy(&mut reader, &mut ingest, layer, Some(progress)).await?;
        verify("blob", layer.digest, ingest.digest())?;
        Progress::say(progress, &layer.short(), "Download complete").await;
        Ok(ingest)
    }

    /// Uploads a plugin under its name; returns the manifest's digest.
    ///
    /// # Errors
    /// As [`Plugins::find`]; the registry refuses.
    pub async fn push(
        &self,
        name_or_id: &str,
        auth: Option<Auth>,
        registries: &RegistryOptions,
        progress: &mpsc::Sender<Progress>,
    ) -> Result<Digest> {
        let record = {
            let current = self.inner.lock();
            current[&look_up(&current, name_or_id)?].clone()
        };
        let reference: Reference = record.name.parse()?;
        let says = format!("The push refers to repository [{}]", reference.name());
        Progress::say(progress, "", says).await;
        let http = &self.inner.http;
        let endpoint = Endpoint::of(http, &reference, Access::PushPlugin, auth, registries).await?;
        for digest in record.layers.iter().chain([&record.config]) {
            push::put_blob(&endpoint, digest, Payload::File(self.inner.blobs.path(digest))).await?;
            Progress::say(progress, &digest.short(), "Upload complete").await;
        }
        let (blobs, digest) = (self.inner.blobs.clone(), record.manifest);
        let bytes = blocking(move || blobs.read(&digest)).await?;
        let manifest = Manifest::new(DOCKER_MANIFEST, bytes.into());
        push::put_manifest(&endpoint, &reference.wanted(), &manifest).await?;
        let (tag, size) = (reference.wanted(), manifest.bytes.len());
        Progress::say(progress, "", format!("{tag}: digest: {digest} size: {size}")).await;
        Ok(digest)
    }
}

/// Returns a short blob.
async fn document(endpoint: &Endpoint, digest: &Digest) -> Result<Vec<u8>> {
    let reader = endpoint.blob(digest, 0).await?.ok_or_else(|| Error::NotFound(digest.to_string()))?;
    let url = || format!("blob {digest}");
    let mut bytes = Vec::new();
    let mut reader = reader.take(CONFIG_BYTES_MAX + 1);
    let read = tokio::time::timeout(crate::registry::SHORT_ANSWER, reader.read_to_end(&mut bytes)).await;
    let read = read.map_err(|elapsed| Error::Network { url: url(), source: elapsed.into() })?;
    read.map_err(|e| Error::Network { url: url(), source: e.into() })?;
    verify("blob", *digest, Digest::of(&bytes))?;
    Ok(bytes)
}
