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
            Pruned {
                title: "Containers",
                names: done.containers_deleted.unwrap_or_default(),
                bytes: done.space_reclaimed,
            }
        }
        Kind::Networks => {
            let done: types::NetworksPruned = client.prune("networks", &query).await?;
            Pruned { title: "Networks", names: done.networks_deleted.unwrap_or_default(), bytes: 0 }
        }
        Kind::Volumes => {
            let done: types::VolumesPruned = client.prune("volumes", &query).await?;
            Pruned { title: "Volumes", names: done.volumes_deleted, bytes: done.space_reclaimed }
        }
        Kind::Builds => {
            let done: types::BuildPruned = client.prune("build", &query).await?;
            Pruned {
                title: "build cache objects",
                names: done.caches_deleted.unwrap_or_default(),
                bytes: done.space_reclaimed,
            }
        }
        Kind::Images => {
            let done: types::ImagesPruned = client.prune("images", &query).await?;
            let line = |one: types::ImageDeleted| match one.untagged.is_empty() {
                true => format!("deleted: {}", one.deleted),
                false => format!("untagged: {}", one.untagged),
            };
            let names = done.images_deleted.unwrap_or_default().into_iter().map(line).collect();
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
    let used: types::DiskUsage<'_> = client.get("/system/df", &[]).await?;
    if args.verbose {
        return each_of(&used);
    }
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
    let running = |container: &&types::ContainerSummary<'_>| container.state == "running";
    let bytes = |all: &[&types::ContainerSummary<'_>]| all.iter().map(|c| positive(c.size_rw)).sum::<u64>();
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

/// Shows each thing that takes space. *Source:* docker/cli `cli/command/formatter/disk_usage.go`, `--verbose`.
fn each_of(used: &types::DiskUsage<'_>) -> Result<()> {
    let size = |bytes: i64| list::size(u64::try_from(bytes).unwrap_or(0));
    let short = |id: &str| id.trim_start_matches("sha256:").chars().take(12).collect::<String>();
    let now = list::now();
    let since = |seconds: i64| {
        let age = now.0 / 1_000_000_000 - seconds;
        format!("{} ago", list::human(std::time::Duration::from_secs(u64::try_from(age).unwrap_or(0))))
    };
    output::line("Images space usage:\n")?;
    let mut table = List::new(&[
        ("REPOSITORY:TAG", "Name"),
        ("IMAGE ID", "ID"),
        ("CREATED", "CreatedSince"),
        ("SIZE", "Size"),
        ("SHARED SIZE", "SharedSize"),
        ("UNIQUE SIZE", "UniqueSize"),
        ("CONTAINERS", "Containers"),
    ]);
    for image in &used.images {
        let shared = image.shared_size.max(0);
        table.row(vec![
            if image.repo_tags.is_empty() { "<none>".to_owned() } else { image.repo_tags.join(",") },
            short(&image.id),
            since(image.created),
            size(image.size),
            size(shared),
            size(image.size - shared),
            image.containers.max(0).to_string(),
        ]);
    }
    output::line(&table.table())?;
    output::line("\nContainers space usage:\n")?;
    let mut table = List::new(&[
        ("CONTAINER ID", "ID"),
        ("IMAGE", "Image"),
        ("SIZE", "Size"),
        ("CREATED", "RunningFor"),
        ("STATUS", "Status"),
        ("NAMES", "Names"),
    ]);
    for container in &used.containers {
        let names: Vec<&str> = container.names.iter().map(|name| name.trim_start_matches('/')).collect();
        table.row(vec![
            short(&container.id),
            container.image.to_string(),
            size(container.size_rw),
            since(container.created),
            container.status.clone(),
            names.join(","),
        ]);
    }
    output::line(&table.table())?;
    output::line("\nLocal Volumes space usage:\n")?;
    let mut table = List::new(&[("VOLUME NAME", "Name"), ("LINKS", "Links"), ("SIZE", "Size")]);
    for volume in &used.volumes {
        let (links, bytes) = volume.usage_data.as_ref().map_or((0, 0), |usage| (usage.ref_count, usage.size));
        table.row(vec![volume.name.clone(), links.to_string(), size(bytes)]);
    }
    output::line(&table.table())?;
    let total: i64 = used.build_cache.iter().map(|step| step.size).sum();
    output::line(&format!("\nBuild cache usage: {}\n", size(total)))?;
    let mut table = List::new(&[
        ("CACHE ID", "ID"),
        ("CACHE TYPE", "Type"),
        ("SIZE", "Size"),
        ("CREATED", "CreatedSince"),
        ("LAST USED", "LastUsedSince"),
        ("USAGE", "UsageCount"),
    ]);
    for step in &used.build_cache {
        let ago = |at: types::Time| format!("{} ago", list::human(now.since(at.timestamp())));
        table.row(vec![
            short(&step.id),
            step.kind.clone(),
            size(step.size),
            ago(step.created_at),
            ago(step.last_used_at),
            step.usage_count.to_string(),
        ]);
    }
    output::line(&table.table())
}
