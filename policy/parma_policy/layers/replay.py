# SPDX-License-Identifier: Apache-2.0
"""Replay a folder of recorded layer conversions (``./dev vectors DIR``).

Each case is a directory with ``expect.json`` and either ``layer.tar.gz`` or ``recipe.json``. Everything recorded is
compared: the hashes of ext4, tree, hash device and VHD footer, the root hash and sizes, or the class of the error.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from parma_policy.layers import vhd
from parma_policy.layers.convert import LayerImage, layer_to_image
from parma_policy.layers.errors import LayerError
from parma_policy.layers.recipe import RecipeTar
from parma_policy.layers.stream import Readable
from parma_policy.layers.verity import BLOCK
from parma_wire.errors import ParmaError

_PIECE: Final = 1 << 20
_MAX_JSON: Final = 16 << 20


@dataclass(frozen=True)
class Case:
    """One recorded case."""

    directory: Path
    expect: dict[str, Any]

    @property
    def name(self) -> str:
        return self.directory.name

    @contextmanager
    def tar(self) -> Iterator[Readable]:
        """The uncompressed tar as a stream."""
        recipe = self.directory / "recipe.json"
        if recipe.exists():
            yield RecipeTar(_load(recipe))
            return
        with gzip.open(self.directory / "layer.tar.gz", "rb") as stream:
            yield stream

    def run(self) -> list[str]:
        """What differs from the record, one line each; empty when all agrees."""
        options = self.expect.get("options", {})

        def convert(tar: Readable, out: BinaryIO | None) -> LayerImage:
            return layer_to_image(
                tar,
                out,
                maximum_disk_size=options.get("max_disk_size", 0),
                convert_whiteouts=options.get("convert_whiteout", False),
            )

        with self.tar() as tar, tempfile.TemporaryFile(prefix="parma-layer-") as out:
            try:
                result = convert(tar, out)
            except LayerError as error:
                return self._compare_error(error)
            if "error" in self.expect:
                return [f"converted, expected error {self.expect.get('error_kind')!r}: {self.expect['error']}"]
            return list(_differences(self.expect, observe(result, out)))

    def _compare_error(self, error: LayerError) -> list[str]:
        if "error" not in self.expect:
            return [f"failed with {error.kind.value!r}: {error}"]
        kind = self.expect.get("error_kind")
        if kind is not None and kind != error.kind.value:
            return [f"error {error.kind.value!r} ({error}), expected {kind!r}"]
        return []


def cases(directory: Path) -> list[Case]:
    """The cases below ``directory`` (or ``directory`` itself if it is one), by name."""
    found = [directory] if (directory / "expect.json").exists() else sorted(directory.iterdir())
    return [Case(path, _load(path / "expect.json")) for path in found if (path / "expect.json").exists()]


def replay(directory: Path, *, report: Callable[[str], None] = print) -> tuple[int, int]:
    """Run every case, one line per failure. Returns how many passed and how many failed."""
    passed = failed = 0
    for case in cases(Path(directory)):
        try:
            problems = case.run()
        except (ParmaError, OSError, EOFError, LookupError, TypeError, ValueError) as error:
            problems = [f"{type(error).__name__}: {error}"]
        if problems:
            failed += 1
            report(f"FAILED {case.name}: {'; '.join(problems)}")
        else:
            passed += 1
    return passed, failed


def _load(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        loaded = json.loads(file.read(_MAX_JSON))
    if not isinstance(loaded, dict):
        raise TypeError(f"{path.name} does not hold an object")
    return loaded


def observe(result: LayerImage, out: BinaryIO) -> dict[str, Any]:
    """The same fields as in ``expect.json``, from the bytes written."""
    out.seek(0)
    ext4 = _sha256(out, result.ext4_size)
    superblock = out.read(BLOCK)
    tree = hashlib.sha256()
    device = hashlib.sha256(superblock)
    while piece := out.read(_PIECE):
        tree.update(piece)
        device.update(piece)
    total = out.tell()
    return {
        "uncompressed_tar_sha256": result.diff_id.removeprefix("sha256:"),
        "ext4_size": result.ext4_size,
        "ext4_sha256": ext4,
        "verity_tree_sha256": tree.hexdigest(),
        "verity_root_hash": result.root_hash,
        "total_size_with_verity": result.total_size if total == result.total_size else f"{total} written",
        "hash_device_sha256_uuid_zero": device.hexdigest(),
        "vhd_footer_sha256_uuid_zero": hashlib.sha256(vhd.footer(total)).hexdigest(),
    }


def _sha256(file: BinaryIO, size: int) -> str:
    digest = hashlib.sha256()
    while size and (piece := file.read(min(_PIECE, size))):
        digest.update(piece)
        size -= len(piece)
    return digest.hexdigest()


def _differences(expect: dict[str, Any], observed: dict[str, Any]) -> Iterator[str]:
    for key, value in observed.items():
        if key in expect and expect[key] != value:
            yield f"{key} is {value}, expected {expect[key]}"


def main(arguments: list[str]) -> int:
    """Replay the folders named on the command line and close with ``N passed, N failed``."""
    counts = [replay(Path(argument)) for argument in arguments]
    passed, failed = (sum(numbers) for numbers in zip(*counts, strict=True)) if counts else (0, 0)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
