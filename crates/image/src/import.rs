//! Makes an image of a root tarball, or of what a container changed.

use crate::{
    compression::{Compression, sniff},
    config::{Config, HistoryEntry, ImageConfiguration, Origin, RootFs},
    digest::{Digest, Hasher},
    error::{Error, Result},
    load::{copy, make_manifest},
    manifest::{Descriptor, OCI_CONFIG},
    reference::Reference,
    store::{Candidate, ImportOptions, Pins, Store, blocking, parse_manifest, random_name},
};
use std::{
    fs::File,
    io::{self, Read},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{io::AsyncRead, sync::mpsc};
use tokio_util::io::SyncIoBridge;

/// What a container adds to its image.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    pub reference: Option<Reference>,
    pub author: String,
    pub comment: String,
    /// Id of the container, and the name of its image.
    pub container: String,
    pub image: String,
    /// The command that made the changes.
    pub created_by: String,
    /// Of the container; build triggers and shell stay those of its image.
    pub config: Config,
    /// Instructions of a Dockerfile, applied to the configuration.
    pub changes: Vec<String>,
}

impl Store {
    /// Makes an image of one layer from a root tarball (plain, gzip or zstd) and returns its id.
    ///
    /// # Errors
    /// A broken tarball, a bad change, a full disk; nothing is left.
    pub async fn import(
        &self,
        reader: impl AsyncRead + Send + Unpin + 'static,
        options: ImportOptions,
    ) -> Result<Digest> {
        let ImportOptions { reference, changes, message, platform, created } = options;
        let platform = platform.unwrap_or_default();
        let created = timestamp(created.unwrap_or_else(OffsetDateTime::now_utc));
        let mut config = ImageConfiguration {
            created: Some(created.clone()),
            architecture: platform.architecture,
            variant: platform.variant,
            os: platform.os,
            ..ImageConfiguration::default()
        };
        for change in &changes {
            config.config.apply_change(change)?;
        }
        let comment = if message.is_empty() { "Imported from -".to_owned() } else { message };
        config.comment.clone_from(&comment);
        config.history = vec![HistoryEntry { created: Some(created), comment, ..HistoryEntry::default() }];
        let (layer, diff_id, _pins) = self.ingest_layer(reader).await?;
        config.rootfs = RootFs { diff_ids: vec![diff_id], ..RootFs::default() };
        self.install_config(&config, vec![layer], reference, None).await
    }

    /// As [`Store::import`], of a tarball that a web server has.
    ///
    /// # Errors
    /// As [`Store::import`] and [`Store::download`]; nothing is left.
    pub async fn import_url(&self, url: &str, mut options: ImportOptions) -> Result<Digest> {
        // What a crash leaves there is cleared when the store is opened.
        let path = self.blobs().ingest_directory().join(random_name());
        if options.message.is_empty() {
            options.message = format!("Imported from {url}");
        }
        let imported = async {
            self.download(url, &path).await?;
            let file = tokio::fs::File::open(&path).await.map_err(Error::io("open", &path))?;
            self.import(file, options).await
        };
        let imported = imported.await;
        match tokio::fs::remove_file(&path).await {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", &path)(e)),
            _ => imported,
        }
    }

    /// Makes an image of `base` and one more layer (`None`: none, only the configuration differs); returns its id.
    ///
    /// # Errors
    /// No such base, a broken tarball, a bad change, a full disk; nothing is left.
    pub async fn commit(
        &self,
        base: &Digest,
        layer: Option<impl AsyncRead + Send + Unpin + 'static>,
        commit: Commit,
    ) -> Result<Digest> {
        let image = self.by_id(base).await.ok_or_else(|| Error::NotFound(base.to_string()))?;
        let mut config = image.config.as_ref().clone();
        let (on_build, shell) = (config.config.on_build, config.config.shell);
        config.config = Config { on_build, shell, ..commit.config };
        for change in &commit.changes {
            config.config.apply_change(change)?;
        }
        let empty_layer = layer.is_none();
        let created = timestamp(OffsetDateTime::now_utc());
        config.created = Some(created.clone());
        config.container = commit.container;
        config.container_config = Origin { image: commit.image };
        config.author.clone_from(&commit.author);
        config.comment.clone_from(&commit.comment);
        config.history.push(HistoryEntry {
            created: Some(created),
            author: commit.author,
            created_by: commit.created_by,
            comment: commit.comment,
            empty_layer,
        });
        self.derive(Some(base), layer, config, commit.reference).await
    }

    /// Makes an image of the layers of `base` (`None`: none), one more layer, and a configuration, whose list of layers
    /// is set here; returns its id.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub async fn derive(
        &self,
        base: Option<&Digest>,
        layer: Option<impl AsyncRead + Send + Unpin + 'static>,
        mut config: ImageConfiguration,
        name: Option<Reference>,
    ) -> Result<Digest> {
        let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
        if let Some(base) = base {
            let image = self.by_id(base).await.ok_or_else(|| Error::NotFound(base.to_string()))?;
            layers = parse_manifest(&self.manifest_of(*base).await?)?.layers;
            diff_ids.clone_from(&image.config.rootfs.diff_ids);
        }
        let _pins;
        if let Some(layer) = layer {
            let (descriptor, diff_id, pins) = self.ingest_layer(layer).await?;
            layers.push(descriptor);
            diff_ids.push(diff_id);
            _pins = pins;
        }
        config.rootfs = RootFs { diff_ids, ..RootFs::default() };
        self.install_config(&config, layers, name, base.copied()).await
    }

    /// Writes a layer's tar into the store; returns it, its diff id, and the pins that keep it.
    pub(crate) async fn ingest_layer(
        &self,
        reader: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<(Descriptor, Digest, Pins)> {
        let reader = SyncIoBridge::new(reader);
        let blobs = self.blobs().clone();
        let mut pins = self.pins();
        blocking(move || {
            let (head, reader) = sniff(reader).map_err(Error::Archive)?;
            let stored = Compression::of(&head);
            let (compression, mut reader): (_, Box<dyn Read + Send>) = match stored.media_type() {
                Some(_) => (stored, Box::new(reader)),
                None => (Compression::None, stored.reader(reader).map_err(Error::Archive)?),
            };
            let mut ingest = blobs.begin()?;
            copy(&mut reader, &mut ingest)?;
            let (digest, size) = (ingest.digest(), ingest.written);
            let diff_id = if compression == Compression::None {
                digest
            } else {
                diff_id(ingest.reopen()?, compression)?
            };
            pins.add(digest);
            pins.add(diff_id);
            ingest.commit(None)?;
            let media_type = compression.media_type().expect("others were undone above");
            Ok((Descriptor::new(media_type, digest, size), diff_id, pins))
        })
        .await
    }

    /// Writes the configuration, makes the manifest, installs and names the image.
    pub(crate) async fn install_config(
        &self,
        config: &ImageConfiguration,
        layers: Vec<Descriptor>,
        name: Option<crate::Reference>,
        parent: Option<Digest>,
    ) -> Result<Digest> {
        let bytes = serde_json::to_vec(config).expect("a configuration is plain JSON");
        let descriptor = Descriptor::new(OCI_CONFIG, Digest::of(&bytes), bytes.len() as u64);
        let mut pins = self.pins();
        pins.add(descriptor.digest);
        let blobs = self.blobs().clone();
        blocking(move || blobs.put(&bytes)).await?;
        let manifest = make_manifest(descriptor, layers);
        let (progress, _) = mpsc::channel(1);
        let tags = name.into_iter().collect();
        let candidate = Candidate { manifest, index: None, tags, digests: Vec::new(), parent };
        Ok(self.install(candidate, &progress).await?.id)
    }
}

pub(crate) fn timestamp(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).expect("every time of this era has an RFC 3339 form")
}

fn diff_id(file: File, compression: Compression) -> Result<Digest> {
    let mut plain = compression.reader(file).map_err(Error::Archive)?;
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 128 << 10];
    loop {
        match plain.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::Archive(e)),
        }
    }
}
