# SPDX-License-Identifier: Apache-2.0
"""Command lines as Go's flag package reads them."""

from __future__ import annotations

import pytest

from parma_shim import flags
from parma_wire.errors import Malformed


@pytest.mark.parametrize("words", [["-id", "a"], ["--id", "a"], ["-id=a"], ["--id=a"]])
def test_all_spellings_of_a_flag_mean_the_same(words: list[str]) -> None:
    call = flags.parse([*words, "start"])
    assert (call.get("id"), call.action) == ("a", "start")


def test_containerds_call_is_understood() -> None:
    words = "-namespace ns -address /c.sock -publish-binary /usr/bin/containerd -id x -debug -bundle /b delete"
    call = flags.parse(words.split())
    assert call.strings == {
        "namespace": "ns",
        "address": "/c.sock",
        "publish-binary": "/usr/bin/containerd",
        "id": "x",
        "bundle": "/b",
    }
    assert call.switches == {"debug"}
    assert call.action == "delete"


def test_parsing_stops_at_the_first_word_that_is_no_flag() -> None:
    assert flags.parse(["start", "-id", "a"]).strings == {}
    assert flags.parse(["-id", "a", "--", "-debug"]).action == "-debug"


def test_a_flag_may_have_an_empty_value_and_a_dash_for_one() -> None:
    assert flags.parse(["-id="]).get("id") == ""
    assert flags.parse(["-id", "-debug"]).get("id") == "-debug"


def test_switches_take_a_value_only_with_an_equals_sign() -> None:
    assert flags.parse(["-debug=false"]).switches == frozenset()
    assert flags.parse(["-debug", "-debug=f"]).switches == frozenset()
    assert flags.parse(["-debug=T"]).switches == {"debug"}


@pytest.mark.parametrize("words", [["-nonsense"], ["-id"], ["-debug=maybe"]])
def test_nonsense_is_refused_in_one_line(words: list[str]) -> None:
    with pytest.raises(Malformed) as caught:
        flags.parse(words)
    assert "\n" not in str(caught.value)


def test_a_required_flag_that_is_missing_is_named() -> None:
    with pytest.raises(Malformed, match="-id"):
        flags.parse(["start"]).require("id")
