//! From the flags of `run` and `create` to what the Docker API takes. *Source:* docker CLI, `cli/command/container`
//! `opts.go`; mount syntax: `opts/mount.go`.

use super::pairs;
use crate::cli::{ContainerFlags, CreateArgs, LimitFlags};
use anyhow::{Context, Result, bail};
use docker_api::types::{self, StrSlice};
use model::{BindRecursion, ContainerRestart};
use std::{collections::BTreeMap, path::Path, time::Duration};

/// Returns what is to be made; `attached` when its streams are to be joined at once.
///
/// # Errors
/// A flag that cannot be read, or a file of one.
pub(crate) fn body(args: &CreateArgs, attached: bool) -> Result<types::ContainerCreate> {
    let flags = &args.flags;
    let joined = super::joined::Joined::of(flags);
    let (exposed_ports, port_bindings) = ports(flags)?;
    let env = environment(&flags.env_file, &flags.env)?;
    let mut labels = pairs(&lines_of(&flags.label_file)?);
    labels.extend(pairs(&flags.label));
    let (binds, volumes) = volumes(&flags.volume);
    let config = types::ContainerConfig {
        image: args.image().to_owned(),
        cmd: (!args.command().is_empty()).then(|| StrSlice(args.command().to_vec())),
        // An empty one takes the image's away.
        entrypoint: flags.entrypoint.clone().map(|e| StrSlice(vec![e])),
        env,
        labels,
        user: flags.user.clone().unwrap_or_default(),
        working_dir: flags.workdir.clone().unwrap_or_default(),
        hostname: flags.hostname.clone().unwrap_or_default(),
        domainname: flags.domainname.clone().unwrap_or_default(),
        tty: flags.tty,
        open_stdin: flags.interactive,
        stdin_once: flags.interactive && attached,
        attach_stdin: joined.stdin && attached,
        attach_stdout: joined.stdout && attached,
        attach_stderr: joined.stderr && attached,
        stop_signal: flags.stop_signal.clone().unwrap_or_default(),
        stop_timeout: flags.stop_timeout,
        healthcheck: health(flags)?,
        exposed_ports,
        volumes: (!volumes.is_empty()).then_some(volumes),
        ..Default::default()
    };
    let network = flags.network.clone().unwrap_or_else(|| "default".to_owned());
    Ok(types::ContainerCreate {
        config,
        host_config: Some(host(flags, binds, port_bindings, network.clone())?),
        networking_config: endpoint(flags)
            .map(|endpoint| types::NetworkingConfig { endpoints_config: [(network, Some(endpoint))].into() }),
    })
}

fn host(
    flags: &ContainerFlags,
    binds: Vec<String>,
    port_bindings: Ports,
    network_mode: String,
) -> Result<types::HostConfig> {
    let text = |flag: &Option<String>| flag.clone().unwrap_or_default();
    let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    Ok(types::HostConfig {
        binds: some(&binds),
        mounts: flags.mount.iter().map(|m| mount(m)).collect::<Result<_>>()?,
        tmpfs: flags.tmpfs.iter().map(|t| split(t, ':')).collect(),
        volumes_from: some(&flags.volumes_from),
        volume_driver: text(&flags.volume_driver),
        storage_opt: pairs(&flags.storage_opt),
        port_bindings,
        publish_all_ports: flags.publish_all,
        auto_remove: flags.rm,
        network_mode,
        restart_policy: restart(flags.restart.as_deref())?,
        log_config: types::LogConfig { kind: text(&flags.log_driver), config: pairs(&flags.log_opt) },
        annotations: pairs(&flags.annotation),
        cap_add: some(&capabilities(&flags.cap_add)).map(StrSlice),
        cap_drop: some(&capabilities(&flags.cap_drop)).map(StrSlice),
        dns: flags.dns.clone(),
        dns_search: flags.dns_search.clone(),
        dns_options: flags.dns_option.clone(),
        extra_hosts: some(&flags.add_host.iter().map(|h| h.replacen('=', ":", 1)).collect::<Vec<_>>()),
        group_add: some(&flags.group_add),
        links: some(&flags.link),
        privileged: flags.privileged,
        readonly_rootfs: flags.read_only,
        init: flags.init.then_some(true),
        security_opt: some(&flags.security_opt.iter().map(|o| security(o)).collect::<Result<Vec<_>>>()?),
        sysctls: pairs(&flags.sysctl),
        pid_mode: text(&flags.pid),
        ipc_mode: text(&flags.ipc),
        uts_mode: text(&flags.uts),
        userns_mode: text(&flags.userns),
        cgroupns_mode: text(&flags.cgroupns),
        shm_size: bytes("--shm-size", flags.start.shm_size.as_deref())?,
        oom_score_adj: flags.oom_score_adj.unwrap_or(0),
        runtime: text(&flags.runtime),
        resources: resources(flags)?,
        ..Default::default()
    })
}

/// Returns limits alone, as `update` sends them.
///
/// # Errors
/// A value that cannot be read.
pub(crate) fn limits(flags: &LimitFlags) -> Result<types::ContainerResources> {
    let nano_cpus = match &flags.cpus {
        None => 0,
        Some(text) => compose::cpu_nanos(text)
            .and_then(|n| i64::try_from(n).ok())
            .with_context(|| format!("--cpus {text:?} is no number of CPUs such as 1.5"))?,
    };
    Ok(types::ContainerResources {
        memory: bytes("--memory", flags.resources.memory.as_deref())?,
        memory_swap: match flags.resources.memory_swap.as_deref() {
            Some("-1") => -1,
            other => bytes("--memory-swap", other)?,
        },
        memory_reservation: bytes("--memory-reservation", flags.memory_reservation.as_deref())?,
        nano_cpus,
        cpu_shares: flags.resources.cpu_shares.unwrap_or(0),
        cpu_period: flags.resources.cpu_period.unwrap_or(0),
        cpu_quota: flags.resources.cpu_quota.unwrap_or(0),
        cpuset_cpus: flags.resources.cpuset_cpus.clone().unwrap_or_default(),
        cpuset_mems: flags.resources.cpuset_mems.clone().unwrap_or_default(),
        pids_limit: flags.pids_limit,
        blkio_weight: flags.blkio_weight.unwrap_or(0),
        ..Default::default()
    })
}

/// Reads `DEVICE:AMOUNT`; the daemon says whether that is honoured. *Source:* docker/cli `opts/throttledevice.go`.
fn per_device(flag: &str, field: &str, all: &[String]) -> Result<Vec<serde_json::Value>> {
    let read = |text: &String| {
        let bad = || format!("{flag}: bad format: {text} (want DEVICE:AMOUNT, such as /dev/sda:1mb)");
        let (path, amount) =
            text.rsplit_once(':').filter(|(path, _)| path.starts_with("/dev/")).with_context(bad)?;
        let amount = compose::bytes(amount).with_context(bad)?;
        Ok(serde_json::json!({"Path": path, field: amount}))
    };
    all.iter().map(read).collect()
}

fn resources(flags: &ContainerFlags) -> Result<types::ContainerResources> {
    let some = |list: Vec<serde_json::Value>| Some(list).filter(|list| !list.is_empty());
    Ok(types::ContainerResources {
        memory_swappiness: flags.memory_swappiness,
        oom_kill_disable: flags.oom_kill_disable.then_some(true),
        cgroup_parent: flags.cgroup_parent.clone().unwrap_or_default(),
        devices: flags.device.iter().filter(|d| !is_vendors(d)).map(|d| device(d)).collect(),
        device_requests: device_requests(flags)?,
        device_cgroup_rules: (!flags.device_cgroup_rule.is_empty()).then(|| flags.device_cgroup_rule.clone()),
        blkio_weight_device: per_device("--blkio-weight-device", "Weight", &flags.blkio_weight_device)?,
        blkio_device_read_bps: some(per_device("--device-read-bps", "Rate", &flags.device_read_bps)?),
        blkio_device_write_bps: some(per_device("--device-write-bps", "Rate", &flags.device_write_bps)?),
        blkio_device_read_iops: some(per_device("--device-read-iops", "Rate", &flags.device_read_iops)?),
        blkio_device_write_iops: some(per_device("--device-write-iops", "Rate", &flags.device_write_iops)?),
        ulimits: Some(flags.start.ulimit.iter().map(|l| ulimit(l)).collect::<Result<_>>()?),
        ..limits(&flags.limits)?
    })
}

fn endpoint(flags: &ContainerFlags) -> Option<types::EndpointSettings> {
    let text = |flag: &Option<String>| flag.clone().unwrap_or_default();
    let ipam = types::EndpointIpam {
        ipv4_address: text(&flags.ip),
        ipv6_address: text(&flags.ip6),
        link_local_ips: flags.link_local_ip.clone(),
    };
    let endpoint = types::EndpointSettings {
        ipam_config: Some(ipam).filter(|ipam| *ipam != types::EndpointIpam::default()),
        aliases: (!flags.network_alias.is_empty()).then(|| flags.network_alias.clone()),
        mac_address: text(&flags.mac_address),
        ..Default::default()
    };
    Some(endpoint).filter(|endpoint| *endpoint != types::EndpointSettings::default())
}

/// In the kernel's words, each once. *Source:* docker CLI, `opts.NormalizeCapability`.
pub(crate) fn capabilities(flags: &[String]) -> Vec<String> {
    let whole = |flag: &String| match flag.trim().to_ascii_uppercase() {
        all if all == "ALL" => all,
        whole if whole.starts_with("CAP_") => whole,
        short => format!("CAP_{short}"),
    };
    let all: std::collections::BTreeSet<String> = flags.iter().map(whole).collect();
    all.into_iter().collect()
}

/// Reads files of one entry a line; empty lines and those with `#` in front are none.
fn lines_of(files: &[std::path::PathBuf]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for file in files {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let lines = text.lines().map(str::trim_start);
        all.extend(lines.filter(|l| !l.is_empty() && !l.starts_with('#')).map(str::to_owned));
    }
    Ok(all)
}

/// Returns the variables of files and flags.
///
/// # Errors
/// A file cannot be read.
pub(crate) fn environment(files: &[std::path::PathBuf], flags: &[String]) -> Result<Vec<String>> {
    let mut env = lines_of(files)?;
    env.extend(flags.iter().cloned());
    Ok(env.into_iter().filter_map(with_value).collect())
}

/// A variable without a value has the one it has here; one that is not set here is not there.
fn with_value(entry: String) -> Option<String> {
    if entry.contains('=') {
        return Some(entry);
    }
    std::env::var(&entry).ok().map(|value| format!("{entry}={value}"))
}

pub(super) fn split(text: &str, at: char) -> (String, String) {
    text.split_once(at).map_or((text.to_owned(), String::new()), |(a, b)| (a.to_owned(), b.to_owned()))
}

pub(super) fn bytes(flag: &str, text: Option<&str>) -> Result<i64> {
    let Some(text) = text else { return Ok(0) };
    let read = compose::bytes(text).and_then(|n| i64::try_from(n).ok());
    read.with_context(|| format!("{flag} {text:?} is not a size such as 512m or 2g"))
}

fn nanos(flag: &str, text: Option<&str>) -> Result<i64> {
    let Some(text) = text else { return Ok(0) };
    let read: Option<Duration> = compose::duration(text);
    let read = read.and_then(|d| i64::try_from(d.as_nanos()).ok());
    read.with_context(|| format!("{flag} {text:?} is not a duration such as 30s or 1m30s"))
}

fn health(flags: &ContainerFlags) -> Result<Option<types::Health>> {
    let health = types::Health {
        test: flags
            .health_cmd
            .as_ref()
            .map(|line| vec!["CMD-SHELL".to_owned(), line.clone()])
            .unwrap_or_default(),
        interval: nanos("--health-interval", flags.health_interval.as_deref())?,
        timeout: nanos("--health-timeout", flags.health_timeout.as_deref())?,
        start_period: nanos("--health-start-period", flags.health_start_period.as_deref())?,
        start_interval: nanos("--health-start-interval", flags.health_start_interval.as_deref())?,
        retries: flags.health_retries.unwrap_or(0),
    };
    let asked = health != types::Health::default();
    match (flags.no_healthcheck, asked) {
        (true, true) => bail!("--no-healthcheck conflicts with --health-* options"),
        (true, false) => Ok(Some(types::Health { test: vec!["NONE".to_owned()], ..Default::default() })),
        (false, _) => Ok(asked.then_some(health)),
    }
}

pub(crate) fn restart(text: Option<&str>) -> Result<types::RestartPolicy> {
    let policy = text.map_or(Ok(ContainerRestart::No), ContainerRestart::of_text)?;
    Ok(types::RestartPolicy { name: policy.word().to_owned(), maximum_retry_count: policy.retries().into() })
}

/// A seccomp profile is read here: the daemon may be elsewhere.
fn security(text: &str) -> Result<String> {
    let Some(file) = text.strip_prefix("seccomp=").filter(|f| !matches!(*f, "unconfined" | "builtin")) else {
        return Ok(text.to_owned());
    };
    let profile =
        std::fs::read_to_string(file).with_context(|| format!("opening seccomp profile ({file}) failed"))?;
    let profile: serde_json::Value =
        serde_json::from_str(&profile).with_context(|| format!("seccomp profile {file} is not JSON"))?;
    Ok(format!("seccomp={profile}"))
}

/// A vendor's device is `VENDOR/CLASS=NAME`; a path begins with `/`.
fn is_vendors(device: &str) -> bool {
    !device.starts_with('/') && device.split_once('=').is_some_and(|(kind, _)| kind.contains('/'))
}

fn device_requests(flags: &ContainerFlags) -> Result<Option<Vec<types::DeviceRequest>>> {
    let mut all = flags.gpus.iter().map(|text| gpus(text)).collect::<Result<Vec<_>>>()?;
    let names: Vec<String> = flags.device.iter().filter(|d| is_vendors(d)).cloned().collect();
    if !names.is_empty() {
        let request =
            types::DeviceRequest { driver: "cdi".into(), device_ids: Some(names), ..Default::default() };
        all.push(request);
    }
    Ok((!all.is_empty()).then_some(all))
}

/// Reads `--gpus`. *Source:* docker/cli `opts/gpus.go`: fields are those of CSV, so that `"device=0,1"` is one.
fn gpus(text: &str) -> Result<types::DeviceRequest> {
    let bad = |why: &str| anyhow::anyhow!("invalid argument {text:?} for --gpus: {why}");
    let mut request = types::DeviceRequest::default();
    let mut counted = false;
    for field in csv(text) {
        let (key, value) = field.split_once('=').unwrap_or(("count", &field));
        let words = || value.split(',').map(str::to_owned);
        match key {
            "count" => {
                counted = true;
                request.count = match value {
                    "all" => -1,
                    number => number
                        .parse()
                        .ok()
                        .filter(|n| *n > 0)
                        .ok_or_else(|| bad("count must be a number greater than 0, or all"))?,
                };
            }
            "driver" => value.clone_into(&mut request.driver),
            "device" => request.device_ids = Some(words().collect()),
            "capabilities" => {
                request.capabilities = Some(vec![words().chain(["gpu".to_owned()]).collect()]);
            }
            other => return Err(bad(&format!("unexpected key {other:?}"))),
        }
    }
    if !counted && request.device_ids.is_none() {
        request.count = 1;
    }
    request.capabilities.get_or_insert_with(|| vec![vec!["gpu".to_owned()]]);
    Ok(request)
}

/// Splits at commas that are not in quotes.
pub(super) fn csv(text: &str) -> Vec<String> {
    let (mut fields, mut quoted) = (vec![String::new()], false);
    for letter in text.chars() {
        match letter {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => fields.last_mut().into_iter().for_each(|field| field.push(other)),
        }
    }
    fields
}

fn device(text: &str) -> types::Device {
    let parts: Vec<&str> = text.split(':').collect();
    let rights = |text: &str| !text.is_empty() && text.chars().all(|c| "rwm".contains(c));
    let (path, inside, access) = match parts.as_slice() {
        [path, inside, access] => (*path, *inside, *access),
        [path, access] if rights(access) => (*path, *path, *access),
        [path, inside] => (*path, *inside, "rwm"),
        _ => (text, text, "rwm"),
    };
    types::Device {
        path_on_host: path.to_owned(),
        path_in_container: inside.to_owned(),
        cgroup_permissions: access.to_owned(),
    }
}

pub(super) fn ulimit(text: &str) -> Result<types::Ulimit> {
    let read = model::Ulimit::of_text(text).with_context(|| format!("invalid ulimit argument: {text}"))?;
    read.check("ulimit argument")?;
    let model::Ulimit { name, soft, hard } = read;
    Ok(types::Ulimit { name, hard, soft })
}

/// Splits `-v` values into those that Docker calls binds and paths of anonymous volumes.
pub(crate) fn volumes(flags: &[String]) -> (Vec<String>, BTreeMap<String, types::Empty>) {
    let (binds, anonymous): (Vec<&String>, Vec<&String>) = flags.iter().partition(|v| v.contains(':'));
    let absolute = |bind: &String| match bind.split_once(':') {
        // A relative folder of this machine.
        Some((source, rest)) if source.starts_with('.') => match Path::new(source).canonicalize() {
            Ok(path) => format!("{}:{rest}", path.display()),
            Err(_) => bind.clone(),
        },
        _ => bind.clone(),
    };
    (
        binds.into_iter().map(absolute).collect(),
        anonymous.into_iter().map(|v| (v.clone(), types::Empty::default())).collect(),
    )
}

/// Reads `--mount`.
pub(super) fn mount(text: &str) -> Result<types::Mount> {
    let mut mount = types::Mount { kind: "volume".to_owned(), ..Default::default() };
    let (mut bind, mut volume, mut tmpfs) =
        (types::BindOptions::default(), types::VolumeOptions::default(), types::TmpfsOptions::default());
    let mut image = types::ImageOptions::default();
    let mut driver = types::DriverState::default();
    for field in text.split(',') {
        let (key, value) = split(field, '=');
        let flag = || match value.as_str() {
            "" | "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            other => bail!("--mount {text}: invalid value for {key}: {other}"),
        };
        match key.as_str() {
            "type" => mount.kind.clone_from(&value),
            "source" | "src" => mount.source.clone_from(&value),
            "target" | "dst" | "destination" => mount.target.clone_from(&value),
            "readonly" | "ro" => mount.read_only = flag()?,
            "bind-propagation" => bind.propagation.clone_from(&value),
            "bind-nonrecursive" => bind.non_recursive = flag()?,
            "bind-recursive" => match BindRecursion::of_word(&value) {
                Some(BindRecursion::Enabled) => {}
                Some(BindRecursion::Disabled) => bind.non_recursive = true,
                Some(BindRecursion::Writable) => bind.read_only_non_recursive = true,
                Some(BindRecursion::ReadOnly) => bind.read_only_force_recursive = true,
                None => bail!(
                    "--mount {text}: invalid value for bind-recursive: {value} (must be \"enabled\", \"disabled\", \
                     \"writable\", or \"readonly\")"
                ),
            },
            "bind-create-src" => bind.create_mountpoint = flag()?,
            "volume-nocopy" => volume.no_copy = flag()?,
            "volume-subpath" => volume.subpath.clone_from(&value),
            "volume-driver" => driver.name.clone_from(&value),
            "volume-opt" => {
                driver.options.extend([split(&value, '=')]);
            }
            "volume-label" => {
                volume.labels.extend([split(&value, '=')]);
            }
            "tmpfs-size" => tmpfs.size_bytes = bytes("--mount tmpfs-size", Some(&value))?,
            "tmpfs-mode" => {
                tmpfs.mode = u32::from_str_radix(&value, 8)
                    .with_context(|| format!("--mount {text}: tmpfs-mode is not octal"))?;
            }
            "image-subpath" => image.subpath.clone_from(&value),
            other => bail!("--mount {text}: unknown key {other:?}"),
        }
    }
    if mount.target.is_empty() {
        bail!("--mount {text}: target is required");
    }
    volume.driver_config = Some(driver).filter(|d| *d != types::DriverState::default());
    mount.bind_options = Some(bind).filter(|o| *o != types::BindOptions::default());
    mount.volume_options = Some(volume).filter(|o| *o != types::VolumeOptions::default());
    mount.tmpfs_options = Some(tmpfs).filter(|o| *o != types::TmpfsOptions::default());
    mount.image_options = Some(image).filter(|o| *o != types::ImageOptions::default());
    Ok(mount)
}

type Ports = BTreeMap<String, Option<Vec<types::PortBinding>>>;

fn ports(flags: &ContainerFlags) -> Result<(BTreeMap<String, types::Empty>, Ports)> {
    let (mut exposed, mut bindings) = (BTreeMap::new(), Ports::new());
    for text in &flags.expose {
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (first, last) = range(ports).with_context(|| format!("--expose {text:?} is no port or range"))?;
        exposed.extend((first..=last).map(|port| (format!("{port}/{protocol}"), types::Empty::default())));
    }
    let (more, published) = published_ports(&flags.publish)?;
    exposed.extend(more);
    bindings.extend(published);
    Ok((exposed, bindings))
}

/// Returns which ports are exposed and bound for `--publish`.
///
/// # Errors
/// One that cannot be read.
pub(crate) fn published_ports(flags: &[String]) -> Result<(BTreeMap<String, types::Empty>, Ports)> {
    let (mut exposed, mut bindings) = (BTreeMap::new(), Ports::new());
    for text in flags {
        for (port, binding) in publish(text)? {
            exposed.insert(port.clone(), types::Empty::default());
            bindings.entry(port).or_default().get_or_insert_default().push(binding);
        }
    }
    Ok((exposed, bindings))
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (0 < first && first <= last).then_some((first, last))
}

/// Reads `[[ip:]host:]container[/protocol]`, where host and container may be ranges.
pub(super) fn publish(text: &str) -> Result<Vec<(String, types::PortBinding)>> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    // An IPv6 address has brackets.
    let (ip, ports) = match ports.strip_prefix('[').and_then(|rest| rest.split_once("]:")) {
        Some((ip, rest)) => (ip, rest),
        None => match ports.rsplitn(3, ':').collect::<Vec<_>>().as_slice() {
            [_, _, ip] => (*ip, &ports[ip.len() + 1..]),
            _ => ("", ports),
        },
    };
    if !ip.is_empty() && ip.parse::<std::net::IpAddr>().is_err() {
        bail!("invalid IP address: {ip} (in {text:?})");
    }
    let (host, container) = ports.rsplit_once(':').unwrap_or(("", ports));
    let (first, last) =
        range(container).with_context(|| format!("invalid containerPort: {container} (in {text:?})"))?;
    let hosts: Vec<String> = match host {
        "" => (first..=last).map(|_| String::new()).collect(),
        host => {
            let (low, high) =
                range(host).with_context(|| format!("invalid hostPort: {host} (in {text:?})"))?;
            if high - low == last - first {
                (low..=high).map(|port| port.to_string()).collect()
            } else if first == last {
                vec![host.to_owned()] // one port out of the range
            } else {
                bail!("invalid ranges specified for container and host ports: {container} and {host}")
            }
        }
    };
    let binding = |host_port| types::PortBinding { host_ip: ip.to_owned(), host_port };
    let all = (first..=last).map(|port| format!("{port}/{protocol}")).zip(hosts);
    Ok(all.map(|(port, host)| (port, binding(host))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(text: &str) -> Vec<String> {
        let line = |(port, b): (String, types::PortBinding)| format!("{port} {} {}", b.host_ip, b.host_port);
        publish(text).unwrap().into_iter().map(line).collect()
    }

    #[test]
    fn ports_are_read_as_docker_reads_them() {
        assert_eq!(published("80"), ["80/tcp  "]);
        assert_eq!(published("8080:80/udp"), ["80/udp  8080"]);
        assert_eq!(published("127.0.0.1::80"), ["80/tcp 127.0.0.1 "]);
        assert_eq!(published("[::1]:8080:80"), ["80/tcp ::1 8080"]);
        assert_eq!(published("8000-8001:80-81"), ["80/tcp  8000", "81/tcp  8001"]);
        assert_eq!(published("8000-8009:80"), ["80/tcp  8000-8009"]);
        for bad in ["x", "80:", "1:2:3:4", "8000-8001:80-85", "0", "90-80"] {
            assert!(publish(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mounts_are_read_as_docker_reads_them() {
        let read =
            mount("type=volume,src=v,dst=/x,readonly,volume-nocopy,volume-opt=o=bind,volume-driver=local");
        let read = read.unwrap();
        assert_eq!((read.source.as_str(), read.target.as_str(), read.read_only), ("v", "/x", true));
        let options = read.volume_options.unwrap();
        assert!(options.no_copy && options.driver_config.unwrap().options["o"] == "bind");
        let tmpfs =
            mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770").unwrap().tmpfs_options.unwrap();
        assert_eq!((tmpfs.size_bytes, tmpfs.mode), (1 << 20, 0o1770));
        for bad in
            ["type=volume", "target=/x,nope=1", "target=/x,ro=maybe", "type=tmpfs,target=/x,tmpfs-mode=9"]
        {
            assert!(mount(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn capabilities_have_their_whole_names() {
        let flags = ["net_admin", "CAP_KILL", "KILL", "all"].map(str::to_owned);
        assert_eq!(capabilities(&flags), ["ALL", "CAP_KILL", "CAP_NET_ADMIN"]);
    }

    #[test]
    fn gpus_are_read_as_dockers_cli_reads_them() {
        let read = |text: &str| {
            let r = gpus(text).unwrap();
            format!("{} {:?} {:?} {:?}", r.count, r.device_ids, r.driver, r.capabilities.unwrap())
        };
        assert_eq!(read("all"), r#"-1 None "" [["gpu"]]"#);
        assert_eq!(read("2"), r#"2 None "" [["gpu"]]"#);
        assert_eq!(read("driver=nvidia"), r#"1 None "nvidia" [["gpu"]]"#);
        assert_eq!(read("\"device=0,2\""), r#"0 Some(["0", "2"]) "" [["gpu"]]"#);
        let capable = "all,\"capabilities=compute,utility\"";
        assert_eq!(read(capable), r#"-1 None "" [["compute", "utility", "gpu"]]"#);
        for bad in ["none", "0", "-1", "colour=red"] {
            assert!(gpus(bad).unwrap_err().to_string().contains(bad), "{bad}");
        }
        assert!(is_vendors("nvidia.com/gpu=0") && !is_vendors("/dev/a=b/c=d") && !is_vendors("/dev/null"));
    }

    #[test]
    fn devices_limits_and_policies_are_read() {
        let paths = |text: &str| {
            let d = device(text);
            format!("{} {} {}", d.path_on_host, d.path_in_container, d.cgroup_permissions)
        };
        assert_eq!(paths("/dev/a"), "/dev/a /dev/a rwm");
        assert_eq!(paths("/dev/a:r"), "/dev/a /dev/a r");
        assert_eq!(paths("/dev/a:/dev/b"), "/dev/a /dev/b rwm");
        assert_eq!(paths("/dev/a:/dev/b:rw"), "/dev/a /dev/b rw");
        let limit = ulimit("nofile=5:6").unwrap();
        assert_eq!((limit.soft, limit.hard, ulimit("core=0").unwrap().hard), (5, 6, 0));
        assert!(ulimit("nofile").is_err() && ulimit("nofile=x").is_err());
        assert!(ulimit("files=1").is_err() && ulimit("nofile=2:1").is_err());
        assert_eq!(restart(Some("on-failure:3")).unwrap().maximum_retry_count, 3);
        assert_eq!(restart(None).unwrap().name, "no");
        for bad in ["on-failure:x", "on-failure:-1", "always:3", "sometimes"] {
            assert!(restart(Some(bad)).is_err(), "{bad}");
        }
    }
}
