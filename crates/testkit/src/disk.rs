//! Hosts whose data lies on a disk of its own, which can lose its power and be full.
//!
//! The disk is ext4 on a loop device. Needs root, `losetup`, `mkfs.ext4`, and for power cuts `perl`.

use crate::{Lab, traces::daemon_of};
use anyhow::{Context, Result, bail};
use rustix::fs::FallocateFlags;
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

/// Room for the image, which is the program, and for what is unpacked of it. Only what is written takes any.
const DISK_BYTES: u64 = 3 << 30;
/// The file that takes what room there is.
const BALLAST: &str = "ballast";

fn run(program: &str, args: &[&str]) -> Result<String> {
    let output =
        Command::new(program).args(args).output().with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A disk of a host. The loop device goes when this and the host's mount are gone, however the process ends.
#[derive(Debug)]
pub struct Disk {
    device: PathBuf,
    _open: File,
}

impl Disk {
    /// Makes one with an empty file system for host `n`, which has not been started yet.
    ///
    /// # Errors
    /// A program is missing, or this is not root.
    pub fn make(lab: &Lab, n: u8) -> Result<Self> {
        let root = lab.dir().join(format!("h{n}"));
        fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
        let image = root.join("disk.img");
        File::create(&image)
            .and_then(|file| file.set_len(DISK_BYTES))
            .with_context(|| format!("cannot make {}", image.display()))?;
        let image = image.to_str().context("a path that is no text")?;
        run("mkfs.ext4", &["-q", image])?;
        let device = run("losetup", &["--find", "--show", image])?;
        let open = File::open(&device).with_context(|| format!("cannot open {device}"))?;
        // In use, it is detached when it is not any more.
        run("losetup", &["--detach", &device])?;
        std::os::unix::fs::symlink(&device, root.join("disk")).context("cannot name the disk")?;
        Ok(Self { device: device.into(), _open: open })
    }

    /// Returns its device, such as `/dev/loop0`.
    pub fn device(&self) -> &Path {
        &self.device
    }

    /// Tells whether a host has it mounted.
    pub fn is_mounted(&self) -> bool {
        self.device.file_name().is_some_and(|name| Path::new("/sys/fs/ext4").join(name).exists())
    }
}

impl Lab {
    /// Returns where the data of host `n`, whose daemon runs, can be reached from here: it may be mounted there alone.
    ///
    /// # Errors
    /// There is no daemon.
    pub fn data_of(&self, n: u8) -> Result<PathBuf> {
        let root = self.dir().join(format!("h{n}"));
        let (daemon, _) = daemon_of(&root).with_context(|| format!("host {n} has no daemon"))?;
        let data = root.join("data");
        Ok(daemon.join("root").join(data.strip_prefix("/").unwrap_or(&data)))
    }

    /// Cuts the power of hosts with disks, all at one moment: a disk forgets what was not written, every process ends,
    /// and what is in memory is gone. They can be started when each [`Disk`] [is let go](Disk::is_mounted), and their
    /// run folders were removed.
    ///
    /// # Errors
    /// A host has no daemon or no disk, or this is not root.
    pub fn cut_power(&mut self, hosts: &[u8]) -> Result<()> {
        let places = hosts.iter().map(|n| self.data_of(*n)).collect::<Result<Vec<_>>>()?;
        let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
        // Source: Linux include/uapi/linux/ext4.h, EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH.
        let shut_down = "my $flag = pack('L', 2); for my $d (@ARGV) { open(my $f, '<', $d) or die \"$d: $!\"; \
                         ioctl($f, 0x8004587d, $flag) or die \"$d: $!\" }";
        let places: Vec<&str> = places.iter().map(String::as_str).collect();
        run("perl", &[["-e", shut_down].as_slice(), &places].concat())?;
        hosts.iter().try_for_each(|n| self.tell(&format!("kill {n}")))
    }

    /// Takes all room on the disk of host `n`; nothing is written for that.
    ///
    /// # Errors
    /// The host has no daemon.
    pub fn fill_disk(&self, n: u8) -> Result<()> {
        let path = self.data_of(n)?.join(BALLAST);
        let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let (mut length, mut piece) = (0_u64, DISK_BYTES);
        while piece >= 4096 {
            // What does not fit at once may fit in parts.
            match rustix::fs::fallocate(&file, FallocateFlags::empty(), length, piece) {
                Ok(()) => length += piece,
                Err(rustix::io::Errno::NOSPC) => piece /= 2,
                Err(error) => return Err(error).with_context(|| format!("cannot fill {}", path.display())),
            }
        }
        Ok(())
    }

    /// Gives the room back that [`Lab::fill_disk`] took.
    ///
    /// # Errors
    /// The host has no daemon, or its disk is not full.
    pub fn free_disk(&self, n: u8) -> Result<()> {
        let path = self.data_of(n)?.join(BALLAST);
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
    }
}
