# SPDX-License-Identifier: Apache-2.0
"""One emulated secure processor for all tests: its keys take seconds to make."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from parma_snp.certificates import CertificateChain, load_root
from parma_snp.emulated import EmulatedAuthority, ensure_authority
from tests.snp.amd import Amd

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOST_DATA = bytes(range(32))
MEASUREMENT = bytes(range(48))
REPORT_DATA = bytes(range(64))


class Emulated:
    """An emulated processor with what a verifier needs, and one report of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority: EmulatedAuthority = ensure_authority(directory, now=NOW)
        self.chain = CertificateChain.from_pem(self.authority.certificate_chain.encode())
        self.root = load_root(self.authority.root_file.read_bytes())
        self.report = self.sign()

    def sign(self, *, version: int = 3, policy: int = 0x30000, vmpl: int = 0) -> bytes:
        return self.authority.sign_report(
            report_data=REPORT_DATA,
            host_data=HOST_DATA,
            measurement=MEASUREMENT,
            report_id=b"\1" * 32,
            version=version,
            policy=policy,
            vmpl=vmpl,
        )


@pytest.fixture(scope="session")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Emulated:
    return Emulated(tmp_path_factory.mktemp("emulated") / "processor")


@pytest.fixture(scope="session")
def amd() -> Amd:
    """One for all tests, as it has a large key, too."""
    return Amd.make()
