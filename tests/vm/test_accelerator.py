# SPDX-License-Identifier: Apache-2.0
"""Choosing the accelerator: probed by use, once, and never instead of a secure processor."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from parma_shim.vm import accelerator
from parma_shim.vm.settings import VmSettings
from parma_wire.errors import DeadlineExceeded, Malformed, Unavailable
from tests.vm.support import ENVIRONMENT, Settings, soon


class Bench:
    """Settings with a QEMU and a kernel that exist, and a probe that counts."""

    def __init__(self, directory: Path) -> None:
        self.settings = Settings(directory)
        self.settings.accelerator = "auto"
        self.settings.qemu = directory / "qemu"
        self.kernel = directory / "vmlinuz"
        for path in (self.settings.qemu, self.kernel):
            path.write_text("#!/bin/sh\nexit 1\n")
            path.chmod(0o755)
        self.log: list[str] = []
        self.probes = 0
        self.result = ""

    def probe(self, _settings: VmSettings, _kernel: Path, _environment: Mapping[str, str], deadline: float) -> str:
        assert deadline <= time.monotonic() + accelerator.PROBE_SECONDS
        self.probes += 1
        return self.result

    def choose(self, *, tee: str = "emulated", deadline: float | None = None, real: bool = False) -> str:
        return accelerator.choose(
            self.settings,
            self.kernel,
            tee=tee,
            environment=ENVIRONMENT,
            deadline=deadline or soon(),
            log=self.log.append,
            probe=None if real else self.probe,
        )


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    (tmp_path / "kvm").touch()
    monkeypatch.setattr(accelerator, "KVM", tmp_path / "kvm")
    return Bench(tmp_path)


def test_kvm_is_used_where_the_probe_succeeds(bench: Bench) -> None:
    assert bench.choose() == "kvm"
    assert bench.log == []


def test_a_failed_probe_means_tcg_and_is_said(bench: Bench) -> None:
    bench.result = "KVM internal error"
    assert bench.choose() == "tcg"
    assert "KVM internal error" in bench.log[0]


def test_the_probe_is_made_once_for_a_boot_qemu_and_kernel(bench: Bench) -> None:
    bench.result = "no"
    assert [bench.choose(), bench.choose()] == ["tcg", "tcg"]
    assert bench.probes == 1
    os.utime(bench.settings.qemu, ns=(1, 1))
    bench.choose()
    os.utime(bench.kernel, ns=(1, 1))
    bench.choose()
    assert bench.probes == 3


def test_without_the_device_there_is_nothing_to_probe(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "KVM", Path("/nowhere/kvm"))
    assert bench.choose() == "tcg"
    assert bench.probes == 0
    assert "kvm" in bench.log[0]


def test_a_configured_accelerator_is_taken_as_it_is(bench: Bench) -> None:
    for name in ("kvm", "tcg"):
        bench.settings.accelerator = name
        assert bench.choose() == name
    assert bench.probes == 0
    bench.settings.accelerator = "fast"
    with pytest.raises(Malformed):
        bench.choose()


def test_snp_never_falls_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bench.choose(tee="snp") == "kvm"
    bench.settings.accelerator = "tcg"
    with pytest.raises(Unavailable, match="needs KVM"):
        bench.choose(tee="snp")
    bench.settings.accelerator = "auto"
    # Whether KVM is there is for the SNP probes to say, by name; here it must only not become "tcg".
    monkeypatch.setattr(accelerator, "KVM", Path("/nowhere/kvm"))
    assert bench.choose(tee="snp") == "kvm"


def test_a_probe_by_another_shim_is_waited_for_with_a_bound(bench: Bench) -> None:
    bench.settings.state_dir.mkdir()
    fd = os.open(bench.settings.state_dir / "accelerator", os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with pytest.raises(DeadlineExceeded):
        bench.choose(deadline=time.monotonic() + 0.1)
    os.close(fd)
    assert bench.choose() == "kvm"


@pytest.mark.parametrize(
    ("script", "accelerator_name", "reason"),
    [
        ("echo 'Linux version 6.12'; exec sleep 600", "kvm", ""),
        ("echo 'qemu: warning: x' >&2; echo 'qemu: no MSR' >&2; exit 1", "tcg", "qemu: no MSR"),
        ("echo 'KVM internal error. Suberror: 1' >&2; exec sleep 600", "tcg", "KVM internal error"),
        ("exit 0", "tcg", "without a word"),
    ],
)
def test_only_the_kernels_own_words_are_proof(bench: Bench, script: str, accelerator_name: str, reason: str) -> None:
    bench.settings.qemu.write_text(f"#!/bin/sh\n{script}\n")
    assert bench.choose(real=True) == accelerator_name
    assert reason in "".join(bench.log)


def test_a_silent_kernel_is_given_up_on(bench: Bench) -> None:
    bench.settings.qemu.write_text("#!/bin/sh\nexec sleep 600\n")
    assert bench.choose(real=True, deadline=time.monotonic() + 0.3) == "tcg"
    assert "silent" in bench.log[0]
