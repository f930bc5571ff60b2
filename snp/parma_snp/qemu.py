# SPDX-License-Identifier: Apache-2.0
"""What one QEMU binary can do, asked of the binary itself over QMP: versions differ, and so do distributions' builds.

Pure: :data:`QUESTIONS` goes to the standard input of QEMU run with :data:`ARGUMENTS`, and :func:`understand` reads what
it prints. No VM is made. Source: QEMU's QMP reference (``query-version``, ``qom-list-properties``,
``query-cpu-definitions``).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

SNP_OBJECT: Final = "sev-snp-guest"
_MACHINE: Final = "generic-pc-machine"  # what every version of q35 inherits from

ARGUMENTS: Final = (
    *("-nodefaults", "-no-user-config", "-display", "none", "-S", "-qmp", "stdio"),
    *("-machine", "none,accel=tcg:kvm"),
)
_COMMANDS: Final[tuple[tuple[str, dict[str, str]], ...]] = (
    ("qmp_capabilities", {}),
    ("query-version", {}),
    ("qom-list-properties", {"typename": SNP_OBJECT}),
    ("qom-list-properties", {"typename": _MACHINE}),
    ("query-cpu-definitions", {}),
    ("quit", {}),
)
QUESTIONS: Final = "".join(
    json.dumps({"execute": name, "arguments": arguments, "id": number}) + "\n"
    for number, (name, arguments) in enumerate(_COMMANDS)
)


@dataclass(frozen=True)
class Qemu:
    """One QEMU. ``snp_properties`` is empty when it was built without SEV-SNP."""

    version: tuple[int, int, int]
    snp_properties: frozenset[str]
    machine_properties: frozenset[str]
    cpu_models: frozenset[str]

    @property
    def name(self) -> str:
        """For people."""
        return "QEMU " + ".".join(map(str, self.version))


def understand(output: str) -> Qemu | None:
    """What QEMU's answers say; None when they are not those of a QEMU that runs at all."""
    answers: dict[int, Any] = {}
    for line in output.splitlines():
        try:
            document = json.loads(line)
        except ValueError:
            continue  # warnings are printed in between
        if isinstance(document, dict) and isinstance(document.get("id"), int):
            answers[document["id"]] = document.get("return")
    try:
        version = answers[1]["qemu"]
        return Qemu(
            (int(version["major"]), int(version["minor"]), int(version["micro"])),
            _names(answers.get(2)),
            _names(answers.get(3)),
            _names(answers.get(4)),
        )
    except (KeyError, TypeError, ValueError):
        return None


def _names(answer: Any) -> frozenset[str]:
    """An error instead of a list: there is no such type in this build."""
    return frozenset(str(entry["name"]) for entry in answer) if isinstance(answer, list) else frozenset()
