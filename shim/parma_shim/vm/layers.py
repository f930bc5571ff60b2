# SPDX-License-Identifier: Apache-2.0
"""An image's layers on their way into the guest: found and converted by a helper, attached and mounted once each."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from parma_shim.helpers.call import Helper
from parma_shim.vm.undo import Undo
from parma_wire.errors import DeadlineExceeded, Malformed, ParmaError, Unavailable

MAX_LAYERS: Final = 128

_HASH: Final = re.compile("[0-9a-f]{64}", re.ASCII)
_MAX_BLOCKS: Final = 1 << 40


class Layer(NamedTuple):
    """A converted layer: an ext4 image with its verity tree, opened read-only as ``fd``."""

    root_hash: str  # 64 lower-case hex digits
    data_blocks: int  # of 4096 bytes
    fd: int


class DiskPort(Protocol):
    """What is needed of the VM."""

    def attach_descriptor(self, fd: int, *, readonly: bool, deadline: float) -> int: ...

    def detach_disk(self, lun: int, *, deadline: float) -> None: ...


class DevicePort(Protocol):
    """What is needed of the guest."""

    def mount_device(
        self, lun: int, target: str, device_hash: str, data_blocks: int, *, deadline: float | None = None
    ) -> None: ...

    def unmount_device(self, target: str, *, deadline: float | None = None) -> None: ...


class LayerSource(Protocol):
    """Layers being made ready, base layer first."""

    @property
    def error(self) -> ParmaError | None:
        """What went wrong, so far."""

    def layers(self, *, deadline: float) -> list[Layer]:
        """Wait for them. Raises what went wrong."""

    def close(self) -> None:
        """Give up and release every descriptor. Idempotent."""


class LayerJob:
    """The helper process ``layers``, watched by a thread so that a failure is known at once.

    ``on_failure`` is called from that thread, at most once: booting a VM for an image that has no layers is of no use.
    """

    def __init__(
        self, python: Path, request: Mapping[str, object], *, deadline: float, on_failure: Callable[[], None]
    ) -> None:
        self._receiver, sender = socket.socketpair()
        try:
            arguments = ["--descriptors", str(sender.fileno())]
            self._helper: Final = Helper(python, "layers", arguments, keep=(sender.fileno(),))
        except BaseException:
            self._receiver.close()
            raise
        finally:
            sender.close()
        self._request: Final = request
        self._deadline: Final = deadline
        self._on_failure: Final = on_failure
        self._layers: list[Layer] = []
        self._error: ParmaError | None = None
        self._thread: Final = threading.Thread(target=self._run, name="layers", daemon=True)
        self._thread.start()

    def layers(self, *, deadline: float) -> list[Layer]:
        """The layers, base first. They stay this object's; close it when they are attached."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            raise DeadlineExceeded("the image's layers were not ready in time")
        if self._error is not None:
            raise self._error
        return self._layers

    @property
    def error(self) -> ParmaError | None:
        """What went wrong, so far."""
        return self._error

    def close(self) -> None:
        """Kill the helper and close every descriptor."""
        self._helper.abort()
        self._thread.join()
        self._receiver.close()
        for layer in self._layers:
            os.close(layer.fd)
        self._layers = []

    def _run(self) -> None:
        try:
            answer = self._helper.exchange(self._request, deadline=self._deadline)
            self._layers = receive_layers(self._receiver, answer)
        except ParmaError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001  # a thread has nobody above it: this is where it is told
            self._fail(Unavailable(f"the image's layers could not be had: {type(error).__name__}: {error}"))

    def _fail(self, error: ParmaError) -> None:
        self._error = error
        self._on_failure()


def receive_layers(receiver: socket.socket, answer: Mapping[str, Any]) -> list[Layer]:
    """Pair the helper's answer with the descriptors it sent, one message each, in the same order."""
    receiver.setblocking(False)
    fds = []
    try:
        while True:
            data, received, _, _ = socket.recv_fds(receiver, 1, 1)
            fds += received
            if not data:
                break
    except BlockingIOError:
        pass
    try:
        layers = [_layer(entry, fd) for entry, fd in zip(answer["layers"], fds, strict=True)]
    except (KeyError, TypeError, ValueError) as error:
        _close(fds)
        raise Malformed("the helper process layers wrote nonsense") from error
    if not 0 < len(layers) <= MAX_LAYERS:
        _close(fds)
        raise Malformed(f"the image has {len(layers)} layers", expected=f"1 to {MAX_LAYERS}")
    return layers


def _layer(entry: Mapping[str, Any], fd: int) -> Layer:
    root_hash, blocks = entry["root_hash"], int(entry["data_blocks"])
    if not _HASH.fullmatch(root_hash) or not 0 < blocks <= _MAX_BLOCKS:
        raise ValueError(root_hash)
    return Layer(root_hash, blocks, fd)


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


class _Mounted:
    """A layer in the guest, used by ``users`` containers."""

    __slots__ = ("key", "lun", "number", "users")

    def __init__(self, key: tuple[str, int], number: int, lun: int) -> None:
        self.key = key
        self.number = number
        self.lun = lun
        self.users = 0

    @property
    def target(self) -> str:
        return f"/run/mounts/scsi/m{self.number}"


class LayerTable:
    """Layers mounted in one guest, shared between its containers. The group's set-up lock is held around every call.

    An image can have the same layer twice (an empty one, usually). The policy lists it twice, and an overlay takes no
    directory twice, so the second occurrence is mounted once more: the key is (root hash, occurrence).
    """

    def __init__(self, disks: DiskPort, guest: DevicePort, *, timeout: float) -> None:
        self._disks: Final = disks
        self._guest: Final = guest
        self._timeout: Final = timeout
        self._mounted: dict[tuple[str, int], _Mounted] = {}

    def mount(self, layers: Sequence[Layer], undo: Undo, *, deadline: float) -> list[str]:
        """Mount what is not mounted yet; returns the mount points in the order of ``layers``.

        ``undo`` receives what gives each layer back. A layer that fails is undone here, those before it there.
        """
        targets: list[str] = []
        seen: dict[str, int] = {}
        for layer in layers:
            occurrence = seen.get(layer.root_hash, 0)
            seen[layer.root_hash] = occurrence + 1
            key = (layer.root_hash, occurrence)
            mounted = self._mounted.get(key) or self._mount(key, layer, deadline)
            mounted.users += 1
            undo.push(f"unmounting layer {layer.root_hash}", lambda mounted=mounted: self._release(mounted))  # type: ignore[misc]
            targets.append(mounted.target)
        return targets

    def _mount(self, key: tuple[str, int], layer: Layer, deadline: float) -> _Mounted:
        lun = self._disks.attach_descriptor(layer.fd, readonly=True, deadline=deadline)
        used = {mounted.number for mounted in self._mounted.values()}
        number = next(candidate for candidate in range(len(used) + 1) if candidate not in used)
        mounted = _Mounted(key, number, lun)
        try:
            self._guest.mount_device(lun, mounted.target, layer.root_hash, layer.data_blocks, deadline=deadline)
        except BaseException:
            with contextlib.suppress(ParmaError):  # the first error is the one to know
                self._disks.detach_disk(lun, deadline=time.monotonic() + self._timeout)
            raise
        self._mounted[key] = mounted
        return mounted

    def _release(self, mounted: _Mounted) -> None:
        mounted.users -= 1
        if mounted.users > 0:
            return
        # If the guest refuses, the mount point and the disk stay taken.
        self._guest.unmount_device(mounted.target)
        del self._mounted[mounted.key]
        self._disks.detach_disk(mounted.lun, deadline=time.monotonic() + self._timeout)
