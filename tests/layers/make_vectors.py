# SPDX-License-Identifier: Apache-2.0
"""Writes the golden cases below tests/vectors/layers: ``python -m tests.layers.make_vectors [--check]``.

The expectations come from this project's own converter, so they guard against change, not against being wrong; the
tests therefore also have veritysetup, e2fsck and debugfs look at the images. They were compared with the reference
implementation when they were first written.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parma_policy.layers.convert import layer_to_image
from parma_policy.layers.errors import LayerError
from parma_policy.layers.recipe import RecipeTar
from parma_policy.layers.replay import observe

from . import tars
from .tars import END, directory, file, hard_link, header, pax, symlink, xattrs

VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "layers"
GIB = 1 << 30
GNU = b"ustar  \0"


@dataclass(frozen=True)
class Golden:
    name: str
    description: str
    tar: bytes | None = None
    recipe: dict[str, Any] | None = None
    max_disk_size: int = 128 * GIB
    convert_whiteout: bool = True


def sparse_old() -> bytes:
    """An old GNU sparse file with more fragments than fit its header: 30 bytes every 1000."""
    fragments = [(1000 * i, 30) for i in range(30)] + [(40_000, 0)]
    entries = [tars.octal(offset, 12) + tars.octal(length, 12) for offset, length in fragments]
    extension = b"".join(entries[4:25]).ljust(504, b"\0") + b"\1" + bytes(7)
    extension += b"".join(entries[25:]).ljust(512, b"\0")
    patches = [(386, b"".join(entries[:4])), (482, b"\1"), (483, tars.octal(40_000, 12))]
    data = bytes(range(30)) * 30
    return header(b"s", b"S", size=len(data), magic=GNU, patches=patches) + extension + tars.padded(data)


def sparse_0_0(present: int = 600) -> bytes:
    records = [(b"GNU.sparse.size", b"10000"), (b"GNU.sparse.numblocks", b"2")]
    for offset, length in ((0, 100), (9000, 500)):
        records += [(b"GNU.sparse.offset", b"%d" % offset), (b"GNU.sparse.numbytes", b"%d" % length)]
    return pax(*records) + file(b"s", b"A" * present)


def sparse_1_0() -> bytes:
    table = tars.padded(b"2\n4096\n10\n20000\n0\n")
    data = table + b"0123456789"
    records = ((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"20000"))
    return pax(*records, (b"GNU.sparse.name", b"dir/name")) + file(b"GNUSparseFile.0/name", data)


def many_xattrs(count: int) -> bytes:
    prefixes = (b"user.", b"trusted.", b"security.", b"system.", b"")
    names = [prefixes[i % 5] + hashlib.sha256(b"%d" % i).hexdigest()[: 1 + i % 7].encode() for i in range(count)]
    return xattrs(*((name, b"%d" % i) for i, name in enumerate(dict.fromkeys(names))))


def times() -> bytes:
    out = b""
    for index, text in enumerate(
        (b"-1.5", b"-0.25", b"3000000000", b"-62135596800", b"99999999999.9", b"7.123456789123")
    ):
        stamps = ((b"mtime", text), (b"atime", text), (b"ctime", text))
        out += pax(*stamps) + directory(b"d%d" % index) + file(b"d%d/made/parents/f" % index)
    return out


def goldens() -> Iterator[Golden]:
    yield Golden("empty", "no input at all", b"")
    yield Golden("one-zero-block", "one zero block and the end", bytes(512))
    yield Golden("zero-block-then-data", "a zero block and then an entry: error", bytes(512) + file(b"a"))
    yield Golden("v7", "headers without magic", file(b"a", b"x" * 5000, magic=b"") + header(b"d/", b"\0", magic=b""))
    star = [(476, tars.octal(11, 12)), (488, tars.octal(22, 12)), (508, b"tar\0")]
    yield Golden("star", "the STAR variant with access and change times", header(b"a", prefix=b"p", patches=star))
    gnu = [(345, tars.octal(1234567890, 12)), (357, tars.octal(987654321, 12))]
    yield Golden("gnu-times", "access and change times of a GNU header", header(b"a", magic=GNU, patches=gnu))
    yield Golden("gnu-prefix", "a prefix where a GNU header has times", header(b"a", magic=GNU, prefix=b"some/where"))
    yield Golden(
        "base-256",
        "binary numbers, negative ones too",
        header(b"a", uid=-1, gid=1 << 40, mtime=-5, magic=GNU) + header(b"c", b"3", major=1 << 40, minor=0x12345),
    )
    yield Golden("checksum-signed", "checksum over signed bytes", _signed(b"n\xe9\xff"))
    yield Golden("checksum-wrong", "checksum off by one: error", _off_by_one())
    yield Golden("sparse-old", "old GNU sparse with two extension blocks", sparse_old() + END)
    yield Golden("sparse-0.0", "pax sparse 0.0", sparse_0_0() + END)
    yield Golden("sparse-1.0", "pax sparse 1.0", sparse_1_0() + END)
    yield Golden("sparse-long", "more data than the map says: error", sparse_0_0(610) + END)
    yield Golden("sparse-short", "less data than the map says: error", sparse_0_0(590) + END)
    yield Golden("times", "negative, late, absent times, and created parents", times() + END)
    yield Golden("global-xattr", "a global header is an empty file", xattrs((b"user.x", b"lost")) +
                 pax((b"SCHILY.xattr.user.g", b"v"), (b"path", b"where"), kind=b"g") + file(b"a"))  # fmt: skip
    yield Golden("global-bad-number", "bad numbers in a global header are no error", pax((b"uid", b"x"), kind=b"g"))
    yield Golden("link-orphans", "a hard link over a sole name: error", file(b"a") + file(b"b") + hard_link(b"b", b"a"))
    yield Golden("link-to-dir", "a hard link to a directory: error", directory(b"d") + hard_link(b"l", b"d"))
    yield Golden("link-to-itself", "a hard link to itself: error", file(b"a") + hard_link(b"a", b"a"))
    yield Golden(
        "link-to-symlink", "a hard link to a symbolic link", symlink(b"s", b"t") + hard_link(b"l", b"./x/../s")
    )
    linked = file(b"a", b"data") + hard_link(b"b", b"a")
    yield Golden(
        "linked-replaced", "a name of a linked file with data is replaced", linked + file(b"a", b"other") + END
    )
    yield Golden("opaque-on-file", "an opaque whiteout below an empty file", file(b"f") + file(b"f/.wh..wh..opq"))
    yield Golden("opaque-on-symlink", "and below a symbolic link", symlink(b"s", b"t") + file(b"s/.wh..wh..opq"))
    yield Golden("opaque-on-data", "below a file with data: error", file(b"f", b"d") + file(b"f/.wh..wh..opq"))
    yield Golden("opaque-on-linked", "below a linked file: error", linked + file(b"a/.wh..wh..opq"))
    yield Golden("whiteout-names", "odd names of whiteouts", file(b".wh..wh.plnk") + hard_link(b"x/.wh.l", b"none") +
                 directory(b"y/.wh.d") + symlink(b"../.wh.s", b"t" * 200))  # fmt: skip
    yield Golden("whiteout-dot", "a whiteout of the directory itself: error", file(b"d/.wh.."))
    for count in (13, 30, 60, 150):
        yield Golden(f"xattr-sort-{count}", f"order of {count} attributes", many_xattrs(count) + file(b"f") + END)
    system = xattrs((b"system.data", b"1"), (b"user.big", b"x" * 200)) + directory(b"d")
    yield Golden("xattr-system-data", "an attribute that reading back drops", system + file(b"d/.wh..wh..opq"))
    yield Golden("xattr-empty-name", "prefixes with nothing behind", xattrs((b"user.", b"1"), (b"", b"2")) + file(b"f"))
    yield Golden("xattr-name-240", "a long name", xattrs((b"user." + b"n" * 240, b"v")) + file(b"f"))
    shrunk = xattrs((b"user.big", b"x" * 500)) + file(b"f") + xattrs((b"user.a", b"b")) + file(b"f")
    yield Golden("xattr-block-emptied", "a block that is rewritten empty", shrunk + END)
    yield Golden("unknown-type", "an unknown type is a file", file(b"z", b"data", kind=b"Z") + file(b"z2", kind=b"V"))
    yield Golden("unknown-type-on-dir", "and replaces no directory: error", directory(b"d") + file(b"d", kind=b"Z"))
    yield Golden("long-link-5000", "a target longer than a block", symlink(b"s", b"t/" * 2500) + END)
    yield Golden("pax-huge-number", "a number beyond 64 bits: error", pax((b"uid", b"9" * 30)) + file(b"a"))
    yield Golden("opt-unlimited", "the largest disk", file(b"a", b"x") + END, max_disk_size=-1)
    yield Golden("opt-1-gib", "one descriptor block", file(b"a", b"x") + END, max_disk_size=GIB)
    yield Golden("opt-exact", "a disk that is just large enough", file(b"a", b"x") + END, max_disk_size=8 * 4096)
    yield Golden("opt-too-small", "one block less: error", file(b"a", b"x") + END, max_disk_size=7 * 4096)
    yield Golden("opt-whiteouts-kept", "whiteouts as files", file(b"d/.wh.a") + END, convert_whiteout=False)
    tree = [
        {"path": "d/%04d", "type": "dir", "mode": 493, "repeat": 300},
        {"path": "d/0007/%04d-with-a-longer-name", "type": "file", "size": 5000, "repeat": 400,
         "fill": {"kind": "byte", "value": 7}},
        {"path": "link-%03d", "type": "hardlink", "link": "d/0007/0000-with-a-longer-name", "repeat": 50},
    ]  # fmt: skip
    yield Golden("tree", "directories of several blocks", recipe={"format": 1, "entries": tree})
    subdirectories = [{"path": "d/%05d", "type": "dir", "mode": 493, "repeat": 65000}]
    yield Golden("too-many-subdirectories", "error", recipe={"format": 1, "entries": subdirectories})
    groups = [{"path": "f", "type": "file", "size": 150 << 20, "fill": {"kind": "byte", "value": 1}}]
    yield Golden("two-groups", "more than one block group", recipe={"format": 1, "entries": groups})


def _signed(name: bytes) -> bytes:
    block = bytearray(header(name))
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(byte - 256 * (byte > 127) for byte in block)
    return bytes(block) + END


def _off_by_one() -> bytes:
    block = bytearray(header(b"a"))
    block[153] ^= 1
    return bytes(block) + END


def expectation(golden: Golden) -> dict[str, Any]:
    """The contents of expect.json."""
    options = {"convert_whiteout": golden.convert_whiteout, "max_disk_size": golden.max_disk_size}
    expect: dict[str, Any] = {"case": golden.name, "description": golden.description, "options": options}
    source = io.BytesIO(golden.tar) if golden.tar is not None else RecipeTar(golden.recipe or {})
    with tempfile.TemporaryFile() as out:
        try:
            result = layer_to_image(
                source,
                out,
                maximum_disk_size=golden.max_disk_size,
                convert_whiteouts=golden.convert_whiteout,
            )
        except LayerError as error:
            return {**expect, "error": str(error), "error_kind": error.kind.value}
        return {**expect, **observe(result, out)}


def write(golden: Golden, root: Path) -> None:
    """The files of one case."""
    folder = root / golden.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "expect.json").write_text(json.dumps(expectation(golden), indent=1) + "\n")
    if golden.tar is not None:
        (folder / "layer.tar.gz").write_bytes(gzip.compress(golden.tar, 9, mtime=0))
    else:
        (folder / "recipe.json").write_text(json.dumps(golden.recipe, indent=1) + "\n")


def main(arguments: list[str], say: Callable[[str], object] = print) -> int:
    """Write the cases; with --check, say which differ and write nothing."""
    if "--check" not in arguments:
        for golden in goldens():
            write(golden, VECTORS)
        return 0
    changed = 0
    for golden in goldens():
        path = VECTORS / golden.name / "expect.json"
        if not path.exists() or json.loads(path.read_text()) != expectation(golden):
            say(f"{golden.name} differs")
            changed = 1
    return changed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
