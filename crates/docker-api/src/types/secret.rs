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
    }
    /// Records what was deployed: `POST /rswarm/stacks`.
    RecordStack {
        name: String = "Name",
        author: String = "Author",
        source: String = "Source",
    }
}
