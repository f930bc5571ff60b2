# SPDX-License-Identifier: Apache-2.0
"""The enforcer over the wire against the model: one host with faults behind its back, and sixteen hosts at once."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from parma_guest.decisions import FrameworkEngine
from parma_policy.reader import load
from parma_wire import guest_pb2 as pb
from tests.guest.fakes import Rig
from tests.guest.history import Seen, explain
from tests.guest.model import HIGHEST_LUN, METHODS, Faults, Model, Request, step
from tests.guest.test_wire import GUEST, Served
from tests.policy.builders import LAYERS, container, text
from ttrpc import Client, TtrpcError

HOSTS = 16
IDS = tuple(digit * 64 for digit in "abc")
COMMANDS = (("/bin/app", "--serve"), ("/bin/other",), ("/bin/sh",))
POLICY = text(
    container(layers=[LAYERS[0]], mounts=[]),
    container(layers=[LAYERS[0], LAYERS[1]], command=["/bin/other"], mounts=[], exec_processes=[]),
).encode()

NUMBERS = st.integers(0, 3)
REQUESTS = st.builds(
    Request,
    method=st.sampled_from(METHODS),
    container=st.sampled_from(IDS),
    target=NUMBERS,
    lun=NUMBERS | st.just(HIGHEST_LUN + 1),
    root_hash=st.sampled_from([*LAYERS[:2], "f" * 64]),
    layers=st.lists(NUMBERS, max_size=2, unique=True).map(tuple),
    command=st.sampled_from(COMMANDS),
    exec_id=st.sampled_from(["e0", "e1"]),
)


def usual(identity: str, *, lun: int = 2, layers: tuple[int, ...] = (0,)) -> list[Request]:
    """What an honest host asks for, in order, for a container on the first layer."""
    return [
        Request("MountDevice", target=0, lun=0, root_hash=LAYERS[0]),
        Request("MountScratch", identity, lun=lun),
        Request("MountOverlay", identity, layers=layers),
        Request("CreateContainer", identity, command=COMMANDS[0]),
        Request("StartContainer", identity),
        Request("ExecProcess", identity, command=COMMANDS[2], exec_id="e0"),
    ]


class Enforcement:
    """The real enforcer with the real framework over a socket; kernel and crun are fakes."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp())
        self.served = Served(self._directory, Rig(self._directory, FrameworkEngine))
        self.served.call("PutPolicy", pb.PutPolicyRequest(offset=0, data=POLICY))
        self.served.call("SetPolicy", pb.SetPolicyRequest(size=len(POLICY)))

    def ask(self, request: Request, client: Client | None = None) -> bool:
        """Whether it was carried out."""
        response = getattr(pb, f"{request.method}Response")
        try:
            (client or self.served.client).call(GUEST, request.method, request.message(), response, timeout=30)
        except TtrpcError:
            return False
        return True

    def close(self) -> None:
        self.served.close()
        shutil.rmtree(self._directory)


class OneHost(RuleBasedStateMachine):
    """Legal and illegal requests in any order, while mounts, unmounts and crun fail now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.enforcement = Enforcement()
        self.rig = self.enforcement.served.rig

    @initialize()
    def begin(self) -> None:
        self.model = Model(load(POLICY))
        self.faults = Faults()

    def ask(self, request: Request) -> None:
        outcome = step(self.model, request, self.faults)
        assert self.enforcement.ask(request) is outcome.done, request
        self.model = outcome.model

    @rule(request=REQUESTS)
    def anything(self, request: Request) -> None:
        self.ask(request)

    @rule(identity=st.sampled_from(IDS), steps=st.integers(1, 6))
    def as_an_honest_host(self, identity: str, steps: int) -> None:
        for request in usual(identity)[:steps]:
            self.ask(request)

    @precondition(lambda self: self.model.containers)
    @rule(
        data=st.data(), method=st.sampled_from(["StartContainer", "ExecProcess", "DeleteContainer", "CreateContainer"])
    )
    def something_about_a_container_that_exists(self, data: st.DataObject, method: str) -> None:
        identity = data.draw(st.sampled_from(sorted(self.model.containers)), "container")
        command = data.draw(st.sampled_from(COMMANDS), "command")
        exec_id = data.draw(st.sampled_from(["e0", "e1", "e2"]), "exec")
        self.ask(Request(method, identity, command=command, exec_id=exec_id))

    @precondition(lambda self: not self.model.poisoned)
    @rule(
        unmountable=st.frozensets(NUMBERS, max_size=1),
        runtime=st.frozensets(st.sampled_from(["create", "start", "exec"]), max_size=1),
    )
    def something_breaks_or_is_mended(self, unmountable: frozenset[int], runtime: frozenset[str]) -> None:
        self._break(Faults(unmountable, frozenset(), runtime))

    @precondition(lambda self: self.model.disks or self.model.containers)
    @rule(stuck=NUMBERS)
    def something_cannot_be_taken_back_any_more(self, stuck: int) -> None:
        self._break(Faults(frozenset(), frozenset({stuck}), frozenset({"delete"})))

    def _break(self, faults: Faults) -> None:
        self.faults = faults
        self.rig.kernel.broken = {f"/run/mounts/scsi/m{number}" for number in faults.unmountable}
        self.rig.kernel.stuck = {f"/run/mounts/scsi/m{number}" for number in faults.stuck}
        self.rig.runtime.fail = set(faults.runtime)

    @invariant()
    def what_is_mounted_and_what_runs_is_what_was_granted(self) -> None:
        if self.model.poisoned:
            return
        layers = {mount for mount in self.rig.kernel.mounted() if mount.startswith("/run/mounts/scsi/")}
        assert layers == {f"/run/mounts/scsi/m{target}" for target in self.model.disks}
        roots = {mount for mount in self.rig.kernel.mounted() if mount.endswith("/rootfs")}
        assert len(roots) == len(self.model.overlays)
        assert set(self.rig.runtime.containers) == set(self.model.containers)
        for identity, found in self.model.containers.items():
            assert self.rig.runtime.containers[identity]["process"]["args"] == list(found.command)  # type: ignore[index]

    @invariant()
    def poison_is_for_good(self) -> None:
        assert bool(self.rig.enforcer.poisoned) is self.model.poisoned

    def teardown(self) -> None:
        self.enforcement.close()


OneHost.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestOneHost = OneHost.TestCase


def race(enforcement: Enforcement, scripts: Sequence[Sequence[Request]]) -> list[Seen]:
    """Each script on a connection and a thread of its own, all let go at once."""
    history: list[Seen] = []
    gate = threading.Barrier(len(scripts))

    def run(script: Sequence[Request]) -> None:
        client = enforcement.served.connect()
        gate.wait(30)
        for request in script:
            made = time.monotonic()
            done = enforcement.ask(request, client)
            history.append(Seen(request, made, time.monotonic(), done))
        client.close()

    threads = [threading.Thread(target=run, args=(script,)) for script in scripts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return history


@given(st.lists(st.lists(REQUESTS, min_size=1, max_size=3), min_size=HOSTS - 4, max_size=HOSTS - 4))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_what_sixteen_hosts_see_at_once_is_a_history_of_one_after_the_other(scripts: list[list[Request]]) -> None:
    honest = [usual(IDS[0]), usual(IDS[1], lun=3), usual(IDS[0]), usual(IDS[0], layers=(0, 1))]
    enforcement = Enforcement()
    try:
        history = race(enforcement, [*honest, *scripts])
    finally:
        enforcement.close()
    assert len(history) == sum(map(len, (*honest, *scripts)))
    assert explain(history, Model(load(POLICY))) is not None, history


def test_a_history_that_no_order_explains_is_noticed() -> None:
    """The check can fail: a second grant of what only one can have."""
    twice = [Seen(usual(IDS[0])[0], made, made + 2.0, True) for made in (0.0, 1.0)]
    assert explain(twice, Model(load(POLICY))) is None
    assert explain([twice[0], twice[1]._replace(done=False)], Model(load(POLICY))) is not None


@pytest.mark.parametrize("overlapping", [False, True])
def test_a_refusal_before_its_reason_came_about_is_no_legal_history(*, overlapping: bool) -> None:
    mount = usual(IDS[0])[0]
    first = Seen(mount, 0.0, 5.0 if overlapping else 1.0, False)
    second = Seen(mount, 2.0, 3.0, True)
    assert (explain([first, second], Model(load(POLICY))) is not None) is overlapping
