//! Capabilities by number and name, and those that Docker gives every container.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::borrow::Cow;

macro_rules! capabilities {
    ($($name:ident $text:literal)*) => {
        /// One of them. In the kernel's order. *Source:* linux/capability.h.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Capability {
            $($name,)*
        }

        impl Capability {
            /// Every one that there is.
            pub const ALL: [Self; shim::CAPABILITIES as usize] = [$(Self::$name,)*];

            /// Returns its name, as `CAP_CHOWN`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

capabilities! {
    Chown "CAP_CHOWN"
    DacOverride "CAP_DAC_OVERRIDE"
    DacReadSearch "CAP_DAC_READ_SEARCH"
    Fowner "CAP_FOWNER"
    Fsetid "CAP_FSETID"
    Kill "CAP_KILL"
    Setgid "CAP_SETGID"
    Setuid "CAP_SETUID"
    Setpcap "CAP_SETPCAP"
    LinuxImmutable "CAP_LINUX_IMMUTABLE"
    NetBindService "CAP_NET_BIND_SERVICE"
    NetBroadcast "CAP_NET_BROADCAST"
    NetAdmin "CAP_NET_ADMIN"
    NetRaw "CAP_NET_RAW"
    IpcLock "CAP_IPC_LOCK"
    IpcOwner "CAP_IPC_OWNER"
    SysModule "CAP_SYS_MODULE"
    SysRawio "CAP_SYS_RAWIO"
    SysChroot "CAP_SYS_CHROOT"
    SysPtrace "CAP_SYS_PTRACE"
    SysPacct "CAP_SYS_PACCT"
    SysAdmin "CAP_SYS_ADMIN"
    SysBoot "CAP_SYS_BOOT"
    SysNice "CAP_SYS_NICE"
    SysResource "CAP_SYS_RESOURCE"
    SysTime "CAP_SYS_TIME"
    SysTtyConfig "CAP_SYS_TTY_CONFIG"
    Mknod "CAP_MKNOD"
    Lease "CAP_LEASE"
    AuditWrite "CAP_AUDIT_WRITE"
    AuditControl "CAP_AUDIT_CONTROL"
    Setfcap "CAP_SETFCAP"
    MacOverride "CAP_MAC_OVERRIDE"
    MacAdmin "CAP_MAC_ADMIN"
    Syslog "CAP_SYSLOG"
    WakeAlarm "CAP_WAKE_ALARM"
    BlockSuspend "CAP_BLOCK_SUSPEND"
    AuditRead "CAP_AUDIT_READ"
    Perfmon "CAP_PERFMON"
    Bpf "CAP_BPF"
    CheckpointRestore "CAP_CHECKPOINT_RESTORE"
}

impl Capability {
    /// Returns the one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|capability| capability.name() == name)
    }

    const fn bit(self) -> u64 {
        1 << self as u32
    }
}

/// A set of them; in JSON a list of names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities(u64);

impl Capabilities {
    /// Returns true if this one is in the set.
    #[must_use]
    pub const fn contains(self, capability: Capability) -> bool {
        self.0 & capability.bit() != 0
    }

    /// Returns them in the kernel's order.
    pub fn iter(self) -> impl Iterator<Item = Capability> {
        Capability::ALL.into_iter().filter(move |capability| self.contains(*capability))
    }

    /// Returns how many there are.
    #[must_use]
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Returns true if there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the set as a mask: bit n = capability n.
    pub(crate) const fn mask(self) -> u64 {
        self.0
    }
}

impl FromIterator<Capability> for Capabilities {
    fn from_iter<I: IntoIterator<Item = Capability>>(all: I) -> Self {
        Self(all.into_iter().fold(0, |mask, capability| mask | capability.bit()))
    }
}

impl Serialize for Capabilities {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.iter().map(Capability::name))
    }
}

impl<'de> Deserialize<'de> for Capabilities {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let names = Vec::<Cow<'de, str>>::deserialize(from)?;
        let known = |name: &Cow<'_, str>| {
            Capability::named(name).ok_or_else(|| format!("no such capability: {name:?}"))
        };
        names.iter().map(known).collect::<Result<_, _>>().map_err(de::Error::custom)
    }
}

/// Returns Docker's 14. Source: moby `daemon/pkg/oci/caps/defaults.go`.
#[must_use]
pub fn default_caps() -> Capabilities {
    [
        Capability::Chown,
        Capability::DacOverride,
        Capability::Fsetid,
        Capability::Fowner,
        Capability::Mknod,
        Capability::NetRaw,
        Capability::Setgid,
        Capability::Setuid,
        Capability::Setfcap,
        Capability::Setpcap,
        Capability::NetBindService,
        Capability::SysChroot,
        Capability::Kill,
        Capability::AuditWrite,
    ]
    .into_iter()
    .collect()
}

/// Returns every capability: what `--privileged` gives.
#[must_use]
pub fn all_caps() -> Capabilities {
    Capability::ALL.into_iter().collect()
}

/// Returns those that this process can pass on: in the sandboxes of some hosts even root lacks a few. Source:
/// proc_pid_status(5), `CapBnd`.
#[must_use]
pub fn held_caps() -> Capabilities {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let bounding =
        status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapBnd:")?.trim(), 16).ok());
    // Without /proc the kernel will say what is missing.
    Capabilities(all_caps().0 & bounding.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_default_is_the_well_known_mask() {
        assert_eq!(default_caps().mask(), 0x0000_0000_a804_25fb);
        assert_eq!(all_caps().mask(), 0x0000_01ff_ffff_ffff);
    }

    #[test]
    fn sets_are_lists_of_names() {
        let text = serde_json::to_string(&default_caps()).unwrap();
        assert!(text.starts_with(r#"["CAP_CHOWN","CAP_DAC_OVERRIDE","#), "{text}");
        assert_eq!(serde_json::from_str::<Capabilities>(&text).unwrap(), default_caps());
        let unknown = serde_json::from_str::<Capabilities>(r#"["CAP_FLY"]"#).unwrap_err();
        assert!(unknown.to_string().contains("CAP_FLY"), "{unknown}");
    }
}
