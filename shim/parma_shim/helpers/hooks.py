# SPDX-License-Identifier: Apache-2.0
"""Helper: run hooks of a container in a network namespace, one after the other.

Request: ``{"network_namespace", "directory", "state", "hooks": [{"path", "args", "env", "timeout"}, ...], "seconds",
"cgroups"}``; an empty namespace is the shim's own. ``cgroups`` is the file that names the VM's: hooks run outside, as
what they leave running may outlive the container. Answer: ``{}``, or the error of the first hook that failed. A hook
that is cut off is killed; so are all with this process.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any, Final

from parma_shim.helpers.main import Document, run
from parma_shim.vm.cleanup import leave_cgroups
from parma_wire.errors import FailedPrecondition, Unavailable

_CLONE_NEWNET: Final = 0x40000000
_MAX_WORDS: Final = 500


def run_hooks(request: Document) -> Document:
    """Raises FailedPrecondition for a hook that fails, Unavailable where none can run."""
    leave_cgroups(request["cgroups"])
    if request["network_namespace"]:
        enter_network(request["network_namespace"])
    end = time.monotonic() + float(request["seconds"])
    state = json.dumps(request["state"]).encode()
    for hook in request["hooks"]:
        _run(hook, state, request["directory"], end)
    return {}


def enter_network(path: str) -> None:
    """Moves this process. Raises Unavailable."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable(f"cannot open the network namespace {path}: {error.strerror}") from error
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(ctypes.c_int(descriptor), ctypes.c_int(_CLONE_NEWNET)):
            raise Unavailable(f"cannot enter the network namespace {path}: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(descriptor)


def _run(hook: Mapping[str, Any], state: bytes, directory: str, end: float) -> None:
    path = hook["path"]
    seconds = max(0.1, min(end - time.monotonic(), hook["timeout"] or float("inf")))
    # Files, not pipes: a program that leaves a child behind is done all the same when it has ended.
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
        given.write(state)
        given.seek(0)
        try:
            status = subprocess.run(
                hook["args"] or [path],
                executable=path,
                env=dict(variable.partition("=")[::2] for variable in hook["env"]),
                cwd=directory,
                stdin=given,
                stdout=said,
                stderr=said,
                timeout=seconds,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            raise FailedPrecondition(f"the hook {path} did not end in {seconds:.0f} seconds and was killed") from None
        except OSError as error:
            raise FailedPrecondition(f"the hook {path} cannot be executed: {error.strerror}") from error
        if status:
            said.seek(0)
            words = said.read().decode("utf-8", "replace").strip()[-_MAX_WORDS:]
            raise FailedPrecondition(f"the hook {path} failed ({status})" + (f": {words}" if words else ""))


if __name__ == "__main__":
    sys.exit(run(run_hooks))
