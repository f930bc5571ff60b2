# SPDX-License-Identifier: Apache-2.0
"""The size of the trusted base, from a manifest."""

from __future__ import annotations

from pathlib import Path

import parma_wire.limits
from parma_image.manifest import Artefact, Entry, Manifest, Package
from parma_image.size import as_table, parts

HASH = "ab" * 32


def entry(path: str, size: int, mode: str = "100644") -> Entry:
    return Entry(path, HASH, size, mode)


MANIFEST = Manifest(
    "1",
    "default",
    Artefact("vmlinuz", HASH, 5000),
    Artefact("initrd.img", HASH, 3000),
    Artefact("OVMF.fd", HASH, 2048),
    {},
    (
        entry("usr", 0, "040755"),
        entry("lib", 7, "120777"),
        entry("usr/bin/python3.13", 4096),
        entry("usr/lib/python3.13/os.pyc", 1024),
        entry("usr/lib/parma/parma_wire/limits.pyc", 2048),
        entry("usr/lib/parma/re2/x.so", 100),
        entry("usr/lib/modules/6/kernel/x.ko", 10),
        entry("usr/bin/crun", 50),
    ),
    (Package("crun", "1", HASH),),
    (),
)


def test_every_file_is_in_one_part_and_links_and_folders_in_none() -> None:
    found = {part.name: (part.files, part.size) for part in parts(MANIFEST)}
    assert found == {
        "firmware": (1, 2048),
        "kernel": (1, 5000),
        "Python": (2, 5120),
        "Python libraries": (1, 100),
        "kernel modules": (1, 10),
        "our code: parma_wire": (1, 2048),
        "programs, C libraries and the rest": (1, 50),
        "all": (8, 14376),
    }


def test_lines_are_those_of_our_own_sources() -> None:
    (ours,) = [part for part in parts(MANIFEST) if part.lines is not None]
    assert ours.lines == len(Path(parma_wire.limits.__file__).read_text().splitlines())
    assert "| our code: parma_wire | 1 | 2 |" in as_table(MANIFEST)
    assert "1 Debian packages" in as_table(MANIFEST)
