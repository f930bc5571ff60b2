# SPDX-License-Identifier: Apache-2.0
"""Environment rules are prepared for speed: what they accept is what their rules accept one by one."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from parma_policy.framework import denials
from parma_policy.framework.decision import Reason
from parma_policy.model import EnvRule, EnvRules
from parma_policy.patterns import PatternCache, Strategy
from tests.policy.builders import policy

EXPRESSIONS = (
    *("A=.*", "A=?B", "A=*", "A=+1", "A={0}B", "A=1|B=2", "^A=1", "A=1$", "(?i)a=.", "A=", "=x", "A", ".+=.+", "A=\\d"),
    *(
        "A=(1|2)",
        "[A]=1",
        "A=[^|]",
        "\\QA=|\\E",
        "A\\x3d1",
        "B=.?",
        "^^A=1",
        "A=1\\|B",
        "(?s)A=.",
        "A=$",
        "A=^1",
        "a=[",
    ),
)
VARIABLES = (
    *(
        "A=",
        "A=1",
        "A=2",
        "A==",
        "A",
        "AB",
        "B",
        "B=2",
        "=x",
        "",
        "a=1",
        "A=1|B",
        "A=1junk",
        "xB=2",
        "A=|",
        "A=\n",
        "B=",
    ),
)
STRATEGIES: st.SearchStrategy[Strategy] = st.sampled_from(["string", "re2", "re2"])


@st.composite
def rules(draw: st.DrawFn) -> EnvRule:
    patterns = PatternCache()

    def pattern() -> Any:
        return patterns.make(draw(st.sampled_from([*EXPRESSIONS, *VARIABLES])), draw(STRATEGIES))

    return EnvRule(pattern(), draw(st.none() | st.builds(pattern)), draw(st.booleans()))


@settings(max_examples=600, deadline=None)
@given(st.lists(rules(), max_size=6), st.lists(st.sampled_from(VARIABLES), max_size=5).map(tuple))
def test_the_prepared_rules_accept_what_the_rules_accept(some: list[EnvRule], variables: tuple[str, ...]) -> None:
    prepared = EnvRules(tuple(some))
    plainly = {variable: any(rule.matches(variable) for rule in some) for variable in variables}
    assert {variable: prepared.accepts(variable) for variable in variables} == plainly
    required = all(any(map(rule.matches, variables)) for rule in some if rule.required)
    assert prepared.allow(variables) == (all(plainly.values()) and required)


CONTAINER = policy().containers.containers[0]


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.integers(0, 4)), min_size=1, max_size=8))
def test_the_candidate_that_is_explained_is_the_closest(given: list[tuple[int, bool, int]]) -> None:
    explanations = {}
    distances = {}
    candidates = []
    for number, (count, about_command, less) in enumerate(given):
        candidates.append(CONTAINER.__class__(**{**_fields(CONTAINER), "place": str(number)}))
        code = "command" if about_command else "user"
        explanations[str(number)] = [Reason(code, str(number), "")] * count
        distances[str(number)] = max(0, count - less)
    found = denials._closest(candidates, lambda one: distances[one.place], lambda one: explanations[one.place])
    best = min(explanations.values(), key=lambda reasons: (len(reasons), any(r.code == "command" for r in reasons)))
    assert found == best


def _fields(container: Any) -> dict[str, Any]:
    return {name: getattr(container, name) for name in container.__dataclass_fields__}
