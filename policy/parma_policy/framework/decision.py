# SPDX-License-Identifier: Apache-2.0
"""What the framework answers."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from parma_policy.model import Capabilities


class Kind(enum.Enum):
    """Why a request is denied, if it is."""

    ALLOWED = "allowed"
    DENIED = "denied"
    """The policy says no."""
    POLICY_ERROR = "policy_error"
    """The policy says nothing usable: no rule for the point, no version, or no such point."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One rule that a request failed, for people and for programs.

    ``expected`` and ``actual`` are ready to print; environment values never are in them.
    """

    code: str
    """Stable, like ``command``; unique together with the enforcement point."""
    text: str
    """What is wrong, a short clause."""
    topic: str
    """The reference enforcer's words for it, as existing users know them. May have details behind a colon."""
    expected: str = ""
    actual: str = ""
    change: str = ""
    """What in the policy would have to change for this rule to hold."""

    def __str__(self) -> str:
        text = self.text
        if self.expected:
            text += f": expected {self.expected}"
            if self.actual:
                text += f", got {self.actual}"
        elif self.actual:
            text += f": got {self.actual}"
        return text


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one request. What is not decided at a point has its default here."""

    allowed: bool
    point: str
    kind: Kind = Kind.ALLOWED
    reasons: tuple[Reason, ...] = ()
    """The first is the first rule that fails, for the candidate that came closest."""
    env_list: tuple[str, ...] | None = None
    """The variables that may be kept, in the order given; None: all of them."""
    caps: Capabilities | None = None
    """The capabilities that may be kept; None: those asked for."""
    allow_stdio_access: bool = False
    providers_to_keep: tuple[str, ...] | None = None
    allowed_ledgers: tuple[str, ...] | None = None
    add_module: bool = False
    attestation: frozenset[str] = frozenset()
    """What of attestation a created container may reach (``parma_policy.attestation``)."""
    identity: bytes = b""
    """What keys derived for the container are bound to."""

    def message(self) -> str:
        """One line for the user whose request this was. Empty where it is allowed."""
        if self.allowed:
            return ""
        return f"{self.point} denied: {self.reasons[0] if self.reasons else 'the policy does not allow it'}"

    def hint(self) -> str:
        """What in the policy would have to change, or an empty string."""
        return self.reasons[0].change if self.reasons else ""

    def topics(self) -> tuple[str, ...]:
        """The reasons in the reference enforcer's words, sorted, each once."""
        return tuple(sorted({reason.topic for reason in self.reasons}))


def denied(point: str, *reasons: Reason) -> Decision:
    """The policy says no."""
    return Decision(allowed=False, point=point, kind=Kind.DENIED, reasons=reasons)


def policy_error(point: str, code: str, text: str) -> Decision:
    """The policy says nothing usable."""
    return Decision(allowed=False, point=point, kind=Kind.POLICY_ERROR, reasons=(Reason(code, text, text),))


def allowed(point: str) -> Decision:
    """The policy says yes."""
    return Decision(allowed=True, point=point)
