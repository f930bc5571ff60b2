# SPDX-License-Identifier: Apache-2.0
"""Images from a registry, fetched by ``skopeo``: authentication, mirrors and transports are its business."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from parma_policy.generate.references import Reference
from parma_wire.errors import NotFound, Unavailable

_TIMEOUT: Final = 3600.0


class Registry:
    """Fetched images, kept in a temporary directory until ``close``."""

    def __init__(self, program: str = "skopeo") -> None:
        self._program = program
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._count = 0

    def fetch(self, reference: Reference) -> Path:
        """An OCI layout with the image. Raises NotFound where there is no skopeo, Unavailable where it fails."""
        program = shutil.which(self._program)
        if program is None:
            hint = "install skopeo, or save the image with another tool and name the file with --image NAME=FILE"
            raise NotFound(f"{self._program} is not there to fetch {reference} from its registry", hint=hint)
        if self._directory is None:
            self._directory = tempfile.TemporaryDirectory(prefix="parma-images-")
        self._count += 1
        layout = Path(self._directory.name) / f"{self._count}"
        # Skopeo knows no name with both a tag and a digest; the digest is what counts.
        name = Reference(reference.host, reference.path, "" if reference.digest else reference.tag, reference.digest)
        platform = ("--override-os=linux", "--override-arch=amd64")
        # The index is fetched too, where the name's digest is that of one.
        which = ("--multi-arch=all", "--preserve-digests") if reference.digest else ()
        command = [program, *platform, "copy", "--quiet", *which, f"docker://{name}", f"oci:{layout}:image"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, stdin=subprocess.DEVNULL)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable(f"{program} failed: {error}") from error
        if done.returncode != 0:
            reason = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
            raise Unavailable(f"{self._program} could not fetch {reference}: {reason[0][:500]}")
        return layout

    def close(self) -> None:
        """Removes what was fetched."""
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None
