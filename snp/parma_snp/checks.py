# SPDX-License-Identifier: Apache-2.0
"""The vocabulary of probes: a requirement, the ways in which it can be unmet, and what was found.

Every way is a :class:`Problem` that is defined once, so that the probe, ``parma doctor``, the error of a launch and the
table in docs/snp-hardware.md say the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, TypeVar

from parma_snp.errors import SnpError

CheckStatus = Literal["ok", "warn", "fail", "skip"]
H = TypeVar("H")


class Outcome(NamedTuple):
    """What a probe found."""

    status: CheckStatus
    evidence: str
    fix: str = ""


@dataclass(frozen=True)
class Problem:
    """One way in which a requirement is unmet (``fail``), met with a reservation (``warn``) or unknowable (``skip``).

    ``message`` is a format string: what was seen. ``meaning`` and ``fix`` are for the reader of the documentation, the
    latter also for whoever runs the probe.
    """

    status: CheckStatus
    message: str
    meaning: str
    fix: str

    def found(self, **values: object) -> Outcome:
        """This problem, here, with what was seen."""
        return Outcome(self.status, self.message.format(**values), self.fix)


def ok(evidence: str) -> Outcome:
    """The requirement is met."""
    return Outcome("ok", evidence)


@dataclass(frozen=True)
class Check:
    """One requirement, examined. ``skip`` means that it could not be or need not be; ``fix`` is empty for ``ok``."""

    id: str
    status: CheckStatus
    evidence: str
    fix: str = ""

    def to_json(self) -> dict[str, str]:
        """The check as a JSON object of strings."""
        return {"id": self.id, "status": self.status, "evidence": self.evidence, "fix": self.fix}


@dataclass(frozen=True)
class Probe(Generic[H]):
    """A requirement with a stable name. ``examine`` is pure but for what it reads through its host."""

    id: str
    requirement: str
    examine: Callable[[H], Outcome]
    problems: tuple[Problem, ...]

    def run(self, host: H) -> Check:
        """Examine it here."""
        outcome = self.examine(host)
        return Check(self.id, outcome.status, outcome.evidence, outcome.fix)


def run_all(probes: Iterable[Probe[H]], host: H) -> list[Check]:
    """Every probe in order."""
    return [probe.run(host) for probe in probes]


def require(checks: Iterable[Check], what: str) -> None:
    """Raise SnpError ``host.unsuitable`` that names the first check that failed, and how many more did."""
    failed = [check for check in checks if check.status == "fail"]
    if not failed:
        return
    first, others = failed[0], [check.id for check in failed[1:]]
    more = f" (and {', '.join(others)})" if others else ""
    raise SnpError(
        "host.unsuitable",
        f"{what}: {first.id}: {first.evidence}{more}",
        hint=f"{first.fix}; `parma doctor --tee snp` lists every check",
    )
