//! The worker thread.
use crate::spec::*;
use model::*;
use tokio::sync::mpsc;

pub(crate) type Job = Box<dyn FnOnce(&mut Worker) + Send>;
#[derive(Debug)]
pub(crate) struct Worker {}
pub(crate) async fn start(_options: Options) -> Result<mpsc::Sender<Job>, Error> {
    Err(Error::Stopped)
}
impl Worker {
    pub(crate) fn stop(&mut self) {}
    pub(crate) fn destroy(&mut self) -> Result<(), Vec<Error>> {
        Err(vec![Error::Stopped])
    }
    pub(crate) fn join_swarm(&mut self, _identity: NodeIdentity) -> Result<(), Error> {
        Err(Error::Stopped)
    }
    pub(crate) fn leave_swarm(&mut self) -> Result<(), Error> {
        Err(Error::Stopped)
    }
    pub(crate) fn apply_table(&mut self, _table: NetworkTable) -> Result<(), Error> {
        Err(Error::Stopped)
    }
    pub(crate) fn drop_table(&mut self, _network: NetworkId) -> Result<(), Error> {
        Err(Error::Stopped)
    }
    pub(crate) fn apply_ingress(&mut self, _table: IngressTable) -> Result<(), Error> {
        Err(Error::Stopped)
    }
    pub(crate) fn tables(&mut self) -> Vec<(NetworkId, u64)> {
        Vec::new()
    }
    pub(crate) fn create_sandbox(&mut self, _spec: SandboxSpec) -> Result<SandboxInfo, Error> {
        Err(Error::Stopped)
    }
    pub(crate) fn remove_sandbox(&mut self, _id: &str) -> Result<(), Vec<Error>> {
        Err(vec![Error::Stopped])
    }
    pub(crate) fn connect(&mut self, _id: &str, _a: SandboxAttachment) -> Result<SandboxInfo, Error> {
        Err(Error::Stopped)
    }
    pub(crate) fn disconnect(&mut self, _id: &str, _network: &str) -> Result<SandboxInfo, Error> {
        Err(Error::Stopped)
    }
    pub(crate) fn sandboxes(&mut self) -> Vec<SandboxInfo> {
        Vec::new()
    }
    pub(crate) fn drain(&mut self, _task: TaskId) -> Result<(), Error> {
        Err(Error::Stopped)
    }
    pub(crate) fn create_bridge(&mut self, _spec: BridgeSpec) -> Result<Bridge, Error> {
        Err(Error::Stopped)
    }
    pub(crate) fn remove_bridge(&mut self, _id: &str) -> Result<(), Error> {
        Err(Error::Stopped)
    }
    pub(crate) fn bridges(&mut self) -> Vec<Bridge> {
        Vec::new()
    }
    pub(crate) fn audit(&mut self) -> AuditReport {
        AuditReport::default()
    }
}
