# SPDX-License-Identifier: Apache-2.0
"""The metrics' socket, and the node's view of all of them."""

from __future__ import annotations

import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from parma_shim import metrics_cli
from parma_shim.observe import collect
from parma_shim.observe.collect import View
from parma_shim.observe.endpoint import NAME, MetricsEndpoint, fetch
from parma_shim.observe.registry import Registry
from parma_wire import guest_pb2
from parma_wire.errors import DeadlineExceeded
from tests.shim.observe.test_exposition import parsed

COMMON = (("containerd_namespace", "default"), ("group", "web"))


def view(**changes: object) -> View:
    base = View(
        running={"web": "f" * 64},
        containers=2,
        boot={"qemu": 120.0, "kernel": 3800.5},
        vm_pid=0,
        vm_memory_mib=512,
        log_lines_lost=3,
        events_lost=0,
        stats=lambda _guest_id, _deadline: guest_pb2.StatsResponse(memory_usage=4096, cpu_usage_us=1_500_000),
    )
    return base._replace(**changes)  # type: ignore[arg-type]


@pytest.fixture
def directory(short_path: Path) -> Path:
    path = short_path / "vm"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def endpoint(directory: Path) -> Iterator[MetricsEndpoint]:
    made = MetricsEndpoint(directory, lambda: collect.text(view(), Registry(), COMMON))
    yield made
    made.close()


def test_the_socket_is_for_its_user_only(endpoint: MetricsEndpoint, directory: Path) -> None:
    mode = (directory / NAME).stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_metrics_name_the_group_and_its_containers(endpoint: MetricsEndpoint, directory: Path) -> None:
    samples = parsed(fetch(directory / NAME, timeout=30))
    assert samples["parma_shim_boot_phase_seconds"] == {
        (*COMMON, ("phase", "qemu")): 0.12,
        (*COMMON, ("phase", "kernel")): 3.8005,
    }
    assert samples["parma_shim_containers"] == {COMMON: 2}
    assert samples["parma_shim_vm_memory_bytes"] == {COMMON: 512 << 20}
    assert samples["parma_shim_log_lines_lost_total"] == {COMMON: 3}
    container = (("container", "web"), *COMMON)
    assert samples["parma_guest_container_memory_bytes"] == {container: 4096}
    assert samples["parma_guest_container_cpu_seconds_total"] == {container: 1.5}
    assert samples["parma_shim_resident_memory_bytes"][COMMON] > 1 << 20


def test_a_guest_that_does_not_answer_leaves_its_own_values_out_only() -> None:
    def silent(_guest_id: str, _deadline: float) -> guest_pb2.StatsResponse:
        raise DeadlineExceeded("the guest did not answer Stats in time")

    samples = parsed(collect.text(view(stats=silent), Registry(), COMMON))
    assert "parma_guest_container_memory_bytes" not in samples
    assert samples["parma_shim_containers"] == {COMMON: 2}


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"\r\n\r\n", b"405"),
        (b"GET /metrics?x=1 HTTP/1.1\r\n\r\n", b"200"),
    ],
)
def test_other_requests_get_an_answer_too(
    endpoint: MetricsEndpoint, directory: Path, request_line: bytes, status: bytes
) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(directory / NAME))
        client.sendall(request_line)
        assert client.makefile("rb").read().split(b" ")[1] == status


def test_a_reader_that_leaves_does_not_end_the_endpoint(endpoint: MetricsEndpoint, directory: Path) -> None:
    for _ in range(3):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(directory / NAME))
    assert "parma_shim_containers" in fetch(directory / NAME, timeout=30)


def test_after_close_nobody_listens(endpoint: MetricsEndpoint, directory: Path) -> None:
    endpoint.close()
    with pytest.raises(ConnectionRefusedError):
        fetch(directory / NAME, timeout=30)


def test_a_node_shows_every_shim_and_says_which_was_silent(short_path: Path) -> None:
    def listen(name: str) -> MetricsEndpoint:
        (short_path / name).mkdir()
        labels = (("containerd_namespace", "default"), ("group", name))
        return MetricsEndpoint(short_path / name, lambda: collect.text(view(), Registry(), labels))

    endpoints = [listen("one"), listen("two")]
    (short_path / "dead").mkdir()
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(short_path / "dead" / NAME))
    node = metrics_cli.collect(short_path)
    for endpoint in endpoints:
        endpoint.close()
    samples = parsed(node.text)
    assert {dict(labels)["group"] for labels in samples["parma_shim_containers"]} == {"one", "two"}
    assert samples["parma_node_shims"] == {(("answered", "true"),): 2, (("answered", "false"),): 1}
    assert [line.partition(":")[0] for line in node.silent] == ["dead"]


def test_a_shim_that_talks_nonsense_does_not_spoil_the_nodes_metrics(short_path: Path) -> None:
    (short_path / "odd").mkdir()
    odd = MetricsEndpoint(short_path / "odd", lambda: "hello\n")
    node = metrics_cli.collect(short_path)
    odd.close()
    assert "hello" not in node.text
    assert "not a line of metrics" in node.silent[0]
