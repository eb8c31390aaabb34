//! Services and their task templates. Source: Docker API `ServiceSpec`, `Service`, `TaskSpec`.

use super::{ContainerSpec, Empty, ObjectVersion, StringMap, Time};

wire! {
    ServiceSpec {
        name: String => "Name",
        labels: StringMap = "Labels",
        task_template: TaskSpec = "TaskTemplate",
        mode: ServiceMode = "Mode",
        update_config: Option<UpdateConfig> => "UpdateConfig",
        rollback_config: Option<UpdateConfig> => "RollbackConfig",
        /// Where networks were before API 1.25; read when the task template has none.
        networks: Vec<NetworkAttachmentConfig> => "Networks",
        endpoint_spec: Option<EndpointSpec> => "EndpointSpec",
        /// Not in Docker: other services whose tasks must run first.
        depends_on: Vec<DependsOn> => "DependsOn",
    }
    /// Not in Docker.
    DependsOn {
        service: String = "Service",
        /// `service_started`, `service_healthy` or `service_completed_successfully`, as compose says it.
        condition: String = "Condition",
    }
    ServiceMode {
        replicated: Option<Replicated> => "Replicated",
        global: Option<Empty> => "Global",
        replicated_job: Option<ReplicatedJob> => "ReplicatedJob",
        global_job: Option<Empty> => "GlobalJob",
    }
    Replicated {
        replicas: Option<u64> => "Replicas",
    }
    ReplicatedJob {
        max_concurrent: Option<u64> => "MaxConcurrent",
        total_completions: Option<u64> => "TotalCompletions",
    }
    UpdateConfig {
        parallelism: u64 = "Parallelism",
        /// *Unit:* nanoseconds.
        delay: i64 => "Delay",
        failure_action: String => "FailureAction",
        /// *Unit:* nanoseconds.
        monitor: i64 => "Monitor",
        max_failure_ratio: f64 = "MaxFailureRatio",
        order: String = "Order",
        /// Not in Docker: after this long a task that no node has taken up counts as failed; 0: 10 minutes. *Unit:*
        /// nanoseconds.
        progress_deadline: i64 => "ProgressDeadline",
    }
    EndpointSpec {
        mode: String => "Mode",
        ports: Vec<PortConfig> => "Ports",
    }
    PortConfig {
        name: String => "Name",
        protocol: String => "Protocol",
        target_port: u32 => "TargetPort",
        published_port: u32 => "PublishedPort",
        publish_mode: String => "PublishMode",
    }
    TaskSpec {
        container_spec: Option<ContainerSpec> => "ContainerSpec",
        resources: Option<ResourceRequirements> => "Resources",
        restart_policy: Option<TaskRestartPolicy> => "RestartPolicy",
        placement: Option<Placement> => "Placement",
        networks: Vec<NetworkAttachmentConfig> => "Networks",
        log_driver: Option<LogDriver> => "LogDriver",
        force_update: u64 = "ForceUpdate",
        runtime: String => "Runtime",
    }
    ResourceRequirements {
        limits: Option<ResourceLimit> => "Limits",
        reservations: Option<ResourceReservation> => "Reservations",
        /// Of newer clients; refused.
        swap_bytes: Option<i64> => "SwapBytes",
        /// Of newer clients; refused.
        memory_swappiness: Option<i64> => "MemorySwappiness",
    }
    ResourceLimit {
        nano_cpus: i64 => "NanoCPUs",
        memory_bytes: i64 => "MemoryBytes",
        pids: i64 => "Pids",
    }
    ResourceReservation {
        nano_cpus: i64 => "NanoCPUs",
        memory_bytes: i64 => "MemoryBytes",
        generic_resources: Vec<GenericResource> => "GenericResources",
    }
    /// One of the two is there.
    GenericResource {
        named: Option<NamedResource> => "NamedResourceSpec",
        discrete: Option<DiscreteResource> => "DiscreteResourceSpec",
    }
    NamedResource {
        kind: String => "Kind",
        value: String => "Value",
    }
    /// In what a service reserves, -1 stands for all that a node has (not in Docker).
    DiscreteResource {
        kind: String => "Kind",
        value: i64 => "Value",
    }
    TaskRestartPolicy {
        condition: String => "Condition",
        /// *Unit:* nanoseconds.
        delay: Option<i64> => "Delay",
        max_attempts: Option<u64> => "MaxAttempts",
        /// *Unit:* nanoseconds.
        window: Option<i64> => "Window",
    }
    Placement {
        constraints: Vec<String> => "Constraints",
        preferences: Vec<PlacementPreference> => "Preferences",
        max_replicas: u64 => "MaxReplicas",
        platforms: Vec<Platform> => "Platforms",
    }
    PlacementPreference {
        spread: Option<SpreadOver> => "Spread",
    }
    SpreadOver {
        spread_descriptor: String = "SpreadDescriptor",
    }
    Platform {
        architecture: String => "Architecture",
        os: String => "OS",
    }
    NetworkAttachmentConfig {
        /// Name or id.
        target: String => "Target",
        aliases: Vec<String> => "Aliases",
        driver_opts: StringMap => "DriverOpts",
    }
    LogDriver {
        name: String => "Name",
        options: StringMap => "Options",
    }
    Service {
        id: String = "ID",
        version: ObjectVersion = "Version",
        created_at: Time = "CreatedAt",
        updated_at: Time = "UpdatedAt",
        spec: ServiceSpec = "Spec",
        previous_spec: Option<ServiceSpec> => "PreviousSpec",
        endpoint: ServiceEndpoint = "Endpoint",
        update_status: Option<UpdateStatus> => "UpdateStatus",
        service_status: Option<ServiceStatus> => "ServiceStatus",
        job_status: Option<JobStatus> => "JobStatus",
    }
    ServiceEndpoint {
        spec: EndpointSpec = "Spec",
        ports: Vec<PortConfig> => "Ports",
        virtual_ips: Vec<VirtualIp> => "VirtualIPs",
    }
    VirtualIp {
        network_id: String = "NetworkID",
        /// With the prefix length of its network.
        addr: String => "Addr",
    }
    UpdateStatus {
        state: String => "State",
        started_at: Option<Time> => "StartedAt",
        completed_at: Option<Time> => "CompletedAt",
        message: String => "Message",
    }
    ServiceStatus {
        running_tasks: u64 = "RunningTasks",
        desired_tasks: u64 = "DesiredTasks",
        completed_tasks: u64 = "CompletedTasks",
    }
    JobStatus {
        job_iteration: ObjectVersion = "JobIteration",
        last_execution: Option<Time> => "LastExecution",
    }
    ServiceCreated {
        id: String = "ID",
        warnings: Vec<String> = "Warnings",
    }
    ServiceUpdated {
        warnings: Vec<String> = "Warnings",
    }
}
