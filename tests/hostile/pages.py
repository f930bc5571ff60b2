# SPDX-License-Identifier: Apache-2.0
"""docs/hostile-host.md and docs/host-inputs.md, made from the tables beside this module.

Usage: ``python -m tests.hostile.pages`` (``./dev docs`` does it). A test holds them current.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from parma_wire.errors import NotFound
from tests.hostile import table

DOCS: Final = table.ROOT / "docs"
_NOTICE: Final = "<!-- Made by tests/hostile/pages.py from the tests' tables; change it there. -->"


def hostile_host() -> str:
    """docs/hostile-host.md."""
    rows = table.load()
    lines = [
        "# What a hostile host tries, and how it ends",
        "",
        _NOTICE,
        "",
        "Each row is an attack that others have met, and at least one test that carries it out: against the enforcer",
        "in a booted guest where it takes a kernel, against the same enforcer and policy engine over a socket pair",
        "otherwise, always with the real protocol. `./dev hostile` runs them and prints this table with their results,",
        "`./dev hostile R21` only that row. Who is trusted with what: [threat-model.md](threat-model.md). Every input",
        "that the host controls: [host-inputs.md](host-inputs.md).",
        "",
    ]
    for section, title in table.SECTIONS.items():
        lines += [f"## {title}", ""]
        lines += _table(
            ("row", "attack", "outcome", "tests"),
            (_row(row) for row in rows if row.section == section),
        )
    rest = [row for row in rows if row.rest]
    lines += ["## What is left", "", *(f"* {row.id}: {row.rest}" for row in rest), ""]
    lines += ["## Where the rows come from", "", "Advisories, fixes and papers, by row:", ""]
    lines += [f"* {row.id}: {row.after}" for row in rows]
    return "\n".join([*lines, ""])


def _row(row: table.Row) -> tuple[str, ...]:
    if row.not_applicable:
        return row.id, row.attack, row.outcome, f"does not apply: {row.not_applicable}"
    files = dict.fromkeys(test.partition("::")[0] for test in row.tests)
    names = [f"[{Path(file).stem}](../{file})" for file in files]
    outcome = f"{row.outcome} *Left:* {row.rest}" if row.rest else row.outcome
    return row.id, row.attack, outcome, ", ".join(names)


def host_inputs() -> str:
    """docs/host-inputs.md."""
    inventory = tomllib.loads((table.ROOT / "tests/hostile/inventory.toml").read_text())
    lines = [
        "# Every input of the guest that the host controls",
        "",
        _NOTICE,
        "",
        "With the place in the code that owns it, which is where it is checked, and the tests that send it hostile",
        "values. A test walks the protocol's descriptors and QEMU's command line, and fails when something is missing.",
        "",
        "## Messages",
        "",
        *_table(
            ("message", "fields", "owner", "tests"),
            (
                (f"`{entry['name']}`", ", ".join(f"`{name}`" for name in entry["fields"]) or "none", *_owned(entry))
                for entry in inventory["message"]
            ),
        ),
        "## Devices",
        "",
        *_table(
            ("driver", "what the host says with it", "owner", "tests"),
            ((f"`{entry['driver']}`", entry["what"], *_owned(entry)) for entry in inventory["device"]),
        ),
        "## QEMU's options",
        "",
        *_table(
            ("option", "what the host says with it", "owner", "tests"),
            (
                (f"`{entry['name']}`", f"nothing to the guest: {entry['unseen']}", "", "")
                if "unseen" in entry
                else (f"`{entry['name']}`", entry["what"], *_owned(entry))
                for entry in inventory["option"]
            ),
        ),
        "## What every machine has",
        "",
        *_table(
            ("input", "what the host says with it", "owner", "tests"),
            ((entry["name"], entry["what"], *_owned(entry)) for entry in inventory["machine"]),
        ),
    ]
    return "\n".join(lines)


def _owned(entry: dict[str, Any]) -> tuple[str, str]:
    files = dict.fromkeys(test.partition("::")[0] for test in entry["tests"])
    return f"`{entry['owner']}`", ", ".join(f"[{Path(file).stem}](../{file})" for file in files)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"| {' | '.join('---' for _ in head)} |"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
    yield ""


PAGES: Final[dict[str, Callable[[], str]]] = {"hostile-host.md": hostile_host, "host-inputs.md": host_inputs}
"""File below ``docs/`` and the function that makes its text."""


TRUSTED_BASE: Final = DOCS / "trusted-base.md"
_GENERATED: Final = re.compile(r"(<!-- generated: trusted_base -->\n).*?(<!-- end -->)", re.DOTALL)


def trusted_base() -> str:
    """docs/trusted-base.md with the numbers of the image that was built here. Raises NotFound where none was."""
    from parma_image.manifest import load
    from parma_image.size import as_table

    numbers = as_table(load(table.ROOT / ".dev/image"))
    return _GENERATED.sub(lambda found: f"{found[1]}\n{numbers}\n\n{found[2]}", TRUSTED_BASE.read_text())


def main() -> int:
    """Writes every page; that of the trusted base only where there is an image."""
    for name, make in PAGES.items():
        (DOCS / name).write_text(make())
    with suppress(NotFound):
        TRUSTED_BASE.write_text(trusted_base())
    return 0


if __name__ == "__main__":
    sys.exit(main())
