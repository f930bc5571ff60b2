# SPDX-License-Identifier: Apache-2.0
"""``parma metrics``: the metrics of every shim on this node, in Prometheus's text format.

Printed once (for a textfile collector or a look), or served with ``--listen``. Exit status: 0, or 1 when a shim did
not answer; what the others said is printed all the same.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import Final, NamedTuple

from parma_shim import config
from parma_shim.observe import exposition
from parma_shim.observe.endpoint import NAME, fetch
from parma_shim.observe.exposition import Family
from parma_wire.errors import Malformed, ParmaError

_TIMEOUT: Final = 3.0
"""Seconds for one shim; its guest has one of them."""

Subparsers = argparse._SubParsersAction  # noqa: SLF001 - argparse has no public name for it


class Node(NamedTuple):
    """What the shims of a node said."""

    text: str
    silent: tuple[str, ...]
    """Directories of VMs whose shim gave no metrics, with the reason."""


def add_metrics_commands(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``metrics``. It sets ``run``, a function from the parsed arguments to the exit status."""
    parser = subparsers.add_parser(
        "metrics",
        help="metrics of all VMs on this node",
        description="Print the metrics of every shim on this node in Prometheus's text exposition format, or serve "
        "them. Each shim has a socket of its own, metrics.sock in its VM's directory, for root only.",
    )
    parser.add_argument("--listen", metavar="ADDRESS:PORT", type=_address, help="serve GET /metrics until interrupted")
    parser.add_argument("--config", default="", metavar="FILE", help="the host's configuration")
    parser.set_defaults(run=run_metrics)


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"not an address: {text!r}, expected for example 127.0.0.1:9464")
    return host.strip("[]"), int(port)


def run_metrics(options: argparse.Namespace) -> int:
    """``parma metrics``."""
    settings = config.load(options.config or os.environ.get("PARMA_CONFIG", ""))
    if options.listen is not None:
        _serve(settings.state_dir, options.listen)
        return 0
    node = collect(settings.state_dir)
    print(node.text, end="")
    for line in node.silent:
        print(f"parma metrics: {line}", file=sys.stderr)
    return 1 if node.silent else 0


def collect(state_dir: Path) -> Node:
    """Asks every shim below ``state_dir``, one after the other."""
    texts, silent = [], []
    for path in sorted(state_dir.glob(f"*/{NAME}")):
        try:
            text = fetch(path, timeout=_TIMEOUT)
            exposition.merge([text])  # one that cannot be read must not spoil the others'
        except (OSError, Malformed) as error:
            silent.append(f"{path.parent.name}: {error}")
            continue
        texts.append(text)
    own = [
        Family("parma_node_shims", "gauge", "Shims with a VM, by whether they gave metrics.", {
            (("answered", "true"),): len(texts),
            (("answered", "false"),): len(silent),
        })
    ]  # fmt: skip
    return Node(exposition.merge([*texts, exposition.render(own)]), tuple(silent))


def _serve(state_dir: Path, address: tuple[str, int]) -> None:
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        """GET /metrics."""

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(404)
                return
            body = collect(state_dir).text.encode()
            self.send_response(200)
            self.send_header("Content-Type", exposition.CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Scrapes are not worth a line."""

    try:
        server = ThreadingHTTPServer(address, Handler)
    except OSError as error:
        raise ParmaError(f"cannot listen on {address[0]}:{address[1]}: {error.strerror}") from error
    with server:
        print(f"parma metrics: serving http://{address[0]}:{server.server_port}/metrics", file=sys.stderr, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
