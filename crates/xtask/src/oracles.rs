//! Tests that need other programs are ignored as oracles: `cargo test` needs Rust and a C compiler only.
//! Here they run, all of them; a program that is missing is an error, not a skip.

use anyhow::{Context, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Programs that the tests call, with Debian's package.
const PROGRAMS: [(&str, &str); 19] = [
    ("ip", "iproute2"),
    ("bridge", "iproute2"),
    ("nft", "nftables"),
    ("busybox", "busybox-static"),
    ("docker", "docker.io"),
    ("docker-compose", "docker-compose"),
    ("docker-registry", "docker-registry"),
    ("skopeo", "skopeo"),
    ("git", "git"),
    ("apt-get", "apt"),
    ("dpkg-deb", "dpkg"),
    ("rpm", "rpm"),
    ("systemd-analyze", "systemd"),
    ("zstd", "zstd"),
    ("losetup", "mount"),
    ("mkfs.ext4", "e2fsprogs"),
    ("python3", "python3-venv"),
    ("prometheus", "prometheus"),
    ("promtool", "prometheus"),
];

/// An image of the tests, made from Debian packages.
struct Recipe {
    name: &'static str,
    packages: &'static [&'static str],
    /// Path and content of what is ours.
    files: &'static [(&'static str, &'static str)],
}

/// Packages of the dockerd that the tests compare with; the libraries are this machine's or these.
const DOCKERD: &[&str] = &["docker.io", "containerd", "runc", "libdevmapper1.02.1"];

/// Plugins of the `docker` CLI, and the release of Debian that has them: the tests' own has none.
const PLUGINS: (&str, &[&str]) = ("trixie", &["docker-buildx", "docker-compose"]);

const IMAGES: [Recipe; 3] = [
    Recipe { name: "redis", packages: &["redis-server"], files: &[] },
    Recipe {
        name: "flask",
        packages: &["python3-flask", "python3-redis"],
        files: &[("app/app.py", include_str!("flask_app.py"))],
    },
    // What the Dockerfiles of the tests build on.
    Recipe {
        name: "lang",
        packages: &[
            "bash",
            "coreutils",
            "dash",
            "findutils",
            "grep",
            "gzip",
            "libc6-dev",
            "lua5.4",
            "make",
            "mawk",
            "nodejs",
            "perl-base",
            "php8.2-cli",
            "python3-minimal",
            "python3",
            "ruby",
            "sed",
            "tar",
            "tcc",
        ],
        files: &[("etc/os-release", "PRETTY_NAME=\"languages of Debian\"\n")],
    },
];

/// Makes the images and runs the tests, or those of them with such names.
///
/// # Errors
/// A program is missing, a package cannot be fetched, a test fails.
pub(crate) fn run(tests: &[String]) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = |program: &str| {
        // Administrators' programs are not on everybody's PATH.
        std::env::split_paths(&path)
            .chain(["/usr/sbin".into(), "/sbin".into()])
            .any(|d| d.join(program).exists())
    };
    let missing: Vec<&str> =
        PROGRAMS.iter().filter(|(program, _)| !there(program)).map(|(_, package)| *package).collect();
    if !missing.is_empty() {
        bail!("the tests need programs of Debian's packages: apt-get install {}", missing.join(" "));
    }
    let folder = root()?.join("target/test-images");
    for recipe in IMAGES {
        image(&folder, &recipe).with_context(|| format!("image {}", recipe.name))?;
    }
    dockerd(&root()?.join("target/oracle-dockerd"))?;
    plugins(&root()?.join("target/oracle-plugins"))?;
    python(&root()?.join("target/oracle-venv"))?;
    docker_py_suite(&root()?.join("target/oracle-docker-py"))?;
    // The soak is ignored for its length, and compares with nobody.
    let cargo =
        ["test", "--workspace", "--locked", "--no-fail-fast", "--", "--ignored", "--skip", "tests::soak"];
    succeed(Command::new("cargo").env("ORACLE", "1").args(cargo).args(tests))
}

fn root() -> Result<PathBuf> {
    Ok(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?)
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}

/// Makes a Python environment with docker-py, testcontainers, and who knows the schema of a list of components.
fn python(folder: &Path) -> Result<()> {
    let packages = [
        "docker[websockets]==7.1.0",
        "testcontainers==4.15.0",
        "cyclonedx-python-lib[json-validation]==11.6.0",
    ];
    install(folder, &packages)
}

/// Makes a Python environment with the last docker-py whose source archive has its own tests, what they were written for,
/// and in `docker-py` the tests.
fn docker_py_suite(folder: &Path) -> Result<()> {
    const VERSION: &str = "7.0.0";
    let docker = format!("docker=={VERSION}");
    let packages = [
        docker.as_str(),
        "packaging",
        "paramiko==3.4.0",
        "pytest-timeout==2.1.0",
        "pytest==7.4.2",
        "requests==2.31.0",
        "urllib3==1.26.18",
        "websocket-client==1.3.3",
    ];
    install(folder, &packages)?;
    let tests = folder.join("docker-py");
    if tests.join("tests").exists() {
        return Ok(());
    }
    fs::create_dir_all(&tests)?;
    let source = ["--no-deps", "--no-binary", "docker", &docker, "--dest"];
    succeed(pip(folder, "download").args(source).arg(&tests))?;
    let archive = tests.join(format!("docker-{VERSION}.tar.gz"));
    let mut packed = tar::Archive::new(flate2::read::GzDecoder::new(fs::File::open(&archive)?));
    for entry in packed.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        // Their folder alone, without the one around it; whatever leads out of it is left out.
        if path.starts_with(format!("docker-{VERSION}/tests")) {
            entry.unpack_in(&tests)?;
        }
    }
    fs::rename(tests.join(format!("docker-{VERSION}/tests")), tests.join("tests"))?;
    fs::remove_dir_all(tests.join(format!("docker-{VERSION}")))?;
    Ok(fs::remove_file(archive)?)
}

/// Has Python packages in an environment of their own.
fn install(folder: &Path, packages: &[&str]) -> Result<()> {
    if !folder.join("bin/python").exists() {
        succeed(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
    }
    succeed(pip(folder, "install").args(packages))
}

fn pip(folder: &Path, word: &str) -> Command {
    let mut pip = Command::new(folder.join("bin/pip"));
    pip.args([word, "--quiet", "--disable-pip-version-check"]);
    pip
}

/// Unpacks a dockerd: it is not installed, so nothing starts it and it replaces nobody's `docker`.
fn dockerd(folder: &Path) -> Result<()> {
    if folder.join("usr/sbin/dockerd").exists() {
        return Ok(());
    }
    let archives = folder.join("archives");
    fs::create_dir_all(&archives)?;
    succeed(Command::new("apt-get").args(["download", "-qq"]).args(DOCKERD).current_dir(&archives))?;
    for entry in fs::read_dir(&archives)? {
        succeed(Command::new("dpkg-deb").arg("-x").arg(entry?.path()).arg(folder))?;
    }
    // The client is the one that is installed.
    fs::remove_file(folder.join("usr/bin/docker"))?;
    Ok(fs::remove_dir_all(archives)?)
}

/// Makes a configuration folder of the `docker` CLI that has the plugins; they come from where this machine gets its
/// packages, out of another release.
fn plugins(folder: &Path) -> Result<()> {
    if folder.join("cli-plugins/docker-buildx").exists() {
        return Ok(());
    }
    let apt = folder.join("apt");
    for part in ["lists/partial", "cache/archives/partial", "tree"] {
        fs::create_dir_all(apt.join(part))?;
    }
    let indexes = ["indextargets", "--format", "$(CODENAME) $(REPO_URI)", "Created-By: Packages"];
    let indexes = Command::new("apt-get").args(indexes).output().context("apt-get does not run")?;
    let indexes = String::from_utf8(indexes.stdout)?;
    // Of the release itself, not of its updates, whose archive may have no other releases.
    let source =
        indexes.lines().filter_map(|line| line.split_once(' ')).find(|(name, _)| !name.contains('-'));
    let (_, source) = source.context("apt-get has no source of packages")?;
    let (release, packages) = PLUGINS;
    let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
    fs::write(apt.join("sources.list"), format!("deb [signed-by={keys}] {source} {release} main\n"))?;
    let apt_get = || {
        let mut command = Command::new("apt-get");
        for (key, value) in [
            ("Dir::Etc::sourcelist", apt.join("sources.list")),
            ("Dir::Etc::sourceparts", "-".into()),
            ("Dir::State::lists", apt.join("lists")),
            ("Dir::Cache", apt.join("cache")),
        ] {
            command.arg("-o").arg(format!("{key}={}", value.display()));
        }
        command.arg("-qq").current_dir(&apt);
        command
    };
    succeed(apt_get().arg("update"))?;
    succeed(apt_get().arg("download").args(packages))?;
    for entry in fs::read_dir(&apt)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "deb") {
            succeed(Command::new("dpkg-deb").arg("-x").arg(path).arg(apt.join("tree")))?;
        }
    }
    fs::rename(apt.join("tree/usr/libexec/docker/cli-plugins"), folder.join("cli-plugins"))?;
    Ok(fs::remove_dir_all(apt)?)
}

/// Makes `<folder>/<name>.tar`, the root of an image with these packages and all that they depend on.
fn image(folder: &Path, Recipe { name, packages, files }: &Recipe) -> Result<()> {
    let tar = folder.join(format!("{name}.tar"));
    let recipe = folder.join(format!("{name}.recipe"));
    let wanted = format!("{packages:?}\n{files:?}\n");
    if tar.exists() && fs::read_to_string(&recipe).is_ok_and(|made| made == wanted) {
        return Ok(());
    }
    let work = folder.join(format!("{name}.work"));
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    let (archives, image) = (work.join("archives"), work.join("root"));
    for path in [archives.join("partial"), image.join("tmp"), image.join("etc"), image.join("proc")] {
        fs::create_dir_all(&path)?;
    }
    // To apt nothing is installed: it fetches the packages and everything below them.
    let status = work.join("status");
    fs::write(&status, "")?;
    succeed(
        Command::new("apt-get")
            .args(["install", "--yes", "-qq", "--no-install-recommends", "--download-only"])
            .args(["-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=root"])
            .arg("-o")
            .arg(format!("Dir::State::status={}", status.display()))
            .arg("-o")
            .arg(format!("Dir::Cache::archives={}/", archives.display()))
            .args(*packages),
    )?;
    for entry in fs::read_dir(&archives)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "deb") {
            succeed(Command::new("dpkg-deb").arg("-x").arg(&path).arg(&image))?;
        }
    }
    fs::write(image.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n")?;
    fs::write(image.join("etc/group"), "root:x:0:\n")?;
    for (path, content) in *files {
        let path = image.join(path);
        fs::create_dir_all(path.parent().context("a file at the root")?)?;
        fs::write(path, content)?;
    }
    for waste in ["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info"] {
        let waste = image.join(waste);
        if waste.exists() {
            fs::remove_dir_all(waste)?;
        }
    }
    let mut packed = tar::Builder::new(fs::File::create(&tar)?);
    packed.follow_symlinks(false);
    packed.append_dir_all(".", &image)?;
    packed.finish()?;
    fs::remove_dir_all(&work)?;
    fs::write(recipe, wanted)?;
    Ok(())
}
