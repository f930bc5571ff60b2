# SPDX-License-Identifier: Apache-2.0
"""Helper: find the layers of a container's image and have each as a verified read-only disk.

Request: ``{"address", "namespace", "container_id", "cache", "cache_bytes", "timeout"}``. Answer: ``{"layers":
[{"diff_id", "path", "root_hash", "data_blocks"}, ...]}``, base layer first. The open files themselves are sent over
the Unix socket named by ``--descriptors``, one message each, in the same order: each holds the cache's pin, so a layer
cannot be evicted before, or while, QEMU uses it.
"""

from __future__ import annotations

import argparse
import socket
import sys
import time
from pathlib import Path

from parma_policy.layers.cache import LayerCache
from parma_shim.helpers.main import Document, run
from parma_wire.errors import Malformed


def resolve(request: Document, descriptors: socket.socket) -> Document:
    """Find, convert what is not cached, send the files."""
    from parma_policy.layers.containerd import resolve_layers
    from parma_policy.layers.worker import prepare_layers

    deadline = time.monotonic() + float(request["timeout"])
    blobs = resolve_layers(
        request["address"], request["namespace"], request["container_id"], timeout=float(request["timeout"])
    )
    if not blobs:
        raise Malformed("the container's image has no layers")
    cache = LayerCache(Path(request["cache"]), int(request["cache_bytes"]))
    layers = prepare_layers(cache, blobs, timeout=max(0.0, deadline - time.monotonic()))
    for layer in layers:
        socket.send_fds(descriptors, [b"\0"], [layer.fd])
    return {
        "layers": [
            {
                "diff_id": layer.diff_id,
                "path": str(layer.path),
                "root_hash": layer.root_hash,
                "data_blocks": layer.data_blocks,
            }
            for layer in layers
        ]
    }


def main() -> int:
    """Serve one request."""
    parser = argparse.ArgumentParser(prog="parma_shim.helpers.layers", description=__doc__)
    parser.add_argument("--descriptors", type=int, required=True, metavar="FD")
    options = parser.parse_args()
    with socket.socket(fileno=options.descriptors) as descriptors:
        return run(lambda request: resolve(request, descriptors))


if __name__ == "__main__":
    sys.exit(main())
