# SPDX-License-Identifier: Apache-2.0
"""The set-up that demo, test and bench share: host tools, guest image. Each part is skipped when it is current."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from devtool import cni, crictl, paths
from parma_wire.errors import ParmaError


def say(line: str) -> None:
    """Progress for the person waiting."""
    print(f"dev: {line}", file=sys.stderr, flush=True)


def ensure_prefix() -> None:
    """Debian's QEMU, containerd, runc and so on, unpacked into ``.dev/prefix``."""
    from parma_image import debian, prefix

    prefix.install_prefix(debian.DebianArchive(paths.ARCHIVE, log=say), paths.PREFIX)


def image_inputs_digest() -> str:
    """SHA-256 over everything in the checkout that the guest image is made from."""
    digest = hashlib.sha256()
    folders = ("cose", "guest", "policy/parma_policy", "snp/parma_snp", "ttrpc/ttrpc", "wire/parma_wire")
    for folder in folders:
        for path in sorted((paths.ROOT / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(paths.ROOT)}\0".encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def ensure_image() -> None:
    """The guest image in ``.dev/image``, rebuilt when anything it is made from has changed."""
    from parma_image import build

    stamp = paths.IMAGE / "inputs.sha256"
    wanted = image_inputs_digest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    say("building the guest image")
    build.build_image(paths.IMAGE, workdir=paths.ARCHIVE, log=say, relock_if_gone=True)
    stamp.write_text(wanted)


def ensure_rego_engine() -> Path:
    """The engine of the ``rego`` image variant, linked to as ``.dev/rego-engine``. Raises ParmaError where it cannot be
    built."""
    from parma_image import debian, rego

    built = rego.build_engine(debian.DebianArchive(paths.ARCHIVE, log=say), relock_if_gone=True)
    link = paths.REGO_ENGINE.with_suffix(".new")
    link.unlink(missing_ok=True)
    link.symlink_to(built.program)
    link.replace(paths.REGO_ENGINE)
    return paths.REGO_ENGINE


def ensure_rego_image() -> None:
    """The ``rego`` variant of the guest image in ``.dev/image-rego``. Raises ParmaError where it cannot be built."""
    from parma_image import build

    stamp = paths.REGO_IMAGE / "inputs.sha256"
    wanted = image_inputs_digest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    say("building the rego variant of the guest image")
    build.build_image(paths.REGO_IMAGE, workdir=paths.ARCHIVE, log=say, relock_if_gone=True, variant="rego")
    stamp.write_text(wanted)


def ensure_all() -> None:
    """Everything that running a container takes."""
    ensure_prefix()
    ensure_image()


def ensure_for_tests() -> None:
    """All that the tests use. Those of the Rego engine, crictl and CNI are skipped where these cannot be had."""
    ensure_all()
    try:
        ensure_rego_engine()
        ensure_rego_image()
    except ParmaError as error:
        say(f"no Rego engine, its tests will be skipped: {error}")
    try:
        crictl.ensure()
    except ParmaError as error:
        say(f"no crictl, its test will be skipped: {error}")
    try:
        cni.ensure()
    except ParmaError as error:
        say(f"no CNI plugins, their tests will be skipped: {error}")
