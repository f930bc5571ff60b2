# SPDX-License-Identifier: Apache-2.0
"""The guest image on disk: which files, which command line, which launch measurement.

Checking the hashes protects nobody against the host, which is who checks them. It turns a truncated download or a
half-replaced image into one clear error instead of a guest that fails attestation.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final, NamedTuple

from parma_wire.errors import Malformed, NotFound, Unavailable

MANIFEST: Final = "manifest.json"
_MAX_MANIFEST: Final = 16 * 1024 * 1024
_FORMAT: Final = 1


class ImageFile(NamedTuple):
    """One file of the image with what its manifest says of it."""

    path: Path
    sha256: str
    size: int


class GuestImage(NamedTuple):
    """A guest image as its manifest describes it."""

    version: str
    kernel: ImageFile
    initrd: ImageFile
    firmware: ImageFile
    command_lines: dict[str, str]  # by tee
    measurements: dict[tuple[str, int], bytes]  # by tee and number of vCPUs; 48 bytes

    @property
    def files(self) -> tuple[ImageFile, ...]:
        """Every file that the guest is made of."""
        return (self.kernel, self.initrd, self.firmware)

    def command_line(self, tee: str) -> str:
        """The kernel command line. Raises NotFound when the image has none for this tee."""
        try:
            return self.command_lines[tee]
        except KeyError:
            raise NotFound(f"the guest image has no command line for tee = {tee!r}") from None

    def shapes(self, tee: str) -> tuple[int, ...]:
        """Numbers of vCPUs with a published measurement, ascending; empty for tee = "none"."""
        return tuple(sorted(vcpus for name, vcpus in self.measurements if name == tee))

    def measurement(self, tee: str, vcpus: int) -> bytes:
        """The expected launch digest. Raises NotFound when the manifest does not list this shape."""
        try:
            return self.measurements[tee, vcpus]
        except KeyError:
            known = ", ".join(map(str, self.shapes(tee))) or "none"
            raise NotFound(
                f"the guest image has no measurement for {vcpus} vCPUs and tee = {tee!r}", expected=f"one of {known}"
            ) from None


def load_image(directory: Path) -> GuestImage:
    """Read the manifest and check that the files are there and of the right size.

    Raises NotFound for missing files, Malformed for a manifest that makes no sense, Unverified-like mismatches of size
    as Unavailable. The hashes are checked by :func:`require_genuine`.
    """
    path = directory / MANIFEST
    try:
        with open(path, "rb") as stream:
            data = stream.read(_MAX_MANIFEST + 1)
    except FileNotFoundError:
        raise NotFound(f"no guest image in {directory}", hint=f"parma image build {directory}") from None
    except OSError as error:
        raise Unavailable(f"cannot read {path}: {error.strerror}") from error
    try:
        image = _image(directory, json.loads(data))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Malformed(
            f"{path} is not a guest image manifest of format {_FORMAT}", hint=f"parma image build {directory}"
        ) from error
    for file in image.files:
        size = _identity(file.path)[3]
        if size != file.size:
            raise _mismatch(file.path, f"{size} bytes", f"{file.size} bytes")
    return image


def _image(directory: Path, document: dict[str, Any]) -> GuestImage:
    if document["format"] != _FORMAT:
        raise ValueError(document["format"])
    kernel, initrd, firmware = (_file(directory, document[key]) for key in ("kernel", "initrd", "firmware"))
    command_lines = {str(tee): str(text) for tee, text in document["cmdline"].items()}
    measurements = {
        (str(entry["tee"]), int(entry["vcpus"])): _digest(entry["measurement"], 48)
        for entry in document["measurements"]
    }
    return GuestImage(str(document["version"]), kernel, initrd, firmware, command_lines, measurements)


def _file(directory: Path, entry: dict[str, Any]) -> ImageFile:
    name = entry["file"]
    if not name or "/" in name or name in {".", ".."}:
        raise ValueError(name)
    _digest(entry["sha256"], 32)
    return ImageFile(directory / name, entry["sha256"], int(entry["size"]))


def _digest(text: str, length: int) -> bytes:
    value = bytes.fromhex(text)
    if len(value) != length:
        raise ValueError(text)
    return value


def unverified_files(image: GuestImage, cache: Path) -> list[ImageFile]:
    """The files whose hash has not been checked since they last changed, going by device, inode, time and size."""
    try:
        known = set(cache.read_text().splitlines())
    except FileNotFoundError:
        known = set()
    return [file for file in image.files if cache_line(file) not in known]


def record_verified(files: list[ImageFile], cache: Path) -> None:
    """Remember that these files had the right hash. Lines of concurrent shims are kept (short O_APPEND writes)."""
    text = "".join(cache_line(file) + "\n" for file in files)
    cache.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(cache, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def cache_line(file: ImageFile) -> str:
    """What identifies the content that was checked."""
    return " ".join(map(str, (*_identity(file.path), file.sha256)))


def check_hash(file: ImageFile, actual: str) -> None:
    """Raise Unavailable when the hash computed from the file is not the manifest's."""
    if actual != file.sha256:
        raise _mismatch(file.path, f"sha256 {actual}", f"sha256 {file.sha256}")


def _identity(path: Path) -> tuple[int, int, int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise NotFound(
            f"the guest image lacks {path.name}: {error.strerror}", hint=f"parma image build {path.parent}"
        ) from error
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _mismatch(path: Path, actual: str, expected: str) -> Unavailable:
    return Unavailable(
        f"{path} does not match its manifest: {actual}", expected=expected, hint=f"parma image build {path.parent}"
    )
