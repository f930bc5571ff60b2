# SPDX-License-Identifier: Apache-2.0
"""What policies need of many layers: from a cache by diffID, or read by several processes at once.

The cache holds results only, no layers, in the user's cache directory. It is a help against waiting and not
trusted with anything: a wrong entry gives a policy that no host can satisfy.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Final

from parma_policy.generate import layer_facts
from parma_policy.generate.progress import Bar, NoBar
from parma_policy.images import LayerFacts
from parma_policy.layers.blobs import LayerBlob
from parma_wire.errors import Malformed, ParmaError, Unavailable

_FORMAT: Final = 1
_MAX_RECORD: Final = 4 << 20
_DIFF_ID: Final = re.compile("sha256:([0-9a-f]{64})", re.ASCII)
_SMALL: Final = 4 << 20
"""Bytes of blobs for which starting processes takes longer than the work."""


def user_cache() -> Path | None:
    """``parma/layers`` in the user's cache directory, or None where there is no home."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    home = os.environ.get("HOME", "")
    if base.startswith("/"):
        return Path(base) / "parma/layers"
    return Path(home) / ".cache/parma/layers" if home.startswith("/") else None


class LayerReader:
    """Reads layers. ``cache`` is a directory, or None for no cache; ``processes`` 0 reads in this one."""

    def __init__(self, cache: Path | None, *, processes: int | None = None, bar: Bar | None = None) -> None:
        self._cache = cache
        self._processes = os.cpu_count() or 1 if processes is None else processes
        self._bar = bar or NoBar()
        self._known: dict[str, LayerFacts] = {}

    def __call__(self, layers: Sequence[LayerBlob]) -> list[LayerFacts]:
        """The facts of each layer, in order. Raises the errors of ``layers``."""
        wanted = {layer.diff_id: layer for layer in layers if layer.diff_id not in self._known}
        missing = [layer for layer in wanted.values() if not self._load(layer.diff_id)]
        self._read(missing)
        return [self._known[layer.diff_id] for layer in layers]

    def _read(self, layers: Sequence[LayerBlob]) -> None:
        if not layers:
            return
        with self._bar.over({layer.diff_id: layer.size for layer in layers}):
            apart = [layer for layer in layers if layer.path is not None]
            if not self._processes or sum(max(0, layer.size) for layer in apart) < _SMALL:
                apart = []
            here = [layer for layer in layers if layer not in apart]
            _InProcesses(self._processes, self._bar, self._store).read(apart)
            for layer in here:
                self._store(layer_facts.facts_of(layer, self._progress_of(layer)))
                self._bar.done(layer.diff_id)

    def _progress_of(self, layer: LayerBlob) -> Callable[[int], None]:
        return lambda read: self._bar.at(layer.diff_id, read)

    # -- the cache -----------------------------------------------------------------------------------------------

    def _file(self, diff_id: str) -> Path | None:
        match = _DIFF_ID.fullmatch(diff_id)
        return self._cache / f"{match[1]}.json" if self._cache is not None and match else None

    def _load(self, diff_id: str) -> bool:
        path = self._file(diff_id)
        try:
            if path is None:
                return False
            with path.open("rb") as file:
                record = json.loads(file.read(_MAX_RECORD))
            if record.pop("format") != _FORMAT:
                return False
            self._known[diff_id] = layer_facts.from_json(record, diff_id)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, Malformed):
            return False
        return True

    def _store(self, facts: LayerFacts) -> None:
        """Remembers facts; a cache that cannot be written is done without."""
        self._known[facts.diff_id] = facts
        path = self._file(facts.diff_id)
        if path is None:
            return
        with contextlib.suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".new-", delete=False) as file:
                try:
                    json.dump({"format": _FORMAT, **layer_facts.to_json(facts)}, file)
                    file.close()
                    Path(file.name).replace(path)
                except BaseException:
                    Path(file.name).unlink(missing_ok=True)
                    raise


class _InProcesses:
    """Reads layers in several processes: hashing keeps the interpreter's lock busy."""

    def __init__(self, count: int, bar: Bar, store: Callable[[LayerFacts], None]) -> None:
        self._count = count
        self._bar = bar
        self._store = store
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False

    def read(self, layers: Sequence[LayerBlob]) -> None:
        if not layers:
            return
        # The largest first: the last to finish decides how long all of it takes.
        order = sorted(layers, key=lambda layer: -layer.size)
        with ThreadPoolExecutor(max_workers=min(self._count, len(order))) as pool:
            futures = [pool.submit(self._one, layer) for layer in order]
            try:
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                failed = next((future for future in done if future.exception() is not None), None)
            except BaseException:
                self._stop()
                raise
            if failed is not None:
                self._stop()
        if failed is not None:
            failed.result()

    def _stop(self) -> None:
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.kill()

    def _one(self, layer: LayerBlob) -> None:
        process = self._start()
        try:
            facts = self._exchange(process, layer)
        finally:
            process.kill()
            process.communicate()
            with self._lock:
                self._running.discard(process)
        with self._lock:
            self._store(facts)
        self._bar.done(layer.diff_id)

    def _start(self) -> subprocess.Popen[str]:
        with self._lock:
            if self._stopped:
                raise Unavailable("reading another layer failed")
            environment = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PATH": os.defpath}
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", layer_facts.__name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                text=True,
            )
            self._running.add(process)
            return process

    def _exchange(self, process: subprocess.Popen[str], layer: LayerBlob) -> LayerFacts:
        assert process.stdin is not None  # noqa: S101
        assert process.stdout is not None  # noqa: S101
        try:
            process.stdin.write(layer_facts.request_for(layer) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass  # it has died; there will be no answer
        for line in process.stdout:
            facts = layer_facts.answer_from(line, layer.diff_id, lambda read: self._bar.at(layer.diff_id, read))
            if facts is not None:
                return facts
        raise _died(layer)


def _died(layer: LayerBlob) -> ParmaError:
    return Unavailable(f"the process that read layer {layer.diff_id} died")
