# SPDX-License-Identifier: Apache-2.0
"""Telling containers that they have left their VM: a process of its own, which outlives whoever starts it (tier 0).

The shim starts it at its end, and has no time to wait: containerd gives it five seconds, and on a starved machine
Python alone may take those. Where the shim was killed, ``delete`` starts it instead, with what the shim had kept for
that in the VM's directory. It has a minute, and is not held up by a containerd that is down meanwhile.
"""

import posix
import time

from parma_shim.helpers.environment import helper_environment

REQUEST = "farewell.json"
"""In the VM's directory, for as long as there is anybody to tell: the helper's request."""

HELPER = "parma_shim.helpers.farewell"
_SIGPIPE = 13


def start(python: str, request: int) -> None:
    """Starts the helper. Returns at once.

    Args:
        python: absolute path of the interpreter.
        request: file descriptor of a file that holds the helper's request, read from where it stands.

    Raises:
        OSError: the interpreter cannot be executed.
    """
    null = posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC)
    try:
        posix.posix_spawn(
            python,
            [python, "-m", HELPER, str(time.time_ns())],
            helper_environment(),
            file_actions=[(posix.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate((request, null, null))],
            setsid=True,
            setsigmask=(),
            setsigdef=(_SIGPIPE,),
        )
    finally:
        posix.close(null)


def start_from(python: str, directory: str) -> None:
    """The same with what the shim has kept in its VM's directory, which may be removed then. Raises OSError."""
    try:
        request = posix.open(f"{directory}/{REQUEST}", posix.O_RDONLY | posix.O_CLOEXEC)
    except FileNotFoundError:
        return  # there is nobody to tell
    try:
        start(python, request)
    finally:
        posix.close(request)
