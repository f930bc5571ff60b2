# SPDX-License-Identifier: Apache-2.0
"""Keeps parts of libraries out of memory that the daemon never runs: 2.5 MiB in every idle shim.

* protobuf: its C implementation (upb) does all the work, yet importing any generated module also imports the pure
  Python implementation of the same thing, and helpers for well-known types. Lost: ``Timestamp.GetCurrentTime`` and its
  like. Done only when upb is what the library will use.
* pathlib imports URL parsing, for ``Path.as_uri``, which is lost.

:func:`prepare` puts empty modules in their place before anybody asks for them. tests/shim/test_lean.py runs every
message of ours, and imports everything the daemon does, in a process prepared so. Where the environment asks for
traces nothing is left out: their libraries use all of it.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType

from parma_shim.observe import traces


def prepare() -> bool:
    """To be called before anything else of tier 1 is imported; says whether it came in time."""
    if "google.protobuf.descriptor" in sys.modules or "pathlib" in sys.modules:
        return False
    if traces.wanted(os.environ):
        return False
    _put("urllib.parse", quote_from_bytes=_lost)
    try:
        from google._upb import _message  # noqa: F401
    except ImportError:
        return False
    _put("google.protobuf.internal.python_message")
    _put("google.protobuf.internal.well_known_types", WKTBASES={})
    return True


def _put(name: str, **content: object) -> None:
    module = ModuleType(name)
    module.__dict__.update(content)
    sys.modules[name] = module


def _lost(*_arguments: object) -> None:
    raise NotImplementedError("not in the shim: see parma_shim.lean")
