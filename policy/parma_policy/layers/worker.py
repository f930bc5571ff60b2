# SPDX-License-Identifier: Apache-2.0
"""Converting several layers at once, each in a process of its own.

Hashing a layer block by block keeps the interpreter lock busy, so threads would share one processor. Separate
processes also give the memory of a conversion back at once. The process reads one request (JSON, one line) from its
standard input, fills the cache, answers with one line, and dies with the end of that input, so also with its parent.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Final

from parma_policy.layers.blobs import LayerBlob
from parma_policy.layers.cache import CachedLayer, LayerCache
from parma_wire import errors
from parma_wire.errors import DeadlineExceeded, ParmaError, Unavailable

_MAX_STDERR: Final = 2000
_STDIN: Final = 0


def prepare_layers(
    cache: LayerCache,
    layers: Sequence[LayerBlob],
    *,
    processes: int | None = None,
    timeout: float | None = None,
) -> list[CachedLayer]:
    """All ``layers`` from the cache, pinned, in the same order; those not there yet are converted in parallel.

    ``processes`` at a time (default: one a processor; 0 converts here, one after the other). ``timeout`` in seconds
    is for everything. Raises what ``LayerCache.get_or_convert`` raises; then nothing stays pinned.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    count = os.cpu_count() or 1 if processes is None else processes
    pinned: list[CachedLayer] = []
    try:
        if count:
            _convert_missing(cache, layers, count, deadline)
        for layer in layers:
            pinned.append(cache.get_or_convert(layer.diff_id, layer.open, timeout=_remaining(deadline)))
    except BaseException:
        for cached in pinned:
            cached.release()
        raise
    return pinned


def _convert_missing(cache: LayerCache, layers: Sequence[LayerBlob], count: int, deadline: float | None) -> None:
    missing = {}
    for layer in layers:
        if layer.path is not None and layer.diff_id not in missing and not _is_cached(cache, layer.diff_id, deadline):
            missing[layer.diff_id] = layer
    if not missing:
        return
    workers = _Workers(cache, deadline)
    # The largest first: the last to finish decides how long all of it takes.
    order = sorted(missing.values(), key=lambda layer: -layer.size)
    with ThreadPoolExecutor(max_workers=min(count, len(order))) as pool:
        futures = [pool.submit(workers.convert, layer) for layer in order]
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        failure = next((error for future in done if (error := future.exception()) is not None), None)
        if failure is not None:
            workers.stop()
    if failure is not None:
        raise failure


def _is_cached(cache: LayerCache, diff_id: str, deadline: float | None) -> bool:
    cached = cache.get(diff_id, timeout=_remaining(deadline))
    if cached is None:
        return False
    cached.release()
    return True


def _remaining(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


class _Workers:
    """The processes of one call."""

    def __init__(self, cache: LayerCache, deadline: float | None) -> None:
        self._cache = cache
        self._deadline = deadline
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def convert(self, layer: LayerBlob) -> None:
        request = {
            "directory": str(self._cache.directory),
            "max_bytes": self._cache.max_bytes,
            "diff_id": layer.diff_id,
            "media_type": layer.media_type,
            "path": str(layer.path),
            "size": layer.size,
            "offset": layer.offset,
            "timeout": _remaining(self._deadline),
        }
        process = self._start()
        try:
            self._exchange(process, request, layer.diff_id)
        finally:
            process.kill()
            process.communicate()
            with self._lock:
                self._running.discard(process)

    def stop(self) -> None:
        """Kill what runs; nothing is started any more."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.kill()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._stopped:
                raise Unavailable("the conversion of another layer failed")
            environment = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PATH": os.defpath}
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
            )
            self._running.add(process)
            return process

    def _exchange(self, process: subprocess.Popen[bytes], request: dict[str, Any], diff_id: str) -> None:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None  # noqa: S101, PT018
        timer = None
        if self._deadline is not None:
            timer = threading.Timer(max(0.0, self._deadline - time.monotonic()), process.kill)
            timer.daemon = True
            timer.start()
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = b""
        finally:
            if timer is not None:
                timer.cancel()
        if answer:
            _raise_reported(json.loads(answer))
            return
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise DeadlineExceeded(f"layer {diff_id} was not converted in time")
        process.kill()
        said = process.stderr.read(_MAX_STDERR).decode("utf-8", "replace").strip().splitlines()
        raise Unavailable(f"the process that converts layer {diff_id} died" + (f": {said[-1]}" if said else ""))


def _raise_reported(answer: dict[str, str]) -> None:
    if "error" not in answer:
        return
    kind = getattr(errors, answer["error"], Unavailable)
    raise kind(answer["message"], expected=answer["expected"], hint=answer["hint"])


def main() -> int:
    """The process's side."""
    request = json.loads(_read_line())
    threading.Thread(target=_die_with_parent, daemon=True).start()
    layer = LayerBlob(
        diff_id=request["diff_id"],
        digest="",
        media_type=request["media_type"],
        path=Path(request["path"]),
        size=request["size"],
        offset=request["offset"],
    )
    try:
        cache = LayerCache(Path(request["directory"]), request["max_bytes"])
        cache.get_or_convert(layer.diff_id, layer.open, timeout=request["timeout"]).release()
    except ParmaError as error:
        name = next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
        answer = {"error": name, "message": error.message, "expected": error.expected, "hint": error.hint}
    else:
        answer = {}
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
    return 0


def _read_line() -> bytes:
    # Not through sys.stdin: a thread that waits in it would keep the interpreter from ending.
    line = b""
    while not line.endswith(b"\n") and (piece := os.read(_STDIN, 1 << 16)):
        line += piece
    return line


def _die_with_parent() -> None:
    while os.read(_STDIN, 1 << 16):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
