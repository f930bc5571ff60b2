# SPDX-License-Identifier: Apache-2.0
"""``parma status ID``: the attested-policy status of the VM that a container runs in.

Read from the VM's directory below ``state_dir``; containerd is not asked. Exit status: 0 attested, 1 failed,
permissive or unattested, 2 no such container, or no status of it yet.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Final

from parma_shim import config
from parma_shim.vm import files
from parma_wire.errors import Malformed, NotFound, ParmaError, Unavailable

ATTESTED: Final = 0
NOT_ATTESTED: Final = 1
UNKNOWN: Final = 2

_POLL_SECONDS: Final = 0.1
_MAX_DEPTH: Final = 3

Subparsers = argparse._SubParsersAction  # noqa: SLF001 - argparse has no public name for it


def add_status_commands(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``status``. It sets ``run``, a function from the parsed arguments to the exit status."""
    parser = subparsers.add_parser(
        "status",
        help="show the attested-policy status of a running container",
        description="Show whether the VM of a container runs the policy and the guest image that this host expects. "
        "The host itself verified it: for anybody else, 'parma verify' the evidence that --json or --evidence shows.",
    )
    parser.add_argument("id", metavar="ID", help="container or pod, as containerd names it")
    parser.add_argument("-n", "--namespace", default="default", help="containerd's namespace (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="the whole document, with evidence and boot times")
    parser.add_argument("--evidence", action="store_true", help="the evidence only, as 'parma verify' reads it")
    parser.add_argument(
        "--wait", type=float, default=0.0, metavar="SECONDS", help="wait for a status if there is none yet"
    )
    parser.add_argument("--config", default="", metavar="FILE", help="the host's configuration")
    parser.set_defaults(run=run_status)


def run_status(options: argparse.Namespace) -> int:
    """``parma status``."""
    try:
        settings = config.load(options.config or os.environ.get("PARMA_CONFIG", ""))
        directory = wait_for(settings.state_dir, options.namespace, options.id, options.wait)
        text, verdict = show(directory, as_json=options.json, evidence_only=options.evidence)
    except ParmaError as error:
        print(f"parma status: {error}", file=sys.stderr)
        return UNKNOWN
    print(text, end="")
    return ATTESTED if verdict == "attested" else NOT_ATTESTED


def wait_for(state_dir: Path, namespace: str, identity: str, seconds: float) -> Path:
    """The directory of the VM that has this container. Raises NotFound or Unavailable after ``seconds``."""
    end = time.monotonic() + seconds
    while True:
        found = find(state_dir, namespace, identity)
        if found is not None:
            return found
        if time.monotonic() >= end:
            break
        time.sleep(_POLL_SECONDS)
    if not state_dir.is_dir():
        raise NotFound(f"no VM runs here: {state_dir} does not exist", hint="set state_dir with --config")
    if not os.access(state_dir, os.R_OK | os.X_OK):
        raise Unavailable(f"{state_dir} may only be read by root")
    raise NotFound(
        f"no status of {identity} in namespace {namespace}", hint="is it running? a new one needs a moment: --wait 30"
    )


def find(state_dir: Path, namespace: str, identity: str) -> Path | None:
    """The directory whose ``group.json`` names this container, or the group itself."""
    for depth in range(1, _MAX_DEPTH + 1):
        for path in state_dir.glob("/".join(["*"] * depth) + f"/{files.GROUP}"):
            group = _read(path)
            if group is None or group.get("namespace") != namespace:
                continue
            if identity in group.get("containers", ()) or identity == group.get("group"):
                return path.parent
    return None


def show(directory: Path, *, as_json: bool, evidence_only: bool = False) -> tuple[str, str]:
    """What to print, and the verdict."""
    from parma_snp import status as statuses
    from parma_snp.errors import SnpError

    try:
        data = (directory / files.STATUS).read_bytes()
        status = statuses.parse(data)
    except OSError as error:
        raise NotFound("the VM has just ended") from error
    except SnpError as error:
        raise Malformed(f"the status in {directory} is damaged: {error}") from error
    if evidence_only:
        if status.evidence is None:
            raise NotFound("there is no evidence", hint="the VM runs with tee = 'none'")
        return status.evidence.dumps(), status.verdict
    group = _read(directory / files.GROUP) or {}
    if as_json:
        return json.dumps({**status.to_json(), **group}, indent=1) + "\n", status.verdict
    lines = [("Containers", ", ".join(group.get("containers", ())) or "none yet")]
    lines.append(("Guest image", str(group.get("image_version", "-"))))
    lines.append(("VM", f"{group.get('vcpus', '?')} vCPU, {group.get('memory_mib', '?')} MiB"))
    boot = group.get("boot", {})
    phases = ", ".join(f"{name} {value:.0f}" for name, value in boot.items())
    lines.append(("Boot", f"{sum(boot.values()):.0f} ms ({phases})"))
    return statuses.render(status) + "".join(f"{name + ':':<16}{value}\n" for name, value in lines), status.verdict


def _read(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def main(arguments: list[str] | None = None) -> int:
    """The command alone, for ``python -m parma_shim.status_cli``."""
    parser = argparse.ArgumentParser(prog="parma")
    add_status_commands(parser.add_subparsers(required=True))
    options = parser.parse_args(arguments)
    result: int = options.run(options)
    return result


if __name__ == "__main__":
    sys.exit(main())
