# SPDX-License-Identifier: Apache-2.0
"""The faults that one node of a syntax tree may have.

Conditions become true, false or lose a part; comparisons take or leave their bound; checks, calls and ``raise`` go
away; constants are off by a little; results are None; decorators, handlers and keyword arguments are forgotten.
Strings with a space in them, and what an error expected, found and hints at, are prose and stay.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from typing import Final, NamedTuple

_COMPARISONS: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
}
_BOUNDS: Final = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_OPERATORS: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.BitXor: ast.BitOr,
}
_OPPOSITES: Final = {
    "any": "all",
    "all": "any",
    "min": "max",
    "max": "min",
    "startswith": "endswith",
    "endswith": "startswith",
    "lstrip": "rstrip",
    "rstrip": "lstrip",
}
_FOR_PEOPLE: Final = {"expected", "found", "hint"}
_DESCRIPTORS: Final = {"property", "staticmethod", "classmethod", "abstractmethod", "overload", "cached_property"}


class Slot(NamedTuple):
    """Where a node hangs: ``owner.field``, or ``owner.field[at]``."""

    owner: ast.AST
    field: str
    at: int | None

    def put(self, node: ast.AST) -> None:
        """Replaces what hangs there."""
        if self.at is None:
            setattr(self.owner, self.field, node)
        else:
            getattr(self.owner, self.field)[self.at] = node

    @property
    def is_condition(self) -> bool:
        """Whether it is what a branch depends on, which is made true and false anyway."""
        branches = isinstance(self.owner, (ast.If, ast.IfExp, ast.While)) and self.field == "test"
        return branches or (isinstance(self.owner, ast.comprehension) and self.field == "ifs")


def replacements(node: ast.AST, slot: Slot) -> Iterator[ast.AST]:
    """What may stand in the slot in the node's place."""
    if slot.is_condition:
        yield _true()
        if not isinstance(slot.owner, ast.comprehension):
            yield ast.Constant(value=False)
    if isinstance(node, ast.stmt):
        yield from _statements(node, slot)
    elif isinstance(node, ast.Constant):
        yield from _constants(node)
    else:
        yield from _expressions(node, slot)


def _statements(node: ast.stmt, slot: Slot) -> Iterator[ast.AST]:
    match node:
        case ast.Return(value=value) if value is not None and not isinstance(value, ast.Constant):
            yield ast.Return(value=ast.Constant(value=None))
        case ast.Raise():
            alone = isinstance(slot.owner, ast.If) and len(getattr(slot.owner, slot.field)) == 1
            if not alone:  # otherwise it is the same as a false condition
                yield ast.Pass()
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Delete(targets=[ast.Attribute() | ast.Subscript(), *_]):
            yield ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield ast.Pass()
        case ast.Continue():
            yield ast.Break()
        case ast.Break():
            yield ast.Continue()
        case ast.FunctionDef(decorator_list=decorators):
            for index, decorator in enumerate(decorators):
                if not (isinstance(decorator, ast.Name) and decorator.id in _DESCRIPTORS):
                    yield _without(node, "decorator_list", index)


def _constants(node: ast.Constant) -> Iterator[ast.AST]:
    match node.value:
        case bool(value):
            yield ast.Constant(value=not value)
        case int(value):
            yield ast.Constant(value=value + 1)
        case str(value) if " " not in value:
            yield ast.Constant(value=value + "XX")
        case bytes(value):
            yield ast.Constant(value=value + b"XX")


def _expressions(node: ast.AST, slot: Slot) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(ops=operators):
            for index, operator in enumerate(operators):
                if isinstance(operator, _BOUNDS) or not slot.is_condition or len(operators) > 1:
                    other = _COMPARISONS[type(operator)]()
                    yield _with(node, ops=[*operators[:index], other, *operators[index + 1 :]])
        case ast.BoolOp(values=[first, second]):
            yield from (first, second)
        case ast.BoolOp(values=values):
            yield from (_without(node, "values", index) for index in range(len(values)))
        case ast.UnaryOp(op=ast.Not(), operand=operand) if not slot.is_condition:
            yield operand
        case ast.BinOp(op=operator) if type(operator) in _OPERATORS:
            yield _with(node, op=_OPERATORS[type(operator)]())
        case ast.Call(func=ast.Name(id=name) as function) if name in _OPPOSITES:
            yield _with(node, func=_with(function, id=_OPPOSITES[name]))
        case ast.Call(func=ast.Attribute(attr=name) as function) if name in _OPPOSITES:
            yield _with(node, func=_with(function, attr=_OPPOSITES[name]))
        case ast.Call(keywords=keywords):
            for index, keyword in enumerate(keywords):
                if keyword.arg is not None and not is_prose(keyword.value) and not is_for_people(keyword, slot):
                    yield _without(node, "keywords", index)
        case ast.ExceptHandler(body=[ast.Raise(exc=None), *_]):
            return
        case ast.ExceptHandler():
            yield _with(node, body=[ast.Raise()])
        case ast.match_case(guard=None):
            yield _with(node, guard=ast.Constant(value=False))


def _true() -> ast.Constant:
    return ast.Constant(value=True)


def is_for_people(node: ast.AST, call: Slot) -> bool:
    """Whether an argument of a call is what an error tells people, beside what it is."""
    return isinstance(call.owner, ast.Raise) and isinstance(node, ast.keyword) and node.arg in _FOR_PEOPLE


def is_prose(node: ast.AST) -> bool:
    """Whether a string in it has a space."""
    parts = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
    return any(isinstance(part, str) and " " in part for part in parts)


def _with(node: ast.AST, **changes: object) -> ast.AST:
    other = copy.copy(node)
    for name, value in changes.items():
        setattr(other, name, value)
    return other


def _without(node: ast.AST, field: str, index: int) -> ast.AST:
    items = list(getattr(node, field))
    del items[index]
    return _with(node, **{field: items})
