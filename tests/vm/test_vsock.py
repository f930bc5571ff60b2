# SPDX-License-Identifier: Apache-2.0
"""Dialling the guest: the kernel's device with a made-up kernel, the process's with a made-up device."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from parma_shim.vm import vsock
from parma_shim.vm.dialing import Dialer, NotListeningError
from parma_shim.vm.spawn import spawn
from parma_wire.errors import DeadlineExceeded, Unavailable
from tests.descriptors import descriptors
from tests.vm.support import ENVIRONMENT, Settings, soon


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "v.sock"))
        server.listen()
        server.settimeout(60)
        yield server


def answer(listener: socket.socket, reply: bytes, *, close: bool = True) -> threading.Thread:
    """A vsock device that accepts one connection, reads the request and answers."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(100) == b"CONNECT 4050\n"
            connection.sendall(reply)
            if not close:
                connection.recv(100)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def dial(tmp_path: Path, timeout: float = 10) -> socket.socket:
    return Dialer(str(tmp_path / "v.sock")).dial(4050, timeout)


def test_after_ok_the_stream_begins(tmp_path: Path, listener: socket.socket) -> None:
    thread = answer(listener, b"OK 1073741824\nfirst bytes")
    with dial(tmp_path) as connection:
        assert connection.recv(100) == b"first bytes"
    thread.join(60)


@pytest.mark.parametrize("reply", [b"", b"NO\n", b"OK", b"x" * 100])
def test_anything_but_ok_means_that_nobody_listens(tmp_path: Path, listener: socket.socket, reply: bytes) -> None:
    thread = answer(listener, reply)
    with pytest.raises(NotListeningError):
        dial(tmp_path)
    thread.join(60)


def test_no_socket_means_that_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(NotListeningError):
        dial(tmp_path)


def test_an_attempt_without_an_answer_is_kept_and_goes_on(tmp_path: Path, listener: socket.socket) -> None:
    dialer = Dialer(str(tmp_path / "v.sock"))
    with pytest.raises(DeadlineExceeded):
        dialer.dial(4050, 0.05)
    device, _ = listener.accept()
    with device:
        assert device.recv(100) == b"CONNECT 4050\n"
        device.sendall(b"OK 10")  # nobody has hung up
        with pytest.raises(DeadlineExceeded):
            dialer.dial(4050, 0.05)
        device.sendall(b"73\nbytes")
        with dialer.dial(4050, 10) as connection:
            assert connection.recv(100) == b"bytes"


def test_attempts_for_different_ports_are_not_mixed_up_and_end_with_the_device(
    tmp_path: Path, listener: socket.socket
) -> None:
    dialer = Dialer(str(tmp_path / "v.sock"))
    devices = []
    for port in (4050, 4051):
        with pytest.raises(DeadlineExceeded):
            dialer.dial(port, 0.05)
        devices.append(listener.accept()[0])
    devices[1].sendall(b"OK 1\nsecond")
    with dialer.dial(4051, 10) as connection:
        assert connection.recv(100) == b"second"
    dialer.close()
    devices[0].recv(100)
    assert devices[0].recv(100) == b""
    for device in devices:
        device.close()


def test_the_kernel_device_takes_the_first_free_address(tmp_path: Path) -> None:
    (tmp_path / "dev").touch()
    numbers = iter([b"\0" * 8, b"\1" + b"\0" * 7])
    asked: list[int] = []

    def reserve(fd: int, cid: int) -> None:
        asked.append(cid)
        if len(asked) == 1:
            raise OSError(errno.EADDRINUSE, "in use")

    device = vsock.KernelVsock(tmp_path / "dev", reserve=reserve, random=lambda _: next(numbers))
    assert asked == [3, 4]
    assert device.cid == 4
    assert device.arguments == ["-device", f"vhost-vsock-pci,guest-cid=4,vhostfd={device.keep[0]}"]
    device.started()
    device.close()


@pytest.mark.parametrize("number", [errno.EADDRINUSE, errno.EPERM])
def test_no_address_is_one_error_and_leaves_nothing_open(tmp_path: Path, number: int) -> None:
    (tmp_path / "dev").touch()
    before = descriptors()

    def reserve(fd: int, cid: int) -> None:
        raise OSError(number, os.strerror(number))

    with pytest.raises(Unavailable, match="vsock address"):
        vsock.KernelVsock(tmp_path / "dev", reserve=reserve)
    assert descriptors() <= before


def fake_program(tmp_path: Path, script: str) -> Path:
    program = tmp_path / "vhost"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


def open_device(tmp_path: Path, program: Path | None, deadline: float) -> vsock.VsockDevice:
    settings = Settings(tmp_path)
    settings.vhost_device_vsock = program
    return vsock.open_device(
        settings, tmp_path, wrap=["/usr/bin/env"], environment=ENVIRONMENT, spawn=spawn, deadline=deadline
    )


@pytest.mark.skipif(vsock.VHOST_VSOCK.exists(), reason="this host has the kernel's device")
class TestWithoutTheKernelsDevice:
    def test_neither_device_is_one_error(self, tmp_path: Path) -> None:
        with pytest.raises(Unavailable, match=r"this host has no vsock.*modprobe"):
            open_device(tmp_path, None, soon())

    def test_the_process_is_waited_for_and_ended_with_its_sockets(self, tmp_path: Path) -> None:
        program = fake_program(tmp_path, "touch $4 $6; exec sleep 600")
        device = open_device(tmp_path, program, soon())
        assert device.child is not None
        pid = device.child.pid
        assert device.arguments[1] == f"socket,id=vsock,path={tmp_path}/vhost.sock"
        device.close()
        device.close()
        assert not Path(f"/proc/{pid}").exists()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["vhost"]

    def test_a_process_that_ends_at_once_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(Unavailable, match="ended at once"):
            open_device(tmp_path, fake_program(tmp_path, "exit 1"), soon())

    def test_a_process_that_never_listens_is_an_error_and_is_killed(self, tmp_path: Path) -> None:
        before = descriptors()
        with pytest.raises(DeadlineExceeded):
            open_device(tmp_path, fake_program(tmp_path, "exec sleep 600"), time.monotonic() + 0.1)
        assert descriptors() <= before

    def test_a_path_that_is_too_long_for_a_socket_is_an_error(self, tmp_path: Path) -> None:
        deep = tmp_path / ("d" * 100)
        with pytest.raises(Unavailable, match=r"too long.*state_dir"):
            vsock.UserVsock(Path("/bin/true"), deep, wrap=[], environment={}, spawn=spawn)
