//! Which settings hold as soon as the file is read anew (SIGHUP), and which from the next start on. *Source:* dockerd(8),
//! "Configuration reload behavior": what it takes over is taken over here, and more.

use super::Settings;

/// What came of reading the settings anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reloaded {
    /// What holds from now on.
    pub settings: Settings,
    /// Keys that have changed and hold.
    pub changed: Vec<String>,
    /// Keys that have changed and do not hold before the daemon is started again.
    pub waiting: Vec<String>,
}

macro_rules! keys {
    (at_once: $($now:ident)*; at_a_start: $($start:ident)*; judged_only: $($judged:ident)*;) => {
        impl Settings {
            /// Puts what was read anew over what holds.
            pub(crate) fn reloaded(&self, read: Self) -> Reloaded {
                // By name, so that no key is forgotten.
                let Self { $($now: _,)* $($start: _,)* $($judged: _,)* } = self;
                let written = |field: &str| field.replace('_', "-");
                let (mut changed, mut waiting) = (Vec::new(), Vec::new());
                $(if self.$now != read.$now {
                    changed.push(written(stringify!($now)));
                })*
                $(if self.$start != read.$start {
                    waiting.push(written(stringify!($start)));
                })*
                Reloaded { settings: Self { $($start: self.$start.clone(),)* ..read }, changed, waiting }
            }
        }
    };
}

keys! {
    at_once:
        insecure_registries registry_mirrors max_concurrent_downloads max_concurrent_uploads max_download_attempts
        log_level debug labels shutdown_timeout swarm_default_advertise_addr
        log_driver log_opts default_ulimits dns_search dns_opts init no_new_privileges seccomp_profile
        default_shm_size default_ipc_mode default_cgroupns_mode host_gateway_ip host_gateway_ips
        default_address_pools default_network_opts node_generic_resources cdi_spec_dirs features builder;
    at_a_start:
        data_root proxies dns hosts group tls tlsverify tlscacert tlscert tlskey bip ipv6 fixed_cidr_v6 mtu icc ip
        fixed_cidr userns_remap min_api_version log_format metrics_addr cgroup_parent;
    // What is told of them is told again.
    judged_only:
        told live_restore storage_driver storage_opts exec_opts runtimes default_runtime experimental raw_logs
        userland_proxy userland_proxy_path iptables ip6tables firewall_backend ip_forward ip_forward_no_drop ip_masq
        allow_direct_routing bridge bip6 default_gateway default_gateway_v6 network_control_plane_mtu containerd
        containerd_namespace containerd_plugins_namespace exec_root pidfile init_path oom_score_adjust cpu_rt_period
        cpu_rt_runtime allow_nondistributable_artifacts api_cors_header cluster_store cluster_store_opts
        cluster_advertise disable_legacy_registry graph selinux_enabled authorization_plugins;
}
