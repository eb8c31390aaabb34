//! Builds of version 2 over `POST /build`: for clients that speak of BuildKit, but not its gRPC. What happens is told
//! as BuildKit tells it, each message in a line of JSON.
//!
//! *Source:* moby `builder/builder-next/builder.go`, `api/server/backend/build`; Docker API `ImageBuild`.

use super::build;
use crate::{
    server::{ApiError, State, images},
    types::{ErrorDetail, JsonMessage},
};
use axum::response::Response;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use engine::{BuildContext, BuildOptions};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Lines that wait for a slow client.
const LINES: usize = 64;

/// Where a build has its files from.
pub(crate) enum Source {
    Context(BuildContext),
    /// The folders of a client, by the id of its session.
    Session(String),
}

/// Begins a build, and answers with what happens in it. A client that goes away ends it.
///
/// # Errors
/// Nobody may build here.
pub(crate) fn build_over_http(
    state: &State,
    reference: String,
    source: Source,
    options: BuildOptions,
    quiet: bool,
) -> Result<Response, ApiError> {
    state.engine()?;
    let (out, answer) = mpsc::channel::<JsonMessage>(LINES);
    let builder = state.clone();
    state.spawn(async move {
        let built = tokio::select! {
            built = told(&builder, &reference, source, options, (!quiet).then_some(&out)) => built,
            () = out.closed() => return,
        };
        let last = match built {
            Ok(image) => {
                let aux = serde_json::json!({ "ID": image.to_string() });
                let id = JsonMessage { id: "moby.image.id".into(), aux: Some(aux), ..JsonMessage::default() };
                let named = JsonMessage { stream: format!("{image}\n"), ..JsonMessage::default() };
                if quiet { vec![id, named] } else { vec![id] }
            }
            Err(status) => {
                let message = status.message().to_owned();
                let detail = ErrorDetail { message: message.clone(), ..ErrorDetail::default() };
                vec![JsonMessage { error_detail: Some(detail), error: message, ..JsonMessage::default() }]
            }
        };
        for message in last {
            if out.send(message).await.is_err() {
                return;
            }
        }
    });
    Ok(images::messages(ReceiverStream::new(answer)))
}

/// Builds, gives the image its names, and tells of it to whoever listens.
async fn told(
    state: &State,
    reference: &str,
    source: Source,
    mut options: BuildOptions,
    listener: Option<&mpsc::Sender<JsonMessage>>,
) -> Result<image::Digest, Status> {
    let engine = state.engine().map_err(|e| Status::unavailable(e.message))?;
    let names = std::mem::take(&mut options.tags);
    let session = match &source {
        Source::Session(id) => id.clone(),
        Source::Context(_) => String::new(),
    };
    let running = state.buildkit.builds.begin(reference, &session)?;
    let work = async {
        let built = match source {
            Source::Session(_) => build::of_session(state, &running, options).await,
            Source::Context(context) => build::carry_out(state, &running, options, context).await,
        };
        let built = match built {
            Ok(image) => build::export(engine, &running, image, &names).await.map(|_| image),
            Err(status) => Err(status),
        };
        running.progress.end();
        built
    };
    let tell = async {
        let mut seen = 0;
        while let Some(new) = running.progress.after(seen).await {
            seen += new.len();
            for message in &new {
                let Some(listener) = listener else { continue };
                let aux = serde_json::Value::String(BASE64_STANDARD.encode(proto::encoded(message)));
                let line = JsonMessage {
                    id: "moby.buildkit.trace".into(),
                    aux: Some(aux),
                    ..JsonMessage::default()
                };
                if listener.send(line).await.is_err() {
                    return;
                }
            }
        }
    };
    let (built, ()) = tokio::join!(work, tell);
    built
}
