"""testcontainers' ordinary use, on the host whose front door DOCKER_HOST names. `bb` is a busybox image."""

import io
import pathlib
import tarfile
import tempfile
import urllib.request

from testcontainers.core.container import DockerContainer
from testcontainers.core.image import DockerImage
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import HttpWaitStrategy, LogMessageWaitStrategy


def fetch(container, port):
    url = f"http://{container.get_container_host_ip()}:{container.get_exposed_port(port)}/page"
    return urllib.request.urlopen(url, timeout=10).read()


server = ["sh", "-c", "mkdir /www; echo $TEXT > /www/page; echo ready; exec httpd -f -p 80 -h /www"]
with DockerContainer("bb").with_command(server).with_env("TEXT", "hi").with_exposed_ports(80).waiting_for(
    LogMessageWaitStrategy("ready")
) as web:
    HttpWaitStrategy(80, "/page").for_status_code(200).wait_until_ready(web)
    assert fetch(web, 80) == b"hi\n"
    said = web.exec(["cat", "/www/page"])
    assert said.output == b"hi\n", said
    assert web.exec(["sh", "-c", "exit 3"]).exit_code == 3
    assert b"ready" in web.get_logs()[0]
    wrapped = web.get_wrapped_container()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo("put")
        entry.size = 3
        tar.addfile(entry, io.BytesIO(b"put"))
    assert wrapped.put_archive("/www", archive.getvalue())
    chunks, stat = wrapped.get_archive("/www/put")
    assert stat["size"] == 3 and b"put" in b"".join(chunks)
print("ok container", flush=True)

with Network() as network:
    with DockerContainer("bb").with_command(server).with_env("TEXT", "inner").with_network(
        network
    ).with_network_aliases("web").waiting_for(LogMessageWaitStrategy("ready")):
        with DockerContainer("bb").with_network(network).with_command(
            ["sh", "-c", "until wget -q -O - http://web/page; do sleep 0.1; done"]
        ) as client:
            assert client.wait() == 0
            assert b"inner" in client.get_logs()[0]
print("ok network", flush=True)

with tempfile.TemporaryDirectory() as folder:
    pathlib.Path(folder, "Dockerfile").write_text("FROM bb\nCOPY x /x\nCMD cat /x\n")
    pathlib.Path(folder, "x").write_text("built")
    with DockerImage(path=folder, tag="tc:1") as image:
        with DockerContainer(str(image)) as built:
            assert built.wait() == 0
            assert b"built" in built.get_logs()[0]
        with DockerContainer("bb").with_volume_mapping(folder, "/mnt", "ro").with_command(
            ["sh", "-c", "cat /mnt/x; touch /mnt/y"]
        ) as mounted:
            assert mounted.wait() == 1
            assert b"built" in mounted.get_logs()[0] and b"Read-only" in mounted.get_logs()[1]
print("ok image", flush=True)
