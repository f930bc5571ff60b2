# SPDX-License-Identifier: Apache-2.0
"""``./dev vectors DIR``: replays a folder of recorded cases: attestation, layers or policy conversations."""

from __future__ import annotations

import argparse
from contextlib import closing
from pathlib import Path

from devtool import setup
from parma_wire.errors import ParmaError


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
    return replay_policies(directory)


def replay_policies(directory: Path) -> tuple[int, int]:
    """With the Rego engine, which is set up for this; where that fails, its cases are skipped, saying why."""
    from parma_policy.rego.link import ChildEngine
    from parma_policy.rego.process import program
    from parma_policy.replay import main

    try:
        path = setup.ensure_rego_engine()
    except ParmaError as error:
        return main(directory, without_engine=str(error))
    with closing(ChildEngine(program(path, "-reference"))) as engine:
        return main(directory, engine)
