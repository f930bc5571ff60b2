# SPDX-License-Identifier: Apache-2.0
"""``metrics.sock`` in the VM's directory: HTTP GET /metrics, for this user only, one reader at a time.

The directory is 0700 and goes with the VM, and the socket with it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from parma_shim.observe.exposition import CONTENT_TYPE
from ttrpc import same_user

NAME: Final = "metrics.sock"

_PATIENCE: Final = 2.0
_MAX_REQUEST: Final = 8192


class MetricsEndpoint:
    """Listens from the start until :meth:`close`."""

    def __init__(self, directory: Path, text: Callable[[], str]) -> None:
        """``text`` makes the answer; it is called in a thread of the endpoint's own.

        Raises OSError when the socket cannot be made.
        """
        self._text: Final = text
        self._listener: Final = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        path = os.fspath(directory / NAME)
        try:
            Path(path).unlink(missing_ok=True)
            self._listener.bind(path)
            os.chmod(path, 0o600)  # noqa: PTH101 - before listen(): nobody could connect yet
            self._listener.listen(4)
        except OSError:
            self._listener.close()
            raise
        threading.Thread(target=self._serve, name="metrics", daemon=True).start()

    def close(self) -> None:
        """Stops listening. Idempotent."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread, which closes

    def _serve(self) -> None:
        with self._listener:
            while True:
                try:
                    connection, _ = self._listener.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(_PATIENCE)
                    if same_user(connection):
                        connection.sendall(self._answer(_read_head(connection)))

    def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if method != b"GET":
            return _response("405 Method Not Allowed", "GET only\n")
        if path != b"/metrics":
            return _response("404 Not Found", "see /metrics\n")
        try:
            body = self._text()
        except Exception as error:  # noqa: BLE001 - whoever reads metrics must not end the endpoint
            return _response("500 Internal Server Error", f"{type(error).__name__}\n")
        return _response("200 OK", body)


def fetch(path: Path, *, timeout: float) -> str:
    """The metrics behind one socket.

    Raises OSError, also for an answer that is no success or that is longer than 4 MiB.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
        connection.settimeout(timeout)
        connection.connect(os.fspath(path))
        connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        data = bytearray()
        while piece := connection.recv(65536):
            data += piece
            if len(data) > 4 << 20:
                raise OSError("the answer is too long")
    head, _, body = data.partition(b"\r\n\r\n")
    if head.split(b" ", 2)[1:2] != [b"200"]:
        raise OSError(f"no metrics: {head[:60].decode(errors='replace')}")
    return body.decode(errors="replace")


def _read_head(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data and len(data) < _MAX_REQUEST:
        piece = connection.recv(4096)
        if not piece:
            break
        data += piece
    return data


def _response(status: str, body: str) -> bytes:
    content = body.encode()
    head = f"HTTP/1.0 {status}\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content
