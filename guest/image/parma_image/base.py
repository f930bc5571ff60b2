# SPDX-License-Identifier: Apache-2.0
"""The locked packages, unpacked once and kept: what an image build starts from."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from parma_image import contents, debian, lock, wheels
from parma_image.kernel import Kernel
from parma_wire.errors import NotFound


@dataclass(frozen=True)
class Base:
    """Unpacked Debian packages below ``root``, wheels below ``wheels``."""

    root: Path
    wheels: Path

    @property
    def kernel(self) -> Kernel:
        return Kernel.find(self.root)

    @property
    def firmware(self) -> Path:
        return self.root / contents.FIRMWARE

    def command(self, program: str, *arguments: str) -> list[str]:
        """A command line that runs one of the unpacked programs with its own libraries, whatever the host has."""
        return [
            str(self.root / contents.LOADER),
            "--library-path",
            str(self.root / contents.MULTIARCH),
            str(self.root / program),
            *arguments,
        ]

    def python(self, *arguments: str) -> tuple[list[str], dict[str, str]]:
        """Command line and environment for the guest's interpreter."""
        environment = {"PYTHONHOME": str(self.root / "usr"), "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}
        return self.command(contents.INTERPRETER, "-sSB", *arguments), environment

    def read(self, path: str) -> bytes:
        """Content of an unpacked file, links followed within the folder. NotFound when it is not there."""
        real = Path(os.path.realpath(self.root / path))
        if not real.is_relative_to(self.root) or not real.is_file():
            raise NotFound(f"no {path} in the unpacked packages")
        return real.read_bytes()

    def has(self, path: str) -> bool:
        return Path(os.path.realpath(self.root / path)).is_file()


def prepare(locked: lock.Lock, archive: debian.DebianArchive) -> Base:
    """Fetches and unpacks what ``locked`` names, unless that was done before. What other locks left is removed."""
    directory = archive.workdir.resolve() / "image-base" / locked.digest()[:32]
    with debian.exclusive(directory.parent):
        if not directory.is_dir():
            _unpack(locked, archive, directory)
    return Base(directory / "root", directory / "wheels")


def _unpack(locked: lock.Lock, archive: debian.DebianArchive, directory: Path) -> None:
    debs = lock.fetch(locked, archive)
    found = wheels.fetch([(w.name, w.version, w.file, w.sha256) for w in locked.wheels], archive.workdir / "wheels")
    archive.log("unpacking the guest's packages")
    for other in directory.parent.iterdir():
        if other.is_dir():
            shutil.rmtree(other)
    new = directory.with_name("new")
    # The packages rely on a merged /usr, which Debian's base-files would have made.
    for link, target in contents.LINKS.items():
        if "/" not in link:
            (new / "root" / target).mkdir(parents=True, exist_ok=True)
            (new / "root" / link).symlink_to(target)
    debian.unpack(debs, new / "root")
    for wheel in found:
        wheels.unpack(wheel, new / "wheels")
    new.rename(directory)
