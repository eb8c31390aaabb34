//! Which daemon a command asks, and the daemons that have names: Docker's contexts, in Docker's own store, so that both
//! programs see the same ones.
//!
//! ```text
//! ~/.docker/config.json                       currentContext: the one in use
//! ~/.docker/contexts/meta/SHA256/meta.json    Name, Metadata.Description, Endpoints.docker.Host
//! ~/.docker/contexts/tls/SHA256/docker/       ca.pem cert.pem key.pem
//! ```
//! SHA256 is that of the name, in hex. *Source:* docker/cli `cli/context/store`, `cli/command/cli.go`
//! (`resolveContextName`).

use super::credentials;
use anyhow::{Context as _, Result, bail, ensure};
use docker_api::tls::Files;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::{
    collections::BTreeMap,
    fs, io,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// Name of the context that is none: the daemon that flags and variables say.
pub(crate) const DEFAULT: &str = "default";
/// The endpoint that a Docker daemon has in a context; others are those of plugins, and left as they are.
pub(crate) const ENDPOINT: &str = "docker";
/// *Limit* of what is read of a context. *Unit:* bytes. Source: docker/cli `cli/context/store/storeutils.go`,
/// `maxAllowedFileSizeToImport`.
pub(crate) const SIZE_MAX: u64 = 10 << 20;

/// What flags, variables and settings say of the daemon to ask.
#[derive(Debug, Default, Clone)]
pub(crate) struct Said {
    /// `--host` on the command line.
    pub(crate) host: Option<String>,
    /// `--context`
    pub(crate) context: Option<String>,
    /// `RSWARM_HOST`, else `DOCKER_HOST`.
    pub(crate) host_variable: Option<(&'static str, String)>,
    /// `DOCKER_CONTEXT`
    pub(crate) context_variable: Option<String>,
    /// `currentContext` of `config.json`.
    pub(crate) current: Option<String>,
}

impl Said {
    /// Gathers what is said.
    ///
    /// # Errors
    /// Docker's `config.json` is there and cannot be read.
    pub(crate) fn gather(host: Option<String>, typed: bool, context: Option<String>) -> Result<Self> {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (typed, variable) = if typed { (host, None) } else { (None, host) };
        let variable = variable.map(|host| ("RSWARM_HOST", host));
        Ok(Self {
            host: typed,
            context: context.filter(|name| !name.is_empty()),
            host_variable: variable.or_else(|| Some(("DOCKER_HOST", set("DOCKER_HOST")?))),
            context_variable: set("DOCKER_CONTEXT"),
            // Without a home there is no context; that is no reason not to ask.
            current: match credentials::folder() {
                Some(_) => credentials::Credentials::read()?.context().map(str::to_owned),
                None => None,
            },
        })
    }

    /// Returns the name of the context that is meant. *Source:* docker/cli `resolveContextName`.
    ///
    /// # Errors
    /// A host and a context were typed.
    pub(crate) fn name(&self) -> Result<&str> {
        ensure!(
            self.host.is_none() || self.context.is_none(),
            "conflicting options: cannot specify both --host and --context"
        );
        if let Some(name) = &self.context {
            return Ok(name);
        }
        if self.host.is_some() || self.host_variable.is_some() {
            return Ok(DEFAULT);
        }
        Ok(self.context_variable.as_deref().or(self.current.as_deref()).unwrap_or(DEFAULT))
    }

    /// Returns the host that the context `default` is.
    pub(crate) fn default_host(&self) -> &str {
        let variable = self.host_variable.as_ref().map(|(_, host)| host.as_str());
        self.host.as_deref().or(variable).unwrap_or(crate::DEFAULT_HOST)
    }

    /// Returns where a command goes.
    ///
    /// # Errors
    /// As [`name`](Self::name); there is no such context, or it says what is not honoured.
    pub(crate) fn place(&self) -> Result<Place> {
        match self.name()? {
            DEFAULT => Ok(Place { host: self.default_host().to_owned(), tls: None, named: false }),
            name => Store::open()?.read(name)?.place(),
        }
    }
}

/// A daemon to ask.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) host: String,
    pub(crate) tls: Option<Files>,
    /// It is a context's, and so are its files.
    pub(crate) named: bool,
}

/// Docker's store of contexts.
#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
}

/// A context as the store has it.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) name: String,
    /// `meta.json`, with what is not ours to read in it.
    pub(crate) meta: Value,
    /// Folder of its `meta.json`.
    pub(crate) folder: PathBuf,
    /// Folder of its keys, which need not be there.
    pub(crate) keys: PathBuf,
}

/// Files of keys by endpoint and name.
pub(crate) type Keys = BTreeMap<(String, String), Vec<u8>>;

impl Store {
    /// Returns the store of this person's Docker.
    ///
    /// # Errors
    /// There is no home.
    pub(crate) fn open() -> Result<Self> {
        let folder = credentials::folder().context("neither DOCKER_CONFIG nor HOME is set")?;
        Ok(Self { folder: folder.join("contexts") })
    }

    #[cfg(test)]
    pub(crate) fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn folders(&self, name: &str) -> (PathBuf, PathBuf) {
        let id: String = Sha256::digest(name.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        (self.folder.join("meta").join(&id), self.folder.join("tls").join(&id))
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.folders(name).0.join("meta.json").exists()
    }

    /// Returns a context.
    ///
    /// # Errors
    /// It is not there, or cannot be read.
    pub(crate) fn read(&self, name: &str) -> Result<Stored> {
        check(name)?;
        let (folder, keys) = self.folders(name);
        let path = folder.join("meta.json");
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                bail!("context {name:?}: context not found; hint: `rswarm context ls` lists them")
            }
            read => read.with_context(|| format!("context {name:?}: cannot read {}", path.display()))?,
        };
        let meta = serde_json::from_slice(&text)
            .with_context(|| format!("context {name:?}: {} is not JSON", path.display()))?;
        Ok(Stored { name: name.to_owned(), meta, folder, keys })
    }

    /// Returns all contexts by name, and why some cannot be read.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn all(&self) -> Result<(Vec<Stored>, Vec<String>)> {
        let (mut all, mut damaged) = (Vec::new(), Vec::new());
        let folder = self.folder.join("meta");
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((all, damaged)),
            entries => entries.with_context(|| format!("cannot read {}", folder.display()))?,
        };
        for entry in entries {
            let path = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
            let path = path.join("meta.json");
            let read = || -> Result<Stored> {
                let meta: Value = serde_json::from_slice(&fs::read(&path)?)?;
                self.read(meta["Name"].as_str().context("it has no Name")?)
            };
            match read() {
                Ok(stored) => all.push(stored),
                Err(error) => damaged.push(format!("{} is left out: {error:#}", path.display())),
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok((all, damaged))
    }

    /// Writes a context; its keys are replaced if they are given. The keys come first, and what says where the daemon
    /// is last: what is there is whole.
    ///
    /// # Errors
    /// The name is none, or the store cannot be written.
    pub(crate) fn write(&self, name: &str, meta: &Value, keys: Option<&Keys>) -> Result<()> {
        check(name)?;
        let (folder, tls) = self.folders(name);
        if let Some(keys) = keys {
            remove_folder(&tls)?;
            for ((endpoint, file), content) in keys {
                replace(&tls.join(endpoint).join(file), content, 0o700, 0o600)?;
            }
        }
        let mut meta = meta.clone();
        meta["Name"] = name.into();
        replace(&folder.join("meta.json"), &serde_json::to_vec(&meta)?, 0o755, 0o644)
    }

    /// Forgets a context.
    ///
    /// # Errors
    /// It is not there, or its folders cannot be removed.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        let stored = self.read(name)?;
        remove_folder(&stored.keys)?;
        remove_folder(&stored.folder)
    }
}

impl Stored {
    fn endpoint(&self) -> &Value {
        &self.meta["Endpoints"][ENDPOINT]
    }

    pub(crate) fn host(&self) -> &str {
        self.endpoint()["Host"].as_str().unwrap_or_default()
    }

    pub(crate) fn description(&self) -> &str {
        self.meta["Metadata"]["Description"].as_str().unwrap_or_default()
    }

    /// Returns the daemon that it names.
    ///
    /// # Errors
    /// It names none, or says what is not honoured.
    fn place(&self) -> Result<Place> {
        let name = &self.name;
        ensure!(!self.host().is_empty(), "context {name:?} names no Docker endpoint");
        ensure!(
            self.endpoint()["SkipTLSVerify"] != true,
            "context {name:?} has SkipTLSVerify, and rswarm believes no daemon whose certificate is not verified; hint: \
             `rswarm context update {name} --docker host={},ca=FILE`",
            self.host()
        );
        let files = Files::in_folder(&self.keys.join(ENDPOINT));
        let (ca, own) = (files.ca.exists(), files.cert.exists() || files.key.exists());
        ensure!(
            ca || !own,
            "context {name:?} has a certificate and no ca.pem that says whose daemon to believe; hint: `rswarm context \
             update {name} --docker host={},ca=FILE,cert=FILE,key=FILE`",
            self.host()
        );
        Ok(Place { host: self.host().to_owned(), tls: ca.then_some(files), named: true })
    }

    /// Returns the files of its keys.
    ///
    /// # Errors
    /// They cannot be read.
    pub(crate) fn keys(&self) -> Result<Keys> {
        let mut keys = Keys::new();
        let failed = || format!("cannot read {}", self.keys.display());
        for endpoint in entries(&self.keys).with_context(failed)? {
            for file in entries(&self.keys.join(&endpoint)).with_context(failed)? {
                let content = fs::read(self.keys.join(&endpoint).join(&file)).with_context(failed)?;
                keys.insert((endpoint.clone(), file), content);
            }
        }
        Ok(keys)
    }
}

/// Returns what is said of one Docker endpoint, as `meta.json` has it.
pub(crate) fn described(description: &str, host: &str) -> Value {
    let metadata = if description.is_empty() { json!({}) } else { json!({"Description": description}) };
    json!({"Metadata": metadata, "Endpoints": {ENDPOINT: {"Host": host, "SkipTLSVerify": false}}})
}

/// Refuses what is no name. *Source:* docker/cli `cli/context/store`, `restrictedNamePattern`.
///
/// # Errors
/// It is not one.
pub(crate) fn check(name: &str) -> Result<()> {
    let letter = |c: char| c.is_ascii_alphanumeric();
    let fits =
        name.len() > 1 && name.starts_with(letter) && name.chars().all(|c| letter(c) || "_.+-".contains(c));
    ensure!(
        fits,
        "context name {name:?} is invalid, names are validated against regexp \"^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$\""
    );
    ensure!(name != DEFAULT, "{DEFAULT:?} is a reserved context name");
    Ok(())
}

/// Returns the names in a folder; none if it is not there.
fn entries(folder: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        found => found?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
    }
}

fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.with_context(|| format!("cannot remove {}", folder.display())),
    }
}

/// Replaces a file, so that after a crash it is the old one or the new one.
fn replace(path: &Path, content: &[u8], folder_mode: u32, mode: u32) -> Result<()> {
    let write = || -> io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        fs::DirBuilder::new().recursive(true).mode(folder_mode).create(folder)?;
        let mut file =
            tempfile::Builder::new().permissions(fs::Permissions::from_mode(mode)).tempfile_in(folder)?;
        file.write_all(content)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        fs::File::open(folder)?.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_which_daemon_is_as_in_dockers_cli() {
        let some = |text: &str| Some(text.to_owned());
        let all = Said {
            host: None,
            context: some("typed"),
            host_variable: Some(("DOCKER_HOST", "tcp://variable".to_owned())),
            context_variable: some("variable"),
            current: some("current"),
        };
        assert_eq!(all.name().unwrap(), "typed");
        let said = Said { context: None, ..all.clone() };
        assert_eq!((said.name().unwrap(), said.default_host()), (DEFAULT, "tcp://variable"));
        let said = Said { host: some("tcp://typed"), ..said };
        assert_eq!((said.name().unwrap(), said.default_host()), (DEFAULT, "tcp://typed"));
        let said = Said { host: None, host_variable: None, ..said };
        assert_eq!(said.name().unwrap(), "variable");
        let said = Said { context_variable: None, ..said };
        assert_eq!(said.name().unwrap(), "current");
        let said = Said::default();
        assert_eq!((said.name().unwrap(), said.default_host()), (DEFAULT, crate::DEFAULT_HOST));
        let both = Said { host: some("tcp://typed"), ..all };
        assert_eq!(
            both.name().unwrap_err().to_string(),
            "conflicting options: cannot specify both --host and --context"
        );
    }

    #[test]
    fn contexts_are_where_dockers_cli_keeps_them() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path().join("contexts"));
        assert!(store.all().unwrap().0.is_empty() && !store.contains("x1"));
        let keys = Keys::from([(("docker".to_owned(), "ca.pem".to_owned()), b"PEM".to_vec())]);
        store.write("x1", &described("d e", "tcp://1.2.3.4:2376"), Some(&keys)).unwrap();
        // The folder and the text that Docker's CLI 28 makes of the same.
        let id = "ec31682fde561917952ff78a7a8adeffd0febc372dd26871916c46c630381b45";
        let path = folder.path().join("contexts/meta").join(id).join("meta.json");
        let wrote: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let theirs = r#"{"Name":"x1","Metadata":{"Description":"d e"},"Endpoints":{"docker":{"Host":"tcp://1.2.3.4:2376","SkipTLSVerify":false}}}"#;
        assert_eq!(wrote, serde_json::from_str::<Value>(theirs).unwrap());
        let key = folder.path().join("contexts/tls").join(id).join("docker/ca.pem");
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(key.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);

        let stored = store.read("x1").unwrap();
        assert_eq!((stored.description(), stored.host()), ("d e", "tcp://1.2.3.4:2376"));
        assert_eq!(stored.keys().unwrap(), keys);
        let place = stored.place().unwrap();
        assert_eq!((place.host.as_str(), place.tls.unwrap().ca), ("tcp://1.2.3.4:2376", key));
        // One that is damaged is left out, and named.
        fs::create_dir_all(folder.path().join("contexts/meta/0000")).unwrap();
        fs::write(folder.path().join("contexts/meta/0000/meta.json"), "{").unwrap();
        let (all, damaged) = store.all().unwrap();
        assert_eq!(all.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["x1"]);
        assert!(damaged[0].contains("meta/0000/meta.json is left out"), "{damaged:?}");
        store.remove("x1").unwrap();
        assert!(store.read("x1").unwrap_err().to_string().contains("context not found"));
        assert!(!folder.path().join("contexts/tls").join(id).exists());
    }

    #[test]
    fn what_a_context_says_and_is_not_honoured_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path().to_owned());
        let refused = |meta: &Value, keys: &Keys| {
            store.write("x1", meta, Some(keys)).unwrap();
            store.read("x1").unwrap().place().unwrap_err().to_string()
        };
        let mut meta = described("", "tcp://h:1");
        let own = Keys::from([(("docker".to_owned(), "cert.pem".to_owned()), Vec::new())]);
        assert!(refused(&meta, &own).contains("no ca.pem"));
        meta["Endpoints"]["docker"]["SkipTLSVerify"] = true.into();
        assert!(refused(&meta, &Keys::new()).contains("SkipTLSVerify"));
        assert!(
            refused(&json!({"Endpoints": {"kubernetes": {}}}), &Keys::new()).contains("no Docker endpoint")
        );
        for bad in ["x", "", "-a", "a b", "../..", "default", "a/b"] {
            assert!(store.write(bad, &meta, None).is_err(), "{bad}");
        }
    }
}
