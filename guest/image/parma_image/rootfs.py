# SPDX-License-Identifier: Apache-2.0
"""Puts the guest's file tree together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from parma_image import closure, contents, elf, kernel
from parma_image.base import Base
from parma_image.cpio import Tree
from parma_wire.errors import NotFound


def assemble(base: Base, python: Path, entry: str, scratch: Path, extra: Mapping[str, bytes]) -> Tree:
    """The whole tree. ``python`` holds our packages, ``scratch`` is an empty folder to work in.

    ``extra`` files (path to contents) are for tests.
    """
    tree = Tree()
    for path, target in contents.LINKS.items():
        tree.symlink(path, target)
    for path, mode in contents.EMPTY_DIRECTORIES.items():
        tree.directory(path, mode)
    tree.file("init", contents.init_script(entry).encode(), executable=True)
    for path in contents.CONFIGURATION:
        tree.file(path, base.read(path))
    _add_python(tree, base, python, entry, scratch)
    for path in contents.PROGRAMS:
        tree.file(path, base.read(path), executable=True)
    _add_modules(tree, base)
    for path, data in extra.items():
        tree.file(path, data, executable=elf.is_elf(data) or data.startswith(b"#!"))
    add_libraries(tree, base)
    return tree


def _add_python(tree: Tree, base: Base, python: Path, entry: str, scratch: Path) -> None:
    tree.file(contents.INTERPRETER, base.read(contents.INTERPRETER), executable=True)
    files = closure.python_files(base, python, entry)
    for path, data in closure.compile_files(base, files, scratch).items():
        tree.file(path, data)
    for file in files:
        if file.path not in tree:
            tree.file(file.path, file.source.read_bytes())
    # Where the interpreter looks to find out where it is installed.
    tree.directory(f"{contents.STDLIB}/lib-dynload")


def _add_modules(tree: Tree, base: Base) -> None:
    modules = kernel.ordered_modules(base.kernel)
    for module in modules:
        tree.file(f"usr/lib/modules/{module.path}", module.data)
    tree.file(f"{contents.OUR_DIRECTORY}/modules.list", kernel.modules_list(modules).encode())


def add_libraries(tree: Tree, base: Base) -> None:
    """Adds every shared library that a file in the tree needs, and what those need in turn."""
    waiting = [(path, data) for path, _, data in tree.entries() if elf.is_elf(data) and not path.endswith(".ko")]
    while waiting:
        path, data = waiting.pop()
        needs = elf.needs(data)
        for library in needs.libraries:
            place = f"{contents.MULTIARCH}/{library}"
            if place in tree or library == Path(contents.LOADER).name:
                continue
            if not base.has(place):
                raise NotFound(f"{path} needs {library}, which none of the guest's packages has")
            tree.file(place, base.read(place))
            waiting.append((place, tree[place]))
        if needs.interpreter and contents.LOADER not in tree:
            tree.file(contents.LOADER, base.read(contents.LOADER), executable=True)
