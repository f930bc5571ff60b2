# SPDX-License-Identifier: Apache-2.0
"""The OCI ``linux.seccomp`` object: read strictly, hashed as policies hash it, rebuilt for the runtime.

A policy names a profile by the SHA-256 of the JSON that Go's ``encoding/json`` writes for the runtime-spec's
``LinuxSeccomp`` structure (field order of the structure, empty optional fields left out, ``<``, ``>``, ``&`` and the
two Unicode line separators escaped). So the host's JSON text itself is never hashed nor passed on: it is parsed into
`Profile`, and both the hash and the runtime's copy are made from that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from parma_wire.errors import Malformed, Unsupported

MAX_PROFILE_BYTES: Final = 256 * 1024
_MAX_NAMES: Final = 4096
_MAX_UINT64: Final = 2**64 - 1

_ACTIONS: Final = frozenset(
    "SCMP_ACT_" + name for name in ("KILL", "KILL_PROCESS", "KILL_THREAD", "TRAP", "ERRNO", "TRACE", "ALLOW", "LOG")
)
_OPERATORS: Final = frozenset("SCMP_CMP_" + name for name in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"))
_FLAGS: Final = frozenset(
    "SECCOMP_FILTER_FLAG_" + name for name in ("TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV")
)


class Argument(NamedTuple):
    """One comparison with a system call's argument."""

    position: int
    value: int
    value_two: int
    op: str


class Syscall(NamedTuple):
    """What happens for some system calls."""

    names: tuple[str, ...]
    action: str
    errno: int | None
    args: tuple[Argument, ...]


class Profile(NamedTuple):
    """A whole filter."""

    default_action: str
    default_errno: int | None
    architectures: tuple[str, ...]
    flags: tuple[str, ...]
    syscalls: tuple[Syscall, ...]

    def as_document(self) -> dict[str, object]:
        """The OCI object, with its fields in the order of the Go structure."""
        document: dict[str, object] = {"defaultAction": self.default_action}
        if self.default_errno is not None:
            document["defaultErrnoRet"] = self.default_errno
        if self.architectures:
            document["architectures"] = list(self.architectures)
        if self.flags:
            document["flags"] = list(self.flags)
        if self.syscalls:
            document["syscalls"] = [_syscall_document(call) for call in self.syscalls]
        return document

    def sha256(self) -> str:
        """The hash by which a policy names this profile."""
        return hashlib.sha256(go_json(self.as_document())).hexdigest()


def _syscall_document(call: Syscall) -> dict[str, object]:
    document: dict[str, object] = {"names": list(call.names), "action": call.action}
    if call.errno is not None:
        document["errnoRet"] = call.errno
    if call.args:
        document["args"] = [_argument_document(argument) for argument in call.args]
    return document


def _argument_document(argument: Argument) -> dict[str, object]:
    document: dict[str, object] = {"index": argument.position, "value": argument.value}
    if argument.value_two:
        document["valueTwo"] = argument.value_two
    document["op"] = argument.op
    return document


def go_json(document: object) -> bytes:
    """Compact JSON with the escapes of Go's encoder."""
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode()


def parse(data: bytes) -> Profile | None:
    """The profile in ``data``, or None where there is none (no bytes). Raises `Malformed` and `Unsupported`."""
    if not data:
        return None
    if len(data) > MAX_PROFILE_BYTES:
        raise Malformed("seccomp profile is too large", expected=f"at most {MAX_PROFILE_BYTES} bytes")
    try:
        document = json.loads(
            data.decode(), object_pairs_hook=_no_duplicates, parse_float=_refuse, parse_constant=_refuse
        )
    except (ValueError, RecursionError) as error:
        raise Malformed("seccomp profile is not JSON") from error
    fields = _fields(
        document, {"defaultAction", "defaultErrnoRet", "architectures", "flags", "listenerPath", "syscalls"}
    )
    if fields.get("listenerPath"):
        raise Unsupported("seccomp notification listeners are not supported")
    return Profile(
        default_action=_one_of(fields.get("defaultAction"), _ACTIONS, "action"),
        default_errno=_optional_number(fields.get("defaultErrnoRet"), 4095),
        architectures=tuple(_name(item) for item in _items(fields.get("architectures"))),
        flags=tuple(_one_of(item, _FLAGS, "flag") for item in _items(fields.get("flags"))),
        syscalls=tuple(_syscall(item) for item in _items(fields.get("syscalls"))),
    )


def _syscall(value: object) -> Syscall:
    fields = _fields(value, {"names", "action", "errnoRet", "args"})
    names = tuple(_name(item) for item in _items(fields.get("names")))
    if not names:
        raise Malformed("seccomp rule names no system call")
    return Syscall(
        names=names,
        action=_one_of(fields.get("action"), _ACTIONS, "action"),
        errno=_optional_number(fields.get("errnoRet"), 4095),
        args=tuple(_argument(item) for item in _items(fields.get("args"))),
    )


def _argument(value: object) -> Argument:
    fields = _fields(value, {"index", "value", "valueTwo", "op"})
    return Argument(
        position=_number(fields.get("index"), 5),
        value=_number(fields.get("value"), _MAX_UINT64),
        value_two=_number(fields.get("valueTwo", 0), _MAX_UINT64),
        op=_one_of(fields.get("op"), _OPERATORS, "operator"),
    )


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise Malformed("seccomp profile repeats a key")
    return fields


def _refuse(_text: str) -> None:
    raise Malformed("seccomp profile has a number that is not an integer")


def _fields(value: object, known: set[str]) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise Malformed("seccomp profile is malformed", expected="an object")
    unknown = value.keys() - known
    if unknown:
        raise Malformed("seccomp profile has an unknown field")
    return value


def _items(value: object) -> list[object]:
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > _MAX_NAMES:
        raise Malformed("seccomp profile is malformed", expected=f"a list of at most {_MAX_NAMES} items")
    return value


def _name(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 64 or not value.isascii() or not value.isprintable():
        raise Malformed("seccomp profile has a malformed name")
    return value


def _one_of(value: object, known: frozenset[str], what: str) -> str:
    if not isinstance(value, str) or value not in known:
        raise Malformed(f"seccomp profile has an unknown {what}")
    return value


def _number(value: object, largest: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= largest:
        raise Malformed("seccomp profile has a number out of range")
    return value


def _optional_number(value: object, largest: int) -> int | None:
    return None if value is None else _number(value, largest)
