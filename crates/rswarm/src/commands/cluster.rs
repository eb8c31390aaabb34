//! `rswarm swarm ...` and `rswarm node ...`.

use super::{each, inspect, pairs, shown::capitalised};
use crate::{
    cli::{
        JoinToken, ListArgs, Node, NodeUpdate, Swarm, SwarmCa, SwarmInit, SwarmJoin, SwarmUpdate, UnlockKey,
    },
    list::{self, List},
    output,
};
use anyhow::{Context, Result};
use docker_api::{client::Client, types};

pub(crate) async fn swarm(client: &Client, command: Swarm) -> Result<()> {
    match command {
        Swarm::Init(args) => init(client, args).await,
        Swarm::Join(args) => join(client, args).await,
        Swarm::JoinToken(args) => join_token(client, &args).await,
        Swarm::Leave { force } => {
            client.swarm_leave(force).await?;
            output::line("Node left the swarm.")
        }
        Swarm::Unlock => {
            let mut key = String::new();
            std::io::stdin().read_line(&mut key).context("cannot read the key from standard input")?;
            Ok(client.swarm_unlock(key.trim()).await?)
        }
        Swarm::Ca(args) if args.rotate => rotate_ca(client, &args).await,
        Swarm::Ca(_) => show_ca(client).await,
        Swarm::UnlockKey(args) => unlock_key(client, &args).await,
        Swarm::Update(args) => update_swarm(client, &args).await,
        Swarm::Backup(args) => super::survival::backup(client, &args).await,
        Swarm::Restore(args) => super::survival::restore(client, &args).await,
        Swarm::Readdress(args) => super::survival::readdress(client, &args).await,
        Swarm::Recover(args) => super::survival::recover(client, &args).await,
    }
}

fn nanos(duration: std::time::Duration) -> Result<i64> {
    i64::try_from(duration.as_nanos()).with_context(|| format!("{duration:?} is out of range"))
}

async fn update_swarm(client: &Client, args: &SwarmUpdate) -> Result<()> {
    let swarm = client.swarm().await?;
    let mut spec = swarm.spec;
    let locked_before = spec.encryption_config.auto_lock_managers;
    if let Some(autolock) = args.autolock {
        spec.encryption_config.auto_lock_managers = autolock;
    }
    if args.task_history_limit.is_some() {
        spec.orchestration.task_history_retention_limit = args.task_history_limit;
    }
    if let Some(expiry) = args.cert_expiry {
        spec.ca_config.node_cert_expiry = nanos(expiry)?;
    }
    if let Some(period) = args.dispatcher_heartbeat {
        spec.dispatcher.heartbeat_period = nanos(period)?;
    }
    if let Some(grace) = args.daemon_grace {
        spec.dispatcher.daemon_grace = Some(nanos(grace)?);
    }
    if let Some(after) = args.dead_manager_after {
        spec.raft.dead_manager_after = Some(nanos(after)?);
    }
    if let Some(interval) = args.snapshot_interval {
        spec.raft.snapshot_interval = interval;
    }
    if args.max_snapshots.is_some() {
        spec.raft.keep_old_snapshots = args.max_snapshots;
    }
    client.swarm_update(swarm.version.index, &spec, &[]).await?;
    output::line("Swarm updated.")?;
    if spec.encryption_config.auto_lock_managers && !locked_before {
        show_unlock_key(client).await?;
    }
    Ok(())
}

async fn show_ca(client: &Client) -> Result<()> {
    output::line(client.swarm().await?.tls_info.trust_root.trim_end())
}

async fn rotate_ca(client: &Client, args: &SwarmCa) -> Result<()> {
    let swarm = client.swarm().await?;
    let mut spec = swarm.spec;
    // Any other number than the one that stands there, and not 0.
    spec.ca_config.force_rotate = spec.ca_config.force_rotate.checked_add(1).unwrap_or(1);
    let read = |path: &std::path::Path| {
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    };
    if let (Some(cert), Some(key)) = (&args.ca_cert, &args.ca_key) {
        spec.ca_config.signing_ca_cert = read(cert)?;
        spec.ca_config.signing_ca_key = read(key)?;
    }
    if let Some(expiry) = args.cert_expiry {
        spec.ca_config.node_cert_expiry = nanos(expiry)?;
    }
    client.swarm_update(swarm.version.index, &spec, &[]).await?;
    if args.detach {
        return Ok(());
    }
    let mut shown = String::new();
    loop {
        let swarm = client.swarm().await?;
        let nodes = client.nodes(&[]).await?;
        let count = |has: &dyn Fn(&types::TlsInfo) -> bool| {
            nodes.iter().filter(|node| has(&node.description.tls_info)).count()
        };
        let desired = &swarm.tls_info;
        let certificates = count(&|tls| {
            !tls.cert_issuer_public_key.is_empty()
                && tls.cert_issuer_public_key == desired.cert_issuer_public_key
        });
        let roots = count(&|tls| tls.trust_root == desired.trust_root);
        let text = format!(
            "rotated TLS certificates: {certificates}/{all} nodes\nrotated CA certificates: {roots}/{all} nodes",
            all = nodes.len()
        );
        if !args.quiet && text != shown {
            output::line(&text)?;
        }
        shown = text;
        if !swarm.root_rotation_in_progress && certificates == nodes.len() && roots == nodes.len() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    show_ca(client).await
}

async fn unlock_key(client: &Client, args: &UnlockKey) -> Result<()> {
    if args.rotate {
        let swarm = client.swarm().await?;
        anyhow::ensure!(
            swarm.spec.encryption_config.auto_lock_managers,
            "cannot rotate because autolock is not turned on"
        );
        client.swarm_update(swarm.version.index, &swarm.spec, &[("rotateManagerUnlockKey", "true")]).await?;
        if !args.quiet {
            output::line("Successfully rotated manager unlock key.\n")?;
        }
    }
    let key = client.swarm_unlock_key().await?.unlock_key;
    anyhow::ensure!(!key.is_empty(), "no unlock key is set");
    if args.quiet {
        return output::line(&key);
    }
    show_unlock_key(client).await
}

async fn show_unlock_key(client: &Client) -> Result<()> {
    let key = client.swarm_unlock_key().await?.unlock_key;
    output::line(&format!(
        "To unlock a swarm manager after it restarts, run the `rswarm swarm unlock`\ncommand and provide the \
         following key:\n\n    {key}\n\nRemember to store this key in a password manager, since without it you\n\
         will not be able to restart the manager."
    ))
}

async fn init(client: &Client, args: SwarmInit) -> Result<()> {
    let mut spec = types::SwarmSpec::default();
    spec.encryption_config.auto_lock_managers = args.autolock;
    spec.ca_config.node_cert_expiry = args.cert_expiry.map_or(Ok(0), nanos)?;
    spec.dispatcher.heartbeat_period = args.dispatcher_heartbeat.map_or(Ok(0), nanos)?;
    spec.dispatcher.daemon_grace = args.daemon_grace.map(nanos).transpose()?;
    spec.raft.snapshot_interval = args.snapshot_interval.unwrap_or(0);
    spec.raft.keep_old_snapshots = args.max_snapshots;
    spec.orchestration.task_history_retention_limit = args.task_history_limit;
    let request = types::SwarmInit {
        spec,
        auto_lock_managers: args.autolock,
        listen_addr: args.listen_addr,
        advertise_addr: args.advertise_addr.unwrap_or_default(),
        data_path_addr: args.data_path_addr.unwrap_or_default(),
        data_path_port: args.data_path_port.map_or(0, u32::from),
        force_new_cluster: args.force_new_cluster,
        availability: args.availability,
        default_addr_pool: args.default_addr_pool,
        subnet_size: u32::from(args.default_addr_pool_mask_length),
    };
    let node = client.swarm_init(&request).await?;
    output::line(&format!("Swarm initialized: current node ({node}) is now a manager.\n"))?;
    output::line("To add a worker to this swarm, run the following command:\n")?;
    output::line(&join_command(client, "worker").await?)?;
    output::line(
        "To add a manager to this swarm, run 'rswarm swarm join-token manager' and follow the instructions.",
    )?;
    if args.autolock { show_unlock_key(client).await } else { Ok(()) }
}

async fn join_command(client: &Client, role: &str) -> Result<String> {
    let token = token(client, role).await?;
    let info = client.info().await?;
    let addr = info.swarm.remote_managers.first().map(|m| m.addr.clone()).unwrap_or(info.swarm.node_addr);
    Ok(format!("    rswarm swarm join --token {token} {addr}\n"))
}

async fn token(client: &Client, role: &str) -> Result<String> {
    let tokens =
        client.swarm().await?.join_tokens.context("the manager shows no join tokens to this node")?;
    Ok(if role == "manager" { tokens.manager } else { tokens.worker })
}

async fn join(client: &Client, args: SwarmJoin) -> Result<()> {
    let request = types::SwarmJoin {
        listen_addr: args.listen_addr,
        advertise_addr: args.advertise_addr.unwrap_or_default(),
        data_path_addr: args.data_path_addr.unwrap_or_default(),
        remote_addrs: args.remote,
        join_token: args.token,
        availability: args.availability,
    };
    client.swarm_join(&request).await?;
    let role = if client.info().await?.swarm.control_available { "manager" } else { "worker" };
    output::line(&format!("This node joined a swarm as a {role}."))
}

async fn join_token(client: &Client, args: &JoinToken) -> Result<()> {
    if args.rotate {
        let swarm = client.swarm().await?;
        let which = if args.role == "manager" { "rotateManagerToken" } else { "rotateWorkerToken" };
        client.swarm_update(swarm.version.index, &swarm.spec, &[(which, "true")]).await?;
        if !args.quiet {
            output::line(&format!("Successfully rotated {} join token.\n", args.role))?;
        }
    }
    if args.quiet {
        return output::line(&token(client, &args.role).await?);
    }
    output::line(&format!("To add a {} to this swarm, run the following command:\n", args.role))?;
    output::line(&join_command(client, &args.role).await?)
}

pub(crate) async fn node(client: &Client, command: Node) -> Result<()> {
    match command {
        Node::Ls(args) => ls(client, &args).await,
        Node::Inspect(mut args) => {
            for name in &mut args.names {
                *name = id_of(client, name).await?;
            }
            inspect(client, "nodes", &args).await
        }
        Node::Ps { node, list: args, shown } => {
            let id = id_of(client, &node).await?;
            let ids = [(id, true.into())].into_iter().collect();
            let filters = list::with_filter(&list::filters(&args.filter)?, "node", ids)?;
            super::service::print_tasks(client, &filters, &args, shown).await
        }
        Node::Update(args) => {
            let name = args.node.clone();
            update(client, &name, |spec| change(spec, &args)).await?;
            output::line(&name)
        }
        Node::Promote(names) => set_role(client, &names.names, "manager", "promoted to a manager").await,
        Node::Demote(names) => set_role(client, &names.names, "worker", "demoted in the swarm").await,
        Node::Rm { nodes, force } => {
            each(&nodes, async |name| Ok(client.node_remove(&id_of(client, name).await?, force).await?)).await
        }
    }
}

fn change(spec: &mut types::NodeSpec, args: &NodeUpdate) {
    if let Some(availability) = &args.availability {
        spec.availability.clone_from(availability);
    }
    if let Some(role) = &args.role {
        spec.role.clone_from(role);
    }
    spec.labels.extend(pairs(&args.label_add));
    for key in &args.label_rm {
        spec.labels.remove(key);
    }
}

async fn set_role(client: &Client, names: &[String], role: &str, done: &str) -> Result<()> {
    for name in names {
        update(client, name, |spec| spec.role = role.to_owned()).await?;
        output::line(&format!("Node {name} {done}."))?;
    }
    Ok(())
}

/// *Limit* of tries to change a node that managers write to at the same time: what they observe of it comes in bursts.
const UPDATE_TRIES: usize = 10;

/// Changes what is wanted of a node. Whoever asks names what is to change, not the version that he saw: if the node has
/// another one meanwhile, that is changed.
async fn update(client: &Client, name: &str, change: impl Fn(&mut types::NodeSpec)) -> Result<()> {
    let id = id_of(client, name).await?;
    let mut tries = 1;
    loop {
        let node = client.node(&id).await?;
        let mut spec = node.spec;
        change(&mut spec);
        match client.node_update(&node.id, node.version.index, &spec).await {
            Err(error) if error.is_out_of_sequence() && tries < UPDATE_TRIES => tries += 1,
            outcome => return Ok(outcome?),
        }
    }
}

/// Returns the id of a node named by id, prefix, host name or `self`.
async fn id_of(client: &Client, name: &str) -> Result<String> {
    if name == "self" {
        return Ok(client.info().await?.swarm.node_id);
    }
    let nodes = client.nodes(&[]).await?;
    let named: Vec<_> =
        nodes.iter().filter(|n| n.description.hostname == name || n.spec.name == name).collect();
    match named.as_slice() {
        [one] => Ok(one.id.clone()),
        [] => Ok(name.to_owned()),
        many => anyhow::bail!("node {name} is ambiguous ({} matches found)", many.len()),
    }
}

/// Says whether a node has a certificate of the swarm's present root. *Source:* docker/cli `cli/command/node/formatter.go`.
fn tls_status(swarm: &types::TlsInfo, node: &types::TlsInfo) -> &'static str {
    let nothing = types::TlsInfo::default();
    if [swarm, node].contains(&&nothing) {
        return "Unknown";
    }
    if swarm == node { "Ready" } else { "Needs Rotation" }
}

async fn ls(client: &Client, args: &ListArgs) -> Result<()> {
    let filters = list::filters(&args.filter)?;
    let nodes = client.nodes(&[("filters", &filters)]).await?;
    let swarm = client.info().await?.swarm;
    let (this, tls) = (swarm.node_id, swarm.cluster.unwrap_or_default().tls_info);
    let mut table = List::new(&[
        ("ID", "ID"),
        ("HOSTNAME", "Hostname"),
        ("STATUS", "Status"),
        ("AVAILABILITY", "Availability"),
        ("MANAGER STATUS", "ManagerStatus"),
        ("ENGINE VERSION", "EngineVersion"),
    ]);
    for node in nodes {
        let own = node.id == this;
        let shown = if own { format!("{} *", node.id) } else { node.id.clone() };
        let manager = match &node.manager_status {
            Some(status) if status.leader => "Leader".to_owned(),
            Some(status) => capitalised(&status.reachability),
            None => String::new(),
        };
        let of_tls = tls_status(&tls, &node.description.tls_info);
        let values = vec![
            shown,
            node.description.hostname,
            status_of(&node.status),
            capitalised(&node.spec.availability),
            manager,
            node.description.engine.engine_version,
        ];
        table.row_with(values, serde_json::json!({"ID": node.id, "Self": own, "TLSStatus": of_tls}));
    }
    table.sort_by("Hostname");
    table.print(args)
}

/// Returns `Ready`, or `Ready (daemon restarting)` of a node that is ready in a way.
fn status_of(status: &types::NodeStatus) -> String {
    let state = capitalised(&status.state);
    if status.state == "ready" && !status.message.is_empty() {
        format!("{state} ({})", status.message)
    } else {
        state
    }
}
