# SPDX-License-Identifier: Apache-2.0
"""What the enforcer and a container's agent say to each other, on a socket pair that keeps messages apart.

::

    enforcer -> agent   Setup, once, with the listening sockets as descriptors
    agent -> enforcer   "R" VMPL REPORT_DATA   a report            (1 + 1 + 64 bytes)
                        "K" CONTEXT            a derived key       (1 + up to 64 bytes)
    enforcer -> agent   0 result, or 1 and a text for the container

The agent is believed nothing: it serves a container, and may have been taken over by it.
"""

from __future__ import annotations

import json
from typing import Final, NamedTuple

from parma_guest.sevguest import MAX_VMPL, REPORT_DATA_SIZE
from parma_wire.errors import Malformed

MAX_CONTEXT: Final = 64
"""Bytes by which a container may tell its derived keys apart."""

MAX_QUESTION: Final = 1 + 1 + REPORT_DATA_SIZE
MAX_ANSWER: Final = 4096
MAX_SETUP: Final = 128 * 1024
"""The kernel's default for one message is 208 KiB."""

_REPORT: Final = b"R"
_KEY: Final = b"K"
_GOOD: Final = b"\0"
_BAD: Final = b"\1"


class Setup(NamedTuple):
    """What an agent serves; the texts are as the endpoints hand them out, empty where the host gave none."""

    device: bool
    paths: tuple[str, ...]
    """The HTTP endpoints that the policy lets the container reach."""
    ports: tuple[int, ...]
    """Those of the listening sockets, in their order."""
    host_amd_cert: str
    reference_info: str

    def pack(self) -> bytes:
        """One message."""
        return json.dumps(self).encode()

    @classmethod
    def unpack(cls, data: bytes) -> Setup:
        """From the enforcer, which is trusted."""
        device, paths, ports, *endorsements = json.loads(data)
        return cls(device, tuple(paths), tuple(ports), *endorsements)


class ReportQuestion(NamedTuple):
    """A report is wanted."""

    report_data: bytes
    vmpl: int

    def pack(self) -> bytes:
        """One message."""
        return _REPORT + bytes((self.vmpl,)) + self.report_data


class KeyQuestion(NamedTuple):
    """A derived key is wanted."""

    context: bytes

    def pack(self) -> bytes:
        """One message."""
        return _KEY + self.context


def parse_question(message: bytes) -> ReportQuestion | KeyQuestion:
    """A question of the agent's. Raises `Malformed`."""
    kind, body = message[:1], message[1:]
    if kind == _REPORT and len(body) == 1 + REPORT_DATA_SIZE and body[0] <= MAX_VMPL:
        return ReportQuestion(body[1:], body[0])
    if kind == _KEY and len(body) <= MAX_CONTEXT:
        return KeyQuestion(body)
    raise Malformed("an agent asks for something that there is not")


def good(result: bytes) -> bytes:
    """The answer to a question that was answered."""
    return _GOOD + result


def bad(reason: str) -> bytes:
    """The answer to one that was not; the container may see the reason."""
    return _BAD + reason.encode()[: MAX_ANSWER - 1]


def parse_answer(message: bytes) -> tuple[bytes, str]:
    """Result and reason, of which one is empty."""
    if message[:1] == _GOOD:
        return message[1:], ""
    return b"", message[1:].decode(errors="replace") or "no answer"
