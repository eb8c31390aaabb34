//! `cargo xtask dist` makes what is given to others: one static program, packed for any Linux (`.tar.zst`, and `.tar.gz`
//! for hosts without zstd), for Debian and its kin (`.deb`), and for Fedora and its kin (`.rpm`), with the list of what is
//! in it (CycloneDX), the installer and the checksums of all.
//!
//! The same commit makes the same bytes, whoever packs it, where and when: names are sorted, owners are root, times are
//! the commit's (or `SOURCE_DATE_EPOCH`), folders of this machine are named otherwise in the program.
//! *Source:* reproducible-builds.org, "SOURCE_DATE_EPOCH" and "Archives".

mod deb;
mod pack;
mod rpm;
mod sbom;
mod supplied;
#[cfg(test)]
mod tests;
mod tree;

use anyhow::{Context, Result, bail};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use supplied::Supplied;

/// What the archives are compressed with: the most that readers need no more memory for. *Source:* zstd(1), `--ultra`.
const LEVEL: i32 = 19;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to build for.
    #[arg(long, value_enum, default_value_t = Target::here())]
    target: Target,
    /// Where the files go; those of other architectures and versions stay there.
    #[arg(long, default_value = "target/dist")]
    out: PathBuf,
    /// Packs this program, which was built for the target, and builds none.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

/// The architectures that we know, by the names that everybody else has for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Target {
    #[value(name = "x86_64-unknown-linux-gnu")]
    X86_64,
    #[value(name = "aarch64-unknown-linux-gnu")]
    Aarch64,
}

impl Target {
    const fn here() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 }
    }

    pub(crate) const fn triple(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Aarch64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// Of `uname -m`, of rpm and of our archives.
    pub(crate) const fn machine(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// Of dpkg.
    pub(crate) const fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// Starts a program of this target here: as it is, or in an emulator.
    fn start(self, program: &Path) -> Command {
        if self == Self::here() {
            return Command::new(program);
        }
        let mut emulator = Command::new(format!("qemu-{}", self.machine()));
        emulator.arg(program);
        emulator
    }
}

/// All that goes into the packages of one target.
#[derive(Debug)]
pub(crate) struct Release {
    pub(crate) version: String,
    pub(crate) target: Target,
    /// Seconds since 1970: the time of every file.
    pub(crate) epoch: u32,
    pub(crate) program: Vec<u8>,
    /// Names and texts of the manual's pages.
    pub(crate) pages: BTreeMap<String, Vec<u8>>,
    /// What makes `bash`, `zsh` and `fish` complete our commands.
    pub(crate) completions: BTreeMap<&'static str, Vec<u8>>,
    pub(crate) supplied: Vec<Supplied>,
    /// This repository.
    pub(crate) root: PathBuf,
    /// How hard zstd tries.
    pub(crate) level: i32,
}

/// Builds, packs, and writes the checksums.
///
/// # Errors
/// A program is missing or fails, a file cannot be read or written. What was there before stays as it was, but for the
/// files that were done.
pub(crate) fn run(args: &Args) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let epoch = epoch(&root)?;
    let program = match &args.program {
        Some(program) => program.clone(),
        None => build(&root, args.target, epoch)?,
    };
    let supplied = supplied::of_program(&root, args.target)?;
    let release = Release::of(&root, args.target, epoch, &program, supplied, LEVEL)?;
    for path in release.write(&args.out)? {
        println!("{:>12}  {}", fs::metadata(&path)?.len(), path.display());
    }
    Ok(())
}

/// Returns the time that all files get. *Unit:* seconds since 1970.
fn epoch(root: &Path) -> Result<u32> {
    let text = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text,
        Err(_) => {
            let log = Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(root).output();
            let log = log.context("git does not run; hint: SOURCE_DATE_EPOCH says when this was made")?;
            String::from_utf8(log.stdout)?
        }
    };
    text.trim().parse().with_context(|| format!("SOURCE_DATE_EPOCH is {text:?}, not seconds since 1970"))
}

/// Builds the program, in which the folders of this machine have other names, and returns where it is.
fn build(root: &Path, target: Target, epoch: u32) -> Result<PathBuf> {
    let says = |program: &str, words: &[&str]| -> Result<String> {
        let program = std::env::var(program.to_uppercase()).unwrap_or_else(|_| program.to_owned());
        let said = Command::new(&program).args(words).current_dir(root).output();
        let said = said.with_context(|| format!("cannot run {program}"))?;
        Ok(String::from_utf8(said.stdout)?.trim().to_owned())
    };
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo = cargo.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let cargo = cargo.context("neither CARGO_HOME nor HOME says where cargo keeps its files")?;
    let library = Path::new(&says("rustc", &["--print", "sysroot"])?).join("lib/rustlib/src/rust");
    // Of several that fit the last one counts. *Source:* rustc book, `--remap-path-prefix`.
    let flags = [(cargo.as_path(), "/cargo"), (library.as_path(), "/rustc"), (root, "/rswarm")]
        .map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()));
    let flags = format!("target.{}.rustflags={}", target.triple(), serde_json::to_string(&flags)?);
    let mut cargo = Command::new("cargo");
    cargo
        .args(["build", "--release", "--locked", "--package", "rswarm", "--target", target.triple()])
        // Joined to what `.cargo/config.toml` says; flags of the environment would take its place.
        .args(["--config", &flags])
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("SOURCE_DATE_EPOCH", epoch.to_string())
        .current_dir(root);
    if target != Target::here() {
        let word = target.triple().to_uppercase().replace('-', "_");
        let compiler = format!("{}-linux-gnu-gcc", target.machine());
        let linker = format!("CARGO_TARGET_{word}_LINKER");
        if std::env::var_os(&linker).is_none() {
            cargo.env(linker, compiler);
        }
    }
    let ended = cargo.status().context("cannot run cargo")?;
    if !ended.success() {
        bail!(
            "cargo build: {ended}; hint: another machine's program needs Rust's library for it (`rustup target add {}`) and \
             its C compiler (Debian's package gcc-{}-linux-gnu)",
            target.triple(),
            target.machine().replace('_', "-")
        );
    }
    let folder = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(folder.join(target.triple()).join("release/rswarm"))
}

impl Release {
    /// Takes in a program, and what it says of itself.
    pub(crate) fn of(
        root: &Path,
        target: Target,
        epoch: u32,
        program: &Path,
        supplied: Vec<Supplied>,
        level: i32,
    ) -> Result<Self> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let said = output(target.start(program).arg("--version")).with_context(|| {
            let program = program.display();
            format!(
                "{program} does not start; hint: one of another machine does by Debian's package qemu-user"
            )
        })?;
        let said = String::from_utf8(said)?;
        if !said.split_whitespace().any(|word| word.trim_end_matches(',') == version) {
            bail!("{} says that it is {:?}, not {version}", program.display(), said.trim());
        }
        let folder = tempfile::tempdir()?;
        output(target.start(program).arg("man").arg(folder.path()))?;
        let mut pages = BTreeMap::new();
        for entry in fs::read_dir(folder.path())? {
            let entry = entry?;
            pages.insert(entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?);
        }
        let mut completions = BTreeMap::new();
        for shell in ["bash", "fish", "zsh"] {
            completions.insert(shell, output(target.start(program).args(["completion", shell]))?);
        }
        let root = root.to_owned();
        let program = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
        Ok(Self { version, target, epoch, program, pages, completions, supplied, root, level })
    }

    /// Writes all files into a folder, and returns where they are.
    pub(crate) fn write(&self, out: &Path) -> Result<Vec<PathBuf>> {
        fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
        let (version, machine) = (&self.version, self.target.machine());
        // To compress is nearly all of the work.
        let (archives, deb, rpm) = std::thread::scope(|scope| {
            let (deb, rpm) = (scope.spawn(|| deb::package(self)), scope.spawn(|| rpm::package(self)));
            let join = "packing does not panic";
            (self.archives(), deb.join().expect(join), rpm.join().expect(join))
        });
        let [zst, gz] = archives?;
        let files = [
            (format!("rswarm-{version}-{machine}.tar.zst"), zst),
            (format!("rswarm-{version}-{machine}.tar.gz"), gz),
            (format!("rswarm_{version}_{}.deb", self.target.debian()), deb?),
            (format!("rswarm-{version}-1.{machine}.rpm"), rpm?),
            (format!("rswarm-{version}-{machine}.cdx.json"), sbom::text(self)?.into_bytes()),
            ("install.sh".to_owned(), tree::read(&self.root, "deploy/install.sh")?),
        ];
        let mut written = Vec::new();
        for (name, content) in files {
            let path = out.join(name);
            fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
            written.push(path);
        }
        written.push(checksums(out)?);
        Ok(written)
    }

    /// Returns what any Linux can unpack: by zstd, and by gzip.
    fn archives(&self) -> Result<[Vec<u8>; 2]> {
        let below = format!("rswarm-{}-{}/", self.version, self.target.machine());
        let files = pack::tar(&tree::portable(self)?, &below, self.epoch)?;
        Ok([pack::zstd(&files, self.level)?, pack::gzip(&files)?])
    }
}

/// Writes `SHA256SUMS` of all packages in a folder, also of those that were there.
fn checksums(out: &Path) -> Result<PathBuf> {
    let mut sums = BTreeMap::new();
    for entry in fs::read_dir(out)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "install.sh" || name.starts_with("rswarm-") || name.starts_with("rswarm_") {
            sums.insert(name, pack::sha256(&fs::read(entry.path())?));
        }
    }
    let lines: String = sums.into_iter().map(|(name, sum)| format!("{sum}  {name}\n")).collect();
    let path = out.join("SHA256SUMS");
    fs::write(&path, lines).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// Returns what a command says.
fn output(command: &mut Command) -> Result<Vec<u8>> {
    let said = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !said.status.success() {
        bail!("{command:?}: {}: {}", said.status, String::from_utf8_lossy(&said.stderr).trim());
    }
    Ok(said.stdout)
}
