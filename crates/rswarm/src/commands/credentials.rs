//! Accounts at registries, where Docker's CLI keeps them: in `config.json`, or with a credential helper that it names.
//!
//! *Source:* docker CLI, "docker login": `auths` by registry, base64 of `user:password`; `credsStore`, `credHelpers`;
//! docker-credential-helpers, "Development": verbs `get`, `store`, `erase`, `list` on standard input and output.

use anyhow::{Context, Result, bail};
use base64::{Engine, prelude::BASE64_STANDARD};
use docker_api::types::AuthConfig;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// What Docker calls its hub.
const HUB: &str = "https://index.docker.io/v1/";

/// What a helper calls the user of an identity token.
const TOKEN: &str = "<token>";

/// Returns the name under which a registry's account is kept.
pub(crate) fn key(server: Option<&str>) -> String {
    match server {
        None | Some("docker.io" | "index.docker.io") => HUB.to_owned(),
        Some(server) => server.trim_start_matches("https://").trim_start_matches("http://").to_owned(),
    }
}

/// Returns the folders of plugins of Docker's CLI, in the order in which they are searched: those that `config.json` names,
/// the person's, the machine's. Source: docker/cli `cli-plugins/manager/manager.go`, `manager_unix.go`.
pub(crate) fn plugin_folders() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    if let Ok(read) = Credentials::read() {
        let named = read.config["cliPluginsExtraDirs"].as_array().into_iter().flatten();
        folders.extend(named.filter_map(Value::as_str).map(PathBuf::from));
        folders.extend(read.path.parent().map(|folder| folder.join("cli-plugins")));
    }
    folders.extend(
        ["/usr/local/lib", "/usr/local/libexec", "/usr/lib", "/usr/libexec"]
            .map(|folder| Path::new(folder).join("docker/cli-plugins")),
    );
    folders
}

/// Returns the keys at which a terminal is left, if `config.json` says so.
pub(crate) fn detach_keys() -> Option<String> {
    let read = Credentials::read().ok()?;
    read.config["detachKeys"].as_str().filter(|keys| !keys.is_empty()).map(str::to_owned)
}

/// Returns the folder of Docker's CLI; `None` without a home.
pub(crate) fn folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("DOCKER_CONFIG").or_else(|| Some(set("HOME")?.join(".docker")))
}

/// `config.json` as it was read.
pub(crate) struct Credentials {
    path: PathBuf,
    config: Value,
}

impl Credentials {
    /// Reads the file; a missing one has no accounts.
    ///
    /// # Errors
    /// It cannot be read, with its path.
    pub(crate) fn read() -> Result<Self> {
        let folder = folder().context("neither DOCKER_CONFIG nor HOME is set")?;
        Self::of(folder.join("config.json"))
    }

    fn of(path: PathBuf) -> Result<Self> {
        let config = match std::fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).with_context(|| format!("cannot read {}", path.display()))?
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => json!({}),
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
        };
        Ok(Self { path, config })
    }

    /// Returns the account for an image's registry, if there is one.
    ///
    /// # Errors
    /// Its credential helper cannot be run.
    pub(crate) fn of_image(&self, image: &str) -> Result<Option<AuthConfig>> {
        let registry = match image.split_once('/') {
            Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => Some(first),
            _ => None,
        };
        self.get(&key(registry))
    }

    fn get(&self, key: &str) -> Result<Option<AuthConfig>> {
        match self.helper(key) {
            Some(helper) => helper.get(key),
            None => Ok(self.config["auths"].get(key).map(|entry| account_of(key, entry))),
        }
    }

    /// Returns all accounts, by registry as the file or the helper names them.
    ///
    /// # Errors
    /// As [`of_image`](Self::of_image).
    pub(crate) fn all(&self) -> Result<BTreeMap<String, AuthConfig>> {
        let names = |field: &str| -> Vec<String> {
            self.config[field].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
        };
        let mut registries = names("auths");
        registries.extend(names("credHelpers"));
        if let Some(helper) = self.store() {
            registries.extend(helper.list()?);
        }
        let mut all = BTreeMap::new();
        for registry in registries {
            if let Some(account) = self.get(&registry)? {
                all.insert(registry, account);
            }
        }
        Ok(all)
    }

    /// Remembers an account.
    ///
    /// # Errors
    /// The file or the helper does not take it.
    pub(crate) fn keep(mut self, account: &AuthConfig) -> Result<()> {
        if let Some(helper) = self.helper(&account.server_address) {
            return helper.store(account);
        }
        self.config["auths"][&account.server_address] = if account.identity_token.is_empty() {
            json!({"auth": BASE64_STANDARD.encode(format!("{}:{}", account.username, account.password))})
        } else {
            json!({"identitytoken": account.identity_token})
        };
        self.write()
    }

    /// Forgets an account, if there is one.
    ///
    /// # Errors
    /// As [`keep`](Self::keep).
    pub(crate) fn forget(mut self, key: &str) -> Result<()> {
        if let Some(helper) = self.helper(key) {
            helper.erase(key)?;
        }
        match self.config["auths"].as_object_mut().and_then(|auths| auths.remove(key)) {
            Some(_) => self.write(),
            None => Ok(()),
        }
    }

    /// Returns the name of the context in use.
    pub(crate) fn context(&self) -> Option<&str> {
        self.config["currentContext"].as_str().filter(|name| !name.is_empty())
    }

    /// Remembers which context is in use; `None`: none.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn keep_context(mut self, name: Option<&str>) -> Result<()> {
        match name {
            Some(name) => self.config["currentContext"] = name.into(),
            None => drop(self.config.as_object_mut().and_then(|config| config.remove("currentContext"))),
        }
        self.write()
    }

    /// Replaces the file; for the owner's eyes only.
    fn write(&self) -> Result<()> {
        let path = &self.path;
        let folder = path.parent().context("a folder")?;
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let new = path.with_extension("json.new");
        let write = || -> std::io::Result<()> {
            let mut options = std::fs::OpenOptions::new();
            let mut out = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            out.write_all(serde_json::to_string_pretty(&self.config)?.as_bytes())?;
            out.sync_all()?;
            std::fs::rename(&new, path)
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    fn helper(&self, key: &str) -> Option<Helper> {
        let own = self.config["credHelpers"][key].as_str().filter(|name| !name.is_empty());
        own.map(Helper::named).or_else(|| self.store())
    }

    fn store(&self) -> Option<Helper> {
        self.config["credsStore"].as_str().filter(|name| !name.is_empty()).map(Helper::named)
    }
}

fn account_of(key: &str, entry: &Value) -> AuthConfig {
    let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let mut account = AuthConfig {
        identity_token: text("identitytoken"),
        server_address: key.to_owned(),
        ..AuthConfig::default()
    };
    if let Ok(pair) = BASE64_STANDARD.decode(text("auth"))
        && let Ok(pair) = String::from_utf8(pair)
        && let Some((user, password)) = pair.split_once(':')
    {
        user.clone_into(&mut account.username);
        password.clone_into(&mut account.password);
    }
    account
}

/// A program `docker-credential-NAME`.
struct Helper {
    program: PathBuf,
}

impl Helper {
    /// A path is tried as one; Docker's CLI finds names on PATH.
    fn named(name: &str) -> Self {
        let program =
            if name.contains('/') { name.into() } else { format!("docker-credential-{name}").into() };
        Self { program }
    }

    fn shown(&self) -> String {
        Path::new(&self.program).display().to_string()
    }

    fn get(&self, key: &str) -> Result<Option<AuthConfig>> {
        let (ok, said) = self.ask("get", key)?;
        if !ok {
            // Source: docker-credential-helpers `credentials/error.go`.
            if said.contains("credentials not found") {
                return Ok(None);
            }
            bail!("{} get: {}", self.shown(), said.trim());
        }
        let answer: Value =
            serde_json::from_str(&said).with_context(|| format!("{} get: not JSON", self.shown()))?;
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        let mut account = AuthConfig { server_address: key.to_owned(), ..AuthConfig::default() };
        if text("Username") == TOKEN {
            account.identity_token = text("Secret");
        } else {
            account.username = text("Username");
            account.password = text("Secret");
        }
        Ok(Some(account))
    }

    fn list(&self) -> Result<Vec<String>> {
        let (ok, said) = self.ask("list", "")?;
        if !ok {
            bail!("{} list: {}", self.shown(), said.trim());
        }
        let all: BTreeMap<String, String> =
            serde_json::from_str(&said).with_context(|| format!("{} list: not JSON", self.shown()))?;
        Ok(all.into_keys().collect())
    }

    fn store(&self, account: &AuthConfig) -> Result<()> {
        let (user, secret) = match account.identity_token.as_str() {
            "" => (account.username.as_str(), account.password.as_str()),
            token => (TOKEN, token),
        };
        let entry = json!({"ServerURL": account.server_address, "Username": user, "Secret": secret});
        match self.ask("store", &entry.to_string())? {
            (true, _) => Ok(()),
            (false, said) => bail!("{} store: {}", self.shown(), said.trim()),
        }
    }

    fn erase(&self, key: &str) -> Result<()> {
        match self.ask("erase", key)? {
            (false, said) if !said.contains("credentials not found") => {
                bail!("{} erase: {}", self.shown(), said.trim())
            }
            _ => Ok(()),
        }
    }

    /// Returns whether it worked and what it wrote.
    fn ask(&self, verb: &str, input: &str) -> Result<(bool, String)> {
        let run = || -> std::io::Result<std::process::Output> {
            let mut child =
                Command::new(&self.program).arg(verb).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                // One that does not read its input says why on its output.
                drop(stdin.write_all(input.as_bytes()));
            }
            child.wait_with_output()
        };
        let ended = run().with_context(|| {
            format!("cannot run {}, which config.json names; is it installed?", self.shown())
        })?;
        Ok((ended.status.success(), String::from_utf8_lossy(&ended.stdout).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// A helper that keeps one account in a file beside it.
    fn helper(dir: &Path) -> String {
        let script = dir.join("helper");
        let text = "#!/bin/sh\nfile=${0%/*}/kept\ncase $1 in\nstore) cat >$file ;;\n\
            get) read -r key; if [ -f $file ]; then cat $file; else echo credentials not found in native keychain; \
            exit 1; fi ;;\nerase) rm -f $file ;;\nlist) echo '{\"r.example\":\"me\"}' ;;\nesac\n";
        testkit::write_program(&script, text, 0o755);
        script.display().to_string()
    }

    fn account(server: &str) -> AuthConfig {
        AuthConfig {
            username: "me".into(),
            password: "secret".into(),
            server_address: server.into(),
            ..AuthConfig::default()
        }
    }

    #[test]
    fn accounts_without_a_helper_are_in_the_file_and_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/config.json");
        let read = || Credentials::of(path.clone()).unwrap();
        assert!(read().of_image("r.example/x").unwrap().is_none());
        read().keep(&account("r.example")).unwrap();
        read().keep(&account(HUB)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read().of_image("r.example/x:1").unwrap().unwrap().password, "secret");
        assert_eq!(read().of_image("library/x").unwrap().unwrap().server_address, HUB);
        assert_eq!(read().all().unwrap().len(), 2);
        read().forget("r.example").unwrap();
        assert!(read().of_image("r.example/x").unwrap().is_none());
    }

    #[test]
    fn a_helper_keeps_secrets_out_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        for field in [
            json!({"credsStore": helper(dir.path())}),
            json!({"credHelpers": {"r.example": helper(dir.path())}}),
        ] {
            std::fs::write(&path, field.to_string()).unwrap();
            let read = || Credentials::of(path.clone()).unwrap();
            assert!(read().of_image("r.example/x").unwrap().is_none());
            read().keep(&account("r.example")).unwrap();
            assert!(!std::fs::read_to_string(&path).unwrap().contains("auths"));
            assert_eq!(read().of_image("r.example/x").unwrap().unwrap(), account("r.example"));
            assert_eq!(read().all().unwrap().len(), 1);
            read().forget("r.example").unwrap();
            assert!(read().of_image("r.example/x").unwrap().is_none());
        }
    }

    #[test]
    fn a_missing_helper_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, "{\"credsStore\": \"no-such\"}").unwrap();
        let error = Credentials::of(path).unwrap().of_image("x").unwrap_err();
        assert!(error.to_string().contains("docker-credential-no-such"), "{error:#}");
    }
}
