# SPDX-License-Identifier: Apache-2.0
"""JSON objects from outside: size-limited, UTF-8, no duplicate keys, no unknown keys, typed access.

RFC 8259 leaves the meaning of duplicate keys open; two readers that differ there can be shown different documents.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Collection
from typing import NoReturn

from parma_snp.errors import SnpError


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key appears twice")
    return document


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


class Object:
    """One JSON object; ``code`` is that of the SnpError raised for anything wrong with it."""

    def __init__(self, fields: dict[str, object], code: str) -> None:
        self.fields = fields
        self.code = code

    @classmethod
    def parse(cls, data: bytes, *, code: str, limit: int) -> Object:
        """Read one object of at most ``limit`` bytes. Raises SnpError ``code``."""
        if len(data) > limit:
            raise SnpError(code, "the document is too large", expected=f"at most {limit} bytes", found=str(len(data)))
        try:
            document = json.loads(data.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise SnpError(code, f"not a JSON document: {error}") from None
        if not isinstance(document, dict):
            raise SnpError(code, "not a JSON object")
        return cls(document, code)

    def require_keys(self, required: Collection[str], optional: Collection[str] = ()) -> None:
        """Refuse missing and unknown keys."""
        missing = sorted(set(required) - set(self.fields))
        unknown = sorted(set(self.fields) - set(required) - set(optional))
        if missing or unknown:
            found = [f"no {key}" for key in missing] + [f"unknown {key!r}" for key in unknown]
            raise SnpError(self.code, "wrong keys", expected=", ".join(required), found=", ".join(found))

    def text(self, key: str) -> str:
        value = self.fields.get(key)
        if not isinstance(value, str):
            raise SnpError(self.code, f"{key} is not a string")
        return value

    def optional_text(self, key: str) -> str | None:
        return None if self.fields.get(key) is None else self.text(key)

    def one_of(self, key: str, choices: Collection[str]) -> str:
        value = self.text(key)
        if value not in choices:
            raise SnpError(self.code, f"unknown {key}", expected=" or ".join(choices), found=value[:64])
        return value

    def boolean(self, key: str) -> bool:
        value = self.fields.get(key)
        if not isinstance(value, bool):
            raise SnpError(self.code, f"{key} is not true or false")
        return value

    def number(self, key: str) -> int:
        value = self.fields.get(key)
        if isinstance(value, bool) or not isinstance(value, int):
            raise SnpError(self.code, f"{key} is not a whole number")
        return value

    def base64(self, key: str) -> bytes:
        """Standard alphabet with padding, nothing else in between."""
        try:
            return base64.b64decode(self.text(key), validate=True)
        except (binascii.Error, ValueError) as error:
            raise SnpError(self.code, f"{key} is not base64: {error}") from None

    def hex(self, key: str) -> bytes:
        """Lower-case hex without spaces."""
        value = self.text(key)
        if len(value) % 2 or not set(value) <= set("0123456789abcdef"):
            raise SnpError(self.code, f"{key} is not lower-case hex")
        return bytes.fromhex(value)

    def objects(self, key: str) -> list[Object]:
        """An array of objects."""
        value = self.fields.get(key)
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise SnpError(self.code, f"{key} is not an array of objects")
        return [Object(item, self.code) for item in value]

    def texts(self, key: str) -> tuple[str, ...]:
        """An array of strings."""
        value = self.fields.get(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise SnpError(self.code, f"{key} is not an array of strings")
        return tuple(value)
