//! What a plugin's configuration asks for, what of it is set, and by whom that may be changed.
//!
//! *Source:* moby `plugin/backend_linux.go`, `computePrivileges`; `plugin/v2/plugin.go`; `plugin/v2/settable.go`.

use super::{Invalid, Result, invalid};
use crate::types::{PluginConfig, PluginPrivilege, PluginSettings};

/// Returns what a plugin asks its host for beyond what every container has.
pub fn plugin_privileges(config: &PluginConfig) -> Vec<PluginPrivilege> {
    let privilege = |name: &str, description: &str, value: Vec<String>| PluginPrivilege {
        name: name.to_owned(),
        description: description.to_owned(),
        value,
    };
    let yes = |name, description| privilege(name, description, vec!["true".to_owned()]);
    let mut asked = Vec::new();
    if !["null", "bridge", ""].contains(&config.network.kind.as_str()) {
        let network = vec![config.network.kind.clone()];
        asked.push(privilege("network", "permissions to access a network", network));
    }
    if config.ipc_host {
        asked.push(yes("host ipc namespace", "allow access to host ipc namespace"));
    }
    if config.pid_host {
        asked.push(yes("host pid namespace", "allow access to host pid namespace"));
    }
    for source in config.mounts.iter().filter_map(|mount| mount.source.clone()) {
        asked.push(privilege("mount", "host path to mount", vec![source]));
    }
    for path in config.linux.devices.iter().filter_map(|device| device.path.clone()) {
        asked.push(privilege("device", "host device to access", vec![path]));
    }
    if config.linux.allow_all_devices {
        asked.push(yes("allow-all-devices", "allow 'rwm' access to all devices"));
    }
    if !config.linux.capabilities.is_empty() {
        let capabilities = config.linux.capabilities.clone();
        asked.push(privilege("capabilities", "list of additional capabilities required", capabilities));
    }
    asked
}

/// Returns true if somebody has granted what is asked for, in whatever order: no more and no less.
pub fn plugin_is_granted(asked: &[PluginPrivilege], granted: &[PluginPrivilege]) -> bool {
    let sorted = |privileges: &[PluginPrivilege]| {
        let mut all: Vec<(String, Vec<String>)> = privileges
            .iter()
            .map(|privilege| {
                let mut value = privilege.value.clone();
                value.sort();
                (privilege.name.clone(), value)
            })
            .collect();
        all.sort();
        all
    };
    sorted(asked) == sorted(granted)
}

/// Returns the settings of a plugin of which nothing has been set.
pub fn plugin_settings(config: &PluginConfig) -> PluginSettings {
    let env = config.env.iter().filter_map(|env| Some(format!("{}={}", env.name, env.value.as_ref()?)));
    PluginSettings {
        mounts: config.mounts.clone(),
        env: env.collect(),
        args: config.args.value.clone(),
        devices: config.linux.devices.clone(),
    }
}

/// Sets `NAME[.FIELD]=VALUE`, as far as the configuration says that it may be set.
///
/// # Errors
/// There is no such name, it may not be set, or several of its fields may and none is named.
pub fn set_plugin(config: &PluginConfig, settings: &mut PluginSettings, args: &[String]) -> Result<()> {
    for arg in args {
        let set = Setting::read(arg)?;
        if let Some(env) = config.env.iter().find(|env| env.name == set.name) {
            set.may("value", &env.settable)?;
            let value = format!("{}={}", set.name, set.value);
            let is_it = |line: &&mut String| line.split_once('=').map_or(&line[..], |(n, _)| n) == set.name;
            match settings.env.iter_mut().find(is_it) {
                Some(line) => *line = value,
                None => settings.env.push(value),
            }
        } else if let Some(mount) = config.mounts.iter().find(|mount| mount.name == set.name) {
            set.may("source", &mount.settable)?;
            let same = settings.mounts.iter_mut().filter(|mount| mount.name == set.name);
            same.for_each(|mount| mount.source = Some(set.value.to_owned()));
        } else if let Some(device) = config.linux.devices.iter().find(|device| device.name == set.name) {
            set.may("path", &device.settable)?;
            let same = settings.devices.iter_mut().filter(|device| device.name == set.name);
            same.for_each(|device| device.path = Some(set.value.to_owned()));
        } else if config.args.name == set.name {
            set.may("value", &config.args.settable)?;
            settings.args = set.value.split(' ').map(str::to_owned).collect();
        } else {
            return invalid(format!("setting {:?} not found in the plugin configuration", set.name));
        }
    }
    Ok(())
}

/// One thing to set.
struct Setting<'a> {
    name: &'a str,
    field: Option<&'a str>,
    value: &'a str,
}

impl<'a> Setting<'a> {
    fn read(arg: &'a str) -> Result<Self> {
        let (name, value) = arg.split_once('=').unwrap_or((arg, ""));
        if name.is_empty() {
            return invalid("invalid format, must be <name>[.<field>][=<value>]");
        }
        Ok(match name.rsplit_once('.').filter(|(name, _)| !name.is_empty()) {
            Some((name, field)) => Self { name, field: Some(field), value },
            None => Self { name, field: None, value },
        })
    }

    /// `field`: what there is to set of such a thing; `settable`: what its plugin lets people set.
    fn may(&self, field: &str, settable: &[String]) -> Result<()> {
        let named = match (self.field, settable) {
            (Some(named), _) => named,
            (None, [only]) => only,
            (None, []) => "",
            (None, _) => return invalid("multiple fields are settable, one must be specified"),
        };
        if named == field && settable.iter().any(|one| one == field) {
            return Ok(());
        }
        let shown = self.field.map_or_else(|| self.name.to_owned(), |field| format!("{}.{field}", self.name));
        Err(Invalid(format!("{shown:?} is not settable")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types;

    /// In the case of letters that people write it in.
    const CONFIG: &[u8] = br#"{
        "description": "d", "entrypoint": ["/run"], "network": {"type": "host"}, "PIDHOST": true,
        "interface": {"types": ["docker.volumedriver/1.0"], "socket": "s.sock"},
        "env": [{"name": "DEBUG", "settable": ["value"], "value": "0"}, {"name": "FIXED", "value": "1"},
                {"name": "UNSET", "settable": ["value"]}],
        "mounts": [{"name": "state", "source": "/var/state", "settable": ["source", "options"]}, {"name": "own"}],
        "args": {"name": "args", "settable": ["value"], "value": ["-v"]},
        "linux": {"capabilities": ["CAP_SYS_ADMIN"], "devices": [{"name": "fuse", "path": "/dev/fuse", "settable": ["path"]}]}
    }"#;

    fn config() -> PluginConfig {
        types::parse(CONFIG).unwrap()
    }

    #[test]
    fn what_a_plugin_asks_for_is_told_and_must_be_granted_whole() {
        let asked = plugin_privileges(&config());
        let told: Vec<_> = asked.iter().map(|p| (p.name.as_str(), p.value.join(" "))).collect();
        let wanted = [
            ("network", "host"),
            ("host pid namespace", "true"),
            ("mount", "/var/state"),
            ("device", "/dev/fuse"),
            ("capabilities", "CAP_SYS_ADMIN"),
        ];
        assert_eq!(told, wanted.map(|(name, value)| (name, value.to_owned())));
        assert!(plugin_privileges(&PluginConfig::default()).is_empty());

        let mut granted = asked.clone();
        granted.reverse();
        assert!(plugin_is_granted(&asked, &granted));
        granted.pop();
        assert!(!plugin_is_granted(&asked, &granted), "less");
        granted.extend([asked[0].clone(), asked[0].clone()]);
        assert!(!plugin_is_granted(&asked, &granted), "more");
        assert!(!plugin_is_granted(&asked, &[]));
    }

    #[test]
    fn what_may_be_set_is_set_and_the_rest_refused() {
        let config = config();
        let mut settings = plugin_settings(&config);
        assert_eq!(settings.env, ["DEBUG=0", "FIXED=1"]);
        let mut set = |arg: &str| set_plugin(&config, &mut settings, &[arg.to_owned()]).map_err(|e| e.0);
        for arg in ["DEBUG=a=b", "UNSET.value=2", "state.source=/other", "fuse=/dev/other", "args=-a -b"] {
            assert_eq!(set(arg), Ok(()), "{arg}");
        }
        for (arg, why) in [
            ("FIXED=2", "\"FIXED\" is not settable"),
            ("DEBUG.name=2", "\"DEBUG.name\" is not settable"),
            ("state=/x", "multiple fields are settable, one must be specified"),
            ("state.options=ro", "\"state.options\" is not settable"),
            ("own=/x", "\"own\" is not settable"),
            ("nope=1", "setting \"nope\" not found in the plugin configuration"),
            ("=1", "invalid format, must be <name>[.<field>][=<value>]"),
        ] {
            assert_eq!(set(arg), Err(why.to_owned()), "{arg}");
        }
        assert_eq!(settings.env, ["DEBUG=a=b", "FIXED=1", "UNSET=2"]);
        assert_eq!(settings.args, ["-a", "-b"]);
        assert_eq!(settings.mounts[0].source.as_deref(), Some("/other"));
        assert_eq!(settings.devices[0].path.as_deref(), Some("/dev/other"));
    }

    #[test]
    fn a_configuration_is_written_in_dockers_names() {
        let json = serde_json::to_value(config()).unwrap();
        assert_eq!(json["Interface"]["Types"][0], "docker.volumedriver/1.0");
        assert_eq!(json["Env"][2]["Value"], serde_json::Value::Null);
        assert_eq!((&json["PidHost"], &json["Network"]["Type"]), (&true.into(), &"host".into()));
    }
}
