# SPDX-License-Identifier: Apache-2.0
"""Signed documents that extend a policy, from two annotations; both may be given, and the first one's come first.

``io.parma.fragments``       base64 of an envelope, or a JSON list of such
``io.parma.fragment-files``  a file in, or below, a directory that the host's configuration allows, or a JSON list

An element of a list is a string, a fragment, or ``{"trust-list": STRING}``, a transparency trust list. They are handed
to the guest in the order given. Whether they are genuine, and whether the policy wants them, is for the guest to say.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from parma_shim.host_files import Place
from parma_wire.errors import Denied, Malformed
from parma_wire.limits import MAX_DOCUMENT_BYTES, MAX_DOCUMENTS

ANNOTATION: Final = "io.parma.fragments"
FILE_ANNOTATION: Final = "io.parma.fragment-files"

MAX_ALL_BYTES: Final = 8 * 1024 * 1024
"""Of all documents of one container."""
_TRUST_LIST: Final = "trust-list"


class SignedDocument(NamedTuple):
    """An envelope, and what it is given as."""

    data: bytes
    is_trust_list: bool = False


def documents_from_annotations(
    annotations: Mapping[str, str], fragment_dirs: Sequence[Path]
) -> tuple[SignedDocument, ...]:
    """The documents in their order; none without annotations.

    Raises Malformed for annotations that make no sense, Denied for too many or too large documents or a file outside
    ``fragment_dirs``, NotFound or Unavailable for one that cannot be read.
    """
    place = Place("fragment file", "fragment_dirs", fragment_dirs, MAX_DOCUMENT_BYTES)
    found = [*_listed(annotations, ANNOTATION, _decode), *_listed(annotations, FILE_ANNOTATION, place.read)]
    if len(found) > MAX_DOCUMENTS:
        raise Denied("too many signed documents", expected=f"at most {MAX_DOCUMENTS}")
    if sum(len(document.data) for document in found) > MAX_ALL_BYTES:
        raise Denied("the signed documents are too large", expected=f"at most {MAX_ALL_BYTES} bytes in all")
    return tuple(found)


def _listed(annotations: Mapping[str, str], name: str, fetch: Callable[[str], bytes]) -> list[SignedDocument]:
    if name not in annotations:
        return []
    # A bound before any work: base64 takes four characters for three bytes.
    if len(annotations[name]) > 2 * MAX_ALL_BYTES:
        raise Denied(f"{name} is too large")
    elements = _elements(name, annotations[name])
    if len(elements) > MAX_DOCUMENTS:
        raise Denied(f"{name} has too many elements", expected=f"at most {MAX_DOCUMENTS}")
    documents = []
    for element in elements:
        is_trust_list = isinstance(element, dict) and element.keys() == {_TRUST_LIST}
        text = element[_TRUST_LIST] if isinstance(element, dict) and is_trust_list else element
        if not isinstance(text, str):
            raise Malformed(f"an element of {name} is malformed", expected=f'a string, or {{"{_TRUST_LIST}": STRING}}')
        documents.append(SignedDocument(fetch(text), is_trust_list))
    return documents


def _elements(name: str, text: str) -> list[object]:
    if not text.startswith("["):
        return [text]
    try:
        elements = json.loads(text)
    except (ValueError, RecursionError):
        elements = None
    if not isinstance(elements, list):
        raise Malformed(f"{name} is not a JSON list")
    return elements


def _decode(text: str) -> bytes:
    try:
        data = binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except (UnicodeEncodeError, binascii.Error):
        raise Malformed(f"an element of {ANNOTATION} is not base64") from None
    if len(data) > MAX_DOCUMENT_BYTES:
        raise Denied("a signed document is too large", expected=f"at most {MAX_DOCUMENT_BYTES} bytes")
    return data
