# SPDX-License-Identifier: Apache-2.0
"""``parma record ID``: what a permissive policy was asked so far, from the running VM.

The enforcer keeps it, and gives it only where the policy says ``permissive := true``. This command dials the VM as the
shim does, through what is in its directory.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any, Final

from parma_shim import config, status_cli
from parma_shim.vm import files
from parma_shim.vm.dialing import Dialer, NotListeningError
from parma_shim.vm.vsock import SOCKET
from parma_wire.errors import Malformed, NotFound, Unavailable
from parma_wire.limits import GUEST_PORT, MAX_SEND

_DIAL_SECONDS: Final = 30.0  # not less: see `parma_shim.vm.dialing`


def add_record_commands(subparsers: Any) -> None:
    """Add ``record``. It sets ``run``, a function from the parsed arguments to the exit status."""
    parser = subparsers.add_parser(
        "record",
        help="print what a permissive policy was asked, for 'parma policy learn'",
        description="Print every request that the enforcer in the VM of a running container was asked about, as JSON "
        "Lines. Only a policy that says 'permissive := true' is recorded. The record has environment and arguments.",
    )
    parser.add_argument("id", metavar="ID", help="container or pod, as containerd names it")
    parser.add_argument("-n", "--namespace", default="default", help="containerd's namespace (default: %(default)s)")
    parser.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="wait for the VM to have a status")
    parser.add_argument("--config", default="", metavar="FILE", help="the host's configuration")
    parser.set_defaults(run=run_record)


def run_record(options: argparse.Namespace) -> int:
    """``parma record``."""
    settings = config.load(options.config or os.environ.get("PARMA_CONFIG", ""))
    directory = status_cli.wait_for(settings.state_dir, options.namespace, options.id, options.wait)
    text, dropped = fetch(directory, timeout=settings.call_timeout)
    sys.stdout.buffer.write(text)
    if dropped:
        sys.stdout.buffer.write(json.dumps({"dropped": dropped}).encode() + b"\n")
    sys.stdout.buffer.flush()
    return 0


def fetch(directory: Path, *, timeout: float) -> tuple[bytes, int]:
    """The recording of the VM with this directory. Raises NotFound, Unavailable, FailedPrecondition, ..."""
    import ttrpc
    from parma_shim.guest import GuestClient

    connection = _dial(directory)
    client = GuestClient(ttrpc.Client(connection, write_chunk=MAX_SEND), timeout=timeout)
    try:
        return client.recording()
    finally:
        client.close()


def _dial(directory: Path) -> socket.socket:
    try:
        group = json.loads((directory / files.GROUP).read_bytes())
        cid = group["vsock_cid"]
    except (OSError, ValueError) as error:
        raise NotFound("the VM has just ended") from error
    except (KeyError, TypeError) as error:
        raise Malformed(f"{directory / files.GROUP} is damaged") from error
    if not cid:
        try:
            return Dialer(str(directory / SOCKET)).dial(GUEST_PORT, _DIAL_SECONDS)
        except NotListeningError as error:
            raise Unavailable(f"cannot reach the VM: {error}") from error
    connection = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    try:
        connection.settimeout(_DIAL_SECONDS)
        connection.connect((cid, GUEST_PORT))
        connection.settimeout(None)
    except OSError as error:
        connection.close()
        raise Unavailable(f"cannot reach the VM: {error}") from error
    except BaseException:
        connection.close()
        raise
    return connection
