# SPDX-License-Identifier: Apache-2.0
"""Preparing all layers of an image: processes, errors that cross them, deadlines, and the benchmark."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from parma_policy.layers import benchmark
from parma_policy.layers.blobs import LayerBlob
from parma_policy.layers.cache import LayerCache
from parma_policy.layers.worker import prepare_layers
from parma_wire.errors import DeadlineExceeded, Malformed, Unavailable, Unverified

from .images import digest_of, layer_tars


@pytest.fixture
def cache(tmp_path: Path) -> LayerCache:
    return LayerCache(tmp_path / "cache", 1 << 40)


def blobs(directory: Path, tars: list[bytes]) -> list[LayerBlob]:
    found = []
    for number, tar in enumerate(tars):
        path = directory / f"blob-{number}"
        path.write_bytes(tar)
        found.append(LayerBlob(digest_of(tar), "", "", path, -1))
    return found


@pytest.mark.parametrize("processes", [None, 0, 1, 3])
def test_all_layers_come_back_in_order_and_pinned(cache: LayerCache, tmp_path: Path, processes: int | None) -> None:
    tars = layer_tars(4)
    wanted = blobs(tmp_path, [*tars, tars[0]])
    prepared = prepare_layers(cache, wanted, processes=processes)
    assert [layer.diff_id for layer in prepared] == [blob.diff_id for blob in wanted]
    LayerCache(cache.directory, 0).evict()
    for layer in prepared:
        assert layer.path.exists()
        layer.verify_fully()
        layer.release()


def test_what_is_cached_needs_no_blob(cache: LayerCache, tmp_path: Path) -> None:
    wanted = blobs(tmp_path, layer_tars(2))
    for layer in prepare_layers(cache, wanted):
        layer.release()
    for blob in wanted:
        assert blob.path is not None
        blob.path.unlink()
    for layer in prepare_layers(cache, wanted):
        layer.release()


@pytest.mark.parametrize("processes", [None, 0])
def test_errors_cross_the_process_with_their_class_and_nothing_stays_pinned(
    cache: LayerCache, tmp_path: Path, processes: int | None
) -> None:
    wanted = blobs(tmp_path, layer_tars(3))
    assert wanted[1].path is not None
    wanted[1].path.write_bytes(layer_tars(1, "other")[0])
    with pytest.raises(Unverified, match="diffID"):
        prepare_layers(cache, wanted, processes=processes)
    wanted[1].path.write_bytes(b"junk" * 1000)
    with pytest.raises(Malformed, match="tar header"):
        prepare_layers(cache, wanted, processes=processes)
    empty = LayerCache(cache.directory, 0)
    empty.evict()
    assert list(empty.directory.glob("*.img")) == []


def test_a_deadline_ends_the_processes(cache: LayerCache, tmp_path: Path) -> None:
    wanted = blobs(tmp_path, layer_tars(1))
    assert wanted[0].path is not None
    wanted[0].path.unlink()
    os.mkfifo(wanted[0].path)  # opening it for reading blocks
    with pytest.raises(DeadlineExceeded):
        prepare_layers(cache, wanted, timeout=0.5)


def test_a_locked_layer_is_not_waited_for_beyond_the_deadline(cache: LayerCache, tmp_path: Path) -> None:
    wanted = blobs(tmp_path, layer_tars(1))
    with (cache.directory / f"{wanted[0].diff_id.removeprefix('sha256:')}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DeadlineExceeded):
            prepare_layers(cache, wanted, timeout=0.05)


def test_a_process_that_dies_is_reported(cache: LayerCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho this is why >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(Unavailable, match="this is why"):
        prepare_layers(cache, blobs(tmp_path, layer_tars(1)))


def test_the_process_dies_with_its_input(cache: LayerCache, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        [sys.executable, "-m", "parma_policy.layers.worker"],
        stdin=subprocess.PIPE,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    request = (
        f'{{"directory": "{cache.directory}", "max_bytes": 1, "diff_id": "sha256:{"0" * 64}", "media_type": "",'
        f' "path": "{fifo}", "size": 1, "offset": 0, "timeout": null}}\n'
    )
    process.communicate(request.encode())
    assert process.returncode == 1


def test_the_benchmark_reports_each_measurement() -> None:
    timings = benchmark.benchmark(8, rounds=1)
    text = "\n".join(timings.lines())
    assert "8 MiB" in text
    assert "veritysetup" in text
    assert timings.root_hash > 0
