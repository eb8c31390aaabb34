//! `RUN --mount=type=ssh`: a socket in the container that leads to an SSH agent of the build's client. Keys never come
//! here.

use crate::error::{Error, Result};
use async_trait::async_trait;
use std::{
    fmt, io,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    sync::Arc,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixListener,
    sync::Semaphore,
    task::JoinSet,
};

/// *Limit* of connections that a command has with an agent at once.
const CONNECTIONS_MAX: usize = 16;

/// A way to an agent.
pub trait AgentIo: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> AgentIo for T {}

/// The SSH agents that the client of a build lends it. *Source:* buildkit `session/sshforward`.
#[async_trait]
pub trait SshAgents: Send + Sync + fmt::Debug {
    /// Returns true if the client lends an agent of this id.
    async fn has(&self, id: &str) -> io::Result<bool>;

    /// Opens a way to it.
    async fn connect(&self, id: &str) -> io::Result<Box<dyn AgentIo>>;
}

/// Listens at a path and joins whoever connects with an agent; ends with `lent`.
///
/// # Errors
/// The socket cannot be made.
pub(super) fn lend(
    lent: &mut JoinSet<()>,
    agents: Arc<dyn SshAgents>,
    id: String,
    path: &Path,
    (uid, gid): (u32, u32),
    mode: u32,
    squash: bool,
) -> Result<()> {
    let listener = UnixListener::bind(path).map_err(Error::io("listen on", path))?;
    let permissions = std::fs::Permissions::from_mode(mode & 0o777);
    std::fs::set_permissions(path, permissions).map_err(Error::io("chmod", path))?;
    if !squash {
        chown(path, Some(uid), Some(gid)).map_err(Error::io("chown", path))?;
    }
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    lent.spawn(async move {
        let mut joined = JoinSet::new();
        while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
            let Ok((mut program, _)) = listener.accept().await else { return };
            while joined.try_join_next().is_some() {}
            let (agents, id) = (Arc::clone(&agents), id.clone());
            joined.spawn(async move {
                let _slot = slot;
                let ended = match agents.connect(&id).await {
                    Ok(mut agent) => tokio::io::copy_bidirectional(&mut program, &mut agent).await.map(drop),
                    Err(error) => Err(error),
                };
                if let Err(error) = ended {
                    tracing::debug!(id, %error, "a command's way to an SSH agent broke");
                }
            });
        }
    });
    Ok(())
}
