# SPDX-License-Identifier: Apache-2.0
"""The shim's log: lines in the form of logrus, into the fifo ``log`` of the bundle, which containerd copies.

Nothing here ever blocks or fails: a full fifo, or none, drops the line and counts it. The fifo is opened for reading
and writing, so a containerd that is down gives no SIGPIPE, and one that comes back finds it still there.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from typing import Final

RUNTIME: Final = "io.containerd.parma.v2"
MAX_LINE: Final = 4096
"""PIPE_BUF: up to here one write is one line, whoever else writes."""
_MAX_VALUE: Final = 128
"""Characters of a field's value: containerd's ids have at most 76."""


class Log:
    """Calling it logs at level info."""

    def __init__(self, path: str, *, namespace: str, identity: str, debug: bool = False) -> None:
        self._suffix = f" runtime={RUNTIME} namespace={quote(namespace)} id={quote(identity)}"
        self._debug = debug
        self._lock = threading.Lock()
        self.dropped = 0
        """Lines lost since the last one that was written."""
        self.lost = 0
        """Lines lost altogether."""
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            self._descriptor = -1

    def __call__(self, message: str, **fields: object) -> None:
        self.write("info", message, **fields)

    def warning(self, message: str, **fields: object) -> None:
        """Something is wrong and dealt with."""
        self.write("warning", message, **fields)

    def error(self, message: str, **fields: object) -> None:
        """Something failed that somebody waits for."""
        self.write("error", message, **fields)

    def debug(self, message: str, **fields: object) -> None:
        """For developers; only when containerd itself runs at debug level."""
        if self._debug:
            self.write("debug", message, **fields)

    def write(self, level: str, message: str, **fields: object) -> None:
        """One line; a message that does not fit into :data:`MAX_LINE` bytes is cut.

        ``fields`` are for programs: the container, the method, a duration. Their values are short and their names ours.
        """
        with self._lock:
            if self._descriptor < 0:
                return
            if self.dropped and not self._put("warning", f"{self.dropped} log lines were lost", {}):
                self.dropped += 1
                self.lost += 1
                return
            written = self._put(level, message, fields)
            self.lost += not written
            self.dropped = 0 if written else self.dropped + 1

    def close(self) -> None:
        """Further lines go nowhere."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def _put(self, level: str, message: str, fields: Mapping[str, object]) -> bool:
        now = time.time_ns()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 1_000_000_000))
        head = f'time="{stamp}.{now % 1_000_000_000:09}Z" level={level} msg='
        extra = "".join(f" {name}={quote(str(value)[:_MAX_VALUE])}" for name, value in fields.items()) + self._suffix
        tail = extra.encode("utf-8", "replace") + b"\n"
        room = MAX_LINE - len(head) - len(tail)
        text = quote(message).encode("utf-8", "replace")
        if len(text) > room:
            text = text[: room - 5].rstrip(b"\\").decode("utf-8", "ignore").encode() + b'..."'
        line = head.encode() + text + tail
        try:
            return os.write(self._descriptor, line) == len(line)
        except OSError:
            return False


def quote(text: str) -> str:
    """As logrus writes values: bare when made of harmless characters, else in double quotes with escapes."""
    if text and all(character.isascii() and (character.isalnum() or character in "-._/@^+") for character in text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return '"' + "".join(c if c.isprintable() else f"\\x{ord(c) & 0xFF:02x}" for c in escaped) + '"'
