# SPDX-License-Identifier: Apache-2.0
"""The small parts: sorting, times, pax records, numbers, sparse maps, attributes, channels."""

from __future__ import annotations

import io
import random
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_policy.layers import gosort, pax, sparse, tar, times, verity, xattrs
from parma_policy.layers.errors import LayerError, printable
from parma_policy.layers.filesystem import split
from parma_policy.layers.image import descriptor_blocks, disk_blocks
from parma_policy.layers.stream import CHUNK, Channel, TarStream


@given(st.lists(st.integers(-20, 20), max_size=300))
def test_a_proper_order_sorts_like_any_sort(items: list[int]) -> None:
    expected = sorted(items)
    gosort.sort(items, lambda a, b: a < b)
    assert items == expected


@pytest.mark.parametrize("shape", ["rising", "falling", "equal", "organ pipe", "saw", "nearly"])
def test_shapes_that_take_the_special_paths(shape: str) -> None:
    count = 500
    items = {
        "rising": list(range(count)),
        "falling": list(range(count, 0, -1)),
        "equal": [7] * count,
        "organ pipe": [*range(count // 2), *range(count // 2, 0, -1)],
        "saw": [i % 17 for i in range(count)],
        "nearly": [*range(100), 50, *range(100, 200)],
    }[shape]
    expected = sorted(items)
    gosort.sort(items, lambda a, b: a < b)
    assert items == expected


def test_an_intransitive_order_still_ends_and_loses_nothing() -> None:
    rng = random.Random(1)  # noqa: S311 (a reproducible test)
    for _ in range(200):
        items = [rng.randrange(1000) for _ in range(rng.randrange(200))]
        before = sorted(items)
        gosort.sort(items, lambda a, b: (a * 7 + b * 13) % 5 < 2)
        assert sorted(items) == before


@pytest.mark.parametrize(
    ("time", "word"),
    [
        (None, 0),
        ((-62135596800, 0), 0),
        ((0, 0), 0),
        ((0, 1), 1 << 34),
        ((-1, 0), (1 << 64) - 1),
        ((-2, 500_000_000), (1 << 64) - 2 | (500_000_000 << 34)),
        ((-(1 << 31) - 1, 5), 0x80000000),
        ((0x37FFFFFFF, 3), 0x37FFFFFFF | 3 << 34),
        ((0x380000000, 3), 0x37FFFFFFF),
    ],
)
def test_times_are_stored_as_the_reference_stores_them(time: times.Time, word: int) -> None:
    assert times.encode(time) == word


def test_reading_a_time_back_is_no_inverse_for_odd_ones() -> None:
    assert times.decode(0) is None
    assert times.decode(times.encode((1_700_000_000, 5))) == (1_700_000_000, 5)
    assert times.encode(times.decode(times.encode((-1, 0)))) == 0x37FFFFFFF
    assert times.decode(times.encode((3_000_000_000, 0))) == (3_000_000_000 - (1 << 32), 0)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        (b"12", (12, 0)),
        (b"+12.", (12, 0)),
        (b"-1.5", (-2, 500_000_000)),
        (b"-0.25", (-1, 750_000_000)),
        (b"1.0000000019", (1, 1)),
        (b"-9223372036854775808.5", ((1 << 63) - 1, 500_000_000)),
    ],
)
def test_pax_times(text: bytes, time: times.Time) -> None:
    assert pax.parse_time(text) == time


@pytest.mark.parametrize("text", [b"", b".5", b"1.2.3", b"1.x", b"1_0", b" 1", b"--1", b"9223372036854775808"])
def test_bad_pax_times(text: bytes) -> None:
    with pytest.raises(LayerError):
        pax.parse_time(text)


@pytest.mark.parametrize(
    "data",
    [b"junk", b"5 =a\n", b"3 a\n", b"7 a=b\n", b"6 a=b ", b"8 a\0=bc\n", b"11 path=a\0\n", b"-6 a=b\n", b"1" * 4000],
)
def test_bad_pax_records(data: bytes) -> None:
    with pytest.raises(LayerError):
        pax.parse_records(data)


def test_pax_records_of_sparse_0_0_become_a_map_and_the_last_of_equals_wins() -> None:
    data = b"".join((b"6 a=1\n", b"6 a=2\n", b"23 GNU.sparse.offset=0\n", b"25 GNU.sparse.numbytes=5\n", b"9 b==c=d\n"))
    assert pax.parse_records(data) == {b"a": b"2", b"GNU.sparse.map": b"0,5", b"b": b"=c=d"}
    with pytest.raises(LayerError):
        pax.parse_records(b"25 GNU.sparse.numbytes=5\n")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"0000644\0", 0o644),
        (b"  644 \0\0", 0o644),
        (b"\0\0\0\0\0\0\0\0", 0),
        (b"64\x0055\0\0\0", 0o64),
        (b"\xff" * 8, -1),
        (b"\x80" + bytes(6) + b"\x07", 7),
        (b"\x80" + bytes(10) + b"\x07", 7),
        (b"\x80\0\0\0\x7f" + b"\xff" * 7, (1 << 63) - 1),
    ],
)
def test_numeric_fields(field: bytes, value: int) -> None:
    assert tar.number(field) == value


@pytest.mark.parametrize("field", [b"8", b"0o7", b"-1", b"1 2", b"\x80\0\0\x01" + bytes(8), b"+7", b"1_0"])
def test_bad_numeric_fields(field: bytes) -> None:
    with pytest.raises(LayerError):
        tar.number(field)


def test_holes_between_fragments() -> None:
    assert sparse.holes([], 10) == [(0, 10)]
    assert sparse.holes([(0, 4), (6, 0), (8, 2)], 10) == [(4, 4), (10, 0)]


@pytest.mark.parametrize(
    ("fragments", "size"),
    [([(5, 2), (0, 2)], 10), ([(0, 5), (4, 1)], 10), ([(0, 11)], 10), ([(-1, 1)], 10), ([(0, -1)], 10), ([], -1)],
)
def test_bad_sparse_maps(fragments: list[sparse.Fragment], size: int) -> None:
    with pytest.raises(LayerError):
        sparse.holes(fragments, size)


def test_sparse_maps_are_bounded() -> None:
    with pytest.raises(LayerError, match="too long"):
        sparse.read_data_map(lambda: b"1" * 512)
    with pytest.raises(LayerError, match="too long"):
        sparse.read_old_map(bytes(482) + b"\1", lambda: bytes(504) + b"\1" + bytes(7), tar.number)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (b"", (b"", b"")),
        (b"/../.", (b"", b"")),
        (b"a", (b"", b"a")),
        (b"./a//b/../c/", (b"a", b"c")),
        (b"../../etc/passwd", (b"etc", b"passwd")),
        (b"a\\b", (b"", b"a\\b")),
    ],
)
def test_names_are_cleaned(name: bytes, parts: tuple[bytes, bytes]) -> None:
    assert split(name) == parts


def test_attributes_fill_the_inode_first_and_a_block_next() -> None:
    placed = xattrs.place({b"user.a": b"1", b"user.b": b"x" * 100, b"user.c": b"2"})
    assert [attribute.full_name for attribute in placed.inode] == [b"user.a", b"user.c"]
    assert [attribute.full_name for attribute in placed.block] == [b"user.b"]
    assert len(xattrs.inode_area(placed.inode)) == xattrs.INODE_AREA
    assert len(xattrs.block(placed.block)) == verity.BLOCK


def test_attributes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(LayerError, match="does not fit"):
        xattrs.place({b"user.a": b"x" * 4100})
    with pytest.raises(LayerError, match="too long"):
        xattrs.place({b"user." + b"n" * 256: b""})


def test_reading_attributes_back_stops_at_an_acl() -> None:
    placed = xattrs.place({b"a": b"", b"system.posix_acl_access": b"acl", b"user.z": b""})
    assert xattrs.readable(placed.inode) == {b"a": b""}


@pytest.mark.parametrize(
    ("blocks", "levels"), [(1, [1]), (128, [1]), (129, [2, 1]), (16384, [128, 1]), (16385, [129, 2, 1])]
)
def test_levels_of_the_tree(blocks: int, levels: list[int]) -> None:
    assert verity.level_blocks(blocks) == levels
    built, root = verity.tree_levels(bytes(32 * blocks))
    assert [len(level) // verity.BLOCK for level in built] == levels
    assert root == verity.block_digest(built[-1])


@pytest.mark.parametrize(
    ("size", "blocks", "descriptors"),
    [(-1, 1 << 32, 1024), (0, 1 << 22, 1), (1, 1, 1), (128 << 30, 1 << 25, 8), ((16 << 30) + 1, (1 << 22) + 1, 2)],
)
def test_disk_limits(size: int, blocks: int, descriptors: int) -> None:
    assert disk_blocks(size) == blocks
    assert descriptor_blocks(blocks) == descriptors


def test_names_in_messages_are_one_printable_line() -> None:
    assert printable(b"a\nb\xff") == repr("a\\nb\\\\xff")
    assert len(printable(b"x" * 1000)) < 130


def test_a_closed_channel_refuses_and_empties() -> None:
    channel: Channel[int] = Channel(2)
    assert channel.put(1)
    channel.close()
    assert not channel.put(2)
    assert channel.get() == 1
    assert channel.get() is None


def test_closing_a_channel_frees_a_blocked_writer() -> None:
    channel: Channel[int] = Channel(1)
    channel.put(1)
    answers: list[bool] = []
    writer = threading.Thread(target=lambda: answers.append(channel.put(2)))
    writer.start()
    channel.close(drop=True)
    writer.join()
    assert answers == [False]
    assert channel.get() is None


def test_a_failing_read_reaches_the_parser_and_ends_the_threads() -> None:
    class Failing(io.RawIOBase):
        reads = 0

        def read(self, _: int | None = -1, /) -> bytes:
            self.reads += 1
            if self.reads > 3:
                raise OSError(5, "gone")
            return bytes(CHUNK)

    before = threading.active_count()
    with pytest.raises(OSError, match="gone"), TarStream(Failing()) as stream:
        stream.skip(10 * CHUNK)
    assert threading.active_count() == before


def test_leaving_a_stream_early_ends_its_threads() -> None:
    before = threading.active_count()
    with TarStream(io.BytesIO(bytes(20 * CHUNK))) as stream:
        stream.skip(2 * CHUNK)
    assert threading.active_count() == before
