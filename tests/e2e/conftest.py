# SPDX-License-Identifier: Apache-2.0
"""Private containerds with images imported, and what their tests share."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from devtool import images, paths
from devtool.containerd import PrivateContainerd
from tests.e2e.host import BUSYBOX, DEBIAN, Host, debian_userland

VERSIONS = ("containerd-2.1", "containerd-1.7")


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Image archives by reference, made from Debian packages."""
    for needed in (paths.PREFIX / "bin/busybox", paths.IMAGE / "manifest.json"):
        if not needed.exists():
            pytest.skip(f"{needed.relative_to(paths.ROOT)} is missing: run ./dev setup")
    directory = tmp_path_factory.mktemp("images")
    busybox = paths.PREFIX / "bin/busybox"
    images.write_busybox_image(directory / "busybox.tar", busybox, BUSYBOX)
    debian_userland(directory / "debian.tar")
    return {BUSYBOX: directory / "busybox.tar", DEBIAN: directory / "debian.tar"}


def host_for(version: str, archives: dict[str, Path], **settings: object) -> Iterator[Host]:
    with PrivateContainerd(paths.PREFIX / version, parma_config=settings) as daemon:
        for archive in archives.values():
            imported = daemon.ctr("image", "import", archive)
            assert imported.returncode == 0, imported.stderr
        yield Host(daemon, archives)


@pytest.fixture(scope="session", params=VERSIONS)
def host(request: pytest.FixtureRequest, archives: dict[str, Path]) -> Iterator[Host]:
    """A running containerd of each supported line."""
    yield from host_for(request.param, archives)


@pytest.fixture(scope="session")
def host_21(archives: dict[str, Path]) -> Iterator[Host]:
    """containerd 2.1, for what does not depend on containerd's version."""
    yield from host_for("containerd-2.1", archives)


NEWER = ("containerd-2.2", "containerd-2.3")
"""Debian has no packages of these; CONTRIBUTING.md says how to get them."""


@pytest.fixture(scope="session", params=(*VERSIONS, *NEWER))
def open_host(request: pytest.FixtureRequest, archives: dict[str, Path]) -> Iterator[Host]:
    """A containerd of each line, also of those that are only tested where they are, with ``tee = none``."""
    if not (paths.PREFIX / request.param / "containerd").exists():
        pytest.skip(f"there is no {request.param} in {paths.PREFIX.relative_to(paths.ROOT)}")
    for host in host_for(request.param, archives, tee="none"):
        host.open_door = True
        yield host


@pytest.fixture
def own_host(archives: dict[str, Path]) -> Iterator[Host]:
    """A containerd of its own, for tests that kill it or look at all that is left behind."""
    yield from host_for("containerd-2.1", archives)


_numbers = itertools.count()


@pytest.fixture
def name() -> str:
    """A container name that no other test uses."""
    return f"c{next(_numbers)}"
