//! `rswarm image ...` and its short forms.

use super::{
    inspect,
    placed::{self, Placed},
};
use crate::{
    cli::{
        CommitArgs, ExportArgs, HistoryArgs, Image, ImagesArgs, ImportArgs, ListArgs, LoadArgs, PullArgs,
        PushArgs, RmiArgs, SaveArgs, SearchArgs, TagArgs,
    },
    list::{self, List},
    output,
};
use anyhow::{Context, Result, bail};
use axum::http::HeaderMap;
use docker_api::{
    client::{Client, JsonLines, registry_auth},
    types,
};
use futures::TryStreamExt;
use http_body_util::BodyExt;
use std::{io::IsTerminal, path::Path};
use tokio::io::AsyncWriteExt;
use tokio_util::io::{ReaderStream, StreamReader};

pub(crate) async fn run(client: &Client, command: Image) -> Result<()> {
    match command {
        Image::Ls(args) => ls(client, &args).await,
        Image::Prune(args) => super::prune::run(client, super::prune::Kind::Images, &args).await,
        Image::Build(args) => super::build::run(client, &args).await,
        Image::Pull(args) => pull(client, &args).await,
        Image::Push(args) => push(client, &args).await,
        Image::History(args) => history(client, &args).await,
        Image::Save(args) => save(client, &args).await,
        Image::Load(args) => load(client, &args).await,
        Image::Import(args) => import(client, &args).await,
        Image::Tag(args) => tag(client, &args).await,
        Image::Hello => hello(client).await,
        Image::Inspect(args) => inspect(client, "images", &args).await,
        Image::Rm(args) => rm(client, &args).await,
    }
}

/// Splits `name[:tag]`; a port is no tag.
fn split_tag(name: &str) -> (&str, &str) {
    match name.rsplit_once(':') {
        Some((repo, tag)) if !tag.contains('/') => (repo, tag),
        _ => (name, "latest"),
    }
}

pub(crate) async fn search(client: &Client, args: &SearchArgs) -> Result<()> {
    let filters = list::filters(&args.filter)?;
    let limit = args.limit.to_string();
    let query = [("term", args.term.as_str()), ("limit", &limit), ("filters", &filters)];
    let mut table = List::new(&[
        ("NAME", "Name"),
        ("DESCRIPTION", "Description"),
        ("STARS", "StarCount"),
        ("OFFICIAL", "IsOfficial"),
    ]);
    for image in client.image_search(&query).await? {
        let description = image.description.replace(['\r', '\n'], " ");
        let official = if image.is_official { "[OK]" } else { "" };
        table.row(vec![
            image.name,
            if args.no_trunc { description } else { shortened(&description) },
            image.star_count.to_string(),
            official.to_owned(),
        ]);
    }
    table.print(&ListArgs { format: args.format.clone(), ..ListArgs::default() })
}

/// Returns a description as Docker's table shows it.
fn shortened(text: &str) -> String {
    const WIDTH: usize = 45;
    if text.chars().count() <= WIDTH {
        return text.to_owned();
    }
    text.chars().take(WIDTH - 1).chain(['…']).collect()
}

/// Lists images, each once for every name that it has; with digests also of those that its registries know it by.
pub(crate) async fn ls(client: &Client, asked: &ImagesArgs) -> Result<()> {
    let args = &asked.list;
    let mut filter = args.filter.clone();
    filter.extend(asked.repository.as_ref().map(|name| format!("reference={name}")));
    let filters = list::filters(&filter)?;
    let mut table = List::new(if asked.digests {
        &[
            ("REPOSITORY", "Repository"),
            ("TAG", "Tag"),
            ("DIGEST", "Digest"),
            ("IMAGE ID", "ID"),
            ("CREATED", "CreatedSince"),
            ("SIZE", "Size"),
        ]
    } else {
        &[
            ("REPOSITORY", "Repository"),
            ("TAG", "Tag"),
            ("IMAGE ID", "ID"),
            ("CREATED", "CreatedSince"),
            ("SIZE", "Size"),
        ]
    });
    let now = list::now().0 / 1_000_000_000;
    let all = if asked.all { "1" } else { "0" };
    for image in client.images(&[("all", all), ("filters", &filters)]).await? {
        let id: String = if asked.no_trunc {
            image.id.clone()
        } else {
            image.id.trim_start_matches("sha256:").chars().take(12).collect()
        };
        let age = std::time::Duration::from_secs(u64::try_from(now - image.created).unwrap_or(0));
        let names =
            if image.repo_tags.is_empty() { vec!["<none>:<none>".to_owned()] } else { image.repo_tags };
        for name in names {
            let (repo, tag) = split_tag(&name);
            if args.quiet {
                output::line(&id)?;
                continue;
            }
            let digests = image.repo_digests.iter().filter_map(|digest| digest.split_once('@'));
            let digest =
                digests.into_iter().find(|(of, _)| *of == repo).map_or("<none>", |(_, digest)| digest);
            let mut values = vec![repo.to_owned(), tag.to_owned()];
            if asked.digests {
                values.push(digest.to_owned());
            }
            values.extend([
                id.clone(),
                format!("{} ago", list::human(age)),
                list::size(u64::try_from(image.size).unwrap_or(0)),
            ]);
            table.row(values);
        }
    }
    if args.quiet { Ok(()) } else { table.print(args) }
}

pub(crate) async fn rm(client: &Client, args: &RmiArgs) -> Result<()> {
    let force = if args.force { "1" } else { "0" };
    let mut failed = Vec::new();
    for name in &args.images {
        match client.image_remove(name, &[("force", force)]).await {
            Ok(gone) => gone.iter().try_for_each(|step| match step.untagged.as_str() {
                "" => output::line(&format!("Deleted: {}", step.deleted)),
                untagged => output::line(&format!("Untagged: {untagged}")),
            })?,
            Err(error) => failed.push(error.to_string()),
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(anyhow::anyhow!(failed.join("\n"))) }
}

pub(crate) async fn pull(client: &Client, args: &PullArgs) -> Result<()> {
    pull_for(client, args, args.platform.as_deref().unwrap_or_default()).await
}

/// Pulls for a platform such as `linux/arm64`; empty = the daemon's.
pub(crate) async fn pull_for(client: &Client, args: &PullArgs, platform: &str) -> Result<()> {
    let (repo, tag) = match args.image.split_once('@') {
        Some((repo, digest)) => (repo, digest),
        None => split_tag(&args.image),
    };
    let query = [("fromImage", repo), ("tag", tag), ("platform", platform)];
    let lines = client.image_pull(&query, credentials(&args.image)?).await?;
    show(lines, args.quiet).await?;
    if args.quiet { output::line(&args.image) } else { Ok(()) }
}

/// Returns the header that proves our account at an image's registry.
pub(super) fn credentials(image: &str) -> Result<HeaderMap> {
    let account = super::credentials::Credentials::read()?.of_image(image)?;
    let header = account.map(|account| registry_auth(&account)).transpose()?;
    Ok(header.into_iter().collect())
}

/// Returns the same as text; empty without an account.
pub(super) fn account(image: &str) -> Result<String> {
    let headers = credentials(image)?;
    let text = headers.values().next().map(|value| value.to_str()).transpose()?;
    Ok(text.unwrap_or_default().to_owned())
}

pub(crate) async fn push(client: &Client, args: &PushArgs) -> Result<()> {
    let (repo, tag) = split_tag(&args.image);
    // Docker's API wants the header even when it is empty.
    let mut headers = credentials(&args.image)?;
    if headers.is_empty() {
        headers.extend([registry_auth(&types::AuthConfig::default())?]);
    }
    show(client.image_push(repo, tag, headers).await?, args.quiet).await
}

pub(crate) async fn save(client: &Client, args: &SaveArgs) -> Result<()> {
    args.output.as_deref().map_or(Ok(()), placed::check)?;
    let names: Vec<&str> = args.images.iter().map(String::as_str).collect();
    download(client.image_save(&names).await?, args.output.as_deref()).await
}

pub(crate) async fn export(client: &Client, args: &ExportArgs) -> Result<()> {
    args.output.as_deref().map_or(Ok(()), placed::check)?;
    download(client.container_export(&args.container).await?, args.output.as_deref()).await
}

/// Writes an answer to a file, whole or not at all, or to standard output.
pub(super) async fn download(answer: docker_api::client::Exposed, path: Option<&Path>) -> Result<()> {
    let body = answer.into_body().into_data_stream().map_err(std::io::Error::other);
    let mut body = StreamReader::new(body);
    let Some(path) = path else {
        if std::io::stdout().is_terminal() {
            bail!("cowardly refusing to save to a terminal. Use the -o flag or redirect");
        }
        let mut out = output::stream();
        tokio::io::copy(&mut body, &mut out).await.context("the archive was cut")?;
        return out.flush().await.context("cannot write to standard output");
    };
    let placed = Placed::begin(path)?;
    let written = async {
        let mut file = tokio::fs::File::from_std(placed.file()?);
        tokio::io::copy(&mut body, &mut file).await?;
        file.flush().await
    };
    written.await.with_context(|| format!("cannot write {}", path.display()))?;
    tokio::task::spawn_blocking(|| placed.finish()).await?
}

pub(crate) async fn commit(client: &Client, args: &CommitArgs) -> Result<()> {
    let mut query = vec![("container", args.container.as_str())];
    if let Some(reference) = &args.reference {
        let (repo, tag) = split_tag(reference);
        query.extend([("repo", repo), ("tag", tag)]);
    }
    query.push(("author", args.author.as_deref().unwrap_or_default()));
    query.push(("comment", args.message.as_deref().unwrap_or_default()));
    query.push(("pause", if args.no_pause || !args.pause { "0" } else { "1" }));
    query.extend(args.change.iter().map(|c| ("changes", c.as_str())));
    let made: types::Created = client.post("/commit", &query, &serde_json::json!({})).await?;
    output::line(&made.id)
}

pub(crate) async fn history(client: &Client, args: &HistoryArgs) -> Result<()> {
    let mut table = List::new(&[
        ("IMAGE", "ID"),
        ("CREATED", "CreatedSince"),
        ("CREATED BY", "CreatedBy"),
        ("SIZE", "Size"),
        ("COMMENT", "Comment"),
    ]);
    let now = list::now().0 / 1_000_000_000;
    for step in client.image_history(&args.image).await? {
        let age = std::time::Duration::from_secs(u64::try_from(now - step.created).unwrap_or(0));
        let (id, by) = if args.no_trunc { (usize::MAX, usize::MAX) } else { (12, 45) };
        let whole = if args.no_trunc { step.id.as_str() } else { step.id.trim_start_matches("sha256:") };
        let (created, size) = if args.human {
            (format!("{} ago", list::human(age)), list::size(u64::try_from(step.size).unwrap_or(0)))
        } else {
            let at = time::OffsetDateTime::from_unix_timestamp(step.created)?;
            (at.format(&time::format_description::well_known::Rfc3339)?, step.size.to_string())
        };
        table.row(vec![
            whole.chars().take(id).collect(),
            created,
            step.created_by.chars().take(by).collect(),
            size,
            step.comment,
        ]);
    }
    table.print(&args.list)
}

pub(crate) async fn load(client: &Client, args: &LoadArgs) -> Result<()> {
    let body = upload(args.input.as_deref()).await?;
    show(client.image_load(&[], body).await?, args.quiet).await
}

pub(crate) async fn import(client: &Client, args: &ImportArgs) -> Result<()> {
    let file = (args.file != Path::new("-")).then_some(args.file.as_path());
    let mut query = vec![("fromSrc", "-"), ("message", args.message.as_str())];
    if let Some(reference) = &args.reference {
        let (repo, tag) = split_tag(reference);
        query.extend([("repo", repo), ("tag", tag)]);
    }
    query.extend(args.change.iter().map(|c| ("changes", c.as_str())));
    show(client.image_import(&query, upload(file).await?).await?, false).await
}

pub(crate) async fn tag(client: &Client, args: &TagArgs) -> Result<()> {
    let (repo, tag) = split_tag(&args.target);
    Ok(client.image_tag(&args.source, repo, tag).await?)
}

/// Streams a file or standard input as a request's body.
pub(super) async fn upload(path: Option<&Path>) -> Result<axum::body::Body> {
    Ok(match path {
        Some(path) => {
            let file = tokio::fs::File::open(path)
                .await
                .with_context(|| format!("cannot open {}", path.display()))?;
            axum::body::Body::from_stream(ReaderStream::with_capacity(file, 256 * 1024))
        }
        None => axum::body::Body::from_stream(ReaderStream::with_capacity(tokio::io::stdin(), 256 * 1024)),
    })
}

/// Prints the daemon's progress lines; the first error ends it.
async fn show(mut lines: JsonLines<types::JsonMessage>, quiet: bool) -> Result<()> {
    let mut last = String::new();
    while let Some(message) = lines.next().await {
        let message = message?;
        if !message.error.is_empty() {
            bail!("{}", message.error);
        }
        let text = match (message.stream.trim_end(), message.status.as_str(), message.id.as_str()) {
            ("", status, "") => status.to_owned(),
            ("", status, id) => format!("{id}: {status}"),
            (stream, ..) => stream.to_owned(),
        };
        // Without a terminal's cursor a repeated state says nothing new.
        if !quiet && !text.is_empty() && text != last {
            output::line(&text)?;
            last = text;
        }
    }
    Ok(())
}

/// Imports the image: a root file system of one file, this very program.
pub(crate) async fn hello(client: &Client) -> Result<()> {
    let program = std::fs::read("/proc/self/exe").context("cannot read this program")?;
    let mut archive = Vec::with_capacity(program.len() + 4096);
    for folder in ["data/", "etc/", "proc/", "sys/", "dev/", "tmp/"] {
        archive.extend_from_slice(&tar_header(folder, 0, 0o755, b'5'));
    }
    archive.extend_from_slice(&tar_header("hello", program.len(), 0o755, b'0'));
    archive.extend_from_slice(&program);
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    let (repo, tag) = crate::demo::HELLO_IMAGE.split_once(':').context("the image has a tag")?;
    let query = [
        ("fromSrc", "-"),
        ("repo", repo),
        ("tag", tag),
        ("message", "carried by rswarm"),
        ("changes", r#"ENTRYPOINT ["/hello"]"#),
        ("changes", "EXPOSE 80"),
    ];
    show(client.image_import(&query, archive.into()).await?, false).await
}

/// Returns a header of the POSIX ustar format (IEEE Std 1003.1, pax "ustar Interchange Format").
fn tar_header(name: &str, size: usize, mode: u32, kind: u8) -> [u8; 512] {
    let mut header = [0u8; 512];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, &format!("{mode:07o}"));
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, "00000000000");
    put(148, "        ");
    put(257, "ustar\x0000");
    header[156] = kind;
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}
