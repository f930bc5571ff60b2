# SPDX-License-Identifier: Apache-2.0
"""The main thread as a place to run things in."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from parma_shim.mainloop import HANDLED, IGNORED, MainLoop


@pytest.fixture
def loop() -> Iterator[MainLoop]:
    before = {number: signal.getsignal(number) for number in (*HANDLED, *IGNORED)}
    made = MainLoop()
    yield made
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)
    made.close()


def run(loop: MainLoop, **options: object) -> None:
    defaults: dict[str, object] = {"on_signal": lambda _number: None, "on_tick": lambda: None, "period": 10.0}
    loop.run(**{**defaults, **options})  # type: ignore[arg-type]


def test_a_function_runs_in_the_main_thread_and_its_result_comes_back(loop: MainLoop) -> None:
    results: list[object] = []

    def elsewhere() -> None:
        results.append(loop(threading.get_ident))
        try:
            loop(lambda: 1 // 0)
        except ZeroDivisionError as error:
            results.append(error)
        loop.stop()

    thread = threading.Thread(target=elsewhere)
    thread.start()
    run(loop)
    thread.join()
    assert results[0] == threading.get_ident()
    assert isinstance(results[1], ZeroDivisionError)


def test_in_the_main_thread_it_runs_at_once(loop: MainLoop) -> None:
    assert loop(lambda: 5) == 5


def test_what_is_queued_before_the_stop_still_runs(loop: MainLoop) -> None:
    done: list[int] = []
    loop.post(lambda: done.append(1))
    loop.stop()
    run(loop)
    assert done == [1]


def test_signals_arrive_in_the_loop_even_from_before_it_ran(loop: MainLoop) -> None:
    seen: list[int] = []

    def on_signal(number: int) -> None:
        seen.append(number)
        loop.stop()

    os.kill(os.getpid(), signal.SIGTERM)
    run(loop, on_signal=on_signal)
    assert seen == [signal.SIGTERM]


def test_ignored_signals_do_nothing(loop: MainLoop) -> None:
    for number in IGNORED:
        os.kill(os.getpid(), number)
    loop.stop()
    run(loop)


def test_ticks_come_while_nothing_else_does(loop: MainLoop) -> None:
    ticks: list[int] = []

    def on_tick() -> None:
        ticks.append(1)
        if len(ticks) == 3:
            loop.stop()

    run(loop, on_tick=on_tick, period=0.001)
    assert len(ticks) == 3
