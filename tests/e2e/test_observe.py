# SPDX-License-Identifier: Apache-2.0
"""What an operator sees of a running container: metrics, records in containerd's log, traces at a collector."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from devtool import paths
from devtool.containerd import PrivateContainerd
from tests.e2e.collector import Collector
from tests.e2e.host import BUSYBOX, Host, wait_until
from tests.shim.observe.test_exposition import parsed

pytestmark = pytest.mark.e2e

SLEEP = ("/bin/sleep", "600")
ECHO = ("/bin/echo", "hello")


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


@pytest.fixture(scope="module")
def observed(archives: dict[str, Path], collector: Collector) -> Iterator[Host]:
    """A containerd whose environment asks for traces of what it starts, with one running container, ``seen``."""
    with PrivateContainerd(paths.PREFIX / "containerd-2.1", level="debug", environment=collector.environment) as daemon:
        assert daemon.ctr("image", "import", archives[BUSYBOX]).returncode == 0
        host = Host(daemon, archives)
        started = host.run("seen", SLEEP, "--detach", policy=host.policy(SLEEP, execs=(ECHO,)))
        assert started.returncode == 0, started.stderr
        assert host.exec("seen", "allowed", *ECHO).stdout == "hello\n"
        assert host.exec("seen", "refused", "/bin/echo", "other").returncode != 0
        yield host


def line(host: Host, message: str) -> str:
    """The only one of its kind in containerd's log, which it reaches on its own time."""

    def lines() -> list[str]:
        return [line for line in host.daemon.log.read_text().splitlines() if f'msg="{message}' in line]

    wait_until(lambda: bool(lines()), f"the record: {message}")
    (found,) = lines()
    return found


def test_the_metrics_socket_is_in_the_vms_directory_and_private(observed: Host) -> None:
    (path,) = observed.state.glob("*/metrics.sock")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_metrics_of_the_node_tell_boot_calls_denials_streams_and_memory(observed: Host) -> None:
    samples = parsed("")

    def complete() -> bool:
        """Not every time: the guest is left out when it has not answered within a second."""
        samples.update(parsed(observed.parma("metrics")))
        return "parma_guest_container_memory_bytes" in samples

    wait_until(complete, "metrics, the guest's among them")
    shim = {"containerd_namespace": "default", "group": "seen"}

    def value(name: str, **labels: str) -> float:
        return samples[name][tuple(sorted({**shim, **labels}.items()))]

    boot = {dict(labels)["phase"]: seconds for labels, seconds in samples["parma_shim_boot_phase_seconds"].items()}
    assert {"qemu", "firmware", "kernel", "policy"} <= boot.keys()
    assert sum(boot.values()) > 0.5
    assert value("parma_shim_rpc_duration_seconds_count", service="Task", method="Create") == 1
    assert value("parma_shim_guest_call_duration_seconds_count", method="ExecProcess") == 2
    assert value("parma_shim_denials_total", method="ExecProcess") == 1
    assert value("parma_shim_stream_bytes_total", stream="stdout") == len("hello\n")
    assert value("parma_shim_streams_opened_total", stream="stdout") > value(
        "parma_shim_streams_closed_total", stream="stdout"
    )
    assert value("parma_guest_container_memory_bytes", container="seen") > 0
    assert value("parma_shim_vm_resident_memory_bytes") > 64 << 20


def test_records_in_containerds_log_name_the_container(observed: Host) -> None:
    created = line(observed, "container created")
    assert re.search(r" container=seen seconds=\d+\.\d vm_pid=\d+ runtime=io\.containerd\.parma\.v2 ", created)
    started = line(observed, "container started")
    assert " container=seen " in started
    denied = line(observed, "denied: ")
    assert " level=warning " in denied
    assert " method=Start container=seen exec=refused " in denied


def test_spans_reach_the_collector_with_the_parts_of_the_start_below_create(
    observed: Host, collector: Collector
) -> None:
    def named(name: str) -> list[Span]:
        return collector.spans("seen", name)

    wait_until(lambda: bool(named("containerd.task.v3.Task/Create")), "the span of Create")
    (create,) = named("containerd.task.v3.Task/Create")
    (kernel,) = named("boot/kernel")
    assert kernel.parent_span_id == create.span_id
    assert create.start_time_unix_nano <= kernel.start_time_unix_nano <= kernel.end_time_unix_nano
    assert kernel.end_time_unix_nano <= create.end_time_unix_nano
    assert named("guest/CreateContainer")[0].parent_span_id == create.span_id
