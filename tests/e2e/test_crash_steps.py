# SPDX-License-Identifier: Apache-2.0
"""kill -9 of QEMU, of the shim and of containerd while containers are at each step of their lives.

One pod has a container at each step (`tests.e2e.crashes.Pod`): one blow meets them all, and each test looks at what
became of one step. In the order of this file; the last one removes everything.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest

from devtool import paths
from devtool.containerd import PrivateContainerd
from tests.e2e.client import GONE, code_of
from tests.e2e.crashes import Pod, kill_all, qemu, shim
from tests.e2e.host import BUSYBOX, Host, wait_until
from tests.e2e.inventory import assert_nothing_left

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]

PROMPT = 15.0
"""Seconds for a client to hear of the blow: far less than any deadline within Parma."""

BLOWS = {
    "qemu": ("qemu", "containerd-2.1"),
    "shim": ("shim", "containerd-2.1"),
    "containerd": ("containerd", "containerd-2.1"),
    "containerd-1.7": ("containerd", "containerd-1.7"),
}


class Fate(NamedTuple):
    """A container's state and the exits announced of its processes, with their codes."""

    state: str
    exits: tuple[tuple[str, int], ...]


def _died(name: str, state: str, status: int = 137) -> Fate:
    return Fate(state, ((name, status),))


FATES: dict[str, dict[str, Fate]] = {
    # Everything that lived in the machine has exited with 137, execs before their container; nothing else is said.
    "qemu": {
        "running": Fate("STOPPED", (("e-running", 137), ("running", 137))),
        "created": _died("created", "STOPPED"),
        "paused": _died("paused", "STOPPED"),
        "exited": _died("exited", "STOPPED", 21),
        "pausing": _died("pausing", "STOPPED"),
        "killing": _died("killing", "STOPPED"),
        "updating": Fate("STOPPED", (("e-killing", 137), ("updating", 137))),
        "resuming": _died("resuming", "STOPPED"),
        "deleting": _died("deleting", GONE, 21),
        "creating": Fate(GONE, ()),
    },
    # containerd itself announces what the shim's `delete` says, and forgets the tasks, as with runc. It does so also
    # for those that had exited before: then with the same code.
    "shim": {
        "running": _died("running", GONE),
        "created": _died("created", GONE),
        "paused": _died("paused", GONE),
        "exited": Fate(GONE, (("exited", 21), ("exited", 21))),
        "pausing": _died("pausing", GONE),
        "killing": _died("killing", GONE),
        "updating": _died("updating", GONE),
        "resuming": _died("resuming", GONE),
        "deleting": Fate(GONE, (("deleting", 21), ("deleting", 21))),
        "creating": Fate(GONE, ()),
    },
    # Nothing happens to containers; what was under way is carried through, but for the one nobody would know of.
    "containerd": {
        "running": Fate("RUNNING", ()),
        "created": Fate("CREATED", ()),
        "paused": Fate("PAUSED", ()),
        "exited": _died("exited", "STOPPED", 21),
        "pausing": Fate("PAUSED", ()),
        "killing": _died("killing", "STOPPED", 21),
        "updating": Fate("RUNNING", (("e-killing", 137),)),
        "resuming": Fate("RUNNING", ()),
        "deleting": _died("deleting", GONE, 21),
        "creating": Fate(GONE, ()),
    },
}


@dataclass
class Aftermath:
    """A pod after the blow."""

    victim: str
    pod: Pod
    codes: dict[str, str] = field(default_factory=dict)
    """How the requests under way ended."""
    seconds: float = 0.0
    """Until all of them had."""
    restart: float = 0.0
    """Seconds that the new containerd took to answer, with a frozen VM."""

    @property
    def fates(self) -> dict[str, Fate]:
        states, exits = self.pod.states(), self.pod.exits()
        return {name: Fate(states[name], tuple(exits[name])) for name in Pod.ALL}


@pytest.fixture(scope="module", params=BLOWS)
def aftermath(request: pytest.FixtureRequest, archives: dict[str, Path]) -> Iterator[Aftermath]:
    victim, version = BLOWS[request.param]
    with PrivateContainerd(paths.PREFIX / version, parma_config={"scratch_mib": 64}) as daemon:
        assert daemon.ctr("image", "import", archives[BUSYBOX]).returncode == 0
        pod = Pod(Host(daemon, archives))
        try:
            yield _strike(pod, victim)
        finally:
            pod.close()


def _strike(pod: Pod, victim: str) -> Aftermath:
    after = Aftermath(victim, pod)
    pod.freeze()
    began = time.monotonic()
    if victim == "containerd":
        after.restart = pod.restart_containerd()
    else:
        kill_all({"qemu": qemu, "shim": shim}[victim](pod.host))
    after.codes = {name: code_of(call) for name, call in pod.under_way.items()}
    after.seconds = time.monotonic() - began - after.restart
    if victim == "containerd":
        pod.thaw()
    return after


@pytest.mark.parametrize("step", Pod.ALL)
def test_the_container_at_each_step_ends_as_it_must_and_is_announced_once(aftermath: Aftermath, step: str) -> None:
    expected = FATES[aftermath.victim][step]
    wait_until(lambda: aftermath.fates[step] == expected, f"{expected}, not {aftermath.fates[step]}", timeout=90)


def test_no_client_hangs(aftermath: Aftermath) -> None:
    assert "DEADLINE_EXCEEDED" not in aftermath.codes.values()
    assert aftermath.seconds < PROMPT
    assert aftermath.codes["creating"] != "OK"
    assert aftermath.codes["starting"] != "OK"


def test_containerd_comes_up_beside_a_frozen_guest(aftermath: Aftermath) -> None:
    assert aftermath.restart < 10


def test_execs_share_the_fate_of_their_container(aftermath: Aftermath) -> None:
    def execs() -> list[str]:
        state = aftermath.pod.containerd.state
        return [state("running", exec_id) for exec_id in ("e-running", "e-added", "e-starting")]

    expected = {
        "qemu": ["STOPPED", "CREATED", "STOPPED"],
        "shim": [GONE, GONE, GONE],
        "containerd": ["RUNNING", "CREATED", "RUNNING"],
    }[aftermath.victim]
    wait_until(lambda: execs() == expected, f"{expected}, not {execs()}")  # a Start goes on in a guest that was thawed


def test_no_container_goes_on_saying_that_it_is_attested_when_its_shim_was_killed(aftermath: Aftermath) -> None:
    if aftermath.victim != "shim":
        pytest.skip("the shim lives")
    labels = aftermath.pod.attestation_labels
    wait_until(lambda: {labels()[name] for name in Pod.STEADY} == {"ended"}, f"the labels, not {labels()}")


def test_a_pod_that_survived_can_be_used_further(aftermath: Aftermath) -> None:
    if aftermath.victim != "containerd":
        pytest.skip("this pod did not survive")
    client = aftermath.pod.containerd
    client.kill("running", signal.SIGKILL, "e-running")
    assert client.wait("running", "e-running") == 137
    client.start("created")
    client.kill("created", signal.SIGKILL)
    assert client.wait("created") == 137
    # And a second blow meets it like any other.
    kill_all(shim(aftermath.pod.host))
    wait_until(lambda: set(aftermath.pod.states().values()) == {GONE}, "containerd to notice")
    exits = aftermath.pod.events.exits
    wait_until(lambda: exits("paused") == [("paused", 137)], "its exits to be announced")
    assert {status for _, status in exits("killing")} == {21}


def test_in_the_end_nothing_is_left_and_the_names_are_free(aftermath: Aftermath) -> None:
    fates = FATES[aftermath.victim].items()
    left = {name: fate.exits[-1][1] for name, fate in fates if fate.state == "STOPPED"}
    assert aftermath.pod.remove_all() == (left if aftermath.victim == "qemu" else {})
    assert_nothing_left(aftermath.pod.host, aftermath.pod.before)
