//! Images. Source: Docker API `ImageInspect`, `ImageSummary`.

use super::{ContainerConfig, StringMap, Time};

wire! {
    ImageFound {
        name: String = "name",
        description: String = "description",
        star_count: u64 = "star_count",
        is_official: bool = "is_official",
        is_automated: bool = "is_automated",
    }
    ImageSummary {
        id: String = "Id",
        parent_id: String = "ParentId",
        repo_tags: Vec<String> = "RepoTags",
        repo_digests: Vec<String> = "RepoDigests",
        /// *Unit:* seconds since 1970.
        created: i64 = "Created",
        size: i64 = "Size",
        shared_size: i64 = "SharedSize",
        labels: StringMap = "Labels",
        containers: i64 = "Containers",
    }
    ImageInspect {
        id: String = "Id",
        repo_tags: Vec<String> = "RepoTags",
        repo_digests: Vec<String> = "RepoDigests",
        parent: String = "Parent",
        comment: String = "Comment",
        created: String => "Created",
        container: String => "Container",
        container_config: Option<ContainerConfig> => "ContainerConfig",
        docker_version: String = "DockerVersion",
        author: String = "Author",
        config: Option<ContainerConfig> => "Config",
        architecture: String = "Architecture",
        variant: String => "Variant",
        os: String = "Os",
        size: i64 = "Size",
        graph_driver: GraphDriver = "GraphDriver",
        root_fs: RootFs = "RootFS",
        metadata: ImageMetadata = "Metadata",
    }
    /// Source: Docker API `ImageBuild`, `outputs`.
    BuildOutput {
        kind: String = "Type",
        attrs: StringMap = "Attrs",
    }
    GraphDriver {
        data: StringMap = "Data",
        name: String = "Name",
    }
    RootFs {
        kind: String = "Type",
        layers: Vec<String> => "Layers",
    }
    ImageMetadata {
        last_tag_time: super::Time = "LastTagTime",
    }
    ImageHistory {
        id: String = "Id",
        created: i64 = "Created",
        created_by: String = "CreatedBy",
        tags: Vec<String> = "Tags",
        size: i64 = "Size",
        comment: String = "Comment",
    }
    ImageDeleted {
        untagged: String => "Untagged",
        deleted: String => "Deleted",
    }
    ImagesPruned {
        /// `None`: none.
        images_deleted: Option<Vec<ImageDeleted>> = "ImagesDeleted",
        space_reclaimed: u64 = "SpaceReclaimed",
    }
    BuildPruned {
        /// `None`: none.
        caches_deleted: Option<Vec<String>> = "CachesDeleted",
        space_reclaimed: u64 = "SpaceReclaimed",
    }
    BuildCache {
        id: String = "ID",
        kind: String = "Type",
        description: String = "Description",
        in_use: bool = "InUse",
        shared: bool = "Shared",
        size: i64 = "Size",
        created_at: Time = "CreatedAt",
        last_used_at: Time = "LastUsedAt",
        usage_count: u64 = "UsageCount",
    }
    DistributionInspect {
        descriptor: Descriptor = "Descriptor",
        platforms: Vec<DistributionPlatform> = "Platforms",
    }
    Descriptor {
        media_type: String = "mediaType",
        digest: String = "digest",
        size: i64 = "size",
    }
    DistributionPlatform {
        architecture: String = "architecture",
        os: String = "os",
        variant: String => "variant",
    }
    /// One line of a pull, push, load or build.
    JsonMessage {
        stream: String => "stream",
        status: String => "status",
        progress_detail: Option<ProgressDetail> => "progressDetail",
        progress: String => "progress",
        id: String => "id",
        error_detail: Option<ErrorDetail> => "errorDetail",
        error: String => "error",
        aux: Option<serde_json::Value> => "aux",
    }
    ProgressDetail {
        current: u64 => "current",
        total: u64 => "total",
    }
    ErrorDetail {
        code: i64 => "code",
        message: String = "message",
    }
    /// The `X-Registry-Auth` header (base64url JSON) and the body of `/auth`.
    AuthConfig {
        username: String => "username",
        password: String => "password",
        auth: String => "auth",
        email: String => "email",
        server_address: String => "serveraddress",
        identity_token: String => "identitytoken",
        registry_token: String => "registrytoken",
    }
    AuthAnswer {
        status: String = "Status",
        identity_token: String = "IdentityToken",
    }
}
