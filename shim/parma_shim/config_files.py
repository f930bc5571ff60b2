# SPDX-License-Identifier: Apache-2.0
"""Which files the host's configuration consists of (tier 0).

A file, and below the folder of its name with ``.d`` for ``.toml`` any number of drop-ins, in the order of their names:
``/etc/parma/config.toml`` and ``/etc/parma/config.d/*.toml``. What comes later wins, key by key.
"""

import posix

DEFAULT_PATH = "/etc/parma/config.toml"


def drop_in_folder(path: str) -> str:
    """Where the drop-ins of a configuration file are."""
    return path.removesuffix(".toml") + ".d"


def config_files(path: str = "") -> list[str]:
    """The file itself, be it there or not, and its drop-ins that are there.

    Args:
        path: empty for the default one.
    """
    path = path or DEFAULT_PATH
    folder = drop_in_folder(path)
    try:
        names = posix.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return [path]
    return [path, *(f"{folder}/{name}" for name in sorted(names) if name.endswith(".toml"))]
