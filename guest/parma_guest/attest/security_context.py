# SPDX-License-Identifier: Apache-2.0
"""The directory that confidential container groups find by ``UVM_SECURITY_CONTEXT_DIR``, in a container's own root.

It is there before anything of the container runs. What is in it is public and the container's own copy; files that
the host gave nothing for are empty, because existing sidecars want all of them.
"""

from __future__ import annotations

import base64
import os
from typing import Final

from parma_guest.attest.endorsements import Endorsements
from parma_wire.errors import Unavailable

VARIABLE: Final = "UVM_SECURITY_CONTEXT_DIR"
EMULATED_VARIABLE: Final = "PARMA_EMULATED"

_PREFIX: Final = "security-context-"


def write(root: str, policy: bytes, endorsements: Endorsements, *, tee: str) -> tuple[str, ...]:
    """Makes the directory in the root file system ``root``; returns the environment that tells of it.

    Its name is random, so that no image can have something there. Raises `Unavailable`.
    """
    name = _PREFIX + os.urandom(8).hex()
    files = {
        "security-policy-base64": base64.b64encode(policy),
        "reference-info-base64": endorsements.reference_info.encode(),
        "host-amd-cert-base64": endorsements.host_amd_cert.encode(),
    }
    environment = [f"{VARIABLE}=/{name}"]
    if tee == "emulated":
        files["emulated"] = b"The reports of this machine are emulated and prove nothing.\n"
        environment.append(f"{EMULATED_VARIABLE}=1")
    try:
        _write_all(root, name, files)
    except OSError as error:
        raise Unavailable("the security context directory cannot be made") from error
    return tuple(environment)


def _write_all(root: str, name: str, files: dict[str, bytes]) -> None:
    parent = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.mkdir(name, 0o755, dir_fd=parent)
        directory = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    finally:
        os.close(parent)
    try:
        for file, data in files.items():
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(file, flags, 0o644, dir_fd=directory), "wb") as stream:
                stream.write(data)
    finally:
        os.close(directory)
