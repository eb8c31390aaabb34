//! Objects of the swarm, asked of a manager.

use super::{ApiError, Control, State};
use crate::convert::Networks;
use futures::future::BoxFuture;
use model::{AuditRecord, Cluster, Config, Network, Node, Object, Secret, Service, Stack, Task, User};
use proto::{
    WireId,
    control::{
        CreateRequest, GetRequest, GetSwarmRequest, ListRequest, RemoveRequest, UpdateRequest,
        create_request, get_swarm_request::Wanted, update_request,
    },
    types::ObjectKind,
};
use std::sync::Arc;
use tonic::Code;

/// A kind of stored object.
pub(super) trait Stored: Sized {
    const KIND: ObjectKind;
    /// Docker's word, for "no such ..".
    const WORD: &'static str;
    fn of(object: Object) -> Option<Arc<Self>>;
}

macro_rules! stored {
    ($($type:ident = $word:literal;)*) => {$(
        impl Stored for $type {
            const KIND: ObjectKind = ObjectKind::$type;
            const WORD: &'static str = $word;
            fn of(object: Object) -> Option<Arc<Self>> {
                match object {
                    Object::$type(object) => Some(object),
                    _ => None,
                }
            }
        }
    )*};
}

stored! {
    Node = "node";
    Service = "service";
    Task = "task";
    Network = "network";
    Secret = "secret";
    Config = "config";
    Stack = "stack";
    User = "user";
}

impl Stored for AuditRecord {
    const KIND: ObjectKind = ObjectKind::Audit;
    const WORD: &'static str = "audit record";
    fn of(object: Object) -> Option<Arc<Self>> {
        match object {
            Object::Audit(record) => Some(record),
            _ => None,
        }
    }
}

impl State {
    pub(super) async fn control(&self) -> Result<Control, ApiError> {
        self.swarm().control(self.asker()).await
    }

    /// Returns all objects of a kind, by id.
    pub(super) async fn list<T: Stored>(&self) -> Result<Vec<Arc<T>>, ApiError> {
        Ok(self.objects(T::KIND, false).await?.into_iter().filter_map(T::of).collect())
    }

    /// Returns all tasks without the specs that they have of their services: most of what they are, and the
    /// same many times over.
    pub(super) async fn tasks_in_brief(&self) -> Result<Vec<Arc<Task>>, ApiError> {
        Ok(self.objects(Task::KIND, true).await?.into_iter().filter_map(Task::of).collect())
    }

    /// What is the same for all kinds is compiled once, here and in [`object`](Self::object).
    fn objects(&self, kind: ObjectKind, brief: bool) -> BoxFuture<'_, Result<Vec<Object>, ApiError>> {
        Box::pin(async move {
            let request = ListRequest { kind: kind as i32, brief };
            let mut chunks = self.control().await?.list(request).await?.into_inner();
            let mut all = Vec::new();
            while let Some(chunk) = chunks.message().await? {
                for object in chunk.objects {
                    all.push(Object::try_from(object)?);
                }
            }
            Ok(all)
        })
    }

    /// Returns one object by id, unique id prefix or name.
    pub(super) async fn find<T: Stored>(&self, id_or_name: &str) -> Result<Arc<T>, ApiError> {
        T::of(self.object(T::KIND, T::WORD, id_or_name).await?)
            .ok_or_else(|| ApiError::internal("a manager sent another kind of object"))
    }

    fn object<'a>(
        &'a self,
        kind: ObjectKind,
        word: &'static str,
        id_or_name: &'a str,
    ) -> BoxFuture<'a, Result<Object, ApiError>> {
        Box::pin(async move {
            let request = GetRequest { kind: kind as i32, id_or_name: id_or_name.to_owned() };
            match self.control().await?.get(request).await {
                Ok(answer) => Ok(Object::try_from(answer.into_inner())?),
                Err(status) if status.code() == Code::NotFound => {
                    Err(ApiError::not_found(format!("{word} {id_or_name} not found")))
                }
                Err(status) => Err(status.into()),
            }
        })
    }

    /// Returns the cluster's networks by id.
    pub(super) async fn cluster_networks(&self) -> Result<Networks, ApiError> {
        Ok(self.list::<Network>().await?.into_iter().map(|n| (n.id, n)).collect())
    }

    /// Returns the cluster object without its tokens and keys.
    pub(super) async fn public_cluster(&self) -> Result<Cluster, ApiError> {
        let request = GetRequest { kind: ObjectKind::Cluster as i32, id_or_name: String::new() };
        match Object::try_from(self.control().await?.get(request).await?.into_inner())? {
            Object::Cluster(cluster) => Ok(Arc::unwrap_or_clone(cluster)),
            _ => Err(ApiError::internal("a manager sent another kind of object")),
        }
    }

    /// Returns the cluster object with one sort of its secrets. That it was read is told.
    pub(super) async fn cluster_with(&self, wanted: Wanted) -> Result<Cluster, ApiError> {
        let request = GetSwarmRequest { wanted: wanted as i32 };
        let cluster = self.control().await?.get_swarm(request).await?.into_inner();
        Ok(Cluster::try_from(cluster)?)
    }

    /// Stores a new object; returns its id.
    pub(super) async fn create<Id: WireId>(&self, spec: create_request::Spec) -> Result<Id, ApiError> {
        self.create_with(spec, None).await
    }

    /// The same with what a service's registry is shown.
    pub(super) async fn create_with<Id: WireId>(
        &self,
        spec: create_request::Spec,
        registry_auth: Option<Vec<u8>>,
    ) -> Result<Id, ApiError> {
        let reply = self.control().await?.create(CreateRequest { spec: Some(spec), registry_auth }).await?;
        Ok(Id::from_wire(&reply.into_inner().id)?)
    }

    pub(super) async fn update(
        &self,
        id: impl WireId,
        version: u64,
        spec: update_request::Spec,
    ) -> Result<(), ApiError> {
        self.update_with(id, version, spec, None).await
    }

    /// The same with what a service's registry is shown; `None`: as before.
    pub(super) async fn update_with(
        &self,
        id: impl WireId,
        version: u64,
        spec: update_request::Spec,
        registry_auth: Option<Vec<u8>>,
    ) -> Result<(), ApiError> {
        let request = UpdateRequest { id: id.to_wire(), version, spec: Some(spec), registry_auth };
        self.control().await?.update(request).await?;
        Ok(())
    }

    pub(super) async fn remove<T: Stored>(&self, id: impl WireId, force: bool) -> Result<(), ApiError> {
        let request = RemoveRequest { kind: T::KIND as i32, id: id.to_wire(), force };
        self.control().await?.remove(request).await?;
        Ok(())
    }
}
