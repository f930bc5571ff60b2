# SPDX-License-Identifier: Apache-2.0
"""The commands of a relying party, ``parma verify`` and ``parma certificates``; the ``parma`` command plugs them in.

Exit status of ``verify``: 0 accepted, 1 refused, 2 the command could not be carried out as given.
"""

from __future__ import annotations

import argparse

from parma_snp.certificates_cli import add_certificates
from parma_snp.verify_cli import Subparsers, add_verify


def add_snp_commands(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add both. Each sets ``run``, a function from the parsed arguments to the exit status."""
    add_verify(subparsers)
    add_certificates(subparsers)
