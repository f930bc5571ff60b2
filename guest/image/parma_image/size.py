# SPDX-License-Identifier: Apache-2.0
"""How large the trusted base is: what a guest image consists of, from its manifest, in a few groups."""

from __future__ import annotations

import importlib.util
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from parma_image import contents
from parma_image.manifest import Entry, Manifest

_OURS: Final = f"{contents.OUR_DIRECTORY}/"


class Part(NamedTuple):
    """A group of files; ``lines`` of source are known for our own code only, and None elsewhere."""

    name: str
    files: int
    size: int
    lines: int | None


def parts(manifest: Manifest) -> list[Part]:
    """All of the image: each file of the initrd is in one group."""
    files = [entry for entry in manifest.files if stat.S_ISREG(int(entry.mode, 8))]
    groups: dict[str, list[Entry]] = {}
    for entry in files:
        groups.setdefault(_group(entry.path), []).append(entry)
    found = [
        Part("firmware", 1, manifest.firmware.size, None),
        Part("kernel", 1, manifest.kernel.size, None),
        *(
            Part(name, len(entries), sum(entry.size for entry in entries), _lines(name, entries))
            for name, entries in sorted(groups.items())
        ),
    ]
    return [*found, Part("all", sum(p.files for p in found), sum(p.size for p in found), None)]


def _group(path: str) -> str:
    if path.startswith(_OURS):
        top = path.removeprefix(_OURS).split("/")[0]
        return f"our code: {top}" if top in contents.OUR_PACKAGES else "Python libraries"
    if path == contents.INTERPRETER or path.startswith(f"{contents.STDLIB}/"):
        return "Python"
    if "/modules/" in path:
        return "kernel modules"
    return "programs, C libraries and the rest"


def _lines(group: str, entries: Sequence[Entry]) -> int | None:
    """Lines of the sources that the image's files were made from, comments and all; None where there are none."""
    if not group.startswith("our code"):
        return None
    total = 0
    for entry in entries:
        name = entry.path.removeprefix(_OURS).rpartition(".")[0].replace("/", ".").removesuffix(".__init__")
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:
            return None
        total += len(Path(found.origin).read_text(encoding="utf-8").splitlines())
    return total


def as_table(manifest: Manifest) -> str:
    """Markdown."""
    lines = ["| part | files | KiB | lines of source |", "| --- | ---: | ---: | ---: |"]
    for part in parts(manifest):
        lines.append(
            f"| {part.name} | {part.files} | {part.size // 1024} | {'' if part.lines is None else part.lines} |"
        )
    lines += [
        "",
        f"Made from {len(manifest.packages)} Debian packages and wheels, each with version and hash in the manifest.",
    ]
    return "\n".join(lines)
