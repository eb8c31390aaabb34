//! Does a node satisfy placement constraints and platforms? Source: swarmkit `manager/constraint`,
//! `manager/scheduler/filter.go`.

use ipnet::IpNet;
use model::{Constraint, Node, PlacementSpec, Platform, Role};
use std::net::IpAddr;

/// Returns true if the node satisfies the constraint. Values compare without regard to case; a label the
/// node does not have compares as the empty string.
pub fn matches(constraint: &Constraint, node: &Node) -> bool {
    let description = node.description.as_ref();
    let platform = description.map(|d| &d.platform);
    let key = constraint.key.as_str();
    let found = match key.to_ascii_lowercase().as_str() {
        "node.id" => node.id.to_string().eq_ignore_ascii_case(&constraint.value),
        "node.hostname" => same(constraint, description.map(|d| d.hostname.as_str())),
        "node.role" => same(constraint, Some(role_name(node.certified_role))),
        "node.ip" => has_address(constraint, node),
        "node.platform.os" => platform.is_some_and(|p| normal_os(&p.os) == normal_os(&constraint.value)),
        "node.platform.arch" => {
            platform.is_some_and(|p| normal_arch(&p.architecture) == normal_arch(&constraint.value))
        }
        _ => {
            let engine = description.map(|d| &d.engine_labels);
            let value = match (key.strip_prefix("node.labels."), key.strip_prefix("engine.labels.")) {
                (Some(label), _) => node.spec.labels.get(label),
                (_, Some(label)) => engine.and_then(|l| l.get(label)),
                (None, None) => return false, // not a key we know: nothing satisfies it
            };
            same(constraint, value.map(String::as_str))
        }
    };
    found == constraint.equal
}

/// Returns true if the node satisfies all constraints of a placement.
pub(crate) fn allows(placement: &PlacementSpec, node: &Node) -> bool {
    placement.constraints.iter().all(|c| matches(c, node))
}

/// Returns true if the node can run one of the image's platforms.
pub(crate) fn runs_platform(placement: &PlacementSpec, node: &Node) -> bool {
    let Some(have) = node.description.as_ref().map(|d| &d.platform) else {
        return placement.platforms.is_empty();
    };
    let fits = |want: &Platform| {
        (want.os.is_empty() || normal_os(&want.os) == normal_os(&have.os))
            && (want.architecture.is_empty()
                || normal_arch(&want.architecture) == normal_arch(&have.architecture))
    };
    placement.platforms.is_empty() || placement.platforms.iter().any(fits)
}

/// Returns the value of a spread key on this node; empty when it has none.
pub(crate) fn spread_value(key: &str, node: &Node) -> String {
    let engine = node.description.as_ref().map(|d| &d.engine_labels);
    match (key.strip_prefix("node.labels."), key.strip_prefix("engine.labels.")) {
        (Some(label), _) => node.spec.labels.get(label),
        (_, Some(label)) => engine.and_then(|l| l.get(label)),
        (None, None) => None,
    }
    .cloned()
    .unwrap_or_default()
}

fn same(constraint: &Constraint, have: Option<&str>) -> bool {
    have.unwrap_or_default().eq_ignore_ascii_case(&constraint.value)
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Worker => "worker",
        Role::Manager => "manager",
    }
}

/// The value is an address or a CIDR block.
fn has_address(constraint: &Constraint, node: &Node) -> bool {
    let address = node.status.addr.or_else(|| node.description.as_ref().map(|d| d.data_addr));
    let Some(address) = address else { return false };
    match (constraint.value.parse::<IpAddr>(), constraint.value.parse::<IpNet>()) {
        (Ok(wanted), _) => wanted == address,
        (_, Ok(block)) => block.contains(&address),
        (Err(_), Err(_)) => false,
    }
}

fn normal_os(os: &str) -> String {
    os.to_ascii_lowercase()
}

fn normal_arch(arch: &str) -> String {
    match arch.to_ascii_lowercase().as_str() {
        "x86_64" => "amd64".to_owned(),
        "aarch64" => "arm64".to_owned(),
        "i386" | "i686" => "386".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{
        Labels, Meta, NodeDescription, NodeId, NodeSpec, NodeState, NodeStatus, Resources, Timestamp,
    };

    fn node() -> Node {
        let address: IpAddr = "192.168.1.7".parse().unwrap();
        Node {
            id: NodeId(7),
            meta: Meta::default(),
            spec: NodeSpec { labels: Labels::from([("rack".into(), "R1".into())]), ..NodeSpec::default() },
            index: 1,
            certified_role: Role::Manager,
            description: Some(NodeDescription {
                tls: model::NodeTls::default(),
                hostname: "alpha".into(),
                platform: Platform { os: "linux".into(), architecture: "x86_64".into() },
                resources: Resources::default(),
                generic: model::GenericResources::new(),
                engine_version: String::new(),
                engine_labels: Labels::from([("disk".into(), "ssd".into())]),
                addr: (address, 2377).into(),
                data_addr: address,
                feature_level: model::FEATURE_LEVEL,
                networks: vec![],
                unfit: vec![],
            }),
            status: NodeStatus {
                state: NodeState::Ready,
                message: String::new(),
                since: Timestamp(0),
                addr: None,
            },
            manager: None,
        }
    }

    fn check(constraint: &str, expected: bool) {
        assert_eq!(matches(&constraint.parse().unwrap(), &node()), expected, "{constraint}");
    }

    #[test]
    fn constraints_compare_every_kind_of_key() {
        check("node.hostname==alpha", true);
        check("node.hostname==ALPHA", true);
        check("node.hostname!=alpha", false);
        check("node.role==manager", true);
        check("node.role==worker", false);
        check("node.labels.rack==r1", true);
        check("node.labels.rack!=r2", true);
        check("node.labels.zone==eu", false);
        check("node.labels.zone!=eu", true);
        check("engine.labels.disk==ssd", true);
        check("node.ip==192.168.1.7", true);
        check("node.ip==192.168.0.0/16", true);
        check("node.ip!=10.0.0.0/8", true);
        check("node.platform.arch==amd64", true);
        check("node.platform.os==linux", true);
        check(&format!("node.id=={}", NodeId(7)), true);
    }

    #[test]
    fn an_image_without_platforms_runs_anywhere() {
        let mut placement = PlacementSpec::default();
        assert!(runs_platform(&placement, &node()));
        placement.platforms = vec![Platform { os: "linux".into(), architecture: "arm64".into() }];
        assert!(!runs_platform(&placement, &node()));
        placement.platforms.push(Platform { os: "linux".into(), architecture: "amd64".into() });
        assert!(runs_platform(&placement, &node()));
    }
}
