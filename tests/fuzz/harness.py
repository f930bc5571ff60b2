# SPDX-License-Identifier: Apache-2.0
"""What a fuzz target is, where they are found, and the inputs that once broke one."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.fuzz import targets

CRASHES: Final = Path(__file__).with_name("crashes")
"""A folder for each target, a file for each input that once broke it. They stay, and are replayed by every test run."""


@dataclass(frozen=True)
class FuzzTarget:
    """One module of ``tests.fuzz.targets``."""

    name: str
    seeds: Sequence[bytes]
    run: Callable[[bytes], None]

    def crashes(self) -> list[Path]:
        """Inputs that once broke it."""
        return sorted(path for path in (CRASHES / self.name).glob("*") if path.is_file())


def names() -> list[str]:
    """Of all targets."""
    return sorted(module.name for module in pkgutil.iter_modules(targets.__path__))


def load(name: str) -> FuzzTarget:
    """Imports a target. Raises KeyError for a name that is none."""
    if name not in names():
        raise KeyError(name)
    module = importlib.import_module(f"{targets.__name__}.{name}")
    return FuzzTarget(name, module.SEEDS, module.target)
