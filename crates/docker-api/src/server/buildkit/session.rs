//! Sessions: connections of clients on which we are the one who asks.

use super::files;
use engine::{AgentIo, SecretBytes, SshAgents};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use proto::buildkit::{
    filesync::{CredentialsRequest, auth_client::AuthClient},
    secrets::{GetSecretRequest, secrets_client::SecretsClient},
    ssh::{BytesMessage, CheckAgentRequest, ssh_client::SshClient},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    sync::{mpsc, oneshot, watch},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{
    Code, Request, Status,
    metadata::AsciiMetadataValue,
    transport::{Channel, Endpoint},
};

/// How long a build waits for the session that it names: the client opens both at once.
const SESSION_LIMIT: Duration = Duration::from_secs(20);
/// How long a client may take to answer a small question.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
const CREDENTIALS: &str = "/moby.filesync.v1.auth/credentials";
const AGENTS: &str = "/moby.sshforward.v1.ssh/forwardagent";
/// *Unit:* bytes.
const AGENT_BUFFER: usize = 16 << 10;
const SECRETS: &str = "/moby.buildkit.secrets.v1.secrets/getsecret";

/// One client's session.
#[derive(Debug, Clone)]
pub(super) struct Session {
    channel: Channel,
    /// What the client answers: paths of gRPC methods in lower case.
    methods: Arc<BTreeSet<String>>,
    /// The ways to the client's SSH agents.
    agents: TaskTracker,
    /// The connection is closed.
    over: CancellationToken,
}

/// The sessions that are open, by id.
#[derive(Debug, Default)]
pub(super) struct Sessions(watch::Sender<BTreeMap<String, Session>>);

impl Sessions {
    /// Keeps a session until its connection ends.
    pub(super) async fn run(&self, id: String, methods: BTreeSet<String>, connection: Upgraded) {
        let (closed, ended) = oneshot::channel();
        let io = Mutex::new(Some(Watched { io: TokioIo::new(connection), _closed: closed }));
        // The one connection there is: it is never made anew.
        let connector = tower::service_fn(move |_| {
            let io = io.lock().ok().and_then(|mut io| io.take());
            async move { io.map(TokioIo::new).ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
        });
        let channel = Endpoint::from_static("http://session").connect_with_connector(connector).await;
        let channel = match channel {
            Ok(channel) => channel,
            Err(error) => {
                tracing::debug!(%error, "a session is not of use");
                return;
            }
        };
        let (agents, over) = (TaskTracker::new(), CancellationToken::new());
        // Also when the front door closes, and this is dropped.
        let _ends = over.clone().drop_guard();
        let session =
            Session { channel, methods: Arc::new(methods), agents: agents.clone(), over: over.clone() };
        self.0.send_modify(|all| drop(all.insert(id.clone(), session)));
        // Its sender goes with the connection.
        drop(ended.await);
        self.0.send_modify(|all| drop(all.remove(&id)));
        over.cancel();
        agents.close();
        agents.wait().await;
    }

    /// Returns a session, which may be on its way.
    pub(super) async fn get(&self, id: &str) -> Result<Session, Status> {
        let mut all = self.0.subscribe();
        let found = timeout(SESSION_LIMIT, all.wait_for(|all| all.contains_key(id))).await;
        let found = found.ok().and_then(Result::ok).and_then(|all| all.get(id).cloned());
        found.ok_or_else(|| Status::unavailable(format!("no active session for {id}")))
    }
}

impl Session {
    /// Returns a secret; `None` if the client has none of that id.
    pub(super) async fn secret(&self, id: &str) -> Result<Option<SecretBytes>, Status> {
        if !self.methods.contains(SECRETS) {
            return Ok(None);
        }
        let mut client = SecretsClient::new(self.channel.clone());
        let asked = client.get_secret(GetSecretRequest { id: id.to_owned() });
        match timeout(ANSWER_LIMIT, asked).await {
            Ok(Ok(answer)) => Ok(Some(SecretBytes(answer.into_inner().data.into()))),
            Ok(Err(status)) if status.code() == Code::NotFound => Ok(None),
            Ok(Err(status)) => Err(status),
            Err(_) => Err(Status::deadline_exceeded(format!("the client does not tell its secret {id}"))),
        }
    }

    /// Returns the client's account at a registry; `None` if it has none.
    pub(super) async fn account(&self, host: &str) -> Result<Option<image::Auth>, Status> {
        if !self.methods.contains(CREDENTIALS) {
            return Ok(None);
        }
        // As clients name Docker Hub in their configuration.
        let host = if host == "docker.io" { "registry-1.docker.io" } else { host };
        let mut client = AuthClient::new(self.channel.clone());
        let asked = client.credentials(CredentialsRequest { host: host.to_owned() });
        let answer = timeout(ANSWER_LIMIT, asked).await.map_err(|_| {
            Status::deadline_exceeded(format!("the client does not tell its account at {host}"))
        })??;
        let account = answer.into_inner();
        Ok(match (account.username, account.secret) {
            (_, secret) if secret.is_empty() => None,
            // As Docker's configuration has an identity token.
            (name, secret) if name.is_empty() => Some(image::Auth::Identity(secret)),
            (username, password) => Some(image::Auth::Basic { username, password }),
        })
    }

    /// Returns what a client's folder holds, as a tar; see [`files::tar`].
    pub(super) fn folder(&self, folder: files::Folder) -> impl AsyncRead + Send + Unpin + use<> {
        files::tar(self.channel.clone(), folder)
    }

    /// Returns what the client reads from its standard input.
    pub(super) fn upload(&self, path: &str, host: &str) -> impl AsyncRead + Send + Unpin + use<> {
        files::upload(self.channel.clone(), path.to_owned(), host.to_owned())
    }
}

#[tonic::async_trait]
impl SshAgents for Session {
    async fn has(&self, id: &str) -> io::Result<bool> {
        if !self.methods.contains(AGENTS) {
            return Ok(false);
        }
        let mut client = SshClient::new(self.channel.clone());
        let asked = client.check_agent(CheckAgentRequest { id: id.to_owned() });
        Ok(timeout(ANSWER_LIMIT, asked).await.is_ok_and(|answer| answer.is_ok()))
    }

    async fn connect(&self, id: &str) -> io::Result<Box<dyn AgentIo>> {
        let (to_agent, outgoing) = mpsc::channel(4);
        let mut request = Request::new(ReceiverStream::new(outgoing));
        let id = AsciiMetadataValue::try_from(id).map_err(io::Error::other)?;
        request.metadata_mut().insert("buildkit.ssh.id", id);
        let mut client = SshClient::new(self.channel.clone());
        let (ours, theirs) = tokio::io::duplex(AGENT_BUFFER);
        let (mut from, mut to) = tokio::io::split(ours);
        let asks = async move {
            let mut buffer = vec![0; AGENT_BUFFER];
            while let Ok(count @ 1..) = from.read(&mut buffer).await {
                let message = BytesMessage { data: buffer[..count].to_vec() };
                if to_agent.send(message).await.is_err() {
                    break;
                }
            }
        };
        let answered = async move {
            let relayed = async {
                // The client's answer begins with what the agent says first: not before it was asked.
                let mut answers = client.forward_agent(request).await?.into_inner();
                while let Some(message) = answers.message().await? {
                    if to.write_all(&message.data).await.is_err() {
                        break;
                    }
                }
                Ok::<_, Status>(())
            };
            let relayed = relayed.await;
            drop(to.shutdown().await);
            relayed
        };
        // Ends when the program closes its connection or the client does.
        self.agents.spawn(self.over.clone().run_until_cancelled_owned(async move {
            let (answered, ()) = tokio::join!(answered, asks);
            if let Err(status) = answered {
                tracing::debug!(error = status.message(), "the way to a client's SSH agent broke");
            }
        }));
        Ok(Box::new(theirs))
    }
}

/// A connection that tells when it is closed.
struct Watched {
    io: TokioIo<Upgraded>,
    _closed: oneshot::Sender<()>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, to)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
