//! Containers and exec instances of a host. Source: Docker API `ContainerConfig`, `HostConfig`, `ContainerInspect`.

use super::{Empty, StrSlice, StringMap, Time};
use std::{borrow::Cow, collections::BTreeMap};

wire! {
    /// Body of `POST /containers/create`: the configuration with two more keys.
    ContainerCreate {
        flatten config: ContainerConfig,
        host_config: Option<HostConfig> => "HostConfig",
        networking_config: Option<NetworkingConfig> => "NetworkingConfig",
    }
    NetworkingConfig {
        endpoints_config: BTreeMap<String, Option<EndpointSettings>> => "EndpointsConfig",
    }
    ContainerConfig {
        hostname: String = "Hostname",
        domainname: String = "Domainname",
        user: String = "User",
        attach_stdin: bool = "AttachStdin",
        attach_stdout: bool = "AttachStdout",
        attach_stderr: bool = "AttachStderr",
        exposed_ports: BTreeMap<String, Empty> => "ExposedPorts",
        tty: bool = "Tty",
        open_stdin: bool = "OpenStdin",
        stdin_once: bool = "StdinOnce",
        env: Vec<String> = "Env",
        cmd: Option<StrSlice> = "Cmd",
        healthcheck: Option<Health> => "Healthcheck",
        image: String = "Image",
        volumes: Option<BTreeMap<String, Empty>> = "Volumes",
        working_dir: String = "WorkingDir",
        entrypoint: Option<StrSlice> = "Entrypoint",
        network_disabled: bool => "NetworkDisabled",
        mac_address: String => "MacAddress",
        on_build: Option<Vec<String>> = "OnBuild",
        labels: StringMap = "Labels",
        stop_signal: String => "StopSignal",
        /// *Unit:* seconds.
        stop_timeout: Option<i64> => "StopTimeout",
        shell: Option<StrSlice> => "Shell",
    }
    /// A health check. *Units:* nanoseconds.
    Health {
        test: Vec<String> => "Test",
        interval: i64 => "Interval",
        timeout: i64 => "Timeout",
        start_period: i64 => "StartPeriod",
        start_interval: i64 => "StartInterval",
        retries: i64 => "Retries",
    }
    HostConfig {
        binds: Option<Vec<String>> = "Binds",
        container_id_file: String = "ContainerIDFile",
        log_config: LogConfig = "LogConfig",
        network_mode: String = "NetworkMode",
        port_bindings: BTreeMap<String, Option<Vec<PortBinding>>> = "PortBindings",
        restart_policy: RestartPolicy = "RestartPolicy",
        auto_remove: bool = "AutoRemove",
        volume_driver: String = "VolumeDriver",
        volumes_from: Option<Vec<String>> = "VolumesFrom",
        /// Height, width.
        console_size: [u32; 2] = "ConsoleSize",
        annotations: StringMap => "Annotations",
        cap_add: Option<StrSlice> = "CapAdd",
        cap_drop: Option<StrSlice> = "CapDrop",
        cgroupns_mode: String = "CgroupnsMode",
        dns: Vec<String> = "Dns",
        dns_options: Vec<String> = "DnsOptions",
        dns_search: Vec<String> = "DnsSearch",
        extra_hosts: Option<Vec<String>> = "ExtraHosts",
        group_add: Option<Vec<String>> = "GroupAdd",
        ipc_mode: String = "IpcMode",
        cgroup: String = "Cgroup",
        links: Option<Vec<String>> = "Links",
        oom_score_adj: i32 = "OomScoreAdj",
        pid_mode: String = "PidMode",
        privileged: bool = "Privileged",
        publish_all_ports: bool = "PublishAllPorts",
        readonly_rootfs: bool = "ReadonlyRootfs",
        security_opt: Option<Vec<String>> = "SecurityOpt",
        storage_opt: StringMap => "StorageOpt",
        tmpfs: StringMap => "Tmpfs",
        uts_mode: String = "UTSMode",
        userns_mode: String = "UsernsMode",
        shm_size: i64 = "ShmSize",
        sysctls: StringMap => "Sysctls",
        runtime: String => "Runtime",
        isolation: String = "Isolation",
        flatten resources: ContainerResources,
        mounts: Vec<Mount> => "Mounts",
        masked_paths: Option<Vec<String>> = "MaskedPaths",
        readonly_paths: Option<Vec<String>> = "ReadonlyPaths",
        init: Option<bool> => "Init",
    }
    ContainerResources {
        cpu_shares: i64 = "CpuShares",
        memory: i64 = "Memory",
        nano_cpus: i64 = "NanoCpus",
        cgroup_parent: String = "CgroupParent",
        blkio_weight: u16 = "BlkioWeight",
        blkio_weight_device: Vec<serde_json::Value> = "BlkioWeightDevice",
        blkio_device_read_bps: Option<Vec<serde_json::Value>> = "BlkioDeviceReadBps",
        blkio_device_write_bps: Option<Vec<serde_json::Value>> = "BlkioDeviceWriteBps",
        blkio_device_read_iops: Option<Vec<serde_json::Value>> = "BlkioDeviceReadIOps",
        blkio_device_write_iops: Option<Vec<serde_json::Value>> = "BlkioDeviceWriteIOps",
        cpu_period: i64 = "CpuPeriod",
        cpu_quota: i64 = "CpuQuota",
        cpuset_cpus: String = "CpusetCpus",
        cpuset_mems: String = "CpusetMems",
        cpu_realtime_period: i64 = "CpuRealtimePeriod",
        cpu_realtime_runtime: i64 = "CpuRealtimeRuntime",
        devices: Vec<Device> = "Devices",
        device_cgroup_rules: Option<Vec<String>> = "DeviceCgroupRules",
        device_requests: Option<Vec<DeviceRequest>> = "DeviceRequests",
        memory_reservation: i64 = "MemoryReservation",
        memory_swap: i64 = "MemorySwap",
        memory_swappiness: Option<i64> = "MemorySwappiness",
        oom_kill_disable: Option<bool> = "OomKillDisable",
        pids_limit: Option<i64> = "PidsLimit",
        ulimits: Option<Vec<Ulimit>> = "Ulimits",
        cpu_count: i64 = "CpuCount",
        cpu_percent: i64 = "CpuPercent",
        io_maximum_iops: u64 = "IOMaximumIOps",
        io_maximum_bandwidth: u64 = "IOMaximumBandwidth",
    }
    /// Body of `POST /containers/{id}/update`.
    ContainerUpdate {
        flatten resources: ContainerResources,
        restart_policy: Option<RestartPolicy> => "RestartPolicy",
    }
    ContainerUpdated {
        warnings: Vec<String> = "Warnings",
    }
    /// Devices that a vendor describes.
    DeviceRequest {
        driver: String = "Driver",
        /// -1 = all.
        count: i64 = "Count",
        device_ids: Option<Vec<String>> = "DeviceIDs",
        capabilities: Option<Vec<Vec<String>>> = "Capabilities",
        options: Option<StringMap> = "Options",
    }
    Device {
        path_on_host: String = "PathOnHost",
        path_in_container: String = "PathInContainer",
        cgroup_permissions: String = "CgroupPermissions",
    }
    LogConfig {
        kind: String = "Type",
        config: StringMap = "Config",
    }
    PortBinding {
        host_ip: String = "HostIp",
        /// A number, a range or empty.
        host_port: String = "HostPort",
    }
    RestartPolicy {
        name: String = "Name",
        maximum_retry_count: i64 = "MaximumRetryCount",
    }
    Ulimit {
        name: String = "Name",
        hard: i64 = "Hard",
        soft: i64 = "Soft",
    }
    Mount {
        kind: String => "Type",
        source: String => "Source",
        target: String => "Target",
        read_only: bool => "ReadOnly",
        consistency: String => "Consistency",
        bind_options: Option<BindOptions> => "BindOptions",
        volume_options: Option<VolumeOptions> => "VolumeOptions",
        tmpfs_options: Option<TmpfsOptions> => "TmpfsOptions",
        image_options: Option<ImageOptions> => "ImageOptions",
    }
    ImageOptions {
        subpath: String => "Subpath",
    }
    BindOptions {
        propagation: String => "Propagation",
        non_recursive: bool => "NonRecursive",
        create_mountpoint: bool => "CreateMountpoint",
        read_only_non_recursive: bool => "ReadOnlyNonRecursive",
        read_only_force_recursive: bool => "ReadOnlyForceRecursive",
    }
    VolumeOptions {
        no_copy: bool => "NoCopy",
        labels: StringMap => "Labels",
        subpath: String => "Subpath",
        driver_config: Option<super::DriverState> => "DriverConfig",
    }
    TmpfsOptions {
        size_bytes: i64 => "SizeBytes",
        mode: u32 => "Mode",
        options: Vec<Vec<String>> => "Options",
    }
    EndpointSettings {
        ipam_config: Option<EndpointIpam> = "IPAMConfig",
        links: Option<Vec<String>> = "Links",
        aliases: Option<Vec<String>> = "Aliases",
        mac_address: String = "MacAddress",
        driver_opts: Option<StringMap> = "DriverOpts",
        gw_priority: i64 = "GwPriority",
        network_id: String = "NetworkID",
        endpoint_id: String = "EndpointID",
        gateway: String = "Gateway",
        ip_address: String = "IPAddress",
        ip_prefix_len: i64 = "IPPrefixLen",
        ipv6_gateway: String = "IPv6Gateway",
        global_ipv6_address: String = "GlobalIPv6Address",
        global_ipv6_prefix_len: i64 = "GlobalIPv6PrefixLen",
        dns_names: Option<Vec<String>> = "DNSNames",
    }
    EndpointIpam {
        ipv4_address: String => "IPv4Address",
        ipv6_address: String => "IPv6Address",
        link_local_ips: Vec<String> => "LinkLocalIPs",
    }
    ContainerSummary<'a> {
        id: Cow<'a, str> = "Id",
        names: Vec<String> = "Names",
        image: Cow<'a, str> = "Image",
        image_id: Cow<'a, str> = "ImageID",
        command: String = "Command",
        created: i64 = "Created",
        ports: Vec<SummaryPort> = "Ports",
        size_rw: i64 => "SizeRw",
        size_root_fs: i64 => "SizeRootFs",
        labels: Cow<'a, StringMap> = "Labels",
        state: Cow<'a, str> = "State",
        status: String = "Status",
        host_config: SummaryHostConfig = "HostConfig",
        network_settings: SummaryNetworks = "NetworkSettings",
        mounts: Vec<MountPoint> = "Mounts",
    }
    /// Not in Docker: the containers of one node, under `/rswarm/containers`.
    NodeContainers {
        node_id: String = "NodeID",
        hostname: String = "Hostname",
        /// Not set: the managers do not hear it, and it was not asked.
        ready: bool = "Ready",
        containers: Vec<ContainerSummary<'static>> = "Containers",
        /// Why they are not known.
        error: String => "Error",
    }
    SummaryPort {
        ip: String => "IP",
        private_port: u16 = "PrivatePort",
        public_port: u16 => "PublicPort",
        kind: String = "Type",
    }
    SummaryHostConfig {
        network_mode: String => "NetworkMode",
        annotations: StringMap => "Annotations",
    }
    SummaryNetworks {
        networks: BTreeMap<String, EndpointSettings> = "Networks",
    }
    MountPoint {
        kind: String => "Type",
        name: String => "Name",
        source: String = "Source",
        destination: String = "Destination",
        driver: String => "Driver",
        mode: String = "Mode",
        rw: bool = "RW",
        propagation: String = "Propagation",
    }
    ContainerInspect {
        id: String = "Id",
        created: Time = "Created",
        path: String = "Path",
        args: Vec<String> = "Args",
        state: ContainerState = "State",
        image: String = "Image",
        resolv_conf_path: String = "ResolvConfPath",
        hostname_path: String = "HostnamePath",
        hosts_path: String = "HostsPath",
        log_path: String = "LogPath",
        name: String = "Name",
        restart_count: i64 = "RestartCount",
        driver: String = "Driver",
        platform: String = "Platform",
        mount_label: String = "MountLabel",
        process_label: String = "ProcessLabel",
        app_armor_profile: String = "AppArmorProfile",
        exec_ids: Option<Vec<String>> = "ExecIDs",
        host_config: HostConfig = "HostConfig",
        graph_driver: super::GraphDriver = "GraphDriver",
        size_rw: Option<i64> => "SizeRw",
        size_root_fs: Option<i64> => "SizeRootFs",
        mounts: Vec<MountPoint> = "Mounts",
        config: ContainerConfig = "Config",
        network_settings: NetworkSettings = "NetworkSettings",
    }
    ContainerState {
        status: String = "Status",
        running: bool = "Running",
        paused: bool = "Paused",
        restarting: bool = "Restarting",
        oom_killed: bool = "OOMKilled",
        dead: bool = "Dead",
        pid: u32 = "Pid",
        exit_code: i32 = "ExitCode",
        error: String = "Error",
        started_at: Time = "StartedAt",
        finished_at: Time = "FinishedAt",
        health: Option<HealthState> => "Health",
    }
    HealthState {
        status: String = "Status",
        failing_streak: u32 = "FailingStreak",
        log: Vec<HealthProbe> = "Log",
    }
    HealthProbe {
        start: Time = "Start",
        end: Time = "End",
        exit_code: i32 = "ExitCode",
        output: String = "Output",
    }
    NetworkSettings {
        bridge: String = "Bridge",
        sandbox_id: String = "SandboxID",
        sandbox_key: String = "SandboxKey",
        ports: BTreeMap<String, Option<Vec<PortBinding>>> = "Ports",
        hairpin_mode: bool = "HairpinMode",
        link_local_ipv6_address: String = "LinkLocalIPv6Address",
        link_local_ipv6_prefix_len: i64 = "LinkLocalIPv6PrefixLen",
        secondary_ip_addresses: Option<Vec<String>> = "SecondaryIPAddresses",
        secondary_ipv6_addresses: Option<Vec<String>> = "SecondaryIPv6Addresses",
        endpoint_id: String = "EndpointID",
        gateway: String = "Gateway",
        global_ipv6_address: String = "GlobalIPv6Address",
        global_ipv6_prefix_len: i64 = "GlobalIPv6PrefixLen",
        ip_address: String = "IPAddress",
        ip_prefix_len: i64 = "IPPrefixLen",
        ipv6_gateway: String = "IPv6Gateway",
        mac_address: String = "MacAddress",
        networks: BTreeMap<String, EndpointSettings> = "Networks",
    }
    ContainerWaited {
        status_code: i64 = "StatusCode",
        error: Option<WaitError> => "Error",
    }
    WaitError {
        message: String => "Message",
    }
    ContainerTop {
        titles: Vec<String> = "Titles",
        processes: Vec<Vec<String>> = "Processes",
    }
    ContainerChange {
        path: String = "Path",
        /// 0 modified, 1 added, 2 deleted.
        kind: u8 = "Kind",
    }
    ContainersPruned {
        /// `None`: none.
        containers_deleted: Option<Vec<String>> = "ContainersDeleted",
        space_reclaimed: u64 = "SpaceReclaimed",
    }
    ExecCreate {
        user: String = "User",
        privileged: bool = "Privileged",
        tty: bool = "Tty",
        console_size: Option<[u16; 2]> => "ConsoleSize",
        attach_stdin: bool = "AttachStdin",
        attach_stderr: bool = "AttachStderr",
        attach_stdout: bool = "AttachStdout",
        detach_keys: String => "DetachKeys",
        env: Vec<String> => "Env",
        working_dir: String => "WorkingDir",
        cmd: StrSlice = "Cmd",
    }
    ExecStart {
        detach: bool = "Detach",
        tty: bool = "Tty",
        console_size: Option<[u16; 2]> => "ConsoleSize",
    }
    ExecInspect {
        id: String = "ID",
        running: bool = "Running",
        exit_code: Option<i32> = "ExitCode",
        process_config: ProcessConfig = "ProcessConfig",
        open_stdin: bool = "OpenStdin",
        open_stderr: bool = "OpenStderr",
        open_stdout: bool = "OpenStdout",
        can_remove: bool = "CanRemove",
        container_id: String = "ContainerID",
        detach_keys: String = "DetachKeys",
        pid: u32 = "Pid",
    }
    ProcessConfig {
        tty: bool = "tty",
        entrypoint: String = "entrypoint",
        arguments: Vec<String> = "arguments",
        privileged: bool = "privileged",
        user: String => "user",
    }
    /// The `X-Docker-Container-Path-Stat` header, base64 of this.
    PathStat {
        name: String = "name",
        size: i64 = "size",
        /// Go's `os.FileMode`.
        mode: u32 = "mode",
        mtime: Time = "mtime",
        link_target: String = "linkTarget",
    }
}
