//! This process, under the names that Prometheus' own clients give such numbers.

use super::families::Families;
use std::fs;

/// *Source:* sysconf(3), `_SC_CLK_TCK`: the kernel counts in 1/100 s on every architecture we run on.
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) fn look(to: &mut Families) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which may hold anything: fields 3 and on. *Source:* proc_pid_stat(5).
    let fields: Vec<&str> =
        stat.rsplit_once(')').map_or(stat.as_str(), |(_, rest)| rest).split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<f64>().ok());
    let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot = boot.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok());
    if let (Some(user), Some(system)) = (field(14), field(15)) {
        let seconds = (user + system) / TICKS_PER_SECOND;
        to.counter("process_cpu_seconds", "Processor time of the daemon.", Vec::new(), seconds);
    }
    if let (Some(started), Some(boot)) = (field(22), boot) {
        let at = boot + started / TICKS_PER_SECOND;
        to.gauge("process_start_time_seconds", "When the daemon started, since 1970.", Vec::new(), at);
    }
    if let Some(bytes) = field(23) {
        to.gauge("process_virtual_memory_bytes", "Address space of the daemon.", Vec::new(), bytes);
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB"));
    if let Some(kib) = resident.and_then(|kib| kib.trim().parse::<f64>().ok()) {
        to.gauge("process_resident_memory_bytes", "Memory of the daemon.", Vec::new(), kib * 1024.0);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        to.gauge("process_open_fds", "Open descriptors of the daemon.", Vec::new(), number(open.count()));
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    if let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) {
        to.gauge("process_max_fds", "How many it may open.", Vec::new(), number(limit));
    }
}

/// Returns a count as a number of a row: exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "of larger ones the lowest digits are no matter")]
pub(super) fn number(count: usize) -> f64 {
    count as f64
}

/// The same.
#[expect(clippy::cast_precision_loss, reason = "of larger ones the lowest digits are no matter")]
pub(super) fn wide(count: u64) -> f64 {
    count as f64
}
