//! The README's security table, row by row: what is promised, which gate keeps it, and what there is to look at on a
//! host. `the_readme_says_the_same` holds the two together.

use super::{Check, containers, door, files, kernel, swarm};

/// A row of the README's table.
#[derive(Debug, Clone, Copy)]
pub struct Promise {
    /// In the README's words.
    pub text: &'static str,
    pub gate: &'static str,
    pub kept: Kept,
}

/// How it is known whether a host keeps a promise.
#[derive(Debug, Clone, Copy)]
pub enum Kept {
    /// By what there is on the host.
    Checked(&'static [Check]),
    /// By the program alone: there is nothing on a host to look at, and why.
    ByProgram(&'static str),
}

const fn program(text: &'static str, gate: &'static str, why: &'static str) -> Promise {
    Promise { text, gate, kept: Kept::ByProgram(why) }
}

const fn checked(text: &'static str, gate: &'static str, checks: &'static [Check]) -> Promise {
    Promise { text, gate, kept: Kept::Checked(checks) }
}

/// What `rswarm doctor security` looks at.
pub const SECURITY: &[Promise] = &[
    program(
        "every RPC of every service has a rule, and a certificate gives no more than the state says of its node",
        "manager::authorize",
        "a table in the program, without a switch",
    ),
    program(
        "who was removed or demoted is out within a second: sessions, streams, tunnels, connections",
        "Cluster.removed, node::gate, pki::Guests",
        "decided by the swarm's state at each call",
    ),
    program(
        "a worker reads what its tasks need and writes no spec",
        "manager::work, node::peer",
        "decided by the swarm's state at each call",
    ),
    program(
        "Raft takes messages from members only, under their own number, in terms that an election can have reached",
        "store::service",
        "decided by the swarm's state at each message",
    ),
    program(
        "nobody takes a live node's address",
        "manager::leader",
        "decided by the leader when a node says where it is",
    ),
    checked(
        "a role is all that a user has; tokens, certificates and open streams end with it",
        "manager::rights, authorize::resolve_person, docker_api::server::judge",
        &[Check::new("admins", swarm::admins), Check::new("lasting tokens", swarm::lasting_tokens)],
    ),
    program(
        "a user's certificate opens the swarm, not the host",
        "node::door",
        "decided by who signed the certificate",
    ),
    program(
        "who deploys acts in containers of his stacks, in none that an admin let into its host",
        "manager::rights::may_enter, docker_api::server::judge",
        "decided by a manager each time",
    ),
    program(
        "nothing is read of a message that its sender may not send",
        "manager::early, node::strangers",
        "decided by the head of a call",
    ),
    checked(
        "every write is recorded with the person, in the same step",
        "manager::audit",
        &[Check::new("audit", swarm::audit)],
    ),
    checked(
        "with autolock a manager's keys are on disk only sealed",
        "pki::lock, store::Dek, node::lock",
        &[Check::new("autolock", swarm::autolock), Check::new("sealed keys", swarm::sealed_keys)],
    ),
    checked(
        "an expired certificate is good for its own renewal and nothing else",
        "authorize, pki::verify",
        &[
            Check::new("node certificate", swarm::node_certificate),
            Check::new("certificate life", swarm::certificate_life),
        ],
    ),
    checked(
        "a flood on 2377 or the front door costs the flooder",
        "pki::tls, node::port, node::strangers, node::beginnings, docker_api::server::seats",
        &[Check::new("descriptors", kernel::descriptors)],
    ),
    program(
        "what people ask for and do not take holds up neither Raft, sessions and images nor an operator, on any manager \
         that passes it on",
        "node::connect, manager::forward",
        "the swarm's own connections are never used for what people ask",
    ),
    program(
        "one person leaves room at a manager for others",
        "manager::under_way",
        "nobody has more under way than is left to all others",
    ),
    program(
        "who is on internal networks only has no names asked for outside, and nobody's questions take others' \
         descriptors",
        "network::dns, network::asking",
        "the daemon's name servers ask in the place of containers that have a way out",
    ),
    program(
        "each field, parameter and part of a path is taken as it is meant, or refused in words; no number asks for more \
         than a swarm can have",
        "docker_api::types, docker_api::convert, manager::control::validate, engine::ask::gate",
        "decided by what a request says, before anything is made",
    ),
    program(
        "what nodes do not do for a network is refused, so that no clear text passes for encrypted",
        "manager::control::validate, engine::networks::local",
        "decided when a network is made",
    ),
    program(
        "links, bridges, addresses, routes, tables and namespaces of others are never changed",
        "network::rt, network::nft",
        "what is ours is marked, and the mark looked at before each change",
    ),
    checked(
        "VXLAN comes from nodes of this swarm, by the underlay",
        "network::firewall",
        &[Check::new("tunnel filter", kernel::tunnel_filter)],
    ),
    checked(
        "a container sends from its own MAC and addresses only",
        "network::firewall",
        &[
            Check::new("locked ports of bridges", kernel::local_ports),
            Check::new("locked ports of overlays", kernel::overlay_ports),
        ],
    ),
    program(
        "a network has a name to show and addresses that are no host's",
        "model::confine",
        "decided when a network is made",
    ),
    program(
        "a registry that lies gets no memory, no time and no other's password, and leads no request of ours out of TLS or to this host",
        "image::registry, image::store",
        "limits in the program, without a switch",
    ),
    program(
        "what a container puts in place of its folders leads no look at them to the host",
        "engine::files::{archive,below}",
        "paths are followed by the kernel, below the container's folder and through no link",
    ),
    program(
        "what a command writes takes the place of files only, is its owner's alone, and has the names that were asked for",
        "rswarm::commands::{placed,copy}",
        "what is written goes through one place",
    ),
    program(
        "names, labels and errors do not steer the terminal of who reads them",
        "rswarm::output",
        "what is printed on a terminal goes through one place",
    ),
    checked(
        "a port on 127.0.0.1 answers on loopback; a port that somebody has is not led away; ours cannot be published",
        "network::{firewall,ports}, manager::control::validate",
        &[
            Check::new("published ports", kernel::published_ports),
            Check::new("loopback routing", kernel::loopback_routing),
        ],
    ),
    checked(
        "no file of a container, image or volume is in reach of the host's other users",
        "engine::folders",
        &[Check::new("folders", files::folders), Check::new("setuid files", files::setuid_reach)],
    ),
    program(
        "a kernel parameter only of a namespace that the container owns",
        "model::sysctl, runtime::launch",
        "decided when a container is made and again before it starts",
    ),
    checked(
        "with `userns-remap` root of a container is nobody on the host: files it makes, programs it plants, capabilities",
        "shim::users, engine::userns",
        &[Check::new("user namespaces", kernel::user_namespaces)],
    ),
    program(
        "each key of a container's request has a gate; what cannot be honoured is refused",
        "engine::ask::gate, model::confine",
        "decided when a container is made",
    ),
    checked(
        "system calls as in moby's newest profile; a user's profile may deny all but the last steps",
        "runtime::seccomp, shim",
        &[
            Check::new("seccomp of the kernel", kernel::seccomp),
            Check::new("seccomp of containers", containers::seccomp),
        ],
    ),
    program(
        "nothing that is much work keeps others waiting: a ping answers beside it",
        "docker_api::server::request, image::store",
        "work is done on threads of its own",
    ),
    program(
        "the first process of a container shows no path of the host",
        "runtime::launch, shim",
        "the program that starts it writes its own command line",
    ),
    checked(
        "secrets of a creation that was cancelled are gone at once",
        "engine::life::create",
        &[Check::new("secrets in memory", files::secrets_in_memory), Check::new("swap", kernel::swap)],
    ),
    checked(
        "one damaged file costs one object",
        "engine, image, network, node",
        &[Check::new("damaged records", files::damaged)],
    ),
    checked(
        "the front door opens to root and one group, and over TCP by certificate",
        "docker_api::server::listen, node::settings",
        &[
            Check::new("socket", door::socket),
            Check::new("group of the socket", door::group),
            Check::new("tcp addresses", door::tcp),
        ],
    ),
    checked(
        "keys and tokens are in files of root alone, and change in time",
        "pki::credentials, store::Dek, rswarm::commands::logins",
        &[
            Check::new("key files", files::key_files),
            Check::new("logins", files::logins),
            Check::new("join tokens", swarm::join_tokens),
        ],
    ),
    checked(
        "what a container was given of the host is named",
        "engine::ask::gate, node::doctor",
        &[
            Check::new("privileged containers", containers::privileged),
            Check::new("host namespaces", containers::host_namespaces),
            Check::new("daemon's socket in containers", containers::socket_inside),
            Check::new("host folders in containers", containers::host_folders),
            Check::new("capabilities", containers::capabilities),
            Check::new("unconfined containers", containers::unconfined),
            Check::new("root in containers", containers::root),
            Check::new("containers without limits", containers::unlimited),
            Check::new("no-new-privileges", containers::no_new_privileges),
        ],
    ),
    checked(
        "what weakens a host, by its operator's settings or its kernel's, is named",
        "node::doctor",
        &[
            Check::new("settings", files::settings),
            Check::new("odd nodes", swarm::odd_nodes),
            Check::new("cgroups", kernel::cgroups),
            Check::new("AppArmor", kernel::apparmor),
            Check::new("kernel settings", kernel::settings),
            Check::new("forward policy", kernel::forward_policy),
            Check::new("other firewalls", kernel::other_firewalls),
            Check::new("bridge filtering", kernel::bridge_filtering),
        ],
    ),
];
