//! What `--security-opt` says: privileges, seccomp, AppArmor, what is hidden of `/proc`.

use crate::{
    ask::config::HostConfig,
    error::{Error, Result},
    spec::capabilities,
};
use runtime::config::LinuxSeccomp;
use std::sync::Arc;

const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What the security options say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Security {
    pub(crate) no_new_privileges: bool,
    pub(crate) seccomp: Seccomp,
    pub(crate) unmask: bool,
    /// `Some("")` = none; `None` = what there is by default.
    pub(crate) apparmor: Option<String>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Seccomp {
    #[default]
    Default,
    Unconfined,
    /// JSON of `linux.seccomp`.
    Custom(String),
}

/// Name of an AppArmor profile; namespaces of profiles are not for containers to choose.
fn is_profile(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.-/+".contains(&b);
    !name.is_empty() && name.len() < 256 && name.bytes().all(allowed)
}

/// Refuses what this host cannot honour: nothing that was asked for is dropped.
///
/// # Errors
/// `InvalidParameter`.
pub(crate) fn check(security: &Security, caps: &[String]) -> Result<()> {
    if let Some(profile) = security.apparmor.as_deref().filter(|p| !p.is_empty()) {
        let cannot = |why: &str| {
            Error::invalid(format!(
                "invalid --security-opt apparmor={profile}: {why}; hint: apparmor=unconfined, or leave it out"
            ))
        };
        if !runtime::apparmor_enabled() {
            return Err(cannot("AppArmor is not enabled on this host"));
        }
        if runtime::apparmor_loaded(profile) == Some(false) {
            return Err(cannot("no profile of this name is loaded"));
        }
    }
    if let Seccomp::Custom(text) = &security.seccomp {
        custom_seccomp(text, caps)?;
    }
    Ok(())
}

/// Reads a profile as `docker run --security-opt seccomp=FILE` sends it, for a container with these capabilities.
fn custom_seccomp(text: &str, caps: &[String]) -> Result<LinuxSeccomp> {
    runtime::read_seccomp(text, capabilities::set(caps)).map_err(|why| {
        Error::invalid(format!("Decoding seccomp profile failed: invalid --security-opt seccomp: {why}"))
    })
}

/// Profile that Docker's containers have.
const APPARMOR_DEFAULT: &str = "docker-default";

/// What AppArmor does for containers that ask for nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppArmor {
    /// The kernel has it not, or it is off.
    Off,
    /// Nothing: the profile `docker-default` is not loaded, or this process cannot see whether it is.
    NotLoaded,
    /// It confines them by `docker-default`.
    Confines,
}

/// Returns what is in effect on this host now. The profile has to be compiled by AppArmor's own tools, which load it
/// before the daemon starts (`deploy/rswarm.service`); an operator who has Docker has it, too.
#[must_use]
pub fn apparmor_in_effect() -> AppArmor {
    match (runtime::apparmor_enabled(), runtime::apparmor_loaded(APPARMOR_DEFAULT)) {
        (false, _) => AppArmor::Off,
        (true, Some(true)) => AppArmor::Confines,
        (true, Some(false) | None) => AppArmor::NotLoaded,
    }
}

/// Returns the AppArmor profile of a container; `None` = none.
pub(super) fn apparmor(security: &Security, privileged: bool) -> Option<String> {
    match &security.apparmor {
        Some(profile) => Some(profile.clone()).filter(|p| !p.is_empty()),
        None if privileged => None,
        None => (apparmor_in_effect() == AppArmor::Confines).then(|| APPARMOR_DEFAULT.to_owned()),
    }
}

/// Reads security options.
///
/// # Errors
/// `InvalidParameter` for an option that does not exist.
pub(crate) fn read(options: &[String]) -> Result<Security> {
    let mut security = Security::default();
    for option in options {
        let (key, value) = option.split_once('=').or_else(|| option.split_once(':')).unwrap_or((option, ""));
        match (key, value) {
            ("no-new-privileges", "" | "true") => security.no_new_privileges = true,
            ("no-new-privileges", "false") => security.no_new_privileges = false,
            ("seccomp", "unconfined") => security.seccomp = Seccomp::Unconfined,
            ("seccomp", "builtin" | "default") => security.seccomp = Seccomp::Default,
            ("seccomp", json) if json.trim_start().starts_with('{') => {
                security.seccomp = Seccomp::Custom(json.to_owned());
            }
            ("seccomp", "") => return Err(Error::invalid("invalid --security-opt: seccomp has no profile")),
            ("systempaths", "unconfined") => security.unmask = true,
            ("apparmor", "unconfined") => security.apparmor = Some(String::new()),
            ("apparmor", profile) if is_profile(profile) => security.apparmor = Some(profile.to_owned()),
            ("label", "disable") => {}
            ("label", _) => {
                return Err(Error::invalid(format!(
                    "invalid --security-opt {option:?}: label needs SELinux, which is not supported here; hint: label=disable"
                )));
            }
            _ => return Err(Error::invalid(format!("invalid --security-opt: {option:?}"))),
        }
    }
    Ok(security)
}

impl HostConfig {
    /// Returns what is hidden in the container: what was asked for, else Docker's list.
    #[must_use]
    pub fn hidden_paths(&self) -> Vec<String> {
        self.paths(self.masked_paths.as_ref(), &MASKED)
    }

    /// Returns what can only be read in the container.
    #[must_use]
    pub fn unwritable_paths(&self) -> Vec<String> {
        self.paths(self.readonly_paths.as_ref(), &READ_ONLY)
    }

    fn paths(&self, wanted: Option<&Vec<String>>, default: &[&str]) -> Vec<String> {
        let open = self.privileged || read(&self.security_opts).is_ok_and(|s| s.unmask);
        match wanted {
            Some(paths) => paths.clone(),
            None if open => vec![],
            None => default.iter().map(|p| (*p).to_owned()).collect(),
        }
    }
}

/// Returns what filters the system calls of a container with these capabilities; `None` = nothing does.
///
/// # Errors
/// `InvalidParameter` for a profile that cannot be read.
pub(super) fn seccomp(security: &Security, caps: &[String]) -> Result<Option<Arc<LinuxSeccomp>>> {
    Ok(match &security.seccomp {
        Seccomp::Unconfined => None,
        Seccomp::Default => Some(runtime::default_seccomp(capabilities::set(caps))),
        Seccomp::Custom(text) => Some(Arc::new(custom_seccomp(text, caps)?)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_options_are_understood_or_refused() {
        let of = |text: &str| read(&[text.to_owned()]);
        assert!(of("no-new-privileges").unwrap().no_new_privileges);
        assert!(of("no-new-privileges:true").unwrap().no_new_privileges);
        assert_eq!(of("seccomp=unconfined").unwrap().seccomp, Seccomp::Unconfined);
        assert!(of("seccomp=nonsense").is_err());
        assert!(of("frobnicate").is_err());
    }

    #[test]
    fn the_profile_that_the_unit_loads_is_the_one_that_containers_get() {
        let profile = include_str!("../../../../deploy/apparmor/docker-default");
        let head = format!("profile {APPARMOR_DEFAULT} flags=(attach_disconnected,mediate_deleted) {{");
        assert!(profile.lines().any(|line| line == head));
        let unit = include_str!("../../../../deploy/rswarm.service");
        let loads = format!("ExecStartPre=-/sbin/apparmor_parser -r -W /etc/apparmor.d/{APPARMOR_DEFAULT}");
        assert!(unit.lines().any(|line| line == loads));
    }
}
