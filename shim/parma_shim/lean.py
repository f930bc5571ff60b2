# SPDX-License-Identifier: Apache-2.0
"""Keeps parts of the protobuf library out of memory that the daemon never runs.

The library's C implementation (upb) does all the work, yet importing any generated module also imports the pure
Python implementation of the same thing, and helpers for well-known types. That is 1.9 MiB in every idle shim, more
than all our own code. :func:`prepare` puts empty modules in their place first. It does so only when upb is what the
library will use; otherwise nothing is touched. What is lost: ``Timestamp.GetCurrentTime`` and its like, and
``text_format`` of unknown fields. tests/shim/test_lean.py runs every message of ours through a process prepared so.
"""

from __future__ import annotations

import sys
import types


def prepare() -> bool:
    """To be called before anything imports ``google.protobuf``; says whether the small form is in use."""
    if "google.protobuf.descriptor" in sys.modules:
        return False
    try:
        from google._upb import _message  # noqa: F401
    except ImportError:
        return False
    _put("google.protobuf.internal.python_message")
    _put("google.protobuf.internal.well_known_types", WKTBASES={})
    return True


def _put(name: str, **content: object) -> None:
    module = types.ModuleType(name)
    module.__dict__.update(content)
    sys.modules[name] = module
