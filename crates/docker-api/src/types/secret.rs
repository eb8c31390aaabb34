//! Secrets, configs, and (not in Docker) stacks. Source: Docker API `Secret`, `Config`.

use super::{ObjectVersion, StringMap, Time};

wire! {
    Secret {
        id: String = "ID",
        version: ObjectVersion = "Version",
        created_at: Time = "CreatedAt",
        updated_at: Time = "UpdatedAt",
        spec: SecretSpec = "Spec",
    }
    SecretSpec {
        name: String => "Name",
        labels: StringMap = "Labels",
        /// Base64; never in an answer.
        data: String => "Data",
        driver: Option<super::DriverState> => "Driver",
        templating: Option<super::DriverState> => "Templating",
    }
    Config {
        id: String = "ID",
        version: ObjectVersion = "Version",
        created_at: Time = "CreatedAt",
        updated_at: Time = "UpdatedAt",
        spec: ConfigSpec = "Spec",
    }
    ConfigSpec {
        name: String => "Name",
        labels: StringMap = "Labels",
        /// Base64.
        data: String => "Data",
        templating: Option<super::DriverState> => "Templating",
    }
    /// Not in Docker: a deployed stack with its history, under `/rswarm/stacks`.
    Stack {
        id: String = "ID",
        version: ObjectVersion = "Version",
        created_at: Time = "CreatedAt",
        updated_at: Time = "UpdatedAt",
        name: String = "Name",
        /// Newest last.
        revisions: Vec<StackRevision> = "Revisions",
    }
    StackRevision {
        number: u64 = "Number",
        at: Time = "At",
        author: String = "Author",
        /// The resolved compose file, YAML.
        source: String = "Source",
        /// Names of the services that it came to.
        services: Vec<String> = "Services",
        /// Number of the revision that it puts back; 0 = none.
        restores: u64 => "Restores",
        /// Did its services come up? Not there: nobody has waited for them.
        came_up: Option<bool> => "CameUp",
        /// What its author said about it.
        message: String => "Message",
        /// The commit that was checked out where its files are.
        git: String => "Git",
    }
    /// A stack as a whole: `POST /rswarm/stacks/{name}`. What is in the swarm is changed as planned, or not at all.
    ApplyStack {
        /// What the person who deploys it says about it.
        message: String => "Message",
        /// The commit that is checked out where the files are, hexadecimal.
        git: String => "Git",
        source: String = "Source",
        /// Those that are to be made; services name them.
        networks: Vec<super::NetworkCreate> = "Networks",
        secrets: Vec<super::SecretSpec> = "Secrets",
        configs: Vec<super::ConfigSpec> = "Configs",
        /// All of the stack.
        services: Vec<PlannedService> = "Services",
        removed: Vec<PlannedRemoval> = "Removed",
        /// Ids of secrets and configs of earlier deployments that this one has, too.
        kept: Vec<String> = "Kept",
    }
    /// Where the tasks of a service would be, were its stack applied: `POST /rswarm/stacks/{name}/foresee`.
    Outlook {
        /// Its name.
        service: String = "Service",
        placed: Vec<OutlookPlaced> = "Placed",
        waiting: Vec<OutlookWaiting> = "Waiting",
        /// Not set: its update has so many steps that it was not looked at to its end.
        is_whole: bool = "IsWhole",
    }
    OutlookPlaced {
        node_id: String = "NodeID",
        tasks: u64 = "Tasks",
    }
    OutlookWaiting {
        reason: String = "Reason",
        tasks: u64 = "Tasks",
    }
    /// How a node stands to one more task of a service: `GET /rswarm/services/{name}/explain`.
    NodeVerdict {
        node_id: String = "NodeID",
        /// All that is in the way; empty: it could take one.
        obstacles: Vec<String> = "Obstacles",
    }
    PlannedService {
        /// Of the service that it replaces; 0 = there is none.
        version: u64 = "Version",
        spec: super::ServiceSpec = "Spec",
        /// As `X-Registry-Auth`: what proves an account at the registry of its image; empty: as it was.
        registry_auth: String => "RegistryAuth",
    }
    PlannedRemoval {
        id: String = "ID",
        version: u64 = "Version",
    }
}
