//! What a request to create a container means in the version of the API that its client speaks: keys that are newer than
//! it are not there, and what was no mistake then is none.
//!
//! *Source:* moby `daemon/server/router/container/container_routes.go`, `postContainersCreate`.

use super::{ApiError, ApiVersion};
use crate::types;

/// Rewrites a request as its client means it.
///
/// # Errors
/// 400 for what that version has not, where leaving it out would make another container than is asked for.
pub(super) fn as_meant(version: ApiVersion, request: &mut types::ContainerCreate) -> Result<(), ApiError> {
    let types::ContainerCreate { config, host_config, networking_config } = request;
    let host = host_config.get_or_insert_default();
    if version < ApiVersion(1, 40) && host.ipc_mode.is_empty() {
        host.ipc_mode = "shareable".into();
    }
    if version < ApiVersion(1, 42) {
        host.console_size = [0, 0];
    }
    if version < ApiVersion(1, 43) {
        host.annotations.clear();
    }
    if version < ApiVersion(1, 44)
        && let Some(check) = &mut config.healthcheck
    {
        check.start_interval = 0;
    }
    for mount in &mut host.mounts {
        mount_as_meant(version, mount)?;
    }
    let endpoints = networking_config.iter_mut().flat_map(|networking| &mut networking.endpoints_config);
    let mut names = Vec::new();
    for (name, endpoint) in endpoints {
        names.push(name.as_str());
        if let Some(endpoint) = endpoint.as_mut().filter(|_| version < ApiVersion(1, 48)) {
            endpoint.gw_priority = 0;
        }
    }
    if version < ApiVersion(1, 44) && names.len() > 1 {
        let names = names.join(", ");
        return Err(ApiError::bad_request(format!(
            "Container cannot be created with multiple network endpoints: {names}"
        )));
    }
    Ok(())
}

fn mount_as_meant(version: ApiVersion, mount: &mut types::Mount) -> Result<(), ApiError> {
    let needs =
        |what: &str, newest: &str| Err(ApiError::bad_request(format!("{what} needs API v{newest} or newer")));
    if version < ApiVersion(1, 42) {
        let types::Mount { kind, volume_options, tmpfs_options, .. } = mount;
        volume_options.take_if(|_| kind != "volume");
        tmpfs_options.take_if(|_| kind != "tmpfs");
    }
    if let Some(bind) = &mut mount.bind_options {
        if version < ApiVersion(1, 40) {
            bind.non_recursive = false;
        }
        if version < ApiVersion(1, 42) {
            bind.create_mountpoint = false;
        }
        if version < ApiVersion(1, 44) && bind.read_only_force_recursive {
            return needs("BindOptions.ReadOnlyForceRecursive", "1.44");
        }
    }
    if version < ApiVersion(1, 44) && mount.kind == "bind" && mount.read_only {
        // Only what is mounted itself was read-only then, not what is mounted below it.
        let bind = mount.bind_options.get_or_insert_default();
        bind.read_only_non_recursive = !bind.non_recursive;
    }
    let subpath = mount.volume_options.as_ref().is_some_and(|volume| !volume.subpath.is_empty());
    if version < ApiVersion(1, 45) && subpath {
        return needs("VolumeOptions.Subpath", "1.45");
    }
    if version < ApiVersion(1, 48) && mount.kind == "image" {
        return needs("Mount type \"Image\"", "1.48");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn meant(version: ApiVersion, json: &serde_json::Value) -> Result<types::ContainerCreate, ApiError> {
        let mut request = types::parse(json.to_string().as_bytes()).unwrap();
        as_meant(version, &mut request).map(|()| request)
    }

    #[test]
    fn keys_that_are_newer_than_the_client_are_not_there() {
        let asked = json!({
            "Healthcheck": {"StartInterval": 7},
            "HostConfig": {
                "ConsoleSize": [3, 4],
                "Annotations": {"a": "b"},
                "Mounts": [
                    {"Type": "bind", "Source": "/a", "Target": "/a", "TmpfsOptions": {}, "VolumeOptions": {}, "BindOptions":
                        {"NonRecursive": true, "CreateMountpoint": true}},
                ],
            },
            "NetworkingConfig": {"EndpointsConfig": {"one": {"GwPriority": 5}}},
        });
        let newest = meant(super::super::NEWEST, &asked).unwrap();
        assert_eq!(newest, types::parse(asked.to_string().as_bytes()).unwrap());

        let oldest = meant(ApiVersion(1, 24), &asked).unwrap();
        let host = oldest.host_config.unwrap();
        assert_eq!(oldest.config.healthcheck.unwrap().start_interval, 0);
        assert_eq!(
            (host.console_size, host.annotations.len(), host.ipc_mode.as_str()),
            ([0, 0], 0, "shareable")
        );
        let types::Mount { bind_options, tmpfs_options, volume_options, .. } = &host.mounts[0];
        assert_eq!((bind_options, tmpfs_options, volume_options), (&Some(Default::default()), &None, &None));
        let endpoints = oldest.networking_config.unwrap().endpoints_config;
        assert_eq!(endpoints["one"].as_ref().unwrap().gw_priority, 0);
    }

    #[test]
    fn a_read_only_bind_of_an_old_client_is_so_itself_and_not_below() {
        let mount = json!({"Type": "bind", "Source": "/a", "Target": "/a", "ReadOnly": true});
        let asked = json!({"HostConfig": {"Mounts": [mount]}});
        let non_recursive = |version| {
            let host = meant(version, &asked).unwrap().host_config.unwrap();
            host.mounts[0].bind_options.as_ref().is_some_and(|bind| bind.read_only_non_recursive)
        };
        assert!(non_recursive(ApiVersion(1, 43)) && !non_recursive(ApiVersion(1, 44)));
    }

    #[test]
    fn what_cannot_be_left_out_is_refused_to_an_old_client() {
        let mount = |mount: serde_json::Value| json!({"HostConfig": {"Mounts": [mount]}});
        for (asked, first, words) in [
            (mount(json!({"Type": "image"})), 48, "Image"),
            (mount(json!({"Type": "volume", "VolumeOptions": {"Subpath": "x"}})), 45, "Subpath"),
            (
                mount(json!({"Type": "bind", "BindOptions": {"ReadOnlyForceRecursive": true}})),
                44,
                "ForceRecursive",
            ),
            (json!({"NetworkingConfig": {"EndpointsConfig": {"one": {}, "two": {}}}}), 44, "one, two"),
        ] {
            assert!(meant(ApiVersion(1, first), &asked).is_ok(), "{words}");
            let refused = meant(ApiVersion(1, first - 1), &asked).unwrap_err();
            assert!(refused.status == 400 && refused.message.contains(words), "{refused}");
        }
    }
}
