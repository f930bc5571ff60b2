# SPDX-License-Identifier: Apache-2.0
"""A fragment as a module that the policy's rules can refer to: its text, and a function ``parameter``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from parma_policy.rego.engine import Json

_FUNCTION: Final = """
__fragment_parameters := {values}

parameter(name) := __fragment_parameters[name] if parameters_api[name]

else := parameters_api[name].default
"""


def parameter_sets(given: Json) -> list[Mapping[str, Json]]:
    """The sets of parameters in an answer, each once; none where it has no list of objects."""
    found: list[Mapping[str, Json]] = []
    for one in given if isinstance(given, list) else ():
        if isinstance(one, dict) and one not in found:
            found.append(one)
    return found


def with_parameters(text: str, parameters: Mapping[str, Json]) -> str:
    """The module's text. A fragment that declares no parameters stays as it is: it cannot use any."""
    if "parameters_api" not in text:
        return text
    return text + _FUNCTION.format(values=json.dumps(parameters))
