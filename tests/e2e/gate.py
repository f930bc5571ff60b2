# SPDX-License-Identifier: Apache-2.0
"""A CNI plugin for tests that comes last and waits until the test listens in the pod's network namespace.

So the test hears everything that a pod's VM ever sends: it is started after the plugins.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

from tests import fake_cni
from tests.e2e.networks import NAMESPACES, entered, packet_socket

_PLUGIN = """\
#!/bin/sh
# For tests: see tests/e2e/gate.py
exec {python} - 3<&0 <<'END'
import json, os, socket

command = os.environ["CNI_COMMAND"]
if command == "VERSION":
    print(json.dumps({{"cniVersion": "1.0.0", "supportedVersions": ["1.0.0"]}}))
elif command == "ADD":
    with os.fdopen(3) as configuration:
        result = json.load(configuration)["prevResult"]
    with socket.socket(socket.AF_UNIX) as gate:
        gate.connect({gate!r})
        gate.sendall(os.path.basename(os.environ["CNI_NETNS"]).encode())
        gate.shutdown(socket.SHUT_WR)
        if gate.recv(1) != b"1":
            raise SystemExit("nobody listens")
    print(json.dumps(result))
END
"""

PLUGIN = {"type": "gate"}

_TIMESTAMPS = 35  # SO_TIMESTAMPNS
_BUFFER_FORCE = 33  # SO_RCVBUFFORCE
_BUFFER = 8 << 20
_OUTGOING = 4  # PACKET_OUTGOING


class Frame(NamedTuple):
    """What was heard, in nanoseconds since 1970 by the kernel's clock."""

    time: int
    interface: str
    outgoing: bool
    """From the host's side to the interface's other end; of a tap, to the VM."""
    data: bytes


class Gate:
    """Lets pods pass. `PLUGIN` is its configuration, for `devtool.cni.write_network`."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "gate"
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(self._path))
        self._server.listen()
        self._listening: dict[str, socket.socket] = {}
        self._names: Path | None = None
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def install(self, bin_dir: Path) -> None:
        """The plugin's program, into CNI's folder."""
        self._names = bin_dir / fake_cni.NAMESPACES
        bin_dir.mkdir(parents=True, exist_ok=True)
        program = bin_dir / PLUGIN["type"]
        program.write_text(_PLUGIN.format(python=sys.executable, gate=str(self._path)))
        program.chmod(0o755)

    @property
    def namespaces(self) -> list[str]:
        """Names of the pods' namespaces."""
        return list(self._listening)

    def heard(self, namespace: str) -> list[Frame]:
        """Since the last call."""
        packets = self._listening[namespace]
        frames = []
        with contextlib.suppress(BlockingIOError):
            while True:
                data, ancillary, _, address = packets.recvmsg(65536, 64)
                frames.append(Frame(_time(ancillary), address[0], address[2] == _OUTGOING, data))
        return frames

    def deaf(self) -> None:
        """Listens no more: a socket would keep its namespace alive."""
        for packets in self._listening.values():
            packets.close()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._server.close()
        self.deaf()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                plugin, _ = self._server.accept()
                with plugin:
                    self._listen(plugin.recv(255).decode())
                    plugin.sendall(b"1")

    def _listen(self, name: str) -> None:
        assert self._names is not None
        with self._names.open("a") as names:
            names.write(f"{name}\n")
        with entered(NAMESPACES / name):
            packets = packet_socket()
        packets.setsockopt(socket.SOL_SOCKET, _BUFFER_FORCE, _BUFFER)
        packets.setsockopt(socket.SOL_SOCKET, _TIMESTAMPS, 1)
        self._listening[name] = packets


def _time(ancillary: list[tuple[int, int, Any]]) -> int:
    for level, kind, value in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, _TIMESTAMPS):
            seconds, nanoseconds = struct.unpack("qq", value)
            return int(seconds * 1_000_000_000 + nanoseconds)
    raise AssertionError("the kernel gave no time")
