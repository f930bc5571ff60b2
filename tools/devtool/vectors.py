# SPDX-License-Identifier: Apache-2.0
"""``./dev vectors DIR``: replays a folder of recorded cases."""

from __future__ import annotations

import argparse
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Exit code 0 when every case passed, 1 when one failed, 2 when there is none."""
    parser = argparse.ArgumentParser(prog="./dev vectors", description=__doc__)
    parser.add_argument("directory", type=Path, help="a folder of layer cases: a folder each, with its expectation")
    directory = parser.parse_args(arguments).directory
    from parma_policy.layers import replay

    passed, failed = replay.replay(directory)
    print(f"{passed} passed, {failed} failed")
    if failed:
        return 1
    return 0 if passed else 2
