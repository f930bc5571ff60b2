# SPDX-License-Identifier: Apache-2.0
"""The one error hierarchy.

::

    ParmaError            what was wrong, what was expected, a hint
    +-- Denied            the policy said no
    +-- Malformed         the other side sent nonsense
    +-- NotFound          the thing named does not exist
    +-- AlreadyExists     the name is taken
    +-- FailedPrecondition  the thing exists, but not in a state that allows this
    +-- Unsupported       a request that is understood and deliberately not implemented
    +-- Unverified        could not decide whether something is genuine; treated as a no
    +-- Unavailable       we failed: a resource, a process or the peer is missing or broken
        +-- DeadlineExceeded  it did not answer in time

``code`` is the google.rpc.Code that containerd and the guest protocol use for the class; it is the only
place where the two are related.
"""

from __future__ import annotations

from typing import ClassVar, Final


class ParmaError(Exception):
    """Base of all errors of Parma. ``str()`` is one line fit for a user of ``ctr``."""

    code: ClassVar[int] = 2  # UNKNOWN

    def __init__(self, message: str, *, expected: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message: Final = message
        self.expected: Final = expected
        self.hint: Final = hint

    def __str__(self) -> str:
        text = self.message
        if self.expected:
            text += f"; expected {self.expected}"
        if self.hint:
            text += f" (hint: {self.hint})"
        return text


class Denied(ParmaError):
    """The execution policy does not allow it."""

    code = 7  # PERMISSION_DENIED


class Malformed(ParmaError):
    """Input that no honest peer or user would send, or that cannot be understood."""

    code = 3  # INVALID_ARGUMENT


class NotFound(ParmaError):
    """No such container, process, image, blob or file."""

    code = 5  # NOT_FOUND


class AlreadyExists(ParmaError):
    """The id is in use, or was used before and cannot be used again."""

    code = 6  # ALREADY_EXISTS


class FailedPrecondition(ParmaError):
    """The object is not in a state in which the request makes sense."""

    code = 9  # FAILED_PRECONDITION


class Unsupported(ParmaError):
    """Deliberately not implemented."""

    code = 12  # UNIMPLEMENTED


class Unverified(ParmaError):
    """Could not be shown to be genuine. Fails closed."""

    code = 9  # FAILED_PRECONDITION


class Unavailable(ParmaError):
    """Something we need is missing, broken or full."""

    code = 14  # UNAVAILABLE


class DeadlineExceeded(Unavailable):
    """No answer in time."""

    code = 4  # DEADLINE_EXCEEDED


_BY_CODE: Final[dict[int, type[ParmaError]]] = {
    cls.code: cls
    for cls in (
        Denied,
        Malformed,
        NotFound,
        AlreadyExists,
        FailedPrecondition,
        Unsupported,
        Unavailable,
        DeadlineExceeded,
    )
}


def from_code(code: int, message: str) -> ParmaError:
    """The error class for a google.rpc.Code received from a peer; unknown codes give the base class."""
    return _BY_CODE.get(code, ParmaError)(message)
