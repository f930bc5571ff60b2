# SPDX-License-Identifier: Apache-2.0
"""Listeners: who may connect, and how serving ends."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue

import ttrpc
from tests.ttrpc.support import ECHO, SECONDS, Echo, wait_until


class Listener(socket.socket):
    """A listening unix socket whose accept() fails as often as it is told to."""

    failures: list[int]

    def accept(self) -> tuple[socket.socket, Any]:
        if self.failures:
            raise OSError(self.failures.pop(), "as asked")
        return super().accept()


@contextmanager
def serving(path: Path, **options: Any) -> Iterator[tuple[ttrpc.Server, Callable[[], socket.socket]]]:
    """A server that listens at ``path``, and a function that connects to it."""
    server = ttrpc.Server(**options)
    server.register(ECHO, Echo())
    with Listener(socket.AF_UNIX) as listener:
        listener.failures = [errno.ECONNABORTED, errno.EMFILE]
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=server.serve, args=(listener,))
        thread.start()

        def connect() -> socket.socket:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(SECONDS)
            sock.connect(str(path))
            return sock

        try:
            yield server, connect
        finally:
            server.close()
            thread.join(SECONDS)
            assert not thread.is_alive()
    wait_until(lambda: server.connections == 0)


def test_listener_serves_several_clients_despite_passing_failures(tmp_path: Path) -> None:
    with serving(tmp_path / "s", accept=ttrpc.same_user) as (_, connect):
        clients = [ttrpc.Client(connect()) for _ in range(5)]
        for client in clients:
            assert ttrpc.stub(client, ECHO).Say(StringValue(value="x"), timeout=SECONDS).value == "x"
        for client in clients:
            client.close()
            client.join(SECONDS)


def refuse(_sock: socket.socket) -> bool:
    return False


def fail(_sock: socket.socket) -> bool:
    raise ValueError("odd peer")


@pytest.mark.parametrize(("rule", "reason"), [(refuse, "may not connect"), (fail, "odd peer")])
def test_connection_that_the_rule_does_not_accept_is_closed(
    tmp_path: Path, rule: Callable[[socket.socket], bool], reason: str
) -> None:
    log: list[str] = []
    with serving(tmp_path / "s", accept=rule, log=log.append) as (server, connect), connect() as sock:
        assert sock.recv(1) == b""
        assert server.connections == 0
    assert reason in log[-1]


def test_further_connections_are_closed_when_there_are_too_many(tmp_path: Path) -> None:
    with serving(tmp_path / "s", max_connections=1) as (server, connect):
        with connect() as first, connect() as second:
            assert second.recv(1) == b""
            assert server.connections == 1
            del first
        wait_until(lambda: server.connections == 0)
        with ttrpc.Client(connect()) as client:
            assert ttrpc.stub(client, ECHO).Say(StringValue(value="x"), timeout=SECONDS).value == "x"
        client.join(SECONDS)


def test_closing_the_server_ends_its_connections_and_its_loop(tmp_path: Path) -> None:
    with serving(tmp_path / "s") as (server, connect), connect() as sock:
        wait_until(lambda: server.connections == 1)
        server.close()
        server.close()
        assert sock.recv(1) == b""


def test_closed_server_serves_nothing() -> None:
    server = ttrpc.Server()
    server.close()
    near, far = socket.socketpair()
    with far:
        server.serve_connection(near)
        assert far.recv(1) == b""


def test_descriptor_that_is_no_listener_is_an_error() -> None:
    near, far = socket.socketpair()
    with near, far:
        far.send(b"x")
        with pytest.raises(OSError, match="Invalid argument"):
            ttrpc.Server().serve(near)


def test_importing_the_package_loads_neither_protobuf_nor_anything_heavy() -> None:
    code = (
        "import sys, ttrpc; "
        "print([name for name in ('google.protobuf', 'asyncio', 'logging', 'grpc', 'dataclasses', 'inspect', "
        "'subprocess', 'ssl', 'hashlib') if name in sys.modules])"
    )
    folder = str(Path(ttrpc.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-IS", "-c", f"import sys; sys.path.insert(0, {folder!r}); {code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
