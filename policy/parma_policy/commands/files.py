# SPDX-License-Identifier: Apache-2.0
"""Policy files on disk and standard input, as every command reads and writes them."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from parma_wire.errors import Malformed, NotFound, Unavailable
from parma_wire.limits import MAX_POLICY_BYTES


def read_policy(path: Path) -> bytes:
    """The bytes of a policy file, or of standard input for ``-``. Raises NotFound, Unavailable or Malformed."""
    return read_file(path, MAX_POLICY_BYTES, what="a policy")


def read_file(path: Path, maximum: int, *, what: str = "this") -> bytes:
    """The bytes of a file of at most ``maximum`` bytes, or of standard input for ``-``. Raises as ``read_policy``."""
    try:
        if str(path) == "-":
            data = sys.stdin.buffer.read(maximum + 1)
        else:
            with path.open("rb") as file:
                data = file.read(maximum + 1)
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}") from None
    except OSError as error:
        raise Unavailable(f"cannot read {path}: {error.strerror}") from error
    if len(data) > maximum:
        raise Malformed(f"{path} is too large for {what}", expected=f"at most {maximum} bytes")
    return data


def write_file(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all. Raises Unavailable."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            try:
                file.write(data)
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise Unavailable(f"cannot write {path}: {error.strerror}") from error


def add_own_rules(parser: argparse.ArgumentParser) -> None:
    """Adds ``--own-rules``, for commands that only pass a policy's bytes on."""
    parser.add_argument(
        "--own-rules",
        action="store_true",
        help="it has rules of its own, for the 'rego' image variant: do not check it",
    )


def check_loads(data: bytes, *, own_rules: bool) -> None:
    """Loads a policy as the guest will. Raises Malformed; not for what may be rules, where ``own_rules`` is set."""
    from parma_policy.reader import has_own_rules, load

    if not own_rules or not has_own_rules(data):
        load(data)
