//! Uploads an image: what the registry has is not sent again, what it has elsewhere is mounted.
//!
//! *Source:* OCI distribution-spec, "Push".

use crate::{
    digest::Digest,
    error::{Error, Result},
    manifest::{Descriptor, Manifest},
    reference::Reference,
    registry::{Access, Endpoint, Payload},
    store::{Progress, PushOptions, Store, parse_manifest},
};
use futures::future::try_join_all;
use hyper::{
    HeaderMap, Method, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue, LOCATION},
};
use std::collections::BTreeSet;
use tokio::sync::{Semaphore, mpsc};

/// Unless `max-concurrent-uploads` says otherwise.
const UPLOADS: usize = 5;

impl Store {
    /// Uploads an image under its name; returns the manifest's digest.
    ///
    /// # Errors
    /// No such image here; the registry refuses.
    pub async fn push(
        &self,
        reference: &Reference,
        options: PushOptions,
        progress: mpsc::Sender<Progress>,
    ) -> Result<Digest> {
        let unknown = || Error::Unusable {
            what: "name",
            reason: format!("an image does not exist locally with the tag: {}", reference.familiar_name()),
        };
        let image = self.get(&reference.canonical()).await.ok_or_else(unknown)?;
        let name = format!("The push refers to repository [{}]", reference.name());
        Progress::say(&progress, "", name).await;
        let manifest = self.manifest_of(image.id).await?;
        let parsed = parse_manifest(&manifest)?;
        let mut pins = self.pins();
        let mut seen = BTreeSet::new();
        // A layer may be there twice.
        let blobs = parsed.layers.iter().chain([&parsed.config]).filter(|blob| seen.insert(blob.digest));
        let blobs: Vec<&Descriptor> = blobs.collect();
        blobs.iter().for_each(|blob| pins.add(blob.digest));

        let names = image.repo_digests.iter().filter_map(|name| name.parse::<Reference>().ok());
        let same_registry = names.filter(|name| name.registry == reference.registry);
        let mount_from: Vec<String> = same_registry
            .map(|name| name.repository)
            .filter(|repository| *repository != reference.repository)
            .collect();
        let access = Access::Push { mount_from: mount_from.clone() };
        let endpoint =
            Endpoint::of(self.http(), reference, access, options.auth, &options.registries).await?;
        let slots = Semaphore::new(options.registries.uploads_at_once.unwrap_or(UPLOADS).max(1));
        let uploads = blobs.into_iter().map(|blob| {
            let (endpoint, slots, mount_from, progress) = (&endpoint, &slots, &mount_from, &progress);
            async move {
                let _slot = slots.acquire().await.expect("the semaphore is never closed");
                let status = self.upload(endpoint, blob, mount_from, progress).await?;
                Progress::say(progress, &blob.short(), status).await;
                Ok::<_, Error>(())
            }
        });
        try_join_all(uploads).await?;
        put_manifest(&endpoint, &reference.wanted(), &manifest).await?;
        self.note_digest(reference.with_digest(manifest.digest)).await?;
        let (tag, digest, size) = (reference.wanted(), manifest.digest, manifest.bytes.len());
        Progress::say(&progress, "", format!("{tag}: digest: {digest} size: {size}")).await;
        Ok(digest)
    }

    async fn upload(
        &self,
        endpoint: &Endpoint,
        blob: &Descriptor,
        mount_from: &[String],
        progress: &mpsc::Sender<Progress>,
    ) -> Result<String> {
        let path = format!("/blobs/{}", blob.digest);
        let answer = endpoint.request(Method::HEAD, &path, HeaderMap::new(), Payload::Empty).await?;
        if answer.status() == StatusCode::OK {
            return Ok("Layer already exists".to_owned());
        }
        let mut started = None;
        for from in mount_from {
            let path = format!("/blobs/uploads/?mount={}&from={from}", blob.digest);
            let answer = endpoint.request(Method::POST, &path, HeaderMap::new(), Payload::Empty).await?;
            match answer.status() {
                StatusCode::CREATED => return Ok(format!("Mounted from {from}")),
                // It does not know the blob there and has begun an upload instead.
                StatusCode::ACCEPTED => {
                    started = Some(answer);
                    break;
                }
                _ => {}
            }
        }
        let answer = match started {
            Some(answer) => answer,
            None => {
                endpoint.request(Method::POST, "/blobs/uploads/", HeaderMap::new(), Payload::Empty).await?
            }
        };
        Progress::hint(progress, &blob.short(), "Pushing", 0, blob.size_bytes);
        let gone = || Error::NotFound(blob.digest.to_string());
        let file = Payload::File(self.blob_path(&blob.digest).ok_or_else(gone)?);
        fill(endpoint, answer, &blob.digest, file).await?;
        Ok("Pushed".to_owned())
    }
}

/// Sends a blob, unless the registry has it.
pub(crate) async fn put_blob(endpoint: &Endpoint, digest: &Digest, payload: Payload) -> Result<()> {
    let path = format!("/blobs/{digest}");
    let answer = endpoint.request(Method::HEAD, &path, HeaderMap::new(), Payload::Empty).await?;
    if answer.status() == StatusCode::OK {
        return Ok(());
    }
    let answer = endpoint.request(Method::POST, "/blobs/uploads/", HeaderMap::new(), Payload::Empty).await?;
    fill(endpoint, answer, digest, payload).await
}

/// Fills an upload that was `begun`.
async fn fill(
    endpoint: &Endpoint,
    begun: Response<Incoming>,
    digest: &Digest,
    payload: Payload,
) -> Result<()> {
    if begun.status() != StatusCode::ACCEPTED {
        return Err(endpoint.refuse(&Method::POST, "/blobs/uploads/", begun).await);
    }
    let location = begun.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let missing =
        || Error::Unusable { what: "registry answer", reason: "upload without a location".to_owned() };
    let location = endpoint.absolute(location.ok_or_else(missing)?);
    let separator = if location.contains('?') { '&' } else { '?' };
    let url = format!("{location}{separator}digest={digest}");
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    let answer = endpoint.request(Method::PUT, &url, headers, payload).await?;
    if answer.status() == StatusCode::CREATED {
        return Ok(());
    }
    Err(endpoint.refuse(&Method::PUT, &url, answer).await)
}

pub(crate) async fn put_manifest(endpoint: &Endpoint, wanted: &str, manifest: &Manifest) -> Result<()> {
    let path = format!("/manifests/{wanted}");
    let mut headers = HeaderMap::new();
    let media_type = HeaderValue::from_str(&manifest.media_type);
    headers
        .insert(CONTENT_TYPE, media_type.unwrap_or(HeaderValue::from_static(crate::manifest::OCI_MANIFEST)));
    let answer =
        endpoint.request(Method::PUT, &path, headers, Payload::Bytes(manifest.bytes.clone())).await?;
    if answer.status().is_success() {
        Ok(())
    } else {
        Err(endpoint.refuse(&Method::PUT, &path, answer).await)
    }
}
