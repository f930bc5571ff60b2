# SPDX-License-Identifier: Apache-2.0
"""What the doctor's probes read: the machine below a root directory, its programs, and our configuration."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from parma_shim.config import Config
from parma_shim.vm.image import GuestImage, ImageFile, load_image

_PROGRAM_TIMEOUT: Final = 20.0
_BLOCK: Final = 1 << 20


class Process(NamedTuple):
    """How a running program was started: its words, and the directories of its PATH."""

    arguments: list[str]
    path: list[str]


class Surroundings(Protocol):
    """Read-only access to a host with containerd. None where the thing is not there or may not be read."""

    @property
    def config(self) -> Config:
        """The configuration that applies."""

    def text(self, path: str) -> str | None:
        """A small text file."""

    def data(self, path: str) -> bytes | None:
        """A small binary file."""

    def matching(self, pattern: str) -> list[str]:
        """Files whose path matches a pattern with wildcards in its last part, sorted."""

    def openable(self, path: str) -> str | None:
        """Empty if a device can be opened for reading and writing, else the reason; None if it does not exist."""

    def executable(self, path: str) -> bool:
        """Whether this is a program that can be executed."""

    def writable(self, path: str) -> bool | None:
        """Whether files can be made in this directory; None if it does not exist."""

    def run(self, argv: Sequence[str]) -> str | None:
        """What a program prints on standard output; None when it cannot be run or fails."""

    def process(self, name: str) -> Process | None:
        """The running process of this name."""

    def image(self) -> GuestImage:
        """The guest image. Raises ParmaError."""

    def sha256(self, file: ImageFile) -> str | None:
        """The hash of an image file, in hex."""


class ThisHost:
    """The machine we run on. ``root`` is another directory to read files below, for tests; programs are real."""

    def __init__(self, config: Config, *, root: Path = Path("/")) -> None:
        self._config: Final = config
        self._root: Final = root

    @property
    def config(self) -> Config:
        return self._config

    def _path(self, path: str) -> Path:
        return self._root / path.lstrip("/")

    def text(self, path: str) -> str | None:
        data = self.data(path)
        return None if data is None else data.decode("utf-8", "replace")

    def data(self, path: str) -> bytes | None:
        try:
            return self._path(path).read_bytes()
        except OSError:
            return None

    def matching(self, pattern: str) -> list[str]:
        directory, name = os.path.split(pattern)
        try:
            names = sorted(entry.name for entry in self._path(directory).iterdir())
        except OSError:
            return []
        return [f"{directory}/{found}" for found in names if fnmatch(found, name)]

    def openable(self, path: str) -> str | None:
        try:
            os.close(os.open(self._path(path), os.O_RDWR | os.O_CLOEXEC))
        except FileNotFoundError:
            return None
        except OSError as error:
            return error.strerror or "cannot be opened"
        return ""

    def executable(self, path: str) -> bool:
        file = self._path(path)
        return file.is_file() and os.access(file, os.X_OK)

    def writable(self, path: str) -> bool | None:
        directory = self._path(path)
        return os.access(directory, os.W_OK | os.X_OK) if directory.is_dir() else None

    def run(self, argv: Sequence[str]) -> str | None:
        try:
            done = subprocess.run(
                list(argv), capture_output=True, text=True, timeout=_PROGRAM_TIMEOUT, check=False, errors="replace"
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout if done.returncode == 0 else None

    def process(self, name: str) -> Process | None:
        for entry in self._path("/proc").glob("[0-9]*"):
            try:
                if (entry / "comm").read_text().strip() != name:
                    continue
                arguments = (entry / "cmdline").read_bytes().decode("utf-8", "replace").rstrip("\0").split("\0")
                environment = (entry / "environ").read_bytes().decode("utf-8", "replace").split("\0")
            except OSError:
                continue
            path = next((word[5:] for word in environment if word.startswith("PATH=")), "")
            return Process(arguments, [directory for directory in path.split(":") if directory])
        return None

    def image(self) -> GuestImage:
        return load_image(self._config.image_dir)

    def sha256(self, file: ImageFile) -> str | None:
        import hashlib

        digest = hashlib.sha256()
        try:
            with open(file.path, "rb") as stream:
                while block := stream.read(_BLOCK):
                    digest.update(block)
        except OSError:
            return None
        return digest.hexdigest()
