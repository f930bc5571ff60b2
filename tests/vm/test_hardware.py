# SPDX-License-Identifier: Apache-2.0
"""Emulation beside the real thing."""

from __future__ import annotations

from pathlib import Path

import pytest

from parma_shim.config import Config
from parma_shim.vm import hardware
from parma_shim.vm.hardware import refuse_needless_emulation
from parma_shim.vm.machine import VirtualMachine
from parma_wire.errors import FailedPrecondition
from tests.vm.support import Settings, soon, spec


@pytest.mark.parametrize("setting", ["refused", "allowed"])
@pytest.mark.parametrize("found", ["N\n", None], ids=["without SNP", "another kind of machine"])
def test_machines_without_the_real_thing_may_emulate_it(tmp_path: Path, found: str | None, setting: str) -> None:
    parameter = tmp_path / "sev_snp"
    if found is not None:
        parameter.write_text(found)
    refuse_needless_emulation("emulated", Config(emulated_on_snp=setting), parameter=parameter)


def test_where_the_real_thing_is_emulation_has_to_be_allowed(tmp_path: Path) -> None:
    parameter = tmp_path / "sev_snp"
    parameter.write_text("Y\n")
    with pytest.raises(FailedPrecondition, match="SEV-SNP") as caught:
        refuse_needless_emulation("emulated", Config(), parameter=parameter)
    assert "emulated_on_snp" in caught.value.hint
    refuse_needless_emulation("emulated", Config(emulated_on_snp="allowed"), parameter=parameter)


@pytest.mark.parametrize("tee", ["snp", "none"])
def test_other_kinds_of_vms_are_no_emulation(tmp_path: Path, tee: str) -> None:
    parameter = tmp_path / "sev_snp"
    parameter.write_text("Y\n")
    refuse_needless_emulation(tee, Config(), parameter=parameter)


def test_no_such_vm_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "SEV_SNP", tmp_path / "sev_snp")
    hardware.SEV_SNP.write_text("Y\n")
    settings = Settings(tmp_path)
    settings.qemu = tmp_path / "qemu"
    settings.qemu.touch()
    vm = spec(tmp_path)
    with pytest.raises(FailedPrecondition):
        VirtualMachine.launch(vm, settings, deadline=soon(), log=print)
    assert not vm.directory.exists()
