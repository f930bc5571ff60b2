# SPDX-License-Identifier: Apache-2.0
"""Signed documents from annotations: their order, their kinds, their limits, and files only where they may be."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from parma_shim.document_source import (
    ANNOTATION,
    FILE_ANNOTATION,
    MAX_ALL_BYTES,
    SignedDocument,
    documents_from_annotations,
)
from parma_wire.errors import Denied, Malformed, NotFound
from parma_wire.limits import MAX_DOCUMENT_BYTES, MAX_DOCUMENTS


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def inline(text: str) -> tuple[SignedDocument, ...]:
    return documents_from_annotations({ANNOTATION: text}, ())


def test_without_annotations_there_are_none() -> None:
    assert documents_from_annotations({"io.parma.policy": "x"}, ()) == ()


def test_one_or_many_in_their_order() -> None:
    assert inline(encoded(b"a")) == (SignedDocument(b"a"),)
    listed = [encoded(b"a"), {"trust-list": encoded(b"b")}, encoded(b"c")]
    assert inline(json.dumps(listed)) == (SignedDocument(b"a"), SignedDocument(b"b", True), SignedDocument(b"c"))


def test_files_follow_what_is_inline(tmp_path: Path) -> None:
    (tmp_path / "f.cose").write_bytes(b"file")
    one = {ANNOTATION: encoded(b"a"), FILE_ANNOTATION: str(tmp_path / "f.cose")}
    assert [document.data for document in documents_from_annotations(one, (tmp_path,))] == [b"a", b"file"]
    listed = {FILE_ANNOTATION: json.dumps([{"trust-list": str(tmp_path / "f.cose")}])}
    assert documents_from_annotations(listed, (tmp_path,)) == (SignedDocument(b"file", True),)


def test_files_elsewhere_are_denied(tmp_path: Path) -> None:
    (tmp_path / "allowed").mkdir()
    (tmp_path / "f.cose").write_bytes(b"file")
    (tmp_path / "allowed/link").symlink_to(tmp_path / "f.cose")
    for name in ("f.cose", "allowed/link", "allowed/../f.cose"):
        with pytest.raises(Denied, match="fragment_dirs"):
            documents_from_annotations({FILE_ANNOTATION: str(tmp_path / name)}, (tmp_path / "allowed",))
    with pytest.raises(NotFound, match="fragment file"):
        documents_from_annotations({FILE_ANNOTATION: str(tmp_path / "none")}, (tmp_path,))


@pytest.mark.parametrize(
    "text",
    [
        "%%%",
        "ä",
        '["%%%"]',
        "[1]",
        "[",
        '[{"other": ""}]',
        '[{"trust-list": 1}]',
        '[{"trust-list": "", "x": ""}]',
        "[[]]",
    ],
)
def test_what_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(Malformed, match=ANNOTATION):
        inline(text)


def test_size_and_number_are_limited() -> None:
    assert inline(encoded(bytes(MAX_DOCUMENT_BYTES)))
    with pytest.raises(Denied, match="too large"):
        inline(encoded(bytes(MAX_DOCUMENT_BYTES + 1)))
    with pytest.raises(Denied, match="in all"):
        inline(json.dumps([encoded(bytes(MAX_DOCUMENT_BYTES))] * (MAX_ALL_BYTES // MAX_DOCUMENT_BYTES + 1)))
    with pytest.raises(Denied, match="too large"):
        inline("A" * (2 * MAX_ALL_BYTES + 1))
    with pytest.raises(Denied, match="too many"):
        inline(json.dumps(["AAAA"] * (MAX_DOCUMENTS + 1)))
    with pytest.raises(Malformed):
        inline("[" * 100_000)
