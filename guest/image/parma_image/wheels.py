# SPDX-License-Identifier: Apache-2.0
"""Binary wheels for the guest's Python, whatever Python builds the image."""

from __future__ import annotations

import hashlib
import importlib.metadata
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from parma_image import contents
from parma_wire.errors import Malformed, Unavailable

_VERSION: Final = contents.PYTHON.removeprefix("python")
_PLATFORMS: Final = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


@dataclass(frozen=True)
class Wheel:
    """A downloaded wheel file."""

    name: str
    version: str
    path: Path
    sha256: str


def current_requirements(names: Iterable[str]) -> list[str]:
    """``name==version`` of what is installed here: host and guest then speak the same protobuf."""
    return [f"{name}=={importlib.metadata.version(name)}" for name in names]


def download(requirements: Sequence[str], directory: Path) -> list[Wheel]:
    """Downloads the wheels that fit the guest. A requirement may carry ``--hash=sha256:...``, and then all must.

    Raises Unavailable with pip's reason.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory) as temporary:
        listing = Path(temporary) / "requirements.txt"
        listing.write_text("\n".join(requirements) + "\n")
        command = [sys.executable, "-I", "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--implementation=cp", f"--python-version={_VERSION}", "--dest", temporary]
        command += [f"--platform={platform}" for platform in _PLATFORMS]
        done = subprocess.run(
            [*command, "--requirement", str(listing)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            reason = " ".join(line for line in done.stderr.splitlines() if line.startswith("ERROR")) or done.stderr
            raise Unavailable(f"wheels for the guest could not be downloaded: {reason[:600]}")
        found = [path.rename(directory / path.name) for path in sorted(Path(temporary).glob("*.whl"))]
    return [_wheel(path) for path in found]


def fetch(locked: Sequence[tuple[str, str, str, str]], directory: Path) -> list[Wheel]:
    """The locked ``(name, version, file, sha256)``, from ``directory`` or the package index, hashes checked."""
    missing = [item for item in locked if not _matches(directory / item[2], item[3])]
    if missing:
        download([f"{name}=={version} --hash=sha256:{sha256}" for name, version, _, sha256 in missing], directory)
    for _, _, file, sha256 in locked:
        if not _matches(directory / file, sha256):
            raise Unavailable(f"the package index has another {file} than the lock file names")
    return [_wheel(directory / item[2]) for item in locked]


def unpack(wheel: Wheel, directory: Path) -> None:
    """Unpacks the importable files of a wheel."""
    with zipfile.ZipFile(wheel.path) as archive:
        for name in archive.namelist():
            parts = PurePosixPath(name).parts
            if name.startswith("/") or ".." in parts:
                raise Malformed(f"{wheel.path.name} has a file outside its folder")
            if not parts[0].endswith((".dist-info", ".data")):
                archive.extract(name, directory)


def _matches(path: Path, sha256: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def _wheel(path: Path) -> Wheel:
    name, version = path.name.split("-")[:2]
    return Wheel(name.replace("_", "-"), version, path, hashlib.sha256(path.read_bytes()).hexdigest())
