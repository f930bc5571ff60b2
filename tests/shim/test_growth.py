# SPDX-License-Identifier: Apache-2.0
"""What a shim has done it forgets: its memory, descriptors and threads do not follow the number of execs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from google.protobuf import any_pb2

from parma_shim.api import task_pb2
from tests.shim.support import SPEC, Binary, FakeContainerd, bundle, eventually, task_stub
from tests.shim.test_binary import daemon_of
from tests.shim.test_import_budget import rollup

WARM_UP = 100
EXECS = 1000
ALLOWANCE_KIB = 512
"""Of which half is the fake guest's, that lives in the same process and remembers each request."""


class Size(NamedTuple):
    """Of a process."""

    resident_kib: int
    descriptors: int
    threads: int


def size(pid: int) -> Size:
    descriptors, threads = (len(list(Path(f"/proc/{pid}/{kind}").iterdir())) for kind in ("fd", "task"))
    return Size(rollup(pid)["Rss"], descriptors, threads)


@contextmanager
def fifo(path: Path) -> Iterator[str]:
    """One with a reader."""
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDWR)
    try:
        yield str(path)
    finally:
        os.close(descriptor)


def test_a_thousand_execs_leave_the_daemon_as_it_was(
    binary: Binary, short_path: Path, containerd: FakeContainerd
) -> None:
    here = bundle(short_path / "b", "sleep")
    answer = binary.start("x", here)
    spec = any_pb2.Any(value=json.dumps({**SPEC["process"], "args": ["echo", "hi"]}).encode())
    with task_stub(answer["address"]) as call, fifo(short_path / "out") as output:
        call("Create", task_pb2.CreateTaskRequest(id="x", bundle=str(here)))
        call("Start", task_pb2.StartRequest(id="x"))
        pid = daemon_of(here).pid

        def execute(number: int) -> None:
            exec_id = f"e{number}"
            call("Exec", task_pb2.ExecProcessRequest(id="x", exec_id=exec_id, spec=spec, stdout=output))
            call("Start", task_pb2.StartRequest(id="x", exec_id=exec_id))
            assert call("Wait", task_pb2.WaitRequest(id="x", exec_id=exec_id)).exit_status == 0
            call("Delete", task_pb2.DeleteRequest(id="x", exec_id=exec_id))

        for number in range(WARM_UP):
            execute(number)
        before = size(pid)
        for number in range(WARM_UP, WARM_UP + EXECS):
            execute(number)
        # The last execs' threads, and the connections that are theirs, may just be ending.
        eventually(lambda: size(pid).descriptors <= before.descriptors + 2, "descriptors to be closed")
        eventually(lambda: size(pid).threads <= before.threads + 4, "threads to end")
        assert size(pid).resident_kib < before.resident_kib + ALLOWANCE_KIB
    eventually(lambda: len(containerd.envelopes) >= 3 * EXECS, "three events of each")
