//! Managed plugins: what `config.json` says, what of it is set, what it asks the host for. Source: Docker API `Plugin`.

wire! {
    Plugin {
        id: String => "Id",
        name: String = "Name",
        enabled: bool = "Enabled",
        settings: PluginSettings = "Settings",
        plugin_reference: String => "PluginReference",
        config: PluginConfig = "Config",
    }
    PluginSettings {
        mounts: Vec<PluginMount> = "Mounts",
        env: Vec<String> = "Env",
        args: Vec<String> = "Args",
        devices: Vec<PluginDevice> = "Devices",
    }
    /// `config.json` of a plugin's folder, and the configuration that registries keep.
    PluginConfig {
        docker_version: String => "DockerVersion",
        description: String = "Description",
        documentation: String = "Documentation",
        interface: PluginInterface = "Interface",
        entrypoint: Vec<String> = "Entrypoint",
        work_dir: String = "WorkDir",
        user: PluginUser = "User",
        network: PluginNetwork = "Network",
        linux: PluginLinux = "Linux",
        propagated_mount: String = "PropagatedMount",
        ipc_host: bool = "IpcHost",
        pid_host: bool = "PidHost",
        mounts: Vec<PluginMount> = "Mounts",
        env: Vec<PluginEnv> = "Env",
        args: PluginArgs = "Args",
        root_fs: Option<PluginRootFs> => "rootfs",
    }
    PluginInterface {
        protocol_scheme: String => "ProtocolScheme",
        socket: String = "Socket",
        /// `docker.volumedriver/1.0`
        types: Vec<String> = "Types",
    }
    PluginUser {
        uid: u32 => "UID",
        gid: u32 => "GID",
    }
    PluginNetwork {
        kind: String = "Type",
    }
    PluginLinux {
        allow_all_devices: bool = "AllowAllDevices",
        capabilities: Vec<String> = "Capabilities",
        devices: Vec<PluginDevice> = "Devices",
    }
    PluginMount {
        description: String = "Description",
        destination: String = "Destination",
        name: String = "Name",
        options: Vec<String> = "Options",
        settable: Vec<String> = "Settable",
        source: Option<String> = "Source",
        kind: String = "Type",
    }
    PluginDevice {
        description: String = "Description",
        name: String = "Name",
        path: Option<String> = "Path",
        settable: Vec<String> = "Settable",
    }
    PluginEnv {
        description: String = "Description",
        name: String = "Name",
        settable: Vec<String> = "Settable",
        value: Option<String> = "Value",
    }
    PluginArgs {
        description: String = "Description",
        name: String = "Name",
        settable: Vec<String> = "Settable",
        value: Vec<String> = "Value",
    }
    PluginRootFs {
        kind: String = "type",
        diff_ids: Vec<String> = "diff_ids",
    }
    PluginPrivilege {
        name: String = "Name",
        description: String = "Description",
        value: Vec<String> = "Value",
    }
}
