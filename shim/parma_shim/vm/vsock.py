# SPDX-License-Identifier: Apache-2.0
"""The host's end of virtio-vsock: the kernel's, or ``vhost-device-vsock`` where the kernel has none.

Both give QEMU arguments, descriptors to inherit, and a way to dial a port of the guest. Nothing listens on the host:
every connection is made by the shim.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

from parma_shim.vm.dialing import Dialer, NotListeningError
from parma_shim.vm.settings import VmSettings
from parma_shim.vm.spawn import Child, Spawner, reap, send_signal, wait_exit
from parma_wire.errors import DeadlineExceeded, Unavailable

VHOST_VSOCK: Final = Path("/dev/vhost-vsock")
SOCKET: Final = "vsock.sock"
"""In a VM's directory: where ``vhost-device-vsock`` is dialled."""

_SET_GUEST_CID: Final = 0x4008AF60  # VHOST_VSOCK_SET_GUEST_CID, _IOW(0xAF, 0x60, __u64)
_FIRST_CID: Final = 3
_CID_COUNT: Final = 0x7FFF_0000
_CID_ATTEMPTS: Final = 32
_MAX_UNIX_PATH: Final = 107
_USER_CID: Final = 3  # each vhost-device-vsock serves one VM, so the number only has to be a valid one


class VsockDevice(Protocol):
    """One VM's vsock device."""

    @property
    def arguments(self) -> list[str]:
        """QEMU arguments."""

    @property
    def keep(self) -> tuple[int, ...]:
        """Descriptors that QEMU inherits."""

    @property
    def child(self) -> Child | None:
        """The device's own process, if it has one."""

    @property
    def cid(self) -> int:
        """The guest's address on this machine; 0: it has none, and is dialled through ``SOCKET``."""

    def dial(self, port: int, timeout: float) -> socket.socket:
        """One attempt to connect. Raises NotListeningError, or DeadlineExceeded after ``timeout`` seconds."""

    def started(self) -> None:
        """QEMU has been started; what only it needs can be closed."""

    def close(self) -> None:
        """Release everything. Idempotent."""


class KernelVsock:
    """``/dev/vhost-vsock``.

    Guest CIDs are global to the machine. The number is reserved by setting it on the descriptor that QEMU then gets:
    the kernel refuses a second owner and frees it with the last close, so no lock file can be left behind.
    """

    child: Final = None

    def __init__(
        self,
        device: Path = VHOST_VSOCK,
        *,
        reserve: Callable[[int, int], None] | None = None,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        try:
            self._fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise Unavailable(f"cannot open {device}: {error.strerror}") from error
        try:
            self.cid: Final = self._allocate(reserve or _set_guest_cid, random)
        except BaseException:
            self.close()
            raise

    def _allocate(self, reserve: Callable[[int, int], None], random: Callable[[int], bytes]) -> int:
        for _ in range(_CID_ATTEMPTS):
            cid = _FIRST_CID + int.from_bytes(random(8), "little") % _CID_COUNT
            try:
                reserve(self._fd, cid)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                raise Unavailable(f"cannot reserve a vsock address: {error.strerror}") from error
            return cid
        raise Unavailable("cannot reserve a vsock address: all those tried are in use")

    @property
    def arguments(self) -> list[str]:
        """QEMU arguments."""
        return ["-device", f"vhost-vsock-pci,guest-cid={self.cid},vhostfd={self._fd}"]

    @property
    def keep(self) -> tuple[int, ...]:
        """Descriptors that QEMU inherits."""
        return (self._fd,)

    def dial(self, port: int, timeout: float) -> socket.socket:
        """One attempt to connect."""
        connection = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        try:
            connection.settimeout(timeout)
            connection.connect((self.cid, port))
            connection.settimeout(None)
        except TimeoutError:
            connection.close()
            raise DeadlineExceeded("the guest did not answer on vsock") from None
        except OSError as error:
            connection.close()
            raise NotListeningError(str(error)) from error
        return connection

    def started(self) -> None:
        """QEMU owns the address now."""
        self.close()

    def close(self) -> None:
        """Release the address, unless QEMU holds it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _set_guest_cid(fd: int, cid: int) -> None:
    fcntl.ioctl(fd, _SET_GUEST_CID, struct.pack("=Q", cid))


class UserVsock:
    """A ``vhost-device-vsock`` process, dialled over its Unix socket with ``CONNECT <port>``.

    Version 0.3.0 stalls for good once 262,144 bytes went one way with nothing coming back, and loses packets of 64 KiB:
    see ``parma_wire.limits``.
    """

    keep: Final[tuple[int, ...]] = ()
    cid: Final = 0

    def __init__(
        self, program: Path, directory: Path, *, wrap: list[str], environment: Mapping[str, str], spawn: Spawner
    ) -> None:
        self._control: Final = directory / "vhost.sock"
        self._socket: Final = directory / SOCKET
        for path in (self._control, self._socket):
            if len(os.fsencode(path)) > _MAX_UNIX_PATH:
                raise Unavailable(f"the path {path} is too long for a socket", hint="set a shorter state_dir")
        argv = [*wrap, str(program), "--guest-cid", str(_USER_CID), "--socket", str(self._control)]
        argv += ["--uds-path", str(self._socket)]
        self.child: Final = spawn(argv, environment=environment)
        self._dialer: Final = Dialer(str(self._socket))
        self._lock: Final = threading.Lock()
        self._closed = False

    def wait_ready(self, *, deadline: float) -> None:
        """Wait until it listens. Raises Unavailable when it ends instead, or DeadlineExceeded."""
        while not self._control.exists():
            if wait_exit(self.child, 0.005):
                raise Unavailable("vhost-device-vsock ended at once", hint="is vhost_device_vsock in the config right?")
            if time.monotonic() > deadline:
                raise DeadlineExceeded("vhost-device-vsock did not come up in time")

    @property
    def arguments(self) -> list[str]:
        """QEMU arguments."""
        path = str(self._control).replace(",", ",,")
        return ["-chardev", f"socket,id=vsock,path={path}", "-device", "vhost-user-vsock-pci,chardev=vsock"]

    def dial(self, port: int, timeout: float) -> socket.socket:
        """One attempt to connect."""
        return self._dialer.dial(port, timeout)

    def started(self) -> None:
        """The process stays for as long as the VM."""

    def close(self) -> None:
        """End the process and remove its sockets."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        send_signal(self.child, signal.SIGKILL)
        reap(self.child)
        os.close(self.child.pidfd)
        self._dialer.close()
        for path in (self._control, self._socket):
            path.unlink(missing_ok=True)


def open_device(
    settings: VmSettings,
    directory: Path,
    *,
    wrap: list[str],
    environment: Mapping[str, str],
    spawn: Spawner,
    deadline: float,
) -> VsockDevice:
    """The kernel's device where there is one, else a ``vhost-device-vsock`` process. Raises Unavailable for neither."""
    if VHOST_VSOCK.exists():
        return KernelVsock()
    program = settings.vhost_device_vsock
    if program is None or not program.is_file():
        raise Unavailable(
            "this host has no vsock",
            expected=f"{VHOST_VSOCK} (kernel module vhost_vsock) or the program vhost-device-vsock",
            hint="modprobe vhost_vsock, or set vhost_device_vsock in the config",
        )
    device = UserVsock(program, directory, wrap=wrap, environment=environment, spawn=spawn)
    try:
        device.wait_ready(deadline=deadline)
    except BaseException:
        device.close()
        raise
    return device
