# SPDX-License-Identifier: Apache-2.0
"""Users and groups of an image, as containerd resolves them when it makes a container's specification.

A ``user`` is ``uid``, ``name``, ``uid:gid`` or ``name:group``, resolved against the image's own ``/etc/passwd`` and
``/etc/group``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from parma_wire.errors import Malformed, NotFound

_MAX_ID: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Account:
    """Who a process runs as. ``groups`` has the primary group and all others, each once, ascending."""

    uid: int
    gid: int
    groups: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _User:
    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class _Group:
    name: str
    gid: int
    members: tuple[str, ...]


def resolve(user: str, passwd: bytes, group: bytes) -> Account:
    """The account that ``user`` (empty: root) is in an image with these files.

    Raises NotFound for a name that the image does not have, Malformed for a number out of range.
    """
    users, groups = _users(passwd), _groups(group)
    if not user:
        return _with_groups(0, 0, "root", groups)
    name, colon, group_name = user.partition(":")
    found = _find_user(name, users)
    gid = _find_group(group_name, groups) if colon else found.gid
    return _with_groups(found.uid, gid, found.name, groups)


def _find_user(name: str, users: Sequence[_User]) -> _User:
    if name.isascii() and name.isdigit():
        uid = _number(name)
        return next((user for user in users if user.uid == uid), _User("", uid, 0))
    for user in users:
        if user.name == name:
            return user
    raise NotFound(f"the image has no user {name!r}", hint="give the numeric id with --user")


def _find_group(name: str, groups: Sequence[_Group]) -> int:
    if name.isascii() and name.isdigit():
        return _number(name)
    for group in groups:
        if group.name == name:
            return group.gid
    raise NotFound(f"the image has no group {name!r}", hint="give the numeric ids with --user")


def _number(text: str) -> int:
    if len(text) > 10 or int(text) > _MAX_ID:
        raise Malformed(f"user or group id {text[:20]} is too large", expected=f"at most {_MAX_ID}")
    return int(text)


def _with_groups(uid: int, gid: int, name: str, groups: Sequence[_Group]) -> Account:
    more = {group.gid for group in groups if name and name in group.members}
    return Account(uid, gid, tuple(sorted({gid, *more})))


def _fields(data: bytes, count: int) -> list[list[str]]:
    lines = [line.strip().split(":") for line in data.decode("utf-8", "replace").splitlines()]
    return [fields for fields in lines if len(fields) >= count]


def _users(passwd: bytes) -> list[_User]:
    return [
        _User(fields[0], int(fields[2]), int(fields[3]))
        for fields in _fields(passwd, 4)
        if _is_id(fields[2]) and _is_id(fields[3])
    ]


def _groups(group: bytes) -> list[_Group]:
    return [
        _Group(fields[0], int(fields[2]), tuple(fields[3].split(",")) if len(fields) > 3 else ())
        for fields in _fields(group, 3)
        if _is_id(fields[2])
    ]


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10
