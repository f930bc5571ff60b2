# SPDX-License-Identifier: Apache-2.0
"""What the framework answers."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass

from parma_policy.model import Capabilities

MAX_SHOWN = 300
"""Characters of one value in a reason."""
MAX_MESSAGE = 1600
"""Characters of a whole message: what every hop to the user's terminal passes on uncut."""


def shown(value: object) -> str:
    """A value on one line of printable ASCII, shortened."""
    text = json.dumps(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


class Kind(enum.Enum):
    """Why a request is denied, if it is."""

    ALLOWED = "allowed"
    DENIED = "denied"
    """The policy says no."""
    POLICY_ERROR = "policy_error"
    """The policy says nothing usable: no rule for the point, no version, or no such point."""
    ERROR = "error"
    """A rule of the policy's own says yes, and then something about the request that makes no sense."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One rule that a request failed, for people and for programs.

    ``expected`` and ``actual`` are ready to print. Values of environment variables and arguments of commands are in
    them only where the policy says so (``denials_show_environment``, ``denials_show_arguments``).
    """

    code: str
    """Stable, like ``command``; unique together with the enforcement point. ``framework.codes`` lists all."""
    text: str
    """What is wrong, a short clause."""
    topic: str
    """The reference enforcer's words for it, as existing users know them. May have details behind a colon."""
    expected: str = ""
    actual: str = ""
    change: str = ""
    """What in the policy would have to change for this rule to hold."""
    where: str = ""
    """The place in the policy that the rule stands at, like ``containers[0].command[2]``; empty where there is none."""

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
    """The first is the first rule that fails, for the candidate that came closest. With ``allowed``: see
    ``overridden``."""
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

    @property
    def overridden(self) -> bool:
        """Whether it is allowed only because the policy is permissive; ``reasons`` then says what was against it."""
        return self.allowed and bool(self.reasons)

    def message(self) -> str:
        """One line for the user whose request this was: what failed, expected and actual value, what would have to
        change, and in brackets the code and the place in the policy. Empty where it is allowed without reservation.
        """
        if self.allowed and not self.reasons:
            return ""
        verb = "would be denied" if self.allowed else "denied"
        if not self.reasons:
            return f"{self.point} {verb}: the policy does not allow it"
        reason = self.reasons[0]
        mark = f" [{reason.code}{' at ' if reason.where else ''}{reason.where}]"
        body = f"{self.point} {verb}: {reason}{'; to allow it, ' if reason.change else ''}{reason.change}"
        room = MAX_MESSAGE - len(mark)
        return (body if len(body) <= room else f"{body[: room - 3]}...") + mark

    def hint(self) -> str:
        """What in the policy would have to change, or an empty string."""
        return self.reasons[0].change if self.reasons else ""

    def topics(self) -> tuple[str, ...]:
        """The reasons in the reference enforcer's words, sorted, each once."""
        return tuple(sorted({reason.topic for reason in self.reasons}))


def denied(point: str, *reasons: Reason) -> Decision:
    """The policy says no."""
    return Decision(allowed=False, point=point, kind=Kind.DENIED, reasons=reasons)


def policy_error(point: str, code: str, text: str, change: str = "") -> Decision:
    """The policy says nothing usable."""
    reason = Reason(code, text, text, change=change)
    return Decision(allowed=False, point=point, kind=Kind.POLICY_ERROR, reasons=(reason,))


def allowed(point: str) -> Decision:
    """The policy says yes."""
    return Decision(allowed=True, point=point)
