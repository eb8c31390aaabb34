//! The swarm as one object, and the requests to make, join and leave it. Source: Docker API `Swarm`.

use super::{ObjectVersion, StringMap, Time};

wire! {
    Swarm {
        id: String = "ID",
        version: ObjectVersion = "Version",
        created_at: Time = "CreatedAt",
        updated_at: Time = "UpdatedAt",
        spec: SwarmSpec = "Spec",
        tls_info: TlsInfo = "TLSInfo",
        root_rotation_in_progress: bool = "RootRotationInProgress",
        default_addr_pool: Vec<String> = "DefaultAddrPool",
        subnet_size: u32 = "SubnetSize",
        data_path_port: u32 = "DataPathPort",
        join_tokens: Option<JoinTokens> => "JoinTokens",
    }
    JoinTokens {
        worker: String = "Worker",
        manager: String = "Manager",
    }
    TlsInfo {
        /// PEM.
        trust_root: String => "TrustRoot",
        cert_issuer_subject: String => "CertIssuerSubject",
        cert_issuer_public_key: String => "CertIssuerPublicKey",
    }
    SwarmSpec {
        name: String => "Name",
        labels: StringMap = "Labels",
        orchestration: Orchestration = "Orchestration",
        raft: RaftConfig = "Raft",
        dispatcher: DispatcherConfig = "Dispatcher",
        ca_config: CaConfig = "CAConfig",
        task_defaults: TaskDefaults = "TaskDefaults",
        encryption_config: EncryptionConfig = "EncryptionConfig",
    }
    Orchestration {
        task_history_retention_limit: Option<i64> => "TaskHistoryRetentionLimit",
    }
    RaftConfig {
        snapshot_interval: u64 => "SnapshotInterval",
        keep_old_snapshots: Option<u64> => "KeepOldSnapshots",
        log_entries_for_slow_followers: u64 => "LogEntriesForSlowFollowers",
        election_tick: i64 = "ElectionTick",
        heartbeat_tick: i64 = "HeartbeatTick",
        /// Ours: how long a manager is not heard of before it is made a worker; 0 = never. *Unit:* nanoseconds.
        dead_manager_after: Option<i64> => "DeadManagerAfter",
    }
    DispatcherConfig {
        /// *Unit:* nanoseconds.
        heartbeat_period: i64 => "HeartbeatPeriod",
        /// Ours: how long tasks stay on a node whose daemon is away while its host answers. *Unit:* nanoseconds.
        daemon_grace: Option<i64> => "DaemonGrace",
    }
    CaConfig {
        /// *Unit:* nanoseconds.
        node_cert_expiry: i64 => "NodeCertExpiry",
        external_cas: Vec<serde_json::Value> => "ExternalCAs",
        signing_ca_cert: String => "SigningCACert",
        signing_ca_key: String => "SigningCAKey",
        force_rotate: u64 => "ForceRotate",
    }
    TaskDefaults {
        log_driver: Option<super::LogDriver> => "LogDriver",
    }
    EncryptionConfig {
        auto_lock_managers: bool = "AutoLockManagers",
    }
    SwarmInit {
        listen_addr: String = "ListenAddr",
        advertise_addr: String = "AdvertiseAddr",
        data_path_addr: String = "DataPathAddr",
        data_path_port: u32 = "DataPathPort",
        force_new_cluster: bool = "ForceNewCluster",
        spec: SwarmSpec = "Spec",
        auto_lock_managers: bool = "AutoLockManagers",
        availability: String = "Availability",
        default_addr_pool: Vec<String> = "DefaultAddrPool",
        subnet_size: u32 = "SubnetSize",
    }
    SwarmJoin {
        listen_addr: String = "ListenAddr",
        advertise_addr: String = "AdvertiseAddr",
        data_path_addr: String = "DataPathAddr",
        remote_addrs: Vec<String> = "RemoteAddrs",
        join_token: String = "JoinToken",
        availability: String = "Availability",
    }
    UnlockKey {
        unlock_key: String = "UnlockKey",
    }
    /// The `Swarm` block of `/info`.
    SwarmInfo {
        node_id: String = "NodeID",
        node_addr: String = "NodeAddr",
        local_node_state: String = "LocalNodeState",
        control_available: bool = "ControlAvailable",
        error: String = "Error",
        remote_managers: Vec<PeerManager> = "RemoteManagers",
        nodes: u64 => "Nodes",
        managers: u64 => "Managers",
        cluster: Option<Swarm> => "Cluster",
        warnings: Vec<String> => "Warnings",
    }
    PeerManager {
        node_id: String = "NodeID",
        addr: String = "Addr",
    }
}
