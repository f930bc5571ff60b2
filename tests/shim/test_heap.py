# SPDX-License-Identifier: Apache-2.0
"""The daemon has one heap, and what is free in it goes back to the system."""

from __future__ import annotations

import ctypes
import gc
import re
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from parma_shim import heap
from parma_shim.api import task_pb2
from tests.shim.support import Binary, bundle, python_isolated, task_stub
from tests.shim.test_binary import daemon_of

glibc = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library has no arenas")

ARENA = 64 << 20
"""Bytes of address space that glibc reserves for an arena other than the first: HEAP_MAX_SIZE on 64-bit machines."""

THREADS = """
import threading
from parma_shim import heap
{prepare}
together = threading.Barrier(9)
def allocate():
    kept = bytearray(1000)
    together.wait()
    together.wait()
threads = [threading.Thread(target=allocate) for _ in range(8)]
for thread in threads:
    thread.start()
together.wait()
print(open("/proc/self/maps").read())
together.wait()
"""

PEAK = """
from parma_shim import heap
from pathlib import Path
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4
heap.use_one_arena()
heap.give_back()
before = resident()
peak = [bytearray(1000) for _ in range(50_000)]
last = bytearray(1000)  # above them: nothing can be returned by making the heap shorter
del peak
free = resident()
heap.give_back()
print(before, free, resident())
"""


def arenas(maps: str) -> int:
    """Arenas beyond the first: each is a mapping of which what is not used yet cannot be read or written."""
    found = 0
    for line in maps.splitlines():
        match = re.match(r"([0-9a-f]+)-([0-9a-f]+) ---p 00000000 00:00 0", line)
        if match is not None:
            begin, end = (int(part, 16) for part in match.groups())
            found += end % ARENA == 0 and end - begin > ARENA // 2
    return found


@glibc
def test_without_it_threads_get_arenas() -> None:
    assert arenas(python_isolated(THREADS.format(prepare=""))) > 1


@glibc
def test_threads_share_one_arena() -> None:
    assert arenas(python_isolated(THREADS.format(prepare="heap.use_one_arena()"))) == 0


@glibc
def test_the_daemon_has_one_arena_whatever_number_of_calls_it_serves_at_once(binary: Binary, short_path: Path) -> None:
    here = bundle(short_path / "b", "sleep")
    answer = binary.start("x", here)
    together = threading.Barrier(16)
    with task_stub(answer["address"]) as call:
        call("Create", task_pb2.CreateTaskRequest(id="x", bundle=str(here)))
        call("Start", task_pb2.StartRequest(id="x"))

        def ask() -> None:
            together.wait()
            call("Pids", task_pb2.PidsRequest(id="x"))

        with ThreadPoolExecutor(together.parties) as pool:
            for asked in [pool.submit(ask) for _ in range(together.parties)]:
                asked.result()
        assert arenas(Path(f"/proc/{daemon_of(here).pid}/maps").read_text()) == 0


@glibc
def test_memory_that_is_free_goes_back_to_the_system() -> None:
    before, free, after = map(int, python_isolated(PEAK).split())
    assert free > before + 40_000
    assert after < before + 5_000


class Loop:
    """Refers to itself."""

    def __init__(self) -> None:
        self.itself = self


def test_cycles_are_freed() -> None:
    gc.disable()
    try:
        gone = weakref.ref(Loop())
        assert gone() is not None
        heap.give_back()
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("function", [heap.use_one_arena, heap.give_back])
def test_a_c_library_without_arenas_is_left_alone(
    function: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: object())
    function()
