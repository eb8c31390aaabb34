//! The commands of the `docker` CLI as they are typed in a shell, with pipes and terminals, here and (with `ORACLE=1`)
//! on a real dockerd.

use crate::{
    clis::{Subject, judge_all},
    docker_engine::{Machine, host, judge, on_each},
};
use std::{
    path::Path,
    process::{Command, Stdio},
};

/// Runs a line in a shell whose `docker` speaks with the machine; its folder is the machine's.
fn shell(machine: &Machine, line: &str) -> testkit::Output {
    shell_with(machine, &[], line)
}

fn shell_with(machine: &Machine, environment: &[(&str, &Path)], line: &str) -> testkit::Output {
    let folder = machine.dir().join("shell");
    std::fs::create_dir_all(&folder).expect("a folder");
    let ended = Command::new("timeout")
        .args(["-s", "KILL", "60", "sh", "-c", line])
        .current_dir(&folder)
        .env("DOCKER_HOST", machine.host())
        .env("HOME", machine.dir())
        .env("TMPDIR", machine.dir()) // buildx leaves some behind
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("a shell");
    testkit::Output {
        code: ended.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&ended.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&ended.stderr).into_owned(),
    }
}

/// Runs each line and demands its exit code and, in either stream, its text; a text that begins with `=` is all there
/// is on standard output.
#[track_caller]
fn all(machine: &Machine, lines: &[(&str, i32, &str)]) {
    all_with(machine, &[], lines);
}

/// As `all`, with these variables.
#[track_caller]
pub(crate) fn all_with(machine: &Machine, environment: &[(&str, &Path)], lines: &[(&str, i32, &str)]) {
    for (line, code, text) in lines {
        let said = shell_with(machine, environment, line);
        let fits = match text.strip_prefix('=') {
            Some(whole) => said.stdout == whole,
            None => format!("{}{}", said.stdout, said.stderr).contains(text),
        };
        let known = line.strip_prefix("docker ").unwrap_or(line);
        judge(
            machine,
            known,
            said.code == *code && fits,
            &format!("{line}\nwant {code} and {text:?}\ngot {said:?}"),
        );
    }
}

/// What is typed, each on machines of its own.
const SUBJECTS: &[Subject] = &[
    ("lists, streams and signals", || on_each(containers_are_listed_attached_to_and_talked_with)),
    ("logs", || on_each(logs_are_shown_as_asked)),
    ("files", || on_each(files_go_in_and_out)),
    ("flags of run", || on_each(run_takes_every_flag)),
    ("images, volumes and networks", || on_each(images_volumes_and_networks_are_managed)),
    ("networks of a running container", || on_each(a_running_container_joins_and_leaves_networks)),
    ("the daemon itself", || on_each(the_daemon_tells_of_itself)),
];

#[test]
#[ignore = "oracle: docker, dockerd, busybox"]
fn what_is_typed_in_a_shell_is_answered_as_dockerd_answers_it() {
    judge_all(SUBJECTS);
}

fn containers_are_listed_attached_to_and_talked_with(machine: &Machine) {
    all(
        machine,
        &[
            (
                "docker run -d --name aa -l tier=web bb sleep 1000 >/dev/null && docker create --name bbb bb true >/dev/null",
                0,
                "=",
            ),
            ("docker ps -q | wc -l", 0, "=1\n"),
            ("docker ps -a --format '{{.Names}} {{.State}}'", 0, "=bbb created\naa running\n"),
            ("docker ps -l --format {{.Names}}", 0, "=bbb\n"),
            ("docker ps -n 1 --format {{.Names}}", 0, "=bbb\n"),
            ("docker ps -aq --no-trunc | head -1 | wc -c", 0, "=65\n"),
            ("docker ps -a --filter status=created --format {{.Names}}", 0, "=bbb\n"),
            ("docker ps -a --filter label=tier=web --format {{.Names}}", 0, "=aa\n"),
            ("docker ps -a --filter name=^aa$ --format {{.Names}}", 0, "=aa\n"),
            ("docker ps -a --filter ancestor=bb --format {{.Names}} | wc -l", 0, "=2\n"),
            ("docker ps -a --filter before=bbb --format {{.Names}}", 0, "=aa\n"),
            ("docker ps -a --filter since=aa --format {{.Names}}", 0, "=bbb\n"),
            ("docker ps -a --filter nope=1", 1, "nvalid filter 'nope'"),
            ("docker ps -s --filter name=^aa$ --format {{.Size}}", 0, "(virtual "),
            ("docker ps --format json --filter name=^aa$ | cut -c1-1", 0, "={\n"),
            ("docker wait nope", 1, "No such container: nope"),
            ("docker inspect nope", 1, "o such object: nope"),
            ("docker inspect --size -f '{{.SizeRw}}' bbb", 0, "=0\n"),
            // Attached.
            (
                "docker create -i --name cat bb cat >/dev/null; echo to the cat | docker start -ai cat",
                0,
                "=to the cat\n",
            ),
            ("echo one | docker run --rm -i bb cat", 0, "=one\n"),
            ("echo one | docker run --rm -i -a stdin -a stdout bb cat", 0, "=one\n"),
            ("echo again | docker start -ai cat", 0, "=again\n"),
            (
                "docker run -d -t -i --name tty bb sh >/dev/null; script -qec 'docker attach --detach-keys ctrl-x tty' /dev/null <<EOF | tr -d '\\r' | grep -c read\n\x18\nEOF",
                0,
                "=1\n",
            ),
            ("docker inspect -f {{.State.Running}} tty", 0, "=true\n"),
            ("docker attach bbb", 1, "You cannot attach to a stopped container, start it first"),
            ("docker exec aa sh -c 'echo o; echo e >&2' 2>/dev/null", 0, "=o\n"),
            ("echo in | docker exec -i aa cat", 0, "=in\n"),
            ("script -qec 'docker exec -it aa tty' /dev/null | grep -o '/dev/pts/0'", 0, "=/dev/pts/0\n"),
            (
                "docker exec -d aa sh -c 'echo done >/tmp/done'; while ! docker exec aa cat /tmp/done 2>/dev/null; do :; done",
                0,
                "=done\n",
            ),
            ("docker exec --privileged aa grep CapEff /proc/self/status | tr -d 0-9af", 0, "CpE:"),
            ("docker exec --env-file /dev/null -u 1000:5 aa id", 0, "=uid=1000(user) gid=5 groups=5\n"),
            ("docker exec bbb true", 1, "is not running"),
            ("docker exec nope true", 1, "No such container: nope"),
            // Signals and the end.
            (
                "docker run -d --name sig --stop-signal USR1 bb sh -c \"trap 'exit 9' USR1; echo up; while :; do sleep 0.1; done\" >/dev/null; while ! docker logs sig | grep -q up; do :; done; docker stop sig; docker inspect -f {{.State.ExitCode}} sig",
                0,
                "=sig\n9\n",
            ),
            (
                "docker start sig >/dev/null; while test $(docker logs sig | grep -c up) -lt 2; do :; done; docker kill -s USR1 sig; docker wait sig",
                0,
                "=sig\n9\n",
            ),
            ("docker kill sig", 1, "is not running"),
            ("docker kill -s NOPE aa", 1, "nvalid signal: NOPE"),
            ("docker restart -t 0 aa", 0, "=aa\n"),
            ("docker rm -f aa bbb cat tty sig nope", 0, "No such container: nope"),
            ("docker ps -aq", 0, "="),
            (
                "docker run --name kept bb true; docker container prune -f | head -1",
                0,
                "=Deleted Containers:\n",
            ),
            ("docker run -d --rm bb true >/dev/null; while test -n \"$(docker ps -aq)\"; do :; done", 0, "="),
            ("docker run --rm bb sh -c 'sh -c \"kill -9 \\$\\$\"; exit $?'", 137, "="),
            ("docker run --rm --init bb sh -c 'ps -o args | sed -n 2p'", 0, "init"),
            (
                "docker run --cidfile id --rm bb true; wc -c <id; docker run --cidfile id --rm bb true",
                125,
                "ID file found",
            ),
        ],
    );
}

fn logs_are_shown_as_asked(machine: &Machine) {
    all(
        machine,
        &[
            (
                "docker run --name ll -l a=b --log-opt labels=a bb sh -c 'echo one; echo two >&2; echo three'",
                0,
                "one",
            ),
            ("docker logs ll 2>/dev/null", 0, "=one\nthree\n"),
            ("docker logs ll 2>&1 >/dev/null", 0, "=two\n"),
            ("docker logs -n 3 ll 2>/dev/null", 0, "=one\nthree\n"),
            ("docker logs -t ll 2>/dev/null | sed 's/^20[-0-9T:.]*Z /TIME /'", 0, "=TIME one\nTIME three\n"),
            ("docker logs --details ll 2>/dev/null", 0, "=a=b one\na=b three\n"),
            ("docker logs --since 1h ll 2>/dev/null | wc -l", 0, "=2\n"),
            ("docker logs --since 2099-01-01 ll", 0, "="),
            ("docker logs --until 1h ll", 0, "="),
            ("docker logs --tail 0 ll", 0, "="),
            ("docker logs --since nonsense ll", 1, "invalid value for \"since\""),
            ("docker logs nope", 1, "No such container: nope"),
            (
                "docker run --name quiet --log-driver none bb echo x; docker logs quiet",
                1,
                "does not support reading",
            ),
            ("docker run --rm --log-driver nope bb true", 125, "nope"),
            ("docker run --rm --log-opt nope=1 bb true", 125, "unknown log opt 'nope'"),
            (
                "docker run -d --name ff bb sh -c 'for i in 1 2 3; do echo $i; sleep 0.2; done' >/dev/null; docker logs -f ff",
                0,
                "=1\n2\n3\n",
            ),
            (
                "docker run --name big --log-opt max-size=1k --log-opt max-file=2 bb sh -c 'seq 1 200' | wc -l; docker logs big | tail -1",
                0,
                "=200\n200\n",
            ),
            ("docker rm -f ll quiet ff big >/dev/null", 0, "="),
        ],
    );
}

fn files_go_in_and_out(machine: &Machine) {
    all(
        machine,
        &[
            (
                "docker run -d --name ff bb sleep 1000 >/dev/null; mkdir d; echo x >d/file; ln -s file d/link",
                0,
                "=",
            ),
            ("docker cp d ff:/tmp/new && docker exec ff ls /tmp/new", 0, "file\nlink\n"),
            ("docker cp d ff:/tmp && docker exec ff ls /tmp/d", 0, "file\nlink\n"),
            ("docker cp d/. ff:/tmp/d && docker exec ff cat /tmp/d/file", 0, "x\n"),
            ("docker cp ff:/tmp/d - | tar -tf - | sort", 0, "=d/\nd/file\nd/link\n"),
            ("tar -cf - d | docker cp - ff:/data && docker exec ff cat /data/d/link", 0, "x\n"),
            ("docker cp -L ff:/tmp/d/link out && cat out", 0, "x\n"),
            ("docker cp ff:/nope x", 1, "Could not find the file /nope in container ff"),
            ("docker cp d/file ff:/nope/deep", 1, "nope"),
            ("docker cp nope ff:/", 1, "no such file or directory"),
            ("docker cp -a d/file ff:/tmp/owned && docker exec ff stat -c %u /tmp/owned", 0, "0\n"),
            ("docker cp ff:/etc/passwd - | tar -xOf - | head -1", 0, "=root:x:0:0:root:/root:/bin/sh\n"),
            ("docker diff ff | sort | head -3", 0, "=A /data/d\nA /data/d/file\nA /data/d/link\n"),
            ("docker export ff | tar -tf - | grep -c ^tmp/d/", 0, "=3\n"),
            (
                "docker export ff | docker import -m note -c 'CMD [\"cat\",\"/tmp/d/file\"]' - out:1 >/dev/null && docker run --rm -e PATH=/bin out:1",
                0,
                "x\n",
            ),
            ("docker stop -t 0 ff >/dev/null; docker cp ff:/tmp/d/file stopped && cat stopped", 0, "x\n"),
            (
                "docker cp d/file ff:/tmp/while-stopped && docker start ff >/dev/null && docker exec ff cat /tmp/while-stopped",
                0,
                "x\n",
            ),
            (
                "docker commit -p -m message -a author -c 'LABEL a=b' ff out:2 >/dev/null; docker inspect -f '{{.Author}} {{.Comment}} {{.Config.Labels.a}}' out:2",
                0,
                "=author message b\n",
            ),
            ("docker rm -f ff >/dev/null", 0, "="),
        ],
    );
}

fn run_takes_every_flag(machine: &Machine) {
    all(
        machine,
        &[
            (
                "printf 'A=1\\n# no\\nB\\n' >env; B=2 docker run --rm --env-file env bb env | sort | grep '^[AB]='",
                0,
                "=A=1\nB=2\n",
            ),
            (
                "printf 'a=b\\nc\\n' >labels; docker create --name ll --label-file labels bb >/dev/null; docker inspect -f '{{.Config.Labels}}' ll",
                0,
                "=map[a:b]\n",
            ),
            (
                "docker run -d --name pp -P --expose 80 bb sleep 1000 >/dev/null; docker port pp 80 | head -1 | cut -d: -f1",
                0,
                "=0.0.0.0\n",
            ),
            (
                "docker run -d --name range -p 18080-18081:80-81 bb sleep 1000 >/dev/null; docker port range | grep -v '\\[' | sort",
                0,
                "=80/tcp -> 0.0.0.0:18080\n81/tcp -> 0.0.0.0:18081\n",
            ),
            ("docker run --rm -v $PWD/made:/m bb touch /m/x; ls made", 0, "=x\n"),
            ("docker run --rm -v $PWD/made:/m:ro bb touch /m/y", 1, "Read-only file system"),
            ("docker run --rm -v $PWD/env:/env bb head -1 /env", 0, "=A=1\n"),
            (
                "docker run --name vv -v keep:/data bb cat /data/seed; docker run --rm --volumes-from vv bb cat /data/seed",
                0,
                "=seed\nseed\n",
            ),
            ("docker run --rm --volumes-from vv:ro bb touch /data/x", 1, "Read-only file system"),
            ("docker run --rm -v keep:/other bb ls /other", 0, "=seed\n"),
            (
                "docker run --rm -v relative/path:/x bb true",
                125,
                "includes invalid characters for a local volume name",
            ),
            ("docker run --rm -v /x:relative bb true", 125, "invalid"),
            (
                "docker run --rm --mount type=volume,src=keep,dst=/k,readonly bb touch /k/x",
                1,
                "Read-only file system",
            ),
            (
                "docker run --rm --tmpfs /t:size=2m,mode=700 bb sh -c 'df /t | tail -1 | awk \"{print \\$2}\"; stat -c %a /t'",
                0,
                "=2048\n700\n",
            ),
            ("docker run -d --network-alias x bb sleep 1000", 125, "are only supported for"),
            (
                "docker network create net >/dev/null; docker run -d --name server --network net --network-alias db bb sleep 1000 >/dev/null; docker run --rm --network net bb ping -c1 -W5 db | grep -c 'bytes from'",
                0,
                "=1\n",
            ),
            ("docker run --rm --network net bb ping -c1 -W5 server | grep -c 'bytes from'", 0, "=1\n"),
            (
                "docker run --rm --network container:server bb hostname; docker inspect -f '{{slice .Id 0 12}}' server",
                0,
                "",
            ),
            ("docker run --rm --network nope bb true", 125, "network nope not found"),
            (
                "docker run --rm --dns-search a.b --dns-option ndots:3 --dns 192.0.2.1 bb cat /etc/resolv.conf",
                0,
                "search a.b\n",
            ),
            ("docker run --rm --pid container:server bb ps -o args | grep -c 'sleep 1000'", 0, "=1\n"),
            ("docker run --rm --ipc none bb ls /dev/shm", 1, "No such file or directory"),
            (
                "docker run --rm --device /dev/null:/dev/nil bb stat -c %F /dev/nil",
                0,
                "=character special file\n",
            ),
            ("docker run --rm --device /dev/nope bb true", 127, "no such file or directory"),
            ("docker run --rm --memory 1m bb true", 125, "Minimum memory limit allowed is 6MB"),
            ("docker run --rm --cpus 100000 bb true", 125, "Range of CPUs is from 0.01 to"),
            (
                "docker run --rm --memory 32m bb sh -c 'cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory.max 2>/dev/null; true'",
                0,
                "=33554432\n",
            ),
            (
                "docker run --rm --pids-limit 33 bb sh -c 'cd /sys/fs/cgroup; cat pids/pids.max pids.max 2>/dev/null; true'",
                0,
                "=33\n",
            ),
            (
                "docker run --rm --cpuset-cpus 0 bb grep Cpus_allowed_list /proc/self/status",
                0,
                "=Cpus_allowed_list:\t0\n",
            ),
            (
                "docker run --rm --cpu-shares 77 bb sh -c 'cd /sys/fs/cgroup; cat cpu/cpu.shares cpu.weight 2>/dev/null | grep -cx -e 77 -e 3'",
                0,
                "=1\n",
            ),
            ("docker run --rm --ulimit nproc=1:2:3 bb true", 125, "ulimit"),
            ("docker run --rm --sysctl kernel.nope=1 bb true", 125, "sysctl"),
            ("docker run --rm --restart always bb true", 125, "conflicting options"),
            ("docker run --restart nope bb true", 125, "invalid restart policy"),
            ("docker run --rm --pull never no/such:1", 125, "No such image: no/such:1"),
            ("docker run --rm --userns host bb true", 0, "="),
            ("docker run --rm --cgroup-parent /here bb true", 0, "="),
            ("docker run --rm --oom-kill-disable --memory 16m bb true", 0, ""),
            (
                "docker run --rm --workdir relative bb true",
                125,
                "is invalid, it needs to be an absolute path",
            ),
            ("docker run --name 'not valid' bb true", 125, "Invalid container name (not valid)"),
            (
                "docker run -d --name rr --restart unless-stopped bb sleep 1000 >/dev/null; docker update --restart no rr; docker inspect -f {{.HostConfig.RestartPolicy.Name}} rr",
                0,
                "=rr\nno\n",
            ),
            (
                "docker update --cpus 0.5 --memory 64m --memory-swap 64m rr; docker inspect -f '{{.HostConfig.NanoCpus}} {{.HostConfig.Memory}}' rr",
                0,
                "=rr\n500000000 67108864\n",
            ),
            (
                "docker rm -f -v ll pp range vv server rr >/dev/null; docker volume ls -q; docker network rm net; docker volume rm keep",
                0,
                "=keep\nnet\nkeep\n",
            ),
        ],
    );
}

fn images_volumes_and_networks_are_managed(machine: &Machine) {
    all(
        machine,
        &[
            (
                "docker tag bb bb:two; docker images --format {{.Repository}}:{{.Tag}} | sort",
                0,
                "=bb:latest\nbb:two\n",
            ),
            ("docker images -q | sort -u | wc -l", 0, "=1\n"),
            ("docker images -q --no-trunc bb:two | cut -c1-7", 0, "=sha256:\n"),
            ("docker images --filter reference='b*:t*' --format {{.Tag}}", 0, "=two\n"),
            ("docker images --filter dangling=true -q", 0, "="),
            ("docker images --digests --format {{.Digest}} bb:two", 0, "=<none>\n"),
            ("docker tag nope other", 1, "No such image: nope"),
            ("docker tag bb UPPER", 1, "must be lowercase"),
            ("docker history -q bb | wc -l", 0, "=1\n"),
            ("docker save bb bb:two | docker load", 0, "Loaded image: bb:two"),
            ("docker save bb | gzip | docker load", 0, "Loaded image: bb:latest"),
            ("docker save nope", 1, "nope"),
            ("echo junk | docker load", 1, ""),
            ("docker rmi bb:two", 0, "=Untagged: bb:two\n"),
            ("docker rmi nope", 1, "No such image: nope"),
            ("docker create --name user bb >/dev/null; docker rmi bb", 1, "is using its referenced image"),
            (
                "printf 'FROM bb\\nLABEL x=1\\n' | docker build -q -t built - >/dev/null; printf 'FROM bb\\nLABEL x=2\\n' | docker build -q -t built - >/dev/null; docker images --filter dangling=true -q | wc -l",
                0,
                "=1\n",
            ),
            ("docker image prune -f | head -1", 0, "=Deleted Images:\n"),
            ("docker images --filter label=x=2 --format {{.Repository}}", 0, "=built\n"),
            ("docker images --filter before=built --format {{.Repository}}", 0, "=bb\n"),
            ("docker rm user >/dev/null; docker image prune -af | grep -ci untagged", 0, "=2\n"),
            // Volumes.
            (
                "docker volume create one; docker volume create --label a=b two; docker volume ls -q",
                0,
                "=one\ntwo\none\ntwo\n",
            ),
            ("docker volume ls -q --filter label=a", 0, "=two\n"),
            ("docker volume ls -q --filter name=on", 0, "=one\n"),
            ("docker volume ls -q --filter dangling=true", 0, "=one\ntwo\n"),
            ("docker volume inspect -f '{{.Name}} {{.Driver}} {{.Scope}}' one", 0, "=one local local\n"),
            ("docker volume inspect nope", 1, "nope"),
            ("docker volume create -d nope x", 1, "plugin \"nope\" not found"),
            ("docker volume create 'not valid'", 1, "includes invalid characters"),
            ("docker volume prune -af | head -1", 0, "=Deleted Volumes:\n"),
            ("docker volume rm nope", 1, "nope"),
            // Networks.
            (
                "docker network ls --format '{{.Name}} {{.Driver}} {{.Scope}}'",
                0,
                "=bridge bridge local\nhost host local\nnone null local\n",
            ),
            (
                "docker network create --subnet 10.88.0.0/24 --gateway 10.88.0.9 n >/dev/null; docker network inspect -f '{{range .IPAM.Config}}{{.Subnet}} {{.Gateway}}{{end}}' n",
                0,
                "=10.88.0.0/24 10.88.0.9\n",
            ),
            ("docker network create --subnet 10.88.0.0/25 m", 1, "overlaps"),
            ("docker network create n", 1, "network with name n already exists"),
            ("docker network create -d nope m", 1, "nope"),
            ("docker network create bridge", 1, "bridge"),
            ("docker network rm bridge", 1, "bridge is a pre-defined network and cannot be removed"),
            ("docker network rm nope", 1, "network nope not found"),
            (
                "docker network ls -q --filter driver=bridge | wc -l; docker network ls --filter name=n$ --format {{.Name}}",
                0,
                "=2\nn\n",
            ),
            ("docker network prune -f", 0, "Deleted Networks:\nn\n"),
        ],
    );
}

fn a_running_container_joins_and_leaves_networks(machine: &Machine) {
    all(
        machine,
        &[
            (
                "docker network create n >/dev/null; docker run -d --name cc bb sleep 1000 >/dev/null; docker network connect --alias db --ip 10.9.9.9 n cc",
                1,
                "",
            ),
            (
                "docker network connect --alias db n cc && docker exec cc ip -o link | grep -c 'eth[01]'",
                0,
                "=2\n",
            ),
            ("docker run --rm --network n bb ping -c1 -W5 db | grep -c 'bytes from'", 0, "=1\n"),
            // It is found by its name of now; what it has open stays.
            ("docker run --rm --network n bb ping -c1 -W5 cc | grep -c 'bytes from'", 0, "=1\n"),
            (
                "docker rename cc dd; docker run --rm --network n bb ping -c1 -W5 dd | grep -c 'bytes from'",
                0,
                "=1\n",
            ),
            ("docker run --rm --network n bb ping -c1 -W5 cc", 1, "bad address"),
            ("docker rename dd cc; docker exec cc ip -o link | grep -c 'eth[01]'", 0, "=2\n"),
            ("docker network rm n", 1, "has active endpoints"),
            ("docker network connect n cc", 1, "already exists in network n"),
            ("docker network disconnect bridge cc && docker exec cc ip -o link | grep -c eth", 0, "=1\n"),
            (
                "docker inspect -f '{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}' cc",
                0,
                "=n \n",
            ),
            ("docker network disconnect n cc && docker network disconnect n cc", 1, "is not connected to"),
            ("docker network disconnect -f n nope", 1, "nope"),
            ("docker restart -t 0 cc >/dev/null && docker exec cc ip -o link | grep -c eth", 1, "=0\n"),
            ("docker network inspect -f '{{len .Containers}}' n", 0, "=0\n"),
            ("docker rm -f cc >/dev/null; docker network rm n", 0, "=n\n"),
        ],
    );
}

fn the_daemon_tells_of_itself(machine: &Machine) {
    all(
        machine,
        &[
            ("docker version --format {{.Server.Os}}", 0, "=linux\n"),
            (
                "docker info --format '{{.OSType}} {{.Driver}} {{.Swarm.LocalNodeState}}'",
                0,
                "=linux overlay2 inactive\n",
            ),
            ("docker info --format '{{json .Plugins.Network}}'", 0, "\"bridge\""),
            (
                "docker system df --format '{{.Type}} {{.TotalCount}}'",
                0,
                "Images 1\nContainers 0\nLocal Volumes 0\n",
            ),
            ("docker system df -v", 0, "Images space usage:"),
            (
                "docker run --name ee bb true; docker events --since 1m --until $(($(date +%s)+1)) --filter event=die --format '{{.Actor.Attributes.name}} {{.Actor.Attributes.exitCode}}'",
                0,
                "=ee 0\n",
            ),
            (
                "docker events --since 1m --until $(($(date +%s)+1)) --filter type=image --format '{{.Type}} {{.Action}}' | sort -u | grep import",
                0,
                "=image import\n",
            ),
            ("docker system prune -f | head -1", 0, "=Deleted Containers:\n"),
            ("docker stats --no-stream --format {{.Name}}", 0, "="),
            (
                "docker run -d --name ss --memory 64m bb sleep 1000 >/dev/null; docker stats --no-stream --format '{{.Name}} {{.MemUsage}}' | sed 's/ .* \\/ / /'",
                0,
                "=ss 64MiB\n",
            ),
            ("docker top ss -o pid,args | tail -1 | awk '{print $2, $3}'", 0, "=sleep 1000\n"),
            ("docker rm -f ss >/dev/null", 0, "="),
            ("DOCKER_API_VERSION=1.40 docker ps -q", 0, "="),
            ("DOCKER_API_VERSION=1.10 docker ps -q", 1, "client version 1.10 is too old"),
        ],
    );
}

/// Lines that both command lines take.
const SAME: &[&str] = &[
    "docker run --rm bb echo hi",
    "docker run --rm bb sh -c 'exit 7'",
    "docker run --rm bb nope",
    "docker run --rm bb /etc",
    "docker run --rm --network nope bb true",
    "docker run --rm --memory 1m bb true",
    "printf 'A=1\\n# no\\nB\\n' >env; B=2 docker run --rm -e C=3 --env-file env bb env | sort | grep '^[ABC]='",
    "echo one | docker run --rm -i bb cat",
    "docker run --rm -h hh -w /tmp -u 1000:5 bb sh -c 'hostname; pwd; id'",
    "docker run --rm -v vol:/data --tmpfs /t --read-only bb sh -c 'cat /data/seed; touch /t/x; touch /x'; docker volume rm vol",
    "docker run --rm --mount type=bind,source=/etc,target=/e,readonly bb touch /e/x",
    "docker run --rm --cap-drop ALL bb chown user /tmp",
    "docker run --rm --ulimit nofile=99:99 --sysctl net.ipv4.ip_forward=1 bb sh -c 'ulimit -n; cat /proc/sys/net/ipv4/ip_forward'",
    "docker run --cidfile id --rm bb true; wc -c <id; docker run --cidfile id --rm bb true; rm id",
    "docker run --rm --pull never no/such:1",
    "docker create --name cc bb echo made >/dev/null; docker start -a cc; docker rm cc",
    "docker run -d --name cc bb sleep 1000 >/dev/null; docker exec -e X=y -w /tmp cc sh -c 'echo $X; pwd'; docker exec cc sh -c 'exit 3'; echo $?; docker rm -f cc",
    "docker run -d --name cc bb sleep 1000 >/dev/null; docker exec -d cc touch /tmp/x; while ! docker exec cc ls /tmp/x; do :; done 2>/dev/null; docker rm -f cc",
    "docker run --name cc -l a=b --log-opt labels=a bb sh -c 'echo 1; echo 2' >/dev/null; docker logs cc; docker logs -n 1 cc; docker logs --details cc; docker logs --since 2099-01-01 cc; docker rm cc",
    "docker run -d --name cc bb sleep 1000 >/dev/null; docker update --memory 64m --memory-swap 64m --restart always cc; docker inspect -f '{{.HostConfig.Memory}} {{.HostConfig.RestartPolicy.Name}}' cc; docker rm -f cc",
    "docker run -d --name cc -p 18088:80 bb sleep 1000 >/dev/null; docker port cc; docker pause cc; docker unpause cc; docker rename cc dd; docker stop -t 0 dd; docker wait dd; docker rm dd",
    "docker run --name cc bb touch /tmp/x; docker diff cc; docker cp cc:/etc/passwd - | tar -xOf - | head -1; docker export cc | tar -tf - | grep -c passwd; docker rm cc",
    "docker run --name cc bb touch /x; docker commit -m hi cc made:1 >/dev/null; docker run --rm made:1 ls /x; docker rm cc; docker rmi made:1 | head -1",
    "docker tag bb cc:1; docker images -q | sort -u | wc -l; docker rmi cc:1; docker rmi nope",
    "docker save bb | docker load",
    "docker volume create vv; docker volume ls -q; docker volume rm vv; docker volume rm vv",
    "docker network create nn >/dev/null; docker network ls --format {{.Name}}; docker network rm nn",
    "docker network create --subnet 10.77.0.0/24 --ip-range 10.77.0.128/25 nn >/dev/null; docker run -d --name cc bb sleep 1000 >/dev/null; docker network connect --alias x --ip 10.77.0.9 nn cc; docker inspect -f '{{.NetworkSettings.Networks.nn.IPAddress}}' cc; docker run --rm --network nn bb ping -c1 -W5 x | grep -c 'bytes from'; docker network connect nn cc; docker network disconnect nn cc; docker network disconnect nn cc; docker rm -f cc; docker network rm nn",
    "docker volume create -o type=tmpfs -o device=tmpfs -o o=size=1m vv; docker volume inspect -f '{{.Options.o}}' vv; docker volume rm vv",
    "docker run --name cc bb true; docker ps -a --format '{{.Names}} {{.Image}}'; docker ps -aq | wc -l; docker rm cc; docker rm cc",
    "docker kill nope",
    "docker inspect nope",
    "docker version --format {{.Server.Os}}",
    "printf 'FROM bb\\nRUN echo x >/x\\n' >Dockerfile; docker build -q -t built . | cut -c1-7; docker run --rm built cat /x; docker rmi built | head -1; rm Dockerfile",
];

#[test]
#[ignore = "oracle: docker, busybox"]
fn our_own_command_line_says_what_dockers_says() {
    let machine = Machine::Ours(host());
    let ours = format!("docker() {{ {} \"$@\"; }}; ", env!("CARGO_BIN_EXE_rswarm"));
    let mut differ = Vec::new();
    for line in SAME {
        let theirs = shell(&machine, line);
        let own = shell(&machine, &format!("{ours}{line}"));
        if (theirs.code, &theirs.stdout) != (own.code, &own.stdout) {
            differ.push(format!("{line}\n  docker {theirs:?}\n  ours   {own:?}"));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}
