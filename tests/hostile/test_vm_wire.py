# SPDX-License-Identifier: Apache-2.0
"""Rows about streams and the transport in a booted guest: floods, stalls, frames and messages that are none."""

from __future__ import annotations

import os
import time

import pytest

from parma_wire import guest_pb2 as pb
from parma_wire.errors import Denied, FailedPrecondition, NotFound, ParmaError, from_code
from tests.guest import vm_harness as vm
from tests.hostile.stage import GIGABYTE, Stage
from ttrpc import TtrpcError, envelope, frames

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

SERVICE = "parma.guest.v1.Guest"


def frame(stream_id: int, kind: int, payload: bytes, length: int | None = None) -> bytes:
    """The ten bytes of ttrpc's header, true or not, and what follows."""
    size = len(payload) if length is None else length
    return size.to_bytes(4, "big") + stream_id.to_bytes(4, "big") + bytes([kind, 0]) + payload


def request(method: str, payload: bytes, stream_id: int = 1) -> bytes:
    """A request as a frame."""
    body = envelope.encode_request(envelope.Request(SERVICE, method, payload, 0, {}))
    return frame(stream_id, frames.REQUEST, body)


def test_R41_no_second_policy_is_taken_in_pieces_or_whole(stage: Stage) -> None:
    with pytest.raises(FailedPrecondition, match="already"):
        stage.guest.call("PutPolicy", pb.PutPolicyRequest(data=b"package policy"))
    with pytest.raises(FailedPrecondition, match="already"):
        stage.guest.call("SetPolicy", pb.SetPolicyRequest(size=14))


def test_R51_a_gigabyte_of_denied_output_blocks_nobody(stage: Stage) -> None:
    name = stage.new_id()
    stage.make_rootfs(name, "base")
    stage.guest.create(GIGABYTE, name)
    stage.guest.start(name)
    assert stage.guest.read_all(name) == b""
    assert stage.guest.wait(name) == 5
    stage.remove(name)


def test_R54_a_denied_process_ends_request_and_streams_at_once(stage: Stage) -> None:
    with stage.container() as name:
        evil = pb.ExecProcessRequest(container_id=name, exec_id="evil", process=vm.process(["/bin/sh"]))
        began = time.monotonic()
        with pytest.raises(Denied):
            stage.guest.call("ExecProcess", evil)
        for kind in (pb.STDIN, pb.STDOUT, pb.STDERR):
            stream = stage.guest.stream(name, kind, "evil")
            with pytest.raises(TtrpcError) as caught:
                stream.recv(60)
            assert isinstance(from_code(caught.value.code, ""), NotFound)
        with pytest.raises(NotFound):
            stage.guest.call("WaitProcess", pb.WaitProcessRequest(container_id=name, exec_id="evil"))
        assert time.monotonic() - began < 30  # of which a second is the guest's on an idle machine


def test_R56_stalled_connections_and_half_frames_hold_nobody_up(stage: Stage) -> None:
    sockets = [stage.guest.dial() for _ in range(24)]
    for number, sock in enumerate(sockets):
        sock.sendall((request("Hello", b"")[: 1 + number % 20], frame(1, frames.REQUEST, b"", 4 << 20))[number % 2])
    assert stage.run_once("hello") == ["hello"]
    for sock in sockets:
        sock.close()


def test_R60_frames_that_are_none_end_their_connection_and_nothing_else(stage: Stage) -> None:
    good = request("Hello", b"")
    for data in (
        os.urandom(5000),
        bytes(4000),
        b"\xff" * 4000,
        b"GET / HTTP/1.1\r\nHost: guest\r\n\r\n",
        frame(1, frames.REQUEST, b"x", 2**32 - 1),
        frame(2, frames.REQUEST, good[10:]),
        good + good,  # the same stream id again
        frame(1, frames.DATA, b"x" * 100) + good,
        frame(3, frames.RESPONSE, b"") * 50,
        good[:7],
        frame(1, 77, b"x") * 100,
    ):
        sock = stage.guest.dial()
        sock.sendall(data)
        sock.close()
    assert stage.guest.call("Hello", pb.HelloRequest()).tee == "none"


def test_R61_messages_that_explode_are_refused(stage: Stage) -> None:
    nested = b"\x0b" * 20_000  # groups without an end
    group = b"\x0b" * 90 + b"\x0c" * 90
    many = b"\x0a\x00" * 400_000  # Process.args: empty strings
    process = b"\x12" + _varint(len(many)) + many
    sysctls = b"\x3a\x06\x0a\x01a\x12\x01b" * 50_000
    for payload in (nested, group, process, sysctls, b"\x80" * 100, b"\x12\xff\xff\xff\xff\x0f"):
        sock = stage.guest.dial()
        sock.sendall(request("CreateContainer", payload))
        sock.settimeout(60)
        with sock.makefile("rb") as answer:
            header = answer.read(10)
            assert len(header) == 10
            reply = envelope.decode_response(answer.read(int.from_bytes(header[:4], "big")))
        assert isinstance(from_code(reply.code, reply.message), ParmaError)
        sock.close()


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
