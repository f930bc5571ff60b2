# SPDX-License-Identifier: Apache-2.0
"""Status codes and the one exception of this package."""

from __future__ import annotations

import errno
import os
from enum import IntEnum
from typing import Final

OUT_OF_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Numbers of an ``OSError`` that may be none when tried again later."""


class Status(IntEnum):
    """The codes of ``google.rpc.Code``, which ttrpc shares with gRPC."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class TtrpcError(Exception):
    """A call that did not succeed.

    Attributes:
        code: a :class:`Status` value; a peer's unknown code is kept as the number it sent.
        message: one line for people.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = int(code)
        self.message = message

    def __repr__(self) -> str:
        return f"TtrpcError({self.code}, {self.message!r})"


MAX_STATUS_TEXT = 16 * 1024
"""Longest status message sent, in characters; the rest is cut off."""


def status_of(error: BaseException) -> tuple[int, str] | None:
    """The code and text to answer for an exception out of a handler.

    Any exception with a ``code`` attribute that is an error of ``google.rpc.Code`` counts, so that services can have
    their own hierarchy; so does the system's lack of descriptors or memory. ``None`` for all others: their text may
    tell more than the peer should know.
    """
    if isinstance(error, OSError) and error.errno in OUT_OF_RESOURCES:
        return Status.RESOURCE_EXHAUSTED, f"the server is out of resources: {os.strerror(error.errno)}"
    code = getattr(error, "code", None)
    if isinstance(error, Exception) and isinstance(code, int) and 0 < code <= Status.UNAUTHENTICATED:
        return int(code), str(error)[:MAX_STATUS_TEXT]
    return None
