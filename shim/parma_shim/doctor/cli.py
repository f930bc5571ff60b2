# SPDX-License-Identifier: Apache-2.0
"""The command ``parma doctor``. Exit status: 0 when nothing failed, 1 when something did."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parma_shim import config as configuration
from parma_shim.config import Config
from parma_snp.checks import Check, run_all
from parma_wire.errors import ParmaError

if TYPE_CHECKING:
    from parma_shim.doctor.host import Surroundings


def add_doctor_commands(subparsers: Any) -> None:
    """Add ``doctor``."""
    parser = subparsers.add_parser(
        "doctor",
        help="check that this host has what running containers takes",
        description="Check everything that running a container takes, from the processor to containerd's "
        "configuration, and say what is missing and how to get it. Works without root as far as the machine lets it.",
    )
    parser.add_argument("--config", default="", metavar="PATH", help="another configuration than the default one")
    parser.add_argument("--tee", choices=("snp", "emulated"), help="check for this tee (default: the configuration's)")
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    config = configuration.load(options.config)
    if options.tee:
        config = config._replace(tee=options.tee)
    checks = examine(config)
    good = all(check.status != "fail" for check in checks)
    if options.json:
        document = {"tee": config.tee, "good": good, "checks": [check.to_json() for check in checks]}
        print(json.dumps(document, indent=1))
    else:
        print(render(config.tee, checks))
    return 0 if good else 1


def examine(config: Config, *, root: Path = Path("/")) -> list[Check]:
    """Every check for the configured tee, from the hardware upwards. ``root``: look at another tree, for tests."""
    from parma_shim.doctor import containerd, tee, tools
    from parma_shim.doctor.host import ThisHost
    from parma_snp import host, probes

    surroundings = ThisHost(config, root=root)
    checks: list[Check] = []
    if config.tee == "snp":
        machine = host.ThisHost(config.qemu, _firmware(surroundings), root=root)
        checks += probes.probe_host(machine)
        checks += run_all(tee.SNP_PROBES, surroundings)
    if config.tee == "emulated":
        checks += run_all(tee.EMULATED_PROBES, surroundings)
    return [*checks, *run_all(tools.PROBES, surroundings), *run_all(containerd.PROBES, surroundings)]


def _firmware(surroundings: Surroundings) -> Path | None:
    """The guest image's firmware; that there is no image is another probe's to say."""
    try:
        return surroundings.image().firmware.path
    except ParmaError:
        return None


def render(tee: str, checks: list[Check]) -> str:
    """The checks for people: a line each, and under those that are not ok how to change that."""
    width = max(len(check.id) for check in checks) + 2
    lines = []
    for check in checks:
        lines.append(f"{check.status:<6}{check.id:<{width}}{check.evidence}")
        if check.status in ("fail", "warn"):
            lines.append(f"{'':<{6 + width}}-> {check.fix}")
    failed = sum(check.status == "fail" for check in checks)
    warned = sum(check.status == "warn" for check in checks)
    verdict = f"not ready: {failed} checks failed" if failed else "ready"
    return "\n".join([*lines, "", f'{verdict} for tee = "{tee}"' + (f", {warned} warnings" if warned else "")])
