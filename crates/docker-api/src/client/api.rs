//! Typed requests, by Docker's route.

use super::{Answer, BACKUP_MAX, Client, Error, Hijacked, JsonLines, Query, Result, escape, json, read};
use crate::types::*;
use axum::body::Body;
use http_body_util::BodyExt as _;
use hyper::{HeaderMap, Method, Response, StatusCode};
use std::time::Duration;

/// A body whose bytes come as the daemon sends them: logs, archives.
pub type Exposed = Response<Answer>;

/// How long a daemon may take to learn how a command ended whose streams have.
const EXIT_CODE_LIMIT: Duration = Duration::from_secs(10);
const EXIT_CODE_AGAIN: Duration = Duration::from_millis(50);

/// Lists and single objects that have nothing special: `GET path`, `GET path/{id}`.
macro_rules! objects {
    ($($list:ident, $one:ident: $type:ty = $path:literal;)*) => {$(
        #[doc = concat!("`GET ", $path, "`; the query may hold `filters`.")]
        pub async fn $list(&self, query: Query<'_>) -> Result<Vec<$type>> {
            self.get($path, query).await
        }
        #[doc = concat!("`GET ", $path, "/{id or name}`")]
        pub async fn $one(&self, id: &str) -> Result<$type> {
            self.get(&format!(concat!($path, "/{}"), escape(id)), &[]).await
        }
    )*};
}

impl Client {
    objects! {
        services, service: Service = "/services";
        nodes, node: Node = "/nodes";
        tasks, task: Task = "/tasks";
        secrets, secret: Secret = "/secrets";
        configs, config: Config = "/configs";
        networks, network: Network = "/networks";
        stacks, stack: Stack = "/rswarm/stacks";
    }

    // ---- system

    pub async fn version(&self) -> Result<Version> {
        self.get("/version", &[]).await
    }

    pub async fn info(&self) -> Result<Info> {
        self.get("/info", &[]).await
    }

    /// `GET /events`; endless unless `until` is in the query.
    pub async fn events(&self, query: Query<'_>) -> Result<JsonLines<EventMessage>> {
        self.lines(Method::GET, "/events", query, HeaderMap::new()).await
    }

    // ---- swarm

    /// `POST /swarm/init`; returns the node's id.
    pub async fn swarm_init(&self, request: &SwarmInit) -> Result<String> {
        self.post("/swarm/init", &[], request).await
    }

    pub async fn swarm_join(&self, request: &SwarmJoin) -> Result<()> {
        self.post_empty("/swarm/join", &[], request).await
    }

    pub async fn swarm_leave(&self, force: bool) -> Result<()> {
        self.post_empty("/swarm/leave", &[("force", bool_text(force))], &()).await
    }

    pub async fn swarm(&self) -> Result<Swarm> {
        self.get("/swarm", &[]).await
    }

    /// `POST /swarm/update`; the query may hold `rotateWorkerToken`, `rotateManagerToken`,
    /// `rotateManagerUnlockKey`.
    pub async fn swarm_update(&self, version: u64, spec: &SwarmSpec, query: Query<'_>) -> Result<()> {
        let version = version.to_string();
        let mut all = vec![("version", version.as_str())];
        all.extend_from_slice(query);
        self.post_empty("/swarm/update", &all, spec).await
    }

    pub async fn swarm_unlock_key(&self) -> Result<UnlockKey> {
        self.get("/swarm/unlockkey", &[]).await
    }

    pub async fn swarm_unlock(&self, key: &str) -> Result<()> {
        self.post_empty("/swarm/unlock", &[], &UnlockKey { unlock_key: key.into() }).await
    }

    /// `GET /rswarm/swarm/backup`; it has the swarm's keys.
    pub async fn swarm_backup(&self) -> Result<Vec<u8>> {
        let answer = self.request(Method::GET, "/rswarm/swarm/backup", &[], HeaderMap::new(), Body::empty());
        Ok(read(answer.await?.into_body(), BACKUP_MAX).await?.into())
    }

    /// Makes the daemon's host the one manager of the swarm of a backup; returns its id. The query may hold
    /// `advertiseaddr`, `listenaddr`, `datapathaddr`, `availability`, `force`.
    pub async fn swarm_restore(&self, query: Query<'_>, backup: Vec<u8>) -> Result<String> {
        let path = "/rswarm/swarm/restore";
        json(self.request(Method::POST, path, query, HeaderMap::new(), Body::from(backup)).await?).await
    }

    /// Stops the daemon's host; see [`crate::server::HostGone`].
    pub async fn shut_down(&self) -> Result<HostShutdown> {
        self.post("/rswarm/host/shutdown", &[], &()).await
    }

    /// Makes the daemon's manager the only one of its swarm; returns its id. The query is that of `swarm_restore`.
    pub async fn swarm_recover(&self, query: Query<'_>) -> Result<String> {
        self.post("/rswarm/swarm/recover", query, &()).await
    }

    /// Gives the daemon's host other addresses in its swarm. The query is that of `swarm_restore`.
    pub async fn swarm_readdress(&self, query: Query<'_>) -> Result<()> {
        self.post_empty("/rswarm/swarm/readdress", query, &()).await
    }

    pub async fn node_update(&self, id: &str, version: u64, spec: &NodeSpec) -> Result<()> {
        self.update("nodes", id, version, spec).await
    }

    pub async fn node_remove(&self, id: &str, force: bool) -> Result<()> {
        self.delete(&format!("/nodes/{}", escape(id)), &[("force", bool_text(force))]).await.map(drop)
    }

    // ---- services

    /// `headers`: [`registry_auth`](super::registry_auth) for the nodes that will pull, or none.
    pub async fn service_create(&self, spec: &ServiceSpec, headers: HeaderMap) -> Result<ServiceCreated> {
        self.post_with("/services/create", &[], headers, spec).await
    }

    /// `headers`: as for [`Self::service_create`]; none: what is known stays.
    pub async fn service_update(
        &self,
        id: &str,
        version: u64,
        spec: &ServiceSpec,
        headers: HeaderMap,
    ) -> Result<ServiceUpdated> {
        let (path, version) = (format!("/services/{}/update", escape(id)), version.to_string());
        self.post_with(&path, &[("version", &version)], headers, spec).await
    }

    /// Puts the previous spec back.
    pub async fn service_rollback(
        &self,
        id: &str,
        version: u64,
        spec: &ServiceSpec,
    ) -> Result<ServiceUpdated> {
        let version = version.to_string();
        let query = [("version", version.as_str()), ("rollback", "previous")];
        self.post(&format!("/services/{}/update", escape(id)), &query, spec).await
    }

    pub async fn service_remove(&self, id: &str) -> Result<()> {
        self.delete(&format!("/services/{}", escape(id)), &[]).await.map(drop)
    }

    // ---- secrets, configs, networks, stacks

    pub async fn secret_create(&self, spec: &SecretSpec) -> Result<ObjectId> {
        self.post("/secrets/create", &[], spec).await
    }

    pub async fn secret_update(&self, id: &str, version: u64, spec: &SecretSpec) -> Result<()> {
        self.update("secrets", id, version, spec).await
    }

    pub async fn secret_remove(&self, id: &str) -> Result<()> {
        self.delete(&format!("/secrets/{}", escape(id)), &[]).await.map(drop)
    }

    pub async fn config_create(&self, spec: &ConfigSpec) -> Result<ObjectId> {
        self.post("/configs/create", &[], spec).await
    }

    pub async fn config_update(&self, id: &str, version: u64, spec: &ConfigSpec) -> Result<()> {
        self.update("configs", id, version, spec).await
    }

    pub async fn config_remove(&self, id: &str) -> Result<()> {
        self.delete(&format!("/configs/{}", escape(id)), &[]).await.map(drop)
    }

    /// `GET /images/search`: what a registry's index knows.
    pub async fn image_search(&self, query: Query<'_>) -> Result<Vec<ImageFound>> {
        self.get("/images/search", query).await
    }

    pub async fn network_create(&self, spec: &NetworkCreate) -> Result<NetworkCreated> {
        self.post("/networks/create", &[], spec).await
    }

    pub async fn network_remove(&self, id: &str) -> Result<()> {
        self.delete(&format!("/networks/{}", escape(id)), &[]).await.map(drop)
    }

    pub async fn network_connect(&self, id: &str, connect: &NetworkConnect) -> Result<()> {
        self.post_empty(&format!("/networks/{}/connect", escape(id)), &[], connect).await
    }

    pub async fn network_disconnect(&self, id: &str, disconnect: &NetworkDisconnect) -> Result<()> {
        self.post_empty(&format!("/networks/{}/disconnect", escape(id)), &[], disconnect).await
    }

    /// Records what was deployed; returns the stack with its history.
    pub async fn stack_apply(&self, name: &str, stack: &ApplyStack) -> Result<Stack> {
        self.post(&format!("/rswarm/stacks/{}", escape(name)), &[], stack).await
    }

    /// Returns where the tasks of a stack would be, were it applied; nothing is changed.
    pub async fn stack_foresee(&self, name: &str, stack: &ApplyStack) -> Result<Vec<Outlook>> {
        self.post(&format!("/rswarm/stacks/{}/foresee", escape(name)), &[], stack).await
    }

    /// Returns how each node stands to one more task of a service.
    pub async fn service_explain(&self, service: &str) -> Result<Vec<NodeVerdict>> {
        self.get(&format!("/rswarm/services/{}/explain", escape(service)), &[]).await
    }

    /// Puts a revision of a stack back; 0 = the last before the newest that came up. Refused if `newest` is not 0
    /// and not the newest any more.
    pub async fn stack_rollback(&self, name: &str, revision: u64, newest: u64) -> Result<Stack> {
        let path = format!("/rswarm/stacks/{}/rollback", escape(name));
        let (revision, newest) = (revision.to_string(), newest.to_string());
        let query = [("revision", revision.as_str()), ("newest", newest.as_str())];
        self.post(&path, &query, &()).await
    }

    /// Records whether the services of a revision came up.
    pub async fn stack_judge(&self, name: &str, revision: u64, came_up: bool) -> Result<Stack> {
        let path = format!("/rswarm/stacks/{}/judge", escape(name));
        let (revision, came_up) = (revision.to_string(), if came_up { "1" } else { "0" });
        self.post(&path, &[("revision", revision.as_str()), ("cameup", came_up)], &()).await
    }

    /// Forgets a stack's history; its services are the caller's business.
    pub async fn stack_remove(&self, name: &str) -> Result<()> {
        self.delete(&format!("/rswarm/stacks/{}", escape(name)), &[]).await.map(drop)
    }

    async fn update(&self, kind: &str, id: &str, version: u64, spec: &impl Written) -> Result<()> {
        let version = version.to_string();
        self.post_empty(&format!("/{kind}/{}/update", escape(id)), &[("version", &version)], spec).await
    }

    // ---- people; not in Docker

    pub async fn users(&self, query: Query<'_>) -> Result<Vec<User>> {
        self.get("/rswarm/users", query).await
    }

    pub async fn user(&self, name: &str) -> Result<User> {
        self.get(&format!("/rswarm/users/{}", escape(name)), &[]).await
    }

    pub async fn user_create(&self, spec: &UserSpec) -> Result<ObjectId> {
        self.post("/rswarm/users", &[], spec).await
    }

    /// Changes the role.
    pub async fn user_update(&self, name: &str, version: u64, spec: &UserSpec) -> Result<()> {
        let version = version.to_string();
        let path = format!("/rswarm/users/{}/update", escape(name));
        self.post_empty(&path, &[("version", &version)], spec).await
    }

    pub async fn user_remove(&self, name: &str) -> Result<()> {
        self.delete(&format!("/rswarm/users/{}", escape(name)), &[]).await.map(drop)
    }

    pub async fn user_token_create(&self, name: &str, wanted: &NewUserToken) -> Result<GivenUserToken> {
        self.post(&format!("/rswarm/users/{}/tokens", escape(name)), &[], wanted).await
    }

    pub async fn user_token_remove(&self, name: &str, id: &str) -> Result<()> {
        let path = format!("/rswarm/users/{}/tokens/{}", escape(name), escape(id));
        self.delete(&path, &[]).await.map(drop)
    }

    /// Sets a password; an empty one takes it away.
    pub async fn user_password(&self, name: &str, password: &str) -> Result<()> {
        let body = UserPassword { password: password.to_owned() };
        self.post_empty(&format!("/rswarm/users/{}/password", escape(name)), &[], &body).await
    }

    pub async fn user_certificate(
        &self,
        name: &str,
        request: &UserCertificateRequest,
    ) -> Result<UserCertificate> {
        self.post(&format!("/rswarm/users/{}/certificate", escape(name)), &[], request).await
    }

    /// Makes one certificate of a user worth nothing.
    pub async fn user_certificate_revoke(&self, name: &str, serial: &str) -> Result<()> {
        let path = format!("/rswarm/users/{}/certificates/{}", escape(name), escape(serial));
        self.delete(&path, &[]).await.map(drop)
    }

    /// A token for a password.
    pub async fn user_login(&self, login: &UserLogin) -> Result<GivenUserToken> {
        self.post("/rswarm/login", &[], login).await
    }

    pub async fn who_am_i(&self) -> Result<WhoAmI> {
        self.get("/rswarm/whoami", &[]).await
    }

    pub async fn audit(&self, query: Query<'_>) -> Result<Vec<AuditRecord>> {
        self.get("/rswarm/audit", query).await
    }

    // ---- containers

    /// `GET /containers/json`
    pub async fn containers(&self, query: Query<'_>) -> Result<Vec<ContainerSummary<'static>>> {
        self.get("/containers/json", query).await
    }

    /// `GET /rswarm/containers`: of all nodes; not in Docker.
    pub async fn containers_everywhere(&self, query: Query<'_>) -> Result<Vec<NodeContainers>> {
        self.get("/rswarm/containers", query).await
    }

    pub async fn container(&self, id: &str) -> Result<ContainerInspect> {
        self.get(&format!("/containers/{}/json", escape(id)), &[]).await
    }

    pub async fn container_create(&self, name: Option<&str>, config: &ContainerCreate) -> Result<Created> {
        let query: Vec<_> = name.map(|n| ("name", n)).into_iter().collect();
        self.post("/containers/create", &query, config).await
    }

    /// `POST /containers/{id}/{action}` with an empty answer: `start stop restart kill pause unpause rename
    /// resize`.
    pub async fn container_act(&self, id: &str, action: &str, query: Query<'_>) -> Result<()> {
        let path = format!("/containers/{}/{action}", escape(id));
        self.request(Method::POST, &path, query, HeaderMap::new(), Body::empty()).await?;
        Ok(())
    }

    pub async fn container_remove(&self, id: &str, query: Query<'_>) -> Result<()> {
        self.delete(&format!("/containers/{}", escape(id)), query).await.map(drop)
    }

    /// Asks for the exit; the wait is in force when this returns, the answer comes by [`wait_answer`].
    ///
    /// [`wait_answer`]: Self::wait_answer
    pub async fn container_wait(&self, id: &str, condition: &str) -> Result<Exposed> {
        let path = format!("/containers/{}/wait", escape(id));
        self.request(Method::POST, &path, &[("condition", condition)], HeaderMap::new(), Body::empty()).await
    }

    /// Waits for the exit that [`container_wait`](Self::container_wait) asked for.
    pub async fn wait_answer(answer: Exposed) -> Result<ContainerWaited> {
        Ok(parse(&answer.into_body().collect().await?.to_bytes())?)
    }

    /// `POST /containers/{id}/attach`; the query says which streams (`stdin=1` ..).
    pub async fn container_attach(&self, id: &str, query: Query<'_>) -> Result<Hijacked> {
        self.hijack(&format!("/containers/{}/attach", escape(id)), query, &Empty {}).await
    }

    /// `GET /containers/{id}/logs` and its like for services and tasks: `base` is `containers`, `services`
    /// or `tasks`.
    pub async fn logs(&self, base: &str, id: &str, query: Query<'_>) -> Result<Exposed> {
        let path = format!("/{base}/{}/logs", escape(id));
        self.request(Method::GET, &path, query, HeaderMap::new(), Body::empty()).await
    }

    /// `GET /containers/{id}/archive`: a tar stream of `path`.
    pub async fn archive_get(&self, id: &str, path: &str) -> Result<Exposed> {
        let url = format!("/containers/{}/archive", escape(id));
        self.request(Method::GET, &url, &[("path", path)], HeaderMap::new(), Body::empty()).await
    }

    /// `HEAD /containers/{id}/archive`: base64 of what is at `path`; `None` = nothing.
    pub async fn archive_stat(&self, id: &str, path: &str) -> Result<Option<String>> {
        let url = format!("/containers/{}/archive", escape(id));
        let asked =
            self.request(Method::HEAD, &url, &[("path", path)], HeaderMap::new(), Body::empty()).await;
        match asked {
            Ok(answer) => {
                let stat = answer.headers().get("X-Docker-Container-Path-Stat");
                Ok(stat.and_then(|value| value.to_str().ok()).map(str::to_owned))
            }
            Err(Error::Api { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `GET /containers/{id}/export`: a tar stream of the whole file system.
    pub async fn container_export(&self, id: &str) -> Result<Exposed> {
        let path = format!("/containers/{}/export", escape(id));
        self.request(Method::GET, &path, &[], HeaderMap::new(), Body::empty()).await
    }

    /// `POST /auth`
    pub async fn login(&self, account: &AuthConfig) -> Result<AuthAnswer> {
        self.post("/auth", &[], account).await
    }

    /// `PUT /containers/{id}/archive`: unpacks a tar stream into the folder `path`.
    pub async fn archive_put(&self, id: &str, query: Query<'_>, tar: Body) -> Result<()> {
        let url = format!("/containers/{}/archive", escape(id));
        self.request(Method::PUT, &url, query, HeaderMap::new(), tar).await?;
        Ok(())
    }

    pub async fn exec_create(&self, id: &str, exec: &ExecCreate) -> Result<Created> {
        self.post(&format!("/containers/{}/exec", escape(id)), &[], exec).await
    }

    pub async fn exec_start(&self, exec: &str, start: &ExecStart) -> Result<Hijacked> {
        self.hijack(&format!("/exec/{}/start", escape(exec)), &[], start).await
    }

    pub async fn exec_start_detached(&self, exec: &str) -> Result<()> {
        let start = ExecStart { detach: true, ..ExecStart::default() };
        self.post_empty(&format!("/exec/{}/start", escape(exec)), &[], &start).await
    }

    pub async fn exec(&self, exec: &str) -> Result<ExecInspect> {
        self.get(&format!("/exec/{}/json", escape(exec)), &[]).await
    }

    /// Returns the code with which a command ended whose streams have: the daemon may learn it a moment later.
    ///
    /// # Errors
    /// [`Error::Unended`]: it does not say one within ten seconds.
    pub async fn exec_code(&self, exec: &str) -> Result<i32> {
        self.exec_code_within(exec, EXIT_CODE_LIMIT).await
    }

    pub(super) async fn exec_code_within(&self, exec: &str, limit: Duration) -> Result<i32> {
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            if let Some(code) = self.exec(exec).await?.exit_code {
                return Ok(code);
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(Error::Unended(limit));
            }
            tokio::time::sleep(EXIT_CODE_AGAIN).await;
        }
    }

    /// `POST /{containers|exec}/{id}/resize`
    pub async fn resize(&self, base: &str, id: &str, rows: u16, columns: u16) -> Result<()> {
        let (h, w) = (rows.to_string(), columns.to_string());
        let path = format!("/{base}/{}/resize", escape(id));
        self.request(Method::POST, &path, &[("h", &h), ("w", &w)], HeaderMap::new(), Body::empty()).await?;
        Ok(())
    }

    // ---- images

    pub async fn images(&self, query: Query<'_>) -> Result<Vec<ImageSummary>> {
        self.get("/images/json", query).await
    }

    pub async fn image(&self, name: &str) -> Result<ImageInspect> {
        self.get(&format!("/images/{}/json", escape(name)), &[]).await
    }

    pub async fn image_history(&self, name: &str) -> Result<Vec<ImageHistory>> {
        self.get(&format!("/images/{}/history", escape(name)), &[]).await
    }

    pub async fn image_tag(&self, name: &str, repo: &str, tag: &str) -> Result<()> {
        let path = format!("/images/{}/tag", escape(name));
        let query = [("repo", repo), ("tag", tag)];
        self.request(Method::POST, &path, &query, HeaderMap::new(), Body::empty()).await?;
        Ok(())
    }

    pub async fn image_remove(&self, name: &str, query: Query<'_>) -> Result<Vec<ImageDeleted>> {
        Ok(parse(&self.delete(&format!("/images/{}", escape(name)), query).await?)?)
    }

    /// `POST /images/create?fromImage=..`
    pub async fn image_pull(&self, query: Query<'_>, auth: HeaderMap) -> Result<JsonLines<JsonMessage>> {
        self.lines(Method::POST, "/images/create", query, auth).await
    }

    /// `POST /build`: a tar of the context. The answer begins when the first step has.
    pub async fn image_build(
        &self,
        query: Query<'_>,
        headers: HeaderMap,
        context: Body,
    ) -> Result<JsonLines<JsonMessage>> {
        self.upload(Method::POST, "/build", query, headers, context).await
    }

    pub async fn image_push(&self, name: &str, tag: &str, auth: HeaderMap) -> Result<JsonLines<JsonMessage>> {
        self.lines(Method::POST, &format!("/images/{}/push", escape(name)), &[("tag", tag)], auth).await
    }

    pub async fn image_load(&self, query: Query<'_>, archive: Body) -> Result<JsonLines<JsonMessage>> {
        self.upload(Method::POST, "/images/load", query, HeaderMap::new(), archive).await
    }

    /// `POST /images/create?fromSrc=-`: a root file system as an image.
    pub async fn image_import(&self, query: Query<'_>, archive: Body) -> Result<JsonLines<JsonMessage>> {
        self.upload(Method::POST, "/images/create", query, HeaderMap::new(), archive).await
    }

    /// `GET /images/get?names=..`: a docker-archive of several images.
    pub async fn image_save(&self, names: &[&str]) -> Result<Exposed> {
        let query: Vec<_> = names.iter().map(|n| ("names", *n)).collect();
        self.request(Method::GET, "/images/get", &query, HeaderMap::new(), Body::empty()).await
    }

    /// The manifest a reference stands for: asked of this host, the swarm, then the registry.
    /// `headers`: [`registry_auth`](super::registry_auth), or none.
    pub async fn distribution(&self, name: &str, headers: HeaderMap) -> Result<DistributionInspect> {
        self.get_with(&format!("/distribution/{}/json", escape(name)), &[], headers).await
    }

    // ---- volumes

    pub async fn volumes(&self, query: Query<'_>) -> Result<VolumeList> {
        self.get("/volumes", query).await
    }

    pub async fn volume(&self, name: &str) -> Result<Volume> {
        self.get(&format!("/volumes/{}", escape(name)), &[]).await
    }

    pub async fn volume_create(&self, volume: &VolumeCreate) -> Result<Volume> {
        self.post("/volumes/create", &[], volume).await
    }

    pub async fn volume_remove(&self, name: &str, force: bool) -> Result<()> {
        self.delete(&format!("/volumes/{}", escape(name)), &[("force", bool_text(force))]).await.map(drop)
    }

    /// `GET /rswarm/volumes/{name}/archive`: a tar stream of all that a volume holds.
    pub async fn volume_export(&self, name: &str) -> Result<Exposed> {
        let path = format!("/rswarm/volumes/{}/archive", escape(name));
        self.request(Method::GET, &path, &[], HeaderMap::new(), Body::empty()).await
    }

    /// `PUT /rswarm/volumes/{name}/archive`: fills a volume with a tar stream, or with `from` in the query with what
    /// another volume holds; `force` replaces content.
    pub async fn volume_import(&self, name: &str, query: Query<'_>, tar: Body) -> Result<Volume> {
        let path = format!("/rswarm/volumes/{}/archive", escape(name));
        let answer = self.request(Method::PUT, &path, query, HeaderMap::new(), tar).await?;
        Ok(parse(&answer.into_body().collect().await?.to_bytes())?)
    }

    /// `POST /{containers|images|networks|volumes}/prune`
    pub async fn prune<T: Wire>(&self, kind: &str, query: Query<'_>) -> Result<T> {
        self.post(&format!("/{kind}/prune"), query, &Empty {}).await
    }
}

fn bool_text(value: bool) -> &'static str {
    if value { "1" } else { "0" }
}
