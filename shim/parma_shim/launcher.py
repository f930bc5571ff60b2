# SPDX-License-Identifier: Apache-2.0
"""Writes the program that containerd executes, and warms the byte code it runs.

A console script of pip would do the same 30 ms slower: it looks for its package through ``site`` and every ``.pth``
file. The launcher names the interpreter and the folders, and runs isolated (``-I``: no environment variable, no
current directory) and without ``site`` (``-S``). The path of the configuration is built in, as nothing else may
choose it.
"""

from __future__ import annotations

import compileall
import importlib.util
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from parma_wire.errors import NotFound

OURS: Final = ("parma_shim", "parma_wire", "ttrpc", "parma_policy", "parma_snp", "parma_image")
LIBRARIES: Final = ("google.protobuf",)

_TEMPLATE: Final = """\
#!{python} -IS
# SPDX-License-Identifier: Apache-2.0
# Written by `parma shim-launcher`. containerd executes this.
import posix, sys
sys.path[:0] = {ours!r}
sys.path += {libraries!r}
from parma_shim.main import main
posix._exit(main({config!r}))  # nothing to finalise
"""


def write_launcher(path: Path, *, config: Path | str = "") -> None:
    """Writes an executable shim to ``path``, atomically.

    Args:
        config: absolute path of the configuration; empty for the default one.

    Raises:
        NotFound: a package is not installed.
        OSError: the file cannot be written.
    """
    ours = folders(OURS)
    # Ours first, the rest last: a folder with hundreds of packages is not searched for what the library has.
    libraries = [folder for folder in folders(LIBRARIES) if folder not in ours]
    text = _TEMPLATE.format(python=interpreter(), ours=ours, libraries=libraries, config=str(config))
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.chmod(0o755)
    temporary.rename(path)
    compile_packages()


def interpreter() -> str:
    """The Python that runs this, without the detour of a virtual environment."""
    return os.path.realpath(sys.executable)


def compile_packages() -> None:
    """Byte code for everything the shim imports: without it, or where it cannot be written, each start compiles."""
    for name in OURS:
        compileall.compile_dir(str(_location(name)), quiet=2)
    compileall.compile_dir(str(_location("google.protobuf")), quiet=2)


def folders(packages: Iterable[str]) -> list[str]:
    """The folders to search for these packages, in order, each once."""
    found: dict[str, None] = {}
    for name in packages:
        folder = _location(name)
        for _ in name.split("."):
            folder = folder.parent
        found[str(folder)] = None
    return list(found)


def _location(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise NotFound(f"the package {package} is not installed", hint="pip install 'parma[shim]'")
    return Path(next(iter(spec.submodule_search_locations))).resolve()
