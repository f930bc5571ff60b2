# SPDX-License-Identifier: Apache-2.0
"""All faults of a module: where they are, how they read, and the module with one of them.

Left out is what shows in no behaviour: annotations and type aliases (mypy's concern), docstrings, prose, protocols, the
decorators of classes.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Final, NamedTuple

from tests.mutation.operators import Slot, is_for_people, is_prose, replacements

_WIDTH: Final = 100
"""Characters of source that show a fault with what is around it."""
_UNSEEN: Final[dict[type[ast.AST], set[str]]] = {
    ast.FunctionDef: {"returns", "decorator_list"},
    ast.ClassDef: {"bases", "keywords", "decorator_list"},
    ast.AnnAssign: {"annotation"},
    ast.arg: {"annotation"},
}


class _Fault(NamedTuple):
    """``node`` of ``tree`` hangs in ``slot`` and is to be replaced."""

    tree: ast.Module
    slot: Slot
    node: ast.AST
    replacement: ast.AST

    def compile(self, path: Path) -> CodeType:
        """The module's code with the fault."""
        self.slot.put(self.replacement)
        try:
            return compile(ast.fix_missing_locations(self.tree), str(path), "exec")
        finally:
            self.slot.put(self.node)


@dataclass(frozen=True)
class Mutant:
    """One fault. ``scope`` is the function (``Class.method``) that it is in, "" for what runs at import."""

    path: Path
    scope: str
    was: str
    becomes: str
    nth: int
    """Several may read the same in one scope; they are counted from 1."""
    line: int
    end: int
    """Of the statement's last line: a test that runs no line of it cannot notice."""
    fault: _Fault


def find(path: Path) -> list[Mutant]:
    """In the order of the module's text."""
    tree = ast.parse(path.read_bytes())
    walk = _Walk(path, tree)
    walk.into(tree, scope="", names="")
    return walk.found


class _Walk:
    """Through one module. ``names`` are those of the classes around, ``scope`` is that of `Mutant`."""

    def __init__(self, path: Path, tree: ast.Module) -> None:
        self.found: list[Mutant] = []
        self._path = path
        self._tree = tree
        self._around: list[Slot] = []
        self._statement: list[tuple[int, int]] = []
        self._counts: Counter[tuple[str, str, str]] = Counter()

    def into(self, owner: ast.AST, *, scope: str, names: str) -> None:
        """Every node below ``owner``."""
        for field, value in ast.iter_fields(owner):
            if field in _UNSEEN.get(type(owner), ()):
                continue
            for index, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if not isinstance(node, ast.AST) or _shows_in_no_behaviour(node):
                    continue
                if not (self._around and is_for_people(node, self._around[-1])):
                    self._node(node, Slot(owner, field, index), scope, names)

    def _node(self, node: ast.AST, slot: Slot, scope: str, names: str) -> None:
        self._around.append(slot)
        is_statement = False
        if isinstance(node, (ast.stmt, ast.ExceptHandler, ast.match_case)):
            is_statement = True
            self._statement.append(_lines(node))
        known = {ast.dump(node)}
        for replacement in replacements(node, slot):
            if ast.dump(replacement) not in known:
                known.add(ast.dump(replacement))
                self._add(node, slot, replacement, scope)
        match node:
            case ast.ClassDef() if not scope:
                self.into(node, scope="", names=f"{names}{node.name}.")
            case ast.FunctionDef(args=arguments) if not scope:
                # What a parameter defaults to is evaluated when the function is defined.
                self.into(arguments, scope="", names=names)
                self.into(_body(node), scope=names + node.name, names=names)
            case _:
                self.into(node, scope=scope, names=names)
        if is_statement:
            self._statement.pop()
        self._around.pop()

    def _add(self, node: ast.AST, slot: Slot, replacement: ast.AST, scope: str) -> None:
        was, becomes = self._texts(node, slot, replacement)
        self._counts[scope, was, becomes] += 1
        nth = self._counts[scope, was, becomes]
        line, end = self._statement[-1]
        fault = _Fault(self._tree, slot, node, replacement)
        self.found.append(Mutant(self._path, scope, was, becomes, nth, line, end, fault))

    def _texts(self, node: ast.AST, slot: Slot, replacement: ast.AST) -> tuple[str, str]:
        """Before and after, with as much around as makes it readable: at most the statement."""
        shown = node
        for outer in reversed(self._around):
            if isinstance(shown, (ast.stmt, ast.ExceptHandler)) or isinstance(outer.owner, (ast.mod, ast.ClassDef)):
                break
            if len(_text(outer.owner)) > _WIDTH:
                break
            shown = outer.owner
        was = _text(shown)
        if shown is node:
            return _shortened(was, _text(replacement))
        slot.put(replacement)
        try:
            return _shortened(was, _text(shown))
        finally:
            slot.put(node)


def _body(function: ast.FunctionDef) -> ast.Module:
    """Its statements, in the very list that the function has."""
    return ast.Module(body=function.body, type_ignores=[])


def _lines(node: ast.stmt | ast.ExceptHandler | ast.match_case) -> tuple[int, int]:
    """First and last line of a statement; of one with a body, of what comes before that."""
    first = node.pattern.lineno if isinstance(node, ast.match_case) else node.lineno
    body = getattr(node, "body", None)
    if isinstance(body, list) and body:
        return first, max(first, body[0].lineno - 1)
    return first, getattr(node, "end_lineno", first)


def _text(node: ast.AST) -> str:
    """The node's source on one line; of a statement with others in it, how it begins."""
    if isinstance(node, ast.stmt) and hasattr(node, "body"):
        node = copy.copy(node)
        if isinstance(node, ast.ClassDef):
            node.decorator_list = []
        for field in ("body", "orelse", "handlers", "finalbody", "cases"):
            if hasattr(node, field):
                setattr(node, field, [])
    return " ".join(ast.unparse(node).split())


def _common(one: str, other: str) -> int:
    """How many characters are the same from the start."""
    different = (index for index, (left, right) in enumerate(zip(one, other, strict=False)) if left != right)
    return next(different, min(len(one), len(other)))


def _shortened(was: str, becomes: str) -> tuple[str, str]:
    """Of long texts only what differs, and a little around it."""
    if len(was) <= 2 * _WIDTH:
        return was, becomes
    before = _common(was, becomes)
    after = _common(was[before:][::-1], becomes[before:][::-1])
    start, rest = max(0, before - _WIDTH // 4), max(0, after - _WIDTH // 4)
    return was[start : len(was) - rest], becomes[start : len(becomes) - rest]


def _shows_in_no_behaviour(node: ast.AST) -> bool:
    match node:
        case ast.Expr(value=ast.Constant()):  # a docstring
            return True
        case ast.ClassDef(bases=bases) if any(ast.unparse(base).partition("[")[0] == "Protocol" for base in bases):
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__" | "__slots__")]):
            return True
        case ast.JoinedStr():
            return is_prose(node)
        case ast.Call(func=ast.Name(id="cast" | "TypeVar" | "NewType")):
            return True
    return False
