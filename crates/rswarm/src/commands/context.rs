//! `rswarm context ...`: the daemons that have names. None of these asks a daemon.

use super::{
    contexts::{self, DEFAULT, ENDPOINT, Keys, Said, Store, Stored},
    credentials::Credentials,
};
use crate::{
    cli::{Context, ContextCreate, ContextUpdate, ListArgs},
    list::{self, List},
    output,
};
use anyhow::{Context as _, Result, bail, ensure};
use docker_api::{client::Host, tls};
use serde_json::{Value, json};
use std::{
    fs,
    io::{self, IsTerminal as _, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// `said`: what says which daemon is meant. `standing`: the files for TLS that flags and variables name.
///
/// # Errors
/// There is no such context, or the store cannot be read or written.
pub(crate) fn run(said: &Said, standing: Option<tls::Files>, command: Context) -> Result<()> {
    let store = Store::open()?;
    match command {
        Context::Create(args) => create(&store, said, standing, &args),
        Context::Ls { quiet, format } => ls(&store, said, quiet, format),
        Context::Inspect { names, format } => inspect(&store, said, &names, format.as_deref()),
        Context::Use { name } => use_from_now(&store, said, &name),
        Context::Rm { force, names } => remove(&store, said, force, &names),
        Context::Show => output::line(said.name()?),
        Context::Update(args) => update(&store, said, standing, &args),
        Context::Export { name, file } => export(&store, &name, file.as_deref()),
        Context::Import { name, file } => import(&store, &name, &file),
    }
}

/// A daemon as a context describes it.
struct Endpoint {
    host: String,
    keys: Keys,
}

impl Endpoint {
    fn with_files(host: &str, files: Option<&tls::Files>) -> Result<Self> {
        let mut keys = Keys::new();
        if let Some(files) = files {
            // What cannot be used is said now, not when it is needed.
            tls::client_config(files)?;
            for (name, path) in [("ca.pem", &files.ca), ("cert.pem", &files.cert), ("key.pem", &files.key)] {
                if !path.exists() {
                    continue;
                }
                let content = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
                keys.insert((ENDPOINT.to_owned(), name.to_owned()), content);
            }
        }
        Ok(Self { host: host.to_owned(), keys })
    }

    /// Returns that of another context.
    fn of(store: &Store, said: &Said, standing: Option<tls::Files>, name: &str) -> Result<Self> {
        if name == DEFAULT {
            let host = said.default_host();
            return Self::with_files(host, standing.filter(|_| host.starts_with("tcp://")).as_ref());
        }
        let stored = store.read(name)?;
        Ok(Self { host: stored.host().to_owned(), keys: stored.keys()? })
    }

    /// Reads `host=...,ca=FILE,cert=FILE,key=FILE` or `from=CONTEXT`. *Source:* docker/cli
    /// `cli/command/context/options.go`.
    fn read(store: &Store, said: &Said, standing: Option<tls::Files>, text: &str) -> Result<Self> {
        let (mut host, mut from) = (None, None);
        let (mut ca, mut cert, mut key) = (None, None, None);
        for field in text.split(',') {
            let (name, value) =
                field.split_once('=').with_context(|| format!("--docker: {field:?} is not KEY=VALUE"))?;
            match name {
                "host" => host = Some(value),
                "from" => from = Some(value),
                "ca" => ca = Some(PathBuf::from(value)),
                "cert" => cert = Some(PathBuf::from(value)),
                "key" => key = Some(PathBuf::from(value)),
                "skip-tls-verify" => ensure!(
                    matches!(value, "false" | "0"),
                    "--docker skip-tls-verify: rswarm believes no daemon whose certificate is not verified; hint: \
                     ca=FILE names who signs it"
                ),
                other => bail!("--docker: unrecognized config key: {other}"),
            }
        }
        let files = ca.is_some() || cert.is_some() || key.is_some();
        if let Some(from) = from {
            ensure!(host.is_none() && !files, "--docker: from= stands alone");
            return Self::of(store, said, standing, from);
        }
        let host = host.filter(|host| !host.is_empty()).context("--docker: host= is missing")?;
        let read: Host = host.parse()?;
        if !files {
            return Self::with_files(host, None);
        }
        ensure!(
            matches!(read, Host::Tcp(_)),
            "--docker: ca, cert and key are for tcp:// alone, not for {host}"
        );
        let ca = ca.context("--docker: ca= is missing: it names who signs the daemon's certificate")?;
        ensure!(cert.is_some() == key.is_some(), "--docker: cert= and key= go together");
        let none = || PathBuf::from("/nonexistent");
        let files = tls::Files { ca, cert: cert.unwrap_or_else(none), key: key.unwrap_or_else(none) };
        Self::with_files(host, Some(&files))
    }
}

fn create(store: &Store, said: &Said, standing: Option<tls::Files>, args: &ContextCreate) -> Result<()> {
    let name = &args.name;
    contexts::check(name)?;
    ensure!(!store.contains(name), "context {name:?} already exists");
    let mut meta = match (&args.docker, args.from.as_deref()) {
        (None, Some(from)) if from != DEFAULT => {
            let mut meta = store.read(from)?.meta;
            let keys = store.read(from)?.keys()?;
            describe(&mut meta, args.description.as_deref());
            store.write(name, &meta, Some(&keys))?;
            return created(name);
        }
        _ => contexts::described("", ""),
    };
    let endpoint = match (&args.docker, &args.from) {
        (Some(text), _) => Endpoint::read(store, said, standing, text)?,
        (None, Some(from)) => Endpoint::of(store, said, standing, from)?,
        (None, None) => {
            bail!("docker endpoint configuration is required; hint: --docker host=ssh://USER@HOST")
        }
    };
    meta["Endpoints"][ENDPOINT]["Host"] = endpoint.host.into();
    describe(&mut meta, args.description.as_deref());
    store.write(name, &meta, Some(&endpoint.keys))?;
    created(name)
}

fn created(name: &str) -> Result<()> {
    output::line(name)?;
    output::progress(&format!("Successfully created context {name:?}"));
    Ok(())
}

fn describe(meta: &mut Value, description: Option<&str>) {
    if let Some(text) = description {
        meta["Metadata"]["Description"] = text.into();
    }
}

fn update(store: &Store, said: &Said, standing: Option<tls::Files>, args: &ContextUpdate) -> Result<()> {
    let stored = store.read(&args.name)?;
    let mut meta = stored.meta.clone();
    describe(&mut meta, args.description.as_deref());
    let mut keys = None;
    if let Some(text) = &args.docker {
        let endpoint = Endpoint::read(store, said, standing, text)?;
        meta["Endpoints"][ENDPOINT] = json!({"Host": endpoint.host, "SkipTLSVerify": false});
        // Those of other endpoints stay.
        let mut all = stored.keys()?;
        all.retain(|(endpoint, _), _| endpoint != ENDPOINT);
        all.extend(endpoint.keys);
        keys = Some(all);
    }
    store.write(&args.name, &meta, keys.as_ref())?;
    output::line(&args.name)?;
    output::progress(&format!("Successfully updated context {:?}", args.name));
    Ok(())
}

/// Says that a variable is stronger than what is in use.
fn warn_of_variable(said: &Said, name: &str) {
    if let Some((variable, _)) = &said.host_variable {
        output::progress(&format!(
            "Warning: {variable} environment variable overrides the active context. To use {name:?}, either set the \
             global --context flag, or unset {variable} environment variable."
        ));
    }
}

fn ls(store: &Store, said: &Said, quiet: bool, format: Option<String>) -> Result<()> {
    let current = said.name()?;
    let (stored, damaged) = store.all()?;
    damaged.iter().for_each(|why| output::warning(why));
    let mut rows: Vec<[&str; 4]> =
        stored.iter().map(|s| [s.name.as_str(), s.description(), s.host(), ""]).collect();
    rows.push([DEFAULT, "What -H, RSWARM_HOST and DOCKER_HOST say", said.default_host(), ""]);
    if !rows.iter().any(|row| row[0] == current) {
        rows.push([current, "", "", "context not found"]);
    }
    rows.sort_unstable();
    let mut table = List::new(&[
        ("NAME", "Name"),
        ("DESCRIPTION", "Description"),
        ("DOCKER ENDPOINT", "DockerEndpoint"),
        ("ERROR", "Error"),
    ]);
    for [name, description, host, error] in rows {
        let own = name == current;
        let shown = if own { format!("{name} *") } else { name.to_owned() };
        let values = vec![shown, description.to_owned(), host.to_owned(), error.to_owned()];
        table.row_with(values, json!({"Name": name, "Current": own}));
    }
    table.print(&ListArgs { quiet, format, ..ListArgs::default() })?;
    if !quiet && let Some(name) = said.current.as_deref().filter(|name| *name != current) {
        warn_of_variable(said, name);
    }
    Ok(())
}

fn inspect(store: &Store, said: &Said, names: &[String], format: Option<&str>) -> Result<()> {
    let current = [said.name()?.to_owned()];
    let names = if names.is_empty() { &current } else { names };
    let (mut all, mut missing) = (Vec::new(), Vec::new());
    for name in names {
        match shown(store, said, name) {
            Ok(value) => all.push(value),
            Err(error) => missing.push(format!("{error:#}")),
        }
    }
    match format {
        None => output::line(&serde_json::to_string_pretty(&all)?)?,
        Some(format) => all.iter().try_for_each(|value| output::line(&list::render(format, value)?))?,
    }
    if missing.is_empty() { Ok(()) } else { bail!("{}", missing.join("\n")) }
}

fn shown(store: &Store, said: &Said, name: &str) -> Result<Value> {
    if name == DEFAULT {
        let mut value = contexts::described("", said.default_host());
        value["Name"] = DEFAULT.into();
        value["TLSMaterial"] = json!({});
        value["Storage"] = json!({"MetadataPath": "<IN MEMORY>", "TLSPath": "<IN MEMORY>"});
        return Ok(value);
    }
    let stored: Stored = store.read(name)?;
    let mut material = serde_json::Map::new();
    for (endpoint, file) in stored.keys()?.into_keys() {
        let files = material.entry(endpoint).or_insert_with(|| json!([]));
        files.as_array_mut().into_iter().for_each(|files| files.push(file.clone().into()));
    }
    let mut value = stored.meta;
    value["TLSMaterial"] = material.into();
    value["Storage"] = json!({"MetadataPath": stored.folder, "TLSPath": stored.keys});
    Ok(value)
}

fn use_from_now(store: &Store, said: &Said, name: &str) -> Result<()> {
    if name != DEFAULT {
        store.read(name)?;
    }
    Credentials::read()?.keep_context(Some(name).filter(|name| *name != DEFAULT))?;
    output::line(name)?;
    output::progress(&format!("Current context is now {name:?}"));
    if name != DEFAULT {
        warn_of_variable(said, name);
    }
    Ok(())
}

fn remove(store: &Store, said: &Said, force: bool, names: &[String]) -> Result<()> {
    let current = said.name()?;
    let mut failed = Vec::new();
    for name in names {
        let remove = || -> Result<()> {
            ensure!(name != DEFAULT, "context \"default\" cannot be removed");
            store.read(name)?;
            let used = name == current || said.current.as_ref() == Some(name);
            ensure!(force || !used, "context {name:?} is in use, set -f flag to force remove");
            if said.current.as_ref() == Some(name) {
                Credentials::read()?.keep_context(None)?;
            }
            store.remove(name)
        };
        match remove() {
            Ok(()) => output::line(name)?,
            Err(error) => failed.push(format!("{error:#}")),
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join("\n")) }
}

fn export(store: &Store, name: &str, file: Option<&str>) -> Result<()> {
    let stored = store.read(name)?;
    let archive = packed(&stored)?;
    if file == Some("-") {
        ensure!(
            !io::stdout().is_terminal(),
            "cowardly refusing to export to a terminal, specify a file path"
        );
        return output::bytes(&archive);
    }
    let usual = format!("{name}.dockercontext");
    let path = Path::new(file.unwrap_or(&usual));
    let write = || -> io::Result<()> {
        // There are keys in it.
        let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        out.write_all(&archive)?;
        out.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))?;
    output::progress(&format!("Written file {:?}", path.display().to_string()));
    Ok(())
}

/// Returns the archive that Docker's CLI makes of a context. *Source:* docker/cli `cli/context/store`, `Export`.
fn packed(stored: &Stored) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: &str, mode: u32, kind: tar::EntryType, content: &[u8]| -> io::Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content)
    };
    add("meta.json", 0o644, tar::EntryType::Regular, &serde_json::to_vec(&stored.meta)?)?;
    add("tls/", 0o700, tar::EntryType::Directory, &[])?;
    let mut last = String::new();
    for ((endpoint, file), content) in stored.keys()? {
        if endpoint != last {
            add(&format!("tls/{endpoint}/"), 0o700, tar::EntryType::Directory, &[])?;
            last.clone_from(&endpoint);
        }
        add(&format!("tls/{endpoint}/{file}"), 0o600, tar::EntryType::Regular, &content)?;
    }
    tar.into_inner().context("cannot pack the context")
}

fn import(store: &Store, name: &str, file: &str) -> Result<()> {
    contexts::check(name)?;
    ensure!(!store.contains(name), "context {name:?} already exists");
    let mut archive = Vec::new();
    let limit = contexts::SIZE_MAX + 1;
    let read = if file == "-" {
        io::stdin().lock().take(limit).read_to_end(&mut archive)
    } else {
        fs::File::open(file).and_then(|from| from.take(limit).read_to_end(&mut archive))
    };
    read.with_context(|| format!("cannot read {file}"))?;
    ensure!(archive.len() as u64 <= contexts::SIZE_MAX, "{file} is larger than {} bytes", contexts::SIZE_MAX);
    ensure!(
        !archive.starts_with(b"PK"),
        "{file} is a zip file, and rswarm reads a context's tar alone; hint: `docker context import` reads it, into \
         the same store"
    );
    let (meta, keys) = unpacked(&archive).with_context(|| format!("{file} is no exported context"))?;
    store.write(name, &meta, Some(&keys))?;
    output::line(name)?;
    output::progress(&format!("Successfully imported context {name:?}"));
    Ok(())
}

fn unpacked(archive: &[u8]) -> Result<(Value, Keys)> {
    let (mut meta, mut keys) = (None, Keys::new());
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        if entry.header().entry_type().is_dir() {
            continue;
        }
        let path = entry.path()?.to_str().context("a path in it is no text")?.to_owned();
        ensure!(entry.header().entry_type().is_file(), "invalid context: {path} is no file");
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
        match path.split('/').collect::<Vec<_>>().as_slice() {
            ["meta.json"] => meta = Some(serde_json::from_slice(&content).context("meta.json is not JSON")?),
            ["tls", endpoint, file] if plain(endpoint) && plain(file) => {
                keys.insert(((*endpoint).to_owned(), (*file).to_owned()), content);
            }
            _ => bail!("invalid context: unexpected file {path:?}"),
        }
    }
    let meta: Value = meta.context("invalid context: no metadata found")?;
    ensure!(meta.is_object(), "invalid context: meta.json is no object");
    Ok((meta, keys))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_goes_out_as_an_archive_and_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path().to_owned());
        let file = |endpoint: &str, name: &str| (endpoint.to_owned(), name.to_owned());
        let keys =
            Keys::from([(file("docker", "ca.pem"), b"ca".to_vec()), (file("other", "x"), b"kept".to_vec())]);
        let mut meta = contexts::described("d", "tcp://h:1");
        meta["Endpoints"]["other"] = json!({"of": "a plugin"});
        store.write("x1", &meta, Some(&keys)).unwrap();
        let (back, there) = unpacked(&packed(&store.read("x1").unwrap()).unwrap()).unwrap();
        assert_eq!((&back["Endpoints"], there), (&meta["Endpoints"], keys));
    }

    #[test]
    fn an_archive_writes_nowhere_but_into_its_context() {
        let with = |path: &str, kind: tar::EntryType| {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(kind);
            header.set_size(2);
            // `append_data` takes no such paths.
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            let mut tar = tar::Builder::new(Vec::new());
            tar.append(&header, &b"{}"[..]).unwrap();
            unpacked(&tar.into_inner().unwrap())
        };
        assert!(with("meta.json", tar::EntryType::Regular).is_ok());
        for bad in ["tls/../x", "../meta.json", "tls/docker/a/b", "/etc/passwd", "tls//x", "other"] {
            assert!(with(bad, tar::EntryType::Regular).is_err(), "{bad}");
        }
        assert!(with("tls/docker/ca.pem", tar::EntryType::Symlink).is_err());
        assert!(with("tls/docker/ca.pem", tar::EntryType::Regular).is_err(), "there is no meta.json");
        assert!(unpacked(b"").is_err());
    }

    #[test]
    fn an_endpoint_is_read_in_dockers_words_and_what_is_not_honoured_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path().to_owned());
        let said = Said::default();
        let read = |text: &str| Endpoint::read(&store, &said, None, text);
        assert_eq!(read("host=ssh://me@h").unwrap().host, "ssh://me@h");
        assert_eq!(read("from=default").unwrap().host, crate::DEFAULT_HOST);
        for (bad, why) in [
            ("x", "not KEY=VALUE"),
            ("colour=red", "unrecognized config key: colour"),
            ("host=foo://x", "unable to parse docker host"),
            ("ca=/x", "host= is missing"),
            ("host=tcp://h,skip-tls-verify=true", "skip-tls-verify"),
            ("host=unix:///x,ca=/x", "for tcp:// alone"),
            ("host=tcp://h,cert=/x,key=/y", "ca= is missing"),
            ("host=tcp://h,ca=/x,cert=/y", "go together"),
            ("host=tcp://h,ca=/nonexistent", "cannot read the CA certificate"),
            ("from=nope", "context not found"),
            ("from=default,host=tcp://h", "stands alone"),
        ] {
            let error = read(bad).err().expect(bad).to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
