# SPDX-License-Identifier: Apache-2.0
"""Containers are told that they have left their VM, whoever has died and however late it is."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest

from parma_shim import bundle, delete, farewell, flags
from parma_shim.api import containers_pb2 as pb
from parma_shim.helpers.farewell import belongs_to_later_vm, tell

ROOT = Path(__file__).resolve().parents[2]
LEFT = datetime(2026, 1, 1, 12, 0, 30, tzinfo=UTC)
LEFT_NS = int(LEFT.timestamp()) * 10**9
NAMESPACE = "default"


class FakeContainerd:
    """Keeps containers and their labels, at ``address``, from :meth:`start` on."""

    def __init__(self, directory: Path) -> None:
        self.address = directory / "containerd.sock"
        self.containers: dict[str, pb.Container] = {}
        self.updates: queue.Queue[tuple[str, dict[str, str]]] = queue.Queue()
        self._server = grpc.server(ThreadPoolExecutor(2))
        methods = {
            "Get": self._method(self._get, pb.GetContainerRequest),
            "Update": self._method(self._update, pb.UpdateContainerRequest),
        }
        handler = grpc.method_handlers_generic_handler("containerd.services.containers.v1.Containers", methods)
        self._server.add_generic_rpc_handlers((handler,))

    def add(self, name: str, **labels: str) -> pb.Container:
        container = pb.Container(id=name, labels={f"io.parma.{key}": value for key, value in labels.items()})
        self.containers[name] = container
        return container

    def start(self) -> None:
        self._server.add_insecure_port(f"unix://{self.address}")
        self._server.start()

    def stop(self) -> None:
        self._server.stop(None).wait()

    def request(self, **released: str) -> dict[str, Any]:
        return {"address": str(self.address), "namespace": NAMESPACE, "released": released}

    @staticmethod
    def _method(function: Any, request: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(
            function, request_deserializer=request.FromString, response_serializer=lambda m: m.SerializeToString()
        )

    def _find(self, name: str, context: grpc.ServicerContext) -> pb.Container:
        assert ("containerd-namespace", NAMESPACE) in context.invocation_metadata()
        if name not in self.containers:
            context.abort(grpc.StatusCode.NOT_FOUND, "not found")
        return self.containers[name]

    def _get(self, request: pb.GetContainerRequest, context: grpc.ServicerContext) -> pb.GetContainerResponse:
        return pb.GetContainerResponse(container=self._find(request.id, context))

    def _update(self, request: pb.UpdateContainerRequest, context: grpc.ServicerContext) -> pb.UpdateContainerResponse:
        self._find(request.container.id, context)
        labels = dict(request.container.labels)
        assert list(request.update_mask.paths) == [f"labels.{name}" for name in labels]
        self.updates.put((request.container.id, labels))
        return pb.UpdateContainerResponse()


@pytest.fixture
def containerd(tmp_path: Path) -> Iterator[FakeContainerd]:
    fake = FakeContainerd(tmp_path)
    yield fake
    fake.stop()


def test_each_container_gets_its_own_word_and_one_that_is_gone_is_no_failure(containerd: FakeContainerd) -> None:
    containerd.add("a")
    containerd.add("b")
    containerd.start()
    assert tell(containerd.request(a="ended", gone="ended", b="failed"), LEFT_NS) == []
    told = [containerd.updates.get_nowait() for _ in range(2)]
    assert told == [("a", {"io.parma.attestation": "ended"}), ("b", {"io.parma.attestation": "failed"})]


def test_a_containerd_that_does_not_come_back_is_not_waited_for_without_end(containerd: FakeContainerd) -> None:
    (failure,) = tell(containerd.request(a="ended"), LEFT_NS, seconds=0.2)
    assert "cannot label container a" in failure


@pytest.mark.parametrize(
    ("verified", "later"),
    [
        ("2026-01-01T12:00:29+00:00", False),
        ("2026-01-01T12:00:30+00:00", False),
        ("2026-01-01T12:00:31+00:00", True),
        ("2026-01-01T13:00:31+01:00", True),
        ("2026-01-01T12:00:31", True),
        ("nonsense", False),
        ("", False),
    ],
)
def test_what_another_vm_has_said_since_stays(containerd: FakeContainerd, verified: str, later: bool) -> None:
    container = containerd.add("a", **{"verified-at": verified})
    container.created_at.FromDatetime(datetime(2025, 1, 1, tzinfo=UTC))
    assert belongs_to_later_vm(container, LEFT_NS) is later


def test_another_container_of_that_name_is_left_alone(containerd: FakeContainerd) -> None:
    container = containerd.add("a")
    container.created_at.FromDatetime(datetime(2026, 1, 1, 12, 0, 31, tzinfo=UTC))
    containerd.start()
    assert tell(containerd.request(a="ended"), LEFT_NS) == []
    assert containerd.updates.empty()


STARTER = """
import sys
sys.path[:0] = sys.argv[2:]
from parma_shim import farewell
farewell.start_from(sys.executable, sys.argv[1])
"""


def test_it_outlives_who_started_it_and_waits_for_containerd(containerd: FakeContainerd, tmp_path: Path) -> None:
    """However long that takes: here it cannot be done before its parent has ended and the request's file is gone."""
    containerd.add("a")
    (tmp_path / farewell.REQUEST).write_text(json.dumps(containerd.request(a="ended")))
    subprocess.run([sys.executable, "-c", STARTER, str(tmp_path), *sys.path], check=True)
    (tmp_path / farewell.REQUEST).unlink()
    containerd.start()
    assert containerd.updates.get(timeout=120) == ("a", {"io.parma.attestation": "ended"})


def test_without_a_request_there_is_nobody_to_tell(tmp_path: Path) -> None:
    farewell.start_from("/no/such/python", str(tmp_path))


def shim_that_was_killed(tmp_path: Path) -> Path:
    """Its bundle; the VM's directory is ``tmp_path/vm``."""
    (tmp_path / "bundle").mkdir()
    (tmp_path / "vm").mkdir()
    bundle.write_state(str(tmp_path / "bundle"), bundle.State(directory=str(tmp_path / "vm")))
    return tmp_path / "bundle"


def test_delete_has_them_told_whose_shim_was_killed(containerd: FakeContainerd, tmp_path: Path) -> None:
    containerd.add("a")
    containerd.start()
    here = shim_that_was_killed(tmp_path)
    (tmp_path / "vm" / farewell.REQUEST).write_text(json.dumps(containerd.request(a="ended")))
    delete.run(flags.parse(["-id", "a", "-namespace", NAMESPACE, "-bundle", str(here), "delete"]))
    assert not (tmp_path / "vm").exists()
    assert containerd.updates.get(timeout=120) == ("a", {"io.parma.attestation": "ended"})


def test_delete_cleans_up_also_when_nobody_can_be_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    here = shim_that_was_killed(tmp_path)
    (tmp_path / "vm" / farewell.REQUEST).write_text("{}")
    delete.run(flags.parse(["-id", "a", "-namespace", NAMESPACE, "-bundle", str(here), "delete"]))
    assert not (tmp_path / "vm").exists()


def test_starting_it_imports_only_c_modules() -> None:
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]; before = set(sys.modules);"
        "import parma_shim.farewell; print(*(set(sys.modules) - before))"
    )
    argv = [sys.executable, "-ISc", code, str(ROOT / "shim")]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    others = {name for name in done.stdout.split() if not name.startswith("parma_shim")}
    assert others <= {"errno", "select", "time", "posix", "_signal", "__future__"}, others
