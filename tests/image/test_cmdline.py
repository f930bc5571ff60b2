# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from parma_guest import cmdline
from parma_wire.errors import Malformed


@pytest.mark.parametrize("acpi", [True, False])
@pytest.mark.parametrize("tee", cmdline.TEES)
def test_the_kernel_says_for_which_tee_it_was_started(tee: str, acpi: bool, tmp_path: Path) -> None:
    (tmp_path / "cmdline").write_text(cmdline.command_line(tee, acpi=acpi) + "\n")
    assert cmdline.booted_tee(tmp_path / "cmdline") == tee


def test_the_prefix_of_the_efi_stub_is_accepted() -> None:
    assert cmdline.tee_of("initrd=initrd " + cmdline.command_line("snp") + "\n") == "snp"


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line + " init=/bin/sh",
        lambda line: "rdinit=/x " + line,
        lambda line: line.replace("snp", "sgx"),
        lambda line: line.replace(" panic=-1", ""),
        lambda line: "initrd=other " + line,
        lambda line: "initrd=initrd initrd=initrd " + line,
        lambda line: line[:0],
        lambda line: line + " acpi=off",
        lambda line: line + " acpi=force",
    ],
)
def test_any_other_command_line_is_refused(change: object) -> None:
    with pytest.raises(Malformed):
        cmdline.tee_of(change(cmdline.command_line("snp")))  # type: ignore[operator]


def test_there_is_no_line_for_an_unknown_tee() -> None:
    with pytest.raises(Malformed, match="snp, emulated, none"):
        cmdline.command_line("tdx")
