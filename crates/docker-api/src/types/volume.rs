//! Volumes of this host. Source: Docker API `Volume`.

use super::{StringMap, Time};

wire! {
    Volume {
        created_at: Time => "CreatedAt",
        driver: String = "Driver",
        labels: Option<StringMap> = "Labels",
        mountpoint: String = "Mountpoint",
        name: String = "Name",
        options: Option<StringMap> = "Options",
        scope: String = "Scope",
        usage_data: Option<VolumeUsage> => "UsageData",
    }
    VolumeUsage {
        ref_count: i64 = "RefCount",
        size: i64 = "Size",
    }
    VolumeCreate {
        name: String => "Name",
        driver: String => "Driver",
        driver_opts: StringMap => "DriverOpts",
        labels: StringMap => "Labels",
    }
    VolumeList {
        volumes: Vec<Volume> = "Volumes",
        warnings: Vec<String> = "Warnings",
    }
    VolumesPruned {
        volumes_deleted: Vec<String> = "VolumesDeleted",
        space_reclaimed: u64 = "SpaceReclaimed",
    }
}
