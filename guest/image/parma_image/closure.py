# SPDX-License-Identifier: Apache-2.0
"""Which Python modules the guest can import: found by reading our sources and by importing in the guest's Python."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from parma_image import contents, elf
from parma_image.base import Base
from parma_wire.errors import Malformed, NotFound

_TARGET: Final = Path(__file__).with_name("target.py")
_INCLUDED_IF_FROZEN: Final = "os"  # the interpreter finds its library by this file


@dataclass(frozen=True)
class PythonFile:
    """A module's file at build time, and its path in the image (``.pyc`` for byte code)."""

    source: Path
    path: str


def imported_names(source: str, package: str) -> set[str]:
    """Every module that a source text may import, at its top or in functions; ``from a import b`` gives a and a.b.

    ``package`` is what the text's relative imports are relative to.
    """
    names: set[str] = set()
    for node in _walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = _absolute(node, package)
            names.add(module)
            names.update(f"{module}.{alias.name}" for alias in node.names)
    return names


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parents = package.split(".")
    if node.level > len(parents):
        raise Malformed(f"relative import above {package}")
    above = parents[: len(parents) - node.level + 1]
    return ".".join([*above, node.module] if node.module else above)


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes, but for what only type checkers see."""
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        for statement in node.orelse:
            yield from _walk(statement)
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _walk(child)


def our_modules(entry: str, directory: Path) -> tuple[dict[str, Path], set[str]]:
    """Our own modules reachable from ``entry``, by name, and the names of all other modules that they import."""
    found: dict[str, Path] = {}
    others: set[str] = set()
    waiting = [entry]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        path = _module_file(name, directory)
        if path is None:
            if (directory / name.partition(".")[0]).is_dir():
                continue  # an attribute of one of our modules
            others.add(name)
            continue
        found[name] = path
        parent = name.rpartition(".")[0]
        waiting += [parent] if parent else []
        package = name if path.name == "__init__.py" else parent
        waiting += imported_names(path.read_text(encoding="utf-8"), package)
    if entry not in found:
        raise NotFound(f"no module {entry} to run in the guest")
    return found, others


def _module_file(name: str, directory: Path) -> Path | None:
    base = directory.joinpath(*name.split("."))
    for path in (base / "__init__.py", base.with_name(f"{base.name}.py")):
        if path.is_file():
            return path
    return None


def python_files(base: Base, directory: Path, entry: str) -> list[PythonFile]:
    """Everything of Python that the image needs: our modules, theirs, and the standard library's.

    Raises NotFound when one of our modules imports something that the guest does not have.
    """
    ours, others = our_modules(entry, directory)
    for process in contents.PROCESSES if entry in contents.VARIANTS.values() else ():
        more, further = our_modules(process, directory)
        ours.update(more)
        others.update(further)
    names = sorted(ours) + sorted(_modules_only(others, base)) + list(contents.EXTRA_MODULES)
    loaded = _import_in_target(base, [directory, base.wheels], names)
    stdlib = base.root / contents.STDLIB
    places = {directory: contents.OUR_DIRECTORY, base.wheels: contents.OUR_DIRECTORY, stdlib: contents.STDLIB}
    files = [_file(Path(origin), places) for name, origin in loaded if origin.startswith("/")]
    files.append(_file(stdlib / f"{_INCLUDED_IF_FROZEN}.py", places))
    return sorted(files, key=lambda file: file.path)


def _modules_only(names: Iterable[str], base: Base) -> Iterator[str]:
    """Drops the ``a.b`` of ``from a import b`` when b is no module: decided by whether there is such a file."""
    roots = (base.wheels, base.root / contents.STDLIB, base.root / contents.STDLIB / "lib-dynload")
    for name in names:
        if "." not in name or any(_exists(root, name) for root in roots):
            yield name


def _exists(root: Path, name: str) -> bool:
    path = root.joinpath(*name.split("."))
    return path.is_dir() or any(path.parent.glob(f"{path.name}.py")) or any(path.parent.glob(f"{path.name}.*.so"))


def _import_in_target(base: Base, path: list[Path], names: list[str]) -> list[tuple[str, str]]:
    hidden = ":".join(unusable_extensions(base))
    command, environment = base.python(str(_TARGET), "closure", ":".join(map(str, path)), hidden, *names)
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise NotFound(f"the guest's Python cannot import {reason[0]}")
    result: list[tuple[str, str]] = ast.literal_eval(done.stdout)
    return result


def unusable_extensions(base: Base) -> list[str]:
    """The standard library's extension modules that need a library which the guest does not have.

    The loader would take such a library from the machine that builds the image, if that happens to have the version.
    """
    folder = base.root / contents.STDLIB / "lib-dynload"
    return sorted(
        path.name.partition(".")[0]
        for path in folder.glob("*.so")
        if not all(map(partial(_is_there, base), elf.needs(path.read_bytes()).libraries))
    )


def _is_there(base: Base, library: str) -> bool:
    return library == Path(contents.LOADER).name or base.has(f"{contents.MULTIARCH}/{library}")


def _file(source: Path, places: dict[Path, str]) -> PythonFile:
    for place, target in places.items():
        if source.is_relative_to(place):
            relative = str(source.relative_to(place))
            return PythonFile(source, f"{target}/{relative}{'c' if source.suffix == '.py' else ''}")
    raise Malformed(f"{source} was imported from outside the guest's packages")


def compile_files(base: Base, files: list[PythonFile], directory: Path) -> dict[str, bytes]:
    """The byte code of every source among ``files``, by path in the image."""
    sources = [file for file in files if file.path.endswith(".pyc")]
    targets = [directory / f"{index}.pyc" for index in range(len(sources))]
    lines = [
        f"{file.source}\t{target}\t/{file.path.removesuffix('c')}\n"
        for file, target in zip(sources, targets, strict=True)
    ]
    command, environment = base.python(str(_TARGET), "compile")
    done = subprocess.run(command, env=environment, input="".join(lines), capture_output=True, text=True, check=False)
    if done.returncode:
        raise Malformed(f"the guest's Python could not compile its modules: {done.stderr.strip()[-600:]}")
    return {file.path: target.read_bytes() for file, target in zip(sources, targets, strict=True)}
