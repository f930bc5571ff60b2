# SPDX-License-Identifier: Apache-2.0
"""Helper: compare a guest image's files with its manifest.

Request: ``{"directory": path, "cache": path}``. Answer: ``{}``, or an error naming the file that differs. Files found
right are recorded in the cache, which the daemon looks at first.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from parma_shim.helpers.main import Document, run
from parma_shim.vm.image import check_hash, load_image, record_verified, unverified_files


def verify(request: Document) -> Document:
    """Hash what has changed since it was last found right."""
    image = load_image(Path(request["directory"]))
    cache = Path(request["cache"])
    files = unverified_files(image, cache)
    for file in files:
        with open(file.path, "rb") as stream:
            check_hash(file, hashlib.file_digest(stream, "sha256").hexdigest())
    record_verified(files, cache)
    return {}


if __name__ == "__main__":
    sys.exit(run(verify))
