# SPDX-License-Identifier: Apache-2.0
"""Policy files on disk and standard input, as every command reads and writes them."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from parma_wire.errors import Malformed, NotFound, Unavailable
from parma_wire.limits import MAX_POLICY_BYTES


def read_policy(path: Path) -> bytes:
    """The bytes of a policy file, or of standard input for ``-``. Raises NotFound, Unavailable or Malformed."""
    try:
        if str(path) == "-":
            data = sys.stdin.buffer.read(MAX_POLICY_BYTES + 1)
        else:
            with path.open("rb") as file:
                data = file.read(MAX_POLICY_BYTES + 1)
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}") from None
    except OSError as error:
        raise Unavailable(f"cannot read {path}: {error.strerror}") from error
    if len(data) > MAX_POLICY_BYTES:
        raise Malformed(f"{path} is too large for a policy", expected=f"at most {MAX_POLICY_BYTES} bytes")
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
