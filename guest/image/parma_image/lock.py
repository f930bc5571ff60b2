# SPDX-License-Identifier: Apache-2.0
"""``packages.lock``: exactly which packages, by SHA-256, the guest image is made from."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from parma_image import contents, wheels
from parma_image.debian import Deb, DebianArchive
from parma_wire.errors import Malformed, NotFound, ParmaError

LOCK_FILE: Final = Path(__file__).with_name("packages.lock")
RELOCK_HINT: Final = "'parma image lock' takes what the archive has now; the image's measurement changes with it"

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_TOKEN: Final = re.compile(r"[A-Za-z0-9.+:~_-]+")
_KERNEL: Final = re.compile(r"linux-image-\d.*-cloud-amd64")


@dataclass(frozen=True, order=True)
class LockedPackage:
    """One Debian package; ``sha256`` (hex) is that of the .deb file."""

    suite: str
    name: str
    version: str
    sha256: str


@dataclass(frozen=True, order=True)
class LockedWheel:
    """One wheel of the package index; ``file`` is its file name."""

    name: str
    version: str
    file: str
    sha256: str


@dataclass(frozen=True)
class Lock:
    """Everything that goes into the image and is not ours."""

    packages: tuple[LockedPackage, ...]
    wheels: tuple[LockedWheel, ...]

    def digest(self) -> str:
        """Changes when anything in it does."""
        return hashlib.sha256(dump(self).encode()).hexdigest()


def dump(lock: Lock) -> str:
    """The text of the lock file."""
    packages = [asdict(item) for item in sorted(lock.packages)]
    document = {"format": 1, "packages": packages, "wheels": [asdict(item) for item in sorted(lock.wheels)]}
    return json.dumps(document, indent=1) + "\n"


def load(path: Path = LOCK_FILE) -> Lock:
    """Reads a lock file. NotFound or Malformed, naming the file."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFound(f"no lock file {path.name}", hint="'parma image lock' makes it") from None
    except ValueError as error:
        raise Malformed(f"{path.name} is not JSON: {error}") from error
    try:
        if set(document) != {"format", "packages", "wheels"} or document["format"] != 1:
            raise Malformed(f"{path.name} has another format", expected="format 1 with packages and wheels")
        packages = tuple(LockedPackage(**item) for item in document["packages"])
        locked_wheels = tuple(LockedWheel(**item) for item in document["wheels"])
    except TypeError as error:
        raise Malformed(f"{path.name}: {error}") from error
    for name, version, sha256 in [(i.name, i.version, i.sha256) for i in packages] + [
        (i.name, i.version, i.sha256) for i in locked_wheels
    ]:
        if not _SHA256.fullmatch(sha256) or not _TOKEN.fullmatch(version) or not _TOKEN.fullmatch(name):
            raise Malformed(f"{path.name}: bad entry for {name!r}")
    return Lock(packages, locked_wheels)


def make(archive: DebianArchive, workdir: Path) -> Lock:
    """A lock of what the archive and the package index have now."""
    kernel = _kernel_package(archive)
    debs = archive.fetch(contents.GUEST_SUITE, [*contents.GUEST_PACKAGES, kernel])
    firmware = archive.fetch(contents.FIRMWARE_SUITE, [contents.FIRMWARE_PACKAGE])
    packages = [LockedPackage(contents.GUEST_SUITE, deb.name, deb.version, deb.sha256) for deb in debs]
    packages += [LockedPackage(contents.FIRMWARE_SUITE, deb.name, deb.version, deb.sha256) for deb in firmware]
    archive.log(f"asking the package index for {', '.join(contents.WHEELS)}")
    found = wheels.download(wheels.current_requirements(contents.WHEELS), workdir / "wheels")
    locked = [LockedWheel(w.name, w.version, w.path.name, w.sha256) for w in found]
    return Lock(tuple(sorted(packages)), tuple(sorted(locked)))


def fetch(lock: Lock, archive: DebianArchive) -> list[Deb]:
    """The locked packages, from the cache or the archive, every one with the hash of the lock."""
    debs = []
    for suite in sorted({package.suite for package in lock.packages}):
        packages = [package for package in lock.packages if package.suite == suite]
        try:
            found = archive.fetch_exactly(suite, [(p.name, p.version, p.sha256) for p in packages])
        except NotFound as error:
            raise NotFound(error.message, hint=RELOCK_HINT) from error
        debs += found
    return debs


def _kernel_package(archive: DebianArchive) -> str:
    """The kernel that the metapackage stands for today."""
    names = archive.dependencies(contents.GUEST_SUITE, contents.KERNEL_METAPACKAGE)
    kernels = [name for name in names if _KERNEL.fullmatch(name)]
    if len(kernels) != 1:
        raise ParmaError(f"{contents.KERNEL_METAPACKAGE} does not name one kernel", expected="linux-image-VERSION")
    return kernels[0]
