//! docker-py and testcontainers of PyPI against our front door, in our words (`docker_py.py`, `testcontainers_py.py`) and
//! in docker-py's own: `docker_py_suite.txt` names those of its integration tests that must pass. What a real dockerd
//! passes and we do not is told of in `differences.txt`.

use crate::{
    SOON,
    docker_engine::{host, import_root},
    lab,
};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};
use testkit::{Exec, Lab};

/// How long docker-py's own tests may take together: ten times what they do on a quiet machine.
const SUITE: Duration = Duration::from_secs(1_500);
/// How long one of them may take.
const SUITE_TEST_SECONDS: u32 = 180;
/// Files of its tests that take as long together as all others.
const OF_CONTAINERS: [&str; 3] = ["api_container_test.py", "api_exec_test.py", "models_containers_test.py"];

/// Its tests of a plugin that they install from Docker Hub, for which they would wait.
const OF_DOCKER_HUB: [&str; 10] = [
    "test_enable_plugin",
    "test_disable_plugin",
    "test_inspect_plugin",
    "test_plugin_privileges",
    "test_list_plugins",
    "test_configure_plugin",
    "test_remove_plugin",
    "test_force_remove_plugin",
    "test_install_plugin",
    "test_upgrade_plugin",
];

fn workspace() -> PathBuf {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    root.canonicalize().expect("the workspace")
}

/// Returns a path of what `cargo xtask oracles` makes.
#[track_caller]
fn made(path: &str) -> String {
    let path = workspace().join("target").join(path);
    assert!(path.exists(), "{} is missing: run `cargo xtask oracles`", path.display());
    path.display().to_string()
}

fn variables(lab: &Lab, n: u8) -> (String, String) {
    (format!("DOCKER_HOST=unix://{}", lab.socket(n).display()), format!("HOME={}", lab.dir().display()))
}

/// Runs a script of this folder on the host itself, where `localhost` has the published ports.
#[track_caller]
fn python(lab: &mut Lab, script: &str, last: &str) {
    let python = made("oracle-venv/bin/python");
    let (host, home) = variables(lab, 1);
    let script = workspace().join("tests/e2e").join(script).display().to_string();
    // Ryuk is a container of testcontainers that has to come from Docker Hub.
    let command = ["/usr/bin/env", &host, &home, "TESTCONTAINERS_RYUK_DISABLED=true", &python, &script];
    let said = lab.exec(1, &command).expect("python starts").wait(SOON * 2).expect("python ends");
    assert!(said.code == 0 && said.stdout.contains(last), "{}{}", said.stdout, lab.daemon_logs());
}

#[test]
#[ignore = "oracle: docker, busybox, docker-py"]
fn docker_py_works_unchanged() {
    python(&mut host(), "docker_py.py", "ok swarm");
}

#[test]
#[ignore = "oracle: docker, busybox, testcontainers"]
fn testcontainers_works_unchanged() {
    python(&mut host(), "testcontainers_py.py", "ok image");
}

/// Returns the names of the tests that must pass.
fn demanded() -> BTreeSet<&'static str> {
    include_str!("docker_py_suite.txt").lines().filter(|l| !l.is_empty() && !l.starts_with('#')).collect()
}

/// Begins to run docker-py's own tests of these files on a host.
fn own_tests(lab: &mut Lab, n: u8, files: &[String]) -> Exec {
    // By their names in a registry that is not asked; the last one's output is looked at.
    for (name, command) in [
        ("alpine:3.10", "[\"sh\"]"),
        ("alpine:latest", "[\"sh\"]"),
        ("busybox:latest", "[\"sh\"]"),
        ("hello-world:latest", "[\"echo\",\"Hello from Docker!\"]"),
    ] {
        let path = "ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin";
        import_root(lab, n, name, &[&format!("CMD {command}"), path]);
    }
    let (host, home) = variables(lab, n);
    let (python, folder) = (made("oracle-docker-py/bin/python"), made("oracle-docker-py/docker-py"));
    let limit = format!("--timeout={SUITE_TEST_SECONDS}");
    let mut command = vec![
        "/usr/bin/env",
        "--chdir",
        &folder,
        &host,
        &home,
        "PYTHONDONTWRITEBYTECODE=1",
        &python,
        "-m",
        "pytest",
        "-v",
        "--tb=short",
        "-p",
        "no:cacheprovider",
        &limit,
    ];
    let left_out = OF_DOCKER_HUB
        .map(|test| format!("--deselect=tests/integration/api_plugin_test.py::PluginTest::{test}"));
    command.extend(files.iter().chain(&left_out).map(String::as_str));
    lab.exec(n, &command).expect("python starts")
}

#[test]
#[ignore = "oracle: docker, busybox, docker-py"]
fn docker_pys_own_tests_pass() {
    let mut lab = lab(2);
    let path = |file: &str| format!("tests/integration/{file}");
    // In halves beside each other, each on a host of its own: they wait more than they work.
    let one: Vec<String> = OF_CONTAINERS.iter().map(|file| path(file)).collect();
    let mut other: Vec<String> = one.iter().map(|file| format!("--ignore={file}")).collect();
    // These two are about files of the client alone.
    other.extend(["credentials", "context_api_test.py"].map(|file| format!("--ignore={}", path(file))));
    other.push("tests/integration".to_owned());
    let halves = [own_tests(&mut lab, 1, &one), own_tests(&mut lab, 2, &other)];
    let said = halves.map(|run| match run.wait(SUITE) {
        Ok(ended) => ended.stdout,
        Err(_) => run.said(), // what has passed until now has
    });
    let said = said.join("\n");
    let passed: BTreeSet<&str> = said.lines().filter_map(passed).collect();
    let missing: Vec<_> = demanded().difference(&passed).copied().collect();
    let unlisted: Vec<_> = passed.difference(&demanded()).copied().collect();
    assert!(
        missing.is_empty(),
        "{} of docker-py's own tests that must pass do not:\n{}\n(these pass and are in no list: {unlisted:?})\n\
         {said}\n{}",
        missing.len(),
        missing.join("\n"),
        lab.daemon_logs()
    );
}

/// Reads a line of pytest: `tests/integration/FILE::CLASS::TEST PASSED [ 12%]`. One that was expected to fail, for this
/// host or for any, and did not, has passed.
fn passed(line: &str) -> Option<&str> {
    let (name, rest) = line.strip_prefix("tests/integration/")?.split_once(' ')?;
    let outcome = rest.split_whitespace().next()?;
    ["PASSED", "XPASS"].contains(&outcome).then_some(name)
}

#[test]
fn what_pytest_says_is_read() {
    let name = "api_exec_test.py::ExecTest::test_exec_command";
    for (rest, read) in [
        ("PASSED                 [ 12%]", Some(name)),
        ("XPASS (CONFIG_RT..) [ 3%]", Some(name)),
        ("FAILED [ 99%]", None),
        ("SKIPPED (no) [ 99%]", None),
    ] {
        assert_eq!(passed(&format!("tests/integration/{name} {rest}")), read, "{rest}");
    }
    assert!(demanded().iter().all(|name| name.matches("::").count() == 2), "names of tests");
}
