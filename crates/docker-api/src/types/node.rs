//! Members of the swarm. Source: Docker API `Node`.

use super::{ObjectVersion, Platform, ResourceReservation, StringMap, Time, TlsInfo};

wire! {
    Node {
        id: String = "ID",
        version: ObjectVersion = "Version",
        created_at: Time = "CreatedAt",
        updated_at: Time = "UpdatedAt",
        spec: NodeSpec = "Spec",
        description: NodeDescription = "Description",
        status: NodeStatus = "Status",
        manager_status: Option<ManagerStatus> => "ManagerStatus",
    }
    NodeSpec {
        name: String => "Name",
        labels: StringMap = "Labels",
        role: String => "Role",
        availability: String => "Availability",
    }
    NodeDescription {
        hostname: String => "Hostname",
        platform: Platform => "Platform",
        resources: ResourceReservation => "Resources",
        engine: EngineDescription => "Engine",
        tls_info: TlsInfo => "TLSInfo",
    }
    EngineDescription {
        engine_version: String => "EngineVersion",
        labels: StringMap => "Labels",
        plugins: Vec<PluginDescription> => "Plugins",
    }
    PluginDescription {
        kind: String => "Type",
        name: String => "Name",
    }
    NodeStatus {
        state: String => "State",
        message: String => "Message",
        addr: String => "Addr",
    }
    ManagerStatus {
        leader: bool => "Leader",
        reachability: String => "Reachability",
        addr: String => "Addr",
    }
}
