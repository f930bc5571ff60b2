# SPDX-License-Identifier: Apache-2.0
"""Names of images: what ``nginx`` stands for, and the other ways to write it.

The rules are those that Docker's and containerd's clients share: no host means ``docker.io``, no folder there means
``library``, no tag and no digest mean ``latest``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from parma_wire.errors import Malformed

_DEFAULT_HOST: Final = "docker.io"
_DEFAULT_FOLDER: Final = "library/"
_PATH: Final = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*", re.ASCII)
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST: Final = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:]+\])(?::[0-9]{{1,5}})?", re.ASCII)
_TAG: Final = re.compile(r"[\w][\w.-]{0,127}", re.ASCII)
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Reference:
    """A full name. At least one of tag and digest is set."""

    host: str
    path: str
    tag: str
    digest: str

    @classmethod
    def parse(cls, text: str) -> Reference:
        """The image that ``text`` names. Raises Malformed."""
        name, at, digest = text.partition("@")
        rest, colon, tag = name.rpartition(":")
        if not colon or "/" in tag:
            rest, tag = name, ""
        first, slash, path = rest.partition("/")
        is_host = slash and ("." in first or ":" in first or first == "localhost" or first != first.lower())
        host, path = (first, path) if is_host else (_DEFAULT_HOST, rest)
        if host == "index.docker.io":
            host = _DEFAULT_HOST
        if host == _DEFAULT_HOST and "/" not in path:
            path = _DEFAULT_FOLDER + path
        has_tag = bool(colon) and rest != name
        good = _HOST.fullmatch(host) and _PATH.fullmatch(path) and (not has_tag or _TAG.fullmatch(tag))
        if not good or (at and not _DIGEST.fullmatch(digest)) or len(text) > 512:
            expected = "for example nginx, example.org/team/app:1.2 or app@sha256:..."
            raise Malformed(f"{text[:120]!r} is not the name of an image", expected=expected)
        return cls(host, path, tag or ("" if digest else "latest"), digest)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.host}/{self.path}{tag}" + (f"@{self.digest}" if self.digest else "")

    def spellings(self) -> tuple[str, ...]:
        """Every way in which a store may call it, the full one first."""
        paths = [f"{self.host}/{self.path}"]
        if self.host == _DEFAULT_HOST:
            paths.append(self.path)
            if self.path.startswith(_DEFAULT_FOLDER):
                paths += [self.path.removeprefix(_DEFAULT_FOLDER), f"{self.host}/{self.path[len(_DEFAULT_FOLDER) :]}"]
        endings = []
        if self.tag and self.digest:
            endings.append(f":{self.tag}@{self.digest}")
        if self.digest:
            endings.append(f"@{self.digest}")
        if self.tag:
            endings.append(f":{self.tag}")
        return tuple(path + ending for ending in endings for path in paths)
