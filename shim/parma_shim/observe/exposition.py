# SPDX-License-Identifier: Apache-2.0
"""Prometheus's text exposition format 0.0.4: written by each shim, merged for a node. Pure.

Source: Prometheus documentation, "Exposition formats", "Text-based format".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Final, NamedTuple

from parma_shim.observe.registry import BUCKETS, Histogram, Labels
from parma_wire.errors import Malformed

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_HEAD: Final = re.compile(r"# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.*)", re.ASCII)
_SAMPLE: Final = re.compile(
    r'([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\]|\\.)*",?)*\})? \S+', re.ASCII
)
_SUFFIXES: Final = ("_bucket", "_sum", "_count")


class Family(NamedTuple):
    """A metric with all its values."""

    name: str
    kind: str
    """``counter``, ``gauge`` or ``histogram``."""

    help: str
    values: dict[Labels, float | Histogram]


def render(families: Iterable[Family], common: Labels = ()) -> str:
    """The text; ``common`` labels come first in every sample. Families without values are left out."""
    return "".join(f"{line}\n" for family in families if family.values for line in _lines(family, common))


def merge(texts: Iterable[str]) -> str:
    """One text of several, each family with one head.

    Raises Malformed for what is no exposition of ours: whoever wrote it is not let into the node's.
    """
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for text in texts:
        for line in text.splitlines():
            head = _HEAD.fullmatch(line)
            if head is not None:
                lines = heads.setdefault(head[2], [])
                if line not in lines and len(lines) < 2:
                    lines.append(line)
                continue
            sample = _SAMPLE.fullmatch(line)
            family = _family_of(sample[1], heads) if sample is not None else None
            if family is None:
                raise Malformed(f"not a line of metrics: {line[:80]!r}", expected="text exposition format 0.0.4")
            samples.setdefault(family, []).append(line)
    return "".join(f"{line}\n" for family, lines in samples.items() for line in (*heads[family], *lines))


def _family_of(name: str, heads: dict[str, list[str]]) -> str | None:
    if name in heads:
        return name
    return next((base for suffix in _SUFFIXES if (base := name.removesuffix(suffix)) in heads), None)


def _lines(family: Family, common: Labels) -> Iterator[str]:
    yield f"# HELP {family.name} {family.help}"
    yield f"# TYPE {family.name} {family.kind}"
    for labels, value in family.values.items():
        if isinstance(value, Histogram):
            yield from _histogram(family.name, (*common, *labels), value)
        else:
            yield _sample(family.name, (*common, *labels), value)


def _histogram(name: str, labels: Labels, value: Histogram) -> Iterator[str]:
    *below, count = accumulate(value.counts)
    for bound, number in zip(BUCKETS, below, strict=True):
        yield _sample(f"{name}_bucket", (*labels, ("le", f"{bound:g}")), number)
    yield _sample(f"{name}_bucket", (*labels, ("le", "+Inf")), count)
    yield _sample(f"{name}_sum", labels, value.total)
    yield _sample(f"{name}_count", labels, count)


def _sample(name: str, labels: Labels, value: float) -> str:
    inner = ",".join(f'{key}="{_escape(text)}"' for key, text in labels)
    number = str(int(value)) if value == int(value) else repr(value)
    return f"{name}{{{inner}}} {number}" if inner else f"{name} {number}"


def _escape(text: str) -> str:
    """A label's value. Line ends other than the newline would end a line for some readers."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return "".join(character if character.isprintable() else " " for character in escaped)
