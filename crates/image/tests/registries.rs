//! Pull and push: against Debian's `docker-registry` with `skopeo` as the other party, and against a registry of our
//! own that misbehaves on purpose.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use futures::{StreamExt, stream};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Frame, Incoming},
    header::{AUTHORIZATION, HeaderValue, RANGE},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use image::{
    Auth, BlobSource, BoxAsyncRead, Digest, Error, Image, ImportOptions, Manifest, Plugins, Progress,
    PullOptions, PushOptions, Reference, RegistryOptions, SourceError, Store,
};
use std::{
    collections::BTreeMap,
    io::{self, Cursor},
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, task::JoinSet};

fn tarball(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, *content).unwrap();
    }
    tar.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

async fn store() -> (Store, tempfile::TempDir) {
    let root = tempfile::tempdir().unwrap();
    (Store::open(root.path(), false).await.unwrap(), root)
}

async fn import(store: &Store, name: &str, tar: Vec<u8>) -> Image {
    let options = ImportOptions { reference: Some(name.parse().unwrap()), ..ImportOptions::default() };
    let id = store.import(Cursor::new(tar), options).await.unwrap();
    store.by_id(&id).await.unwrap()
}

/// Collects progress while something runs.
fn progress() -> (mpsc::Sender<Progress>, mpsc::Receiver<Progress>) {
    mpsc::channel(10_000)
}

fn said(receiver: &mut mpsc::Receiver<Progress>) -> Vec<String> {
    std::iter::from_fn(|| receiver.try_recv().ok()).map(|line| line.status).collect()
}

async fn pull(store: &Store, name: &str, options: PullOptions) -> Result<Image, Error> {
    let (sender, _) = mpsc::channel(1);
    store.pull(&name.parse().unwrap(), options, sender).await
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The password of `ann` in Debian's registry, and as htpasswd(1) keeps it, bcrypt.
const PASSWORD: &str = "correct-horse-battery";
const HTPASSWD: &str = "ann:$2b$05$1kY5hN.1UA17vcdenB7ZLOSC2PVfFws79OMZ36JmQ5Uh1kzi4wKLC\n";

/// Debian's registry on a loopback port, which lets Ann in.
struct DebianRegistry {
    process: Child,
    host: String,
    _directory: tempfile::TempDir,
}

impl DebianRegistry {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let host = format!("127.0.0.1:{}", free_port());
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {f}/data}}, delete: {{enabled: true}}}}\nhttp: {{addr: \"{host}\"}}\nauth: {{htpasswd: {{realm: test, path: {f}/htpasswd}}}}\n",
            f = directory.path().display()
        );
        std::fs::write(directory.path().join("htpasswd"), HTPASSWD).unwrap();
        let path = directory.path().join("config.yml");
        std::fs::write(&path, config).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is installed (Debian package docker-registry; CI installs it)");
        let registry = Self { process, host, _directory: directory };
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(&registry.host).is_err() {
            assert!(Instant::now() < deadline, "docker-registry does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
        registry
    }
}

impl Drop for DebianRegistry {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Ann, whom Debian's registry lets in.
fn ann() -> Option<Auth> {
    Some(Auth::Basic { username: "ann".into(), password: PASSWORD.into() })
}

async fn skopeo(arguments: &[&str]) -> String {
    let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    let run = move || Command::new("skopeo").args(arguments).output();
    let output =
        tokio::task::spawn_blocking(run).await.unwrap().expect("skopeo is installed (CI installs it)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
#[ignore = "oracle: docker-registry, skopeo"]
async fn pushed_image_is_read_by_skopeo_and_pulled_back_the_same() {
    let registry = DebianRegistry::start();
    let (ours, _root) = store().await;
    let name = format!("{}/team/demo:1", registry.host);
    let image = import(&ours, &name, gzip(&tarball(&[("a", &noise(300_000)), ("b", b"b")]))).await;
    let (sender, mut lines) = progress();
    let digest = ours
        .push(&name.parse().unwrap(), PushOptions { auth: ann(), ..PushOptions::default() }, sender)
        .await
        .unwrap();
    assert_eq!(digest, image.manifest);
    assert!(said(&mut lines).contains(&"Pushed".to_owned()));
    let inspected = skopeo(&[
        "inspect",
        "--tls-verify=false",
        "--creds",
        &format!("ann:{PASSWORD}"),
        &format!("docker://{name}"),
    ])
    .await;
    assert!(inspected.contains(&digest.to_string()), "{inspected}");

    let (sender, mut lines) = progress();
    ours.push(&name.parse().unwrap(), PushOptions { auth: ann(), ..PushOptions::default() }, sender)
        .await
        .unwrap();
    assert!(said(&mut lines).contains(&"Layer already exists".to_owned()));
    let other_name = format!("{}/other/demo:2", registry.host);
    ours.tag(&name, &other_name.parse().unwrap()).await.unwrap();
    let (sender, mut lines) = progress();
    ours.push(&other_name.parse().unwrap(), PushOptions { auth: ann(), ..PushOptions::default() }, sender)
        .await
        .unwrap();
    let lines = said(&mut lines);
    assert!(lines.contains(&"Mounted from team/demo".to_owned()), "{lines:?}");

    let (theirs, _root) = store().await;
    let (sender, mut lines) = progress();
    let pulled = theirs
        .pull(&name.parse().unwrap(), PullOptions { auth: ann(), ..PullOptions::default() }, sender)
        .await
        .unwrap();
    assert_eq!((pulled.id, pulled.manifest), (image.id, image.manifest));
    assert_eq!(pulled.repo_digests, [format!("{}/team/demo@{digest}", registry.host)]);
    let lines = said(&mut lines);
    for expected in ["Pulling from team/demo", "Pulling fs layer", "Download complete", "Pull complete"] {
        assert!(lines.iter().any(|line| line == expected), "{expected} in {lines:?}");
    }
    assert_eq!(lines.last().unwrap(), &format!("Status: Downloaded newer image for {name}"));
    let layers = theirs.rootfs(&pulled.id).await.unwrap();
    assert_eq!(layers.read_file("a").unwrap().unwrap(), noise(300_000));
    let pinned = format!("{name}@{digest}");
    let stranger = pull(&theirs, &pinned, PullOptions::default()).await.unwrap_err();
    assert!(matches!(stranger, Error::Denied { .. }), "{stranger}");
    assert_eq!(
        pull(&theirs, &pinned, PullOptions { auth: ann(), ..PullOptions::default() }).await.unwrap().id,
        image.id
    );
}

async fn plugins(root: &std::path::Path) -> (Plugins, Store) {
    let images = Store::open(&root.join("images"), false).await.unwrap();
    (Plugins::open(&root.join("plugins"), &images).await.unwrap(), images)
}

#[tokio::test]
async fn a_plugin_comes_back_from_a_registry_as_it_was_pushed_and_an_image_is_none() {
    let registry = Fake::new(Behaviour::default()).await;
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (maker, _) = plugins(here.path()).await;
    let name: Reference = format!("{}/dan/plug:1", registry.host).parse().unwrap();
    let tar = tarball(&[("config.json", b"{}"), ("rootfs/run", &noise(300_000))]);
    let context = maker.read(Cursor::new(tar)).await.unwrap();
    let config = b"{\"Entrypoint\":[]}".to_vec();
    let made = maker.create(&name, context, config, serde_json::json!(1)).await.unwrap();
    let (sender, mut lines) = progress();
    let registries = RegistryOptions::default();
    let digest = maker.push(&name.to_string(), None, &registries, &sender).await.unwrap();
    let pushed = said(&mut lines);
    assert!(pushed.last().unwrap().starts_with(&format!("1: digest: {digest} size: ")), "{pushed:?}");
    let kept = registry.manifest("dan/plug:1");
    // Docker's types, which its own daemon and its registry ask for.
    assert_eq!(kept.media_type, "application/vnd.docker.distribution.manifest.v2+json");
    let kept: serde_json::Value = serde_json::from_slice(&kept.bytes).unwrap();
    assert_eq!(kept["config"]["mediaType"], "application/vnd.docker.plugin.v1+json");
    assert_eq!(kept["layers"][0]["mediaType"], "application/vnd.docker.image.rootfs.diff.tar.gzip");

    let (taker, _images) = plugins(there.path()).await;
    let remote = taker.look_at(&name, None, &registries).await.unwrap();
    assert_eq!(remote.config, made.config);
    let called = "other:2".parse().unwrap();
    let got = taker.install(&called, remote, serde_json::json!(2), None, &sender).await.unwrap();
    assert_eq!(
        (got.name.as_str(), &got.reference, &got.config),
        ("other:2", &name.to_string(), &made.config)
    );
    let blobs = |root: &std::path::Path| -> std::collections::BTreeSet<_> {
        let names = std::fs::read_dir(root.join("plugins/blobs/sha256")).unwrap();
        names.map(|name| name.unwrap().file_name()).collect()
    };
    assert_eq!(blobs(here.path()), blobs(there.path()));
    // In its own place.
    let again = taker.look_at(&name.with_digest(digest), None, &registries).await.unwrap();
    let replaced = Some(got.id.clone());
    let same = taker.install(&called, again, serde_json::json!(3), replaced, &sender).await.unwrap();
    assert_eq!((same.id, same.settings), (got.id, serde_json::json!(3)));
    assert_eq!(taker.list().await.unwrap().len(), 1);

    let image = registry.publish("image:1", tarball(&[("a", b"b")])).await.parse().unwrap();
    let none = taker.look_at(&image, None, &registries).await.unwrap_err().to_string();
    assert!(none.contains("is none: the registry has a document of type application/vnd.oci"), "{none}");
    let unknown = format!("{}/dan/nope", registry.host).parse().unwrap();
    assert!(taker.look_at(&unknown, None, &registries).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_plugin_whose_layer_is_another_than_was_promised_is_refused_and_leaves_nothing() {
    let registry = Fake::new(Behaviour::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let (plugins, _) = plugins(dir.path()).await;
    let name: Reference = format!("{}/plug:1", registry.host).parse().unwrap();
    let context =
        plugins.read(Cursor::new(tarball(&[("config.json", b"{}"), ("rootfs/run", b"x")]))).await.unwrap();
    plugins.create(&name, context, b"{}".to_vec(), serde_json::Value::Null).await.unwrap();
    let (sender, _lines) = progress();
    let registries = RegistryOptions::default();
    plugins.push(&name.to_string(), None, &registries, &sender).await.unwrap();
    plugins.remove(&name.to_string()).await.unwrap();

    let remote = plugins.look_at(&name, None, &registries).await.unwrap();
    registry.state.lock().unwrap().blobs.values_mut().for_each(|blob| {
        let mut wrong = blob.to_vec();
        wrong[0] ^= 1;
        *blob = wrong.into();
    });
    let wrong = plugins.install(&name, remote, serde_json::Value::Null, None, &sender).await.unwrap_err();
    assert!(matches!(wrong, Error::DigestMismatch { what: "blob", .. }), "{wrong}");
    assert!(plugins.list().await.unwrap().is_empty());
    for folder in ["ingest", "blobs/sha256", "records"] {
        let left = std::fs::read_dir(dir.path().join("plugins").join(folder)).unwrap().count();
        assert_eq!(left, 0, "{folder}");
    }
}

#[tokio::test]
async fn a_token_for_a_plugin_is_asked_for_as_one() {
    let fake = Fake::new(Behaviour { bearer: true, ..Behaviour::default() }).await;
    let dir = tempfile::tempdir().unwrap();
    let (plugins, _) = plugins(dir.path()).await;
    let auth = Auth::Basic { username: "ann".to_owned(), password: "secret".to_owned() };
    let name = format!("{}/a/plug", fake.host).parse().unwrap();
    let missing = plugins.look_at(&name, Some(auth), &RegistryOptions::default()).await.unwrap_err();
    assert!(missing.is_not_found(), "{missing}");
    let asked = fake.requests("GET", "/token");
    assert!(asked.iter().all(|line| line.contains("plugin") && line.contains("a%2Fplug")), "{asked:?}");
    assert_eq!(asked.len(), 1, "{asked:?}");
}

#[tokio::test]
#[ignore = "oracle: docker-registry, skopeo"]
async fn schema_2_manifests_of_docker_are_pulled_and_unknown_names_are_told_in_dockers_words() {
    let registry = DebianRegistry::start();
    let (ours, root) = store().await;
    let image = import(&ours, "demo:1", tarball(&[("a", b"a")])).await;
    let path = root.path().join("demo.tar");
    ours.save(&["demo:1".to_owned()], tokio::fs::File::create(&path).await.unwrap()).await.unwrap();
    let name = format!("{}/schema2:latest", registry.host);
    let from = format!("docker-archive:{}:demo:1", path.display());
    let to = format!("docker://{name}");
    skopeo(&[
        "copy",
        "-q",
        "--insecure-policy",
        "--dest-tls-verify=false",
        &format!("--dest-creds=ann:{PASSWORD}"),
        "--format=v2s2",
        &from,
        &to,
    ])
    .await;
    let (theirs, _root) = store().await;
    let pulled = pull(&theirs, &name, PullOptions { auth: ann(), ..PullOptions::default() }).await.unwrap();
    assert_eq!(pulled.id, image.id, "skopeo compressed the layer, the configuration stayed");
    assert_ne!(pulled.manifest, image.manifest);
    let missing = pull(
        &theirs,
        &format!("{}/nothing:7", registry.host),
        PullOptions { auth: ann(), ..PullOptions::default() },
    )
    .await
    .unwrap_err();
    assert_eq!(
        missing.to_string(),
        format!("manifest for {}/nothing:7 not found: manifest unknown", registry.host)
    );
    assert!(missing.is_not_found());
}

#[tokio::test]
async fn twenty_pulls_at_once_fetch_each_blob_once() {
    let fake = Fake::new(Behaviour::default()).await;
    let name = fake.publish("load/demo:1", tarball(&[("a", &noise(100_000))])).await;
    let (ours, _root) = store().await;
    let pulls = (0..20).map(|_| pull(&ours, &name, PullOptions::default()));
    let images = futures::future::join_all(pulls).await;
    assert!(images.iter().all(|image| image.as_ref().unwrap().id == images[0].as_ref().unwrap().id));
    assert_eq!(fake.requests("GET", "/blobs/").len(), 2, "one configuration, one layer");
}

#[tokio::test]
async fn a_bearer_token_is_fetched_once_and_never_follows_a_redirect() {
    let storage = Fake::new(Behaviour::default()).await;
    let behaviour =
        Behaviour { bearer: true, redirect_blobs_to: Some(storage.host.clone()), ..Behaviour::default() };
    let fake = Fake::new(behaviour).await;
    let name = fake.publish("private/demo:1", tarball(&[("a", b"a")])).await;
    storage.copy_from(&fake);
    let (ours, _root) = store().await;
    let denied = pull(&ours, &name, PullOptions::default()).await.unwrap_err();
    assert!(matches!(denied, Error::Denied { .. }), "{denied}");
    let auth = Some(Auth::Basic { username: "ann".into(), password: "secret".into() });
    pull(&ours, &name, PullOptions { auth: auth.clone(), ..PullOptions::default() }).await.unwrap();
    let tokens = fake.requests("GET", "/token");
    assert_eq!(tokens.len(), 2, "one without a name, one with: {tokens:?}");
    assert!(
        tokens[1].contains("scope=repository%3Aprivate%2Fdemo%3Apull&")
            || tokens[1].ends_with("scope=repository%3Aprivate%2Fdemo%3Apull")
    );
    let blobs = storage.requests("GET", "/blobs/");
    assert!(blobs.len() >= 2 && blobs.iter().all(|line| line.ends_with("authorization=-")), "{blobs:?}");
}

#[tokio::test]
async fn busy_servers_are_waited_for_and_broken_downloads_resumed() {
    let fake = Fake::new(Behaviour { busy_first: 2, cut_blobs: true, ..Behaviour::default() }).await;
    let name = fake.publish("slow/demo:1", gzip(&tarball(&[("a", &noise(400_000))]))).await;
    let (ours, _root) = store().await;
    let image = pull(&ours, &name, PullOptions::default()).await.unwrap();
    let layers = ours.rootfs(&image.id).await.unwrap();
    assert_eq!(layers.read_file("a").unwrap().unwrap(), noise(400_000));
    let blobs = fake.requests("GET", "/blobs/");
    assert!(blobs.iter().any(|line| line.contains("range=bytes=")), "{blobs:?}");
}

#[tokio::test]
async fn wrong_bytes_are_refused_and_leave_no_image() {
    let fake = Fake::new(Behaviour { corrupt_blobs: true, ..Behaviour::default() }).await;
    let name = fake.publish("evil/demo:1", tarball(&[("a", &noise(1000))])).await;
    let (ours, root) = store().await;
    let error = pull(&ours, &name, PullOptions::default()).await.unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
    assert!(ours.list().await.is_empty());
    assert_eq!(std::fs::read_dir(root.path().join("blobs/sha256")).unwrap().count(), 0);
}

#[tokio::test]
async fn the_manifest_of_this_platform_is_chosen_and_the_index_kept_for_peers() {
    let fake = Fake::new(Behaviour::default()).await;
    let name = fake.publish("multi/amd:1", tarball(&[("a", b"a")])).await;
    let amd: Manifest = fake.manifest("multi/amd:1");
    let here = std::env::consts::ARCH.replace("x86_64", "amd64").replace("aarch64", "arm64");
    let index = format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.index.v1+json\",\"manifests\":[\
         {{\"mediaType\":\"{0}\",\"digest\":\"{1}\",\"size\":2,\"platform\":{{\"architecture\":\"s390x\",\"os\":\"linux\"}}}},\
         {{\"mediaType\":\"{0}\",\"digest\":\"{2}\",\"size\":{3},\"platform\":{{\"architecture\":\"{here}\",\"os\":\"linux\"}}}}]}}",
        amd.media_type,
        Digest::of(b"{}"),
        amd.digest,
        amd.bytes.len()
    );
    let index = Manifest::new("application/vnd.oci.image.index.v1+json", index.into());
    fake.add_manifest("multi/amd", "many", &index);
    let (ours, _root) = store().await;
    let many = name.replace(":1", ":many");
    let image = pull(&ours, &many, PullOptions::default()).await.unwrap();
    assert_eq!(image.manifest, index.digest, "services pin the index");
    let reference: Reference = many.parse().unwrap();
    assert_eq!(ours.manifest_for(&reference).await.unwrap(), index);
    let s390x = PullOptions { platform: Some("linux/riscv64".parse().unwrap()), ..PullOptions::default() };
    let error = pull(&ours, &many, s390x).await.unwrap_err();
    assert_eq!(error.to_string(), "no matching manifest for linux/riscv64 in the manifest list entries");

    // No registry at all: another node gives it, index and all.
    let (theirs, _root) = store().await;
    let peer: Arc<dyn BlobSource> = Arc::new(Peer { store: ours, lies: false });
    let options = PullOptions { peers: vec![peer], peers_only: true, ..PullOptions::default() };
    let copy = pull(&theirs, &reference.with_digest(index.digest).to_string(), options).await.unwrap();
    assert_eq!((copy.id, copy.manifest), (image.id, index.digest));
    assert_eq!(copy.repo_tags, [many]);
}

#[tokio::test]
async fn imported_images_come_from_peers_and_a_lying_peer_is_passed_over() {
    let (ours, _root) = store().await;
    let image = import(&ours, "local/only:1", tarball(&[("a", &noise(50_000))])).await;
    let liar: Arc<dyn BlobSource> = Arc::new(Peer { store: ours.clone(), lies: true });
    let honest: Arc<dyn BlobSource> = Arc::new(Peer { store: ours, lies: false });
    let (theirs, root) = store().await;
    let options = |peers: &[&Arc<dyn BlobSource>]| PullOptions {
        peers: peers.iter().map(|peer| Arc::clone(peer)).collect(),
        peers_only: true,
        ..PullOptions::default()
    };
    let error = pull(&theirs, "local/only:1", options(&[&liar])).await.unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
    let copy = pull(&theirs, "local/only:1", options(&[&liar, &honest])).await.unwrap();
    assert_eq!((copy.id, copy.manifest), (image.id, image.manifest));
    assert_eq!(theirs.rootfs(&copy.id).await.unwrap().read_file("a").unwrap().unwrap(), noise(50_000));
    assert_eq!(std::fs::read_dir(root.path().join("ingest")).unwrap().count(), 0);
    let error = pull(&theirs, "nobody/has:1", options(&[&honest])).await.unwrap_err();
    assert!(matches!(error, Error::ManifestUnknown { .. }), "{error}");
}

/// Another node, without the network between.
#[derive(Debug)]
struct Peer {
    store: Store,
    lies: bool,
}

#[async_trait::async_trait]
impl BlobSource for Peer {
    async fn resolve(&self, reference: &Reference) -> Result<Option<Manifest>, SourceError> {
        Ok(self.store.manifest_for(reference).await)
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<Option<BoxAsyncRead>, SourceError> {
        let Some(path) = self.store.blob_path(digest) else { return Ok(None) };
        let mut bytes = tokio::fs::read(path).await?;
        if self.lies {
            bytes[0] ^= 1;
        }
        Ok(Some(Box::pin(Cursor::new(bytes.split_off(usize::try_from(offset)?)))))
    }

    fn name(&self) -> String {
        "peer".to_owned()
    }
}

/// How the fake registry behaves.
#[derive(Debug, Clone, Default)]
struct Behaviour {
    /// Wants a token for `ann`, who is `secret`.
    bearer: bool,
    /// Answers so many requests with 429 first.
    busy_first: usize,
    /// Sends no more than half of what is left of a blob, until little is left.
    cut_blobs: bool,
    corrupt_blobs: bool,
    redirect_blobs_to: Option<String>,
}

/// A registry in this process.
#[derive(Clone)]
struct Fake {
    host: String,
    behaviour: Behaviour,
    state: Arc<Mutex<State>>,
    /// What it ends with; the server itself has it not.
    _serving: Option<Arc<JoinSet<()>>>,
}

#[derive(Default)]
struct State {
    blobs: BTreeMap<String, Bytes>,
    /// `repository:tag` and `repository:digest`.
    manifests: BTreeMap<String, Manifest>,
    log: Vec<String>,
    busy: usize,
}

type Answer = Response<BoxBody<Bytes, io::Error>>;

fn answer(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let body = http_body_util::Full::new(body.into()).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

impl Fake {
    async fn new(behaviour: Behaviour) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let busy = behaviour.busy_first;
        let state = Arc::new(Mutex::new(State { busy, ..State::default() }));
        let fake = Self { host, behaviour, state, _serving: None };
        let server = fake.clone();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let server = server.clone();
                let serve = service_fn(move |request: Request<Incoming>| {
                    let server = server.clone();
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
                        Ok::<_, io::Error>(server.serve(&Request::from_parts(head, body)))
                    }
                });
                connections.spawn(async move {
                    // Broken connections are what the tests are about.
                    drop(
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), serve)
                            .await,
                    );
                });
            }
        });
        Self { _serving: Some(Arc::new(serving)), ..fake }
    }

    /// Takes in an image made by a store of ours; returns its full name.
    async fn publish(&self, name: &str, tar: Vec<u8>) -> String {
        let (store, _root) = store().await;
        let image = import(&store, name, tar).await;
        let manifest = store.manifest_for(&name.parse().unwrap()).await.unwrap();
        let parsed: serde_json::Value = serde_json::from_slice(&manifest.bytes).unwrap();
        let layers = parsed["layers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|layer| layer["digest"].as_str().unwrap().to_owned());
        for digest in layers.chain([image.id.to_string()]) {
            let path = store.blob_path(&digest.parse().unwrap()).unwrap();
            self.state.lock().unwrap().blobs.insert(digest, std::fs::read(path).unwrap().into());
        }
        let (repository, tag) = name.split_once(':').unwrap();
        self.add_manifest(repository, tag, &manifest);
        format!("{}/{name}", self.host)
    }

    fn add_manifest(&self, repository: &str, tag: &str, manifest: &Manifest) {
        let mut state = self.state.lock().unwrap();
        state.manifests.insert(format!("{repository}:{tag}"), manifest.clone());
        state.manifests.insert(format!("{repository}:{}", manifest.digest), manifest.clone());
    }

    fn manifest(&self, name: &str) -> Manifest {
        self.state.lock().unwrap().manifests[name].clone()
    }

    fn copy_from(&self, other: &Self) {
        let blobs = other.state.lock().unwrap().blobs.clone();
        self.state.lock().unwrap().blobs = blobs;
    }

    fn requests(&self, method: &str, part: &str) -> Vec<String> {
        let log = &self.state.lock().unwrap().log;
        log.iter().filter(|line| line.starts_with(method) && line.contains(part)).cloned().collect()
    }

    fn serve(&self, request: &Request<Bytes>) -> Answer {
        let header = |name| {
            request.headers().get(name).and_then(|v: &HeaderValue| v.to_str().ok()).unwrap_or("-").to_owned()
        };
        let (authorization, range) = (header(AUTHORIZATION), header(RANGE));
        let path = request.uri().path_and_query().unwrap().to_string();
        let mut state = self.state.lock().unwrap();
        let shown = if path.starts_with("/token") {
            String::new()
        } else {
            format!(" range={range} authorization={authorization}")
        };
        state.log.push(format!("{} {path}{shown}", request.method()));
        if path.starts_with("/token") {
            let good = authorization == "Basic YW5uOnNlY3JldA==";
            let status = if good { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
            return answer(status, "{\"token\":\"good\",\"expires_in\":300}");
        }
        if self.behaviour.bearer && authorization != "Bearer good" {
            let mut response = answer(
                StatusCode::UNAUTHORIZED,
                "{\"errors\":[{\"code\":\"UNAUTHORIZED\",\"message\":\"no\"}]}",
            );
            let challenge = format!("Bearer realm=\"http://{}/token\",service=\"fake\"", self.host);
            response.headers_mut().insert("www-authenticate", challenge.parse().unwrap());
            return response;
        }
        if path == "/v2/" {
            return answer(StatusCode::OK, "{}");
        }
        if state.busy > 0 {
            state.busy -= 1;
            let mut response = answer(StatusCode::TOO_MANY_REQUESTS, "");
            response.headers_mut().insert("retry-after", HeaderValue::from_static("0"));
            return response;
        }
        let path = path.trim_start_matches("/v2/");
        if *request.method() == Method::POST {
            let mut response = answer(StatusCode::ACCEPTED, "");
            response.headers_mut().insert("location", format!("/v2/{path}1").parse().unwrap());
            return response;
        }
        if *request.method() == Method::PUT {
            let bytes = request.body().clone();
            if let Some((repository, tag)) = path.split_once("/manifests/") {
                let manifest = Manifest::new("", bytes);
                state.manifests.insert(format!("{repository}:{}", manifest.digest), manifest.clone());
                state.manifests.insert(format!("{repository}:{tag}"), manifest);
            } else {
                state.blobs.insert(path.split_once("?digest=").unwrap().1.to_owned(), bytes);
            }
            return answer(StatusCode::CREATED, "");
        }
        if let Some((repository, wanted)) = path.split_once("/manifests/") {
            return match state.manifests.get(&format!("{repository}:{wanted}")) {
                Some(manifest) => {
                    let mut response = answer(StatusCode::OK, manifest.bytes.clone());
                    response.headers_mut().insert("content-type", manifest.media_type.parse().unwrap());
                    response
                }
                None => answer(StatusCode::NOT_FOUND, ""),
            };
        }
        let digest = path.rsplit('/').next().unwrap();
        if let Some(host) = &self.behaviour.redirect_blobs_to {
            let mut response = answer(StatusCode::TEMPORARY_REDIRECT, "");
            response.headers_mut().insert("location", format!("http://{host}/v2/{path}").parse().unwrap());
            return response;
        }
        match state.blobs.get(digest).cloned() {
            Some(bytes) => self.blob(bytes, &range),
            None => answer(StatusCode::NOT_FOUND, ""),
        }
    }

    fn blob(&self, bytes: Bytes, range: &str) -> Answer {
        let offset: usize =
            range.strip_prefix("bytes=").map_or(0, |range| range.trim_end_matches('-').parse().unwrap());
        let mut rest = bytes.slice(offset..);
        let length = rest.len();
        if self.behaviour.corrupt_blobs {
            let mut wrong = rest.to_vec();
            wrong[0] ^= 1;
            rest = wrong.into();
        }
        let cut = self.behaviour.cut_blobs && length > 10_000;
        let sent = if cut { rest.slice(..length / 2) } else { rest };
        let end = stream::iter(cut.then_some(())).then(|()| async {
            // Lets the server send what it has before the line breaks.
            tokio::task::yield_now().await;
            Err(io::Error::other("cut"))
        });
        let frames = stream::iter([Ok(Frame::data(sent))]).chain(end);
        let mut response = Response::new(BodyExt::boxed(StreamBody::new(frames)));
        response.headers_mut().insert("content-length", length.into());
        if offset > 0 {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
        response
    }
}
