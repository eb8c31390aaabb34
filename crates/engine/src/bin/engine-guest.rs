//! What runs in the containers of this crate's tests: the only program of their image, so that tests need no shell.
//!
//! Each argument is a step, `verb` or `verb:operand`, done in turn: `engine-guest say:hello cry:oops exit:3`.
//! A step that fails says so on stderr and ends the program with [`FAILED`].

use rustix::fs::{CWD, FileType, RenameFlags};
use std::{
    fs,
    io::{self, Write},
    os::{
        fd::AsRawFd,
        unix::fs::{PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};

/// Exit code of a program whose step failed.
const FAILED: u8 = 9;
/// Between two looks at a file that is waited for.
const LOOK: Duration = Duration::from_millis(5);

fn main() -> ExitCode {
    // Before there are descriptors of our own.
    let inherited = descriptors("self").unwrap_or_else(|error| error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(steps(&inherited)),
        Err(error) => {
            eprintln!("no runtime: {error}");
            FAILED.into()
        }
    }
}

async fn steps(inherited: &str) -> ExitCode {
    let mut waiting = JoinSet::new();
    for step in std::env::args().skip(1) {
        let (verb, operand) = step.split_once(':').unwrap_or((&step, ""));
        if verb == "inherited" {
            print!("{inherited}");
            continue;
        }
        match take(verb, operand, &mut waiting).await {
            Ok(None) => {}
            Ok(Some(code)) => return code.into(),
            Err(error) => {
                eprintln!("{step}: {error}");
                return FAILED.into();
            }
        }
    }
    ExitCode::SUCCESS
}

/// Does one step; returns the exit code if it is the last one. `waiting`: for signals, until the last step.
async fn take(verb: &str, operand: &str, waiting: &mut JoinSet<()>) -> io::Result<Option<u8>> {
    match verb {
        "say" => say(operand)?,
        "cry" => eprintln!("{operand}"),
        "arguments" => say(&std::env::args().collect::<Vec<_>>().join(" "))?,
        "variable" => say(&std::env::var(operand).unwrap_or_else(|_| "(unset)".into()))?,
        "folder" => say(&std::env::current_dir()?.display().to_string())?,
        "hostname" => say(fs::read_to_string("/proc/sys/kernel/hostname")?.trim())?,
        "user" => say(&format!("{}:{}", status("Uid:")?, status("Gid:")?))?,
        "terminal" => {
            let size = rustix::termios::tcgetwinsize(io::stdout())?;
            say(&format!("{} {}", size.ws_row, size.ws_col))?;
        }
        "list" => say(&list(operand)?)?,
        "read" => io::stdout().write_all(&fs::read(operand)?)?,
        "write" => {
            let (path, text) = pair(operand)?;
            fs::write(path, text)?;
        }
        "append" => {
            let (path, text) = pair(operand)?;
            writeln!(fs::File::options().create(true).append(true).open(path)?, "{text}")?;
        }
        "copy" => drop(io::copy(&mut io::stdin(), &mut io::stdout())?),
        "wait" => wait(Path::new(operand)).await,
        "on" => on_signal(operand, waiting)?,
        "ignore" => drop(signal(kind(operand)?)?),
        "serve" => serve(operand).await?,
        "fetch" => {
            use tokio::io::AsyncReadExt;
            let mut answer = String::new();
            tokio::net::TcpStream::connect(operand).await?.read_to_string(&mut answer).await?;
            print!("{answer}");
        }
        "remove" => fs::remove_file(operand)?,
        "eat" => eat(operand)?,
        "make" => fs::create_dir_all(operand)?,
        "nest" => {
            let (path, depth) = pair(operand)?;
            std::env::set_current_dir(path)?;
            for _ in 0..depth.parse().map_err(io::Error::other)? {
                fs::create_dir("d")?;
                std::env::set_current_dir("d")?;
            }
        }
        "link" => {
            let (path, target) = pair(operand)?;
            symlink(target, path)?;
        }
        "rename" => {
            let (old, new) = pair(operand)?;
            fs::rename(old, new)?;
        }
        "mode" => {
            let (path, mode) = pair(operand)?;
            let mode = u32::from_str_radix(mode, 8).map_err(io::Error::other)?;
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
        "kind" => say(&what_is(operand)?)?,
        "owner" => {
            let stat = rustix::fs::lstat(operand)?;
            say(&format!("{}:{} {operand}", stat.st_uid, stat.st_gid))?;
        }
        "descriptors" => print!("{}", descriptors(operand)?),
        "swap" => {
            let (one, other) = owned_pair(operand)?;
            for_ever(move || {
                rustix::fs::renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).ok();
            });
        }
        "plant" => {
            let (path, target) = owned_pair(operand)?;
            for_ever(move || plant(&path, &target));
        }
        "ambush" => {
            let (path, target) = owned_pair(operand)?;
            for_ever(move || ambush(&path, &target));
        }
        "hunt" => for_ever(hunt),
        "park" => std::future::pending().await,
        "exit" => return operand.parse().map(Some).map_err(io::Error::other),
        other => return Err(io::Error::other(format!("no such step: {other}"))),
    }
    Ok(None)
}

fn say(text: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{text}")
}

fn pair(operand: &str) -> io::Result<(&str, &str)> {
    operand.split_once('=').ok_or_else(|| io::Error::other("PATH=TEXT expected"))
}

fn owned_pair(operand: &str) -> io::Result<(PathBuf, PathBuf)> {
    pair(operand).map(|(one, other)| (one.into(), other.into()))
}

/// Does something again and again while the other steps are done.
fn for_ever(work: impl Fn() + Send + 'static) {
    drop(thread::spawn(move || {
        loop {
            work();
            // Those who are to lose the race need a processor too.
            thread::yield_now();
        }
    }));
}

/// Puts a link in place of what is there.
fn plant(path: &Path, target: &Path) {
    let link = path.with_extension("planted");
    if symlink(target, &link).is_ok() {
        drop(fs::rename(&link, path));
    }
}

/// Puts a link in place of a folder as soon as there is one.
fn ambush(path: &Path, target: &Path) {
    if fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir())
        && fs::rename(path, path.with_extension("moved")).is_ok()
    {
        drop(symlink(target, path));
    }
}

/// Looks for programs that are not this one, and says so when one can be opened for writing.
fn hunt() {
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let exe = entry.path().join("exe");
        let Ok(name) = fs::read_link(&exe) else { continue };
        if name == Path::new("/bin/guest") {
            continue;
        }
        // The process may end; what it ran is then no longer busy.
        let Ok(held) = fs::File::open(&exe) else { continue };
        let again = format!("/proc/self/fd/{}", held.as_raw_fd());
        for _ in 0..1000 {
            if fs::File::options().write(true).open(&again).is_ok() {
                println!("hit {}", name.display());
                return;
            }
        }
    }
}

/// What is at a path, a link not followed: `char 1:3`, `file`.
fn what_is(path: &str) -> io::Result<String> {
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

/// The descriptors of a process and where they lead, one a line.
fn descriptors(pid: &str) -> io::Result<String> {
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

/// The first number of a line of `/proc/self/status`.
fn status(key: &str) -> io::Result<String> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    Ok(line.split_whitespace().next().unwrap_or_default().to_owned())
}

fn list(folder: &str) -> io::Result<String> {
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    let mut names = fs::read_dir(folder)?.map(name).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names.join(" "))
}

/// Waits until a file is there.
async fn wait(path: &Path) {
    while !path.exists() {
        tokio::time::sleep(LOOK).await;
    }
}

/// `TERM=7`: ends the program with code 7 when it gets SIGTERM.
fn on_signal(operand: &str, waiting: &mut JoinSet<()>) -> io::Result<()> {
    let (name, code) = pair(operand)?;
    let code: i32 = code.parse().map_err(io::Error::other)?;
    let mut signals = signal(kind(name)?)?;
    waiting.spawn(async move {
        signals.recv().await;
        std::process::exit(code);
    });
    Ok(())
}

fn kind(name: &str) -> io::Result<SignalKind> {
    match name {
        "TERM" => Ok(SignalKind::terminate()),
        "INT" => Ok(SignalKind::interrupt()),
        "HUP" => Ok(SignalKind::hangup()),
        "USR1" => Ok(SignalKind::user_defined1()),
        other => Err(io::Error::other(format!("no such signal: {other}"))),
    }
}

/// `8080=hello`: greets whoever connects to the port, for ever.
async fn serve(operand: &str) -> io::Result<()> {
    use tokio::io::AsyncWriteExt;
    let (port, greeting) = pair(operand)?;
    let port: u16 = port.parse().map_err(io::Error::other)?;
    let listener = tokio::net::TcpListener::bind(("0.0.0.0", port)).await?;
    say("listening")?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        // Somebody who is gone again needs no greeting.
        stream.write_all(format!("{greeting}\n").as_bytes()).await.ok();
    }
}

/// Takes that many MiB of memory, and touches them.
fn eat(mebibytes: &str) -> io::Result<()> {
    let wanted: usize = mebibytes.parse().map_err(io::Error::other)?;
    let mut eaten = Vec::new();
    for _ in 0..wanted {
        eaten.push(vec![1u8; 1 << 20]);
    }
    say(&format!("ate {}", eaten.len()))
}
