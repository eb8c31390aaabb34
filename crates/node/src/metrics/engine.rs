//! The engine: containers by state, what was done and how long it took, images and disk. *Source:* moby `daemon/metrics.go`,
//! whose names these are where it has them.

use super::{
    Sources,
    families::Families,
    process::{number, wide},
};
use ::engine::{ListOptions, Status};

pub(super) async fn look(from: &Sources, to: &mut Families) {
    let engine = &from.engine;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let about = vec![
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("architecture", std::env::consts::ARCH.to_owned()),
        ("graphdriver", "overlay2".to_owned()),
        ("kernel", kernel.trim().to_owned()),
        ("os_type", "linux".to_owned()),
    ];
    to.gauge("engine_daemon_engine_info", "What the engine and its host are.", about, 1.0);
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    to.gauge("engine_daemon_engine_cpus_cpus", "Processors of the host.", Vec::new(), number(cpus));
    let memory = rustix::system::sysinfo();
    let memory = wide(memory.totalram as u64 * u64::from(memory.mem_unit));
    to.gauge("engine_daemon_engine_memory_bytes", "Memory of the host.", Vec::new(), memory);

    let all = ListOptions { all: true, ..ListOptions::default() };
    let (mut running, mut paused, mut stopped) = (0, 0, 0);
    for container in engine.list(all).await.unwrap_or_default() {
        match container.state.status {
            Status::Running | Status::Restarting => running += 1,
            Status::Paused => paused += 1,
            Status::Created | Status::Removing | Status::Exited | Status::Dead => stopped += 1,
        }
    }
    for (state, count) in [("running", running), ("paused", paused), ("stopped", stopped)] {
        let labels = vec![("state", state.to_owned())];
        to.gauge("engine_daemon_container_states_containers", "Containers by state.", labels, number(count));
    }

    let counts = engine.counts();
    for (action, timing) in counts.actions {
        let labels = vec![("action", action.to_owned())];
        to.timing("engine_daemon_container_actions_seconds", "How long each took.", labels, timing);
    }
    to.counter("engine_daemon_events", "Events that were told.", Vec::new(), wide(counts.events));
    to.counter("engine_daemon_health_checks", "Probes of health.", Vec::new(), wide(counts.health_checks));
    let failed = wide(counts.health_checks_failed);
    to.counter("engine_daemon_health_checks_failed", "Probes that failed.", Vec::new(), failed);

    let images = engine.images().list().await;
    let named = images.iter().filter(|image| !image.intermediate).count();
    to.gauge("rswarm_images", "Images of this host.", Vec::new(), number(named));
    let bytes = wide(engine.images().layer_usage().total_bytes);
    to.gauge("rswarm_image_layers_bytes", "What their layers take, each counted once.", Vec::new(), bytes);
    let cache = engine.build_cache().iter().map(|step| step.size_bytes).sum();
    to.gauge("rswarm_build_cache_bytes", "Results of builds that are kept.", Vec::new(), wide(cache));
    if let Ok(disk) = rustix::fs::statvfs(&from.data_root) {
        let bytes = |blocks: u64| wide(blocks.saturating_mul(disk.f_frsize));
        to.gauge(
            "rswarm_disk_bytes",
            "Size of the data root's file system.",
            Vec::new(),
            bytes(disk.f_blocks),
        );
        to.gauge("rswarm_disk_free_bytes", "What of it is free.", Vec::new(), bytes(disk.f_bavail));
        to.gauge("rswarm_disk_inodes", "How many files it takes.", Vec::new(), wide(disk.f_files));
        to.gauge("rswarm_disk_free_inodes", "How many more.", Vec::new(), wide(disk.f_favail));
    }
}
