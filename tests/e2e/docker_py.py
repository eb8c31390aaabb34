"""docker-py's ordinary use, against the front door that DOCKER_HOST names. `bb` is a busybox image."""

import io
import os
import pathlib
import socket as sockets
import tarfile
import tempfile
import time

import docker
import websocket
from docker.types import IPAMConfig, IPAMPool, Mount, ServiceMode, Ulimit

client = docker.from_env()


def eventually(what, check, seconds=60):
    """Waits until `check` returns something true."""
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def refused(error, call, text=""):
    """Demands that a call raises this error with this text."""
    try:
        call()
    except error as said:
        assert text in str(said), said
        return said
    raise AssertionError(f"{call} was not refused")


def run():
    assert client.ping()
    assert client.containers.run("bb", "echo hi", remove=True) == b"hi\n"
    command = ["sh", "-c", "echo bad >&2; exit 3"]
    failed = refused(docker.errors.ContainerError, lambda: client.containers.run("bb", command, remove=True))
    assert (failed.exit_status, failed.stderr) == (3, b"bad\n")
    refused(docker.errors.ImageNotFound, lambda: client.images.get("nope:1"), "No such image: nope:1")
    refused(docker.errors.NotFound, lambda: client.containers.get("nope"), "No such container: nope")


def look_into_a_container():
    command = ["sh", "-c", "for i in 1 2 3; do echo l$i; sleep 0.1; done; sleep 100"]
    ports = {"80/tcp": ("127.0.0.1", 8089)}
    container = client.containers.run(
        "bb", command, detach=True, name="py", labels={"a": "b"}, environment={"X": "1"}, ports=ports
    )
    logs = container.logs(stream=True, follow=True)
    assert [next(logs) for _ in range(3)] == [b"l1\n", b"l2\n", b"l3\n"]
    assert container.exec_run(["sh", "-c", "echo $X; exit 4"]) == (4, b"1\n")
    assert container.exec_run("nope").exit_code == 127
    output = container.exec_run(["sh", "-c", "echo a; echo b >&2"], demux=True).output
    assert output == (b"a\n", b"b\n"), output

    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo("f")
        entry.size = 3
        tar.addfile(entry, io.BytesIO(b"abc"))
    assert container.put_archive("/tmp", archive.getvalue())
    stream, stat = container.get_archive("/tmp/f")
    assert (stat["name"], stat["size"]) == ("f", 3)
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
        assert tar.extractfile("f").read() == b"abc"

    container.reload()
    assert container.status == "running"
    assert container.attrs["NetworkSettings"]["Ports"]["80/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": "8089"}]
    assert [c.name for c in client.containers.list(filters={"label": "a=b"})] == ["py"]
    assert "sleep 100" in str(container.top()["Processes"])
    assert "cpu_stats" in container.stats(stream=False)
    assert {"Path": "/tmp/f", "Kind": 1} in container.diff()
    container.pause()
    container.reload()
    assert container.status == "paused"
    container.unpause()
    container.rename("py2")
    container.restart(timeout=0)
    container.stop(timeout=0)
    assert container.wait()["StatusCode"] == 137

    image = container.commit("snap", "py")
    assert client.containers.run("snap:py", "cat /tmp/f", remove=True) == b"abc"
    assert image.tag("again", "1")
    assert client.images.get("again:1").id == image.id
    saved = io.BytesIO(b"".join(image.save(named=True)))
    container.remove()
    client.images.remove("snap:py")
    client.images.remove("again:1")
    assert [i.id for i in client.images.load(saved)] == [image.id]
    client.images.remove(image.id, force=True)


def attach():
    container = client.containers.create("bb", "cat", stdin_open=True)
    socket = container.attach_socket(params={"stdin": 1, "stream": 1, "stdout": 1})
    container.start()
    socket._sock.sendall(b"hello\n")
    assert socket._sock.recv(100) == b"\x01\0\0\0\0\0\0\x06hello\n"
    container.remove(force=True)
    container = client.containers.create("bb", "cat", stdin_open=True)
    container.start()
    # docker-py speaks WebSocket over TCP only.
    door = sockets.socket(sockets.AF_UNIX)
    door.connect(os.environ["DOCKER_HOST"].removeprefix("unix://"))
    web = websocket.WebSocket()
    web.connect(f"ws://localhost/containers/{container.id}/attach/ws?stdin=1&stream=1&stdout=1", socket=door)
    web.send("hello\n")
    assert web.recv() == b"hello\n"
    container.kill()
    assert not web.recv()
    container.remove()


def limits_and_mounts():
    mounts = [Mount("/t", "/tmp", type="bind", read_only=True), Mount("/v", "pv", type="volume")]
    limits = {"mem_limit": "32m", "ulimits": [Ulimit(name="nofile", soft=99, hard=99)], "tmpfs": {"/q": ""}}
    command = ["sh", "-c", "ulimit -n; touch /t/x 2>&1; touch /q/x /v/x && echo ok"]
    output = client.containers.run("bb", command, remove=True, mounts=mounts, cap_add=["NET_ADMIN"], **limits)
    assert output == b"99\ntouch: /t/x: Read-only file system\nok\n", output
    client.volumes.get("pv").remove()


def build():
    with tempfile.TemporaryDirectory() as folder:
        files = {
            "Dockerfile": "FROM bb AS one\nARG WHO=nobody\nCOPY . /src\nRUN echo $WHO > /who\n"
            "FROM bb\nCOPY --from=one /who /src /out/\nLABEL a=b\nCMD cat /out/who\n",
            ".dockerignore": "*.log\n",
            "kept": "1",
            "x.log": "left out",
        }
        for name, text in files.items():
            pathlib.Path(folder, name).write_text(text)
        image, said = client.images.build(path=folder, tag="py:1", buildargs={"WHO": "py"}, labels={"c": "d"}, rm=True)
        said = list(said)
        assert image.tags == ["py:1"] and image.labels == {"a": "b", "c": "d"}
        assert said[0]["stream"].startswith("Step 1/") and any("aux" in line for line in said)
        assert client.containers.run("py:1", remove=True) == b"py\n"
        assert b"x.log" not in client.containers.run("py:1", "ls /out", remove=True)
        again, said = client.images.build(path=folder, tag="py:1", buildargs={"WHO": "py"}, labels={"c": "d"})
        assert again.id == image.id and any("Using cache" in line.get("stream", "") for line in said)
        target, _ = client.images.build(path=folder, target="one")
        assert client.containers.run(target.id, "cat /src/kept", remove=True) == b"1"
    failed = refused(
        docker.errors.BuildError,
        lambda: client.images.build(fileobj=io.BytesIO(b"FROM bb\nRUN exit 4\n")),
        "The command '/bin/sh -c exit 4' returned a non-zero code: 4",
    )
    assert any("Step 2/2" in line.get("stream", "") for line in failed.build_log)
    text = "dockerfile parse error on line 1: unknown instruction: NO"
    refused(docker.errors.APIError, lambda: client.images.build(fileobj=io.BytesIO(b"NO\n")), text)
    lines = client.api.build(fileobj=io.BytesIO(b"FROM bb\n"), decode=True, quiet=True)
    assert [line["stream"].startswith("sha256:") for line in lines] == [True]
    assert client.api.prune_builds()["CachesDeleted"]
    client.images.remove("py:1")
    client.images.prune()


def networks_and_volumes():
    pool = IPAMConfig(pool_configs=[IPAMPool(subnet="10.55.0.0/24")])
    network = client.networks.create("pn", driver="bridge", ipam=pool)
    server = client.containers.run("bb", "sleep 100", detach=True, name="na", network="pn")
    ping = client.containers.run("bb", "ping -c1 -W2 na", remove=True, network="pn")
    assert b"1 packets received" in ping
    network.reload()
    assert [c.name for c in network.containers] == ["na"]
    network.disconnect(server)
    network.connect(server, aliases=["zz"])
    assert b"1 packets received" in client.containers.run("bb", "ping -c1 -W2 zz", remove=True, network="pn")
    server.remove(force=True)
    network.remove()
    volume = client.volumes.create("pv", labels={"q": "w"})
    assert volume.attrs["Labels"] == {"q": "w"}
    binds = {"pv": {"bind": "/v", "mode": "rw"}}
    assert client.containers.run("bb", ["sh", "-c", "echo 1 > /v/x; cat /v/x"], remove=True, volumes=binds) == b"1\n"
    volume.remove()


def system():
    assert client.info()["Containers"] == 0
    assert client.df()["Images"][0]["Size"] > 0
    eventually("events", lambda: any(
        event["Action"] == "destroy" for event in client.events(since=0, until=int(time.time()), decode=True)
    ))
    assert client.images.prune()["SpaceReclaimed"] >= 0


def swarm():
    client.swarm.init(advertise_addr="198.18.0.1")
    service = client.services.create(
        "bb", name="svc", command=["sleep", "100"], mode=ServiceMode("replicated", 2), env=["A=1"], labels={"l": "m"}
    )
    running = lambda: [t["Status"]["State"] for t in service.tasks({"desired-state": "running"})]
    eventually("two tasks", lambda: running() == ["running"] * 2)
    service.reload()
    assert service.scale(3)
    eventually("three tasks", lambda: running() == ["running"] * 3)
    service.reload()
    assert service.update(env=["A=2"])
    service.reload()
    assert service.attrs["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"] == ["A=2"]
    assert [n.attrs["Status"]["State"] for n in client.nodes.list()] == ["ready"]
    secret = client.secrets.create(name="sec", data=b"q")
    assert [s.name for s in client.secrets.list()] == ["sec"]
    secret.remove()
    config = client.configs.create(name="cf", data=b"z")
    assert [c.name for c in client.configs.list()] == ["cf"]
    config.remove()
    service.remove()
    assert client.services.list() == []


for part in [run, look_into_a_container, attach, limits_and_mounts, build, networks_and_volumes, system, swarm]:
    part()
    print("ok", part.__name__, flush=True)
