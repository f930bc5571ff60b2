# SPDX-License-Identifier: Apache-2.0
"""``manifest.json``: what an image consists of, and what the processor will measure when it is launched."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, TypeVar

from parma_image.cpio import Tree
from parma_wire.errors import Malformed, NotFound

MANIFEST: Final = "manifest.json"
FORMAT: Final = 1

_HEX: Final = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True)
class Artefact:
    """One of the image's three files; ``sha256`` in hex, ``size`` in bytes."""

    file: str
    sha256: str
    size: int

    @classmethod
    def of(cls, path: Path) -> Artefact:
        data = path.read_bytes()
        return cls(path.name, hashlib.sha256(data).hexdigest(), len(data))


@dataclass(frozen=True)
class Entry:
    """One path in the initrd; ``mode`` is st_mode in octal. A link's contents are its target."""

    path: str
    sha256: str
    size: int
    mode: str


@dataclass(frozen=True)
class Package:
    """A Debian package or a wheel that the image was made from."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True)
class Measurement:
    """The launch digest (hex, 48 bytes) of a VM with this many CPUs of this type, started for this tee."""

    tee: str
    vcpu_type: str
    vcpus: int
    measurement: str


@dataclass(frozen=True)
class Manifest:
    """The whole document."""

    version: str
    variant: str
    """``default``, or ``rego``: see docs/rego-variant.md."""
    kernel: Artefact
    initrd: Artefact
    firmware: Artefact
    cmdline: Mapping[str, str]
    files: tuple[Entry, ...]
    packages: tuple[Package, ...]
    measurements: tuple[Measurement, ...]

    def dump(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n"


def list_files(tree: Tree) -> tuple[Entry, ...]:
    """Every path of the tree with its hash."""
    return tuple(
        Entry(path, hashlib.sha256(data).hexdigest(), len(data), f"{mode:06o}") for path, mode, data in tree.entries()
    )


def load(directory: Path) -> Manifest:
    """Reads an image's manifest. NotFound or Malformed, saying what is wrong; unknown keys are refused."""
    path = directory / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(f"no guest image in {directory}", hint="'parma image build DIR' makes one") from None
    except UnicodeDecodeError as error:
        raise Malformed(f"{path} is not UTF-8: {error}") from error
    try:
        return parse(json.loads(text, object_pairs_hook=_no_duplicates))
    except json.JSONDecodeError as error:
        raise Malformed(f"{path} is not JSON: {error}") from error
    except Malformed as error:
        raise Malformed(f"{path}: {error.message}", expected=error.expected) from error


def parse(document: object) -> Manifest:
    """The typed form of the JSON document. Malformed for anything missing, unknown or of the wrong type."""
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise Malformed("not a manifest that this version reads", expected=f"format {FORMAT}")
    values = _exact(document, {"format", *(field.name for field in fields(Manifest))}, "manifest")
    cmdline = values["cmdline"]
    if not isinstance(cmdline, dict) or not all(isinstance(text, str) for text in cmdline.values()):
        raise Malformed("cmdline is not an object of strings")
    if not isinstance(values["version"], str) or not isinstance(values["variant"], str):
        raise Malformed("version or variant is not a string")
    return Manifest(
        values["version"],
        values["variant"],
        _record(Artefact, values["kernel"]),
        _record(Artefact, values["initrd"]),
        _record(Artefact, values["firmware"]),
        cmdline,
        _records(Entry, values["files"]),
        _records(Package, values["packages"]),
        _records(Measurement, values["measurements"]),
    )


_Record = TypeVar("_Record", Artefact, Entry, Package, Measurement)


def _records(cls: type[_Record], values: object) -> tuple[_Record, ...]:
    if not isinstance(values, list):
        raise Malformed(f"the list of {cls.__name__} objects is missing")
    return tuple(_record(cls, value) for value in values)


def _record(cls: type[_Record], value: object) -> _Record:
    expected = {field.name: field.type for field in fields(cls)}
    values = _exact(value, set(expected), cls.__name__)
    for name, kind in expected.items():
        # Field types are strings here, as annotations are not evaluated; bool is an int and must not pass for one.
        if type(values[name]).__name__ != kind:
            raise Malformed(f"{cls.__name__}.{name} is {values[name]!r}", expected=str(kind))
    for name, digits in (("sha256", 64), ("measurement", 96)):
        if name in values and (len(values[name]) != digits or not _HEX.fullmatch(values[name])):
            raise Malformed(f"{cls.__name__}.{name} is {values[name]!r}", expected=f"{digits} hexadecimal digits")
    return cls(**values)


def _exact(value: object, names: set[str], what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Malformed(f"{what} is not an object")
    if set(value) != names:
        different = ", ".join(sorted(set(value) ^ names))
        raise Malformed(f"{what} has missing or unknown keys: {different}", expected=", ".join(sorted(names)))
    return value


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise Malformed("a key occurs twice in one object")
    return result
