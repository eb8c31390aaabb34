//! Kernel parameters that a container may set: those that one of its own namespaces holds, and no others.
//!
//! The one rule for requests, stack files and bundles alike; whoever sets a parameter asks here before.
//! *Source:* sysctl(8); runc `libcontainer/configs/validate`, whose words these are.

/// The namespaces that a container has to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnNamespaces {
    pub network: bool,
    pub ipc: bool,
    pub uts: bool,
}

impl OwnNamespaces {
    /// Those of a container that shares nothing.
    pub const ALL: Self = Self { network: true, ipc: true, uts: true };
}

/// Why a container may not set a parameter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SysctlError {
    #[error("sysctl {0:?} is no name of a kernel parameter")]
    Name(String),
    #[error("sysctl {0:?}: the value may not be empty nor hold line breaks or NUL")]
    Value(String),
    #[error("sysctl {0:?} not allowed in host network namespace")]
    Network(String),
    #[error("sysctl {0:?} is not allowed in the hosts ipc namespace")]
    Ipc(String),
    #[error("sysctl {0:?} is not allowed as it conflicts with the OCI \"hostname\" field")]
    Hostname(String),
    #[error("sysctl {0:?} is not in a separate kernel namespace")]
    Host(String),
}

const OF_IPC: [&str; 8] =
    ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"];

/// Returns the file of a parameter below `/proc/sys`, for a container with these namespaces of its own.
///
/// Where the first separator of a name is a dot, a slash stands for a dot in a name, and the other way round.
///
/// # Errors
/// When no namespace of the container holds it, or the name or value is none.
pub fn sysctl_path(name: &str, value: &str, own: OwnNamespaces) -> Result<String, SysctlError> {
    let named = || name.to_owned();
    let slashes = name.find(['.', '/']).is_some_and(|at| name.as_bytes()[at] == b'/');
    let (separator, other) = if slashes { ('/', '.') } else { ('.', '/') };
    let parts: Vec<String> = name
        .split(separator)
        .map(|part| if slashes { part.to_owned() } else { part.replace(other, ".") })
        .collect();
    let good = |part: &String| {
        !part.is_empty()
            && !part.contains("..")
            && part != "."
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.:@".contains(&b))
    };
    if parts.len() < 2 || !parts.iter().all(good) {
        return Err(SysctlError::Name(named()));
    }
    // More than one line would be more than one setting to some of these files.
    if value.is_empty() || value.contains(['\n', '\r', '\0']) {
        return Err(SysctlError::Value(named()));
    }
    let words: Vec<&str> = parts.iter().map(String::as_str).collect();
    match words[..] {
        ["net", ..] if own.network => {}
        ["net", ..] => return Err(SysctlError::Network(named())),
        ["fs", "mqueue", _] if own.ipc => {}
        ["kernel", of_ipc] if OF_IPC.contains(&of_ipc) && own.ipc => {}
        ["fs", "mqueue", _] => return Err(SysctlError::Ipc(named())),
        ["kernel", of_ipc] if OF_IPC.contains(&of_ipc) => return Err(SysctlError::Ipc(named())),
        ["kernel", "domainname"] if own.uts => {}
        ["kernel", "hostname"] if own.uts => return Err(SysctlError::Hostname(named())),
        _ => return Err(SysctlError::Host(named())),
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: OwnNamespaces = OwnNamespaces { network: false, ipc: false, uts: false };

    #[test]
    fn a_parameter_is_allowed_by_the_namespace_that_holds_it_alone() {
        for (name, path) in [
            ("net.core.somaxconn", "net/core/somaxconn"),
            ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
            ("net.ipv4.conf.eno2/100.rp_filter", "net/ipv4/conf/eno2.100/rp_filter"),
            ("net/ipv4/conf/eno2.100/rp_filter", "net/ipv4/conf/eno2.100/rp_filter"),
            ("kernel.shmmax", "kernel/shmmax"),
            ("kernel.sem", "kernel/sem"),
            ("fs.mqueue.msg_max", "fs/mqueue/msg_max"),
            ("kernel.domainname", "kernel/domainname"),
        ] {
            assert_eq!(sysctl_path(name, "1", OwnNamespaces::ALL).as_deref(), Ok(path), "{name}");
            assert!(sysctl_path(name, "1", NONE).is_err(), "{name}");
        }
        let only_ipc = OwnNamespaces { ipc: true, ..NONE };
        assert_eq!(
            sysctl_path("net.core.somaxconn", "1", only_ipc),
            Err(SysctlError::Network("net.core.somaxconn".into()))
        );
        assert!(sysctl_path("kernel.shmmni", "1", only_ipc).is_ok());
    }

    #[test]
    fn parameters_of_the_host_and_ways_to_them_are_refused() {
        for name in [
            "kernel.core_pattern",
            "kernel/core_pattern",
            "kernel.hostname",
            "kernel.shm_next_id",
            "kernel.msgmax.x",
            "kernel",
            "vm.swappiness",
            "fs.file-max",
            "fs.mqueue",
            "user.max_user_namespaces",
            "net",
            "net.",
            "net..core",
            "net.ipv4/../../kernel/core_pattern",
            "net/../kernel/core_pattern",
            "net/./core/somaxconn",
            "/net/core/somaxconn",
            "../kernel.core_pattern",
            "net/../../sysrq-trigger",
            "net.core\nx",
            "net.core.\0",
            "",
            "Net.core.somaxconn",
        ] {
            assert!(sysctl_path(name, "1", OwnNamespaces::ALL).is_err(), "{name:?}");
        }
        for value in ["", "1\n2", "1\0"] {
            assert!(sysctl_path("net.core.somaxconn", value, OwnNamespaces::ALL).is_err(), "{value:?}");
        }
    }
}
