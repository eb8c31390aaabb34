//! The plugins that a `docker` of today has: `buildx`, which `docker build` is, and Compose of version 2.

use crate::{
    docker_commands::all_with,
    docker_engine::{Machine, host, on_each},
};
use std::path::Path;

/// Types lines into a shell whose `docker` has the plugins.
#[track_caller]
fn type_all(machine: &Machine, lines: &[(&str, i32, &str)]) {
    type_with(machine, "docker compose", lines);
}

/// The same; `$COMPOSE` is what projects are handled with.
#[track_caller]
fn type_with(machine: &Machine, compose: &str, lines: &[(&str, i32, &str)]) {
    let plugins = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/oracle-plugins"));
    assert!(plugins.join("cli-plugins/docker-buildx").exists(), "run `cargo xtask oracles`");
    let own = machine.dir().join("buildx");
    all_with(
        machine,
        &[("DOCKER_CONFIG", plugins), ("BUILDX_CONFIG", &own), ("COMPOSE", Path::new(compose))],
        lines,
    );
}

#[test]
#[ignore = "oracle: docker, docker-buildx, dockerd, busybox"]
fn docker_build_is_buildx() {
    on_each(|machine| {
        type_all(
            machine,
            &[
                ("docker buildx version", 0, "buildx"),
                (
                    "mkdir -p app/sub; cd app; echo content > f; ln -s f link; ln f hard; echo s > sub/s; echo x > x.log; printf '*.log\\n' > .dockerignore; printf tokentoken > ../token",
                    0,
                    "",
                ),
                (
                    r#"printf 'FROM bb AS base\nARG WHO=world\nRUN echo hello $WHO | tee /hello\nRUN --mount=type=secret,id=t wc -c < /run/secrets/t > /size\nFROM base\nCOPY . /ctx/\nRUN find /ctx | sort > /list\nLABEL a=b\nCMD ["cat","/hello","/size","/list"]\n' > app/Dockerfile"#,
                    0,
                    "",
                ),
                (
                    "docker build --progress plain --secret id=t,src=token --build-arg WHO=me --label x=y -t app:1 -t app:2 --iidfile id app",
                    0,
                    "hello me",
                ),
                ("[ $(docker inspect -f {{.Id}} app:2) = $(cat id) ] && echo same", 0, "=same\n"),
                (
                    "docker run --rm app:1",
                    0,
                    "=hello me\n10\n/ctx\n/ctx/.dockerignore\n/ctx/Dockerfile\n/ctx/f\n/ctx/hard\n/ctx/link\n/ctx/sub\n/ctx/sub/s\n",
                ),
                ("docker run --rm app:1 sh -c 'readlink /ctx/link; cat /ctx/hard'", 0, "=f\ncontent\n"),
                ("docker inspect -f '{{json .Config.Labels}}' app:1", 0, "{\"a\":\"b\",\"x\":\"y\"}"),
                // Nothing has changed: nothing is done.
                (
                    "docker build --progress plain --secret id=t,src=token --build-arg WHO=me --label x=y -t app:1 app 2>&1 | grep -c CACHED",
                    0,
                    "",
                ),
                (
                    "docker build -q --target base --secret id=t,src=token -t base app | cut -c1-7",
                    0,
                    "=sha256:\n",
                ),
                ("docker run --rm base cat /hello", 0, "=hello world\n"),
                (
                    "printf 'FROM bb\\nRUN echo in > /in\\n' | docker build -t lone - && docker run --rm lone cat /in",
                    0,
                    "=in\n",
                ),
                (
                    "printf 'FROM bb\\nCOPY f /f\\n' | docker build -t beside -f - app && docker run --rm beside cat /f",
                    0,
                    "=content\n",
                ),
                (
                    "tar -C app -cz . | docker build --secret id=t,src=token --target base -t packed - && docker run --rm packed cat /hello",
                    0,
                    "=hello world\n",
                ),
                (
                    "printf 'FROM bb\\nRUN sh -c \"echo boom; exit 3\"\\n' > fail; docker build --progress plain -f fail app",
                    1,
                    "boom",
                ),
                ("docker build --progress plain -f fail app", 1, "exit code: 3"),
                ("docker build -f nope app", 1, "nope: no such file or directory"),
                ("printf 'FROM bb\\nCOPY absent /\\n' > absent; docker build -f absent app", 1, "not found"),
                ("printf 'FROM bb\\nFOO x\\n' > foo; docker build -f foo app", 1, "unknown instruction: FOO"),
                ("docker build --target nope app", 1, "nope"),
                ("docker builder prune -f", 0, "Total"),
                ("docker ps -a -q", 0, "="),
            ],
        );
    });
}

/// What dockerd 20.10 is too old for.
#[test]
#[ignore = "oracle: docker, docker-buildx, busybox"]
fn a_build_is_ended_with_its_client_and_many_run_at_once() {
    let machine = Machine::Ours(host());
    type_all(
        &machine,
        &[
            ("mkdir a; printf 'FROM bb\\nRUN sleep 1000\\n' > a/Dockerfile", 0, ""),
            // Killed, it cannot say goodbye.
            ("timeout -s KILL 3 docker build a; docker ps -q | wc -l", 0, ""),
            (
                "for n in $(seq 50); do [ -z \"$(docker ps -a -q)\" ] && echo gone && break; sleep 0.2; done",
                0,
                "=gone\n",
            ),
            (
                "printf 'FROM bb\\nARG N\\nRUN echo $N > /n\\n' > a/Dockerfile; for n in 1 2 3 4 5 6; do docker build -q --build-arg N=$n -t n:$n a & done; wait; for n in 1 2 3 4 5 6; do docker run --rm n:$n cat /n; done",
                0,
                "\n1\n2\n3\n4\n5\n6\n",
            ),
            (
                "printf 'FROM bb\\nRUN <<EOF\\necho one > /d\\necho two >> /d\\nEOF\\nRUN --mount=type=cache,target=/c touch /c/x\\n' > a/Dockerfile; docker build -t here a && docker run --rm here cat /d",
                0,
                "=one\ntwo\n",
            ),
            ("docker build -o out a", 1, "the output \"local\" is not available"),
            ("docker build https://example.invalid/a.git", 1, "unable to prepare context"),
            ("docker buildx build --platform linux/amd64,linux/arm64 a", 1, ""),
            // Asked for a look at the Dockerfile, we do not build it instead.
            (
                "BUILDX_EXPERIMENTAL=1 docker buildx build --print=outline a",
                1,
                "\"requestid\" of a build is not available",
            ),
            ("docker build --cgroup-parent x a", 1, "\"cgroup-parent\" of a build is not available"),
            ("docker buildx ls", 0, "running"),
            ("docker buildx du", 0, "Total"),
        ],
    );
}

/// Answers as an SSH agent without keys.
const AGENT: &str = "import socket, sys, threading
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
def serve(client):
    while client.recv(65536):
        client.sendall(bytes([0, 0, 0, 5, 12, 0, 0, 0, 0]))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
";

/// Asks an agent for its keys and prints the kind of its answer.
const ASK: &str = "import os, socket
agent = socket.socket(socket.AF_UNIX)
agent.connect(os.environ['SSH_AUTH_SOCK'])
agent.sendall(bytes([0, 0, 0, 1, 11]))
print('answer', agent.recv(9)[4])
";

#[test]
#[ignore = "oracle: docker, docker-buildx, python3, busybox"]
fn a_command_reaches_the_ssh_agent_of_the_client() {
    let machine = Machine::Ours(host());
    let shell = machine.dir().join("shell");
    std::fs::create_dir_all(shell.join("a")).expect("a folder");
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/test-images/lang.tar"));
    let dockerfile = "FROM lang\nCOPY ask.py /\nRUN --mount=type=ssh,required python3 /ask.py | tee /said\n\
                      RUN --mount=type=ssh,id=other test -z $SSH_AUTH_SOCK\nRUN test ! -e /run/buildkit\n";
    for (name, text) in [("agent.py", AGENT), ("a/ask.py", ASK), ("a/Dockerfile", dockerfile)] {
        std::fs::write(shell.join(name), text).expect("a file");
    }
    let import = format!("docker import {} lang >/dev/null", root.display());
    type_all(
        &machine,
        &[
            (&import, 0, ""),
            (
                "timeout 50 python3 agent.py $PWD/s & pid=$!; until [ -S s ]; do sleep 0.1; done; docker build --ssh default=$PWD/s -q -t said a >id; code=$?; kill $pid; cat id; exit $code",
                0,
                "sha256:",
            ),
            ("docker run --rm said cat /said", 0, "=answer 12\n"),
            ("docker build --no-cache a", 1, "the client lends no SSH agent default"),
            ("DOCKER_BUILDKIT=0 docker build --no-cache a", 1, "the client lends no SSH agent default"),
        ],
    );
}

/// A project's life, in the words of Docker Compose and of ours: both mean the same to both daemons.
#[test]
#[ignore = "oracle: docker, docker-buildx, docker-compose, dockerd, busybox"]
fn compose_2_and_ours_build_start_scale_and_remove() {
    on_each(|machine| {
        // The newest version that dockerd 20.10 knows.
        let version = if matches!(machine, Machine::Ours(_)) { "" } else { "1.41" };
        let ours = format!("env DOCKER_API_VERSION={version} {} compose", crate::program().display());
        for compose in ["docker compose", &ours] {
            a_projects_life(machine, compose);
        }
    });
}

fn a_projects_life(machine: &Machine, compose: &str) {
    type_with(
        machine,
        compose,
        &[
            (
                "mkdir -p c/app; printf 'FROM bb\\nARG WHO=nobody\\nRUN echo $WHO > /who\\nCMD [\"sh\",\"-c\",\"cat /who; exec sleep 1000\"]\\n' > c/app/Dockerfile",
                0,
                "",
            ),
            (
                "printf 'services:\\n  web:\\n    build:\\n      context: app\\n      args: {WHO: me}\\n    depends_on:\\n      db: {condition: service_healthy}\\n    environment: [A=1]\\n    networks: [front, back]\\n  db:\\n    image: bb\\n    command: sleep 1000\\n    healthcheck: {test: [CMD, test, -d, /store], interval: 200ms}\\n    volumes: [\"store:/store\"]\\n    networks: {back: {aliases: [store]}}\\nnetworks: {front: {}, back: {internal: true}}\\nvolumes: {store: {}}\\n' > c/compose.yaml",
                0,
                "",
            ),
            ("cd c; $COMPOSE build", 0, ""),
            ("cd c; $COMPOSE up -d --wait", 0, ""),
            (
                "cd c; $COMPOSE ps --format '{{.Service}} {{.State}} {{.Health}}' | sort",
                0,
                "=db running healthy\nweb running \n",
            ),
            ("cd c; $COMPOSE logs --no-log-prefix web", 0, "me\n"),
            ("cd c; $COMPOSE exec -T web ping -c1 -W5 store | grep -c 'bytes from'", 0, "=1\n"),
            ("cd c; $COMPOSE exec -T web sh -c 'echo $A'", 0, "=1\n"),
            ("cd c; $COMPOSE run --rm -T web cat /who", 0, "me\n"),
            ("cd c; $COMPOSE up -d --scale web=3; $COMPOSE ps -q web | wc -l", 0, "3\n"),
            ("cd c; $COMPOSE up -d --scale web=1; $COMPOSE ps -q web | wc -l", 0, "1\n"),
            ("cd c; $COMPOSE cp web:/who who; cat who", 0, "me\n"),
            ("cd c; $COMPOSE restart -t 0 web; $COMPOSE top web", 0, "sleep 1000"),
            ("cd c; $COMPOSE stop -t 0; $COMPOSE ps -q | wc -l", 0, "0\n"),
            ("cd c; $COMPOSE down -t 0 -v --rmi local", 0, ""),
            (
                "docker ps -a -q; docker volume ls -q; docker network ls -q -f type=custom; docker images -q c-web",
                0,
                "=",
            ),
        ],
    );
}

/// Both find their projects by the same labels.
#[test]
#[ignore = "oracle: docker, docker-compose, busybox"]
fn a_project_of_one_is_a_project_of_the_other() {
    let machine = Machine::Ours(host());
    let ours = format!("{} compose", crate::program().display());
    type_with(
        &machine,
        &ours,
        &[
            (
                "mkdir p; printf 'services:\\n  a: {image: bb, command: sleep 1000, stop_grace_period: 0s}\\n  b: {image: bb, command: sleep 1000, stop_grace_period: 0s, volumes: [\"data:/data\"]}\\nvolumes: {data: {}}\\n' > p/compose.yaml",
                0,
                "",
            ),
            ("cd p; $COMPOSE up -d", 0, "Container p-a-1  Started"),
            (
                "cd p; docker compose ps --format '{{.Name}} {{.State}}' | sort",
                0,
                "=p-a-1 running\np-b-1 running\n",
            ),
            ("docker compose ls -q", 0, "=p\n"),
            ("cd p; docker compose stop a; $COMPOSE ps -a --status exited --services", 0, "=a\n"),
            ("cd p; $COMPOSE start; docker compose ps -q | wc -l", 0, "=2\n"),
            ("cd p; docker compose up -d --scale b=2 --no-recreate; $COMPOSE ps -q | wc -l", 0, "=3\n"),
            ("cd p; $COMPOSE up -d --scale b=1 --no-recreate; docker compose ps -q | wc -l", 0, "=2\n"),
            ("cd p; docker compose down -v", 0, ""),
            ("docker ps -aq; docker volume ls -q; docker network ls -q -f type=custom", 0, "="),
            ("cd p; docker compose up -d", 0, ""),
            ("$COMPOSE ls --format '{{.Name}} {{.Status}}'", 0, "=p running(2)\n"),
            ("cd p; $COMPOSE down -v", 0, ""),
            ("docker ps -aq; docker volume ls -q; docker network ls -q -f type=custom", 0, "="),
        ],
    );
}
