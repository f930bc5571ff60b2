# SPDX-License-Identifier: Apache-2.0
"""The part of Rego's grammar that policy generators write, and nothing else::

    document  = "package" NAME  import*  statement*
    import    = "import" ("rego.v1" | "future.keywords" ["." NAME])
    statement = NAME (":=" | "=") value                     one to a line
    value     = "null" | "true" | "false" | INTEGER | STRING | RAWSTRING | array | object | reference | call
    array     = "[" [value ("," value)* [","]] "]"
    object    = "{" [STRING ":" value ("," STRING ":" value)* [","]] "}"
    reference = "data" ("." NAME)+
    call      = "parameter" "(" STRING ")" ("." NAME)*

Comments run from ``#`` to the end of the line. Where a reference or a call may stand is for the caller to check.
Arrays and objects remember where their elements are, so that later checks can say line and column too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from parma_policy.reader.errors import PolicyTextError, Source
from parma_policy.reader.limits import MAX_DEPTH, MAX_INTEGER, MAX_LIST, MAX_STATEMENTS


@dataclass(frozen=True, slots=True)
class Reference:
    """``data.framework.x``."""

    path: str


@dataclass(frozen=True, slots=True)
class Parameter:
    """``parameter("x")``, in a fragment; ``members`` of it that are taken."""

    name: str
    members: tuple[str, ...] = ()


class Array(list["Value"]):
    """An array; ``offsets[i]`` is where element i starts."""

    __slots__ = ("offsets",)

    def __init__(self) -> None:
        super().__init__()
        self.offsets: list[int] = []


class Object(dict[str, "Value"]):
    """An object; ``offsets[key]`` is where the member's value starts."""

    __slots__ = ("offsets",)

    def __init__(self) -> None:
        super().__init__()
        self.offsets: dict[str, int] = {}


Value = None | bool | int | str | Reference | Parameter | Array | Object


FrozenJson = None | bool | int | str | tuple["FrozenJson", ...] | Mapping[str, "FrozenJson"]
"""A literal that does not change and has forgotten where it stood."""


def freeze(value: Value) -> FrozenJson:
    """A literal as an immutable value. Raises TypeError for one with references or parameters in it."""
    match value:
        case Array():
            return tuple(freeze(item) for item in value)
        case Object():
            return MappingProxyType({key: freeze(item) for key, item in value.items()})
        case Reference() | Parameter():
            raise TypeError(value)
        case _:
            return value


def place(value: FrozenJson, offset: int) -> Value:
    """The literal as if all of it stood at ``offset``."""
    if isinstance(value, tuple):
        array = Array()
        array.extend(place(item, offset) for item in value)
        array.offsets = [offset] * len(array)
        return array
    if isinstance(value, Mapping):
        members = Object()
        for key, item in value.items():
            members[key] = place(item, offset)
        members.offsets = dict.fromkeys(members, offset)
        return members
    return value


@dataclass(frozen=True, slots=True)
class Statement:
    """``name := value``. The offsets are those of the name and of the value."""

    name: str
    value: Value
    offset: int
    value_offset: int


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed text; statements by name."""

    source: Source
    package: str
    statements: dict[str, Statement]


_BLANK: Final = re.compile(r"(?:[ \t\n]|\r\n|#[^\r\n]*)*")
_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
_MEMBERS: Final = re.compile(r"(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
_NUMBER: Final = re.compile(r"-?[0-9][0-9A-Za-z_.+-]*")
_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,15})")
_PLAIN_STRING: Final = re.compile(r'"([^"\\\x00-\x1f\x7f]*)"')
_RAW_STRING: Final = re.compile(r"`([^`\r\x00]*)`")
_IMPORT: Final = re.compile(r"rego\.v1|future\.keywords(?:\.(?:every|in|if|contains))?")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_INVISIBLE: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]")
_DEFAULT: Final = re.compile(r"default[ \t]+([A-Za-z_][A-Za-z0-9_]*)")
_KEYWORDS: Final = {"true": True, "false": False, "null": None}
_RESERVED: Final = frozenset(
    (
        *("as", "contains", "data", "default", "else", "every", "if", "import", "in", "input", "not", "package"),
        *("some", "with", "_", *_KEYWORDS),
    )
)
"""What cannot be the name of a definition."""

# The standard library's own reader of JSON strings: refuses control characters and bad escapes.
_scan_string: Final[Callable[[str, int], tuple[str, int]]] = getattr(json.decoder, "scanstring")  # noqa: B009

_VALUE: Final = "a literal: a string, a whole number, true, false, null, an array or an object"
RULES_HINT: Final = "rules of a policy's own need a guest with a Rego engine: the 'rego' variant of the image"


def parse(text: str) -> Document:
    """Parses ``text``; raises PolicyTextError."""
    return _Parser(text).document()


def value_end(text: str, offset: int) -> int:
    """Where the value that starts at ``offset`` ends. For tools that edit a text that was parsed before."""
    parser = _Parser(text)
    parser.position = offset
    parser.value(0)
    return parser.position


class _Parser:
    __slots__ = ("line_break", "name", "position", "source", "text")

    def __init__(self, text: str) -> None:
        self.source = Source(text)
        self.text = text
        self.position = 0
        self.line_break = True
        self.name = ""

    def rules_hint(self) -> str:
        """What to say where a rule seems to begin or to go on; names the rule."""
        return f"{self.name!r} seems to be a rule: {RULES_HINT}" if self.name else RULES_HINT

    def error(self, message: str, *, at: int | None = None, expected: str = "", hint: str = "") -> PolicyTextError:
        offset = self.position if at is None else at
        return self.source.error(offset, message, expected=expected, hint=hint)

    def skip(self) -> None:
        """Moves over blanks and comments, and notes whether a line ended."""
        match = _BLANK.match(self.text, self.position)
        end = match.end() if match else self.position
        if end == self.position:
            self.line_break = False
            return
        blank = self.text[self.position : end]
        invisible = _INVISIBLE.search(blank.replace("\r\n", "\n"))
        if invisible:
            raise self.error(f"control character U+{ord(invisible[0]):04X} in a comment")
        self.line_break = "\n" in blank
        self.position = end

    def peek(self) -> str:
        return self.text[self.position : self.position + 1]

    def found(self) -> str:
        """What stands here, for a message."""
        character = self.peek()
        if not character:
            return "the text ends"
        return f"found {character!r}" if character.isprintable() else f"found character U+{ord(character):04X}"

    def word(self) -> str:
        """The dotted name here, or an empty string."""
        match = _WORD.match(self.text, self.position)
        return match[0] if match else ""

    # -- the document --------------------------------------------------------------------------------------------

    def document(self) -> Document:
        mark = self.text.find("\ufeff")
        if mark >= 0:
            raise self.error("a byte order mark (U+FEFF)", at=mark, hint="save the policy as UTF-8 without BOM")
        self.skip()
        package = self.package()
        self.imports()
        statements: dict[str, Statement] = {}
        while self.position < len(self.text):
            statement = self.statement()
            if statement.name in statements:
                raise self.error(f"{statement.name!r} is defined twice", at=statement.offset)
            if len(statements) == MAX_STATEMENTS:
                raise self.error("too many definitions", at=statement.offset, expected=f"at most {MAX_STATEMENTS}")
            statements[statement.name] = statement
        return Document(self.source, package, statements)

    def end_of_line(self) -> None:
        """Between two statements there is a line break."""
        self.skip()
        if self.position < len(self.text) and not self.line_break:
            raise self.error(
                f"{self.found()} behind a complete statement", expected="a new line", hint=self.rules_hint()
            )

    def package(self) -> str:
        if self.word() != "package":
            raise self.error(self.found(), expected="'package policy' at the start of the text")
        self.position += len("package")
        self.skip()
        name = self.word()
        if not name or "." in name or self.line_break:
            raise self.error(self.found(), expected="a simple package name on the same line")
        self.position += len(name)
        self.end_of_line()
        return name

    def imports(self) -> None:
        while self.word() == "import":
            self.position += len("import")
            self.skip()
            name = self.word()
            if not _IMPORT.fullmatch(name) or self.line_break:
                expected = "rego.v1, future.keywords, future.keywords.every, .in, .if or .contains"
                raise self.error(f"cannot import {name!r}", expected=expected, hint=self.rules_hint())
            self.position += len(name)
            self.end_of_line()

    def statement(self) -> Statement:
        offset = self.position
        name = self.word()
        if not name or "." in name:
            raise self.error(self.found() if not name else f"found {name!r}", expected="'name := value'")
        self.name = name
        if name in _RESERVED:
            rule = _DEFAULT.match(self.text, offset)
            self.name = rule[1] if rule else ""
            hint = "" if name in ("package", "import") else self.rules_hint()
            raise self.error(f"{name!r} cannot stand here", expected="'name := value'", hint=hint)
        self.position += len(name)
        self.skip()
        if self.text.startswith(":=", self.position):
            self.position += 2
        elif self.peek() == "=" and not self.text.startswith("==", self.position):
            self.position += 1
        else:
            raise self.error(f"{self.found()} behind {name!r}", expected="':='", hint=self.rules_hint())
        self.skip()
        value_offset = self.position
        value = self.value(0)
        self.end_of_line()
        return Statement(name, value, offset, value_offset)

    # -- values --------------------------------------------------------------------------------------------------

    def value(self, depth: int) -> Value:
        character = self.peek()
        if character == '"':
            return self.string()
        if character == "[":
            return self.array(depth)
        if character == "{":
            return self.object(depth)
        if character == "`":
            return self.raw_string()
        if character == "-" or character.isdigit():
            return self.integer()
        return self.named_value()

    def named_value(self) -> Value:
        word = self.word()
        if word in _KEYWORDS:
            self.position += len(word)
            return _KEYWORDS[word]
        if word.startswith("data."):
            self.position += len(word)
            return Reference(word)
        if word == "parameter" and self.text.startswith("(", self.position + len(word)):
            return self.call()
        found = f"found {word!r}" if word else self.found()
        raise self.error(found, expected=_VALUE, hint=self.rules_hint() if word else "")

    def call(self) -> Parameter:
        self.position += len("parameter(")
        self.skip()
        if self.peek() != '"':
            raise self.error(self.found(), expected="the parameter's name, a string")
        name = self.string()
        self.skip()
        if self.peek() != ")":
            raise self.error(self.found(), expected="')'")
        self.position += 1
        members = _MEMBERS.match(self.text, self.position)
        taken = members[0] if members else ""
        self.position += len(taken)
        return Parameter(name, tuple(taken.split(".")[1:]))

    def string(self) -> str:
        match = _PLAIN_STRING.match(self.text, self.position)
        if match:
            self.position = match.end()
            return match[1]
        try:
            value, end = _scan_string(self.text, self.position + 1)
        except json.JSONDecodeError as error:
            raise self.error(f"bad string: {error.msg}", at=min(error.pos, len(self.text))) from None
        if _SURROGATE.search(value):
            raise self.error("half of a surrogate pair in a string", hint="write the character itself")
        self.position = end
        return value

    def raw_string(self) -> str:
        match = _RAW_STRING.match(self.text, self.position)
        if not match:
            raise self.error("raw string without end, or with a CR or NUL in it", expected="a closing '`'")
        self.position = match.end()
        return match[1]

    def integer(self) -> int:
        match = _NUMBER.match(self.text, self.position)
        text = match[0] if match else self.peek()
        if not _INTEGER.fullmatch(text) or text == "-0" or abs(int(text)) > MAX_INTEGER:
            raise self.error(f"bad number {text[:40]!r}", expected="a whole number of at most 2^53")
        self.position += len(text)
        return int(text)

    def deeper(self, depth: int) -> int:
        if depth == MAX_DEPTH:
            raise self.error("nested too deeply", expected=f"at most {MAX_DEPTH} levels")
        return depth + 1

    def separator(self, close: str, count: int) -> bool:
        """Behind an element: moves over a comma; True at the closing bracket, which is consumed."""
        self.skip()
        if self.peek() == ",":
            self.position += 1
            self.skip()
        elif self.peek() != close:
            raise self.error(self.found(), expected=f"',' or '{close}'", hint=self.rules_hint() if self.peek() else "")
        if self.peek() == close:
            self.position += 1
            return True
        if count == MAX_LIST:
            raise self.error("too many elements", expected=f"at most {MAX_LIST}")
        return False

    def array(self, depth: int) -> Array:
        inner = self.deeper(depth)
        array = Array()
        self.position += 1
        self.skip()
        if self.peek() == "]":
            self.position += 1
            return array
        while True:
            array.offsets.append(self.position)
            array.append(self.value(inner))
            if self.separator("]", len(array)):
                return array

    def object(self, depth: int) -> Object:
        inner = self.deeper(depth)
        result = Object()
        self.position += 1
        self.skip()
        if self.peek() == "}":
            self.position += 1
            return result
        while True:
            key_offset = self.position
            if self.peek() != '"':
                raise self.error(self.found(), expected="a member name in double quotes", hint=self.rules_hint())
            key = self.string()
            if key in result:
                raise self.error(f"member {key[:80]!r} is given twice", at=key_offset)
            self.skip()
            if self.peek() != ":":
                raise self.error(self.found(), expected="':'", hint=self.rules_hint())
            self.position += 1
            self.skip()
            result.offsets[key] = self.position
            result[key] = self.value(inner)
            if self.separator("}", len(result)):
                return result
