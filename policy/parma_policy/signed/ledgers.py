# SPDX-License-Identifier: Apache-2.0
"""Transparency ledgers that are trusted so far: keys from trust lists that the policy accepted."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from parma_cose.errors import CoseError
from parma_cose.keys import KeySet, same_key
from parma_cose.receipts import Receipt as LedgerReceipt
from parma_cose.sign1 import Sign1
from parma_policy.requests import Receipt


@dataclass(frozen=True)
class LedgerKey:
    """A key of a ledger, and the subjects of the trust lists that named it."""

    key: ec.EllipticCurvePublicKey
    subjects: frozenset[str]


@dataclass(frozen=True)
class TrustedLedgers:
    """Keys by ledger and key id. Immutable, so that a request that fails leaves nothing behind."""

    keys: Mapping[tuple[str, bytes], LedgerKey] = field(default_factory=lambda: MappingProxyType({}))

    def merged(self, subject: str, offered: Mapping[str, KeySet], allowed: Collection[str]) -> TrustedLedgers:
        """With the keys that a trust list names for the ledgers that the policy allows it to name.

        Raises CoseError ``receipt`` where another list named another key by the same id: one of them is wrong.
        """
        keys = dict(self.keys)
        for ledger in allowed:
            for key_id, key in offered[ledger].items():
                known = keys.get((ledger, key_id))
                if known is not None and not same_key(known.key, key):
                    raise CoseError("receipt", f"two trust lists differ in a key of {ledger[:80]!r}")
                subjects = known.subjects if known else frozenset()
                keys[ledger, key_id] = LedgerKey(key, subjects | {subject})
        return TrustedLedgers(MappingProxyType(keys))

    def receipts(self, envelope: Sign1) -> tuple[Receipt, ...]:
        """The receipts of an envelope that count: each verified.

        A receipt of a ledger that no accepted trust list names does not count: it satisfies no rule of any policy. One
        of a ledger that is named must be right. Raises CoseError ``receipt``.
        """
        found: list[Receipt] = []
        for data in envelope.unverified_receipts:
            receipt = LedgerReceipt.parse(data)
            known = {key_id: entry for (ledger, key_id), entry in self.keys.items() if ledger == receipt.ledger}
            if not known:
                continue
            receipt.verify(envelope.without_unprotected(), {key_id: entry.key for key_id, entry in known.items()})
            found.append(Receipt(receipt.ledger, tuple(sorted(known[receipt.key_id].subjects))))
        return tuple(found)


NO_LEDGERS: Final = TrustedLedgers()
"""Before any trust list."""
