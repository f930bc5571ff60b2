# SPDX-License-Identifier: Apache-2.0
"""``./dev docs``: rewrites the tables in docs/ that are made from the code; a test holds them current."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from devtool import paths
from parma_shim.doctor import containerd, tee, tools
from parma_snp import codes
from parma_snp.checks import Probe
from parma_snp.failures import FAILURES
from parma_snp.probes import PROBES

HARDWARE: Final = paths.ROOT / "docs/snp-hardware.md"
ATTESTATION: Final = paths.ROOT / "docs/attestation.md"
_GENERATED: Final = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_PLACEHOLDER: Final = re.compile(r"\{(\w+)[^}]*\}")


def main() -> int:
    """Write them."""
    for page in (HARDWARE, ATTESTATION):
        page.write_text(with_tables(page.read_text()))
    return 0


def with_tables(text: str) -> str:
    """The document with each generated part as the code has it now."""
    return _GENERATED.sub(lambda found: f"{found[1]}\n{_TABLES[found[2]]()}\n\n{found[3]}", text)


def _checks(probes: Iterable[Probe[Any]]) -> str:
    """One row for each way in which a requirement can be unmet."""
    rows = []
    for probe in probes:
        for problem in probe.problems:
            if problem.status == "skip" and problem.fix.startswith("see "):
                continue  # only points to another row
            rows.append((f"`{probe.id}`", problem.status, _shown(problem.message), problem.meaning, problem.fix))
    return _markdown(("check", "", "what it says", "what it means", "what to do"), rows)


def _messages() -> str:
    rows = [(f"`{known.message}`", known.meaning, known.fix) for known in FAILURES]
    return _markdown(("QEMU says", "what it means", "what to do"), rows)


def _codes() -> str:
    """What each failure of a verification means, a table for each family."""
    parts = []
    for family, about in codes.FAMILIES.items():
        ours = ((code, row) for code, row in codes.CODES.items() if code.startswith(f"{family}."))
        rows = [(f"`{code}`", row.says, row.wants, row.do) for code, row in ours]
        parts.append(f"**{family}**: {about}\n\n" + _markdown(("code", "meaning", "expected", "what to do"), rows))
    return "\n\n".join(parts)


def _shown(message: str) -> str:
    """A message with its placeholders as words."""
    return _PLACEHOLDER.sub(lambda found: f"*{found[1]}*", message)


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


_TABLES: Final[dict[str, Callable[[], str]]] = {
    "hardware": lambda: _checks(PROBES),
    "host": lambda: _checks((*tee.SNP_PROBES, *tools.PROBES, *containerd.PROBES)),
    "messages": _messages,
    "codes": lambda: f"\n{_codes()}",
}
