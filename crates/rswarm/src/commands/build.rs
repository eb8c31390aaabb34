//! `rswarm build`: sends a folder to the daemon as a tar, without what `.dockerignore` leaves out.

use super::credentials::Credentials;
use crate::{
    cli::{BuildArgs, BuildLimits, StartFlags},
    output,
};
use ::image::dockerfile::IgnoreList;
use anyhow::{Context, Result, bail};
use axum::{body::Body, http::HeaderMap};
use base64::{Engine as _, prelude::BASE64_URL_SAFE};
use docker_api::client::Client;
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};
use tokio_util::io::{ReaderStream, SyncIoBridge};

/// *Unit:* bytes of a context on their way.
const PIPE: usize = 256 << 10;
/// Name of a Dockerfile that comes from elsewhere.
const SENT_DOCKERFILE: &str = ".dockerfile.rswarm";

/// Where the files come from.
#[derive(Debug)]
enum BuildContext {
    Folder {
        root: PathBuf,
        dockerfile: Dockerfile,
        ignore: IgnoreList,
    },
    /// A tar, or a Dockerfile that needs no files.
    Input,
    /// A repository or an archive that the daemon fetches.
    Remote,
}

#[derive(Debug)]
enum Dockerfile {
    /// In the context.
    Within(String),
    /// From elsewhere: its text.
    Text(String),
}

pub(crate) async fn run(client: &Client, args: &BuildArgs) -> Result<()> {
    let context = context(args)?;
    let name = match &context {
        BuildContext::Folder { dockerfile: Dockerfile::Within(name), .. } => name.clone(),
        BuildContext::Folder { .. } => SENT_DOCKERFILE.to_owned(),
        BuildContext::Input | BuildContext::Remote => {
            args.file.as_ref().map(|f| f.display().to_string()).unwrap_or_default()
        }
    };
    let json = |map: &BTreeMap<String, String>| serde_json::to_string(map).context("plain JSON");
    let mut build_args = BTreeMap::new();
    for arg in &args.build_arg {
        let (name, value) = match arg.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            // As Docker: a name alone takes the value that it has here, if it has one.
            None => (arg.as_str(), std::env::var(arg).ok()),
        };
        build_args.extend(value.map(|value| (name.to_owned(), value)));
    }
    let labels = args.label.iter().map(|label| label.split_once('=').unwrap_or((label, "")));
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let (build_args, labels) = (json(&build_args)?, json(&labels)?);
    let flag = |set: bool| if set { "1" } else { "0" };
    let mut query = vec![
        ("dockerfile", name.as_str()),
        ("buildargs", build_args.as_str()),
        ("labels", labels.as_str()),
        ("target", args.target.as_deref().unwrap_or_default()),
        ("platform", args.platform.as_deref().unwrap_or_default()),
        ("networkmode", args.network.as_deref().unwrap_or_default()),
        ("nocache", flag(args.no_cache)),
        ("pull", flag(args.pull)),
    ];
    let limits = limits(&args.limits)?;
    query.extend(limits.iter().map(|(name, value)| (*name, value.as_str())));
    query.extend(args.tag.iter().map(|tag| ("t", tag.as_str())));
    query.extend(args.add_host.iter().map(|host| ("extrahosts", host.as_str())));
    if matches!(context, BuildContext::Remote) {
        query.push(("remote", args.context.as_str()));
    }
    let (reader, writer) = tokio::io::duplex(PIPE);
    let sending = tokio::task::spawn_blocking(move || send(context, SyncIoBridge::new(writer)));
    let body = Body::from_stream(ReaderStream::with_capacity(reader, PIPE));
    let answer = client.image_build(&query, headers(args)?, body).await;
    // What went wrong here explains what the daemon says of it.
    let sent = match &answer {
        Ok(_) => sending.await.context("sending the context was ended")?,
        Err(_) if sending.is_finished() => sending.await.context("sending the context was ended")?,
        Err(_) => Ok(()),
    };
    sent.context("cannot send the build context")?;
    let mut lines = answer?;
    let mut image = None;
    while let Some(message) = lines.next().await {
        let message = message?;
        if !message.error.is_empty() {
            bail!("{}", message.error);
        }
        let id = message.aux.as_ref().and_then(|aux| aux.get("ID")?.as_str().map(str::to_owned));
        image = id.or(image);
        if args.quiet {
            continue;
        }
        if !message.stream.is_empty() {
            output::bytes(message.stream.as_bytes())?;
        } else if !message.status.is_empty() && message.progress_detail.is_none() {
            let id = if message.id.is_empty() { String::new() } else { format!("{}: ", message.id) };
            output::line(&format!("{id}{}", message.status))?;
        }
    }
    let image = image.context("the daemon did not say which image it built")?;
    if let Some(file) = &args.iidfile {
        fs::write(file, &image).with_context(|| format!("cannot write {}", file.display()))?;
    }
    if args.quiet { output::line(&image) } else { Ok(()) }
}

/// Reads the Dockerfile of a build, and builds nothing.
///
/// # Errors
/// It cannot be read, or its first line that makes no sense.
pub(crate) fn check(args: &BuildArgs) -> Result<()> {
    let (text, shown) = match context(args)? {
        BuildContext::Folder { root, dockerfile: Dockerfile::Within(name), .. } => {
            let path = root.join(name);
            let text = fs::read_to_string(&path);
            (text.with_context(|| format!("cannot read {}", path.display()))?, path.display().to_string())
        }
        BuildContext::Folder { dockerfile: Dockerfile::Text(text), .. } => (text, "Dockerfile".to_owned()),
        BuildContext::Input | BuildContext::Remote => {
            bail!("the Dockerfile of {} is not here to be checked; hint: build it", args.context)
        }
    };
    ::image::dockerfile::Dockerfile::parse(&text).with_context(|| format!("cannot read {shown}"))?;
    Ok(())
}

/// Returns what RUN may take, as the API words it. *Source:* Docker API `ImageBuild`.
fn limits(flags: &BuildLimits) -> Result<Vec<(&'static str, String)>> {
    let bytes = |flag: &str, text: &Option<String>| match text.as_deref() {
        None => Ok(None),
        Some("-1") => Ok(Some("-1".to_owned())),
        some => Ok::<_, anyhow::Error>(Some(super::create::bytes(flag, some)?.to_string())),
    };
    let (flags, start) = (&flags.resources, &flags.start);
    let ulimits = start.ulimit.iter().map(|text| super::create::ulimit(text)).collect::<Result<Vec<_>>>()?;
    let all = [
        ("memory", bytes("--memory", &flags.memory)?),
        ("memswap", bytes("--memory-swap", &flags.memory_swap)?),
        ("cpushares", flags.cpu_shares.map(|shares| shares.to_string())),
        ("cpuperiod", flags.cpu_period.map(|micros| micros.to_string())),
        ("cpuquota", flags.cpu_quota.map(|micros| micros.to_string())),
        ("cpusetcpus", flags.cpuset_cpus.clone()),
        ("cpusetmems", flags.cpuset_mems.clone()),
        ("shmsize", bytes("--shm-size", &start.shm_size)?),
        ("ulimits", if ulimits.is_empty() { None } else { Some(serde_json::to_string(&ulimits)?) }),
    ];
    Ok(all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect())
}

/// Returns what `rswarm build` would be told for a service of a compose file.
pub(crate) fn of_service(image: &str, wanted: &compose::StackBuild) -> BuildArgs {
    let pair = |(name, value): (&String, &String)| format!("{name}={value}");
    let given = |text: &String| Some(text.clone()).filter(|t| !t.is_empty());
    BuildArgs {
        context: wanted.context.clone(),
        // In a folder it is named by its path; elsewhere the daemon looks for it.
        file: given(&wanted.dockerfile).map(|name| {
            let folder = Path::new(&wanted.context);
            if folder.is_dir() { folder.join(name) } else { PathBuf::from(name) }
        }),
        dockerfile_text: wanted.dockerfile_inline.clone(),
        tag: std::iter::once(image)
            .chain(wanted.tags.iter().map(String::as_str))
            .map(str::to_owned)
            .collect(),
        build_arg: wanted.args.iter().map(pair).collect(),
        label: wanted.labels.iter().map(pair).collect(),
        target: given(&wanted.target),
        network: given(&wanted.network),
        no_cache: wanted.no_cache,
        pull: wanted.pull,
        secret_data: wanted.secrets.clone(),
        add_host: wanted.extra_hosts.clone(),
        limits: BuildLimits {
            start: StartFlags {
                shm_size: wanted.shm_size_bytes.map(|bytes| bytes.to_string()),
                ulimit: wanted
                    .ulimits
                    .iter()
                    .map(|limit| format!("{}={}:{}", limit.name, limit.soft, limit.hard))
                    .collect(),
            },
            ..BuildLimits::default()
        },
        progress: "plain".to_owned(),
        ..BuildArgs::default()
    }
}

/// Accounts for base images, and secrets.
fn headers(args: &BuildArgs) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    let accounts = Credentials::read()?.all()?;
    if !accounts.is_empty() {
        let value = BASE64_URL_SAFE.encode(serde_json::to_vec(&accounts)?);
        headers.insert("x-registry-config", value.parse().context("a header")?);
    }
    let mut secrets = BTreeMap::new();
    for secret in &args.secret {
        let fields: BTreeMap<&str, &str> =
            secret.split(',').filter_map(|field| field.split_once('=')).collect();
        let id = fields.get("id").with_context(|| format!("--secret {secret}: id=NAME is needed"))?;
        let content = match (fields.get("src").or_else(|| fields.get("source")), fields.get("env")) {
            (Some(path), _) => {
                fs::read(path).with_context(|| format!("--secret {id}: cannot read {path}"))?
            }
            (None, name) => {
                let name = name.unwrap_or(id);
                let value = std::env::var_os(name);
                let value = value.with_context(|| {
                    format!("--secret {id}: give src=FILE or env=VARIABLE; {name} is not set")
                })?;
                value.into_encoded_bytes()
            }
        };
        secrets.insert((*id).to_owned(), BASE64_URL_SAFE.encode(content));
    }
    secrets.extend(args.secret_data.iter().map(|(id, data)| (id.clone(), BASE64_URL_SAFE.encode(&data.0))));
    if !secrets.is_empty() {
        let value = BASE64_URL_SAFE.encode(serde_json::to_vec(&secrets)?);
        headers.insert("x-rswarm-build-secrets", value.parse().context("a header")?);
    }
    Ok(headers)
}

fn context(args: &BuildArgs) -> Result<BuildContext> {
    if args.context == "-" {
        return Ok(BuildContext::Input);
    }
    if args.context.contains("://") || ["git@", "github.com/"].iter().any(|p| args.context.starts_with(p)) {
        return Ok(BuildContext::Remote);
    }
    let root = PathBuf::from(&args.context);
    let not_found = || format!("unable to prepare context: path {:?} not found", args.context);
    let meta = fs::metadata(&root).with_context(not_found)?;
    if !meta.is_dir() {
        bail!("unable to prepare context: context must be a directory: {}", root.display());
    }
    let root = fs::canonicalize(&root).with_context(not_found)?;
    let file = args.file.clone().unwrap_or_else(|| root.join("Dockerfile"));
    let (dockerfile, own_ignore) = if let Some(text) = &args.dockerfile_text {
        (Dockerfile::Text(text.clone()), None)
    } else if file == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).context("cannot read the Dockerfile from standard input")?;
        (Dockerfile::Text(text), None)
    } else {
        let found = fs::canonicalize(&file);
        let found = found.with_context(|| format!("failed to read dockerfile: open {}", file.display()))?;
        let own = PathBuf::from(format!("{}.dockerignore", file.display()));
        match found.strip_prefix(&root) {
            Ok(within) => (Dockerfile::Within(within.display().to_string()), Some(own)),
            Err(_) => {
                let text =
                    fs::read_to_string(&found).with_context(|| format!("cannot read {}", file.display()))?;
                (Dockerfile::Text(text), Some(own))
            }
        }
    };
    let candidates = own_ignore.into_iter().chain([root.join(".dockerignore")]);
    let mut ignore = IgnoreList::default();
    for path in candidates {
        match fs::read_to_string(&path) {
            Ok(text) => {
                let list = IgnoreList::parse(&text);
                ignore = list.with_context(|| format!("cannot read {}", path.display()))?;
                break;
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
        }
    }
    Ok(BuildContext::Folder { root, dockerfile, ignore })
}

/// Writes the context as a tar. Blocking.
fn send(context: BuildContext, out: impl io::Write) -> Result<()> {
    match context {
        BuildContext::Remote => {}
        BuildContext::Folder { root, dockerfile, ignore } => {
            let mut tar = tar::Builder::new(out);
            tar.follow_symlinks(false);
            let needed = match &dockerfile {
                Dockerfile::Within(name) => Some(name.as_str()),
                Dockerfile::Text(_) => None,
            };
            folder(&mut tar, &root, Path::new(""), &ignore, needed)?;
            if let Dockerfile::Text(text) = &dockerfile {
                append_text(&mut tar, SENT_DOCKERFILE, text)?;
            }
            tar.into_inner()?.flush()?;
        }
        BuildContext::Input => {
            let mut input = io::stdin().lock();
            let mut head = Vec::new();
            (&mut input).take(512).read_to_end(&mut head)?;
            if looks_packed(&head) {
                let mut out = out;
                out.write_all(&head)?;
                io::copy(&mut input, &mut out)?;
                out.flush()?;
            } else {
                input.read_to_end(&mut head)?;
                let mut tar = tar::Builder::new(out);
                append_text(&mut tar, "Dockerfile", &String::from_utf8_lossy(&head))?;
                tar.into_inner()?.flush()?;
            }
        }
    }
    Ok(())
}

/// A tar, or something that is compressed: a Dockerfile is text.
fn looks_packed(head: &[u8]) -> bool {
    head.get(257..262) == Some(b"ustar")
        || head.contains(&0)
        || [&b"\x1f\x8b"[..], b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"BZh"]
            .iter()
            .any(|magic| head.starts_with(magic))
}

fn append_text<W: io::Write>(tar: &mut tar::Builder<W>, name: &str, text: &str) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(text.len() as u64);
    tar.append_data(&mut header, name, text.as_bytes())
}

fn folder<W: io::Write>(
    tar: &mut tar::Builder<W>,
    root: &Path,
    below: &Path,
    ignore: &IgnoreList,
    needed: Option<&str>,
) -> Result<()> {
    let path = root.join(below);
    let entries = fs::read_dir(&path).with_context(|| format!("cannot list {}", path.display()))?;
    let mut names = entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    for name in names {
        entry(tar, root, &below.join(OsStr::new(&name)), ignore, needed)?;
    }
    Ok(())
}

fn entry<W: io::Write>(
    tar: &mut tar::Builder<W>,
    root: &Path,
    below: &Path,
    ignore: &IgnoreList,
    needed: Option<&str>,
) -> Result<()> {
    let shown = below.display().to_string();
    let path = root.join(below);
    let meta = fs::symlink_metadata(&path).with_context(|| format!("cannot read {}", path.display()))?;
    // The daemon needs its Dockerfile even if no COPY may see it.
    let ignored = ignore.ignores(&shown) && needed != Some(shown.as_str());
    let on_the_way = needed.is_some_and(|file| Path::new(file).starts_with(below));
    if ignored && !(meta.is_dir() && (on_the_way || !ignore.prunes())) {
        return Ok(());
    }
    let mut header = tar::Header::new_gnu();
    header.set_metadata(&meta);
    header.set_uid(0);
    header.set_gid(0);
    let context = || format!("cannot send {}", path.display());
    if meta.is_dir() {
        if !ignored {
            tar.append_data(&mut header, format!("{shown}/"), io::empty()).with_context(context)?;
        }
        return folder(tar, root, below, ignore, needed);
    }
    if meta.is_symlink() {
        let target = fs::read_link(&path).with_context(context)?;
        header.set_size(0);
        tar.append_link(&mut header, &shown, target).with_context(context)?;
    } else if meta.is_file() {
        let file = fs::File::open(&path).with_context(context)?;
        header.set_size(meta.size());
        // A file that shrinks or grows meanwhile must not break the archive.
        tar.append_data(&mut header, &shown, file.chain(io::repeat(0)).take(meta.size()))
            .with_context(context)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(tar: &[u8]) -> Vec<String> {
        let mut archive = tar::Archive::new(tar);
        archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect()
    }

    #[test]
    fn a_context_leaves_out_what_is_ignored_but_not_its_dockerfile() {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("Dockerfile", "FROM x"),
            ("a.log", ""),
            ("b.txt", ""),
            ("deep/c.log", ""),
            ("deep/keep.log", ""),
            ("gone/x", ""),
        ] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let send_with = |rules: &str, dockerfile| {
            let ignore = IgnoreList::parse(rules).unwrap();
            let mut out = Vec::new();
            send(BuildContext::Folder { root: dir.path().to_owned(), dockerfile, ignore }, &mut out).unwrap();
            names(&out)
        };
        let within = || Dockerfile::Within("Dockerfile".into());
        assert_eq!(
            send_with("**/*.log\n!deep/keep.log\ngone\nDockerfile\n", within()),
            ["Dockerfile", "b.txt", "deep/", "deep/keep.log"]
        );
        assert_eq!(send_with("*", Dockerfile::Text("FROM y".into())), [SENT_DOCKERFILE]);
    }

    #[test]
    fn a_dockerfile_is_checked_and_its_wrong_line_named() {
        let dir = tempfile::tempdir().unwrap();
        let args = BuildArgs { context: dir.path().display().to_string(), ..BuildArgs::default() };
        fs::write(dir.path().join("Dockerfile"), "FROM x\nRUN true\n").unwrap();
        check(&args).unwrap();
        fs::write(dir.path().join("Dockerfile"), "FROM x\nRUNN true\n").unwrap();
        let error = format!("{:#}", check(&args).unwrap_err());
        assert!(error.contains("Dockerfile") && error.contains("RUNN"), "{error}");
        let inline = BuildArgs { dockerfile_text: Some("FROM".to_owned()), ..args };
        assert!(check(&inline).is_err());
    }

    #[test]
    fn what_a_file_says_of_builds_is_what_run_may_take() {
        let wanted = compose::StackBuild {
            shm_size_bytes: Some(64 << 20),
            ulimits: vec![model::Ulimit { name: "nofile".into(), soft: 5, hard: 6 }],
            ..compose::StackBuild::default()
        };
        let query = limits(&of_service("web", &wanted).limits).unwrap();
        let of = |name: &str| query.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone());
        assert_eq!(of("shmsize").unwrap(), (64 << 20).to_string());
        assert_eq!(of("ulimits").unwrap(), r#"[{"Name":"nofile","Hard":6,"Soft":5}]"#);
        assert_eq!(of("memory"), None);
    }

    #[test]
    fn packed_input_is_told_from_a_dockerfile() {
        assert!(!looks_packed(b"FROM x\n"));
        assert!(looks_packed(b"\x1f\x8b\x08"));
        let mut tar = tar::Builder::new(Vec::new());
        append_text(&mut tar, "Dockerfile", "FROM x").unwrap();
        assert!(looks_packed(&tar.into_inner().unwrap()[..512]));
    }
}
