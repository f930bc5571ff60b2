# SPDX-License-Identifier: Apache-2.0
"""Builds the Rego engine of the ``rego`` image variant: our program around the Open Policy Agent's library.

The toolchain is Debian's, from ``rego.lock``; the sources of the library come through the Go module proxy and are
those of ``rego_engine/go.sum``. The same sources give the same bytes, on any machine.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from parma_image import debian, lock
from parma_image.manifest import Package
from parma_wire.errors import NotFound, Unavailable

SOURCES: Final = Path(__file__).with_name("rego_engine")
LOCK_FILE: Final = Path(__file__).with_name("rego.lock")
PROGRAM: Final = "usr/lib/parma/rego-engine"
"""Where it is in the image."""

SUITE: Final = "sid"
TOOLCHAIN: Final = ("golang-1.27-go", "golang-1.27-src")
_GOROOT: Final = "usr/lib/go-1.27"
_REQUIRED: Final = re.compile(r"\t(\S+) (v\S+)")
_BUILD: Final = ("build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags=-s -w -buildid=")
_INHERITED: Final = ("GOPROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy")
"""How to reach the network is for the machine to say; what comes from there is checked against ``go.sum``."""


@dataclass(frozen=True)
class BuiltEngine:
    """The program, and what it is compiled with and from."""

    program: Path
    made_of: tuple[Package, ...]


def build_engine(archive: debian.DebianArchive, *, relock_if_gone: bool = False) -> BuiltEngine:
    """The built program, from the cache in the archive's working directory or made now.

    Raises NotFound when the archive no longer has the locked toolchain (``relock_if_gone`` then takes what it has),
    Unavailable when something cannot be downloaded or does not build.
    """
    locked = lock.load(LOCK_FILE)
    try:
        return _build(locked, archive)
    except NotFound as error:
        if not relock_if_gone:
            raise
        archive.log(f"WARNING: {error.message}; taking the toolchain that the archive has")
    return _build(make_lock(archive), archive)


def _build(locked: lock.Lock, archive: debian.DebianArchive) -> BuiltEngine:
    directory = archive.workdir / "rego-engine"
    program = directory / _digest(locked) / "rego-engine"
    with debian.exclusive(directory):
        if not program.is_file():
            compile_engine(_toolchain(locked, archive, directory), directory, program, log=archive.log)
    return BuiltEngine(program, tuple(_made_of(locked)))


def compile_engine(goroot: Path, work: Path, program: Path, *, log: debian.Log = lambda _: None) -> None:
    """Compiles into ``program``; module sources and compiled packages are kept in ``work``."""
    log("building the Rego engine (the first time takes some minutes)")
    sources = work / "sources"
    shutil.rmtree(sources, ignore_errors=True)
    shutil.copytree(SOURCES, sources)
    environment = {
        **{name: value for name, value in os.environ.items() if name in _INHERITED},
        "PATH": f"{goroot / 'bin'}:/usr/bin:/bin",
        "HOME": str(work),
        "GOROOT": str(goroot),
        "GOPATH": str(work / "path"),
        "GOMODCACHE": str(work / "modules"),
        "GOCACHE": str(work / "cache"),
        "GOENV": "off",
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-modcacherw",
        "GOSUMDB": "off",  # go.sum has every hash; the build fails without one
        "GOTELEMETRY": "off",
        "GOOS": "linux",
        "GOARCH": "amd64",
        "GOAMD64": "v1",
        "CGO_ENABLED": "0",
    }
    new = program.with_name("new")
    program.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [goroot / "bin/go", *_BUILD, "-o", new.absolute(), "."],
        cwd=sources,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Unavailable(f"the Rego engine could not be built: {' '.join(done.stderr.split())[:600]}")
    new.rename(program)


def _made_of(locked: lock.Lock) -> Iterator[Package]:
    """Toolchain and modules, for the manifest. A module's hash is Go's own over its files (h1)."""
    yield from (Package(item.name, item.version, item.sha256) for item in locked.packages)
    required = {match.groups() for match in map(_REQUIRED.match, _lines("go.mod")) if match}
    for line in _lines("go.sum"):
        name, version, checksum = line.split()
        if (name, version) in required:
            yield Package(name, version, base64.b64decode(checksum.removeprefix("h1:")).hex())


def _lines(name: str) -> list[str]:
    return (SOURCES / name).read_text(encoding="utf-8").splitlines()


def make_lock(archive: debian.DebianArchive) -> lock.Lock:
    """A lock of the toolchain that the archive has now."""
    debs = archive.fetch(SUITE, TOOLCHAIN)
    return lock.Lock(tuple(sorted(lock.LockedPackage(SUITE, d.name, d.version, d.sha256) for d in debs)), ())


def _toolchain(locked: lock.Lock, archive: debian.DebianArchive, directory: Path) -> Path:
    root = directory / "go" / locked.digest()[:32]
    if not root.is_dir():
        try:
            debs = lock.fetch(locked, archive)
        except NotFound as error:
            raise NotFound(error.message, hint="'parma image lock --variant rego' takes what the archive has") from None
        shutil.rmtree(root.parent, ignore_errors=True)
        debian.unpack(debs, root.with_name("new"))
        root.with_name("new").rename(root)
    return root / _GOROOT


def _digest(locked: lock.Lock) -> str:
    digest = hashlib.sha256(locked.digest().encode())
    for path in sorted(SOURCES.iterdir()):
        digest.update(f"{path.name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:32]
