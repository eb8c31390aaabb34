//! `rswarm system df`, and what takes space away again: `system prune`, `container prune`, `image prune` ...

use crate::{
    cli::{DfArgs, PruneArgs, SystemPruneArgs},
    list::{self, List},
    output,
};
use anyhow::{Result, bail};
use docker_api::{client::Client, types};
use std::io::BufRead as _;

/// What can be pruned by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Containers,
    Images,
    Networks,
    Volumes,
    Builds,
}

/// Names what was removed and says how many bytes that freed.
struct Pruned {
    title: &'static str,
    names: Vec<String>,
    bytes: u64,
}

/// Asks the person at the terminal, unless told not to.
fn confirmed(force: bool, what: &str) -> Result<bool> {
    if force {
        return Ok(true);
    }
    output::prompt(&format!("WARNING! This will remove {what}.\nAre you sure you want to continue? [y/N] "))?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y"))
}

pub(crate) async fn run(client: &Client, kind: Kind, args: &PruneArgs) -> Result<()> {
    let what = match (kind, args.all) {
        (Kind::Containers, _) => "all stopped containers",
        (Kind::Images, true) => "all images without at least one container associated to them",
        (Kind::Images, false) => "all dangling images",
        (Kind::Networks, _) => "all custom networks not used by at least one container",
        (Kind::Volumes, true) => "all volumes not used by at least one container",
        (Kind::Volumes, false) => "anonymous local volumes not used by at least one container",
        (Kind::Builds, _) => "all results of earlier builds, and the caches of their commands",
    };
    if args.all && !matches!(kind, Kind::Images | Kind::Volumes) {
        bail!("--all is for images and volumes");
    }
    if confirmed(args.force, what)? {
        let pruned = prune(client, kind, args.all, &args.filter).await?;
        show(&[pruned])?;
    }
    Ok(())
}

pub(crate) async fn system(client: &Client, args: &SystemPruneArgs) -> Result<()> {
    // Before anything is removed: the daemon would say so in the middle.
    if args.volumes && args.filter.iter().any(|filter| filter.starts_with("until=")) {
        bail!("the \"until\" filter is not supported with \"--volumes\"");
    }
    let mut what = vec!["  - all stopped containers", "  - all networks not used by at least one container"];
    if args.volumes {
        what.push("  - all anonymous volumes not used by at least one container");
    }
    what.push(match args.all {
        true => "  - all images without at least one container associated to them",
        false => "  - all dangling images",
    });
    what.push("  - all build cache\n");
    if !confirmed(args.force, &format!("\n{}", what.join("\n")))? {
        return Ok(());
    }
    let mut pruned = vec![prune(client, Kind::Containers, false, &args.filter).await?];
    pruned.push(prune(client, Kind::Networks, false, &args.filter).await?);
    if args.volumes {
        pruned.push(prune(client, Kind::Volumes, false, &args.filter).await?);
    }
    // Images of the cache are nobody's once it is gone.
    pruned.push(prune(client, Kind::Builds, false, &args.filter).await?);
    pruned.push(prune(client, Kind::Images, args.all, &args.filter).await?);
    show(&pruned)
}

async fn prune(client: &Client, kind: Kind, all: bool, filters: &[String]) -> Result<Pruned> {
    let mut filters = filters.to_vec();
    match (kind, all) {
        (Kind::Images, true) => filters.push("dangling=false".to_owned()),
        (Kind::Volumes, true) => filters.push("all=true".to_owned()),
        _ => {}
    }
    let filters = list::filters(&filters)?;
    let query = [("filters", filters.as_str())];
    Ok(match kind {
        Kind::Containers => {
            let done: types::ContainersPruned = client.prune("containers", &query).await?;
            Pruned { title: "Containers", names: done.containers_deleted, bytes: done.space_reclaimed }
        }
        Kind::Networks => {
            let done: types::NetworksPruned = client.prune("networks", &query).await?;
            Pruned { title: "Networks", names: done.networks_deleted, bytes: 0 }
        }
        Kind::Volumes => {
            let done: types::VolumesPruned = client.prune("volumes", &query).await?;
            Pruned { title: "Volumes", names: done.volumes_deleted, bytes: done.space_reclaimed }
        }
        Kind::Builds => {
            let done: types::BuildPruned = client.prune("build", &query).await?;
            Pruned { title: "build cache objects", names: done.caches_deleted, bytes: done.space_reclaimed }
        }
        Kind::Images => {
            let done: types::ImagesPruned = client.prune("images", &query).await?;
            let line = |one: types::ImageDeleted| match one.untagged.is_empty() {
                true => format!("deleted: {}", one.deleted),
                false => format!("untagged: {}", one.untagged),
            };
            let names = done.images_deleted.into_iter().map(line).collect();
            Pruned { title: "Images", names, bytes: done.space_reclaimed }
        }
    })
}

fn show(all: &[Pruned]) -> Result<()> {
    for Pruned { title, names, .. } in all.iter().filter(|pruned| !pruned.names.is_empty()) {
        output::line(&format!("Deleted {title}:"))?;
        names.iter().try_for_each(|name| output::line(name))?;
        output::line("")?;
    }
    let bytes = all.iter().map(|pruned| pruned.bytes).sum();
    output::line(&format!("Total reclaimed space: {}", list::size(bytes)))
}

/// Shows what images, containers, volumes and builds take. *Source:* `docker system df`.
pub(crate) async fn df(client: &Client, args: &DfArgs) -> Result<()> {
    let used: types::DiskUsage = client.get("/system/df", &[]).await?;
    let positive = |bytes: i64| u64::try_from(bytes).unwrap_or(0);
    let mut table = List::new(&[
        ("TYPE", "Type"),
        ("TOTAL", "TotalCount"),
        ("ACTIVE", "Active"),
        ("SIZE", "Size"),
        ("RECLAIMABLE", "Reclaimable"),
    ]);
    let mut row = |kind: &str, total: usize, active: usize, bytes: u64, free: u64| {
        let percent = free.saturating_mul(100).checked_div(bytes).unwrap_or(0);
        let reclaimable = format!("{} ({percent}%)", list::size(free));
        table.row(vec![kind.into(), total.to_string(), active.to_string(), list::size(bytes), reclaimable]);
    };
    let in_use = |image: &&types::ImageSummary| image.containers > 0;
    let needed: u64 =
        used.images.iter().filter(in_use).map(|i| positive(i.size - i.shared_size.max(0))).sum();
    let free = positive(used.layers_size).saturating_sub(needed);
    let active = used.images.iter().filter(in_use).count();
    row("Images", used.images.len(), active, positive(used.layers_size), free);
    let running = |container: &&types::ContainerSummary| container.state == "running";
    let bytes = |all: &[&types::ContainerSummary]| all.iter().map(|c| positive(c.size_rw)).sum::<u64>();
    let (up, down): (Vec<_>, Vec<_>) = used.containers.iter().partition(running);
    row("Containers", used.containers.len(), up.len(), bytes(&up) + bytes(&down), bytes(&down));
    let of = |volume: &types::Volume| {
        volume.usage_data.as_ref().map_or((0, 0), |u| (positive(u.size), u.ref_count))
    };
    let total = used.volumes.iter().map(|v| of(v).0).sum();
    let active = used.volumes.iter().filter(|v| of(v).1 > 0).count();
    let free = used.volumes.iter().filter(|v| of(v).1 == 0).map(|v| of(v).0).sum();
    row("Local Volumes", used.volumes.len(), active, total, free);
    let total = used.build_cache.iter().map(|step| positive(step.size)).sum();
    row("Build Cache", used.build_cache.len(), 0, total, total);
    table.print(&crate::cli::ListArgs { format: args.format.clone(), ..crate::cli::ListArgs::default() })
}
