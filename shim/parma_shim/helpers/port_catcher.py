# SPDX-License-Identifier: Apache-2.0
"""One listening socket for every TCP port on the loopback of a network namespace.

containerd forwards a port of a pod by connecting to localhost there. Which port is not known before, so a program of
the kernel's socket look-up (BPF, ``sk_lookup``) hands every new connection to 127.0.0.0/8 or ::1 to the one listener;
the accepted socket's own address has the port that was meant. The program is attached for as long as the descriptor of
its link is open. Linux 5.11 or newer; bpf(2), bpf-helpers(7), linux/bpf.h (``struct bpf_sk_lookup``).
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from parma_wire.errors import Unavailable

_SYSCALL: Final = 321  # x86-64
_MAP_CREATE, _MAP_UPDATE_ELEM, _PROG_LOAD, _LINK_CREATE = 0, 2, 5, 28
_MAP_TYPE_SOCKMAP: Final = 15
_PROG_TYPE_SK_LOOKUP: Final = 30
_ATTACH_SK_LOOKUP: Final = 36
_ATTRIBUTES: Final = 144  # bytes: larger than what is used of the union, and what is left is zero
_LICENSE: Final = b"Apache-2.0"
_BACKLOG: Final = 64

_FAMILY, _PROTOCOL, _LOCAL_IP4, _LOCAL_IP6 = 8, 12, 40, 44  # offsets in struct bpf_sk_lookup
_MAP_LOOKUP_ELEM, _SK_RELEASE, _SK_ASSIGN = 1, 86, 124  # helpers
_PASS: Final = 1

_LOAD_WORD, _LOAD_BYTE, _STORE_WORD, _LOAD_MAP = 0x61, 0x71, 0x62, 0x18
_MOVE, _MOVE_NUMBER, _ADD_NUMBER, _CALL, _EXIT = 0xBF, 0xB7, 0x07, 0x85, 0x95
_IF_EQUAL, _IF_NOT_EQUAL, _GOTO = 0x15, 0x55, 0x05
_R0, _R1, _R2, _R3, _R6, _R7, _FRAME = 0, 1, 2, 3, 6, 7, 10


def catch() -> tuple[int, int]:
    """In the namespace of the calling thread, whose loopback is up: descriptors of the listener and of the link.

    Raises Unavailable where the kernel cannot.
    """
    try:
        with (
            _listener() as listener,
            _closing(_bpf(_MAP_CREATE, struct.pack("<IIII", _MAP_TYPE_SOCKMAP, 4, 8, 1))) as map_,
        ):
            _put(map_, listener.fileno())
            with _closing(_load(_program(map_))) as program, _closing(_own_namespace()) as namespace:
                link = _bpf(_LINK_CREATE, struct.pack("<III", program, namespace, _ATTACH_SK_LOOKUP))
            return listener.detach(), link
    except OSError as error:
        message = f"connections to ports of the namespace cannot be caught: {error.strerror}"
        raise Unavailable(message, hint="it takes Linux 5.11 with CONFIG_BPF_SYSCALL") from error


def _listener() -> socket.socket:
    """For both families, where there are both: the program may assign an IPv6 socket to a connection by IPv4."""
    try:
        made = socket.socket(socket.AF_INET6, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        address = "::ffff:127.0.0.1"
    except OSError:
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        address = "127.0.0.1"
    try:
        if made.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind((address, 0))
        made.listen(_BACKLOG)
    except BaseException:
        made.close()
        raise
    return made


def _put(map_: int, descriptor: int) -> None:
    key, value = ctypes.c_uint32(0), ctypes.c_uint64(descriptor)
    _bpf(_MAP_UPDATE_ELEM, struct.pack("<IxxxxQQQ", map_, ctypes.addressof(key), ctypes.addressof(value), 0))


def _load(instructions: bytes) -> int:
    code, terms = ctypes.create_string_buffer(instructions), ctypes.create_string_buffer(_LICENSE)
    count = len(instructions) // 8
    head = (_PROG_TYPE_SK_LOOKUP, count, ctypes.addressof(code), ctypes.addressof(terms))
    # No log of the verifier, any kernel version, no flags.
    attributes = struct.pack("<IIQQIIQII16sII", *head, 0, 0, 0, 0, 0, b"parma_ports", 0, _ATTACH_SK_LOOKUP)
    return _bpf(_PROG_LOAD, attributes)


def _program(map_: int) -> bytes:
    """``if TCP and (IPv4 and local is 127/8 or IPv6 and local is ::1): assign the listener``; always pass."""
    family4, family6 = int(socket.AF_INET), int(socket.AF_INET6)
    source: list[tuple[str, bytes | tuple[int, int, str, int]]] = [
        ("", _one(_MOVE, _R6, _R1)),
        ("", _one(_LOAD_WORD, _R2, _R6, _PROTOCOL)),
        ("", (_IF_NOT_EQUAL, _R2, "pass", socket.IPPROTO_TCP)),
        ("", _one(_LOAD_WORD, _R2, _R6, _FAMILY)),
        ("", (_IF_EQUAL, _R2, "ipv4", family4)),
        ("", (_IF_NOT_EQUAL, _R2, "pass", family6)),
    ]
    for word, expected in enumerate((0, 0, 0, 0x01000000)):  # ::1 in network order, read by a little-endian machine
        source += [
            ("", _one(_LOAD_WORD, _R2, _R6, _LOCAL_IP6 + 4 * word)),
            ("", (_IF_NOT_EQUAL, _R2, "pass", expected)),
        ]
    source += [
        ("", (_GOTO, 0, "assign", 0)),
        ("ipv4", _one(_LOAD_BYTE, _R2, _R6, _LOCAL_IP4)),
        ("", (_IF_NOT_EQUAL, _R2, "pass", 127)),
        ("assign", _one(_STORE_WORD, _FRAME, 0, -4, 0)),
        ("", _one(_LOAD_MAP, _R1, 1, 0, map_)),
        ("", bytes(8)),
        ("", _one(_MOVE, _R2, _FRAME)),
        ("", _one(_ADD_NUMBER, _R2, 0, 0, -4)),
        ("", _one(_CALL, number=_MAP_LOOKUP_ELEM)),
        ("", (_IF_EQUAL, _R0, "pass", 0)),
        ("", _one(_MOVE, _R7, _R0)),
        ("", _one(_MOVE, _R1, _R6)),
        ("", _one(_MOVE, _R2, _R7)),
        ("", _one(_MOVE_NUMBER, _R3)),
        ("", _one(_CALL, number=_SK_ASSIGN)),
        ("", _one(_MOVE, _R1, _R7)),
        ("", _one(_CALL, number=_SK_RELEASE)),
        ("pass", _one(_MOVE_NUMBER, _R0, number=_PASS)),
        ("", _one(_EXIT)),
    ]
    places = {label: number for number, (label, _) in enumerate(source) if label}
    lines = []
    for number, (_, line) in enumerate(source):
        if isinstance(line, tuple):
            operation, register, target, value = line
            line = _one(operation, register, 0, places[target] - number - 1, value)
        lines.append(line)
    return b"".join(lines)


def _one(operation: int, to: int = 0, source: int = 0, offset: int = 0, number: int = 0) -> bytes:
    return struct.pack("<BBhi", operation, to | source << 4, offset, number)


def _own_namespace() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _bpf(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes.ljust(_ATTRIBUTES, b"\0"), _ATTRIBUTES)
    result = ctypes.CDLL(None, use_errno=True).syscall(_SYSCALL, command, buffer, _ATTRIBUTES)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(result)


@contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)
