//! A daemon for this crate's tests to kill: it makes, starts, uses and removes containers on and on, and ends only by
//! SIGKILL. `engine-daemon FOLDER HOST-NETNS CGROUP SHIM IMAGE NUMBER-OF-CLIENTS`.

use engine::{ContainerConfig, Engine, Error, ExecConfig, ExecStart, NetworkMode, Options, RemoveOptions};
use std::{error::Error as Cause, path::PathBuf};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Cause>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, netns, cgroup, shim, image, clients] = &arguments[..] else {
        return Err("usage: engine-daemon FOLDER HOST-NETNS CGROUP SHIM IMAGE NUMBER-OF-CLIENTS".into());
    };
    let (folder, clients): (PathBuf, u32) = (folder.into(), clients.parse()?);
    let squash = runtime::single_uid();
    let (data_root, run_root) = (folder.join("data"), folder.join("run"));
    let network = network::Options {
        rootless: squash,
        host_netns: Some(netns.into()),
        resolvers: Some(vec![]),
        ..network::Options::new(run_root.join("network"), data_root.join("network"))
    };
    let engine = Engine::open(Options {
        images: image::Store::open(&data_root.join("images"), squash).await?,
        network: network::Network::start(network).await?,
        shim: runtime::ShimProgram::sealed(shim.as_ref(), vec![])?,
        data_root,
        run_root,
        userns_squash: squash,
        userns_remap: None,
        hostname: "host".into(),
        cgroup_parent: cgroup.clone(),
        defaults: engine::Defaults::default(),
    })
    .await?;
    let mut working = tokio::task::JoinSet::new();
    for client in 0..clients {
        working.spawn(work(engine.clone(), image.clone(), client));
    }
    while let Some(ended) = working.join_next().await {
        ended??;
    }
    Ok(())
}

/// One client, with one container after the other.
async fn work(engine: Engine, image: String, client: u32) -> Result<(), Error> {
    let guest = |steps: &[&str]| Some(steps.iter().map(|&step| step.to_owned()).collect());
    for round in 0u32.. {
        let mut config = ContainerConfig {
            image: image.clone(),
            cmd: guest(if round % 2 == 0 { &["park"] } else { &["say:short"] }),
            volumes: ["/seed".to_owned()].into(),
            ..ContainerConfig::default()
        };
        config.host.network_mode =
            if client.is_multiple_of(2) { NetworkMode::Bridge } else { NetworkMode::None };
        let id = engine.create(config).await?.id;
        engine.start(&id).await?;
        let cmd = guest(&["guest", "write:/work/a=x"]).unwrap_or_default();
        let exec = match engine.exec_create(&id, ExecConfig { cmd, ..ExecConfig::default() }).await {
            Ok(exec) => engine.exec_start(&exec, ExecStart::default()).await,
            Err(e) => Err(e),
        };
        drop(exec); // a short one may have ended before it
        engine.remove(&id, RemoveOptions { force: true, volumes: true }).await?;
    }
    Ok(())
}
