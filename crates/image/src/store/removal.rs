//! What may go: names, then images nobody names or holds, then bytes no image needs.

use super::{
    CACHE_HOLDER, Store, blocking, directory_names, is_older, lock, metadata::Metadata, random_name,
    unpacked::remove_directory,
};
use crate::{
    digest::Digest,
    error::{Error, Result},
    reference::Reference,
    store::{Image, Removed},
};
use std::{fs, time::Duration};

impl Store {
    /// Removes a name, or an image by id; the last name takes the image, its blobs and its layers along. A forced
    /// removal of a held image only takes its names.
    ///
    /// # Errors
    /// [`Error::InUse`] as Docker says it: several names (force helps), or held by a container (see [`Store::hold`]).
    pub async fn remove(&self, name_or_id: &str, force: bool) -> Result<Vec<Removed>> {
        let (id, _) = self.look_up(name_or_id)?;
        let text = name_or_id.to_owned();
        let removed = self.update(move |metadata| remove_name(metadata, &text, id, force)).await?;
        self.sweep_soon().await?;
        Ok(removed)
    }

    /// Removes images nobody names or holds (`all`: also named ones not held), of those that are `wanted`, and all bytes
    /// nobody needs; returns what went, the names of an image before itself, and how many bytes that freed.
    ///
    /// # Errors
    /// The disk.
    pub async fn prune(
        &self,
        all: bool,
        wanted: impl Fn(&Image) -> bool + Send,
    ) -> Result<(Vec<Removed>, u64)> {
        let wanted: Vec<Digest> = self.list().await.iter().filter(|i| wanted(i)).map(|i| i.id).collect();
        let removed = self
            .update(move |metadata| {
                let mut removed = Vec::new();
                for id in wanted.into_iter().filter(|id| metadata.images.contains_key(id)).collect::<Vec<_>>()
                {
                    let held = metadata.holders.values().any(|held| *held == id);
                    if held || (!all && !metadata.tags_of(id).is_empty()) {
                        continue;
                    }
                    removed.extend(untagged(metadata.tags_of(id)));
                    metadata.forget(id);
                    removed.push(Removed::Deleted(id));
                }
                Ok(removed)
            })
            .await?;
        Ok((removed, self.sweep_soon().await?))
    }

    async fn sweep_soon(&self) -> Result<u64> {
        let store = self.clone();
        blocking(move || store.sweep(Duration::ZERO)).await
    }

    /// Deletes blobs and layers that no image needs, nobody has pinned and that were not touched for `age`.
    pub(super) fn sweep(&self, age: Duration) -> Result<u64> {
        let mut freed = 0;
        let mut gone = Vec::new();
        {
            // Under the lock of the pins: whoever pins later finds the file missing and fetches it again.
            let pins = lock(&self.inner.pins);
            let (blobs, diff_ids) = self.view().needed();
            let directory = self.inner.blobs.directory();
            for name in directory_names(directory)? {
                let path = directory.join(&name);
                let needed = format!("sha256:{name}")
                    .parse::<Digest>()
                    .is_ok_and(|digest| blobs.contains(&digest) || pins.contains_key(&digest));
                if needed || (age > Duration::ZERO && !is_older(&path, age)) {
                    continue;
                }
                freed += fs::symlink_metadata(&path).map_or(0, |meta| meta.len());
                fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            }
            let layers = self.layers_directory();
            let pinned = pins.keys().copied();
            let needed: Vec<String> =
                diff_ids.into_iter().chain(pinned).map(|id| id.hex()[..24].to_owned()).collect();
            for name in directory_names(&layers)? {
                if name.starts_with('.') || needed.contains(&name) {
                    continue;
                }
                let away = layers.join(format!(".gone-{}", random_name()));
                fs::rename(layers.join(&name), &away).map_err(Error::io("move", layers.join(&name)))?;
                gone.push(away);
            }
        }
        for directory in gone {
            remove_directory(&directory)?;
        }
        Ok(freed)
    }
}

fn untagged(names: Vec<String>) -> impl Iterator<Item = Removed> {
    names.into_iter().map(|name| {
        let familiar = name.parse::<Reference>().map(|reference| reference.to_string());
        Removed::Untagged(familiar.unwrap_or(name))
    })
}

/// *Source:* moby `daemon/images/image_delete.go`.
fn remove_name(metadata: &mut Metadata, text: &str, id: Digest, force: bool) -> Result<Vec<Removed>> {
    let tags = metadata.tags_of(id);
    let held = metadata.holders.iter().filter(|(_, image)| **image == id).map(|(holder, _)| holder.clone());
    let (caches, users): (Vec<_>, Vec<_>) = held.partition(|holder| holder.starts_with(CACHE_HOLDER));
    let holder = users.into_iter().next();
    let reference = text.parse::<Reference>().ok();
    let named = reference.as_ref().map(Reference::canonical).filter(|name| metadata.tags.contains_key(name));
    let conflict = |action: String, reason, hint| Err(Error::InUse { action, reason, hint });
    let used_by = |holder: &String| {
        format!("container {} is using its referenced image", &holder[..holder.len().min(12)])
    };

    let mut removed = Vec::new();
    if let Some(name) = named
        && (tags.len() > 1 || holder.is_some())
    {
        if let (1, false, Some(holder)) = (tags.len(), force, &holder) {
            let hint = format!("{} {}", used_by(holder), id.short());
            return conflict(format!("remove repository reference \"{text}\""), "must force", hint);
        }
        metadata.tags.remove(&name);
        removed.extend(untagged(vec![name]));
        return Ok(removed);
    }
    let repositories = |name: &String| name.parse::<Reference>().map(|r| r.name()).unwrap_or_default();
    let mut repositories: Vec<String> = tags.iter().map(repositories).collect();
    repositories.dedup();
    if repositories.len() > 1 && !force {
        return conflict(
            format!("delete {}", id.short()),
            "must be forced",
            "image is referenced in multiple repositories".into(),
        );
    }
    if let Some(holder) = holder {
        if !force {
            return conflict(
                format!("delete {}", id.short()),
                "must be forced",
                format!("image is being used by container {holder}"),
            );
        }
        metadata.tags.retain(|name, _| !tags.contains(name));
        removed.extend(untagged(tags));
        return Ok(removed);
    }
    removed.extend(untagged(tags));
    removed.extend(untagged(metadata.digests_of(id)));
    let record = metadata.images.get(&id).cloned();
    metadata.holders.retain(|holder, _| !caches.contains(holder));
    metadata.forget(id);
    removed.push(Removed::Deleted(id));
    let (_, still_needed) = metadata.needed();
    let layers = record.iter().flat_map(|record| record.layers.iter()).rev().map(|layer| layer.diff_id);
    removed.extend(layers.filter(|diff_id| !still_needed.contains(diff_id)).map(Removed::Deleted));
    Ok(removed)
}
