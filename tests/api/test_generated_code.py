# SPDX-License-Identifier: Apache-2.0
"""The checked-in generated modules are what their ``.proto`` files say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def test_regenerating_changes_nothing() -> None:
    run = subprocess.run(
        [sys.executable, str(REPOSITORY / "tools" / "genproto.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (run.returncode, run.stdout) == (0, ""), run.stderr
