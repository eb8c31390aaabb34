//! What the kernel says of this process and of others, and what it is asked for.

use crate::{LOOK, say};
use rustix::{mount::MountFlags, thread::UnshareFlags};
use std::{
    ffi::CStr,
    fs, io,
    path::Path,
    process::{Command, Stdio},
    thread,
};

/// Names this program, whatever is in the image.
const MYSELF: &str = "/proc/self/exe";

/// A line of `/proc/self/status`, without its key.
pub(crate) fn status(key: &str) -> io::Result<String> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.map(|rest| rest.trim().to_owned()).ok_or_else(|| io::Error::other("no such line"))
}

/// The first word of one.
pub(crate) fn first(key: &str) -> io::Result<String> {
    Ok(status(key)?.split_whitespace().next().unwrap_or_default().to_owned())
}

pub(crate) fn terminals() -> String {
    let streams = [
        rustix::termios::isatty(io::stdin()),
        rustix::termios::isatty(io::stdout()),
        rustix::termios::isatty(io::stderr()),
    ];
    let numbers = streams.iter().enumerate().filter(|(_, is)| **is).map(|(number, _)| number.to_string());
    numbers.collect::<Vec<_>>().join(" ")
}

pub(crate) fn descriptors(pid: &str) -> io::Result<String> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        // The one that reads this folder is gone by now.
        if let Ok(target) = fs::read_link(entry.path()) {
            lines.push(format!("{} {}\n", entry.file_name().to_string_lossy(), target.display()));
        }
    }
    lines.retain(|line| !line.ends_with("/fd\n"));
    lines.sort();
    Ok(lines.concat())
}

pub(crate) fn all() -> io::Result<String> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        pids.extend(entry?.file_name().to_string_lossy().parse::<u32>());
    }
    pids.sort_unstable();
    Ok(pids.iter().map(u32::to_string).collect::<Vec<_>>().join(" "))
}

pub(crate) fn spawn(step: &str) -> io::Result<String> {
    let mut command = Command::new(MYSELF);
    // Who reads what this one says does not wait for that one.
    command.arg(step).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command.spawn()?.id().to_string())
}

pub(crate) fn orphan() -> io::Result<()> {
    // Its parent has ended when this returns.
    let said = Command::new(MYSELF).arg("spawn:exit:0").output()?.stdout;
    let folder = format!("/proc/{}", String::from_utf8_lossy(&said).trim());
    while Path::new(&folder).exists() {
        thread::sleep(LOOK);
    }
    say("reaped")
}

pub(crate) fn unshare(namespace: &str) -> io::Result<()> {
    let flags = match namespace {
        "user" => UnshareFlags::NEWUSER,
        "mount" => UnshareFlags::NEWNS,
        other => return Err(io::Error::other(format!("no such namespace: {other}"))),
    };
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    Ok(sys::process::unshare_namespaces(flags)?)
}

pub(crate) fn mount(folder: &str) -> io::Result<()> {
    Ok(rustix::mount::mount("none", folder, "tmpfs", MountFlags::empty(), None::<&CStr>)?)
}
