# SPDX-License-Identifier: Apache-2.0
"""The C library's heap, in a process with many threads of which one runs Python at a time.

glibc gives threads arenas of their own, eight for each processor, so that they need not wait for each other. Here they
rarely could: nearly everything is allocated under the interpreter's lock. What arenas do is to keep what each needed
at its peak, for ever. So there is one, and what is free in it goes back to the system now and then: a storm of
containers leaves a shim no larger than it was. C libraries without arenas (musl) have neither function.
"""

from __future__ import annotations

import gc
from typing import Final

_M_ARENA_MAX: Final = -8
"""malloc.h of glibc."""


def use_one_arena() -> None:
    """To be called while there is one thread: arenas that exist stay."""
    # Not at the top: `start`, which forks the daemon, needs none of it and imports nothing that takes time.
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Frees cycles that nobody refers to, and returns pages without content to the system. Takes milliseconds."""
    import ctypes

    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))
