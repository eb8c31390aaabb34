//! Tasks and the container a task asks for. Source: Docker API `Task`, `TaskSpec.ContainerSpec`.

use super::{Health, Mount, Network, ObjectVersion, PortConfig, StringMap, TaskSpec, Time, Ulimit};

wire! {
    ContainerSpec {
        image: String => "Image",
        labels: StringMap => "Labels",
        command: Vec<String> => "Command",
        args: Vec<String> => "Args",
        hostname: String => "Hostname",
        env: Vec<String> => "Env",
        dir: String => "Dir",
        user: String => "User",
        groups: Vec<String> => "Groups",
        privileges: Option<Privileges> => "Privileges",
        init: Option<bool> => "Init",
        stop_signal: String => "StopSignal",
        tty: bool => "TTY",
        open_stdin: bool => "OpenStdin",
        read_only: bool => "ReadOnly",
        mounts: Vec<Mount> => "Mounts",
        /// *Unit:* nanoseconds.
        stop_grace_period: Option<i64> => "StopGracePeriod",
        healthcheck: Option<Health> => "Healthcheck",
        hosts: Vec<String> => "Hosts",
        dns_config: Option<DnsConfig> => "DNSConfig",
        secrets: Vec<SecretReference> => "Secrets",
        configs: Vec<ConfigReference> => "Configs",
        isolation: String => "Isolation",
        sysctls: StringMap => "Sysctls",
        capability_add: Vec<String> => "CapabilityAdd",
        capability_drop: Vec<String> => "CapabilityDrop",
        ulimits: Vec<Ulimit> => "Ulimits",
        oom_score_adj: i64 => "OomScoreAdj",
        /// Not in Docker.
        privileged: bool => "Privileged",
        /// Not in Docker. *Unit:* bytes.
        shm_size: u64 => "ShmSize",
        /// Not in Docker.
        host: Option<HostOptions> => "HostOptions",
        /// Not in Docker.
        post_start: Vec<Hook> => "PostStart",
        /// Not in Docker.
        pre_stop: Vec<Hook> => "PreStop",
    }
    /// Source: compose `post_start`, `pre_stop`. Not in Docker.
    Hook {
        command: Vec<String> = "Command",
        user: String => "User",
        privileged: bool => "Privileged",
        working_dir: String => "WorkingDir",
        env: Vec<String> => "Env",
    }
    /// What a container shares with its host or gets of it. Not in Docker's services; names as in `HostConfig`.
    HostOptions {
        devices: Vec<super::Device> => "Devices",
        device_cgroup_rules: Vec<String> => "DeviceCgroupRules",
        ipc_mode: String => "IpcMode",
        pid_mode: String => "PidMode",
        uts_mode: String => "UTSMode",
        userns_mode: String => "UsernsMode",
        cgroupns_mode: String => "CgroupnsMode",
        cgroup_parent: String => "CgroupParent",
        domainname: String => "Domainname",
        runtime: String => "Runtime",
        security_opt: Vec<String> => "SecurityOpt",
        annotations: StringMap => "Annotations",
        cpu_shares: u64 => "CpuShares",
        cpu_period: u64 => "CpuPeriod",
        cpu_quota: i64 => "CpuQuota",
        cpuset_cpus: String => "CpusetCpus",
        memory_swap: i64 => "MemorySwap",
        memory_swappiness: Option<u32> => "MemorySwappiness",
        blkio_weight: u32 => "BlkioWeight",
        oom_kill_disable: bool => "OomKillDisable",
    }
    /// `NoNewPrivileges` can be had, and that SELinux is off; the others are read to be refused.
    Privileges {
        no_new_privileges: bool => "NoNewPrivileges",
        credential_spec: Option<serde_json::Value> => "CredentialSpec",
        selinux_context: Option<serde_json::Value> => "SELinuxContext",
        seccomp: Option<serde_json::Value> => "Seccomp",
        apparmor: Option<serde_json::Value> => "AppArmor",
    }
    DnsConfig {
        nameservers: Vec<String> => "Nameservers",
        search: Vec<String> => "Search",
        options: Vec<String> => "Options",
    }
    SecretReference {
        file: Option<FileTarget> => "File",
        secret_id: String = "SecretID",
        secret_name: String = "SecretName",
    }
    ConfigReference {
        file: Option<FileTarget> => "File",
        runtime: Option<super::Empty> => "Runtime",
        config_id: String = "ConfigID",
        config_name: String = "ConfigName",
    }
    FileTarget {
        name: String = "Name",
        uid: String = "UID",
        gid: String = "GID",
        mode: u32 = "Mode",
    }
    Task {
        id: String = "ID",
        version: ObjectVersion = "Version",
        created_at: Time = "CreatedAt",
        updated_at: Time = "UpdatedAt",
        name: String => "Name",
        labels: StringMap = "Labels",
        spec: TaskSpec = "Spec",
        service_id: String => "ServiceID",
        slot: u64 => "Slot",
        node_id: String => "NodeID",
        status: TaskStatus = "Status",
        /// What of its node is its own.
        generic_resources: Vec<super::GenericResource> => "GenericResources",
        desired_state: String => "DesiredState",
        networks_attachments: Vec<NetworkAttachment> => "NetworksAttachments",
        job_iteration: Option<ObjectVersion> => "JobIteration",
    }
    TaskStatus {
        timestamp: Time = "Timestamp",
        state: String => "State",
        message: String => "Message",
        err: String => "Err",
        container_status: Option<ContainerStatus> => "ContainerStatus",
        port_status: PortStatus = "PortStatus",
    }
    ContainerStatus {
        container_id: String = "ContainerID",
        pid: i64 = "PID",
        exit_code: i64 = "ExitCode",
    }
    PortStatus {
        ports: Vec<PortConfig> => "Ports",
    }
    NetworkAttachment {
        network: AttachedNetwork => "Network",
        /// With prefix length.
        addresses: Vec<String> => "Addresses",
    }
    /// A cluster network as tasks show it. Source: moby `swarm.Network`.
    AttachedNetwork {
        id: String = "ID",
        version: ObjectVersion = "Version",
        created_at: Time = "CreatedAt",
        updated_at: Time = "UpdatedAt",
        spec: AttachedNetworkSpec = "Spec",
        driver_state: DriverState = "DriverState",
        ipam_options: AttachedIpam => "IPAMOptions",
    }
    AttachedNetworkSpec {
        name: String => "Name",
        labels: StringMap = "Labels",
        driver_configuration: DriverState => "DriverConfiguration",
        attachable: bool => "Attachable",
        internal: bool => "Internal",
        scope: String => "Scope",
    }
    DriverState {
        name: String => "Name",
        options: StringMap => "Options",
    }
    AttachedIpam {
        driver: DriverState => "Driver",
        configs: Vec<super::IpamConfig> => "Configs",
    }
}

impl AttachedNetwork {
    /// Returns what `docker inspect` of a task shows for a network.
    pub fn of(network: &Network, version: u64) -> Self {
        Self {
            id: network.id.clone(),
            version: ObjectVersion { index: version },
            created_at: network.created,
            updated_at: network.created,
            spec: AttachedNetworkSpec {
                name: network.name.clone(),
                labels: network.labels.clone(),
                driver_configuration: DriverState { name: network.driver.clone(), options: StringMap::new() },
                attachable: network.attachable,
                internal: network.internal,
                scope: network.scope.clone(),
            },
            driver_state: DriverState { name: network.driver.clone(), options: network.options.clone() },
            ipam_options: AttachedIpam {
                driver: DriverState { name: network.ipam.driver.clone(), options: StringMap::new() },
                configs: network.ipam.config.clone(),
            },
        }
    }
}

impl DriverState {
    /// Returns the template driver of a secret or config, if it has one: there is one.
    pub fn golang(templated: bool) -> Option<Self> {
        templated.then(|| Self { name: "golang".to_owned(), ..Self::default() })
    }
}
