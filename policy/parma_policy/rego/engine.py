# SPDX-License-Identifier: Apache-2.0
"""What is expected of a Rego engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, Protocol

from parma_policy.points import POINTS
from parma_wire.errors import ParmaError, Unavailable

FRAMEWORK: Final = (*POINTS, "reason", "errors", "error_objects")
"""Names that ``data.framework`` has. A policy that refers to any other is refused when it is loaded."""

Json = Any
"""What ``json.loads`` makes: never changed once it is part of something."""

Modules = tuple[tuple[str, str], ...]
"""Texts by the package that they define, sorted: the policy and the fragments that it keeps."""


@dataclass(frozen=True, slots=True)
class Definition:
    """What the engine says of one name of a package. ``framework``: it stands for ``data.framework.<target>``."""

    kind: Literal["framework", "constant", "function", "rule"]
    target: str = ""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What compiling modules has told."""

    definitions: Mapping[str, Definition]
    reads_metadata: bool


class Answer(NamedTuple):
    """The framework's answer to a question of the engine. ``refused``: why there is none; the evaluation then fails."""

    value: Json = None
    is_set: bool = False
    refused: str = ""


class Found(NamedTuple):
    """The value of a definition that is defined."""

    value: Json


Ask = Callable[[str, Json], Answer]
"""Called with the name below ``data.framework`` and the input at that place."""


class EvaluationFailed(ParmaError):
    """The engine works, and the policy does not: a conflict, too much time, something that is not offered."""


class EngineFailed(Unavailable):
    """No engine, or nonsense from it. Nothing is known about the answer."""


class Engine(Protocol):
    """Compiles and evaluates. The same question gets the same answer: an engine has no history."""

    def load(self, modules: Modules, package: str, constants: Mapping[str, Json]) -> Loaded:
        """Describes the definitions of ``package``. Raises Malformed where a module does not compile, or refers to
        something that is not offered; EngineFailed."""

    def query(self, modules: Modules, path: str, document: Json, ask: Ask, metadata: Json | None) -> Found | None:
        """The value of ``data.<path>`` with this input, None where it is undefined. ``metadata``, where given, is
        ``data.metadata``. The modules must have been loaded. Raises EvaluationFailed, EngineFailed.
        """
