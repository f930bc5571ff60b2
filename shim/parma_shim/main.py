# SPDX-License-Identifier: Apache-2.0
"""The binary ``containerd-shim-parma-v2``, as containerd calls it.

Two tiers of imports. ``start``, ``delete``, ``-info`` and ``-v`` (tier 0) run for every container while somebody
waits: they import modules written in C and a few small ones of ours, nothing else (tests/shim/test_import_budget.py).
``os`` is not among those of ``start``: making the abstract base classes of ``collections``, which it needs, takes as
long as all of ours.
The daemon (tier 1) loads the rest after ``start`` has been answered.
"""

import _warnings
import posix
import sys

from . import flags

PROGRAM = "containerd-shim-parma-v2"


def main(config: str = "", arguments: list[str] | None = None) -> int:
    """Runs one call and returns its exit status.

    Args:
        config: path of the host's configuration, built into the launcher.
        arguments: the words after the program's name; by default the process's own.
    """
    _silence_warnings()
    output = 1
    try:
        call = flags.parse(sys.argv[1:] if arguments is None else arguments)
        if call.switches & {"v", "version"}:
            from . import info

            posix.write(output, info.version_text(PROGRAM).encode())
        elif "info" in call.switches:
            from . import info

            posix.write(output, info.runtime_info())
        elif call.action == "start":
            from . import start

            start.run(call, config, output)
        elif call.action == "delete":
            from . import delete

            posix.write(output, delete.run(call))
        else:
            _refuse(call.action)
    except Exception as error:  # noqa: BLE001 - whatever it is, containerd shows one line to its client
        posix.write(2, f"{PROGRAM}: {' '.join(str(error).split()) or type(error).__name__}\n".encode())
        return 1
    return 0


def _refuse(action: str) -> None:
    from parma_wire.errors import Malformed

    raise Malformed(f"unknown action {action!r}", expected="start or delete", hint="this program is for containerd")


def _silence_warnings() -> None:
    """containerd takes standard error for part of the answer, so not even ``PYTHONWARNINGS`` may put a word there."""
    sys.warnoptions.clear()
    _warnings.filters.insert(0, ("ignore", None, Warning, None, 0))
