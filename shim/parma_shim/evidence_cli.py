# SPDX-License-Identifier: Apache-2.0
"""``parma evidence ID --nonce HEX``: fresh evidence of a running container's VM, for a relying party.

The question goes through the shim to the guest, whose report answers this nonce and no other. Exit status: 0 written,
1 the VM gives no evidence, 2 no such container or wrong usage.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any, Final

from parma_shim import config
from parma_shim.status_cli import wait_for
from parma_shim.vm import files
from parma_wire.errors import NotFound, ParmaError, Unavailable, from_code

WRITTEN: Final = 0
REFUSED: Final = 1
UNKNOWN: Final = 2

NONCE_SIZE: Final = 64
_SECONDS: Final = 60.0
_SERVICE: Final = "parma.guest.v1.HostEvidence"

Subparsers = argparse._SubParsersAction  # noqa: SLF001 - argparse has no public name for it


def add_evidence_commands(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``evidence``. It sets ``run``, a function from the parsed arguments to the exit status."""
    parser = subparsers.add_parser(
        "evidence",
        help="fetch fresh evidence of a running container",
        description="Ask the VM of a running container for evidence that answers a relying party's nonce, and write it "
        "with certificates, policy and endorsement as one file for 'parma verify'. Run it on the container's host.",
    )
    parser.add_argument("id", metavar="ID", help="container or pod, as containerd names it")
    parser.add_argument(
        "--nonce", required=True, type=_nonce, metavar="HEX", help="64 random bytes that the relying party has chosen"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write it (default: standard output)")
    parser.add_argument("-n", "--namespace", default="default", help="containerd's namespace (default: %(default)s)")
    parser.add_argument(
        "--wait", type=float, default=0.0, metavar="SECONDS", help="wait for a container that is being created"
    )
    parser.add_argument("--config", default="", metavar="FILE", help="the host's configuration")
    parser.set_defaults(run=run_evidence)


def _nonce(text: str) -> bytes:
    try:
        nonce = bytes.fromhex(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"not hex: {text!r}") from None
    if len(nonce) != NONCE_SIZE:
        raise argparse.ArgumentTypeError(
            f"expected {NONCE_SIZE} random bytes ({2 * NONCE_SIZE} hex digits), found {len(nonce)}"
        )
    return nonce


def run_evidence(options: argparse.Namespace) -> int:
    """``parma evidence``."""
    from parma_snp.errors import SnpError

    try:
        settings = config.load(options.config or os.environ.get("PARMA_CONFIG", ""))
        directory = wait_for(settings.state_dir, options.namespace, options.id, options.wait)
        text = fetch(directory, options.nonce)
        if options.out is None:
            sys.stdout.write(text)
        else:
            options.out.write_text(text)
    except NotFound as error:
        print(f"parma evidence: {error}", file=sys.stderr)
        return UNKNOWN
    except (ParmaError, SnpError, OSError) as error:
        print(f"parma evidence: {error}", file=sys.stderr)
        return REFUSED
    return WRITTEN


def fetch(directory: Path, nonce: bytes) -> str:
    """The evidence document of the VM with this directory, fetched now. Raises ParmaError, SnpError, OSError."""
    from parma_shim.evidence import collect

    try:
        group = json.loads((directory / files.GROUP).read_bytes())
        policy = (directory / files.POLICY).read_bytes()
    except (FileNotFoundError, ValueError):
        raise NotFound("the VM has just ended") from None
    report = ask(str(group["socket"]), nonce)
    return collect(group, report=report, nonce=nonce, policy=policy).dumps()


def ask(socket_path: str, nonce: bytes) -> bytes:
    """A report of the VM behind a shim's socket. Raises ParmaError."""
    from parma_wire import guest_pb2 as pb
    from ttrpc import Client, TtrpcError

    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(socket_path)
        except OSError as error:
            raise Unavailable(f"the shim does not answer at {socket_path}: {error.strerror}") from error
        client = Client(connection)
        try:
            request = pb.EvidenceRequest(nonce=nonce)
            answer: Any = client.call(_SERVICE, "Evidence", request, pb.EvidenceResponse, timeout=_SECONDS)
        except TtrpcError as error:
            raise from_code(error.code, error.message) from error
        finally:
            client.close()
    report: bytes = answer.report
    return report
