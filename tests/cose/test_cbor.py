# SPDX-License-Identifier: Apache-2.0
"""The strict reader and the deterministic writer of CBOR, with a general library as the oracle."""

from __future__ import annotations

from collections.abc import Mapping

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_cose import cbor
from parma_cose.cbor import MAX_DEPTH, Tag, Value
from parma_cose.errors import CoseError

INTEGERS = st.integers(-(2**64), 2**64 - 1)
KEYS = st.one_of(INTEGERS, st.text(max_size=8))
SCALARS = st.one_of(INTEGERS, st.binary(max_size=20), st.text(max_size=20), st.booleans(), st.none())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(KEYS, inner, max_size=5),
        st.builds(Tag, st.integers(1000, 2**32), inner),
    ),
    max_leaves=20,
)


def read(data: bytes) -> Value:
    return cbor.decode(data, limit=1 << 16)


def for_oracle(value: Value) -> object:
    if isinstance(value, Tag):
        return cbor2.CBORTag(value.number, for_oracle(value.value))
    if isinstance(value, dict):
        return {key: for_oracle(item) for key, item in value.items()}
    return [for_oracle(item) for item in value] if isinstance(value, list) else value


def plain(value: object) -> object:
    """Inside tags the oracle makes tuples and read-only maps; the same values as lists and maps."""
    if isinstance(value, cbor2.CBORTag):
        return cbor2.CBORTag(value.tag, plain(value.value))
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def depth(value: Value) -> int:
    if isinstance(value, Tag):
        return 1 + depth(value.value)
    items = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return 1 + max(map(depth, items), default=0) if isinstance(value, dict | list) else 0


@given(VALUES)
def test_what_is_written_is_read_again_and_means_the_same_to_the_oracle(value: Value) -> None:
    data = cbor.encode(value)
    assert plain(cbor2.loads(data)) == for_oracle(value)
    if depth(value) <= MAX_DEPTH:
        assert read(data) == value


@given(st.binary(max_size=60))
def test_what_is_read_means_the_same_to_the_oracle(data: bytes) -> None:
    try:
        value = read(data)
    except CoseError as error:
        assert error.code == "format"  # noqa: PT017  (what it is, not that it is)
        return
    if not contains_tag(value):  # the oracle gives tags a meaning
        assert cbor2.loads(data) == value
        assert len(cbor.encode(value)) == len(data)  # there is one encoding, up to the order of keys


def contains_tag(value: Value) -> bool:
    if isinstance(value, dict):
        return any(map(contains_tag, value.values()))
    return isinstance(value, Tag) or (isinstance(value, list) and any(map(contains_tag, value)))


@pytest.mark.parametrize(
    "data",
    [
        "",  # nothing
        "0101",  # something follows
        "1801",  # longer than necessary
        "190001",
        "1a00000001",
        "1b0000000000000001",
        "5801ff",
        "9fff",  # indefinite
        "5f4101ff",
        "bfff",
        "f97e00",  # floating point
        "fb3ff0000000000000",
        "f7",  # undefined
        "e0",
        "f820",
        "1c",  # reserved
        "61ff",  # not UTF-8
        "a201010102",  # a key twice
        "a2616101616102",
        "a1f501",  # keys of other types
        "a1410101",
        "a18001",
        "a1",  # ends early
        "42ff",
        "9b0000000100000000",
        "bb8000000000000000",
        "5b7fffffffffffffff",
    ],
)
def test_what_is_not_strict_is_refused(data: str) -> None:
    with pytest.raises(CoseError) as refusal:
        read(bytes.fromhex(data))
    assert refusal.value.code == "format"


def test_size_and_nesting_are_limited() -> None:
    assert cbor.decode(b"\x43abc", limit=4) == b"abc"
    with pytest.raises(CoseError, match="too large"):
        cbor.decode(b"\x43abc", limit=3)
    assert read(b"\x81" * MAX_DEPTH + b"\x01")
    with pytest.raises(CoseError, match="deep"):
        read(b"\x81" * (MAX_DEPTH + 1) + b"\x01")
    with pytest.raises(CoseError, match="deep"):
        read(b"\xc1" * 60_000)


def test_numbers_of_more_than_64_bits_are_not_written() -> None:
    with pytest.raises(ValueError, match="64 bits"):
        cbor.encode(2**64)
