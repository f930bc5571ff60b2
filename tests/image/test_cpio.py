# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import stat

import pytest

from parma_image import cpio
from parma_image.cpio import Tree
from parma_wire.errors import AlreadyExists, Malformed


def _tree(order: list[str]) -> Tree:
    tree = Tree()
    for path in order:
        tree.file(path, path.encode(), executable=path.endswith("x"))
    tree.symlink("bin", "usr/bin")
    tree.directory("tmp", 0o1777)
    return tree


def test_same_tree_gives_same_bytes_whatever_the_order_of_its_making() -> None:
    assert cpio.archive(_tree(["usr/a", "usr/b/x", "c"])) == cpio.archive(_tree(["c", "usr/b/x", "usr/a"]))


def test_folders_come_before_what_is_in_them() -> None:
    paths = [path for path, _, _ in _tree(["a-b/c", "a/b", "a.d"]).entries()]
    assert paths.index("a") < paths.index("a/b")
    assert paths.index("a-b") < paths.index("a-b/c")


def test_first_member_is_as_the_format_says() -> None:
    tree = Tree()
    tree.file("init", b"#!", executable=True)
    data = cpio.archive(tree)
    zero = b"00000000"
    fields = [
        b"00000001",
        b"000081ED",
        zero,
        zero,
        b"00000001",
        zero,
        b"00000002",
        zero,
        zero,
        zero,
        zero,
        b"00000005",
        zero,
    ]
    assert data.startswith(b"070701" + b"".join(fields) + b"init\0" + bytes(1) + b"#!" + bytes(2) + b"070701")
    assert len(data) % 512 == 0


def test_no_file_can_be_setuid_or_owned_by_another_user() -> None:
    modes = {mode for _, mode, _ in _tree(["a", "x"]).entries() if stat.S_ISREG(mode)}
    assert modes == {stat.S_IFREG | 0o644, stat.S_IFREG | 0o755}


def test_reading_gives_the_tree_back() -> None:
    tree = _tree(["usr/a", "usr/b/x", "c"])
    assert list(cpio.read(cpio.archive(tree)).entries()) == list(tree.entries())


@pytest.mark.parametrize(
    "change", [lambda d: d[:100], lambda d: b"070702" + d[6:], lambda d: d + bytes(512), lambda d: d[:0]]
)
def test_any_other_archive_is_refused(change: object) -> None:
    data = cpio.archive(_tree(["a"]))
    with pytest.raises(Malformed):
        cpio.read(change(data))  # type: ignore[operator]


def test_a_changed_time_stamp_is_refused() -> None:
    data = bytearray(cpio.archive(_tree(["a"])))
    data[6 + 5 * 8 + 7] = ord("1")  # mtime of the first member
    with pytest.raises(Malformed, match="not one that we write"):
        cpio.read(bytes(data))


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../b", "a//b", "", "./a"])
def test_paths_leading_elsewhere_are_refused(path: str) -> None:
    with pytest.raises(Malformed):
        Tree().file(path, b"")


def test_no_path_is_written_twice() -> None:
    tree = Tree()
    tree.file("a", b"1")
    with pytest.raises(AlreadyExists):
        tree.file("a", b"2")
