# SPDX-License-Identifier: Apache-2.0
"""Makes the golden cases in ``tests/vectors/generate`` anew. Look at what changed before you commit it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.policy.generate.builders import VECTORS, app_image, parma


def cases() -> list[Path]:
    """The folders."""
    return sorted(path.parent for path in VECTORS.glob("*/arguments.json"))


def run_case(case: Path, image: Path, out: Path) -> None:
    """Writes the case's policies to ``out``."""
    arguments = json.loads((case / "arguments.json").read_text())
    places = {"{here}": str(case), "{image}": str(image), "{out}": str(out)}
    parma("policy", "generate", "--no-cache", *_filled(arguments, places))


def _filled(arguments: list[str], places: dict[str, str]) -> Iterator[str]:
    for argument in arguments:
        for name, value in places.items():
            argument = argument.replace(name, value)
        yield argument


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        image = app_image(Path(directory) / "app.tar")
        for case in cases():
            for old in case.glob("*.rego"):
                old.unlink()
            run_case(case, image, case)
