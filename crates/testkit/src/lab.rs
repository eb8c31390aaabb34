//! Hosts in namespaces, run by `rswarm lab` in a process of its own and told what to do over its standard input.

use anyhow::{Context, Result, bail};
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::{net::UnixStream, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

/// What a command said.
#[derive(Debug, Clone)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Returns standard output of a command that succeeded.
    ///
    /// # Panics
    /// When it did not, with what it said.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "exit code {}\nstdout: {}\nstderr: {}", self.code, self.stdout, self.stderr);
        self.stdout
    }

    /// Returns standard error of a command that failed.
    ///
    /// # Panics
    /// When it succeeded.
    #[track_caller]
    pub fn fails(self) -> String {
        assert_ne!(self.code, 0, "succeeded, saying {}", self.stdout);
        self.stderr
    }
}

/// A way to one published port of one host.
#[derive(Debug, Clone)]
pub struct Door(PathBuf);

impl Door {
    /// Asks `GET path`.
    ///
    /// # Errors
    /// When it does not answer 200 within 5 s, with what it did answer.
    pub fn get(&self, path: &str) -> Result<String, String> {
        self.ask(path).map_err(|failed| failed.to_string())
    }

    /// The same, and tells what kind of failure it was.
    ///
    /// # Errors
    /// As [`Door::get`].
    pub fn ask(&self, path: &str) -> Result<String, NoAnswer> {
        let answer = match http_ask(&self.0, path) {
            Ok(answer) => answer,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(NoAnswer {
                    how: Failure::Silent,
                    why: "connected, no answer within 5 s".to_owned(),
                });
            }
            Err(error) => return Err(NoAnswer { how: Failure::Reset, why: error.to_string() }),
        };
        match told_by_lab(&answer) {
            Some(failed) => Err(failed),
            None if answer.is_empty() => {
                Err(NoAnswer { how: Failure::Reset, why: "hung up without a word".to_owned() })
            }
            None => {
                body_of(&answer).map_err(|error| NoAnswer { how: Failure::Wrong, why: format!("{error:#}") })
            }
        }
    }
}

/// How a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// There was no connection, at once.
    Refused,
    /// The connection was broken off before the answer was there.
    Reset,
    /// No connection, or no answer, in time.
    Silent,
    /// An answer, and not the one that was asked for.
    Wrong,
}

impl Failure {
    pub const ALL: [Self; 4] = [Self::Refused, Self::Reset, Self::Silent, Self::Wrong];

    /// Returns it in a word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Silent => "silent",
            Self::Wrong => "wrong",
        }
    }
}

/// A request that was not answered as it should be, and what is known of why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoAnswer {
    pub how: Failure,
    /// Whose port it was, and what the kernel said, or what was answered.
    pub why: String,
}

impl std::fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.how.word(), self.why)
    }
}

/// Returns what the lab says at the end of what came through a door: `lab: WORD ADDRESS CAUSE`.
fn told_by_lab(answer: &str) -> Option<NoAnswer> {
    let line = answer.strip_suffix('\n')?;
    let (word, why) = line[line.rfind("lab: ")?..].strip_prefix("lab: ")?.split_once(' ')?;
    let how = Failure::ALL.into_iter().find(|how| how.word() == word)?;
    let before = &line[..line.rfind("lab: ")?];
    let got = if before.is_empty() { String::new() } else { format!(", after {before:?}") };
    Some(NoAnswer { how, why: format!("{why}{got}") })
}

/// Hosts `1..=n`, each with a running daemon; everything ends with this value.
#[derive(Debug)]
pub struct Lab {
    program: PathBuf,
    dir: tempfile::TempDir,
    process: Child,
    /// `None` once the lab was told to end.
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    execs: usize,
}

/// A program started by [`Lab::exec`].
#[derive(Debug)]
pub struct Exec {
    output: PathBuf,
}

impl Exec {
    /// Waits until the program has ended and returns what it said; both its streams are in `stdout`.
    ///
    /// # Errors
    /// When it has not within `limit`.
    pub fn wait(&self, limit: Duration) -> Result<Output> {
        let end = std::time::Instant::now() + limit;
        let code = self.output.with_extension("code");
        while !code.exists() {
            if std::time::Instant::now() > end {
                bail!("not ended within {limit:?}: {}", std::fs::read_to_string(&self.output)?);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let code = std::fs::read_to_string(&code)?.parse().context("no exit code")?;
        Ok(Output { code, stdout: std::fs::read_to_string(&self.output)?, stderr: String::new() })
    }

    /// Returns the file that has what it says.
    pub fn output(&self) -> &Path {
        &self.output
    }

    /// Returns what the program has said until now, for a failure's message.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap_or_else(|error| error.to_string())
    }
}

impl Lab {
    /// Starts `hosts` hosts with the `rswarm` at `program`; no swarm yet.
    ///
    /// # Errors
    /// When a host does not come up, with what its daemon logged.
    pub fn start(program: &Path, hosts: u8) -> Result<Self> {
        let dir =
            tempfile::Builder::new().prefix("rswarm-lab-").tempdir().context("cannot make a directory")?;
        let mut process = Command::new(program)
            .arg("lab")
            .arg("--dir")
            .arg(dir.path())
            // What a terminal says to whoever uses the lab (Ctrl-C) is not for the lab: that ends it in order.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let commands = Some(process.stdin.take().context("no command pipe")?);
        let answers = BufReader::new(process.stdout.take().context("no answer pipe")?);
        let mut lab = Self { program: program.to_owned(), dir, process, commands, answers, execs: 0 };
        for n in 1..=hosts {
            lab.tell(&format!("start {n}"))?;
        }
        for n in 1..=hosts {
            lab.wait_for_daemon(n)?;
        }
        Ok(lab)
    }

    /// Gives the lab one of its commands (`start N`, `kill N`, `kill-daemon N`, `start-daemon N`,
    /// `program N PATH ARGS` (which daemon is started on N from then on), `cut N`, `heal N`, `forward N PORT`,
    /// `door N PORT`, `serve PORT`, `exec N NAME ARGS`) and waits until it is done.
    ///
    /// # Errors
    /// When the lab refuses, with its reason.
    pub fn tell(&mut self, command: &str) -> Result<()> {
        let commands = self.commands.as_mut().context("the lab has ended")?;
        writeln!(commands, "{command}").with_context(|| format!("lab is gone before {command:?}"))?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        if answer.trim() != "ok" {
            bail!("lab: {command}: {}{}", answer.trim(), self.daemon_logs());
        }
        match command.strip_prefix("kill-daemon ").map(str::parse) {
            Some(Ok(n)) => self.wait_for_its_end(n),
            _ => Ok(()),
        }
    }

    /// Waits until nobody listens on the socket of host `n`: the lab only passes the kill on, and whoever starts the
    /// daemon anew must not find the old one.
    fn wait_for_its_end(&self, n: u8) -> Result<()> {
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while UnixStream::connect(self.socket(n)).is_ok() {
            if std::time::Instant::now() > end {
                bail!("the daemon of host {n} does not end{}", self.daemon_logs());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Waits until the front door of host `n` answers.
    ///
    /// # Errors
    /// After 20 s, with the daemons' logs.
    pub fn wait_for_daemon(&self, n: u8) -> Result<()> {
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while self.api(n, "/_ping").is_err() {
            if std::time::Instant::now() > end {
                bail!("the daemon of host {n} does not answer{}", self.daemon_logs());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Asks the front door of host `n` for `GET PATH` and returns the body: what one request saw at one moment.
    ///
    /// # Errors
    /// When it does not answer 200 within 5 s, with what it did answer.
    pub fn api(&self, n: u8, path: &str) -> Result<String> {
        http_get(&self.socket(n), path)
    }

    /// Returns the front door of host `n`.
    pub fn socket(&self, n: u8) -> PathBuf {
        self.dir.path().join(format!("h{n}/run/docker.sock"))
    }

    /// Returns the lab's directory; a test may put files there.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the underlay address of host `n`.
    pub fn address(n: u8) -> String {
        format!("198.18.0.{n}")
    }

    /// Runs `rswarm ARGS` against host `n`.
    pub fn rswarm(&self, n: u8, args: &[&str]) -> Output {
        self.run(&self.program, n, &[], args)
    }

    /// Runs `rswarm ARGS` against host `n` with more environment variables.
    pub fn rswarm_with(&self, n: u8, env: &[(&str, &str)], args: &[&str]) -> Output {
        self.run(&self.program, n, env, args)
    }

    /// Runs the real `docker ARGS` against host `n`.
    ///
    /// # Panics
    /// In a test that is no oracle: see [`peer`](crate::peer).
    pub fn docker(&self, n: u8, args: &[&str]) -> Output {
        self.run(crate::peer("docker"), n, &[], args)
    }

    fn run(&self, program: &Path, n: u8, env: &[(&str, &str)], args: &[&str]) -> Output {
        let output = Command::new(program)
            .args(args)
            .envs(env.iter().copied())
            .env("DOCKER_HOST", format!("unix://{}", self.socket(n).display()))
            .env_remove("RSWARM_HOST")
            .env("HOME", self.dir.path())
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .output();
        match output {
            Ok(output) => Output {
                code: output.status.code().unwrap_or(-1),
                stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            },
            Err(error) => {
                Output { code: -1, stdout: String::new(), stderr: format!("{}: {error}", program.display()) }
            }
        }
    }

    /// Asks `GET /` of a published port of host `n`, as a client outside the hosts would.
    ///
    /// # Errors
    /// When it does not answer 200 within 5 s, with what it did answer.
    pub fn http(&mut self, n: u8, port: u16) -> Result<String, String> {
        self.http_path(n, port, "/")
    }

    /// As [`Lab::http`], for another path.
    ///
    /// # Errors
    /// As [`Lab::http`].
    pub fn http_path(&mut self, n: u8, port: u16, path: &str) -> Result<String, String> {
        self.door(n, port).map_err(|e| e.to_string())?.get(path)
    }

    /// Opens a way to a published port of host `n` that another thread can take.
    ///
    /// # Errors
    /// When the lab refuses.
    pub fn door(&mut self, n: u8, port: u16) -> Result<Door> {
        self.tell(&format!("door {n} {port}"))?;
        Ok(Door(self.dir.path().join(format!("door-{n}-{port}.sock"))))
    }

    /// Lets the hosts reach the test itself, at the address that is returned: whoever connects there comes in at the
    /// Unix socket that is returned, where the test listens.
    ///
    /// # Errors
    /// When the lab refuses.
    pub fn serve(&mut self, port: u16) -> Result<(String, PathBuf)> {
        self.tell(&format!("serve {port}"))?;
        Ok((format!("198.18.0.254:{port}"), self.dir.path().join(format!("serve-{port}.sock"))))
    }

    /// Starts `rswarm ARGS`, or another program by its absolute path, in the namespaces of host `n`, beside its daemon. It ends with the host at the latest.
    /// ARGS must be without white space.
    ///
    /// # Errors
    /// When the host is not up.
    pub fn exec(&mut self, n: u8, args: &[&str]) -> Result<Exec> {
        self.execs += 1;
        let name = format!("exec-{}", self.execs);
        self.tell(&format!("exec {n} {name} {}", args.join(" ")))?;
        Ok(Exec { output: self.dir.path().join(format!("h{n}/{name}")) })
    }

    /// Returns what the daemons logged, for a failure's message.
    pub fn daemon_logs(&self) -> String {
        let mut all = String::new();
        for n in 1..=9 {
            let path = self.dir.path().join(format!("h{n}/daemon.log"));
            if let Ok(text) = std::fs::read_to_string(path) {
                let lines: Vec<&str> = text.lines().collect();
                let tail = lines[lines.len().saturating_sub(40)..].join("\n");
                all.push_str(&format!("\n--- daemon of host {n}, last lines:\n{tail}"));
            }
        }
        all
    }
}

fn http_get(socket: &Path, path: &str) -> Result<String> {
    body_of(&http_ask(socket, path)?)
}

fn http_ask(socket: &Path, path: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: lab\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn body_of(answer: &str) -> Result<String> {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { bail!("no HTTP answer: {answer:?}") };
    if !head.starts_with("HTTP/1.1 200") && !head.starts_with("HTTP/1.0 200") {
        bail!("{head}: {body}");
    }
    Ok(body.to_owned())
}

impl Drop for Lab {
    fn drop(&mut self) {
        // The lab ends when its input does; then its namespaces end, and it removes its cgroups.
        self.commands = None;
        let limit = std::time::Instant::now() + Duration::from_secs(10);
        while std::time::Instant::now() < limit {
            match self.process.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                Ok(Some(_)) => return,
                Err(_) => break,
            }
        }
        let killed = self.process.kill().and_then(|()| self.process.wait());
        eprintln!("the lab did not end by itself: {killed:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_lab_says_is_told_from_an_answer() {
        let of = |answer: &str| told_by_lab(answer).map(|failed| failed.to_string());
        assert_eq!(of("HTTP/1.0 200 OK\r\n\r\nok\n"), None);
        assert_eq!(of("HTTP/1.0 200 OK\r\n\r\nlab: 1 of 3\n"), None);
        let refused = "lab: refused 198.18.0.2:8080 Connection refused (os error 111)\n";
        assert_eq!(of(refused).unwrap(), "refused: 198.18.0.2:8080 Connection refused (os error 111)");
        let half = "HTTP/1.0 200 OK\r\nlab: reset 198.18.0.2:8080 Connection reset by peer\n";
        let told = of(half).unwrap();
        assert!(told.starts_with("reset: 198.18.0.2:8080 ") && told.ends_with("200 OK\\r\\n\""), "{told}");
    }
}
