# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest

from parma_image import build, contents, lock, wheels
from parma_image.debian import Deb, DebianArchive
from parma_wire.errors import Malformed, NotFound, Unavailable

_HASH = "ab" * 32
_LOCK = lock.Lock(
    (lock.LockedPackage("trixie", "crun", "1.21-1", _HASH),),
    (lock.LockedWheel("protobuf", "7.0", "protobuf-7.0-cp310-abi3-manylinux2014_x86_64.whl", _HASH),),
)


class _GoneArchive(DebianArchive):
    """An archive that has moved on."""

    def fetch(self, *arguments: object, **_: object) -> list[Deb]:
        raise NotFound(f"the archive has no crun=1.21-1 in {arguments[0]}")


class _ChangedArchive(DebianArchive):
    """An archive that has rebuilt a package under the same version."""

    def fetch(self, *_: object, **__: object) -> list[Deb]:
        return [Deb("crun", "1.21-1", "amd64", self.workdir / "x", "cd" * 32, 1)]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text(lock.dump(_LOCK))
    assert lock.load(tmp_path / "lock") == _LOCK


def test_a_version_that_is_gone_is_named_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no crun=1\.21-1 in trixie.*parma image lock"):
        lock.fetch(_LOCK, _GoneArchive(tmp_path))


def test_a_version_with_other_contents_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"crun=1\.21-1 in trixie is not the one that was locked"):
        lock.fetch(_LOCK, _ChangedArchive(tmp_path))


def test_build_does_not_take_other_versions_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "DebianArchive", _GoneArchive)
    (tmp_path / "lock").write_text(lock.dump(_LOCK))
    with pytest.raises(NotFound, match="parma image lock"):
        build.build_image(tmp_path / "out", workdir=tmp_path, lock_file=tmp_path / "lock")
    assert not (tmp_path / "out").exists()


def test_a_cached_package_with_a_wrong_hash_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "debs").mkdir()
    (tmp_path / f"debs/{_HASH}.deb").write_bytes(b"not the package")
    with pytest.raises(NotFound):
        lock.fetch(_LOCK, _GoneArchive(tmp_path))


def test_digest_changes_with_every_package() -> None:
    other = lock.Lock((lock.LockedPackage("trixie", "crun", "1.21-1", "cd" * 32),), _LOCK.wheels)
    assert other.digest() != _LOCK.digest()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"format": 2, "packages": [], "wheels": []}',
        '{"format": 1, "packages": []}',
        '{"format": 1, "packages": [{"suite": "a"}], "wheels": []}',
        '{"format": 1, "packages": [{"suite": "a", "name": "b", "version": "1", "sha256": "0"}], "wheels": []}',
        json.dumps(
            {"format": 1, "packages": [{"suite": "a", "name": "-o", "version": "1 2", "sha256": _HASH}], "wheels": []}
        ),
    ],
)
def test_a_broken_lock_file_is_refused_by_name(text: str, tmp_path: Path) -> None:
    (tmp_path / "packages.lock").write_text(text)
    with pytest.raises(Malformed, match=r"packages\.lock"):
        lock.load(tmp_path / "packages.lock")


def test_the_lock_file_of_this_checkout_has_everything_that_the_image_is_made_of() -> None:
    found = lock.load()
    names = {package.name for package in found.packages}
    assert names >= {*contents.GUEST_PACKAGES, contents.FIRMWARE_PACKAGE}
    assert sum(name.startswith("linux-image-") for name in names) == 1
    assert {wheel.name for wheel in found.wheels} == set(contents.WHEELS)


def test_a_wheel_with_a_wrong_hash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "download", lambda *_: [])
    (tmp_path / "a.whl").write_bytes(b"other")
    with pytest.raises(Unavailable, match=r"another a\.whl"):
        wheels.fetch([("a", "1", "a.whl", _HASH)], tmp_path)
