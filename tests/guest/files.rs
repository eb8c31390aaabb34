//! What is at a path, and what becomes of it.

use crate::{number, pair};
use rustix::fs::FileType;
use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::{PermissionsExt, symlink},
};

pub(crate) fn list(folder: &str) -> io::Result<String> {
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    let mut names = fs::read_dir(folder)?.map(name).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names.join(" "))
}

pub(crate) fn first(operand: &str) -> io::Result<String> {
    let (path, bytes) = pair(operand)?;
    let mut read = Vec::new();
    fs::File::open(path)?.take(number(bytes)?).read_to_end(&mut read)?;
    Ok(read.len().to_string())
}

pub(crate) fn kind(path: &str) -> io::Result<String> {
    let stat = rustix::fs::lstat(path)?;
    let numbers = format!("{}:{}", rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice => format!("char {numbers}"),
        FileType::BlockDevice => format!("block {numbers}"),
        FileType::Directory => "folder".into(),
        FileType::RegularFile => "file".into(),
        FileType::Symlink => "link".into(),
        _ => "other".into(),
    })
}

pub(crate) fn permissions(path: &str) -> io::Result<String> {
    Ok(format!("{:o}", rustix::fs::lstat(path)?.st_mode & 0o7777))
}

pub(crate) fn owner(path: &str) -> io::Result<String> {
    let stat = rustix::fs::lstat(path)?;
    Ok(format!("{}:{} {path}", stat.st_uid, stat.st_gid))
}

pub(crate) fn write(operand: &str) -> io::Result<()> {
    let (path, text) = pair(operand)?;
    fs::write(path, text)
}

pub(crate) fn append(operand: &str) -> io::Result<()> {
    let (path, text) = pair(operand)?;
    writeln!(fs::File::options().create(true).append(true).open(path)?, "{text}")
}

pub(crate) fn fill(operand: &str) -> io::Result<()> {
    let (path, bytes) = pair(operand)?;
    fs::write(path, vec![0; number(bytes)?])
}

pub(crate) fn nest(operand: &str) -> io::Result<()> {
    let (path, depth) = pair(operand)?;
    std::env::set_current_dir(path)?;
    for _ in 0..number(depth)? {
        fs::create_dir("d")?;
        std::env::set_current_dir("d")?;
    }
    Ok(())
}

pub(crate) fn link(operand: &str) -> io::Result<()> {
    let (path, target) = pair(operand)?;
    symlink(target, path)
}

pub(crate) fn rename(operand: &str) -> io::Result<()> {
    let (old, new) = pair(operand)?;
    fs::rename(old, new)
}

pub(crate) fn mode(operand: &str) -> io::Result<()> {
    let (path, mode) = pair(operand)?;
    let mode = u32::from_str_radix(mode, 8).map_err(io::Error::other)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}
