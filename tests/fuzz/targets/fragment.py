# SPDX-License-Identifier: Apache-2.0
"""The reader of fragments: the text, its first line, and parameters put in."""

from __future__ import annotations

import contextlib

from parma_policy.reader.fragment import FragmentText, Parameters, fragment_package
from parma_policy.reader.syntax import Object, freeze, parse
from parma_wire.errors import Malformed
from tests.policy.builders import text

_SEPARATOR = b"\0"
"""Between the fragment and the parameters that a policy gives it, an object."""

SEEDS = [
    text().replace("package policy", "package vendor").encode(),
    (
        b'package vendor\nsvn := 3\nframework_version := "0.5.0"\nparameters_api := {"p": {"default": []}, "q": {}}\n'
        b'external_processes := [{"command": parameter("p"), "env_rules": parameter("q"), "working_dir": "/",'
        b' "allow_stdio_access": parameter("r").s}]\n\0{"q": [], "r": {"s": true}}'
    ),
]


def target(data: bytes) -> None:
    """Reads a fragment; parameters follow behind a NUL."""
    rego, _, rest = data.partition(_SEPARATOR)
    with contextlib.suppress(Malformed, UnicodeDecodeError):
        source = rego.decode()
        fragment_package(source)
        for parity in (False, True):
            with contextlib.suppress(Malformed):
                fragment = FragmentText.parse(source, parity=parity)
                assert fragment.svn is None or fragment.has_svn
                _ = fragment.framework
                fragment.items(_parameters(rest.decode()))


def _parameters(written: str) -> Parameters:
    if not written:
        return None
    value = parse(f"package p\nx := {written}").statements["x"].value
    if not isinstance(value, Object):
        return None
    try:
        return {name: freeze(item) for name, item in value.items()}
    except TypeError:  # references and calls in it: no such policy is loaded
        return None
