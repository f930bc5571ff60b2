# SPDX-License-Identifier: Apache-2.0
"""What a signed document says, for people and programs; and whether it would be accepted, decided as a guest does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from parma_cose import algorithms, certificates, sign1
from parma_cose.chain import name
from parma_cose.did import fingerprint
from parma_cose.errors import CoseError
from parma_cose.keys import TRUST_LIST_TYPE
from parma_cose.keys import read_trust_list as read_ledgers
from parma_cose.receipts import Receipt
from parma_cose.sign1 import Sign1
from parma_policy.framework import Decision, State, decide
from parma_policy.model import Policy
from parma_policy.reader import load
from parma_policy.reader.fragment import fragment_package
from parma_policy.reader.lists import LISTS
from parma_policy.signed.authoring import check_fragment
from parma_policy.signed.envelopes import parma_errors, read_fragment, read_trust_list, verify_document
from parma_policy.signed.ledgers import NO_LEDGERS
from parma_policy.versions import API_VERSION, FRAMEWORK_VERSION
from parma_wire.errors import Denied, ParmaError
from parma_wire.limits import MAX_DOCUMENT_BYTES


@dataclass(frozen=True)
class Wanted:
    """What a document is checked for without a policy at hand. None: as the document says."""

    issuer: str | None = None
    feed: str | None = None
    minimum_svn: int | str | None = None


def describe(data: bytes, *, at: datetime | None = None) -> dict[str, Any]:
    """What an envelope says, whether or not it is genuine: ``verified`` and ``problem`` say that.

    Raises Malformed for what is not even an envelope.
    """
    with parma_errors("the signed document"):
        envelope = sign1.parse(data, limit=MAX_DOCUMENT_BYTES)
        headers = envelope.headers
        algorithm = algorithms.BY_NUMBER.get(headers.algorithm)
        found: dict[str, Any] = {
            "kind": "trust-list" if headers.content_type == TRUST_LIST_TYPE else "fragment",
            "verified": False,
            "problem": "",
            "issuer": headers.issuer,
            "feed": headers.feed,
            "svn": headers.svn,
            "content_type": headers.content_type,
            "algorithm": algorithm.name if algorithm else headers.algorithm,
            "signing_time": headers.signing_time.isoformat() if headers.signing_time else None,
            "certificates": [_certificate(der) for der in headers.chain],
            "receipts": [Receipt.parse(receipt).ledger for receipt in envelope.unverified_receipts],
        }
    try:
        verify_document(data, at=at)
        found["verified"] = True
        found |= _payload(envelope, found["kind"])
    except ParmaError as error:
        found["problem"] = str(error)
    return found


def _certificate(der: bytes) -> dict[str, str]:
    try:
        certificate = certificates.load(der)
    except CoseError as error:
        return {"problem": error.message}
    return {
        "subject": name(certificate),
        "sha256": fingerprint(certificate),
        "not_before": certificate.not_valid_before_utc.isoformat(),
        "not_after": certificate.not_valid_after_utc.isoformat(),
    }


def _payload(envelope: Sign1, kind: str) -> dict[str, Any]:
    """Read only once the signature is verified."""
    payload = envelope.payload or b""
    if kind == "trust-list":
        with parma_errors("the transparency trust list"):
            return {"ledgers": {ledger: len(keys) for ledger, keys in read_ledgers(payload).items()}}
    text = check_fragment(payload)
    return {
        "package": fragment_package(payload.decode()),
        "framework_version": str(text.framework.version),
        "text_svn": None if not text.has_svn else text.svn if isinstance(text.svn, int) else str(text.svn),
        "lists": {
            name: len(statement.value)
            for name, statement in text.document.statements.items()
            if name in LISTS and isinstance(statement.value, list)
        },
    }


def judge(
    data: bytes, policy: Policy, trust_lists: Sequence[bytes] = (), *, at: datetime | None = None
) -> tuple[Decision, State]:
    """What a guest with this policy answers to the trust lists, in order, and then to the fragment.

    Raises Malformed or Unverified for a document that is not genuine, Denied for a trust list that is not wanted.
    """
    state, ledgers = State.initial(), NO_LEDGERS
    for offered in (read_trust_list(document, at=at) for document in trust_lists):
        decision, state = decide(policy, state, "load_transparency_trust_list", offered.request)
        if not decision.allowed:
            raise Denied(decision.message())
        ledgers = offered.accepted(ledgers, decision.allowed_ledgers or ())
    return decide(policy, state, "load_fragment", read_fragment(data, ledgers, at=at))


def policy_wanting(data: bytes, wanted: Wanted) -> Policy:
    """A policy that accepts a fragment by these terms and nothing else."""
    request = read_fragment(data)
    text = check_fragment(request.rego.encode())
    own = text.svn if text.has_svn else request.header_svn
    minimum = wanted.minimum_svn if wanted.minimum_svn is not None else own
    rule = {
        "issuer": wanted.issuer if wanted.issuer is not None else request.issuer,
        "feed": wanted.feed if wanted.feed is not None else request.feed,
        "minimum_svn": minimum if isinstance(minimum, int) else str(minimum),
        "includes": list(LISTS),
    }
    lines = (
        "package policy",
        f'api_version := "{API_VERSION}"',
        f'framework_version := "{FRAMEWORK_VERSION}"',
        f"fragments := [{json.dumps(rule)}]",
        "load_fragment := data.framework.load_fragment",
    )
    return load("\n".join((*lines, "")).encode())
