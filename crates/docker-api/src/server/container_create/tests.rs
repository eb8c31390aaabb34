//! What requests say, and what of it reaches the engine or is refused by name.

use super::*;

fn read(json: &str) -> Result<ContainerConfig, ApiError> {
    container_config(Some("web"), types::parse(json.as_bytes()).expect("valid JSON"))
}

#[test]
fn what_docker_run_sends_is_understood() {
    let config = read(
        r#"{"Image":"x","Cmd":"ls","ExposedPorts":{"80/tcp":{}},"HostConfig":{"NetworkMode":"default",
        "PortBindings":{"80/tcp":[{"HostIp":"","HostPort":"8080"}]},"RestartPolicy":{"Name":"on-failure",
        "MaximumRetryCount":3},"Memory":1048576,"Binds":["/a:/b:ro"]}}"#,
    )
    .unwrap();
    assert_eq!(config.name.as_deref(), Some("web"));
    assert_eq!(config.host.port_bindings[0].host_port, Some(8080));
    assert_eq!(config.host.restart, ContainerRestart::OnFailure { max_retries: Some(3) });
    assert_eq!(config.host.network_mode, NetworkMode::Bridge);
    assert_eq!(config.host.resources.memory_bytes, 1 << 20);
}

#[test]
fn a_host_port_may_be_a_range() {
    let ports = |text: &str| {
        let json = format!(
            r#"{{"Image":"x","HostConfig":{{"PortBindings":{{"80/tcp":[{{"HostPort":"{text}"}}]}}}}}}"#
        );
        let binding = read(&json)?.host.port_bindings[0].clone();
        Ok::<_, ApiError>((binding.host_port, binding.last_port))
    };
    assert_eq!(ports("6005-6015").unwrap(), (Some(6005), Some(6015)));
    assert_eq!(ports("6005-6005").unwrap(), (Some(6005), None));
    assert_eq!(ports("0").unwrap(), (None, None));
    for bad in ["6015-6005", "0-5", "a-b", "1-", "1-2-3"] {
        assert!(ports(bad).is_err(), "{bad}");
    }
}

#[test]
fn every_key_of_a_request_has_a_gate() {
    for (of, keys) in [
        ("ContainerConfig", types::ContainerConfig::KEYS),
        ("HostConfig", types::HostConfig::KEYS),
        ("ContainerResources", types::ContainerResources::KEYS),
        ("EndpointSettings", types::EndpointSettings::KEYS),
    ] {
        let lines = GATES.iter().filter(|(name, ..)| *name == of);
        let mut judged: Vec<&str> = lines.flat_map(|(_, _, keys)| keys.iter().copied()).collect();
        let mut known: Vec<&str> = keys.to_vec();
        judged.sort_unstable();
        known.sort_unstable();
        assert_eq!(judged, known, "{of}: each key needs one line that says which gate judges it");
    }
}

#[test]
fn what_is_marked_as_refused_is() {
    let of_type = |key: &str| match key {
        "StorageOpt" => r#"{"size":"1g"}"#,
        "Cgroup" => r#""x""#,
        key if key.starts_with("Blkio") => r#"[{"Path":"/dev/sda","Weight":1}]"#,
        _ => "1",
    };
    for (_, gate, keys) in GATES.iter().filter(|(_, gate, _)| *gate == "refused") {
        for key in *keys {
            let error = read(&format!(r#"{{"HostConfig":{{"{key}":{}}}}}"#, of_type(key))).unwrap_err();
            assert!(error.message.contains(key), "{gate} {key}: {error}");
        }
    }
}

/// Each field of a mount, and where it arrives: a new one has no line, and does not pass.
#[test]
fn every_field_of_a_mount_has_an_effect_or_is_refused() {
    let mount = |kind: &str, options: &str| {
        let source = if matches!(kind, "bind" | "image") { r#""Source":"/a","# } else { "" };
        let json = format!(r#"{{"Type":"{kind}",{source}"Target":"/x","ReadOnly":true,{options}}}"#);
        read(&format!(r#"{{"HostConfig":{{"Mounts":[{json}]}}}}"#)).map(|config| config.host.mounts)
    };
    /// Its kind, its group of options, their names, and a value of each.
    type Told =
        (&'static str, &'static str, &'static [&'static str], &'static [(&'static str, &'static str)]);
    let told: [Told; 4] = [
        (
            "bind",
            "BindOptions",
            types::BindOptions::KEYS,
            &[
                ("Propagation", r#""rshared""#),
                ("NonRecursive", "true"),
                ("CreateMountpoint", "true"),
                ("ReadOnlyNonRecursive", "true"),
                ("ReadOnlyForceRecursive", "true"),
            ],
        ),
        (
            "volume",
            "VolumeOptions",
            types::VolumeOptions::KEYS,
            &[
                ("NoCopy", "true"),
                ("Labels", r#"{"a":"b"}"#),
                ("Subpath", r#""sub""#),
                ("DriverConfig", r#"{"Name":"local"}"#),
            ],
        ),
        (
            "tmpfs",
            "TmpfsOptions",
            types::TmpfsOptions::KEYS,
            &[("SizeBytes", "4096"), ("Mode", "448"), ("Options", r#"[["exec"]]"#)],
        ),
        ("image", "ImageOptions", types::ImageOptions::KEYS, &[("Subpath", r#""sub""#)]),
    ];
    for (kind, group, keys, values) in told {
        assert_eq!(values.iter().map(|(key, _)| *key).collect::<Vec<_>>(), keys, "{group}");
        let plain = mount(kind, &format!(r#""{group}":{{}}"#)).unwrap();
        for (key, value) in values {
            match mount(kind, &format!(r#""{group}":{{"{key}":{value}}}"#)) {
                Ok(changed) => assert_ne!(changed, plain, "{group}.{key} has no effect"),
                Err(refused) => assert!(refused.message.contains(key), "{group}.{key}: {refused}"),
            }
        }
    }
}

#[test]
fn what_cannot_be_done_is_named() {
    for (json, field) in [
        (r#"{"HostConfig":{"DeviceRequests":[{"Count":1,"DeviceIDs":["0"]}]}}"#, "both Count and DeviceIDs"),
        (r#"{"HostConfig":{"RestartPolicy":{"Name":"sometimes"}}}"#, "sometimes"),
        (r#"{"HostConfig":{"Memory":-1}}"#, "Memory"),
        (r#"{"HostConfig":{"NanoCpus":-5}}"#, "NanoCpus"),
        (r#"{"HostConfig":{"ShmSize":-1}}"#, "ShmSize"),
        (r#"{"HostConfig":{"ConsoleSize":[1,70000]}}"#, "ConsoleSize"),
        (r#"{"HostConfig":{"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":-1}}}"#, "negative"),
        (r#"{"HostConfig":{"RestartPolicy":{"Name":"always","MaximumRetryCount":1}}}"#, "on-failure"),
        (r#"{"HostConfig":{"Dns":["8.8.8.8\nnameserver 6.6.6.6"]}}"#, "Dns"),
        (r#"{"HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"99999"}]}}}"#, "99999"),
        (r#"{"HostConfig":{"PortBindings":{"1-65535/tcp":[{"HostPort":""}]}}}"#, "1-65535"),
        (r#"{"HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"90-80"}]}}}"#, "90-80"),
        (r#"{"Healthcheck":{"Test":["CMD","true"],"Interval":-1}}"#, "Interval"),
        (r#"{"Healthcheck":{"Test":["CMD","true"],"Retries":-1}}"#, "Retries"),
        (r#"{"HostConfig":{"Mounts":[{"Type":"npipe","Target":"/x"}]}}"#, "npipe"),
        (r#"{"HostConfig":{"Mounts":[{"Type":"tmpfs","Source":"/a","Target":"/x"}]}}"#, "field Source"),
        (r#"{"HostConfig":{"Mounts":[{"Type":"image","Target":"/x"}]}}"#, "field Source"),
        (
            r#"{"HostConfig":{"Mounts":[{"Type":"volume","Target":"/x","BindOptions":{"NonRecursive":true}}]}}"#,
            "field BindOptions must not be specified",
        ),
        (
            r#"{"HostConfig":{"Mounts":[{"Type":"bind","Source":"/a","Target":"/x","TmpfsOptions":{"Mode":1}}]}}"#,
            "field TmpfsOptions must not be specified",
        ),
        (
            r#"{"HostConfig":{"Mounts":[{"Type":"bind","Source":"/a","Target":"/x",
            "BindOptions":{"ReadOnlyNonRecursive":true}}]}}"#,
            "!ReadOnly && BindOptions.ReadOnlyNonRecursive",
        ),
        (
            r#"{"NetworkingConfig":{"EndpointsConfig":{"n":{"IPAMConfig":{"LinkLocalIPs":["fe80::1"]}}}}}"#,
            "LinkLocalIPs",
        ),
    ] {
        let error = read(json).unwrap_err();
        assert!(error.message.contains(field), "{error}");
    }
}

#[test]
fn an_update_that_names_no_policy_leaves_it() {
    let restart = |json: &str| update(types::parse(json.as_bytes()).expect("valid JSON")).map(|u| u.restart);
    assert_eq!(restart(r#"{"Memory":1}"#).unwrap(), None);
    assert_eq!(restart(r#"{"RestartPolicy":{"Name":"","MaximumRetryCount":0}}"#).unwrap(), None);
    let no = restart(r#"{"RestartPolicy":{"Name":"no"}}"#).unwrap();
    assert_eq!(no, Some(ContainerRestart::No));
    let error = restart(r#"{"RestartPolicy":{"Name":"always","MaximumRetryCount":3}}"#).unwrap_err();
    assert!(error.message.contains("only be used with 'on-failure'"), "{error}");
}

/// What a container may be given it may be given as a service's, and what is refused is refused to both.
#[test]
fn containers_and_services_are_judged_alike() {
    let container = |config: &str, host: &str| {
        let json = format!(r#"{{"Image":"x",{config}"HostConfig":{{{host}}}}}"#);
        let read = read(&json).map_err(|e| e.message)?;
        read.check().map_err(|e| e.to_string())
    };
    let service = |keys: &str| {
        let json = format!(r#"{{"Image":"x",{keys}}}"#);
        let read = types::parse(json.as_bytes()).expect("valid JSON");
        let spec = convert::container_spec(read).map_err(|e| e.to_string())?;
        spec.check(false).map_err(|e| e.to_string())
    };
    /// Where a container's JSON has it; a service's has what is `Options` in a part of its own.
    enum Place {
        Own,
        Host,
        Options,
    }
    use Place::{Host, Options, Own};
    for (place, keys, fits) in [
        (Host, r#""Ulimits":[{"Name":"nofile","Soft":1,"Hard":2}]"#, true),
        (Host, r#""Ulimits":[{"Name":"core","Soft":-1,"Hard":-1}]"#, true),
        (Host, r#""Ulimits":[{"Name":"files","Soft":1,"Hard":2}]"#, false),
        (Host, r#""Ulimits":[{"Name":"","Soft":1,"Hard":2}]"#, false),
        (Host, r#""Ulimits":[{"Name":"cpu","Soft":-2,"Hard":2}]"#, false),
        (Host, r#""Ulimits":[{"Name":"cpu","Soft":3,"Hard":2}]"#, false),
        (Host, r#""Ulimits":[{"Name":"cpu","Soft":-1,"Hard":2}]"#, false),
        (Host, r#""OomScoreAdj":1000"#, true),
        (Host, r#""OomScoreAdj":1001"#, false),
        (Host, r#""OomScoreAdj":-5000"#, false),
        (Host, r#""Sysctls":{"net.core.somaxconn":"1"}"#, true),
        (Host, r#""Sysctls":{"kernel.core_pattern":"x"}"#, false),
        (Own, r#""Healthcheck":{"Test":["CMD","true"],"Interval":1000000,"Retries":1}"#, true),
        (Own, r#""Healthcheck":{"Test":["CMD","true"],"Interval":5}"#, false),
        (Own, r#""Healthcheck":{"Test":["CMD","true"],"Retries":-5}"#, false),
        (Own, r#""Healthcheck":{"Test":["CMD","true"],"StartPeriod":-1}"#, false),
        (Own, r#""User":"a:b""#, true),
        (Own, r#""User":"a:b:c""#, false),
        (Own, r#""Env":["A=b"]"#, true),
        (Own, r#""Env":["=b"]"#, false),
        (Own, r#""Hostname":"web""#, true),
        (Own, r#""Hostname":"a b""#, false),
        (Options, r#""MemorySwappiness":100"#, true),
        (Options, r#""MemorySwappiness":101"#, false),
        (Options, r#""MemorySwappiness":300"#, false),
        (Options, r#""BlkioWeight":10"#, true),
        (Options, r#""BlkioWeight":9"#, false),
        (Options, r#""BlkioWeight":1001"#, false),
        (Options, r#""UsernsMode":"private""#, true),
        (Options, r#""UsernsMode":"auto""#, false),
        (Options, r#""CgroupParent":"/a/../..""#, false),
        (Options, r#""CpusetCpus":"0-""#, false),
    ] {
        let (alone, task) = match place {
            Own => (container(&format!("{keys},"), ""), service(keys)),
            Host => (container("", keys), service(keys)),
            Options => (container("", keys), service(&format!(r#""HostOptions":{{{keys}}}"#))),
        };
        let fits = if fits { "fits" } else { "is refused" };
        let said = |verdict: &Result<(), String>| if verdict.is_ok() { "fits" } else { "is refused" };
        assert_eq!((said(&alone), said(&task)), (fits, fits), "{keys}: {alone:?}, {task:?}");
    }
}

/// A value of each key that a request may have, another one than is taken without it.
fn sample(key: &str) -> &'static str {
    match key {
        "AttachStdin" | "AttachStdout" | "AttachStderr" | "Tty" | "OpenStdin" | "StdinOnce"
        | "NetworkDisabled" | "AutoRemove" | "Privileged" | "PublishAllPorts" | "ReadonlyRootfs" | "Init"
        | "OomKillDisable" => "true",
        "Hostname" | "Domainname" | "User" | "StopSignal" | "Image" | "CgroupnsMode" | "IpcMode"
        | "Isolation" | "PidMode" | "UTSMode" | "UsernsMode" | "VolumeDriver" | "Runtime" | "NetworkMode"
        | "WorkingDir" | "CgroupParent" | "CpusetCpus" | "CpusetMems" => r#""x""#,
        "MacAddress" => r#""02:00:00:00:00:01""#,
        "Env" | "Cmd" | "Entrypoint" | "Binds" | "VolumesFrom" | "CapAdd" | "CapDrop" | "DnsOptions"
        | "DnsSearch" | "ExtraHosts" | "GroupAdd" | "Links" | "SecurityOpt" | "MaskedPaths"
        | "ReadonlyPaths" | "DeviceCgroupRules" | "Aliases" => r#"["x"]"#,
        "Dns" => r#"["10.0.0.1"]"#,
        "Labels" | "Annotations" | "Tmpfs" | "Sysctls" | "DriverOpts" => r#"{"x":"y"}"#,
        "Volumes" => r#"{"/x":{}}"#,
        "ExposedPorts" => r#"{"80/tcp":{}}"#,
        "PortBindings" => r#"{"80/tcp":[{"HostPort":"80"}]}"#,
        "Healthcheck" => r#"{"Retries":3}"#,
        "Mounts" => r#"[{"Type":"volume","Target":"/x"}]"#,
        "LogConfig" => r#"{"Type":"none"}"#,
        "RestartPolicy" => r#"{"Name":"always"}"#,
        "ConsoleSize" => "[2,3]",
        "Devices" => r#"[{"PathOnHost":"/dev/null"}]"#,
        "DeviceRequests" => r#"[{"Count":1}]"#,
        "Ulimits" => r#"[{"Name":"core","Soft":1,"Hard":2}]"#,
        "IPAMConfig" => r#"{"IPv4Address":"10.0.0.9"}"#,
        "StopTimeout" | "OomScoreAdj" | "ShmSize" | "CpuShares" | "Memory" | "NanoCpus" | "BlkioWeight"
        | "CpuPeriod" | "CpuQuota" | "CpuRealtimePeriod" | "CpuRealtimeRuntime" | "MemoryReservation"
        | "MemorySwap" | "MemorySwappiness" | "PidsLimit" | "GwPriority" => "7",
        other => panic!("no sample of {other}"),
    }
}

/// What a request says is in what the engine is told: a key that is lost on the way makes no difference.
#[test]
fn every_key_of_a_request_reaches_the_engine() {
    let told = |json: &str| {
        let config = read(json).unwrap_or_else(|error| panic!("{json}: {error}"));
        serde_json::to_value(config).expect("JSON")
    };
    let mut lost = Vec::new();
    for (of, gate, keys) in GATES.iter().filter(|(_, gate, _)| matches!(*gate, "engine" | "type" | "here")) {
        let around = |member: &str| match *of {
            "ContainerConfig" => format!("{{{member}}}"),
            "EndpointSettings" => {
                format!(r#"{{"NetworkingConfig":{{"EndpointsConfig":{{"net":{{{member}}}}}}}}}"#)
            }
            _ => format!(r#"{{"HostConfig":{{{member}}}}}"#),
        };
        for key in *keys {
            if told(&around(&format!(r#""{key}":{}"#, sample(key)))) == told(&around("")) {
                lost.push(format!("{of}.{key} ({gate})"));
            }
        }
    }
    assert!(lost.is_empty(), "{lost:?}");
}
