# SPDX-License-Identifier: Apache-2.0
"""Names of users and groups, read from a container's own ``/etc/passwd`` and ``/etc/group``.

Policies may name a user by name. The files belong to the image (verified) and to the container's scratch, so they
are opened inside the container's root without ever leaving it, and read with limits.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Final, NamedTuple

from parma_guest.values import User

MAX_FILE_BYTES: Final = 1 << 20
MAX_LINE_BYTES: Final = 4096

OpenInRoot = Callable[[str], int]
"""Opens a path inside the container's root, read-only, and returns a descriptor; raises OSError."""


class Identity(NamedTuple):
    """The user's name and each group with its name; "" where the container's files have none."""

    user_name: str
    groups: tuple[tuple[int, str], ...]
    home: str = "/"


def look_up(user: User, open_in_root: OpenInRoot) -> Identity:
    """The names that belong to the numbers; the primary group comes first, no group twice."""
    line = _lines(open_in_root, "etc/passwd").get(user.uid, ())
    group_lines = _lines(open_in_root, "etc/group")
    groups = dict.fromkeys((user.gid, *user.additional_gids))
    home = line[5] if len(line) > 5 and line[5].startswith("/") and "\0" not in line[5] else "/"
    return Identity(
        line[0] if line else "", tuple((gid, group_lines[gid][0] if gid in group_lines else "") for gid in groups), home
    )


def with_home(env: tuple[str, ...], identity: Identity) -> tuple[str, ...]:
    """The environment with a HOME. Without one crun looks for it, in a file that the container may have made a pipe."""
    return env if any(variable.startswith("HOME=") for variable in env) else (*env, f"HOME={identity.home}")


def _lines(open_in_root: OpenInRoot, path: str) -> dict[int, tuple[str, ...]]:
    """Number -> fields of the first line that has the number; empty when the file is absent or not acceptable."""
    try:
        descriptor = open_in_root(path)
    except OSError:
        return {}
    with open(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE_BYTES:
            return {}
        data = file.read(MAX_FILE_BYTES)
    lines: dict[int, tuple[str, ...]] = {}
    for line in data.split(b"\n"):
        fields = line.split(b":")
        if len(line) > MAX_LINE_BYTES or len(fields) < 4 or not fields[2].isdigit() or len(fields[2]) > 10:
            continue
        try:
            name = fields[0].decode()
        except UnicodeDecodeError:
            continue
        lines.setdefault(int(fields[2]), (name, *(field.decode(errors="replace") for field in fields[1:])))
    return lines
