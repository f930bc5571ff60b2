# SPDX-License-Identifier: Apache-2.0
"""One listening socket per group."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from parma_shim import sockets
from parma_wire.errors import Malformed


def test_the_path_is_short_whatever_the_names(short_path: Path) -> None:
    path = sockets.socket_path(str(short_path), "/run/containerd/containerd.sock", "n" * 76, "i" * 64)
    assert len(path) <= 105
    assert path != sockets.socket_path(str(short_path), "/run/containerd/containerd.sock", "n" * 76, "j" * 64)


def test_a_long_folder_gets_a_shorter_name_and_too_long_a_one_is_refused() -> None:
    assert len(sockets.socket_path("/" + "d" * 75, "a", "n", "i")) <= 105
    with pytest.raises(Malformed):
        sockets.socket_path("/" + "d" * 90, "a", "n", "i")


def test_the_first_listens_and_the_next_joins(short_path: Path) -> None:
    path = str(short_path / "s" / "x")
    listener = sockets.listen_or_join(path)
    assert listener is not None
    assert sockets.listen_or_join(path) is None
    assert (short_path / "s" / "x").stat().st_mode & 0o777 == 0o600
    assert (short_path / "s").stat().st_mode & 0o777 == 0o711
    listener.close()


def test_a_dead_socket_is_replaced(short_path: Path) -> None:
    path = str(short_path / "x")
    first = sockets.listen_or_join(path)
    assert first is not None
    first.close()
    second = sockets.listen_or_join(path)
    assert second is not None
    second.close()


def test_of_many_at_once_one_listens(short_path: Path) -> None:
    path = str(short_path / "x")
    results = []
    threads = [threading.Thread(target=lambda: results.append(sockets.listen_or_join(path))) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    listeners = [each for each in results if each is not None]
    assert len(listeners) == 1
    assert len(results) == 10
    listeners[0].close()


def test_only_a_dead_socket_is_removed_and_no_lock_is_left(short_path: Path) -> None:
    path = short_path / "x"
    listener = sockets.listen_or_join(str(path))
    assert listener is not None
    sockets.remove_if_dead(str(path))
    assert path.exists()
    listener.close()
    sockets.remove_if_dead(str(path))
    sockets.remove_if_dead(str(path))
    assert list(short_path.iterdir()) == []
