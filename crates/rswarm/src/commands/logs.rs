//! The log of a container, a service or a task, as the front door gives it.

use super::joined::print;
use crate::cli::LogsArgs;
use anyhow::{Context as _, Result};
use docker_api::client::Client;
use futures::{Stream, StreamExt as _};
use http_body_util::BodyExt as _;
use tokio_util::io::StreamReader;

/// Prints a log as it comes; `raw`: without frames.
pub(crate) async fn copy_logs(
    client: &Client,
    base: &str,
    id: &str,
    args: &LogsArgs,
    details: bool,
    raw: bool,
) -> Result<()> {
    print(StreamReader::new(open_logs(client, base, id, args, details).await?), raw).await
}

/// Asks for the log of a container, a service or a task: `base` is `containers`, `services` or `tasks`.
pub(crate) async fn open_logs(
    client: &Client,
    base: &str,
    id: &str,
    args: &LogsArgs,
    details: bool,
) -> Result<impl Stream<Item = std::io::Result<axum::body::Bytes>> + Unpin + use<>> {
    let flag = |on| if on { "1" } else { "0" };
    let (since, until) = (moment(args.since.as_deref())?, moment(args.until.as_deref())?);
    let mut query = vec![
        ("stdout", "1"),
        ("stderr", "1"),
        ("follow", flag(args.follow)),
        ("timestamps", flag(args.timestamps)),
        ("tail", args.tail.as_str()),
        ("details", flag(details)),
    ];
    let bounds = [("since", since.as_str()), ("until", until.as_str())];
    query.extend(bounds.into_iter().filter(|(_, at)| !at.is_empty()));
    let answer = client.logs(base, id, &query).await?;
    Ok(answer.into_body().into_data_stream().map(|chunk| chunk.map_err(std::io::Error::other)))
}

/// Reads a time as the API has it: Unix seconds. *Source:* docker CLI, `--since`.
pub(crate) fn moment(text: Option<&str>) -> Result<String> {
    let Some(text) = text else { return Ok(String::new()) };
    if text.parse::<f64>().is_ok() {
        return Ok(text.to_owned());
    }
    let now = time::OffsetDateTime::now_utc();
    let at = match compose::duration(text) {
        Some(age) => now - age,
        None => {
            let whole = if text.contains('T') { text.to_owned() } else { format!("{text}T00:00:00Z") };
            time::OffsetDateTime::parse(&whole, &time::format_description::well_known::Rfc3339).with_context(
                || format!("{text:?} is neither a time such as 2024-05-01T10:00:00Z nor an age such as 10m"),
            )?
        }
    };
    Ok(format!("{}.{:09}", at.unix_timestamp(), at.nanosecond()))
}
