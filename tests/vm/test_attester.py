# SPDX-License-Identifier: Apache-2.0
"""The attested-policy status over the life of a group, with a made-up guest and a made-up verifier."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from parma_shim import farewell
from parma_shim.attestation import TOPIC_ATTESTED, TOPIC_DENIED, Attester
from parma_shim.config import Config
from parma_shim.helpers.call import Helper
from parma_shim.vm.session import Session
from parma_wire.errors import DeadlineExceeded, Unavailable, Unverified
from tests.vm.support import soon, spec

GOOD = {"verdict": "attested", "reason": "", "tee": "emulated"}
BAD = {"verdict": "failed", "reason": "appraise.measurement: another image", "tee": "emulated"}


class Verifier:
    """Stands in for the helper process: answers each request with the next summary, when told to."""

    def __init__(self) -> None:
        self.requests: queue.Queue[Mapping[str, Any]] = queue.Queue()
        self.answers: queue.Queue[dict[str, str] | Exception] = queue.Queue()

    def start(self, _python: Path, name: str) -> Helper:
        assert name == "attest"
        return cast("Helper", SimpleNamespace(exchange=self._exchange, abort=self._abort))

    def _abort(self) -> None:
        self.answers.put(Unavailable("aborted"))

    def _exchange(self, request: Mapping[str, Any], *, deadline: float) -> dict[str, Any]:
        assert deadline > 0
        self.requests.put(request)
        answer = self.answers.get(timeout=60)
        if isinstance(answer, Exception):
            raise answer
        return {"summary": answer, "log": []}


class World:
    """An attester, its VM, and what it has published."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.verifier = Verifier()
        self.events: queue.Queue[tuple[str, Mapping[str, Any]]] = queue.Queue()
        self.log: list[str] = []
        self.farewells: list[dict[str, Any]] = []
        self.guest_error: Exception | None = None
        vm = spec(directory)
        vm.directory.mkdir()
        self.attester = Attester(
            Config(tee="emulated", **settings),
            group_id="pod",
            namespace="default",
            directory=vm.directory,
            grpc_address="/run/containerd/containerd.sock",
            log=self.log.append,
            publish=lambda topic, summary: self.events.put((topic, summary)),
            socket_path="/run/containerd/s/1",
            start_helper=self.verifier.start,
            start_farewell=self._farewell,
        )
        self.machine = SimpleNamespace(spec=vm, alive=True, vsock_cid=3)
        greeting = SimpleNamespace(version="1")
        guest = SimpleNamespace(evidence=self._evidence)
        parts = SimpleNamespace(machine=self.machine, guest=guest, timings={}, greeting=greeting)
        self.session = cast("Session", parts)

    def _farewell(self, _python: str, request: int) -> None:
        with open(request, "rb", closefd=False) as stream:
            self.farewells.append(json.load(stream))

    @property
    def released(self) -> list[dict[str, str]]:
        """What was told at the end, each time."""
        return [request["released"] for request in self.farewells]

    @property
    def kept(self) -> dict[str, str]:
        """What ``delete`` would tell if the shim were killed now."""
        path = self.session.machine.spec.directory / farewell.REQUEST
        found: dict[str, str] = json.loads(path.read_text())["released"] if path.exists() else {}
        return found

    def _evidence(self, nonce: bytes) -> bytes:
        if self.guest_error is not None:
            raise self.guest_error
        return nonce

    def attach(self, *answers: dict[str, str] | Exception) -> None:
        for answer in answers:
            self.verifier.answers.put(answer)
        self.attester.attach(self.session, b"package policy\n")

    def event(self) -> str:
        return self.events.get(timeout=60)[0]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_the_first_round_needs_no_started_container(world: World) -> None:
    world.attach(GOOD)
    assert world.event() == TOPIC_ATTESTED
    assert world.attester.status == GOOD
    world.attester.require(deadline=soon())


def test_a_container_waits_for_the_verdict(world: World) -> None:
    world.attach()
    assert world.verifier.requests.get(timeout=60)["containers"] == []
    waiting = threading.Thread(target=world.attester.require, kwargs={"deadline": soon()})
    waiting.start()
    assert waiting.is_alive()
    world.verifier.answers.put(GOOD)
    waiting.join(60)
    assert not waiting.is_alive()


def test_evidence_that_does_not_verify_lets_no_container_start(world: World) -> None:
    world.attach(BAD)
    with pytest.raises(Unverified, match=r"appraise\.measurement"):
        world.attester.require(deadline=soon())
    assert world.event() == TOPIC_DENIED


def test_unless_the_host_only_reports_it(tmp_path: Path) -> None:
    world = World(tmp_path, attestation="reported")
    world.attach(BAD)
    world.attester.require(deadline=soon())
    assert world.event() == TOPIC_DENIED


def test_a_guest_without_evidence_has_failed(world: World) -> None:
    world.guest_error = Unavailable("no secure processor")
    world.attach(BAD)
    assert "no secure processor" in world.verifier.requests.get(timeout=60)["failure"]
    with pytest.raises(Unverified):
        world.attester.require(deadline=soon())


def test_a_verifier_that_dies_has_verified_nothing(world: World) -> None:
    """Also when it dies of writing that down."""
    status = world.session.machine.spec.directory / "status.json"
    status.write_text("of an earlier round")
    world.attach(Unavailable("the helper process attest failed"), Unavailable("again"))
    with pytest.raises(Unverified, match="helper process"):
        world.attester.require(deadline=soon())
    assert not status.exists()


def test_a_later_failure_replaces_an_earlier_verdict(world: World) -> None:
    world.attach(GOOD)
    assert world.event() == TOPIC_ATTESTED
    world.verifier.answers.put(BAD)
    world.attester.refresh()
    assert world.event() == TOPIC_DENIED
    with pytest.raises(Unverified):
        world.attester.require(deadline=soon())


def test_waiting_has_a_deadline(world: World) -> None:
    world.attach()
    with pytest.raises(DeadlineExceeded):
        world.attester.require(deadline=soon(0.05))
    world.verifier.answers.put(GOOD)


def test_the_end_of_the_vm_ends_the_waiting(world: World) -> None:
    with pytest.raises(Unverified, match="ended"):
        world.attester.require(deadline=soon())


def test_containers_that_leave_are_told_so_by_the_next_round(world: World) -> None:
    world.attester.set_containers(["a", "b"])
    world.attach(GOOD)
    assert world.verifier.requests.get(timeout=60)["containers"] == ["a", "b"]
    assert world.event() == TOPIC_ATTESTED
    world.attester.set_containers(["a"])
    world.verifier.answers.put(GOOD)
    world.attester.refresh()
    request = world.verifier.requests.get(timeout=60)
    assert (request["containers"], request["released"]) == (["a"], {"b": "ended"})


def test_at_the_end_all_are_told(world: World) -> None:
    world.attester.set_containers(["a", "b"])
    world.attach(GOOD)
    assert world.event() == TOPIC_ATTESTED
    world.verifier.requests.get(timeout=60)
    world.attester.detach()
    world.attester.release()
    assert world.released == [{"a": "ended", "b": "ended"}]
    assert world.farewells[0]["address"] == "/run/containerd/containerd.sock"
    world.attester.release()
    assert len(world.farewells) == 1


def test_delete_finds_whom_to_tell_at_any_moment(world: World) -> None:
    world.attach(GOOD)
    assert world.kept == {}
    world.attester.set_containers(["a", "b"])
    assert world.kept == {"a": "ended", "b": "ended"}
    assert world.event() == TOPIC_ATTESTED
    world.attester.set_containers(["b"])
    assert world.kept == {"a": "ended", "b": "ended"}  # nobody has told it yet
    world.verifier.answers.put({**GOOD, "reason": "another"})
    world.attester.refresh()
    assert world.event() == TOPIC_ATTESTED
    assert world.kept == {"b": "ended"}
    world.attester.set_containers([])
    world.attester.set_containers(["a"])
    assert world.kept == {"a": "ended", "b": "ended"}


def test_an_end_without_an_interpreter_is_logged(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_python: str, _request: int) -> None:
        raise FileNotFoundError("no such interpreter")

    monkeypatch.setattr(world.attester, "_start_farewell", fail)
    world.attester.set_containers(["a"])
    world.attester.release()
    assert "no such interpreter" in world.log[-1]


def test_who_left_is_told_at_the_end_when_the_round_that_would_have_done_so_was_aborted(world: World) -> None:
    world.attester.set_containers(["a"])
    world.attach(GOOD)
    assert world.event() == TOPIC_ATTESTED
    world.verifier.requests.get(timeout=60)
    world.attester.set_containers([])
    world.attester.refresh()
    assert world.verifier.requests.get(timeout=60)["released"] == {"a": "ended"}  # and never gets an answer
    world.attester.detach()
    world.attester.release()
    assert world.released == [{"a": "ended"}]


def test_a_container_that_was_refused_stays_failed_when_it_leaves(world: World) -> None:
    world.attester.set_containers(["a"])
    world.attach(BAD)
    with pytest.raises(Unverified):
        world.attester.require(deadline=soon())
    assert world.kept == {"a": "failed"}
    world.attester.set_containers([])
    world.attester.detach()
    world.attester.release()
    assert world.released == [{"a": "failed"}]


def test_the_document_is_the_file_that_the_verifier_wrote(world: World) -> None:
    assert world.attester.document == ""
    (world.session.machine.spec.directory / "status.json").write_text("{}")
    assert world.attester.document == "{}"
