# SPDX-License-Identifier: Apache-2.0
"""The layer cache: sharing between processes, death at any point, damage, limits, full disks."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from parma_policy.layers import cache as cache_module
from parma_policy.layers.cache import LayerCache
from parma_policy.layers.convert import LayerImage, layer_to_image
from parma_wire.errors import DeadlineExceeded, Malformed, Unavailable, Unverified

from . import tars

LARGE = 1 << 40


def layer(number: int, size: int = 100_000) -> tuple[str, Callable[[], BinaryIO]]:
    """A small layer: its diffID and how to open it."""
    data = tars.file(b"f%d" % number, hashlib.shake_128(b"%d" % number).digest(size)) + tars.END
    return "sha256:" + hashlib.sha256(data).hexdigest(), lambda: io.BytesIO(data)


def never() -> BinaryIO:
    raise AssertionError("converted again")


def files(cache: LayerCache) -> set[str]:
    return {path.suffix for path in cache.directory.iterdir()}


@pytest.fixture
def cache(tmp_path: Path) -> LayerCache:
    return LayerCache(tmp_path / "layers", LARGE)


def test_a_layer_is_converted_once_and_found_again(cache: LayerCache) -> None:
    diff_id, open_blob = layer(1)
    out = io.BytesIO()
    expected = layer_to_image(open_blob(), out)
    with cache.get_or_convert(diff_id, open_blob) as first:
        assert first.path.read_bytes() == out.getvalue()
        first.verify_fully()
        assert (first.root_hash, first.data_blocks, first.total_size) == (
            expected.root_hash,
            expected.data_blocks,
            expected.total_size,
        )
    with cache.get_or_convert(diff_id, never) as second:
        assert second.root_hash == expected.root_hash
    assert files(cache) == {".img", ".json", ".lock"}
    assert cache.directory.stat().st_mode & 0o77 == 0


@pytest.mark.parametrize("diff_id", ["", "sha256:", "sha256:" + "g" * 64, "../" + "a" * 61, "sha256:" + "A" * 64])
def test_only_well_formed_diffids_become_paths(cache: LayerCache, diff_id: str) -> None:
    with pytest.raises(Malformed):
        cache.get_or_convert(diff_id, never)


def test_a_blob_with_another_diffid_is_refused_and_not_kept(cache: LayerCache) -> None:
    diff_id, _ = layer(1)
    _, other = layer(2)
    with pytest.raises(Unverified, match="diffID"):
        cache.get_or_convert(diff_id, other)
    assert files(cache) <= {".lock"}


def test_a_broken_layer_leaves_nothing(cache: LayerCache) -> None:
    with pytest.raises(Malformed):
        cache.get_or_convert(layer(1)[0], lambda: io.BytesIO(b"x" * 600))
    assert files(cache) <= {".lock"}


def damage_size(image: Path) -> None:
    os.truncate(image, image.stat().st_size - 1)


def damage_tree(image: Path) -> None:
    with image.open("r+b") as file:
        record = json.loads(image.with_suffix(".json").read_text())
        file.seek(record["ext4_size"] + 4096 + 5)
        file.write(b"\xff\xff")


def damage_data(image: Path) -> None:
    with image.open("r+b") as file:
        file.seek(10 * 4096)
        file.write(b"other")


def damage_record(image: Path) -> None:
    record = image.with_suffix(".json")
    record.write_text(record.read_text().replace('"root_hash": "', '"root_hash": "0'))


def record_with_wrong_types(image: Path) -> None:
    image.with_suffix(".json").write_text('["format"]')


def lose_record(image: Path) -> None:
    image.with_suffix(".json").unlink()


def lose_image(image: Path) -> None:
    image.unlink()


@pytest.mark.parametrize(
    "damage",
    [damage_size, damage_tree, damage_data, damage_record, record_with_wrong_types, lose_record, lose_image],
)
def test_a_damaged_layer_is_dropped_and_made_again(cache: LayerCache, damage: Callable[[Path], None]) -> None:
    diff_id, open_blob = layer(1)
    with cache.get_or_convert(diff_id, open_blob) as good:
        contents = good.path.read_bytes()
    damage(good.path)
    assert cache.get(diff_id) is None
    with cache.get_or_convert(diff_id, open_blob) as again:
        assert again.path.read_bytes() == contents


def test_damage_behind_an_unchanged_time_is_found_by_full_verification(cache: LayerCache) -> None:
    diff_id, open_blob = layer(1)
    with cache.get_or_convert(diff_id, open_blob) as first:
        stamps = first.path.stat()
    damage_data(first.path)
    os.utime(first.path, ns=(stamps.st_atime_ns, stamps.st_mtime_ns))
    with cache.get_or_convert(diff_id, never) as cached, pytest.raises(Unverified, match="damaged"):
        cached.verify_fully()


def test_a_copied_cache_is_verified_and_used(cache: LayerCache, tmp_path: Path) -> None:
    diff_id, open_blob = layer(1)
    cache.get_or_convert(diff_id, open_blob).release()
    shutil.copytree(cache.directory, tmp_path / "copy")
    with LayerCache(tmp_path / "copy", LARGE).get_or_convert(diff_id, never) as found:
        found.verify_fully()


def test_the_layer_unused_longest_goes_first_and_pinned_ones_stay(cache: LayerCache) -> None:
    layers = [layer(number) for number in range(4)]
    for position, (diff_id, open_blob) in enumerate(layers):
        with cache.get_or_convert(diff_id, open_blob) as made:
            os.utime(made.path.with_suffix(".json"), (position, position))
            size = made.path.stat().st_blocks * 512
    pinned = cache.get_or_convert(layers[1][0], never)
    os.utime(pinned.path.with_suffix(".json"), (1, 1))
    small = LayerCache(cache.directory, 2 * size)
    small.evict()
    assert [small.get(diff_id) is not None for diff_id, _ in layers] == [False, True, False, True]
    LayerCache(cache.directory, 0).evict()
    assert pinned.path.exists()
    pinned.release()


def test_the_pin_travels_with_the_descriptor(cache: LayerCache) -> None:
    pinned = cache.get_or_convert(*layer(1))
    kept = os.dup(pinned.fd)
    pinned.release()
    pinned.release()
    LayerCache(cache.directory, 0).evict()
    assert pinned.path.exists()
    os.close(kept)
    nothing = LayerCache(cache.directory, 0)
    nothing.evict()
    assert list(nothing.directory.iterdir()) == []


def test_a_new_layer_stays_even_when_it_is_larger_than_the_limit(tmp_path: Path) -> None:
    small = LayerCache(tmp_path, 1)
    with small.get_or_convert(*layer(1)) as made:
        made.verify_fully()
        with small.get_or_convert(*layer(2)) as other:
            other.verify_fully()
            made.verify_fully()


def test_a_full_disk_is_said_clearly_and_leaves_nothing(cache: LayerCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unavailable, match="no space left"):
        cache.get_or_convert(*layer(1))
    assert files(cache) <= {".lock"}


def test_a_full_disk_makes_room_from_the_cache_itself(cache: LayerCache, monkeypatch: pytest.MonkeyPatch) -> None:
    old, open_old = layer(1)
    cache.get_or_convert(old, open_old).release()
    calls: list[int] = []

    def full_at_first(tar: BinaryIO, out: BinaryIO) -> LayerImage:
        calls.append(1)
        if len(calls) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return layer_to_image(tar, out)

    monkeypatch.setattr(cache_module, "layer_to_image", full_at_first)
    with cache.get_or_convert(*layer(2)) as made:
        made.verify_fully()
    assert cache.get(old) is None


def test_an_unusable_directory_is_said_clearly(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="layer cache"):
        LayerCache(tmp_path / "file" / "layers", LARGE)


def test_waiting_for_another_conversion_has_an_end(cache: LayerCache) -> None:
    diff_id, open_blob = layer(1)
    lock = cache.directory / f"{diff_id.removeprefix('sha256:')}.lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DeadlineExceeded):
            cache.get_or_convert(diff_id, open_blob, timeout=0.02)
        with cache.get_or_convert(*layer(2), timeout=0.02) as other:
            other.verify_fully()


_PROCESS = """
import hashlib, io, sys
from pathlib import Path
from parma_policy.layers.cache import LayerCache
from tests.layers.test_cache import layer
directory, log, count = sys.argv[1:]
def opened(number):
    def open_blob():
        with open(log, "a") as file:
            file.write(f"{number}\\n")
        return layer(number, 2_000_000)[1]()
    return open_blob
cache = LayerCache(Path(directory), 1 << 40)
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(count)):
    with cache.get_or_convert(layer(number, 2_000_000)[0], opened(number)) as cached:
        cached.verify_fully()
print("done", flush=True)
"""


def start(directory: Path, log: Path, count: int) -> subprocess.Popen[str]:
    root = Path(__file__).resolve().parents[2]
    environment = {"PYTHONPATH": os.pathsep.join([str(root), *sys.path])}
    return subprocess.Popen(
        [sys.executable, "-c", _PROCESS, str(directory), str(log), str(count)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def begin(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


def finish(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate()
    return out


def test_processes_that_want_the_same_layers_convert_each_once(cache: LayerCache, tmp_path: Path) -> None:
    log = tmp_path / "log"
    processes = [start(cache.directory, log, 4) for _ in range(3)]
    for process in processes:
        begin(process)
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [finish(process) for process in processes] == ["done\n"] * 3
    assert sorted(log.read_text().split()) == ["0", "1", "2", "3"]


_INTERRUPTED = """
import os, sys
from pathlib import Path
from parma_policy.layers import cache as module
from parma_policy.layers.cache import LayerCache
from tests.layers.test_cache import layer
directory, moment = Path(sys.argv[1]), int(sys.argv[2])
count = 0
def counted(real):
    def call(*args, **kwargs):
        global count
        count += 1
        if count == moment:
            os.kill(os.getpid(), 9)
        return real(*args, **kwargs)
    return call
cache = LayerCache(directory, 1 << 40)
for name in ("open", "fsync", "fstat", "utime"):
    setattr(module.os, name, counted(getattr(os, name)))
for name in ("rename", "unlink"):
    setattr(Path, name, counted(getattr(Path, name)))
module.layer_to_image = counted(module.layer_to_image)
cache.get_or_convert(*layer(1)).release()
"""


def test_kill_9_at_any_point_leaves_a_cache_that_works(tmp_path: Path) -> None:
    """A process is killed before its first, second, ... call that changes something, until it survives."""
    root = Path(__file__).resolve().parents[2]
    environment = {"PYTHONPATH": os.pathsep.join([str(root), *sys.path])}
    diff_id, open_blob = layer(1)
    killed = 0
    for moment in range(1, 100):
        directory = tmp_path / str(moment)
        arguments = [sys.executable, "-c", _INTERRUPTED, str(directory), str(moment)]
        status = subprocess.run(arguments, env=environment, check=False).returncode
        recovered = LayerCache(directory, LARGE)
        left = files(recovered)
        assert left in ({".img", ".json", ".lock"}, set())
        with recovered.get_or_convert(diff_id, never if left else open_blob) as found:
            found.verify_fully()
        if status == 0:
            break
        assert status == -signal.SIGKILL
        killed += 1
    assert status == 0
    assert killed > 12


def test_a_process_killed_while_it_writes_leaves_no_partial_image(cache: LayerCache, tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from parma_policy.layers.cache import LayerCache\n"
        "LayerCache(Path(sys.argv[1]), 1 << 40).get_or_convert(sys.argv[2], lambda: os.fdopen(0, 'rb', 0))\n"
    )
    arguments = [sys.executable, "-c", program, str(cache.directory), layer(1)[0]]
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(arguments, stdin=read_end, env=environment)
    os.close(read_end)
    # Larger than a pipe: when all is written, the process has read some of it and so has its file open.
    os.write(write_end, layer(1)[1]().read())
    os.write(write_end, bytes(64 * 1024 - 512))
    assert ".partial" in files(cache)
    process.kill()
    process.wait()
    os.close(write_end)
    cache.remove_leftovers()
    assert files(cache) == set()


def test_a_live_process_keeps_its_partial_image(cache: LayerCache) -> None:
    name = layer(1)[0].removeprefix("sha256:")
    partial = cache.directory / f"{name}.partial"
    partial.write_bytes(b"being made")
    with (cache.directory / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        cache.remove_leftovers()
        assert partial.exists()
    cache.remove_leftovers()
    assert not partial.exists()


def test_strangers_in_the_directory_are_left_alone(cache: LayerCache) -> None:
    for name in ("README", "a.img", "x.partial"):
        (cache.directory / name).write_text("mine")
    nothing = LayerCache(cache.directory, 0)
    nothing.evict()
    assert {path.name for path in nothing.directory.iterdir()} == {"README", "a.img", "x.partial"}
