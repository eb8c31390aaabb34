//! The capabilities of a container: Docker's default, with what is added and dropped.

use crate::error::{Error, Result};
use runtime::{Capabilities, Capability, config::LinuxCapabilities};

const DEFAULT_CAPS: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

const ALL_CAPS: [&str; 41] = [
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_AUDIT_WRITE",
    "CAP_BLOCK_SUSPEND",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_KILL",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_RAW",
    "CAP_PERFMON",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_CHROOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_WAKE_ALARM",
];

/// Returns the capabilities of a container.
///
/// # Errors
/// `InvalidParameter` for a name that does not exist.
pub(crate) fn of(add: &[String], drop: &[String], privileged: bool) -> Result<Vec<String>> {
    // Everything means everything that there is to give; a name that is asked for must be given.
    let all = || {
        let held = runtime::held_caps();
        let held = move |cap: &&str| Capability::named(cap).is_some_and(|cap| held.contains(cap));
        ALL_CAPS.iter().copied().filter(held)
    };
    if privileged {
        return Ok(all().map(str::to_owned).collect());
    }
    let known = |name: &String| -> Result<String> {
        let upper = name.to_ascii_uppercase();
        let full = if upper == "ALL" || upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
        if full == "ALL" || ALL_CAPS.contains(&full.as_str()) {
            Ok(full)
        } else {
            Err(Error::invalid(format!("invalid capability: \"{name}\"")))
        }
    };
    let add = add.iter().map(known).collect::<Result<Vec<_>>>()?;
    let drop = drop.iter().map(known).collect::<Result<Vec<_>>>()?;
    let has = |list: &[String], cap: &str| list.iter().any(|c| c == cap);
    if has(&add, "ALL") {
        return Ok(all().filter(|cap| !has(&drop, cap) || has(&add, cap)).map(str::to_owned).collect());
    }
    let granted = |cap: &&str| {
        let by_default = !has(&drop, "ALL") && DEFAULT_CAPS.contains(cap);
        has(&add, cap) || (by_default && !has(&drop, cap))
    };
    Ok(ALL_CAPS.iter().filter(|c| granted(c)).map(|c| (*c).to_owned()).collect())
}

/// Returns those of these names.
pub(super) fn set(names: &[String]) -> Capabilities {
    names.iter().filter_map(|name| Capability::named(name)).collect()
}

/// Returns the sets of a process that has these.
pub(super) fn sets(caps: &[String], uid: u32) -> LinuxCapabilities {
    let caps = Some(set(caps));
    // As Docker: an ordinary user starts without effective capabilities, but may get them from file capabilities.
    if uid == 0 {
        LinuxCapabilities { bounding: caps, effective: caps, permitted: caps, ..LinuxCapabilities::default() }
    } else {
        LinuxCapabilities { bounding: caps, ..LinuxCapabilities::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(add: &[&str], drop: &[&str]) -> Vec<String> {
        let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        of(&own(add), &own(drop), false).unwrap()
    }

    #[test]
    fn capabilities_are_dockers_default_with_what_is_added_and_dropped() {
        assert_eq!(caps(&[], &[]).len(), 14);
        assert!(caps(&["net_admin"], &[]).contains(&"CAP_NET_ADMIN".to_owned()));
        assert!(!caps(&[], &["CAP_CHOWN"]).contains(&"CAP_CHOWN".to_owned()));
        assert_eq!(caps(&["SYS_TIME"], &["ALL"]), ["CAP_SYS_TIME"]);
        let all = caps(&["ALL"], &[]);
        assert_eq!(all.len(), runtime::held_caps().len());
        let but_one: Vec<_> = all.into_iter().filter(|cap| cap != "CAP_SYS_CHROOT").collect();
        assert_eq!(caps(&["ALL"], &["SYS_CHROOT"]), but_one);
        assert!(of(&["NO_SUCH".to_owned()], &[], false).is_err());
        let unknown: Vec<_> = ALL_CAPS.iter().filter(|cap| Capability::named(cap).is_none()).collect();
        assert!(unknown.is_empty(), "the seccomp profile does not know {unknown:?}");
    }
}
