# SPDX-License-Identifier: Apache-2.0
"""``./dev vectors DIR``: replays a folder of recorded cases: attestation, layers or policy conversations."""

from __future__ import annotations

import argparse
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Exit code 0 when every case passed, 1 when one failed, 2 when there is none."""
    parser = argparse.ArgumentParser(prog="./dev vectors", description=__doc__)
    parser.add_argument("directory", type=Path, help="attestation or layer cases, or policy recordings")
    passed, failed = replay(parser.parse_args(arguments).directory)
    print(f"{passed} passed, {failed} failed")
    if failed:
        return 1
    return 0 if passed else 2


def replay(directory: Path) -> tuple[int, int]:
    """Which kind of folder it is can be seen from what is in it."""
    if any(directory.glob("*/expect.json")):
        from parma_policy.layers.replay import replay as replay_layers

        return replay_layers(directory)
    from devtool import snp_cases

    if snp_cases.is_attestation(directory):
        return snp_cases.replay(directory)
    from parma_policy.replay import main as replay_policies

    return replay_policies(directory)
