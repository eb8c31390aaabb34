//! What can go wrong, in Docker's words, and which HTTP answer each case is.

use crate::build::failure::BuildError;
use std::path::PathBuf;

/// What lies below a failure: an error of the runtime, image or network room.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// The class of an [`Error`]; fixes the HTTP status of the REST answer. Source: Docker API "Errors".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// 404
    NotFound,
    /// 409
    Conflict,
    /// 400
    InvalidParameter,
    /// 304: already in the state asked for.
    NotModified,
    /// 403
    Forbidden,
    /// 500
    Internal,
}

/// An operation of the engine that failed. The text is Docker's, word for word, where Docker has one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("No such container: {0}")]
    NoSuchContainer(String),
    #[error("No such image: {0}")]
    NoSuchImage(String),
    #[error("No such exec instance: {0}")]
    NoSuchExec(String),
    #[error("get {0}: no such volume")]
    NoSuchVolume(String),
    #[error("network {0} not found")]
    NoSuchNetwork(String),
    #[error("error looking up {kind} plugin {name}: plugin \"{name}\" not found")]
    NoSuchDriver { kind: &'static str, name: String },
    #[error("Could not find the file {path} in container {container}")]
    NoSuchPath { container: String, path: String },
    #[error("multiple IDs found with provided prefix: {0}")]
    AmbiguousPrefix(String),
    #[error(
        "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". You have to remove (or rename) that container to be able to reuse that name."
    )]
    NameInUse { name: String, holder: String },
    #[error("container {0} is not running")]
    NotRunning(String),
    #[error("cannot kill container: {0}: container {0} is not running")]
    KillNotRunning(String),
    #[error("container {0} is paused, unpause the container before exec")]
    ExecPaused(String),
    #[error("Container {0} is paused. Unpause the container before stopping or killing")]
    Paused(String),
    #[error("Container {0} is already paused")]
    AlreadyPaused(String),
    #[error("Container {0} is not paused")]
    NotPaused(String),
    #[error("cannot start a paused container, try unpause instead")]
    StartPaused,
    #[error("container is marked for removal and cannot be started")]
    StartRemoving,
    #[error("container {0} is already started")]
    AlreadyStarted(String),
    #[error("container {0} is already stopped")]
    AlreadyStopped(String),
    #[error("removal of container {0} is already in progress")]
    RemovalInProgress(String),
    #[error(
        "cannot remove container \"/{name}\": container is {state}: stop the container before removing or force remove"
    )]
    RemoveRunning { name: String, state: &'static str },
    #[error("Error: Exec command {0} is already running")]
    ExecRunning(String),
    #[error("Error: Exec command {0} has already run")]
    ExecHasRun(String),
    #[error("remove {name}: volume is in use - [{containers}]")]
    VolumeInUse { name: String, containers: String },
    #[error("network {0} is a pre-defined network and cannot be removed")]
    PredefinedNetwork(String),
    #[error("operation is not permitted on predefined {0} network")]
    PredefinedName(String),
    #[error("network with name {0} already exists")]
    NetworkExists(String),
    #[error("error while removing network: network {name} has active endpoints (name:\"{containers}\")")]
    NetworkInUse { name: String, containers: String },
    #[error("endpoint with name {container} already exists in network {network}")]
    EndpointExists { container: String, network: String },
    #[error("container {container} is not connected to network {network}")]
    NotConnected { container: String, network: String },
    /// What the caller asked for makes no sense; the text says what.
    #[error("{0}")]
    InvalidParameter(String),
    /// What the caller asked for contradicts the present state; the text says how.
    #[error("{0}")]
    Conflict(String),
    /// What the caller asked for is not allowed to it; the text says why.
    #[error("{0}")]
    Forbidden(String),
    /// The container's process could not be made or executed; text as runc reports it. Exit code 125, 126 or 127.
    #[error(
        "failed to create task for container: failed to create shim task: OCI runtime create failed: unable to start container process: {message}"
    )]
    Start { message: String, exit_code: i32 },
    /// An exec's program could not be executed. Exit code 126 or 127.
    #[error("OCI runtime exec failed: exec failed: unable to start container process: {message}")]
    ExecFailed { message: String, exit_code: i32 },
    /// Nothing holds all of its processes together.
    #[error(
        "cannot {operation} container {id}: it has no cgroup; hint: a daemon without root makes them where a cgroup was delegated to its user"
    )]
    NoCgroup { operation: &'static str, id: String },
    #[error("cannot {operation} container {id}")]
    Runtime {
        operation: &'static str,
        id: String,
        #[source]
        source: Cause,
    },
    #[error("cannot {operation}: {source}")]
    Image {
        operation: String,
        #[source]
        source: Cause,
    },
    #[error("cannot {operation}: {source}")]
    Network {
        operation: String,
        #[source]
        source: Cause,
    },
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot read state of container in {}: {source}", path.display())]
    State {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    /// An image could not be built.
    #[error(transparent)]
    Build(#[from] crate::build::failure::BuildError),
    #[error(
        "this host goes down, and nothing is started on it any more; hint: if it is to stay up, restart the daemon"
    )]
    HostGoes,
    /// The container's owner task has ended (the engine shuts down).
    #[error("the engine is shutting down")]
    ShuttingDown,
}

impl Error {
    /// Returns the class of this error.
    pub fn kind(&self) -> ErrorKind {
        use ErrorKind as K;
        match self {
            Self::NoSuchContainer(_)
            | Self::NoSuchImage(_)
            | Self::NoSuchExec(_)
            | Self::NoSuchVolume(_)
            | Self::NoSuchNetwork(_)
            | Self::NoSuchDriver { .. }
            | Self::NoSuchPath { .. } => K::NotFound,
            Self::NameInUse { .. }
            | Self::NotRunning(_)
            | Self::KillNotRunning(_)
            | Self::ExecPaused(_)
            | Self::Paused(_)
            | Self::AlreadyPaused(_)
            | Self::StartPaused
            | Self::StartRemoving
            | Self::RemovalInProgress(_)
            | Self::RemoveRunning { .. }
            | Self::ExecRunning(_)
            | Self::ExecHasRun(_)
            | Self::VolumeInUse { .. }
            | Self::NetworkExists(_)
            | Self::Conflict(_) => K::Conflict,
            Self::AmbiguousPrefix(_) | Self::InvalidParameter(_) => K::InvalidParameter,
            Self::Build(
                BuildError::Syntax(_)
                | BuildError::NoDockerfile(_)
                | BuildError::NoTarget(_)
                | BuildError::NoArchive
                | BuildError::Context(_)
                | BuildError::Remote { .. },
            ) => K::InvalidParameter,
            Self::AlreadyStarted(_) | Self::AlreadyStopped(_) => K::NotModified,
            Self::PredefinedNetwork(_)
            | Self::PredefinedName(_)
            | Self::NetworkInUse { .. }
            | Self::EndpointExists { .. }
            | Self::Forbidden(_) => K::Forbidden,
            // Docker answers 400 when the command cannot be executed, 500 otherwise.
            Self::Start { exit_code, .. } if *exit_code != 125 => K::InvalidParameter,
            Self::ExecFailed { .. } => K::InvalidParameter,
            Self::Network { source, .. } => network_kind(source),
            Self::NotConnected { .. }
            | Self::NotPaused(_)
            | Self::Start { .. }
            | Self::Runtime { .. }
            | Self::Image { .. }
            | Self::Io { .. }
            | Self::State { .. }
            | Self::Build(_)
            | Self::NoCgroup { .. }
            | Self::HostGoes
            | Self::ShuttingDown => K::Internal,
        }
    }

    /// Wraps an I/O error with what was done to which path.
    pub(crate) fn io(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { operation, path, source }
    }

    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Self::InvalidParameter(text.into())
    }
}

/// Whose fault a failure of the network room is. Source: moby `libnetwork/ipamapi` (a pool or an address that somebody
/// has is forbidden).
fn network_kind(source: &Cause) -> ErrorKind {
    use network::Error as N;
    match source.downcast_ref() {
        Some(
            N::InvalidInterface(_)
            | N::InvalidMac(_)
            | N::AddressOutsideSubnet { .. }
            | N::NoParent(_)
            | N::OwnParent(_)
            | N::NoIpv6(_)
            | N::NoIpv6Behind { .. }
            | N::Loopback6 { .. }
            | N::InterfaceTwice(_)
            | N::TooManyNetworks
            | N::Ipv6(_),
        ) => ErrorKind::InvalidParameter,
        Some(
            N::SubnetInUse { .. }
            | N::InterfaceInUse { .. }
            | N::ForeignLink(_)
            | N::AddressInUse { .. }
            | N::NetworkInUse(_),
        ) => ErrorKind::Forbidden,
        _ => ErrorKind::Internal,
    }
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Wraps an error of the runtime in the words of Docker.
pub(crate) fn runtime_failed(operation: &'static str, id: &str, error: runtime::Error) -> Error {
    match error {
        runtime::Error::Exec { message, code } => Error::Start { message, exit_code: code },
        e @ (runtime::Error::Create { .. } | runtime::Error::Spec { .. }) => {
            Error::Start { message: e.to_string(), exit_code: 128 }
        }
        // What no rule here knows to be too much, and the kernel does.
        runtime::Error::Cgroup { source, .. } if source.kind() == std::io::ErrorKind::InvalidInput => {
            Error::invalid(format!(
                "cannot {operation} container {id}: the kernel takes no such limit: {source}"
            ))
        }
        runtime::Error::Cgroup { operation: "find", ref source, .. }
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            Error::NoCgroup { operation, id: id.to_owned() }
        }
        other => Error::Runtime { operation, id: id.to_owned(), source: other.into() },
    }
}

/// Wraps what the model says does not fit.
pub(crate) fn unfit(error: model::confine::Unfit) -> Error {
    Error::invalid(error.to_string())
}
