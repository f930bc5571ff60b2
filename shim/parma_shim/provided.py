# SPDX-License-Identifier: Apache-2.0
"""Files of the host that containers mount: handed to the guest, and handed over again when they change.

Only regular files, few and small, are copied: what changes all the time, or is a socket, or a file system, cannot be
had by copying. Whether anything may be changed is for the guest to say, by its policy. What it has refused is logged
once, and it keeps what it has.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, Protocol

from parma_shim.digest import hex_digest
from parma_shim.host_mounts import HostMount
from parma_shim.host_tree import HostFile, Stamp, read, stamp
from parma_wire.errors import DeadlineExceeded, Denied, NotFound, ParmaError, Unavailable


class Log(Protocol):
    """Writes a warning."""

    def __call__(self, message: str, **fields: object) -> None: ...


class FilePort(Protocol):
    """What is needed of the guest."""

    def provide_files(
        self, container_id: str, source: str, files: Iterable[HostFile], *, update: bool, deadline: float | None = None
    ) -> None: ...


class _Given(NamedTuple):
    container: str
    mount: HostMount
    stamp: Stamp
    """Of what was read last, whether the guest took it or not."""
    digest: str
    """Of the same."""
    complaint: str = ""
    """What was logged of it."""


_NAMES: Final = "/etc/hosts"
_SOON: Final = 2.0
"""Seconds between two looks at that file: whoever starts one container after the other counts on their names."""

_NOTHING: Final = HostFile("", 0o666, 0, 0, b"")
_NEVER: Final[Stamp] = ("never",)
"""Differs from any other."""


class HostFiles:
    """What one VM was given. ``provide`` is for one thread at a time; `close` for any.

    Lock contract: ``_lock`` guards ``_given``, and is held while the guest is asked, so that two rounds never mix.
    """

    def __init__(self, guest: FilePort, *, interval: float, log: Log) -> None:
        """``interval``: seconds between two looks at what may have changed; 0 for none."""
        self._guest: Final = guest
        self._interval: Final = interval
        self._log: Final = log
        self._lock: Final = threading.Lock()
        self._given: dict[str, _Given] = {}
        self._closed: Final = threading.Event()
        self._watcher: threading.Thread | None = None

    def provide(self, mounts: Iterable[HostMount], container: str, *, deadline: float) -> None:
        """Those that the guest does not have as they are now. Raises what went wrong.

        A change that cannot be had is no failure: the container gets what the VM has.
        """
        for mount in mounts:
            with self._lock:
                self._provide(mount, container, deadline)
        if self._given and self._watcher is None and self._interval:
            self._watcher = threading.Thread(target=self._watch, name="files", daemon=True)
            self._watcher.start()

    def close(self) -> None:
        """No more looking. Idempotent; does not wait."""
        self._closed.set()

    def look(self) -> None:
        """Hand over what has changed. What cannot be is logged, and not tried again before it changes once more."""
        self._look_at(list(self._given))

    def _look_at(self, places: Iterable[str]) -> None:
        for place in places:
            with self._lock:
                known = self._given[place]
                if not known.mount.is_empty:
                    self._look(known)

    def _provide(self, mount: HostMount, container: str, deadline: float) -> None:
        known = self._given.get(mount.place)
        seen = _Given(container, mount, _NEVER, "") if known is None else known
        try:
            seen = seen._replace(
                container=container, mount=mount, stamp=_NEVER if mount.is_empty else stamp(mount.source)
            )
            files = [_NOTHING] if mount.is_empty else read(mount.source)
            seen = seen._replace(digest=_digest(files))
            self._give(seen, files, deadline)
        except (Unavailable, DeadlineExceeded):
            raise
        except ParmaError as error:
            if known is None or known.mount.source != mount.source:
                raise
            self._complain(seen, error)

    def _look(self, known: _Given) -> None:
        seen = known
        try:
            seen = known._replace(stamp=stamp(known.mount.source))
            if seen.stamp == known.stamp:
                return
            files = read(known.mount.source)
            seen = seen._replace(digest=_digest(files))
            self._give(seen._replace(complaint=""), files, None)
        except NotFound:
            return  # gone with its container, or about to be replaced
        except (Unavailable, DeadlineExceeded) as error:
            self._complain(known, error)  # and try again
        except ParmaError as error:
            self._complain(seen, error)

    def _give(self, wanted: _Given, files: Sequence[HostFile], deadline: float | None) -> None:
        place = wanted.mount.place
        known = self._given.get(place)
        if known is None or known.digest != wanted.digest:
            update = known is not None
            self._guest.provide_files(wanted.container, place, files, update=update, deadline=deadline)
        self._given[place] = wanted

    def _complain(self, seen: _Given, error: ParmaError) -> None:
        """Logs it unless it was logged before, and keeps what was seen as if it had been given."""
        place, complaint = seen.mount.place, str(error)
        known = self._given.get(place)
        if known is None or (known.stamp, known.complaint) != (seen.stamp, complaint):
            kind = "denied" if isinstance(error, Denied) else "not possible"
            self._log(f"{kind}: change of files: {complaint}", method="ProvideFiles", source=seen.mount.source)
        self._given[place] = seen._replace(complaint=complaint)

    def _watch(self) -> None:
        """All of it after each interval; meanwhile the names of other containers, which costs a stat(2)."""
        due = time.monotonic() + self._interval
        while not self._closed.wait(min(self._interval, _SOON)):
            if time.monotonic() >= due:
                due = time.monotonic() + self._interval
                self.look()
            elif _NAMES in self._given:
                self._look_at([_NAMES])


def _digest(files: Iterable[HostFile]) -> str:
    """Of names, modes, owners and contents."""
    facts = [(file.path, file.mode, file.uid, file.gid, hex_digest(file.data)) for file in files]
    return hex_digest(repr(facts).encode(errors="surrogateescape"))
