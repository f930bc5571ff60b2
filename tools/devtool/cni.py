# SPDX-License-Identifier: Apache-2.0
"""Debian's CNI plugins and iptables, which one of them calls, unpacked into ``.dev/cni`` for tests of networks."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from devtool import paths
from parma_image import debian, prefix
from parma_wire.errors import Unsupported

_SUITE: Final = {"bookworm": "bookworm-backports", "trixie": "trixie"}
_PACKAGES: Final = ("containernetworking-plugins", "iptables")
_OF_THE_HOST: Final = frozenset(("libc6", "libc-bin", "libgcc-s1", "gcc-12-base", "gcc-14-base"))
_LIBRARIES: Final = "usr/lib/x86_64-linux-gnu"
_IPTABLES: Final = ("iptables", "iptables-save", "ip6tables", "ip6tables-save")

PLUGINS: Final = paths.CNI / "usr/lib/cni"
BIN: Final = paths.CNI / "parma-bin"
"""For PATH."""

NAME: Final = "pods"
BRIDGE: Final = "cni0"
IPV4, IPV6 = "10.99.0", "fd99:"
"""What addresses of the network begin with; the node's end with 1, and pods get the next ones in turn."""


def ensure() -> None:
    """Makes the folder unless this very code has made it. Raises ParmaError where the packages cannot be had."""
    wanted = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    stamp = paths.CNI / "made-by"
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    suite = _SUITE.get(prefix.host_codename())
    if suite is None:
        raise Unsupported("CNI plugins are taken from Debian", expected="Debian 12 or 13")
    archive = debian.DebianArchive(paths.ARCHIVE)
    debs = archive.fetch(suite, _PACKAGES, with_dependencies=True, exclude=_OF_THE_HOST)
    new = paths.CNI.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    debian.unpack(debs, new)
    (new / BIN.name).mkdir()
    for name in _IPTABLES:
        _launcher(new / BIN.name / name)
    (new / "made-by").write_text(wanted)
    shutil.rmtree(paths.CNI, ignore_errors=True)
    new.rename(paths.CNI)


def write_network(conf_dir: Path, bin_dir: Path, more: Sequence[Mapping[str, Any]] = ()) -> None:
    """Into ``conf_dir`` and ``bin_dir`` of the CRI plugin's configuration: a bridge with IPv4 and IPv6, and ports that
    are published. ``more`` are configurations of plugins that come last; these are in ``bin_dir`` already."""
    ipam = {
        "type": "host-local",
        "dataDir": str(bin_dir / "addresses"),
        "ranges": [[{"subnet": f"{IPV4}.0/24"}], [{"subnet": f"{IPV6}:/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    }
    plugins = [
        {"type": "bridge", "bridge": BRIDGE, "isGateway": True, "hairpinMode": True, "ipam": ipam},
        {"type": "portmap", "capabilities": {"portMappings": True}},
        *more,
    ]
    for folder in (conf_dir, bin_dir):
        folder.mkdir(parents=True, exist_ok=True)
    for plugin in PLUGINS.iterdir():
        (bin_dir / plugin.name).symlink_to(plugin)
    network = {"cniVersion": "1.0.0", "name": NAME, "plugins": plugins}
    (conf_dir / "10-pods.conflist").write_text(json.dumps(network))


def environment() -> dict[str, str]:
    """This process's, with the unpacked iptables found first."""
    return {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}


def _launcher(path: Path) -> None:
    """The program takes what it is to be from the name that it is called by."""
    libraries = paths.CNI / _LIBRARIES
    program = paths.CNI / "usr/sbin/xtables-nft-multi"
    path.write_text(
        f'#!/bin/sh\nLD_LIBRARY_PATH={libraries} XTABLES_LIBDIR={libraries}/xtables exec {program} {path.name} "$@"\n'
    )
    path.chmod(0o755)
