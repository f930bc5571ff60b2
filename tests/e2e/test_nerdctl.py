# SPDX-License-Identifier: Apache-2.0
"""nerdctl's flows: with what nerdctl asks of containerd, real CNI plugins and policies for it; and with a real nerdctl,
where there is one.

containerd runs in a network namespace of the test, which plays the node. Two containers and one restart in all.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from devtool import cni, paths
from devtool.containerd import PrivateContainerd
from tests.e2e.host import BUSYBOX, Host, wait_until
from tests.e2e.nerdctl import Flags, Nerdctl
from tests.e2e.networks import Node, inside

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        os.geteuid() != 0 or not cni.PLUGINS.exists(), reason="needs root, and ./dev setup with Debian's archive"
    ),
]

SERVER = (
    "echo starting in $(pwd) as $(id -u) on $(hostname); trap 'echo stopping; exit 7' TERM;"
    " echo hello from $GREETING > /tmp/page; busybox httpd -f -p 80 -h /tmp & wait; wait"
)
SERVE = ("/bin/sh", "-c", SERVER)
PROBE = (
    "touch /root-is-writable; touch /scratch/file && echo scratch; cat /etc/hostname; cat /etc/resolv.conf;"
    " cat /proc/sys/net/ipv4/ip_unprivileged_port_start; cat /sys/fs/cgroup/memory.max; cat /sys/fs/cgroup/cpu.max;"
    " grep CapBnd /proc/self/status; env | grep HOSTNAME; ulimit -Sn; ulimit -Hn"
)
EXEC = ("/bin/sh", "-c", PROBE)
OUTSIDE_URL = "http://192.0.2.1:18080/page"
"""The node's address, as the world outside sees it."""

COMPOSE = """\
services:
  db:
    image: {image}
    command: ["/bin/sh", "-c", "{db}"]
  web:
    image: {image}
    command: ["/bin/sh", "-c", "{web}"]
    depends_on: [db]
    tty: true
"""
DB = "until grep -qw web /etc/hosts && busybox wget -q -O /dev/null http://web/busybox; do sleep 1; done; \
exec busybox httpd -f -p 80 -h /bin"
WEB = "echo looking; busybox httpd -p 80 -h /bin; \
until grep -qw db /etc/hosts && busybox wget -q -O /tmp/got http://db/busybox 2> /dev/null; do sleep 1; done; \
cmp /tmp/got /bin/busybox && echo the same"
"""Either waits for the other: whatever is started first has to learn a name later. There is no DNS to ask meanwhile."""


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    node = Node()
    yield node
    node.close()


@pytest.fixture(scope="module")
def nerdctl(archives: dict[str, Path], node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nerdctl]:
    with PrivateContainerd(paths.PREFIX / "containerd-2.1", wrapper=node.wrapper) as daemon:
        assert daemon.ctr("image", "import", archives[BUSYBOX]).returncode == 0
        nerdctl = Nerdctl(Host(daemon, archives), tmp_path_factory.mktemp("nerdctl"), str(node.path))
        yield nerdctl
        nerdctl.close()


@pytest.fixture(scope="module")
def server(nerdctl: Nerdctl) -> str:
    """``nerdctl run -d -p 18080:80 ...``: a container with every flag that a test looks at."""
    policy = nerdctl.host.policy(
        SERVE,
        execs=[EXEC],
        extra=[
            *("--platform", "nerdctl-1", "--env", "GREETING=nerdctl", "--cwd", "/tmp", "--user", "65534:65534"),
            *("--cap-drop", "CAP_NET_RAW"),
            *("--mount", "type=tmpfs,src=tmpfs,dst=/scratch,options=noexec:nosuid:nodev"),
            *("--mount", "type=tmpfs,src=tmpfs,dst=/tmp,options=noexec:nosuid:nodev"),
        ],
    )
    flags = Flags(
        publish={18080: 80},
        env=["GREETING=nerdctl"],
        cwd="/tmp",
        user="65534:65534",
        cap_drop=["CAP_NET_RAW"],
        read_only=True,
        tmpfs=["/scratch", "/tmp"],
        memory=192 << 20,
        cpus=0.5,
        hostname="shop.example",
        restart="always",
    )
    nerdctl.run("server", SERVE, flags, policy)
    return "server"


def answers(node: Node, url: str, says: str) -> bool:
    return inside(node.outside, ["curl", "-sf", "--max-time", "20", url]).stdout == says


def test_a_published_port_answers_from_outside_of_the_node(nerdctl: Nerdctl, server: str, node: Node) -> None:
    wait_until(partial(answers, node, OUTSIDE_URL, "hello from nerdctl\n"), "the published port to answer")
    wait_until(lambda: "starting in /tmp as 65534 on shop.example" in nerdctl.log(server), "the logger to have written")


def test_what_the_flags_ask_for_is_so_in_the_container(nerdctl: Nerdctl, server: str) -> None:
    done = nerdctl.host.exec(nerdctl.id(server), "probe", *EXEC)
    assert "read-only file system" in done.stderr.lower() + done.stdout.lower()
    lines = [line for line in done.stdout.splitlines() if "root-is-writable" not in line]
    assert lines[:2] == ["scratch", "shop.example"]
    assert lines[2:4] == ["search parma.example", "nameserver 192.0.2.53"]
    assert lines[4:7] == ["0", str(192 << 20), "50000 100000"]
    bounding = int(lines[7].split()[1], 16)
    assert bounding
    assert not bounding & 1 << 13  # CAP_NET_RAW
    assert lines[8:] == ["HOSTNAME=shop.example", "1024", "524288"]


def test_another_exec_is_denied(nerdctl: Nerdctl, server: str) -> None:
    done = nerdctl.host.exec(nerdctl.id(server), "other", "/bin/sh", "-c", "id")
    assert done.returncode != 0
    assert "exec_in_container denied" in done.stderr


def test_nerdctl_cp_can_neither_read_nor_write_the_hosts_files(nerdctl: Nerdctl, server: str, tmp_path: Path) -> None:
    root = Path(f"/proc/{nerdctl.pid(server)}/root")
    assert list(root.iterdir()) == []
    (tmp_path / "file").write_text("content")
    archive = subprocess.run(["tar", "-C", tmp_path, "-c", "file"], check=True, capture_output=True).stdout
    done = subprocess.run(["tar", "-x", "-f", "-"], cwd=root, input=archive, check=False, capture_output=True)
    assert done.returncode != 0
    assert b"file: Cannot open: No such file or directory" in done.stderr
    with pytest.raises(FileNotFoundError):
        (root / "etc").mkdir()


def test_stats_and_inspect_find_the_containers_interface_and_limit(nerdctl: Nerdctl, server: str) -> None:
    entered = ["nsenter", "-t", str(nerdctl.pid(server)), "-n", "ip", "-br", "addr", "show", "dev", "eth0"]
    shown = subprocess.run(entered, check=True, capture_output=True, text=True).stdout
    assert nerdctl.address(server) in shown
    everything = [*entered[:4], "ip", "-br", "link"]
    links = subprocess.run(everything, check=True, capture_output=True, text=True).stdout.splitlines()
    assert [link.split("@")[0].split()[0] for link in links] == ["lo", "eth0", "parma0"]
    assert str(192 << 20) in nerdctl.host.metrics(nerdctl.id(server), "--format", "json")


def test_the_network_of_another_container_cannot_be_joined(nerdctl: Nerdctl, server: str) -> None:
    namespace = f"network:/proc/{nerdctl.pid(server)}/ns/net"
    done = nerdctl.host.run("joining", ("/bin/true",), "--rm", "--with-ns", namespace)
    assert done.returncode != 0
    assert "ingress qdisc" in done.stderr
    nerdctl.host.remove("joining")


def test_a_container_that_ends_is_started_again_with_its_port_and_log(
    nerdctl: Nerdctl, server: str, node: Node
) -> None:
    before = nerdctl.pid(server)
    assert nerdctl.stop(server) == 7
    wait_until(lambda: nerdctl.log(server).count("starting in") == 2, "containerd to restart it", timeout=180)
    assert nerdctl.pid(server) != before
    assert nerdctl.log(server).count("stopping") == 1
    wait_until(partial(answers, node, OUTSIDE_URL, "hello from nerdctl\n"), "the published port to answer")


def test_a_container_that_is_removed_leaves_no_port_and_no_interface(nerdctl: Nerdctl, server: str, node: Node) -> None:
    nerdctl.host.daemon.ctr("container", "label", nerdctl.id(server), "containerd.io/restart.status=stopped")
    nerdctl.remove(server)
    assert not answers(node, OUTSIDE_URL, "hello from nerdctl\n")
    # The kernel removes what was in a network namespace some time after that has lost its last user.
    wait_until(lambda: "veth" not in inside(node.name, ["ip", "link"]).stdout, "the interface to be removed")
    assert "18080" not in inside(node.name, [str(cni.BIN / "iptables-save")]).stdout


def generate_for(nerdctl: Nerdctl, file: Path, *extra: str) -> Path:
    """The folder with the policies of a Compose file whose services may learn names later."""
    policies = nerdctl.host.daemon.root / "policies"
    image = f"{BUSYBOX}={nerdctl.host.archives[BUSYBOX]}"
    arguments = ("--compose", file, "--image", image, "--file-updates", "--out-dir", policies)
    nerdctl.host.parma("policy", "generate", *arguments, *extra)
    return policies


def test_a_compose_files_services_run_under_their_policies_and_find_each_other(
    nerdctl: Nerdctl, tmp_path: Path
) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(COMPOSE.format(image=BUSYBOX, db=DB, web=WEB))
    policies = generate_for(nerdctl, file)
    nerdctl.run("web", ("/bin/sh", "-c", WEB), Flags(hostname="web", tty=True), policies / "web.rego")
    wait_until(lambda: nerdctl.log("web") == "looking\r\n", "the log of a service that goes on")
    nerdctl.run("db", ("/bin/sh", "-c", DB), Flags(hostname="db"), policies / "db.rego")
    assert nerdctl.client.wait(nerdctl.id("web")) == 0, nerdctl.log("web")
    wait_until(lambda: nerdctl.log("web") == "looking\r\nthe same\r\n", "the logger to have written the rest")
    for name in ("web", "db"):
        nerdctl.remove(name)


REAL = paths.PREFIX / "bin/nerdctl"
needs_nerdctl = pytest.mark.skipif(not REAL.exists(), reason="there is no .dev/prefix/bin/nerdctl: see CONTRIBUTING.md")


class RealNerdctl:
    """A real nerdctl, on the node."""

    def __init__(self, nerdctl: Nerdctl, node: Node, directory: Path) -> None:
        self._daemon = nerdctl.host.daemon
        self._command = [
            *(*node.wrapper, str(REAL), "--address", str(self._daemon.address)),
            *("--namespace", "default", "--cgroup-manager", "cgroupfs", "--data-root", str(directory / "data")),
            *("--cni-path", str(cni.PLUGINS), "--cni-netconfpath", str(directory / "net.d")),
        ]

    def result(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [*self._command, *map(str, arguments)]
        environment = self._daemon.environment()
        environment["PATH"] = f"{cni.BIN}:{environment['PATH']}"
        return subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=240)

    def __call__(self, *arguments: str | Path) -> str:
        done = self.result(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def real(nerdctl: Nerdctl, node: Node, tmp_path_factory: pytest.TempPathFactory) -> RealNerdctl:
    inside(node.name, ["ip", "link", "delete", "nerdctl0"])  # of the tests above, with another subnet
    return RealNerdctl(nerdctl, node, tmp_path_factory.mktemp("real"))


@pytest.fixture(scope="module")
def seccomp(nerdctl: Nerdctl, real: RealNerdctl, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """How the generator is told of the seccomp profile that is compiled into this nerdctl."""
    made = real("create", "--network", "none", BUSYBOX, "/bin/true").strip()
    info = json.loads(nerdctl.host.daemon.ctr("container", "info", made).stdout)
    real("rm", made)
    file = tmp_path_factory.mktemp("profile") / "seccomp.json"
    file.write_text(json.dumps(info["Spec"]["linux"]["seccomp"]))
    return ("--seccomp-default", str(file))


@needs_nerdctl
def test_a_real_nerdctl_runs_looks_at_and_removes_a_container(
    nerdctl: Nerdctl, node: Node, real: RealNerdctl, seccomp: tuple[str, str], tmp_path: Path
) -> None:
    extra = ["--platform", "nerdctl-1", *seccomp, "--env", "GREETING=nerdctl"]
    policy = nerdctl.host.policy(SERVE, execs=[("/bin/true",)], extra=extra)
    words = ["--runtime", "io.containerd.parma.v2", "--annotation", f"io.parma.policy-file={policy}"]
    real("run", "-d", "--name", "real", "-p", "18081:80", "-e", "GREETING=nerdctl", *words, BUSYBOX, *SERVE)
    try:
        url = "http://192.0.2.1:18081/page"
        wait_until(partial(answers, node, url, "hello from nerdctl\n"), "the published port to answer")
        real("exec", "real", "/bin/true")
        assert "exec_in_container denied" in real.result("exec", "real", "/bin/id").stderr
        assert "18081" in real("port", "real")
        assert real("inspect", "--format", "{{.NetworkSettings.IPAddress}}", "real").startswith("10.")
        assert "Up" in real("ps")
        real("stats", "--no-stream", "real")
        (tmp_path / "file").write_text("content")
        assert real.result("cp", tmp_path / "file", "real:/").returncode != 0
        assert real.result("cp", "real:/etc/passwd", tmp_path).returncode != 0
        real("stop", "real")
        wait_until(lambda: "stopping" in real("logs", "real"), "the logger to have written the rest")
    finally:
        real("rm", "-f", "real")


@needs_nerdctl
def test_a_real_nerdctl_brings_a_compose_file_up_and_down(
    nerdctl: Nerdctl, real: RealNerdctl, seccomp: tuple[str, str], tmp_path: Path
) -> None:
    policies = nerdctl.host.daemon.root / "policies"
    file = tmp_path / "compose.yaml"
    # nerdctl would want a terminal of its own for a service that has one.
    text = COMPOSE.format(image=BUSYBOX, db=DB, web=WEB).replace("    tty: true\n", "")
    for service in ("db", "web"):
        added = f"    annotations: {{io.parma.policy-file: {policies}/{service}.rego}}\n"
        text = text.replace(f"  {service}:\n", f"  {service}:\n    runtime: io.containerd.parma.v2\n{added}")
    file.write_text(text)
    generate_for(nerdctl, file, *seccomp)
    real("compose", "-f", file, "up", "-d")
    try:
        wait_until(lambda: "the same" in real("compose", "-f", file, "logs", "web"), "one service to find the other")
    finally:
        real("compose", "-f", file, "down")
