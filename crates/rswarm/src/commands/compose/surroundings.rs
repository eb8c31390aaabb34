//! What shell, flags and files of variables say of a project: its files, name, profiles and how it is spoken of.
//!
//! ```text
//!  what                     flag                    then the shell, then .env
//!  files                    --file                  COMPOSE_FILE, divided by COMPOSE_PATH_SEPARATOR
//!  project                  --project-name          COMPOSE_PROJECT_NAME
//!  profiles, added up       --profile               COMPOSE_PROFILES
//!  files of variables       --env-file              COMPOSE_ENV_FILES (shell alone)
//!  orphans go               --remove-orphans        COMPOSE_REMOVE_ORPHANS
//!  orphans are no matter                            COMPOSE_IGNORE_ORPHANS
//!  so much at once          --parallel              COMPOSE_PARALLEL_LIMIT
//!  underscores in names     --compatibility         COMPOSE_COMPATIBILITY
//!  progress, colours        --progress, --ansi      COMPOSE_PROGRESS, COMPOSE_ANSI
//!  no file called .env                              COMPOSE_DISABLE_ENV_FILE (shell alone)
//!  progress to stdout                               COMPOSE_STATUS_STDOUT (shell alone)
//! ```
//! A variable of a value is the shell's, else that of the files of variables in the order in which they were named (the
//! last one wins), else that of `.env` here, else that of `.env` beside the first compose file. Source: docker/compose
//! `cmd/compose/compose.go`; documentation "Environment variables precedence".

use super::{
    super::deploy,
    remote::{self, Reach},
};
use crate::cli::{Ansi, Progress, ProjectArgs};
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use compose::{Files as _, Place, Sources};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// What is known of a project before its files are read.
pub(super) struct Surroundings<'a> {
    args: &'a ProjectArgs,
    /// The shell's alone.
    shell: BTreeMap<String, String>,
    /// The shell's, and those of files of variables where the shell has none.
    env: BTreeMap<String, String>,
    /// Later ones win.
    env_files: Vec<PathBuf>,
}

impl<'a> Surroundings<'a> {
    /// Reads the variables; `.env` is that of the project's folder if it was named, of the first file that was named, or
    /// that which is here.
    ///
    /// # Errors
    /// A file of variables cannot be read.
    pub(super) fn read(args: &'a ProjectArgs) -> Result<Self> {
        let shell: BTreeMap<String, String> = std::env::vars().collect();
        let mut env_files = args.env_file.clone();
        if env_files.is_empty()
            && let Some(listed) = shell.get("COMPOSE_ENV_FILES").filter(|v| !v.is_empty())
        {
            env_files.extend(listed.split(',').map(PathBuf::from));
        }
        if env_files.is_empty() && !read_no_default(&shell)? {
            let folder = match (&args.project_directory, args.file.first()) {
                (Some(folder), _) => folder.clone(),
                // What is in a registry stands in no folder here.
                (None, Some(file)) if remote::is_remote(file) => PathBuf::new(),
                (None, Some(file)) => file.parent().map(Path::to_path_buf).unwrap_or_default(),
                (None, None) => PathBuf::new(),
            };
            env_files.extend(Some(folder.join(".env")).filter(|file| file.is_file()));
        }
        let mut read = Self { args, env: BTreeMap::new(), shell, env_files };
        read.env = read.variables()?;
        Ok(read)
    }

    fn variables(&self) -> Result<BTreeMap<String, String>> {
        let sources = Sources {
            env: self.shell.clone(),
            env_files: self.env_files.clone(),
            // Nothing is read of it: what is to be read is named.
            project_dir: PathBuf::from("/nonexistent"),
            ..Sources::default()
        };
        Ok(compose::variables(&sources, &compose::Disk)?)
    }

    /// Returns a variable; what is empty counts as not set.
    fn get(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Returns a variable that says yes or no.
    fn flag(&self, name: &str) -> Result<bool> {
        flag(name, self.get(name))
    }

    /// Is what happens told where what was asked for is printed? Source: docker/compose `cmd/compose/compose.go`.
    pub(super) fn tells_to_stdout(&self) -> Result<bool> {
        let name = "COMPOSE_STATUS_STDOUT";
        flag(name, self.shell.get(name).map(String::as_str))
    }

    /// Is a menu of keys asked for, which there is none of here?
    pub(super) fn wants_menu(&self) -> Result<bool> {
        self.flag("COMPOSE_MENU")
    }

    fn word<T: ValueEnum>(&self, name: &str) -> Result<Option<T>> {
        let read = |text: &str| {
            T::from_str(text, true).map_err(|_| anyhow::anyhow!("{name}={text:?}: no such thing"))
        };
        self.get(name).map(read).transpose()
    }

    /// Returns the name of the project, if it is not the file's to say.
    pub(super) fn name(&self) -> Option<String> {
        self.args.project_name.clone().or_else(|| self.get("COMPOSE_PROJECT_NAME").map(str::to_owned))
    }

    pub(super) fn progress(&self) -> Result<Progress> {
        match self.args.progress {
            Some(progress) => Ok(progress),
            // Docker's word for what it draws on a terminal; lines say the same.
            None if self.get("COMPOSE_PROGRESS") == Some("tty") => Ok(Progress::Plain),
            None => Ok(self.word("COMPOSE_PROGRESS")?.unwrap_or_default()),
        }
    }

    pub(super) fn ansi(&self) -> Result<Ansi> {
        match self.args.ansi {
            Some(ansi) => Ok(ansi),
            None => Ok(self.word("COMPOSE_ANSI")?.unwrap_or_default()),
        }
    }

    pub(super) fn is_verbose(&self) -> bool {
        self.args.verbose
    }

    /// Returns how what files name is read.
    pub(super) fn reach(&self) -> Reach {
        Reach { insecure: self.args.insecure_registry.clone() }
    }

    pub(super) fn is_rehearsed(&self) -> bool {
        self.args.dry_run
    }

    pub(super) fn removes_orphans(&self) -> Result<bool> {
        self.flag("COMPOSE_REMOVE_ORPHANS")
    }

    pub(super) fn ignores_orphans(&self) -> Result<bool> {
        self.flag("COMPOSE_IGNORE_ORPHANS")
    }

    pub(super) fn underscores(&self) -> Result<bool> {
        Ok(self.args.compatibility || self.flag("COMPOSE_COMPATIBILITY")?)
    }

    /// Returns how much is done at once; `None` = all of a step.
    pub(super) fn parallel(&self) -> Result<Option<usize>> {
        let limit = match (self.args.parallel, self.get("COMPOSE_PARALLEL_LIMIT")) {
            (Some(limit), _) => limit,
            (None, Some(text)) => {
                text.parse().with_context(|| format!("COMPOSE_PARALLEL_LIMIT={text:?}: want a number"))?
            }
            (None, None) => return Ok(None),
        };
        match usize::try_from(limit) {
            Ok(0) => bail!("a limit of 0 would do nothing; hint: -1 is none"),
            Ok(limit) => Ok(Some(limit)),
            Err(_) => Ok(None),
        }
    }

    /// Returns the files that were named, else that of this folder or of one above it, with its override beside it.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn files(&self) -> Result<Vec<PathBuf>> {
        if !self.args.file.is_empty() {
            return Ok(self.args.file.clone());
        }
        if let Some(listed) = self.get("COMPOSE_FILE") {
            let separator = self.get("COMPOSE_PATH_SEPARATOR").unwrap_or(":");
            return Ok(listed.split(separator).filter(|f| !f.is_empty()).map(PathBuf::from).collect());
        }
        let start = match &self.args.project_directory {
            Some(folder) => {
                folder.canonicalize().with_context(|| format!("cannot read {}", folder.display()))?
            }
            None => std::env::current_dir().context("there is no current folder")?,
        };
        let found = start.ancestors().find_map(|folder| deploy::default_file(folder).ok());
        let Some(file) = found else {
            deploy::default_file(Path::new(""))?;
            bail!("no compose file here");
        };
        let mut files = vec![file.clone()];
        let stem = file.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        let beside = ["yml", "yaml"].map(|ending| file.with_file_name(format!("{stem}.override.{ending}")));
        files.extend(beside.into_iter().find(|f| f.exists()));
        Ok(files)
    }

    /// Reads the files.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub(super) fn sources(&self, files: &[PathBuf]) -> Result<Sources> {
        let reach = self.reach();
        let local = |file: &PathBuf| match file.to_str().filter(|_| remote::is_remote(file)) {
            Some(url) => reach.fetch(url).with_context(|| format!("cannot read {url}")),
            None => Ok(file.clone()),
        };
        let here = files.iter().map(local).collect::<Result<Vec<_>>>()?;
        let sources = deploy::sources(&here, self.name())?;
        // The folder of what was fetched is named after a digest.
        let fallback_name = match files.first().is_some_and(|file| remote::is_remote(file)) {
            true => std::env::current_dir()
                .ok()
                .and_then(|folder| Some(folder.file_name()?.to_string_lossy().into_owned())),
            false => None,
        };
        let project_dir = match &self.args.project_directory {
            Some(folder) => {
                folder.canonicalize().with_context(|| format!("cannot read {}", folder.display()))?
            }
            None => sources.project_dir,
        };
        // What is not said here, `.env` of the project says: unless other files were named in its place.
        let mut env_files = self.env_files.clone();
        let own = project_dir.join(".env");
        let is_named = !self.args.env_file.is_empty()
            || self.shell.get("COMPOSE_ENV_FILES").is_some_and(|v| !v.is_empty());
        let is_known = env_files.iter().any(|f| f.canonicalize().ok() == own.canonicalize().ok());
        if !is_named && !is_known && own.is_file() && !read_no_default(&self.shell)? {
            env_files.insert(0, own);
        }
        let profiles = self.get("COMPOSE_PROFILES").unwrap_or_default();
        let profiles = profiles.split(',').map(str::trim).filter(|p| !p.is_empty()).map(str::to_owned);
        Ok(Sources {
            env: self.shell.clone(),
            env_files,
            no_default_env: read_no_default(&self.shell)?,
            profiles: self.args.profile.iter().cloned().chain(profiles).collect(),
            lenient: self.args.lenient,
            place: Place::Host,
            all_resources: self.args.all_resources,
            underscores: self.underscores()?,
            fallback_name,
            project_dir,
            ..sources
        })
    }
}

/// Is `.env` left alone? Source: compose-go `consts`, `ComposeDisableDefaultEnvFile`.
fn read_no_default(shell: &BTreeMap<String, String>) -> Result<bool> {
    let name = "COMPOSE_DISABLE_ENV_FILE";
    flag(name, shell.get(name).map(String::as_str))
}

/// Reads what a variable says; what is not set or empty says no.
fn flag(name: &str, value: Option<&str>) -> Result<bool> {
    match value.map(str::to_ascii_lowercase).as_deref() {
        None | Some("" | "0" | "f" | "false" | "n" | "no" | "off") => Ok(false),
        Some("1" | "t" | "true" | "y" | "yes" | "on") => Ok(true),
        Some(other) => bail!("{name}={other:?}: want true or false"),
    }
}
