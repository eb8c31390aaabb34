//! `cargo xtask boot`: the program in a machine of its own that boots Debian's kernel, where things are that this host may
//! lack: a kernel of before 6.7, cgroup v2 and nothing else, modules that are loaded when they are asked for.
//!
//! ```text
//!  kernel's package ─► modules ─┐
//!  program, busybox ────────────┼─► archive (cpio) ─► QEMU ─► init.sh ─► story.sh ─► console, which is read here
//!  init.sh, story.sh ───────────┘
//! ```
//!
//! # Why emulated (2026-11)
//! A machine in which this is to run may be a guest itself, or have no right to `/dev/kvm`: `-accel tcg` works everywhere
//! and boots in seconds. The story's own limits are in its commands.

use anyhow::{Context, Result, bail};
use cpio::NewcBuilder;
use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The program; by default a release, built anew: an emulated machine is slow enough.
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
    /// A package of a kernel with its modules; by default Debian's for cloud machines, which is downloaded.
    #[arg(long, value_name = "DEB")]
    kernel: Option<PathBuf>,
    /// The machine is ended after this many seconds.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(10..))]
    seconds: u64,
}

/// Of the packages that Debian's newest kernel for cloud machines is one of.
const KERNEL: &str = "linux-image-cloud-amd64";
/// What the scripts call.
const APPLETS: &str = "awk cat cp cut echo env find grep head hostname id ip kill ln ls mkdir modprobe mount mv poweroff \
                       printf rm sed sh sleep switch_root tail tar uname wc";
/// What the machine may write. *Unit:* bytes.
const DISK: u64 = 4 << 30;
const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

/// Boots and reads what the story says.
///
/// # Errors
/// Something did not hold, or did not end in time; a tool is missing.
pub(crate) fn run(args: &Args) -> Result<()> {
    let program = match &args.program {
        Some(program) => program.clone(),
        None => crate::bench::release_program()?,
    };
    let place = tempfile::tempdir()?;
    let package = match &args.kernel {
        Some(package) => package.canonicalize().with_context(|| format!("{}", package.display()))?,
        None => downloaded(place.path())?,
    };
    let tree = place.path().join("kernel");
    call(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&tree))?;
    let (kernel, release) = kernel_of(&tree)?;
    call(Command::new("depmod").arg("-b").arg(&tree).arg(&release))?;
    let stripped = place.path().join("rswarm");
    call(Command::new("strip").arg("-o").arg(&stripped).arg(&program))?;
    let archive = place.path().join("archive");
    pack(&archive, &stripped, &tree)?;
    // Not in memory, of which older kernels cannot show files with other owners.
    let disk = place.path().join("disk");
    File::create(&disk)?.set_len(DISK)?;
    call(Command::new("mkfs.ext4").arg("-q").arg(&disk))?;
    story(&kernel, &archive, &disk, Duration::from_secs(args.seconds))
}

fn call(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("cannot run {name}"))?;
    if !status.success() {
        bail!("{name}: {status}");
    }
    Ok(())
}

/// Fetches the package that the newest kernel is in.
fn downloaded(into: &Path) -> Result<PathBuf> {
    let depends =
        Command::new("apt-cache").args(["depends", KERNEL]).output().context("cannot run apt-cache")?;
    let depends = String::from_utf8(depends.stdout)?;
    let package = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let package = package.with_context(|| format!("no package {KERNEL} is known; hint: apt-get update"))?;
    // A folder that this user alone may enter is nothing to apt's own user.
    call(
        Command::new("apt-get")
            .args(["-q", "-o", "APT::Sandbox::User=root", "download", package])
            .current_dir(into),
    )?;
    let found = fs::read_dir(into)?
        .find_map(|entry| Some(entry.ok()?.path()).filter(|p| p.extension() == Some("deb".as_ref())));
    found.context("apt-get has downloaded no package")
}

/// Returns the file to boot and the kernel's release.
fn kernel_of(tree: &Path) -> Result<(PathBuf, String)> {
    for entry in fs::read_dir(tree.join("boot"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(release) = name.strip_prefix("vmlinuz-") {
            return Ok((path, release.to_owned()));
        }
    }
    bail!("the package has no kernel")
}

/// Writes the archive that the kernel unpacks. *Source:* kernel Documentation/driver-api/early-userspace/buffer-format.rst.
fn pack(archive: &Path, program: &Path, tree: &Path) -> Result<()> {
    let mut packed = Archive { out: File::create(archive)?, inode: 0 };
    for folder in ["bin", "dev", "etc", "lib", "new", "proc", "sbin", "sys"] {
        packed.add(Path::new(folder), FOLDER, b"")?;
    }
    packed.modules(&tree.join("lib/modules"), Path::new("lib/modules"))?;
    packed.add(
        Path::new("bin/busybox"),
        FILE,
        &fs::read("/bin/busybox").context("busybox-static is needed")?,
    )?;
    for applet in APPLETS.split_whitespace() {
        packed.add(&Path::new("bin").join(applet), LINK, b"busybox")?;
    }
    // The kernel itself asks for it, when a module is missing.
    packed.add(Path::new("sbin/modprobe"), LINK, b"../bin/busybox")?;
    packed.add(Path::new("bin/rswarm"), FILE, &fs::read(program)?)?;
    packed.add(Path::new("etc/passwd"), FILE, b"root:x:0:0:root:/root:/bin/sh\n")?;
    packed.add(Path::new("etc/group"), FILE, b"root:x:0:\n")?;
    packed.add(Path::new("init"), FILE, include_bytes!("init.sh"))?;
    packed.add(Path::new("story.sh"), FILE, include_bytes!("story.sh"))?;
    cpio::newc::trailer(packed.out)?;
    Ok(())
}

struct Archive {
    out: File,
    inode: u32,
}

impl Archive {
    fn add(&mut self, name: &Path, mode: u32, content: &[u8]) -> Result<()> {
        self.inode += 1;
        let name = name.to_str().context("a name that is no text")?;
        let entry = NewcBuilder::new(name).ino(self.inode).mode(mode).nlink(1);
        let mut file = entry.write(self.out.try_clone()?, u32::try_from(content.len())?);
        file.write_all(content)?;
        file.finish()?;
        Ok(())
    }

    /// Adds a folder with all that is in it.
    fn modules(&mut self, from: &Path, to: &Path) -> Result<()> {
        self.add(to, FOLDER, b"")?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let below = to.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                self.modules(&entry.path(), &below)?;
            } else {
                self.add(&below, FILE, &fs::read(entry.path())?)?;
            }
        }
        Ok(())
    }
}

/// Boots the machine, shows what it says, and judges that.
fn story(kernel: &Path, archive: &Path, disk: &Path, limit: Duration) -> Result<()> {
    let mut machine = Command::new("timeout")
        .arg(limit.as_secs().to_string())
        .args(["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "4096"])
        .args(["-nographic", "-no-reboot", "-append", "console=ttyS0 quiet panic=-1", "-kernel"])
        .arg(kernel)
        .arg("-initrd")
        .arg(archive)
        .arg("-drive")
        .arg(format!("file={},format=raw,if=virtio", disk.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run qemu-system-x86_64 (package qemu-system-x86)")?;
    let mut told = Told::default();
    for line in BufReader::new(machine.stdout.take().context("no output")?).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).trim_end().to_owned();
        println!("{line}");
        told.read(&line);
    }
    machine.wait()?;
    io::stdout().flush()?;
    told.verdict()
}

/// What the story has said so far.
#[derive(Debug, Default)]
struct Told {
    held: usize,
    failed: Vec<String>,
    ended: Option<String>,
}

impl Told {
    fn read(&mut self, line: &str) {
        if line.starts_with("holds: ") {
            self.held += 1;
        } else if line.starts_with("does not hold: ") {
            self.failed.push(line.to_owned());
        } else if let Some(code) = line.strip_prefix("story ended: ") {
            self.ended = Some(code.to_owned());
        }
    }

    fn verdict(&self) -> Result<()> {
        match (&self.ended, &self.failed[..]) {
            (None, _) => bail!("the machine did not come to the end of the story; {} held", self.held),
            (Some(code), []) if code == "0" && self.held > 0 => {
                println!("{} hold", self.held);
                Ok(())
            }
            (Some(code), failed) => bail!("the story ended with {code}\n{}", failed.join("\n")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lines: &str) -> Told {
        let mut told = Told::default();
        lines.lines().for_each(|line| told.read(line));
        told
    }

    #[test]
    fn a_story_that_ends_well_is_one_of_which_all_holds() {
        assert!(told("boot\nholds: limits\nholds: files\nstory ended: 0").verdict().is_ok());
        for (lines, why) in [
            ("holds: limits", "did not come to the end"),
            ("holds: limits\ndoes not hold: files: x\nstory ended: 1", "does not hold: files: x"),
            ("story ended: 0", "ended with 0"),
            ("holds: limits\nstory ended: 127", "ended with 127"),
        ] {
            let said = told(lines).verdict().unwrap_err().to_string();
            assert!(said.contains(why), "{lines}: {said}");
        }
    }
}
