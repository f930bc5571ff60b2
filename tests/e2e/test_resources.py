# SPDX-License-Identifier: Apache-2.0
"""Limits hold inside the guest and can be changed; use is told in the terms of the host's cgroups, 1 or 2."""

from __future__ import annotations

import re
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from devtool import paths
from devtool.containerd import PrivateContainerd
from tests.e2e.client import Containerd
from tests.e2e.crashes import UNIFIED, cgroups_of, lone_shim, pids, qemu
from tests.e2e.host import BUSYBOX, Host, wait_until
from tests.e2e.inventory import Inventory, assert_nothing_left

pytestmark = pytest.mark.e2e

SLEEP = ("/bin/sleep", "600")
FILES = ("memory.max", "memory.low", "cpu.max", "cpu.weight", "pids.max", "io.weight")
SHOW = ("/bin/sh", "-c", "cd /sys/fs/cgroup; for f in $0 $@; do echo $f $(cat $f); done", *FILES)

MIB = 1 << 20
LIMITS = {
    "memory": {"limit": 64 * MIB, "reservation": 16 * MIB},
    "cpu": {"quota": 30_000, "period": 100_000, "shares": 512},
    "pids": {"limit": 50},
    "blockIO": {"weight": 300},
}
CHANGED = {
    "memory": {"limit": 96 * MIB},
    "cpu": {"quota": 50_000, "period": 100_000, "shares": 2048},
    "pids": {"limit": 70},
    "blockIO": {"weight": 600},
}


def limits_of(host: Host, name: str, exec_id: str) -> dict[str, str]:
    """As the container sees its own cgroup."""
    lines = host.exec(name, exec_id, *SHOW).stdout.splitlines()
    return dict(line.split(" ", 1) for line in lines if " " in line)


def test_limits_hold_in_the_guest_and_follow_an_update(host_21: Host, name: str) -> None:
    client = Containerd(host_21)
    client.new_container(name, SLEEP, policy=host_21.policy(SLEEP, execs=[SHOW]))

    def change(spec: dict[str, object]) -> None:
        spec["linux"]["resources"].update(LIMITS)  # type: ignore[index]
        spec["process"]["oomScoreAdj"] = 500  # type: ignore[index]

    client.change_spec(name, change)
    client.create(name)
    client.start(name)
    before = limits_of(host_21, name, "before")
    assert before["memory.max"] == str(64 * MIB)
    assert before["memory.low"] == str(16 * MIB)
    assert before["cpu.max"] == "30000 100000"
    assert before["pids.max"] == "50"
    assert before["io.weight"].startswith("default ")
    client.update(name, CHANGED)
    after = limits_of(host_21, name, "after")
    assert after["memory.max"] == str(96 * MIB)
    assert after["cpu.max"] == "50000 100000"
    assert after["pids.max"] == "70"
    for weight in ("cpu.weight", "io.weight"):
        assert int(after[weight].split()[-1]) > int(before[weight].split()[-1]) > 0
    # A kind of limit that the guest does not have is refused, not forgotten.
    with pytest.raises(grpc.RpcError, match="hugepageLimits"):
        client.update(name, {"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]})
    # On the host QEMU goes when the pod is to go.
    (qemu,) = pids(host_21, f"parma-default-{name}")
    assert Path(f"/proc/{qemu}/oom_score_adj").read_text().strip() == "500"
    client.close()
    host_21.remove(name)


HYBRID = Path("/sys/fs/cgroup/unified")

PLAIN: tuple[str, ...] = ()
AS_UNIFIED = ("unshare", "--mount", "sh", "-c", f'mount --bind {HYBRID} /sys/fs/cgroup && exec "$@"', "sh")
"""Lets a daemon see a host with cgroup version 2 alone."""

METRICS = {
    1: {
        "container_memory_usage_usage_bytes": 100_000,
        "container_cpu_total_nanoseconds": 1,
        "container_pids_current": 1,
    },
    2: {
        "container_memory_usage_bytes": 100_000,
        "container_cpu_usage_usec_microseconds": 1,
        "container_pids_current": 1,
    },
}
"""By version of the host's cgroups: what its collector shows, and the least value of a container that sleeps."""


@pytest.fixture(params=[1, 2], ids=["version 1", "version 2"])
def collecting(request: pytest.FixtureRequest, archives: dict[str, Path]) -> Iterator[tuple[Host, str, int]]:
    """A host, the address of its collector, and the version of its cgroups."""
    version: int = request.param
    if version == 1 and UNIFIED.exists():
        pytest.skip("this host has cgroups of version 2 alone")
    if version == 2 and not (UNIFIED.exists() or HYBRID.is_dir()):
        pytest.skip("this host has no cgroups of version 2")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    wrapper = AS_UNIFIED if version == 2 and not UNIFIED.exists() else PLAIN
    with PrivateContainerd(paths.PREFIX / "containerd-2.1", metrics=address, wrapper=wrapper) as daemon:
        assert daemon.ctr("image", "import", archives[BUSYBOX]).returncode == 0
        yield Host(daemon, archives), address, version


def test_containerds_collector_and_ctr_get_numbers_of_the_hosts_kind(
    collecting: tuple[Host, str, int], name: str
) -> None:
    host, address, version = collecting
    before = Inventory.take(host)
    assert host.run(name, SLEEP, "--detach").returncode == 0

    found: dict[str, float] = {}

    def scrape() -> dict[str, float]:
        with urllib.request.urlopen(f"http://{address}/v1/metrics", timeout=30) as answer:
            text = answer.read().decode()
        values = re.findall(rf'^(container_\w+){{container_id="{name}",.*}} (\S+)$', text, re.M)
        return {metric: float(value) for metric, value in values}

    wanted = METRICS[version]

    def complete() -> bool:
        """Not every time: a shim that has not answered in two seconds is left out."""
        found.update(scrape())
        return wanted.keys() <= found.keys()

    wait_until(complete, f"{sorted(wanted)}")
    assert {metric: found[metric] for metric, least in wanted.items() if found[metric] < least} == {}
    assert "memory" in host.metrics(name)
    errors = [line for line in host.daemon.log.read_text().splitlines() if "metric" in line and "level=error" in line]
    assert errors == []
    # What it costs the host is accounted to the container: the VM, and the shim.
    assert cgroups_of([*qemu(host), lone_shim(host)], version=version) == {f"/default/{name}"}
    host.remove(name)
    assert_nothing_left(host, before)


def test_the_shim_goes_before_containerd_when_the_host_has_no_memory(host_21: Host, name: str) -> None:
    assert host_21.run(name, SLEEP, "--detach").returncode == 0
    assert host_21.daemon.process is not None
    containerds = int(Path(f"/proc/{host_21.daemon.process.pid}/oom_score_adj").read_text())
    ours = []
    for pid in pids(host_21, name):
        with suppress(FileNotFoundError, ProcessLookupError):  # a helper that has ended meanwhile
            ours.append(int(Path(f"/proc/{pid}/oom_score_adj").read_text()))
    assert len(ours) >= 2  # the shim and QEMU
    assert set(ours) == {min(1000, containerds + 1)}
    host_21.remove(name)
