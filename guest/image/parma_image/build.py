# SPDX-License-Identifier: Apache-2.0
"""Builds the guest image: kernel, initrd, firmware and manifest. The same sources give the same bytes."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from parma_guest import cmdline
from parma_image import base as image_base
from parma_image import contents, cpio, lock, measure, rego, rootfs
from parma_image.debian import DebianArchive, Log
from parma_image.manifest import MANIFEST, Artefact, Manifest, Package, list_files
from parma_wire.errors import NotFound, Unavailable

KERNEL: Final = "vmlinuz"
INITRD: Final = "initrd.img"
FIRMWARE: Final = "OVMF.amdsev.fd"
NO_ACPI: Final = {"default": "no-acpi", "rego": "rego-no-acpi"}
"""What the variants are called whose kernels read no ACPI tables: endorsed as series of their own."""


def build_image(
    directory: Path,
    *,
    workdir: Path,
    log: Log = lambda _: None,
    relock_if_gone: bool = False,
    lock_file: Path = lock.LOCK_FILE,
    variant: str = "default",
    acpi: bool = True,
    entry: str = "",
    packages: Mapping[str, Path] | None = None,
    extra: Mapping[str, bytes] | None = None,
    measurements: bool = True,
) -> Manifest:
    """Builds the image into ``directory``; downloads and unpacked packages are kept in ``workdir``.

    ``relock_if_gone``: when the archive no longer has a locked version, build from what it has now (the
    measurement then differs from the published one, and ``log`` is told so). ``variant``: one of
    ``contents.VARIANTS``. ``acpi``: whether its kernel reads the host's ACPI tables, and so finds more than one
    processor. ``entry``, ``packages`` (folders by name) and ``extra`` (files by path) are for tests that put
    something of their own into the image.
    """
    workdir = workdir.absolute()
    archive = DebianArchive(workdir, log=log)
    locked = lock.load(lock_file)
    try:
        base = image_base.prepare(locked, archive)
    except NotFound as error:
        if not relock_if_gone:
            raise
        log(f"WARNING: {error.message}")
        log("WARNING: building from the archive's present packages; the measurement is not the published one")
        locked = lock.make(archive, workdir)
        base = image_base.prepare(locked, archive)
    files, made_of = dict(extra or {}), list(_packages(locked))
    if variant == "rego":
        engine = rego.build_engine(archive, relock_if_gone=relock_if_gone)
        files[rego.PROGRAM] = engine.program.read_bytes()
        made_of += engine.made_of
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=workdir) as temporary:
        python, scratch = Path(temporary, "python"), Path(temporary, "scratch")
        python.mkdir()
        scratch.mkdir()
        _link_packages(python, packages or {})
        log("putting the initrd together")
        tree = rootfs.assemble(base, python, entry or contents.VARIANTS[variant], scratch, files)
    _replace(directory / KERNEL, base.kernel.vmlinuz.read_bytes())
    _replace(directory / INITRD, compress(base, cpio.archive(tree)))
    _replace(directory / FIRMWARE, base.firmware.read_bytes())
    lines = {tee: cmdline.command_line(tee, acpi=acpi) for tee in cmdline.TEES}
    name = variant if acpi else NO_ACPI[variant]
    manifest = _manifest(directory, tree, name, made_of, lines, measurements=measurements)
    _replace(directory / MANIFEST, manifest.dump().encode())
    log(f"guest image in {directory}: initrd {manifest.initrd.size / 1e6:.1f} MB, {len(manifest.files)} paths")
    return manifest


def compress(base: image_base.Base, data: bytes) -> bytes:
    """The initrd as the kernel gets it; by the locked program, as other versions give other bytes."""
    done = subprocess.run(
        # -l: the legacy frame, the only one that the kernel reads.
        base.command(contents.COMPRESSOR, "-l", "-9", "-q", "-c"),
        env={},
        input=data,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise Unavailable(f"lz4 failed: {done.stderr.decode(errors='replace').strip()[:300]}")
    return done.stdout


def _link_packages(python: Path, packages: Mapping[str, Path]) -> None:
    """One folder with exactly the packages that may be imported in the guest."""
    for name in contents.OUR_PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise NotFound(f"the package {name} is not installed")
        (python / name).symlink_to(Path(spec.submodule_search_locations[0]).resolve())
    for name, path in packages.items():
        (python / name).symlink_to(path.resolve())


def _packages(locked: lock.Lock) -> list[Package]:
    made_of = [Package(p.name, p.version, p.sha256) for p in locked.packages]
    return made_of + [Package(w.name, w.version, w.sha256) for w in locked.wheels]


def _manifest(
    directory: Path,
    tree: cpio.Tree,
    variant: str,
    made_of: list[Package],
    lines: dict[str, str],
    *,
    measurements: bool,
) -> Manifest:
    paths = (directory / FIRMWARE, directory / KERNEL, directory / INITRD)
    return Manifest(
        version=_version(),
        variant=variant,
        kernel=Artefact.of(directory / KERNEL),
        initrd=Artefact.of(directory / INITRD),
        firmware=Artefact.of(directory / FIRMWARE),
        cmdline=lines,
        files=list_files(tree),
        packages=tuple(sorted(made_of, key=lambda package: package.name)),
        measurements=measure.table(*paths, lines) if measurements else (),
    )


def _version() -> str:
    try:
        return importlib.metadata.version("parma")
    except importlib.metadata.PackageNotFoundError:
        return "0"


def _replace(path: Path, data: bytes) -> None:
    """Writes a file so that nobody ever sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    temporary.replace(path)
