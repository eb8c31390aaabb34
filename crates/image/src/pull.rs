//! Fetches an image: asks each source in turn (peers, mirrors, registry), believes digests only, and unpacks each layer
//! as soon as it is here while others still arrive.

use crate::{
    digest::Digest,
    error::{Error, Result},
    manifest::{Descriptor, ImageIndex, Manifest, Platform},
    reference::Reference,
    registry::{Access, Endpoint, MAX_TRIES, backoff},
    source::{BlobSource, SourceError},
    store::{
        Auth, Candidate, Image, Ingest, Progress, PullOptions, RegistryOptions, Store, blocking,
        parse_config, parse_manifest, verify,
    },
};
use futures::future::try_join_all;
use std::{io::Write, sync::Arc, time::Duration};
use tokio::{
    io::AsyncReadExt,
    sync::{Semaphore, mpsc},
};

/// Layers fetched at a time, unless `max-concurrent-downloads` says otherwise.
const DOWNLOADS: usize = 4;
/// A source that sends nothing for so long is given up.
const STALL: Duration = Duration::from_secs(30);
const PROGRESS_BYTES: u64 = 512 << 10;

type Sources = Vec<Arc<dyn BlobSource>>;

impl Store {
    /// Fetches an image from peers or its registry, verified and unpacked, and names it.
    ///
    /// # Errors
    /// No source has it, is allowed to give it, or gives the right bytes.
    ///
    /// # Cancel safety
    /// May be dropped; what was fetched is used by the next try.
    pub async fn pull(
        &self,
        reference: &Reference,
        options: PullOptions,
        progress: mpsc::Sender<Progress>,
    ) -> Result<Image> {
        let wanted = reference.wanted();
        Progress::say(&progress, &wanted, format!("Pulling from {}", reference.repository)).await;
        let (sources, unreachable) = self.sources(reference, &options).await;
        let (target, sources) = resolve(sources, reference, unreachable).await?;
        let mut pins = self.pins();
        pins.add(target.digest);
        let platform = options.platform.clone().unwrap_or_default();
        let (manifest, index) = choose(&sources, reference, target, &platform).await?;
        pins.add(manifest.digest);
        let parsed = parse_manifest(&manifest)?;

        pins.add(parsed.config.digest);
        self.fetch(&parsed.config, &sources, None).await?;
        let (blobs, id) = (self.blobs().clone(), parsed.config.digest);
        let config = blocking(move || parse_config(id, &blobs.read(&id)?)).await?;
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != parsed.layers.len() {
            let (ids, layers) = (diff_ids.len(), parsed.layers.len());
            let reason = format!("its configuration names {ids} layers, its manifest {layers}");
            return Err(Error::Unusable { what: "image", reason });
        }
        let slots = Semaphore::new(options.registries.downloads_at_once.unwrap_or(DOWNLOADS).max(1));
        for (layer, diff_id) in parsed.layers.iter().zip(diff_ids) {
            pins.add(layer.digest);
            pins.add(*diff_id);
            Progress::say(&progress, &layer.short(), "Pulling fs layer").await;
        }
        let layers = parsed.layers.iter().zip(diff_ids).map(|(layer, diff_id)| {
            let (sources, slots, progress) = (&sources, &slots, &progress);
            async move {
                let short = layer.short();
                if self.blobs().has(&layer.digest) {
                    self.unpack_layer(layer, *diff_id, progress).await?;
                    Progress::say(progress, &short, "Already exists").await;
                    return Ok::<_, Error>(());
                }
                let slot = slots.acquire().await.expect("the semaphore is never closed");
                self.fetch(layer, sources, Some(progress)).await?;
                drop(slot);
                Progress::say(progress, &short, "Download complete").await;
                self.unpack_layer(layer, *diff_id, progress).await?;
                Progress::say(progress, &short, "Pull complete").await;
                Ok(())
            }
        });
        try_join_all(layers).await?;

        let target = index.as_ref().map_or(manifest.digest, |index| index.digest);
        let known = self
            .get(&reference.canonical())
            .await
            .is_some_and(|image| image.id == id && image.manifest == target);
        // With a digest Docker gives no tag; services do pin `name:tag@digest`, and `images` should show the tag.
        let tags = reference.tag.as_ref().map(|tag| reference.with_tag(tag)).into_iter().collect();
        let digests = vec![Reference { tag: None, digest: Some(target), ..reference.clone() }];
        let candidate = Candidate { manifest, index, tags, digests, parent: None };
        let image = self.install(candidate, &progress).await?;
        Progress::say(&progress, "", format!("Digest: {target}")).await;
        let outcome = if known { "Image is up to date for" } else { "Downloaded newer image for" };
        Progress::say(&progress, "", format!("Status: {outcome} {reference}")).await;
        Ok(image)
    }

    /// Asks the sources what a name stands for, without fetching it; returns the manifest or index, and the platforms it
    /// is for.
    ///
    /// # Errors
    /// As [`Store::pull`].
    pub async fn resolve(
        &self,
        reference: &Reference,
        options: PullOptions,
    ) -> Result<(Manifest, Vec<Platform>)> {
        let (sources, unreachable) = self.sources(reference, &options).await;
        let (manifest, sources) = resolve(sources, reference, unreachable).await?;
        let index = manifest.is_index().then(|| serde_json::from_slice::<ImageIndex>(&manifest.bytes));
        if let Some(index) = index {
            let index =
                index.map_err(|source| Error::Document { what: "index", digest: manifest.digest, source })?;
            let platforms = index.manifests.into_iter().filter_map(|manifest| manifest.platform).collect();
            return Ok((manifest, platforms));
        }
        let config = parse_manifest(&manifest)?.config;
        let mut pins = self.pins();
        pins.add(config.digest);
        self.fetch(&config, &sources, None).await?;
        let (blobs, id) = (self.blobs().clone(), config.digest);
        let config = blocking(move || parse_config(id, &blobs.read(&id)?)).await?;
        let platform = Platform { architecture: config.architecture, os: config.os, variant: config.variant };
        Ok((manifest, vec![platform]))
    }

    /// Proves an account to a registry (`host[:port]`, `docker.io`).
    ///
    /// # Errors
    /// [`Error::Denied`] when the registry does not take it.
    pub async fn login(&self, registry: &str, auth: Auth, registries: &RegistryOptions) -> Result<()> {
        let reference: Reference = format!("{registry}/account/check:latest").parse()?;
        Endpoint::of(self.http(), &reference, Access::Account, Some(auth), registries)
            .await?
            .prove_account()
            .await
    }

    /// Returns whom to ask, in order, and why the registry itself cannot be asked, if so.
    async fn sources(&self, reference: &Reference, options: &PullOptions) -> (Sources, Option<Error>) {
        let mut sources = options.peers.clone();
        if options.peers_only {
            return (sources, None);
        }
        if reference.registry == "docker.io" {
            let mirror = |base: &String| Endpoint::mirror(self.http(), base, reference, &options.registries);
            sources.extend(
                options.registries.mirrors.iter().map(|base| Arc::new(mirror(base)) as Arc<dyn BlobSource>),
            );
        }
        // Asking for the registry costs a connection: only when it is its turn.
        sources.push(Arc::new(Lazy {
            store: self.clone(),
            reference: reference.clone(),
            auth: options.auth.clone(),
            registries: options.registries.clone(),
            endpoint: tokio::sync::OnceCell::new(),
        }));
        (sources, None)
    }

    /// Makes sure that a blob is here and complete.
    async fn fetch(
        &self,
        blob: &Descriptor,
        sources: &Sources,
        progress: Option<&mpsc::Sender<Progress>>,
    ) -> Result<()> {
        let gate = self.gate(blob.digest);
        let _gate = gate.lock().await;
        if self.blobs().has(&blob.digest) {
            return Ok(());
        }
        let (blobs, digest) = (self.blobs().clone(), blob.digest);
        let mut ingest = blocking(move || blobs.resume(&digest)).await?;
        let mut last = None;
        for source in sources {
            match download(&mut ingest, blob, source.as_ref(), progress).await {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error @ (Error::Io { .. } | Error::Unusable { .. })) => return Err(error),
                Err(error) => {
                    tracing::warn!(blob = %blob.digest, source = source.name(), %error, "source failed; asking the next one");
                    last = Some(error);
                    continue;
                }
            }
            if ingest.digest() != blob.digest {
                last = Some(Error::DigestMismatch {
                    what: "blob",
                    expected: blob.digest,
                    found: ingest.digest(),
                });
                tracing::warn!(blob = %blob.digest, source = source.name(), "source sent wrong bytes; asking the next one");
                ingest.restart()?;
                continue;
            }
            if let Some(progress) = progress {
                Progress::say(progress, &blob.short(), "Verifying Checksum").await;
            }
            return blocking(move || ingest.commit(Some(digest))).await.map(drop);
        }
        let missing =
            || Error::Unusable { what: "image", reason: format!("no source has its blob {}", blob.digest) };
        Err(last.unwrap_or_else(missing))
    }
}

/// Fetches the rest of a blob from one source; `false` if it has no such blob.
async fn download(
    ingest: &mut Ingest,
    blob: &Descriptor,
    source: &dyn BlobSource,
    progress: Option<&mpsc::Sender<Progress>>,
) -> Result<bool> {
    let failed = |source_error: SourceError| match source_error.downcast::<Error>() {
        Ok(ours) => *ours,
        Err(foreign) => Error::Source { what: blob.digest.to_string(), from: source.name(), source: foreign },
    };
    let mut fruitless = 0;
    let mut restarted = false;
    loop {
        let before = ingest.written;
        let copied = match source.open(&blob.digest, before).await {
            Ok(None) => return Ok(false),
            Ok(Some(mut reader)) => copy(&mut reader, ingest, blob, progress).await,
            Err(error) => Err(failed(error)),
        };
        let error = match copied {
            Ok(()) if ingest.written == blob.size_bytes => {
                // What an earlier try (from whoever) left may be wrong: once more from the start, from this source alone.
                if ingest.digest() == blob.digest || restarted || before == 0 {
                    return Ok(true);
                }
                restarted = true;
                ingest.restart()?;
                continue;
            }
            Ok(()) => {
                failed(format!("blob ended after {} of {} bytes", ingest.written, blob.size_bytes).into())
            }
            // Waiting does not help against these.
            Err(error @ (Error::Io { .. } | Error::Denied { .. } | Error::DigestMismatch { .. })) => {
                return Err(error);
            }
            Err(error) => error,
        };
        fruitless = if ingest.written > before { 0 } else { fruitless + 1 };
        if fruitless >= source.attempts() {
            return Err(error);
        }
        tracing::debug!(blob = %blob.digest, source = source.name(), %error, at = ingest.written, "download broke off; resuming");
        tokio::time::sleep(backoff(fruitless)).await;
    }
}

pub(crate) async fn copy(
    reader: &mut crate::BoxAsyncRead,
    ingest: &mut Ingest,
    blob: &Descriptor,
    progress: Option<&mpsc::Sender<Progress>>,
) -> Result<()> {
    let url = || blob.digest.to_string();
    let mut buffer = vec![0; 128 << 10];
    let mut told = ingest.written;
    loop {
        let read = tokio::time::timeout(STALL, reader.read(&mut buffer)).await;
        let count = read.map_err(|elapsed| Error::Network { url: url(), source: elapsed.into() })?;
        let count = count.map_err(|e| Error::Network { url: url(), source: e.into() })?;
        if count == 0 {
            return Ok(());
        }
        if ingest.written + count as u64 > blob.size_bytes {
            ingest.restart()?;
            return Err(Error::DigestMismatch {
                what: "blob",
                expected: blob.digest,
                found: Digest::of(&buffer[..count]),
            });
        }
        // To the page cache: no slower than a hop to another thread.
        ingest.write_all(&buffer[..count]).map_err(Error::io("write", &ingest.path))?;
        if let Some(progress) = progress
            && (ingest.written >= told + PROGRESS_BYTES || ingest.written == blob.size_bytes)
        {
            told = ingest.written;
            Progress::hint(progress, &blob.short(), "Downloading", told, blob.size_bytes);
        }
    }
}

/// Asks each source what the name stands for; the one that knows is asked first from then on.
async fn resolve(
    mut sources: Sources,
    reference: &Reference,
    mut last: Option<Error>,
) -> Result<(Manifest, Sources)> {
    for position in 0..sources.len() {
        let source = Arc::clone(&sources[position]);
        match source.resolve(reference).await {
            Ok(None) => {}
            Ok(Some(manifest)) => match check(reference, &manifest) {
                Ok(()) => {
                    sources[..=position].rotate_right(1);
                    return Ok((manifest, sources));
                }
                Err(error) => {
                    tracing::warn!(source = source.name(), %error, "source sent a wrong manifest; asking the next one");
                    last = Some(error);
                }
            },
            Err(error) => {
                tracing::debug!(source = source.name(), %error, "source cannot be asked; asking the next one");
                last = Some(match error.downcast::<Error>() {
                    Ok(ours) => *ours,
                    Err(foreign) => {
                        Error::Source { what: reference.to_string(), from: source.name(), source: foreign }
                    }
                });
            }
        }
    }
    Err(last.unwrap_or_else(|| Error::ManifestUnknown { reference: reference.to_string() }))
}

fn check(reference: &Reference, manifest: &Manifest) -> Result<()> {
    // A source may claim any digest; ours is the one of the bytes.
    verify("manifest", manifest.digest, Digest::of(&manifest.bytes))?;
    reference.digest.map_or(Ok(()), |wanted| verify("manifest", wanted, manifest.digest))
}

/// Returns the manifest for this platform, and the index it was chosen from.
async fn choose(
    sources: &Sources,
    reference: &Reference,
    target: Manifest,
    platform: &Platform,
) -> Result<(Manifest, Option<Manifest>)> {
    if !target.is_index() {
        return Ok((target, None));
    }
    let invalid = |source| Error::Document { what: "index", digest: target.digest, source };
    let index: ImageIndex = serde_json::from_slice(&target.bytes).map_err(invalid)?;
    let missing = || Error::NoPlatform { platform: platform.to_string() };
    let chosen = index.choose(platform).ok_or_else(missing)?;
    let (manifest, _) = resolve(sources.clone(), &reference.with_digest(chosen.digest), None).await?;
    let manifest = Manifest::new(&manifest.media_type, manifest.bytes);
    if manifest.is_index() {
        return Err(Error::Unusable { what: "manifest", reason: "an index inside an index".to_owned() });
    }
    Ok((manifest, Some(target)))
}

/// The image's registry, connected to when it is first asked.
#[derive(Debug)]
struct Lazy {
    store: Store,
    reference: Reference,
    auth: Option<crate::Auth>,
    registries: crate::RegistryOptions,
    endpoint: tokio::sync::OnceCell<Endpoint>,
}

impl Lazy {
    async fn endpoint(&self) -> Result<&Endpoint> {
        let connect = || {
            Endpoint::of(
                self.store.http(),
                &self.reference,
                Access::Pull,
                self.auth.clone(),
                &self.registries,
            )
        };
        self.endpoint.get_or_try_init(connect).await
    }
}

#[async_trait::async_trait]
impl BlobSource for Lazy {
    async fn resolve(&self, reference: &Reference) -> Result<Option<Manifest>, SourceError> {
        self.endpoint().await?.resolve(reference).await
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<Option<crate::BoxAsyncRead>, SourceError> {
        self.endpoint().await?.open(digest, offset).await
    }

    fn name(&self) -> String {
        self.reference.registry.clone()
    }

    fn attempts(&self) -> u32 {
        self.registries.attempts.unwrap_or(MAX_TRIES)
    }
}
