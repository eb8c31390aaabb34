//! Calls on volumes: who uses one decides what may be done with it.

use crate::{
    error::{Error, Result},
    inner::Inner,
    seen::{
        container::{Container, Filters, MountPointKind, Pruned},
        event::{Event, EventKind},
    },
    volumes::local::{Volume, VolumeConfig, VolumeUsage},
};
use std::{collections::BTreeMap, sync::Arc};

impl Inner {
    pub(crate) async fn volume_create(self: &Arc<Self>, config: VolumeConfig) -> Result<Volume> {
        let inner = self.clone();
        let (volume, new) = crate::blocking(move || inner.volumes.create(config)).await?;
        if new {
            self.volume_event("create", &volume.name, &volume.driver, None);
        }
        Ok(volume)
    }

    pub(crate) fn volume(&self, name: &str) -> Result<Volume> {
        self.volumes.get(name)
    }

    pub(crate) fn volumes(&self, filters: &Filters) -> Vec<Volume> {
        let containers = self.registry.snapshots();
        let mut all = self.volumes.list(filters);
        all.retain(|v| {
            filters.any("dangling", |d| matches!(d, "1" | "true") == users(&containers, &v.name).is_empty())
        });
        all
    }

    pub(crate) async fn volume_remove(self: &Arc<Self>, name: &str, force: bool) -> Result<()> {
        let users = users(&self.registry.snapshots(), name);
        if !users.is_empty() {
            return Err(Error::VolumeInUse { name: name.to_owned(), containers: users.join(", ") });
        }
        let (inner, name) = (self.clone(), name.to_owned());
        let removed = crate::blocking(move || inner.volumes.remove(&name, force)).await?;
        if let Some(volume) = removed {
            self.volume_event("destroy", &volume.name, &volume.driver, None);
        }
        Ok(())
    }

    pub(crate) async fn volume_prune(self: &Arc<Self>, filters: &Filters) -> Result<Pruned> {
        let all = filters.get("all").iter().any(|v| matches!(v.as_str(), "1" | "true"));
        let mut pruned = Pruned::default();
        for usage in self.volume_usage().await? {
            let volume = usage.volume;
            if usage.containers == 0 && (all || volume.anonymous) && filters.labels_match(&volume.labels) {
                self.volume_remove(&volume.name, true).await?;
                pruned.reclaimed_bytes += usage.size;
                pruned.removed.push(volume.name);
            }
        }
        self.pruned_event(EventKind::Volume, pruned.reclaimed_bytes);
        Ok(pruned)
    }

    pub(crate) async fn volume_usage(&self) -> Result<Vec<VolumeUsage>> {
        let containers = self.registry.snapshots();
        let volumes = self.volumes.list(&Filters::default());
        crate::blocking(move || {
            let usage = |volume: Volume| VolumeUsage {
                size: crate::files::below::folder_bytes(&volume.mountpoint),
                containers: users(&containers, &volume.name).len(),
                volume,
            };
            Ok(volumes.into_iter().map(usage).collect())
        })
        .await
    }

    pub(crate) fn volume_event(&self, action: &str, name: &str, driver: &str, container: Option<&Container>) {
        let mut attributes = BTreeMap::from([("driver".to_owned(), driver.to_owned())]);
        attributes.extend(container.map(|c| ("container".to_owned(), c.id.clone())));
        self.publish(Event::now(EventKind::Volume, action, name, attributes));
    }
}

pub(crate) fn users(containers: &[Arc<Container>], volume: &str) -> Vec<String> {
    let uses =
        |c: &&Arc<Container>| c.mounts.iter().any(|m| m.kind == MountPointKind::Volume && m.name == volume);
    containers.iter().filter(uses).map(|c| c.id.clone()).collect()
}
