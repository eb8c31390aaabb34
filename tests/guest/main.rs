//! What runs in the containers of our tests: the only program of their image, so that tests need no shell. The crates
//! `runtime` and `engine` build it, each for its own tests.
//!
//! Each argument is a step, `word` or `word:operand`, done in turn: `guest say:hello cry:oops exit:3`. A step that
//! fails says so on stderr and ends the program with [`FAILED`]. With `try:` in front (`try:write:/x=`) it says on
//! stdout how it went, `ok` or why not, and the next step comes. Each word is explained where [`take`] has it.
//!
//! The program starts as one in C does: Rust's own start would ignore SIGPIPE and set further signals up, and tests
//! look at what a program finds, and run it where setting up signals is forbidden.

#![no_main]

mod files;
mod process;
mod races;
mod signals;

use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    thread,
    time::Duration,
};

/// Exit code of a program whose step failed.
const FAILED: u8 = 9;
/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(5);

#[expect(unsafe_code, reason = "a start without Rust's needs this name; nothing unsafe is done")]
#[unsafe(no_mangle)]
extern "C" fn main() -> i32 {
    let steps: Vec<String> = std::env::args().skip(1).collect();
    // Writes out what is left of stdout, which a return from here would not.
    std::process::exit(all(&steps).into())
}

fn all(steps: &[String]) -> u8 {
    // Before there are threads that signals could reach.
    if steps.iter().any(|step| signals::concern(step)) {
        signals::listen();
    }
    for step in steps {
        // What it says comes before what the next step does.
        match take(step).and_then(|code| io::stdout().flush().map(|()| code)) {
            Ok(None) => {}
            Ok(Some(code)) => return code,
            Err(error) => {
                eprintln!("{step}: {error}");
                return FAILED;
            }
        }
    }
    0
}

/// Does one step; returns the exit code if it is the last one.
fn take(step: &str) -> io::Result<Option<u8>> {
    let (word, operand) = step.split_once(':').unwrap_or((step, ""));
    match word {
        // ---- what it says ----
        // A line on stdout; on stderr.
        "say" => say(operand)?,
        "cry" => eprintln!("{operand}"),
        // The numbers from 1 to this, one a line.
        "count" => (1..=number(operand)?).try_for_each(|n| say(&n.to_string()))?,
        // The same line again and again.
        "tick" => loop {
            say(operand)?;
            thread::sleep(LOOK);
        },
        // stdin to stdout, to its end.
        "copy" => drop(io::copy(&mut io::stdin(), &mut io::stdout())?),
        // One line of stdin, on stderr.
        "hear" => {
            let mut line = String::new();
            io::stdin().read_line(&mut line)?;
            eprintln!("heard {}", line.trim_end());
        }

        // ---- what it is ----
        "arguments" => say(&std::env::args().collect::<Vec<_>>().join(" "))?,
        "environment" => std::env::vars().try_for_each(|(name, value)| say(&format!("{name}={value}")))?,
        "variable" => say(&std::env::var(operand).unwrap_or_else(|_| "(unset)".into()))?,
        "folder" => say(&std::env::current_dir()?.display().to_string())?,
        "hostname" => say(std::fs::read_to_string("/proc/sys/kernel/hostname")?.trim())?,
        "pid" => say(&std::process::id().to_string())?,
        // `33:44`: the real ones.
        "user" => say(&format!("{}:{}", process::first("Uid")?, process::first("Gid")?))?,
        // `status:CapEff`: a line of /proc/self/status.
        "status" => say(&process::status(operand)?)?,
        // Its terminal; rows and columns of that; which of the three standard streams are terminals.
        "tty" => say(&rustix::termios::ttyname(io::stdin(), Vec::new())?.to_string_lossy())?,
        "terminal" => {
            let size = rustix::termios::tcgetwinsize(io::stdout())?;
            say(&format!("{} {}", size.ws_row, size.ws_col))?;
        }
        "terminals" => say(&process::terminals())?,
        // `self` or a pid: where each descriptor leads, one a line.
        "descriptors" => print!("{}", process::descriptors(operand)?),
        // The pids in /proc.
        "processes" => say(&process::all()?)?,

        // ---- files: what is there ----
        "read" => io::stdout().write_all(&std::fs::read(operand)?)?,
        "length" => say(&std::fs::read(operand)?.len().to_string())?,
        // `/dev/zero=3`: reads so many bytes, and says how many there were.
        "first" => say(&files::first(operand)?)?,
        "list" => say(&files::list(operand)?)?,
        // A link not followed: `char 1:3`, `folder`; `755`; `0:0 /path`.
        "kind" => say(&files::kind(operand)?)?,
        "permissions" => say(&files::permissions(operand)?)?,
        "owner" => say(&files::owner(operand)?)?,
        // Where a link leads.
        "target" => say(&std::fs::read_link(operand)?.display().to_string())?,
        // Waits until a file is there.
        "wait" => {
            while !Path::new(operand).exists() {
                thread::sleep(LOOK);
            }
        }

        // ---- files: what it changes ----
        // `PATH=TEXT`, without an end of line; with one, at the end of the file; `PATH=BYTES` zeros.
        "write" => files::write(operand)?,
        "append" => files::append(operand)?,
        "fill" => files::fill(operand)?,
        "make" => std::fs::create_dir_all(operand)?,
        // `PATH=N`: so many folders in each other, and it is in the last one.
        "nest" => files::nest(operand)?,
        // `PATH=TARGET`, `OLD=NEW`, `PATH=755`.
        "link" => files::link(operand)?,
        "rename" => files::rename(operand)?,
        "mode" => files::mode(operand)?,
        "remove" => std::fs::remove_file(operand)?,

        // ---- other processes, signals ----
        // Another one that takes this step, and is not waited for; says its pid.
        "spawn" => say(&process::spawn(operand)?)?,
        // One without a parent ends; says so when the container's first process has taken note.
        "orphan" => process::orphan()?,
        // `TERM=7`: ends the program with code 7 when it gets SIGTERM. `TERM`: nothing happens then.
        "on" => signals::on(operand)?,
        "ignore" => signals::ignore(operand)?,
        // Gets it from itself.
        "die" => signals::die(operand)?,

        // ---- what it takes and tries ----
        // MiB of memory, touched.
        "eat" => eat(operand)?,
        // A namespace, `user` or `mount`; an empty filesystem in memory on this folder.
        "unshare" => process::unshare(operand)?,
        "mount" => process::mount(operand)?,
        // `80=hello`: greets whoever connects to the port, for ever. `HOST:80`: says what is answered there.
        "serve" => serve(operand)?,
        "fetch" => {
            let mut answer = String::new();
            TcpStream::connect(operand)?.read_to_string(&mut answer)?;
            print!("{answer}");
        }
        // While the other steps are done (see `races`): `ONE=OTHER` change places, `PATH=TARGET` becomes a link, a
        // folder that comes there does; programs that are not this one are opened for writing.
        "swap" => races::swap(operand)?,
        "plant" => races::plant(operand)?,
        "ambush" => races::ambush(operand)?,
        "hunt" => races::hunt(),

        "try" => match take(operand) {
            Ok(None) => say("ok")?,
            Ok(Some(code)) => return Ok(Some(code)),
            Err(error) => say(&reason(&error))?,
        },
        "park" => loop {
            thread::park();
        },
        "exit" => return number(operand).map(Some),
        other => return Err(io::Error::other(format!("no such step: {other}"))),
    }
    Ok(None)
}

/// The system's words alone: without ` (os error 30)`.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

fn say(text: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{text}")
}

fn pair(operand: &str) -> io::Result<(&str, &str)> {
    operand.split_once('=').ok_or_else(|| io::Error::other("ONE=OTHER expected"))
}

fn number<T: std::str::FromStr<Err = std::num::ParseIntError>>(operand: &str) -> io::Result<T> {
    operand.parse().map_err(io::Error::other)
}

fn serve(operand: &str) -> io::Result<()> {
    let (port, greeting) = pair(operand)?;
    let listener = TcpListener::bind(("0.0.0.0", number(port)?))?;
    say("listening")?;
    loop {
        let (mut stream, _) = listener.accept()?;
        // Somebody who is gone again needs no greeting.
        stream.write_all(format!("{greeting}\n").as_bytes()).ok();
    }
}

fn eat(mebibytes: &str) -> io::Result<()> {
    let mut eaten = Vec::new();
    for _ in 0..number(mebibytes)? {
        eaten.push(std::hint::black_box(vec![1_u8; 1 << 20]));
    }
    say(&format!("ate {}", eaten.len()))
}
