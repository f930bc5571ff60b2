# SPDX-License-Identifier: Apache-2.0
"""Signed documents: CBOR, envelope, chain, issuer, receipts, trust lists, as a guest takes them from its host."""

from __future__ import annotations

import contextlib

from parma_cose import cbor, did, sign1
from parma_cose.errors import CoseError
from parma_cose.keys import TRUST_LIST_TYPE
from parma_cose.keys import read_trust_list as read_ledgers
from parma_cose.receipts import Receipt
from parma_cose.signing import Document, sign
from parma_policy.signed.envelopes import read_fragment, read_trust_list
from parma_policy.signed.ledgers import NO_LEDGERS
from parma_wire.errors import Malformed, Unverified
from tests.cose.chains import EKU, NOW, Ledger, shared_authority, trust_list, with_receipts

_LEDGER = Ledger.make()
_SIGNER = shared_authority().signer
_ISSUER = did.derive(_SIGNER.chain, f"eku:{EKU}")
_LIST = sign(Document(trust_list(_LEDGER), _ISSUER, "lists", TRUST_LIST_TYPE, 1, NOW), _SIGNER)
_FRAGMENT = sign(Document(b"package p\n", _ISSUER, "feed", "application/unknown+rego", 1, NOW), _SIGNER)
_TRUSTED = read_trust_list(_LIST).accepted(NO_LEDGERS, (_LEDGER.name,))

SEEDS = [
    _FRAGMENT,
    _LIST,
    with_receipts(_FRAGMENT, _LEDGER.receipt(_FRAGMENT)),
    _LEDGER.receipt(_FRAGMENT),
    trust_list(_LEDGER),
    _SIGNER.ders[0],
    _ISSUER.encode(),
]


def target(data: bytes) -> None:
    """Nothing but the documented errors; what is accepted has the payload that was signed."""
    with contextlib.suppress(Malformed, Unverified):
        assert read_fragment(data, _TRUSTED).rego == "package p\n"
    with contextlib.suppress(Malformed, Unverified):
        assert read_trust_list(data).request.ledgers == (_LEDGER.name,)
    for read in (sign1.parse, Receipt.parse, read_ledgers, _certificate, _did):
        with contextlib.suppress(CoseError):
            read(data)
    with contextlib.suppress(CoseError):
        value = cbor.decode(data, limit=1 << 16)
        assert cbor.decode(cbor.encode(value), limit=1 << 16) == value


def _certificate(data: bytes) -> None:
    """A chain whose leaf is the input: every extension of it is looked at."""
    from parma_cose.chain import verify_chain

    chain = verify_chain([data, *_SIGNER.ders[1:]])
    did.DidX509.parse(_ISSUER).check(chain)


def _did(data: bytes) -> None:
    did.DidX509.parse(data.decode("utf-8", "replace")).check(_SIGNER.chain)
