# SPDX-License-Identifier: Apache-2.0
"""Regenerates every ``*_pb2`` module of the repository from its ``.proto`` file.

Usage: ``python tools/genproto.py [--check]``. With ``--check`` nothing is written; the exit status is 1 when a
generated file is missing, out of date or left over. Needs grpcio-tools (the ``dev`` extra).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[1]

SOURCES: Final = (
    ("wire", "parma_wire"),
    ("shim", "parma_shim/api"),
    ("policy", "parma_policy/layers"),
    (".", "tests/ttrpc"),
    (".", "tests/e2e"),
)
"""Import root and a folder below it with ``.proto`` files. The root is what ends up on ``sys.path``."""


def generate(into: Path) -> list[Path]:
    """Runs protoc for all of :data:`SOURCES`.

    Args:
        into: receives the generated files, at their paths in the repository.

    Returns:
        The generated files' paths, relative to the repository.

    Raises:
        SystemExit: protoc refused an input; it has said why on stderr.
    """
    from grpc_tools import protoc

    well_known = str(files("grpc_tools") / "_proto")
    made: list[Path] = []
    for root, folder in SOURCES:
        protos = sorted((REPOSITORY / root / folder).glob("*.proto"))
        if not protos:
            continue
        out = into / root
        out.mkdir(parents=True, exist_ok=True)
        names = [str(path.relative_to(REPOSITORY / root)) for path in protos]
        arguments = ["protoc", f"-I{REPOSITORY / root}", f"-I{well_known}", f"--python_out={out}", f"--pyi_out={out}"]
        if protoc.main([*arguments, *names]) != 0:
            raise SystemExit(f"genproto: protoc failed for {root}/{folder}")
        for name in names:
            stem = name.removesuffix(".proto")
            made += [Path(root) / f"{stem}_pb2.py", Path(root) / f"{stem}_pb2.pyi"]
    return made


def stale(generated: Path, made: Sequence[Path]) -> list[Path]:
    """The repository's generated files that differ from those below ``generated``, relative to the repository."""
    different = []
    for path in made:
        ours = REPOSITORY / path
        if not ours.is_file() or ours.read_bytes() != (generated / path).read_bytes():
            different.append(path)
    known = set(made)
    for root, folder in SOURCES:
        for ours in sorted((REPOSITORY / root / folder).glob("*_pb2.py*")):
            path = ours.relative_to(REPOSITORY)
            if path not in known:
                different.append(path)
    return different


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when something would change")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        generated = Path(scratch)
        made = generate(generated)
        different = stale(generated, made)
        for path in different:
            print(path)
        if options.check:
            return 1 if different else 0
        for path in different:
            source = generated / path
            if source.is_file():
                (REPOSITORY / path).write_bytes(source.read_bytes())
            else:
                (REPOSITORY / path).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
