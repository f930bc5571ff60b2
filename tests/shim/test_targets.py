# SPDX-License-Identifier: Apache-2.0
"""What clients may write for stdin, stdout and stderr."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_shim.stdio.targets import Kind, Target, parse
from parma_wire.errors import Malformed, Unsupported


@pytest.mark.parametrize(
    ("value", "target"),
    [
        ("", Target(Kind.NONE)),
        ("/run/x", Target(Kind.PATH, "/run/x")),
        ("fifo:///run/x", Target(Kind.PATH, "/run/x")),
        ("file:///var/log/a%20b", Target(Kind.FILE, "/var/log/a b")),
        ("file:///100%", Target(Kind.FILE, "/100%")),
        ("binary:///bin/l", Target(Kind.LOGGER, "/bin/l")),
        ("binary:///bin/l?a=b&c=&d", Target(Kind.LOGGER, "/bin/l", ("a", "b", "c", "d"))),
        ("binary:///bin/l?a=b%3Dc+d", Target(Kind.LOGGER, "/bin/l", ("a", "b=c d"))),
        ("binary-v2:///bin/l", Target(Kind.LOGGER, "/bin/l", (), True)),
    ],
)
def test_targets_are_understood(value: str, target: Target) -> None:
    assert parse(value) == target


@pytest.mark.parametrize("value", ["relative", "file://relative", "/nul\0", "file:///%00"])
def test_a_path_must_be_absolute_and_without_nul(value: str) -> None:
    with pytest.raises(Malformed):
        parse(value)


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(Unsupported, match="npipe"):
        parse("npipe:////./pipe/x")


@given(st.text())
def test_any_text_is_a_target_or_an_error_of_ours(value: str) -> None:
    with contextlib.suppress(Malformed, Unsupported):
        assert parse(value).kind is Kind.NONE or parse(value).path.startswith("/")
