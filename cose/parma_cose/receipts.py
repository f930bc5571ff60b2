# SPDX-License-Identifier: Apache-2.0
"""Transparency receipts: a ledger's signed statement that it has registered an envelope.

Sources: RFC 9942 (COSE receipts), draft-ietf-scitt-receipts-ccf-profile (the Merkle tree of the Confidential Consortium
Framework, verifiable data structure 2). A receipt is itself a COSE_Sign1 envelope, whose detached payload is the root
of the tree that the proof in it leads to.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from parma_cose import algorithms, cbor, headers, sign1
from parma_cose.cbor import Value
from parma_cose.errors import CoseError
from parma_cose.keys import KeySet
from parma_cose.sign1 import Sign1

MAX_RECEIPT: Final = 64 * 1024
MAX_PATH: Final = 64
"""Steps from a leaf to the root: a tree of more entries does not exist."""
MAX_PROOFS: Final = 8
MAX_EVIDENCE: Final = 1024
_CCF: Final = 2
_INCLUSION_PROOFS: Final = -1
_LEAF, _PATH = 1, 2
_HASH_SIZE: Final = 32


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """One leaf of the tree, and the way from it to the root."""

    transaction_hash: bytes
    evidence: str
    data_hash: bytes
    """SHA-256 of what was registered."""
    path: tuple[tuple[bool, bytes], ...]
    """For each step: whether the other node is the left one, and its hash."""

    def root(self) -> bytes:
        """The tree's root, if the proof is right."""
        node = _sha256(self.transaction_hash, _sha256(self.evidence.encode()), self.data_hash)
        for left, other in self.path:
            node = _sha256(other, node) if left else _sha256(node, other)
        return node


@dataclass(frozen=True, slots=True)
class Receipt:
    """A parsed receipt. Nothing of it is verified before :meth:`verify`."""

    ledger: str
    """The name of the ledger that the receipt claims to be of."""
    key_id: bytes
    envelope: Sign1
    proofs: tuple[InclusionProof, ...]

    @classmethod
    def parse(cls, data: bytes) -> Receipt:
        """A receipt from untrusted bytes. Raises CoseError ``receipt``."""
        try:
            return cls._parse(data)
        except CoseError as error:
            raise CoseError("receipt", f"malformed receipt: {error.message}", expected=error.expected) from None

    @classmethod
    def _parse(cls, data: bytes) -> Receipt:
        envelope = sign1.parse(data, limit=MAX_RECEIPT)
        found = envelope.headers
        if found.verifiable_data_structure != _CCF:
            raise CoseError("receipt", "the kind of ledger is not supported", expected=f"{_CCF} (CCF)")
        if found.issuer is None or found.key_id is None or envelope.payload is not None:
            raise CoseError("receipt", "ledger or key are not named, or the root is not detached")
        return cls(found.issuer, found.key_id, envelope, _proofs(envelope.unprotected.get(headers.VDP)))

    def verify(self, registered: bytes, keys: KeySet) -> None:
        """Checks the receipt of an envelope (:meth:`Sign1.without_unprotected`) with the ledger's keys.

        Raises CoseError ``receipt`` where it is for another envelope, by an unknown key, or wrong.
        """
        key = keys.get(self.key_id)
        if key is None:
            raise CoseError("receipt", "the receipt is signed with a key that is not known for its ledger")
        if any(proof.data_hash != _sha256(registered) for proof in self.proofs):
            raise CoseError("receipt", "the receipt is for another envelope")
        try:
            algorithm = algorithms.check_fit(self.envelope.headers.algorithm, key)
            for proof in self.proofs:
                message = self.envelope.to_be_signed(detached=proof.root())
                algorithms.verify(algorithm, key, self.envelope.signature, message)
        except CoseError as error:
            raise CoseError("receipt", f"the receipt of {self.ledger[:80]}: {error.message}") from None


def _proofs(value: Value) -> tuple[InclusionProof, ...]:
    proofs = value.get(_INCLUSION_PROOFS) if isinstance(value, dict) else None
    if not isinstance(proofs, list) or not 0 < len(proofs) <= MAX_PROOFS:
        raise CoseError("receipt", "no inclusion proof", expected=f"1 to {MAX_PROOFS}")
    return tuple(_proof(item) for item in proofs)


def _proof(value: Value) -> InclusionProof:
    members = cbor.decode(value, limit=MAX_RECEIPT) if isinstance(value, bytes) else None
    if isinstance(members, dict) and members.keys() == {_LEAF, _PATH}:
        match members[_LEAF], members[_PATH]:
            case [bytes(transaction), str(evidence), bytes(data)], list(path):
                sizes = {len(transaction), len(data)}
                if sizes == {_HASH_SIZE} and len(evidence) <= MAX_EVIDENCE and len(path) <= MAX_PATH:
                    return InclusionProof(transaction, evidence, data, tuple(map(_step, path)))
    raise CoseError("receipt", "an inclusion proof is malformed")


def _step(value: Value) -> tuple[bool, bytes]:
    match value:
        case [bool(left), bytes(node)] if len(node) == _HASH_SIZE:
            return left, node
    raise CoseError("receipt", "a step of an inclusion proof is malformed")


def _sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()
