# SPDX-License-Identifier: Apache-2.0
"""How long a relying party's verification takes: one report with its chain, everything demanded.

The evidence is an emulated processor's, whose certificates have AMD's shape and sizes: the same work for the verifier.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

ROUNDS = 200


def verification_times(rounds: int = ROUNDS, clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """Milliseconds of each verification by ``clock``; the modules are imported before."""
    from parma_snp.anchors import emulated_root
    from parma_snp.certificates import CertificateChain, load_root
    from parma_snp.emulated import ensure_authority
    from parma_snp.expected import Expected
    from parma_snp.verify import verify

    host_data, measurement, report_data = bytes(32), bytes(48), bytes(64)
    with tempfile.TemporaryDirectory() as directory:
        authority = ensure_authority(Path(directory) / "processor")
        chain = CertificateChain.from_pem(authority.certificate_chain.encode())
        roots = emulated_root(load_root(authority.root_file.read_bytes()))
    report = authority.sign_report(
        report_data=report_data, host_data=host_data, measurement=measurement, report_id=bytes(32)
    )
    expected = Expected(host_data, measurement, report_data)
    times = []
    for _ in range(rounds):
        began = clock()
        verdict = verify(report, chain, now=datetime.now(UTC), expected=expected, roots=roots, allow_emulated=True)
        times.append((clock() - began) * 1000)
        verdict.require()
    return times


def import_times(rounds: int = 5) -> list[float]:
    """Milliseconds of importing the verifier in a new interpreter."""
    code = "import time; began = time.perf_counter(); import parma_snp.verify; print(time.perf_counter() - began)"
    runs = (subprocess.run([sys.executable, "-c", code], capture_output=True, check=True) for _ in range(rounds))
    return [float(run.stdout) * 1000 for run in runs]


def main() -> None:
    """Print the medians."""
    print(f"{'verifying a report with its chain':44} {statistics.median(verification_times()):10.2f} ms")
    processor = statistics.median(verification_times(clock=time.process_time))
    print(f"{'the same, processor time only':44} {processor:10.2f} ms")
    print(f"{'importing the verifier':44} {statistics.median(import_times()):10.2f} ms", flush=True)
