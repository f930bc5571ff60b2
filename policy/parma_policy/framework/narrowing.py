# SPDX-License-Identifier: Apache-2.0
"""Environment and capabilities: which of the request's may be kept, and which candidates that leaves.

With dropping allowed by the policy each candidate offers the subset that it accepts. The largest is taken; where
several different ones are equally large there is no answer, and the request is denied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from parma_policy.model import Capabilities, EnvRules, Policy
from parma_policy.versions import version

_C = TypeVar("_C")

_CAPABILITY_DROPPING_SINCE = version("0.2.2")


def drops_capabilities(policy: Policy) -> bool:
    """Whether capabilities beyond those listed are left out. The flag does not count before framework 0.2.2."""
    framework = policy.framework_version
    return policy.flags.allow_capability_dropping and framework is not None and framework >= _CAPABILITY_DROPPING_SINCE


@dataclass(frozen=True, slots=True)
class EnvChoice(Generic[_C]):
    """The candidates that remain and the variables that may be kept. Without candidates: denied."""

    candidates: tuple[_C, ...]
    kept: tuple[str, ...]
    undecided: tuple[tuple[str, ...], ...] = ()
    """Where it failed on this: two equally large, different subsets."""


def choose_env(
    candidates: Sequence[_C], rules: Callable[[_C], EnvRules], variables: tuple[str, ...], *, dropping: bool
) -> EnvChoice[_C]:
    """Narrows ``candidates`` to those whose rules allow the variables, after dropping where that is allowed."""
    kept = variables
    if dropping and candidates:
        offers = [tuple(v for v in variables if rules(candidate).accepts(v)) for candidate in candidates]
        largest = max(len(set(offer)) for offer in offers)
        best = [offer for offer in offers if len(set(offer)) == largest]
        kept = best[0]
        for offer in best:
            if set(offer) != set(kept):
                return EnvChoice((), (), (kept, offer))
    return EnvChoice(tuple(candidate for candidate in candidates if rules(candidate).allow(kept)), kept)


@dataclass(frozen=True, slots=True)
class CapabilityChoice(Generic[_C]):
    """The candidates that remain and the capabilities that may be kept. Without candidates: denied."""

    candidates: tuple[_C, ...]
    kept: Capabilities
    undecided: bool = False


def choose_capabilities(
    candidates: Sequence[_C], expected: Callable[[_C], Capabilities], given: Capabilities, *, dropping: bool
) -> CapabilityChoice[_C]:
    """Narrows ``candidates`` to those that have the capabilities, after dropping where that is allowed."""
    kept = given
    if dropping and candidates:
        offers = [given.intersection(expected(candidate)) for candidate in candidates]
        largest = max(offer.count() for offer in offers)
        best = [offer for offer in offers if offer.count() == largest]
        kept = best[0]
        if not all(offer.same_as(kept) for offer in best):
            return CapabilityChoice((), kept, undecided=True)
    return CapabilityChoice(tuple(c for c in candidates if expected(c).same_as(kept)), kept)
