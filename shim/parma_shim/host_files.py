# SPDX-License-Identifier: Apache-2.0
"""Files of the host that an annotation names: only below folders that the host's configuration allows."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from parma_wire.errors import Denied, NotFound, Unavailable


class Place(NamedTuple):
    """Where files of one kind may be. ``what`` and ``setting`` (a key of the configuration) are for messages."""

    what: str
    setting: str
    directories: Sequence[Path]
    limit: int
    """Largest size, in bytes."""

    def read(self, name: str) -> bytes:
        """A file's content. Raises Denied outside the folders or above the limit, NotFound, or Unavailable.

        Open first, then ask where the opened file is: no link can be swapped in between.
        """
        try:
            fd = os.open(name, _FLAGS)
        except FileNotFoundError:
            raise NotFound(f"the {self.what} {name} does not exist") from None
        except (OSError, ValueError) as error:
            raise Unavailable(f"cannot open the {self.what} {name}: {error}") from error
        try:
            self._require_allowed(name, fd)
            data = self._contents(fd)
        except OSError as error:
            raise Unavailable(f"cannot read the {self.what} {name}: {error.strerror}") from error
        finally:
            os.close(fd)
        if len(data) > self.limit:
            raise Denied(f"the {self.what} {name} is too large", expected=f"at most {self.limit} bytes")
        return data

    def _require_allowed(self, name: str, fd: int) -> None:
        place = Path(f"/proc/self/fd/{fd}").readlink()
        if not any(place.is_relative_to(os.path.realpath(directory)) for directory in self.directories):
            allowed = ", ".join(map(str, self.directories)) or "none"
            raise Denied(f"the {self.what} {name} is not below one of {self.setting}", expected=allowed)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Unavailable(f"the {self.what} {name} is not a regular file")

    def _contents(self, fd: int) -> bytes:
        data = b""
        while len(data) <= self.limit and (piece := os.read(fd, self.limit + 1 - len(data))):
            data += piece
        return data


_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
