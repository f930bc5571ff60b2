# SPDX-License-Identifier: Apache-2.0
"""A plugin that finds races: threads are held back at random where one hands something to another.

``./dev test -p tests.shake tests/shim``; ``PARMA_SHAKE=7`` chooses another order. A test that fails under it waits for
something else than what it asserts, or the code does. Nothing is proved by a run that passes, and where thousands of
frames or messages are exchanged it may take longer than a test waits.
"""

from __future__ import annotations

import functools
import os
import queue
import random
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Final

_random: Final = random.Random(os.environ.get("PARMA_SHAKE", "1"))  # noqa: S311
_PROBABILITY: Final = 0.4
_LONGEST: Final = 0.015
"""Seconds."""


def _pause() -> None:
    if _random.random() < _PROBABILITY:
        time.sleep(_random.random() * _LONGEST)


def _shaken(function: Callable[..., Any], *, main_too: bool) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        if not main_too and threading.current_thread() is threading.main_thread():
            return function(*arguments, **options)
        _pause()
        try:
            return function(*arguments, **options)
        finally:
            _pause()

    return call


def pytest_configure() -> None:
    """Replaces them for good."""
    for owner, names, main_too in (
        (threading.Thread, ("start", "run"), True),
        (threading.Condition, ("wait",), True),
        (threading.Event, ("set",), True),
        (queue.Queue, ("put",), True),
        # Of the main thread rather not: it is the test, and only has to be slow somewhere.
        (socket.socket, ("accept", "close", "recv", "recv_into", "recvmsg", "send", "sendall", "sendmsg"), False),
    ):
        for name in names:
            setattr(owner, name, _shaken(getattr(owner, name), main_too=main_too))
