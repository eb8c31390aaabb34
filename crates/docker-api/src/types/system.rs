//! The daemon itself: version, info, events, disk usage. Source: Docker API `SystemInfo`, `SystemVersion`.

use super::{BuildCache, ContainerSummary, ImageSummary, StringMap, SwarmInfo, Volume};

wire! {
    Version {
        platform: PlatformName = "Platform",
        components: Vec<Component> = "Components",
        version: String = "Version",
        api_version: String = "ApiVersion",
        min_api_version: String = "MinAPIVersion",
        git_commit: String = "GitCommit",
        go_version: String = "GoVersion",
        os: String = "Os",
        arch: String = "Arch",
        kernel_version: String = "KernelVersion",
        experimental: bool => "Experimental",
        build_time: String = "BuildTime",
    }
    PlatformName {
        name: String = "Name",
    }
    Component {
        name: String = "Name",
        version: String = "Version",
        details: StringMap = "Details",
    }
    Info {
        id: String = "ID",
        containers: u64 = "Containers",
        containers_running: u64 = "ContainersRunning",
        containers_paused: u64 = "ContainersPaused",
        containers_stopped: u64 = "ContainersStopped",
        images: u64 = "Images",
        driver: String = "Driver",
        driver_status: Vec<[String; 2]> = "DriverStatus",
        plugins: PluginsInfo = "Plugins",
        memory_limit: bool = "MemoryLimit",
        swap_limit: bool = "SwapLimit",
        cpu_cfs_period: bool = "CpuCfsPeriod",
        cpu_cfs_quota: bool = "CpuCfsQuota",
        cpu_shares: bool = "CPUShares",
        cpu_set: bool = "CPUSet",
        pids_limit: bool = "PidsLimit",
        ipv4_forwarding: bool = "IPv4Forwarding",
        debug: bool = "Debug",
        n_fd: u64 = "NFd",
        oom_kill_disable: bool = "OomKillDisable",
        n_goroutines: u64 = "NGoroutines",
        system_time: String = "SystemTime",
        logging_driver: String = "LoggingDriver",
        cgroup_driver: String = "CgroupDriver",
        cgroup_version: String = "CgroupVersion",
        n_events_listener: u64 = "NEventsListener",
        kernel_version: String = "KernelVersion",
        operating_system: String = "OperatingSystem",
        os_version: String = "OSVersion",
        os_type: String = "OSType",
        architecture: String = "Architecture",
        index_server_address: String = "IndexServerAddress",
        registry_config: RegistryConfig = "RegistryConfig",
        ncpu: u64 = "NCPU",
        mem_total: u64 = "MemTotal",
        generic_resources: Vec<super::GenericResource> = "GenericResources",
        docker_root_dir: String = "DockerRootDir",
        http_proxy: String = "HttpProxy",
        https_proxy: String = "HttpsProxy",
        no_proxy: String = "NoProxy",
        name: String = "Name",
        labels: Vec<String> = "Labels",
        experimental_build: bool = "ExperimentalBuild",
        server_version: String = "ServerVersion",
        runtimes: std::collections::BTreeMap<String, RuntimeInfo> = "Runtimes",
        default_runtime: String = "DefaultRuntime",
        swarm: SwarmInfo = "Swarm",
        live_restore_enabled: bool = "LiveRestoreEnabled",
        isolation: String = "Isolation",
        init_binary: String = "InitBinary",
        containerd_commit: Commit = "ContainerdCommit",
        runc_commit: Commit = "RuncCommit",
        init_commit: Commit = "InitCommit",
        security_options: Vec<String> = "SecurityOptions",
        warnings: Vec<String> = "Warnings",
        cdi_spec_dirs: Vec<String> = "CDISpecDirs",
        discovered_devices: Vec<DeviceInfo> => "DiscoveredDevices",
    }
    /// A device that its vendor describes.
    DeviceInfo {
        source: String = "Source",
        id: String = "ID",
    }
    PluginsInfo {
        volume: Vec<String> = "Volume",
        network: Vec<String> = "Network",
        authorization: Vec<String> = "Authorization",
        log: Vec<String> = "Log",
    }
    RegistryConfig {
        insecure_registry_cidrs: Vec<String> = "InsecureRegistryCIDRs",
        index_configs: std::collections::BTreeMap<String, serde_json::Value> = "IndexConfigs",
        mirrors: Vec<String> = "Mirrors",
    }
    RuntimeInfo {
        path: String => "path",
    }
    Commit {
        id: String = "ID",
        expected: String => "Expected",
    }
    EventMessage {
        /// Before API 1.22; still read by old clients.
        status: String => "status",
        id: String => "id",
        from: String => "from",
        kind: String = "Type",
        action: String = "Action",
        actor: EventActor = "Actor",
        scope: String => "scope",
        /// *Unit:* seconds since 1970.
        time: i64 => "time",
        time_nano: i64 => "timeNano",
    }
    EventActor {
        id: String = "ID",
        attributes: StringMap = "Attributes",
    }
    /// What became of a host that goes down. Not in Docker.
    HostShutdown {
        stopped: u64 = "Stopped",
        left: Vec<ContainerLeft> = "Left",
        swarm_told: bool = "SwarmTold",
        swarm_error: String = "SwarmError",
    }
    /// A container that did not end.
    ContainerLeft {
        name: String = "Name",
        reason: String = "Reason",
    }
    DiskUsage<'a> {
        layers_size: i64 = "LayersSize",
        images: Vec<ImageSummary> = "Images",
        containers: Vec<ContainerSummary<'a>> = "Containers",
        volumes: Vec<Volume> = "Volumes",
        build_cache: Vec<BuildCache> = "BuildCache",
    }
}
