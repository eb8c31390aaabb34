//! What people do to the swarm: validates, writes specs, answers questions. Never decides what follows.
//!
//! Every call is made on the leader; a follower forwards it. Answers are linearizable.

mod amounts;
mod edit;
mod outlook;
#[cfg(test)]
mod races;
mod stacks;
mod users;
mod validate;
mod watch;

pub(crate) use edit::{find, is_of, may_demote, removed_node};
pub(crate) use validate::attachment as validate_attachment;

use crate::{
    ANSWER_BYTES_MAX, REQUEST_BYTES_MAX,
    audit::{Deed, Judge},
    authorize::{Caller, Method, on_behalf_of},
    ca::{new_rotation, new_token, new_unlock_key},
    forward::Leader,
    ingress,
    notes::{Kind, Note},
    random::random_id,
    rights,
    shared::Shared,
};
use futures::{StreamExt as _, stream::BoxStream};
use model::{
    AuditId, Change, Cluster, Config, ConfigId, Duration, ManagerSeen, Meta, Network, NetworkId, NodeId,
    Object, ObjectRef, PersonRole, Secret, SecretBytes, SecretId, Service, ServiceId, StackId, Tables,
    TaskId, UserId,
};
use prost::Message as _;
use proto::{
    WireId as _,
    control::{
        ApplyStackRequest, BackupPiece, BackupRequest, CreateReply, CreateRequest, CreateUserTokenReply,
        CreateUserTokenRequest, EnterTaskReply, EnterTaskRequest, ExplainServiceReply, ExplainServiceRequest,
        ForeseeStackReply, GetRequest, GetSwarmRequest, IssueUserCertificateReply,
        IssueUserCertificateRequest, JudgeStackRequest, ListChunk, ListRequest, LoginRequest, RemoveReply,
        RemoveRequest, RemoveUserTokenReply, RemoveUserTokenRequest, RevokeUserCertificateReply,
        RevokeUserCertificateRequest, RollbackStackRequest, RotateRoot, SetPasswordReply, SetPasswordRequest,
        UpdateReply, UpdateRequest, UpdateSwarmRequest, WatchEvent, WatchRequest, WhoAmIReply, WhoAmIRequest,
        control_client::ControlClient,
        control_server::{Control, ControlServer},
        create_request::Spec as NewSpec,
        get_swarm_request::Wanted,
        update_request::Spec as ChangedSpec,
    },
    types::{self, ObjectKind},
};
use std::sync::Arc;
use tonic::{Request, Response, Status};
use tracing::{debug, info};

/// A message of a list is full when it has this much: clients take 4 MiB. *Unit:* bytes.
const CHUNK_BYTES: usize = 1 << 20;

pub(crate) fn service(shared: Arc<Shared>) -> ControlServer<ControlService> {
    ControlServer::new(ControlService(shared)).max_decoding_message_size(REQUEST_BYTES_MAX)
}

pub(crate) struct ControlService(Arc<Shared>);

/// One that gives its process every right on the host.
const PRIVILEGED_EXEC: &str = "privileged exec";

/// What people do in containers of tasks, in the words of the audit history.
struct EnterAction;

impl EnterAction {
    /// Returns the word; `None` for what needs no record of its own.
    ///
    /// # Errors
    /// A node says something else.
    fn named(action: &str) -> Result<Option<&'static str>, Status> {
        const WORDS: [&str; 5] = ["exec", PRIVILEGED_EXEC, "attach", "copy into", "copy out of"];
        if action.is_empty() {
            return Ok(None);
        }
        let known = WORDS.into_iter().find(|word| *word == action);
        known.map(Some).ok_or_else(|| Status::invalid_argument("an action that is not known"))
    }
}

/// Continues with the caller and message of a request if this manager leads; else returns the leader's answer. For what
/// is decided by [`Shared::decide_for`] alone, which sees to it that it is decided on what counts.
macro_rules! for_the_leader {
    ($self:ident, $request:ident, $method:ident, $rpc:ident) => {{
        let caller = $self.0.authorize(Method::$method, &$request).await?;
        let message = $request.into_inner();
        if let Leader::At(channel) = $self.0.leader(Method::$method, &caller)? {
            let mut leader = ControlClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
            return $self.0.answer(leader.$rpc(on_behalf_of(&caller, message))).await;
        }
        (caller, message)
    }};
}

/// The same for what reads: the view has every change acknowledged so far.
macro_rules! on_the_leader {
    ($self:ident, $request:ident, $method:ident, $rpc:ident) => {{
        let (caller, message) = for_the_leader!($self, $request, $method, $rpc);
        $self.0.fresh().await?;
        (caller, message)
    }};
}

#[tonic::async_trait]
impl Control for ControlService {
    type ListStream = BoxStream<'static, Result<ListChunk, Status>>;
    type WatchStream = BoxStream<'static, Result<WatchEvent, Status>>;
    type BackupStream = BoxStream<'static, Result<BackupPiece, Status>>;

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<types::Object>, Status> {
        let (caller, request) = on_the_leader!(self, request, Get, get);
        let kind = kind(request.kind)?;
        self.may_read(&caller, kind).await?;
        let view = self.0.store.view();
        let object = edit::find(&view, kind, &request.id_or_name)?;
        let mut object = redacted(object);
        self.with_what_raft_sees(&mut object, &self.0.store.members());
        Ok(Response::new((&object).into()))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        let caller = self.0.authorize(Method::List, &request).await?;
        let message = request.into_inner();
        if let Leader::At(channel) = self.0.leader(Method::List, &caller)? {
            let mut leader = ControlClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
            let chunks = self.0.answer(leader.list(on_behalf_of(&caller, message))).await?.into_inner();
            return Ok(Response::new(chunks.boxed()));
        }
        let kind = kind(message.kind)?;
        self.may_read(&caller, kind).await?;
        self.0.fresh().await?;
        let view = self.0.store.view();
        let index = view.index;
        // What is being removed is gone for people: its name may be another's.
        let here = edit::all(&view, kind).filter(|o| !o.is_leaving());
        let members = self.0.store.members();
        let no_spec = Arc::default();
        let answer = |object| {
            let mut object = redacted(object);
            self.with_what_raft_sees(&mut object, &members);
            if let Object::Task(task) = &mut object
                && message.brief
            {
                Arc::make_mut(task).spec = Arc::clone(&no_spec);
            }
            (&object).into()
        };
        let objects = here.map(answer).collect();
        let chunks = chunks(objects).into_iter().map(move |objects| Ok(ListChunk { index, objects }));
        Ok(Response::new(futures::stream::iter(chunks.collect::<Vec<_>>()).boxed()))
    }

    async fn create(&self, request: Request<CreateRequest>) -> Result<Response<CreateReply>, Status> {
        let (caller, request) = for_the_leader!(self, request, Create, create);
        let spec = request.spec.ok_or_else(|| Status::invalid_argument("no spec"))?;
        let registry_auth = request.registry_auth.map(SecretBytes);
        let (version, key) = self
            .0
            .decide_for(Deed::new(caller.person()?, "create"), 0, |view| {
                if let NewSpec::Network(network) = &spec
                    && network.driver() == types::NetworkDriver::Ingress
                {
                    return new_ingress(view, network.clone());
                }
                let mut object = new_object(view, spec.clone())?;
                if let Object::Service(service) = &mut object {
                    Arc::make_mut(service).registry_auth.clone_from(&registry_auth);
                }
                Ok((object.key(), vec![Change::Put(object)]))
            })
            .await?;
        // At `info` the audit history says so.
        debug!(object = %key, "created");
        let id = key_bytes(key);
        Ok(Response::new(CreateReply { id, version }))
    }

    async fn update(&self, request: Request<UpdateRequest>) -> Result<Response<UpdateReply>, Status> {
        let (caller, request) = for_the_leader!(self, request, Update, update);
        let version = request.version;
        let action = match request.spec {
            Some(ChangedSpec::Rollback(_)) => "roll back",
            _ => "update",
        };
        let (version, key) = self
            .0
            .decide_for(Deed::new(caller.person()?, action), version, |view| {
                let (_, object) = self.updated_object(view, request.clone())?;
                let key = object.as_ref().map(Object::key);
                Ok((key, object.map(Change::Put).into_iter().collect()))
            })
            .await?;
        if let Some(key) = key {
            debug!(object = %key, "updated");
        }
        Ok(Response::new(UpdateReply { version }))
    }

    async fn remove(&self, request: Request<RemoveRequest>) -> Result<Response<RemoveReply>, Status> {
        let (caller, request) = for_the_leader!(self, request, Remove, remove);
        let kind = kind(request.kind)?;
        self.0
            .decide_for(Deed::new(caller.person()?, "remove"), 0, |view| {
                Ok((
                    (),
                    edit::removal(
                        view,
                        &self.0.store.members(),
                        kind,
                        &request.id,
                        request.force,
                        (self.0.clock)(),
                    )?,
                ))
            })
            .await?;
        debug!(object = %object_ref(kind, &request.id)?, "removed");
        Ok(Response::new(RemoveReply {}))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        // Served from any replica: an index means the same on all of them.
        let caller = self.0.authorize(Method::Watch, &request).await?;
        let request = request.into_inner();
        let mut kinds = request.kinds.into_iter().map(kind).collect::<Result<Vec<_>, _>>()?;
        let role = &caller.person()?.role;
        if kinds.is_empty() {
            kinds.extend(rights::KINDS.into_iter().filter(|kind| rights::may_read(role, *kind).is_ok()));
        }
        for kind in &kinds {
            self.may_read(&caller, *kind).await?;
        }
        Ok(Response::new(watch::follow(&self.0, caller, request.since, kinds)))
    }

    async fn get_swarm(&self, request: Request<GetSwarmRequest>) -> Result<Response<types::Cluster>, Status> {
        let (caller, request) = on_the_leader!(self, request, GetSwarm, get_swarm);
        let person = caller.person()?;
        // Front doors of an earlier release do not say what they need.
        let (what, tokens, unlock_key) = match request.wanted() {
            Wanted::Unspecified => ("swarm join-token, unlock-key", true, true),
            Wanted::JoinTokens => ("swarm join-token", true, false),
            Wanted::UnlockKey => ("swarm unlock-key", false, true),
        };
        if person.role != PersonRole::Admin {
            let reason = "tokens and keys of the swarm take role admin";
            return Err(self.0.refused(person, "read", what, reason).await);
        }
        // Told first: nobody reads one unseen.
        self.0.note(Note::of(Kind::Read, person, "read", what)).await?;
        let view = self.0.store.view();
        let mut cluster = Cluster::clone(stored_cluster(&view)?);
        without_ca_keys(&mut cluster);
        if !tokens {
            cluster.worker_token = SecretBytes::default();
            cluster.manager_token = SecretBytes::default();
        }
        if !unlock_key {
            cluster.unlock_key = None;
        }
        Ok(Response::new((&cluster).into()))
    }

    async fn backup(&self, request: Request<BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        let caller = self.0.authorize(Method::Backup, &request).await?;
        if let Leader::At(channel) = self.0.leader(Method::Backup, &caller)? {
            let mut leader = ControlClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
            let asked = leader.backup(on_behalf_of(&caller, BackupRequest {}));
            return Ok(Response::new(self.0.answer(asked).await?.into_inner().boxed()));
        }
        let person = caller.person()?;
        if person.role != PersonRole::Admin {
            let reason = "a backup has the swarm's keys and secrets: that takes role admin";
            return Err(self.0.refused(person, "read", "swarm backup", reason).await);
        }
        // Told first: nobody takes one unseen, and the backup itself says so.
        self.0.note(Note::of(Kind::Read, person, "backup", "swarm")).await?;
        self.0.fresh().await?;
        let (view, at) = (self.0.store.view(), (self.0.clock)());
        let packed = tokio::task::spawn_blocking(move || store::backup::pack(&view, at)).await;
        let packed = packed.map_err(|e| Status::internal(e.to_string()))?;
        let packed = packed.map_err(|e| Status::internal(format!("cannot pack the state: {e}")))?;
        let pieces = packed.ok_or_else(|| Status::unavailable("the swarm is not ready"))?;
        let pieces = pieces.into_iter().map(|data| Ok(BackupPiece { data }));
        Ok(Response::new(futures::stream::iter(pieces).boxed()))
    }

    async fn update_swarm(
        &self,
        request: Request<UpdateSwarmRequest>,
    ) -> Result<Response<UpdateReply>, Status> {
        let (caller, request) = for_the_leader!(self, request, UpdateSwarm, update_swarm);
        let mut deed = Deed::new(caller.person()?, "update");
        let rotated: Vec<&str> = [
            (request.rotate_worker_token, "join-token worker"),
            (request.rotate_manager_token, "join-token manager"),
            (request.rotate_unlock_key, "unlock-key"),
            (request.rotate_root.is_some(), "ca"),
        ]
        .into_iter()
        .filter_map(|(asked, what)| asked.then_some(what))
        .collect();
        if !rotated.is_empty() {
            deed.action = "rotate";
            deed.object = Some(format!("swarm {}", rotated.join(", ")));
        }
        let (version, ()) = self
            .0
            .decide_for(deed, 0, |view| {
                let cluster = updated_cluster(stored_cluster(view)?, request.clone())?;
                Ok(((), vec![Change::Put(Object::Cluster(Arc::new(cluster)))]))
            })
            .await?;
        Ok(Response::new(UpdateReply { version }))
    }

    async fn apply_stack(
        &self,
        request: Request<ApplyStackRequest>,
    ) -> Result<Response<types::Stack>, Status> {
        let (caller, request) = for_the_leader!(self, request, ApplyStack, apply_stack);
        let person = caller.person()?;
        let deed = Deed { message: request.message.clone(), ..Deed::new(person, "deploy") };
        let decide = |view: &Tables| stacks::apply(view, self.0.stamp(), &person.name, &request);
        let (_, stack) = self.0.decide_for(deed, 0, decide).await?;
        info!(stack = request.name, services = request.services.len(), "stack applied");
        self.stored_stack(stack)
    }

    async fn rollback_stack(
        &self,
        request: Request<RollbackStackRequest>,
    ) -> Result<Response<types::Stack>, Status> {
        let (caller, request) = for_the_leader!(self, request, RollbackStack, rollback_stack);
        let person = caller.person()?;
        let decide = |view: &Tables| stacks::rollback(view, self.0.stamp(), &person.name, &request);
        let (_, stack) = self.0.decide_for(Deed::new(person, "roll back"), 0, decide).await?;
        info!(stack = request.name, revision = request.revision, "stack rolled back");
        self.stored_stack(stack)
    }

    async fn judge_stack(
        &self,
        request: Request<JudgeStackRequest>,
    ) -> Result<Response<types::Stack>, Status> {
        let (caller, request) = for_the_leader!(self, request, JudgeStack, judge_stack);
        let deed = Deed::new(caller.person()?, if request.came_up { "came up" } else { "did not come up" });
        let (_, stack) = self.0.decide_for(deed, 0, |view| stacks::judge(view, &request)).await?;
        self.stored_stack(stack)
    }

    async fn foresee_stack(
        &self,
        request: Request<ApplyStackRequest>,
    ) -> Result<Response<ForeseeStackReply>, Status> {
        let (caller, request) = on_the_leader!(self, request, ForeseeStack, foresee_stack);
        // Who may not write it may not have it tried either: it is as much work.
        let person = caller.person()?;
        let view = self.0.store.view();
        let (_, changes) = stacks::apply(&view, self.0.stamp(), &person.name, &request)?;
        let deed = Deed { message: request.message.clone(), ..Deed::new(person, "deploy") };
        deed.judge(&view, &changes).map_err(Status::permission_denied)?;
        let (turns, account) = (&self.0.outlooks, caller.account());
        outlook::of_stack(turns, account, self.0.time(), view, changes, request).await.map(Response::new)
    }

    async fn explain_service(
        &self,
        request: Request<ExplainServiceRequest>,
    ) -> Result<Response<ExplainServiceReply>, Status> {
        let (caller, request) = on_the_leader!(self, request, ExplainService, explain_service);
        self.may_read(&caller, ObjectKind::Service).await?;
        self.may_read(&caller, ObjectKind::Node).await?;
        let view = self.0.store.view();
        let Object::Service(service) = edit::find(&view, ObjectKind::Service, &request.service)? else {
            return Err(Status::not_found(format!("service {} not found", request.service)));
        };
        let (turns, account) = (&self.0.outlooks, caller.account());
        outlook::of_nodes(turns, account, self.0.time(), view, service.id).await.map(Response::new)
    }

    async fn who_am_i(&self, request: Request<WhoAmIRequest>) -> Result<Response<WhoAmIReply>, Status> {
        let (caller, WhoAmIRequest {}) = on_the_leader!(self, request, WhoAmI, who_am_i);
        let person = caller.person()?;
        let view = self.0.store.view();
        let cluster = stored_cluster(&view)?.id.to_wire();
        Ok(Response::new(WhoAmIReply {
            name: person.name.clone(),
            role: Some((&person.role).into()),
            cluster,
        }))
    }

    async fn enter_task(
        &self,
        request: Request<EnterTaskRequest>,
    ) -> Result<Response<EnterTaskReply>, Status> {
        let (caller, request) = on_the_leader!(self, request, EnterTask, enter_task);
        let person = caller.person()?;
        let id = TaskId::from_wire(&request.task).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let word = EnterAction::named(&request.action)?;
        let judge = |view: &Tables| {
            let gone = || Status::not_found(format!("task {id} not found"));
            let task = view.tasks.get(&id).ok_or_else(gone)?;
            let may = rights::may_enter(&person.role, view, task).and_then(|()| match &person.role {
                PersonRole::Deploy { .. } | PersonRole::Read if word == Some(PRIVILEGED_EXEC) => {
                    Err("a privileged process reaches into the host: that takes role admin".to_owned())
                }
                PersonRole::Admin | PersonRole::Deploy { .. } | PersonRole::Read => Ok(()),
            });
            Ok::<_, Status>((task.name(), may))
        };
        let (name, may) = judge(&self.0.store.view())?;
        let object = format!("task {name}");
        if let Err(reason) = may {
            return Err(self.0.refused(person, word.unwrap_or("enter"), &object, &reason).await);
        }
        let Some(word) = word else { return Ok(Response::new(EnterTaskReply {})) };
        let deed = Deed { object: Some(object), judged_by: Judge::Nobody, ..Deed::new(person, word) };
        let once_more = |view: &Tables| {
            judge(view)?
                .1
                .map_err(|reason| Status::permission_denied(format!("{} may not: {reason}", person.name)))
        };
        self.0.decide_for(deed, 0, |view| once_more(view).map(|()| ((), Vec::new()))).await?;
        Ok(Response::new(EnterTaskReply {}))
    }

    async fn create_user_token(
        &self,
        request: Request<CreateUserTokenRequest>,
    ) -> Result<Response<CreateUserTokenReply>, Status> {
        let (caller, request) = on_the_leader!(self, request, CreateUserToken, create_user_token);
        self.new_token(&caller, &request).await.map(Response::new)
    }

    async fn remove_user_token(
        &self,
        request: Request<RemoveUserTokenRequest>,
    ) -> Result<Response<RemoveUserTokenReply>, Status> {
        let (caller, request) = on_the_leader!(self, request, RemoveUserToken, remove_user_token);
        self.forget_token(&caller, &request).await?;
        Ok(Response::new(RemoveUserTokenReply {}))
    }

    async fn set_password(
        &self,
        request: Request<SetPasswordRequest>,
    ) -> Result<Response<SetPasswordReply>, Status> {
        let (caller, request) = on_the_leader!(self, request, SetPassword, set_password);
        self.new_password(&caller, request).await?;
        Ok(Response::new(SetPasswordReply {}))
    }

    async fn login(&self, request: Request<LoginRequest>) -> Result<Response<CreateUserTokenReply>, Status> {
        let (caller, request) = on_the_leader!(self, request, Login, login);
        self.log_in(&caller, request).await.map(Response::new)
    }

    async fn issue_user_certificate(
        &self,
        request: Request<IssueUserCertificateRequest>,
    ) -> Result<Response<IssueUserCertificateReply>, Status> {
        let (caller, request) = on_the_leader!(self, request, IssueUserCertificate, issue_user_certificate);
        self.new_certificate(&caller, &request).await.map(Response::new)
    }

    async fn revoke_user_certificate(
        &self,
        request: Request<RevokeUserCertificateRequest>,
    ) -> Result<Response<RevokeUserCertificateReply>, Status> {
        let (caller, request) = on_the_leader!(self, request, RevokeUserCertificate, revoke_user_certificate);
        self.revoke_certificate(&caller, &request).await?;
        Ok(Response::new(RevokeUserCertificateReply {}))
    }
}

impl ControlService {
    /// Adds to a manager's node how Raft's leader, which this manager is, sees it: whether its agent answers says nothing
    /// of that.
    fn with_what_raft_sees(&self, object: &mut Object, members: &[store::Member]) {
        let Object::Node(node) = object else { return };
        let Some(raft_id) = node.manager.map(|m| m.raft_id) else { return };
        let member = members.iter().find(|m| m.raft_id == raft_id);
        // Who is no member (any more) is no manager that could be reached.
        let seen = member.and_then(|m| Some(ManagerSeen { reachable: m.reachable?, behind: m.behind? }));
        let seen = if member.is_some() { seen } else { Some(ManagerSeen { reachable: false, behind: 0 }) };
        if let Some(manager) = &mut Arc::make_mut(node).manager {
            manager.seen = seen;
        }
    }

    async fn may_read(&self, caller: &Caller, kind: ObjectKind) -> Result<(), Status> {
        let person = caller.person()?;
        match rights::may_read(&person.role, kind) {
            Ok(()) => Ok(()),
            Err(reason) => {
                let object = format!("{kind:?}").to_lowercase();
                Err(self.0.refused(person, "read", &object, &reason).await)
            }
        }
    }

    /// Returns the changed object, or none if nothing changes, and the version it then has.
    fn updated_object(&self, view: &Tables, request: UpdateRequest) -> Result<(u64, Option<Object>), Status> {
        let spec = request.spec.ok_or_else(|| Status::invalid_argument("no spec"))?;
        let (id, version, now) = (&request.id, request.version, self.0.stamp());
        let not_found = |kind: &str| Status::not_found(format!("{kind} not found"));
        match spec {
            ChangedSpec::Service(spec) => {
                let id = ServiceId::from_wire(id).map_err(invalid)?;
                let old = view.services.get(&id).ok_or_else(|| not_found("service"))?;
                // Of its spec: what the plan writes beside it (addresses, the state of an update) is not what a
                // person edited, and must not get in the way.
                in_sequence(old.spec_version, version)?;
                let new = edit::updated_service(view, old, spec.try_into().map_err(invalid)?)?;
                let new = match request.registry_auth.map(SecretBytes) {
                    Some(auth) => Service { registry_auth: Some(auth), ..new },
                    None => new,
                };
                Ok((version, Some(Object::Service(Arc::new(new)))))
            }
            ChangedSpec::Rollback(_) => {
                let id = ServiceId::from_wire(id).map_err(invalid)?;
                let old = view.services.get(&id).ok_or_else(|| not_found("service"))?;
                // Of its spec: what the plan writes beside it (addresses, the state of an update) is not what a
                // person edited, and must not get in the way.
                in_sequence(old.spec_version, version)?;
                Ok((version, Some(Object::Service(Arc::new(edit::rolled_back_service(view, old, now)?)))))
            }
            ChangedSpec::Node(spec) => {
                let id = NodeId::from_wire(id).map_err(invalid)?;
                let old = view.nodes.get(&id).ok_or_else(|| not_found("node"))?;
                in_sequence(old.meta.version, version)?;
                let spec = spec.try_into().map_err(invalid)?;
                let node = edit::updated_node(view, &self.0.store.members(), old, spec)?;
                Ok((version, Some(Object::Node(Arc::new(node)))))
            }
            ChangedSpec::Secret(spec) => {
                let id = SecretId::from_wire(id).map_err(invalid)?;
                let old = view.secrets.get(&id).ok_or_else(|| not_found("secret"))?;
                in_sequence(old.meta.version, version)?;
                let spec: model::SecretSpec = spec.try_into().map_err(invalid)?;
                let same = spec.data.0.is_empty() || spec.data == old.spec.data;
                let same = same && spec.templated == old.spec.templated;
                edit::only_labels(spec.name == old.spec.name && same)?;
                let mut new = Secret::clone(old);
                new.spec.labels = spec.labels;
                Ok((version, Some(Object::Secret(Arc::new(new)))))
            }
            ChangedSpec::Config(spec) => {
                let id = ConfigId::from_wire(id).map_err(invalid)?;
                let old = view.configs.get(&id).ok_or_else(|| not_found("config"))?;
                in_sequence(old.meta.version, version)?;
                let spec: model::ConfigSpec = spec.try_into().map_err(invalid)?;
                let same = spec.data.is_empty() || spec.data == old.spec.data;
                let same = same && spec.templated == old.spec.templated;
                edit::only_labels(spec.name == old.spec.name && same)?;
                let mut new = Config::clone(old);
                new.spec.labels = spec.labels;
                Ok((version, Some(Object::Config(Arc::new(new)))))
            }
            ChangedSpec::User(spec) => {
                let id = UserId::from_wire(id).map_err(invalid)?;
                let old = view.users.get(&id).ok_or_else(|| not_found("user"))?;
                in_sequence(old.meta.version, version)?;
                let new = users::updated_user(old, spec)?;
                Ok((version, (new != **old).then(|| Object::User(Arc::new(new)))))
            }
        }
    }

    fn stored_stack(&self, id: StackId) -> Result<Response<types::Stack>, Status> {
        let view = self.0.store.view();
        let stored =
            view.stacks.get(&id).ok_or_else(|| Status::aborted("the stack was removed meanwhile"))?;
        Ok(Response::new((&**stored).into()))
    }
}

/// Cuts a list into messages; an empty list is one empty message.
fn chunks(objects: Vec<types::Object>) -> Vec<Vec<types::Object>> {
    let mut chunks = vec![Vec::new()];
    let mut bytes = 0;
    for object in objects {
        let size = object.encoded_len();
        if bytes > 0 && bytes + size > CHUNK_BYTES {
            chunks.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(last) = chunks.last_mut() {
            last.push(object);
        }
    }
    chunks
}

fn invalid(error: proto::Invalid) -> Status {
    Status::invalid_argument(error.to_string())
}

fn in_sequence(stored: u64, named: u64) -> Result<(), Status> {
    if stored == named { Ok(()) } else { Err(Status::aborted("update out of sequence")) }
}

fn stored_cluster(view: &Tables) -> Result<&Arc<Cluster>, Status> {
    view.cluster.as_ref().ok_or_else(|| Status::unavailable("the swarm is not ready"))
}

fn kind(kind: i32) -> Result<ObjectKind, Status> {
    match ObjectKind::try_from(kind) {
        Ok(ObjectKind::Unspecified) | Err(_) => Err(Status::invalid_argument(format!("unknown kind {kind}"))),
        Ok(kind) => Ok(kind),
    }
}

fn key_bytes(key: ObjectRef) -> Vec<u8> {
    types::ObjectRef::from(&key).id
}

fn without_ca_keys(cluster: &mut Cluster) {
    cluster.root_ca_key = SecretBytes::default();
    cluster.rotation.iter_mut().for_each(|rotation| rotation.key = SecretBytes::default());
}

/// Returns the object without what must not leave the managers.
fn redacted(mut object: Object) -> Object {
    match &mut object {
        Object::Secret(secret) => Arc::make_mut(secret).spec.data = SecretBytes::default(),
        Object::Cluster(cluster) => {
            let cluster = Arc::make_mut(cluster);
            without_ca_keys(cluster);
            cluster.worker_token = SecretBytes::default();
            cluster.manager_token = SecretBytes::default();
            cluster.unlock_key = None;
        }
        Object::User(user) => {
            // That there is a password is no secret.
            let user = Arc::make_mut(user);
            user.password = user.password.is_some().then(SecretBytes::default);
            for token in &mut user.tokens {
                token.hash = SecretBytes::default();
            }
        }
        Object::Service(service) if service.registry_auth.is_some() => {
            Arc::make_mut(service).registry_auth = None;
        }
        Object::Node(_)
        | Object::Service(_)
        | Object::Task(_)
        | Object::Network(_)
        | Object::Config(_)
        | Object::Stack(_)
        | Object::Audit(_) => {}
    }
    object
}

fn new_object(view: &Tables, spec: NewSpec) -> Result<Object, Status> {
    let meta = Meta::default();
    Ok(match spec {
        NewSpec::Service(spec) => {
            let spec = spec.try_into().map_err(invalid)?;
            validate::service(view, &spec, None)?;
            Object::Service(Arc::new(edit::new_service(view, ServiceId(random_id()?), spec)))
        }
        NewSpec::Network(spec) => {
            let spec = spec.try_into().map_err(invalid)?;
            validate::network(view, &spec)?;
            let id = NetworkId(random_id()?);
            Object::Network(Arc::new(Network { id, meta, spec, allocation: None, pending_delete: false }))
        }
        NewSpec::Secret(spec) => {
            let spec: model::SecretSpec = spec.try_into().map_err(invalid)?;
            validate::secret(view, &spec)?;
            Object::Secret(Arc::new(Secret { id: SecretId(random_id()?), meta, spec }))
        }
        NewSpec::Config(spec) => {
            let spec: model::ConfigSpec = spec.try_into().map_err(invalid)?;
            validate::config(view, &spec)?;
            Object::Config(Arc::new(Config { id: ConfigId(random_id()?), meta, spec }))
        }
        NewSpec::User(spec) => Object::User(Arc::new(users::new_user(view, UserId(random_id()?), spec)?)),
    })
}

fn new_ingress(view: &Tables, spec: types::NetworkSpec) -> Result<(ObjectRef, Vec<Change>), Status> {
    let spec = spec.try_into().map_err(invalid)?;
    validate::network_name(&spec)?;
    let id = NetworkId(random_id()?);
    Ok((ObjectRef::Network(id), ingress::creation(view, id, spec)?))
}

fn updated_cluster(old: &Arc<Cluster>, request: UpdateSwarmRequest) -> Result<Cluster, Status> {
    in_sequence(old.meta.version, request.version)?;
    let mut new = Cluster::clone(old);
    if let Some(spec) = request.spec {
        let spec: model::ClusterSpec = spec.try_into().map_err(invalid)?;
        if spec.heartbeat_period < Duration::from_millis(100) {
            return Err(Status::invalid_argument("heartbeat time period cannot be shorter than 100 ms"));
        }
        if spec.daemon_grace.is_some_and(|grace| grace > model::DAEMON_GRACE_MAX) {
            return Err(Status::invalid_argument("a daemon's grace is a day at most"));
        }
        if spec.daemon_grace.is_some() && old.feature_level < model::AWAY_LEVEL {
            return Err(Status::failed_precondition(
                "a daemon's grace can be set once every manager has this version",
            ));
        }
        if spec.dead_manager_after.is_some_and(|after| after < model::DEAD_MANAGER_AFTER_MIN) {
            return Err(Status::invalid_argument(
                "a manager cannot be taken for dead before 10 s; hint: 0 is never",
            ));
        }
        if spec.dead_manager_after.is_some() && old.feature_level < model::DEAD_MANAGERS_LEVEL {
            return Err(Status::failed_precondition(
                "dead managers can be dismissed once every manager has this version",
            ));
        }
        if spec.slow_follower_entries.is_some() && old.feature_level < model::RAFT_AND_CA_SETTINGS_LEVEL {
            return Err(Status::failed_precondition(
                "how many log entries stay for slow followers can be set once every manager has this version",
            ));
        }
        if spec.node_cert_expiry < Duration::from_secs(3600) {
            return Err(Status::invalid_argument("minimum certificate expiry time is: 1h0m0s"));
        }
        new.spec = spec;
        // A manager of an older version would drop it: there each client counts from 0.
        if old.feature_level < model::RAFT_AND_CA_SETTINGS_LEVEL {
            new.spec.force_rotate = 0;
        }
    }
    if let Some(RotateRoot { cert, key }) = request.rotate_root {
        new.rotation = Some(new_rotation(&new, &cert, &key)?);
    }
    if request.rotate_worker_token {
        new.worker_token = new_token(&new.root_ca_cert)?;
    }
    if request.rotate_manager_token {
        new.manager_token = new_token(&new.root_ca_cert)?;
    }
    if !new.spec.autolock {
        new.unlock_key = None;
    } else if new.unlock_key.is_none() || request.rotate_unlock_key {
        new.unlock_key = Some(new_unlock_key().map_err(|e| Status::internal(e.to_string()))?);
    }
    Ok(new)
}

/// Reads an id of a kind.
fn object_ref(kind: ObjectKind, id: &[u8]) -> Result<ObjectRef, Status> {
    Ok(match kind {
        ObjectKind::Cluster | ObjectKind::Unspecified => ObjectRef::Cluster,
        ObjectKind::Node => ObjectRef::Node(NodeId::from_wire(id).map_err(invalid)?),
        ObjectKind::Service => ObjectRef::Service(ServiceId::from_wire(id).map_err(invalid)?),
        ObjectKind::Task => ObjectRef::Task(TaskId::from_wire(id).map_err(invalid)?),
        ObjectKind::Network => ObjectRef::Network(NetworkId::from_wire(id).map_err(invalid)?),
        ObjectKind::Secret => ObjectRef::Secret(SecretId::from_wire(id).map_err(invalid)?),
        ObjectKind::Config => ObjectRef::Config(ConfigId::from_wire(id).map_err(invalid)?),
        ObjectKind::Stack => ObjectRef::Stack(StackId::from_wire(id).map_err(invalid)?),
        ObjectKind::User => ObjectRef::User(UserId::from_wire(id).map_err(invalid)?),
        ObjectKind::Audit => ObjectRef::Audit(AuditId::from_wire(id).map_err(invalid)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_cut_into_messages_that_clients_take() {
        let config = |size: usize| {
            let spec = model::ConfigSpec {
                templated: false,
                name: "c".into(),
                labels: model::Labels::new(),
                data: vec![1; size],
            };
            let config = Config { id: ConfigId(1), meta: Meta::default(), spec };
            types::Object::from(&Object::Config(Arc::new(config)))
        };
        let sizes = |list: Vec<types::Object>| chunks(list).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(Vec::new()), [0]);
        assert_eq!(sizes(vec![config(10); 500]), [500]);
        assert_eq!(sizes(vec![config(900 << 10), config(900 << 10), config(1), config(1)]), [1, 3]);
    }
}
