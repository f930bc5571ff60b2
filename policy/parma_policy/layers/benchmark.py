# SPDX-License-Identifier: Apache-2.0
"""How long a conversion takes, beside ``veritysetup format`` of the same image."""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from parma_policy.layers.blobs import LayerBlob
from parma_policy.layers.cache import LayerCache
from parma_policy.layers.convert import layer_to_image
from parma_policy.layers.recipe import RecipeTar
from parma_policy.layers.worker import prepare_layers
from parma_wire.errors import Unavailable

_MIB: Final = 1 << 20
_FILE: Final = "d/random.bin"


@dataclass(frozen=True)
class Timings:
    """Medians in seconds; ``veritysetup`` is None where the program is not installed."""

    mebibytes: int
    root_hash: float
    image: float
    four_layers: float
    one_layer: float
    veritysetup: float | None

    def lines(self) -> list[str]:
        """The report, one measurement a line."""
        rate = self.mebibytes / self.root_hash
        report = [
            f"layer of {self.mebibytes} MiB, root hash only: {self.root_hash:.3f} s ({rate:.0f} MiB/s)",
            f"layer of {self.mebibytes} MiB, ext4 and tree to a file: {self.image:.3f} s",
            f"4 layers of {self.mebibytes // 4} MiB into the cache: {self.four_layers:.3f} s",
            f"one of them alone: {self.one_layer:.3f} s",
        ]
        if self.veritysetup is None:
            return [*report, "veritysetup is not installed (Debian package cryptsetup-bin), so no ratio to it"]
        ratios = (
            f"{self.root_hash / self.veritysetup:.2f} (root hash only), {self.image / self.veritysetup:.2f} (to a file)"
        )
        return [*report, f"veritysetup format of the same image: {self.veritysetup:.3f} s; ratios of ours: {ratios}"]


def benchmark(mebibytes: int = 200, *, rounds: int = 5, veritysetup: Path | None = None) -> Timings:
    """Convert a layer of one pseudo-random file ``rounds`` times, from and to a temporary directory.

    ``veritysetup`` defaults to the one on PATH. The tar is in the page cache, as it is after a pull.
    """
    program = str(veritysetup) if veritysetup is not None and veritysetup.exists() else shutil.which("veritysetup")
    with tempfile.TemporaryDirectory(prefix="parma-bench-") as name:
        directory = Path(name)
        tar = _write_tar(directory / "layer.tar", _recipe(mebibytes * _MIB, "bench"))
        image = directory / "layer.img"
        reference = None
        blocks = _convert(tar, image)
        ours, theirs, hash_only = [], [], []
        for _ in range(rounds):
            hash_only.append(_timed(lambda: _convert(tar, None)))
            ours.append(_timed(lambda: _convert(tar, image)))
            if program:
                theirs.append(_timed(lambda: _veritysetup(program, image, directory / "hash.img", blocks)))
        if theirs:
            reference = statistics.median(theirs)
        one, four = _cache_times(directory, mebibytes // 4 * _MIB)
    return Timings(mebibytes, statistics.median(hash_only), statistics.median(ours), four, one, reference)


def _timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _recipe(size: int, seed: str) -> dict[str, Any]:
    fill = {"kind": "shake128", "seed": seed}
    return {"format": 1, "entries": [{"path": _FILE, "type": "file", "size": size, "fill": fill}]}


def _write_tar(path: Path, recipe: dict[str, Any]) -> Path:
    tar = RecipeTar(recipe)
    with path.open("wb") as file:
        while piece := tar.read(_MIB):
            file.write(piece)
    return path


def _convert(tar: Path, image: Path | None) -> int:
    with tar.open("rb", buffering=0) as source:
        if image is None:
            return layer_to_image(source, None).data_blocks
        with image.open("wb") as out:
            return layer_to_image(source, out).data_blocks


def _veritysetup(program: str, image: Path, hashes: Path, blocks: int) -> None:
    arguments = ["format", f"--salt={'0' * 64}", f"--data-blocks={blocks}", str(image), str(hashes)]
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0 or not re.search("Root hash", done.stdout):
        raise Unavailable(f"veritysetup format failed: {done.stderr.strip()}")


def _cache_times(directory: Path, size: int) -> tuple[float, float]:
    """Seconds for one layer, and for four at once, into an empty cache."""

    def blob(number: int) -> LayerBlob:
        path = _write_tar(directory / f"layer-{number}.tar", _recipe(size, f"bench-{number}"))
        with path.open("rb", buffering=0) as source:
            diff_id = layer_to_image(source, None).diff_id
        return LayerBlob(diff_id, "", "", path, path.stat().st_size)

    with ThreadPoolExecutor(max_workers=4) as pool:
        blobs = list(pool.map(blob, range(4)))

    def fill(name: str, layers: list[LayerBlob]) -> None:
        for cached in prepare_layers(LayerCache(directory / name, 1 << 40), layers):
            cached.release()

    return _timed(lambda: fill("one", blobs[:1])), _timed(lambda: fill("four", blobs))


def main(veritysetup: Path | None = None) -> None:
    """Measure and print."""
    for line in benchmark(veritysetup=veritysetup).lines():
        print(line)


if __name__ == "__main__":
    main()
