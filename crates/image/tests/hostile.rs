//! A registry that lies: whatever it answers to a pull, it gets no memory, no time without end, no file elsewhere and no
//! request of ours to another server, and no image comes of it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{AUTHORIZATION, CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use image::{Auth, Digest, Error, ImportOptions, PullOptions, PushOptions, Store};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinSet};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

#[derive(Clone, Default)]
struct Said {
    status: u16,
    kind: String,
    to: String,
    /// What it wants to see first.
    challenge: String,
    body: Bytes,
}

fn says(kind: &str, body: impl Into<Bytes>) -> Said {
    Said { status: 200, kind: kind.to_owned(), body: body.into(), ..Said::default() }
}

fn leads(to: &str) -> Said {
    Said { status: 307, to: to.to_owned(), ..Said::default() }
}

/// A server that answers by the last part of the path.
#[derive(Clone, Default)]
struct Liar {
    answers: Arc<Mutex<BTreeMap<String, Said>>>,
    asked: Arc<Mutex<Vec<String>>>,
    /// Accounts and tokens that it was shown.
    shown: Arc<Mutex<Vec<String>>>,
    /// What it ends with; the server itself has it not.
    _serving: Option<Arc<JoinSet<()>>>,
}

impl Liar {
    /// Returns it with its address.
    async fn start() -> (Self, String) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let liar = Self::default();
        let server = liar.clone();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let server = server.clone();
                let serve = service_fn(move |request: Request<Incoming>| {
                    let answer = server.answer(&request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                connections.spawn(connection.serve_connection(TokioIo::new(stream), serve));
            }
        });
        (Self { _serving: Some(Arc::new(serving)), ..liar }, host)
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        self.asked.lock().unwrap().push(path.to_owned());
        let shown = request.headers().get(AUTHORIZATION);
        self.shown.lock().unwrap().extend(shown.map(|shown| shown.to_str().unwrap().to_owned()));
        let name = path.rsplit('/').next().unwrap_or_default();
        let said = match path {
            "/v2/" => says("application/json", "{}"),
            _ => self
                .answers
                .lock()
                .unwrap()
                .get(name)
                .cloned()
                .unwrap_or(Said { status: 404, ..Said::default() }),
        };
        let mut response = Response::new(Full::new(said.body));
        *response.status_mut() = StatusCode::from_u16(said.status).unwrap();
        for (name, value) in
            [(CONTENT_TYPE, &said.kind), (LOCATION, &said.to), (WWW_AUTHENTICATE, &said.challenge)]
        {
            if !value.is_empty() {
                response.headers_mut().insert(name, value.parse().unwrap());
            }
        }
        response
    }

    fn will(&self, name: &str, said: Said) {
        self.answers.lock().unwrap().insert(name.to_owned(), said);
    }

    /// Will give this under its digest; returns a descriptor of it.
    fn blob(&self, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes).to_string();
        self.will(&digest, says("application/octet-stream", bytes.to_vec()));
        json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": bytes.len()})
    }
}

fn manifest(config: &Value, layers: &[Value]) -> Value {
    json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers})
}

async fn pull(host: &str) -> Result<image::Image, Error> {
    pull_as(host, PullOptions::default()).await
}

async fn pull_as(host: &str, options: PullOptions) -> Result<image::Image, Error> {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path(), is_squashed()).await.unwrap();
    let (progress, mut said) = mpsc::channel(64);
    let reference = format!("{host}/evil/demo:1").parse().unwrap();
    let pulled = store.pull(&reference, options, progress);
    let heard = async { while said.recv().await.is_some() {} };
    let both = async { tokio::join!(pulled, heard) };
    let (pulled, ()) = tokio::time::timeout(Duration::from_secs(60), both).await.expect("an end in time");
    if pulled.is_err() {
        assert!(store.list().await.is_empty(), "no image comes of it");
    }
    pulled
}

/// In a user namespace of one id all files belong to it.
fn is_squashed() -> bool {
    !std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.contains("4294967295"))
}

#[tokio::test]
async fn no_lie_of_a_registry_makes_an_image_or_costs_more_than_its_length() {
    let (elsewhere, other) = Liar::start().await;
    let config_of = |ids: usize| {
        let ids = vec![Digest::of(b"x").to_string(); ids];
        json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ids}})
            .to_string()
    };
    type Lie<'a> = Box<dyn Fn(&Liar) -> Said + 'a>;
    let of = |value: Value| says(MANIFEST, value.to_string());
    let lies: Vec<(&str, Lie<'_>, &str)> = vec![
        ("a manifest of 5 MiB", Box::new(|_| says(MANIFEST, vec![b' '; 5 << 20])), "length limit exceeded"),
        ("a manifest that is none", Box::new(|_| says(MANIFEST, "[1]")), "manifest"),
        (
            "a configuration of a terabyte",
            Box::new(|liar| {
                let mut config = liar.blob(config_of(0).as_bytes());
                config["size"] = json!(1_u64 << 40);
                of(manifest(&config, &[]))
            }),
            "its configuration has 1099511627776 bytes",
        ),
        (
            "a digest that is a path",
            Box::new(|liar| {
                let mut config = liar.blob(b"{}");
                config["digest"] = json!("sha256:../../../../etc/passwd");
                of(manifest(&config, &[]))
            }),
            "manifest",
        ),
        (
            "a size below zero",
            Box::new(|liar| {
                let mut config = liar.blob(b"{}");
                config["size"] = json!(-1);
                of(manifest(&config, &[]))
            }),
            "manifest",
        ),
        (
            "layers without end",
            Box::new(|liar| {
                let layer = liar.blob(b"layer");
                of(manifest(&liar.blob(config_of(501).as_bytes()), &vec![layer; 501]))
            }),
            "501 layers",
        ),
        (
            "more layers than the configuration names",
            Box::new(|liar| {
                let layer = liar.blob(b"layer");
                of(manifest(&liar.blob(config_of(1).as_bytes()), &[layer.clone(), layer]))
            }),
            "names 1 layers, its manifest 2",
        ),
        (
            "a layer that is another",
            Box::new(|liar| {
                let layer = liar.blob(b"layer");
                liar.will(layer["digest"].as_str().unwrap(), says("", "other"));
                of(manifest(&liar.blob(config_of(1).as_bytes()), &[layer]))
            }),
            "digest",
        ),
        (
            "a layer that is longer than it says",
            Box::new(|liar| {
                let layer = liar.blob(b"layer");
                liar.will(layer["digest"].as_str().unwrap(), says("", vec![0; 1 << 20]));
                of(manifest(&liar.blob(config_of(1).as_bytes()), &[layer]))
            }),
            "digest",
        ),
        (
            "a layer that unpacks to another",
            Box::new(|liar| {
                let tar = vec![0; 1024];
                of(manifest(&liar.blob(config_of(1).as_bytes()), &[liar.blob(&tar)]))
            }),
            "digest",
        ),
        (
            "a foreign layer",
            Box::new(|liar| {
                let layer = liar.blob(b"layer");
                let digest = layer["digest"].as_str().unwrap().to_owned();
                liar.answers.lock().unwrap().remove(&digest);
                let mut layer = layer;
                layer["urls"] = json!([format!("http://{other}/{digest}"), "file:///etc/passwd"]);
                of(manifest(&liar.blob(config_of(1).as_bytes()), &[layer]))
            }),
            "no source has its blob",
        ),
        (
            "an index in an index",
            Box::new(|liar| {
                let inner = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).to_string();
                let mut inner = (liar.blob(inner.as_bytes()), inner);
                liar.will(inner.0["digest"].as_str().unwrap(), says(INDEX, inner.1.clone()));
                inner.0["mediaType"] = json!(INDEX);
                says(INDEX, json!({"schemaVersion": 2, "manifests": [inner.0]}).to_string())
            }),
            "an index inside an index",
        ),
        (
            "a manifest that says it is an index",
            Box::new(|liar| says(INDEX, manifest(&liar.blob(config_of(0).as_bytes()), &[]).to_string())),
            "index",
        ),
        (
            "another manifest than the index names",
            Box::new(|liar| {
                let digest = Digest::of(b"good").to_string();
                let config = liar.blob(config_of(0).as_bytes());
                liar.will(&digest, of(manifest(&config, &[])));
                let named = json!({"mediaType": MANIFEST, "digest": digest, "size": 4});
                says(INDEX, json!({"schemaVersion": 2, "manifests": [named]}).to_string())
            }),
            "digest",
        ),
        ("a way to a file", Box::new(|_| leads("file:///etc/passwd")), "no web server"),
        ("a way in a circle", Box::new(|_| leads("/v2/evil/demo/manifests/1")), "too many redirects"),
    ];
    for (lie, prepare, words) in lies {
        let (liar, host) = Liar::start().await;
        let said = prepare(&liar);
        liar.will("1", said);
        let error = pull(&host).await.map(|image| image.id).expect_err(lie);
        let text = error_chain(&error);
        assert!(text.contains(words), "{lie}: {text}");
        assert!(!text.contains("root:"), "{lie}: {text}");
    }
    assert_eq!(*elsewhere.asked.lock().unwrap(), Vec::<String>::new(), "nobody else was asked");
}

fn error_chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// A registry that is honest leads to storage, as they do; somebody has the storage, and asks who is there.
#[tokio::test]
async fn whom_a_registry_only_leads_to_gets_no_account_and_names_no_token_server() {
    for scheme in ["Basic", "Bearer"] {
        let (registry, host) = Liar::start().await;
        let (storage, other) = Liar::start().await;
        registry.will("1", leads(&format!("http://{other}/v2/evil/demo/manifests/1")));
        let challenge = format!("{scheme} realm=\"http://{other}/token\",service=\"x\"");
        storage.will("1", Said { status: 401, challenge, ..Said::default() });
        storage.will("token", says("application/json", r#"{"token":"theirs"}"#));
        let auth = Auth::Basic { username: "ann".into(), password: "secret".into() };
        let options = PullOptions { auth: Some(auth), ..PullOptions::default() };
        let error = pull_as(&host, options).await.map(|image| image.id).expect_err(scheme).to_string();
        assert!(error.starts_with("pull access denied for evil/demo"), "{error}");
        assert_eq!(*storage.asked.lock().unwrap(), ["/v2/evil/demo/manifests/1"], "{scheme}");
        assert_eq!(*storage.shown.lock().unwrap(), Vec::<String>::new(), "{scheme}");
    }
}

/// Docker's clients look for these words to tell that an account is needed.
#[tokio::test]
async fn who_is_refused_is_told_what_and_why_in_the_words_that_clients_look_for() {
    let (liar, host) = Liar::start().await;
    let asks = |scheme: &str| Said {
        status: 401,
        challenge: format!("{scheme} realm=\"Registry\""),
        ..Said::default()
    };
    for name in ["", "1"] {
        liar.will(name, asks("Basic"));
    }
    let error = pull(&host).await.map(|image| image.id).expect_err("a pull").to_string();
    assert!(error.starts_with("pull access denied for evil/demo"), "{error}");
    assert!(error.contains("no basic auth credentials"), "{error}");

    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path(), is_squashed()).await.unwrap();
    let name: image::Reference = format!("{host}/evil/demo:1").parse().unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    tar.append_data(&mut header, "a", &b"a"[..]).unwrap();
    let options = ImportOptions { reference: Some(name.clone()), ..ImportOptions::default() };
    store.import(std::io::Cursor::new(tar.into_inner().unwrap()), options).await.unwrap();
    let wrong = Auth::Basic { username: "ann".into(), password: "wrong".into() };
    for (auth, words) in
        [(None, "no basic auth credentials"), (Some(wrong), "unauthorized: authentication required")]
    {
        let (progress, mut said) = mpsc::channel(64);
        let pushed = store.push(&name, PushOptions { auth, ..PushOptions::default() }, progress);
        let heard = async { while said.recv().await.is_some() {} };
        let both = async { tokio::join!(pushed, heard) };
        let (pushed, ()) = tokio::time::timeout(Duration::from_secs(60), both).await.expect("an end in time");
        let error = pushed.expect_err("a push").to_string();
        assert!(error.starts_with("push access denied for evil/demo"), "{error}");
        assert!(error.contains(words), "{error}");
    }
}
