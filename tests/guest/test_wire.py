# SPDX-License-Identifier: Apache-2.0
"""The services over real ttrpc connections, with fakes behind them: codes, concurrency, garbage."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from parma_guest.service import GuestService, StreamService
from parma_wire import guest_pb2 as pb
from parma_wire.limits import MAX_SEND, POLICY_CHUNK
from tests.guest.fakes import CONTAINER, HASH, Rig
from ttrpc import Client, Server, Status, TtrpcError

GUEST = "parma.guest.v1.Guest"


class Served:
    """A rig behind a server."""

    def __init__(self, directory: Path, rig: Rig | None = None) -> None:
        self.rig = rig or Rig(directory)
        self.powered_off = threading.Event()
        self._server = Server(write_chunk=MAX_SEND)
        services = pb.DESCRIPTOR.services_by_name
        guest = GuestService(self.rig.enforcer, self.rig.group, [("ready", 7)], self.powered_off.set)
        self._server.register(services["Guest"], guest)
        self._server.register(services["Streams"], StreamService(self.rig.group))
        self.client = self.connect()

    def connect(self) -> Client:
        ours, theirs = socket.socketpair()
        threading.Thread(target=self._server.serve_connection, args=(theirs,), daemon=True).start()
        return Client(ours, write_chunk=MAX_SEND)

    def call(self, method: str, request: Any) -> Any:
        return self.client.call(GUEST, method, request, getattr(pb, f"{method}Response"), timeout=60)

    def close(self) -> None:
        self.client.close()
        self._server.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    target = Served(tmp_path)
    yield target
    target.close()


def code(served: Served, method: str, request: Any) -> int:
    with pytest.raises(TtrpcError) as raised:
        served.call(method, request)
    return raised.value.code


def set_policy(served: Served, policy: bytes = b"policy") -> bytes:
    for offset in range(0, len(policy), POLICY_CHUNK):
        served.call("PutPolicy", pb.PutPolicyRequest(offset=offset, data=policy[offset : offset + POLICY_CHUNK]))
    digest: bytes = served.call("SetPolicy", pb.SetPolicyRequest(size=len(policy))).policy_sha256
    return digest


def layer(number: int = 0) -> pb.MountDeviceRequest:
    target = f"/run/mounts/scsi/m{number}"
    return pb.MountDeviceRequest(lun=number, target=target, device_hash=HASH, data_blocks=5)


def test_hello_needs_no_policy(served: Served) -> None:
    hello = served.call("Hello", pb.HelloRequest())
    assert (hello.tee, hello.phases[0].name, hello.phases[0].uptime_us) == ("none", "ready", 7)


def test_everything_else_does(served: Served) -> None:
    assert code(served, "MountDevice", layer()) == Status.FAILED_PRECONDITION
    assert code(served, "Evidence", pb.EvidenceRequest(nonce=bytes(64))) == Status.FAILED_PRECONDITION
    set_policy(served, b"p" * 50_000)
    served.call("MountDevice", layer())
    assert served.rig.kernel.mounted() == ["/run/mounts/scsi/m0"]


def test_errors_have_the_codes_of_the_contract(served: Served) -> None:
    set_policy(served)
    served.rig.engine.deny.add("mount_device")
    assert code(served, "MountDevice", layer()) == Status.PERMISSION_DENIED
    assert code(served, "MountDevice", pb.MountDeviceRequest()) == Status.INVALID_ARGUMENT
    unknown = pb.StatsRequest(container_id=str(CONTAINER))
    assert code(served, "Stats", unknown) == Status.NOT_FOUND
    assert code(served, "Hello", pb.HelloRequest.FromString(b"\xf2\x07\x01x")) == Status.INVALID_ARGUMENT
    assert code(served, "PutPolicy", pb.PutPolicyRequest(data=b"x")) == Status.FAILED_PRECONDITION


def test_a_denial_carries_the_policys_reason(served: Served) -> None:
    set_policy(served)
    served.rig.engine.deny.add("mount_device")
    with pytest.raises(TtrpcError, match="mount_device denied: because"):
        served.call("MountDevice", layer())


def test_a_bug_tells_its_type_only(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    set_policy(served)

    def bug(*_: object) -> None:
        raise KeyError("TOKEN=hunter2")

    monkeypatch.setattr(served.rig.layers, "attach", bug)
    with pytest.raises(TtrpcError) as raised:
        served.call("MountDevice", layer())
    assert "hunter2" not in raised.value.message
    assert code(served, "MountDevice", layer(1)) == Status.FAILED_PRECONDITION  # poisoned


def test_power_off_is_answered_first(served: Served) -> None:
    served.call("PowerOff", pb.PowerOffRequest())
    assert served.powered_off.wait(60)


def test_many_hosts_at_once_get_one_result_as_if_one_after_the_other(served: Served) -> None:
    set_policy(served)
    clients = [served.connect() for _ in range(8)]

    def attempt(number: int) -> int:
        try:
            clients[number % 8].call(GUEST, "MountDevice", layer(number % 4), pb.MountDeviceResponse, timeout=60)
        except TtrpcError as error:
            return error.code
        return 0

    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(attempt, range(64)))
    for client in clients:
        client.close()
    assert results.count(0) == 4
    assert results.count(Status.FAILED_PRECONDITION) == 60
    assert sorted(served.rig.kernel.mounted()) == [f"/run/mounts/scsi/m{number}" for number in range(4)]
    assert served.rig.state == ("mount_device",) * 4


def test_garbage_ends_its_connection_and_nothing_else(served: Served) -> None:
    for garbage in (os.urandom(4096), b"\0" * 100, b"\xff" * 10, b"GET / HTTP/1.1\r\n\r\n"):
        ours, theirs = socket.socketpair()
        thread = threading.Thread(target=served._server.serve_connection, args=(theirs,), daemon=True)
        thread.start()
        ours.sendall(garbage)
        ours.shutdown(socket.SHUT_WR)
        thread.join(60)
        assert not thread.is_alive()
        ours.close()
    assert served.call("Hello", pb.HelloRequest()).tee == "none"


def test_a_stream_of_an_unknown_process_fails(served: Served) -> None:
    set_policy(served)
    with served.client.stream("parma.guest.v1.Streams", "Stream", pb.StreamFrame) as stream:
        stream.send(pb.StreamFrame(open=pb.StreamOpen(container_id=str(CONTAINER), kind=pb.STDOUT)))
        with pytest.raises(TtrpcError) as raised:
            stream.recv(10)
    assert raised.value.code == Status.NOT_FOUND
