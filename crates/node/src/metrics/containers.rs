//! What each container takes. *Source:* cAdvisor `metrics/prometheus.go`, whose names and labels these are.

use super::{
    families::{Families, Labels},
    process::{number, wide},
};
use engine::{Container, Engine, ListOptions, Stats};
use futures::StreamExt as _;
use std::sync::Arc;

/// Looked at at the same time.
const AT_ONCE: usize = 16;

/// What a service, project or stack is called: boards group by it. Their values are names; other labels have no rows.
const NAMES: [(&str, &str); 6] = [
    ("com.docker.swarm.service.name", "container_label_com_docker_swarm_service_name"),
    ("com.docker.swarm.task.name", "container_label_com_docker_swarm_task_name"),
    ("com.docker.swarm.node.id", "container_label_com_docker_swarm_node_id"),
    ("com.docker.stack.namespace", "container_label_com_docker_stack_namespace"),
    ("com.docker.compose.project", "container_label_com_docker_compose_project"),
    ("com.docker.compose.service", "container_label_com_docker_compose_service"),
];

pub(super) async fn look(engine: &Engine, most: usize, to: &mut Families) {
    let all = engine.list(ListOptions::default()).await.unwrap_or_default();
    let (all, left_out) = first(all, most, |container| (container.state.started_at, container.id.clone()));
    let help = "Containers that run and have no rows of their own, because there are too many.";
    to.gauge("rswarm_containers_not_measured", help, Vec::new(), number(left_out));
    let looks = all.into_iter().map(|container| async move {
        let stats = engine.stats(&container.id).await;
        (container, stats)
    });
    let mut looks = futures::stream::iter(looks).buffered(AT_ONCE);
    while let Some((container, stats)) = looks.next().await {
        // One that has ended meanwhile.
        let Ok(stats) = stats else { continue };
        rows(engine, &container, &stats, to);
    }
}

/// Returns as many as there are rows for, those that come first by `key`, and how many others there are.
fn first<T, K: Ord>(mut all: Vec<T>, most: usize, key: impl Fn(&T) -> K) -> (Vec<T>, usize) {
    all.sort_by_cached_key(key);
    let others = all.len().saturating_sub(most);
    all.truncate(most);
    (all, others)
}

fn labels(engine: &Engine, container: &Arc<Container>) -> Labels {
    let mut labels = vec![
        ("id", engine.cgroup_of(container)),
        ("image", container.config.image.clone()),
        ("name", container.name.clone()),
    ];
    let named =
        NAMES.iter().filter_map(|(key, label)| Some((*label, container.config.labels.get(*key)?.clone())));
    labels.extend(named);
    labels
}

/// *Unit:* nanoseconds to seconds.
fn seconds(nanos: u64) -> f64 {
    std::time::Duration::from_nanos(nanos).as_secs_f64()
}

fn rows(engine: &Engine, container: &Arc<Container>, stats: &Stats, to: &mut Families) {
    let own = labels(engine, container);
    let with = |key: &'static str, value: &str| {
        let mut labels = own.clone();
        labels.push((key, value.to_owned()));
        labels
    };
    let cpu = &stats.cpu;
    let total = seconds(cpu.total);
    to.counter("container_cpu_usage_seconds", "Processor time.", with("cpu", "total"), total);
    to.counter("container_cpu_user_seconds", "Of it, in programs.", own.clone(), seconds(cpu.user));
    to.counter("container_cpu_system_seconds", "Of it, in the kernel.", own.clone(), seconds(cpu.kernel));
    to.counter("container_cpu_cfs_periods", "Periods of its limit.", own.clone(), wide(cpu.periods));
    let help = "Periods in which it was held up by its limit.";
    to.counter("container_cpu_cfs_throttled_periods", help, own.clone(), wide(cpu.throttled_periods));
    let help = "For how long it was held up.";
    to.counter("container_cpu_cfs_throttled_seconds", help, own.clone(), seconds(cpu.throttled));

    let memory = &stats.memory;
    to.gauge("container_memory_usage_bytes", "Memory, with its file cache.", own.clone(), wide(memory.usage));
    // *Source:* cAdvisor `container/libcontainer/handler.go`, `setMemoryStats`.
    let inactive = ["total_inactive_file", "inactive_file"].iter().find_map(|key| memory.stats.get(*key));
    let working = memory.usage.saturating_sub(inactive.copied().unwrap_or_default());
    let help = "Memory that cannot be taken back without harm.";
    to.gauge("container_memory_working_set_bytes", help, own.clone(), wide(working));
    let stat = |keys: [&str; 2]| keys.iter().find_map(|key| memory.stats.get(*key)).copied();
    if let Some(bytes) = stat(["total_rss", "anon"]) {
        to.gauge("container_memory_rss", "Memory that is no file's.", own.clone(), wide(bytes));
    }
    if let Some(bytes) = stat(["total_cache", "file"]) {
        to.gauge("container_memory_cache", "File cache.", own.clone(), wide(bytes));
    }
    // 0 is "no limit" there, and the host's memory here.
    let limit = container.config.host.resources.memory_bytes;
    to.gauge("container_spec_memory_limit_bytes", "Its limit; 0: none.", own.clone(), wide(limit));

    for (interface, network) in &stats.networks {
        let labels = || with("interface", interface);
        let mut add = |name, help, count| to.counter(name, help, labels(), wide(count));
        add("container_network_receive_bytes", "Bytes that came.", network.rx_bytes);
        add("container_network_receive_packets", "Packets that came.", network.rx_packets);
        add("container_network_receive_errors", "Errors in what came.", network.rx_errors);
        add("container_network_receive_packets_dropped", "What came and was dropped.", network.rx_dropped);
        add("container_network_transmit_bytes", "Bytes that went.", network.tx_bytes);
        add("container_network_transmit_packets", "Packets that went.", network.tx_packets);
        add("container_network_transmit_errors", "Errors in what went.", network.tx_errors);
        add(
            "container_network_transmit_packets_dropped",
            "What was to go and was dropped.",
            network.tx_dropped,
        );
    }
    let io = |of: fn(&engine::BlkioStats) -> u64| wide(stats.blkio.iter().map(of).sum());
    to.counter("container_fs_reads_bytes", "Bytes read from disks.", own.clone(), io(|d| d.read_bytes));
    to.counter("container_fs_writes_bytes", "Bytes written to disks.", own.clone(), io(|d| d.write_bytes));
    to.counter("container_fs_reads", "Reads from disks.", own.clone(), io(|d| d.read_ops));
    to.counter("container_fs_writes", "Writes to disks.", own.clone(), io(|d| d.write_ops));
    to.gauge("container_processes", "Processes and threads.", own.clone(), wide(stats.pids_current));
    if let Some(at) = container.state.started_at {
        let at = seconds(u64::try_from(at.0).unwrap_or_default());
        to.gauge("container_start_time_seconds", "When it was started, since 1970.", own.clone(), at);
    }
    let seen = seconds(u64::try_from(stats.read_at.0).unwrap_or_default());
    to.gauge("container_last_seen", "When it was looked at, since 1970.", own, seen);
}

#[cfg(test)]
mod tests {
    use super::first;

    #[test]
    fn of_too_many_those_that_run_for_longest_have_rows_and_the_others_are_counted() {
        let (rows, others) = first(vec![30, 10, 20, 40], 3, |started| *started);
        assert_eq!((rows, others), (vec![10, 20, 30], 1));
        assert_eq!(first(vec![2, 1], 500, |started| *started), (vec![1, 2], 0));
    }
}
