# SPDX-License-Identifier: Apache-2.0
"""Public keys of transparency ledgers: COSE_Key and COSE_KeySet (RFC 9052, section 7), and trust lists of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from parma_cose import cbor
from parma_cose.cbor import Value
from parma_cose.errors import CoseError

TRUST_LIST_TYPE: Final = "application/vnd.transparency-trust-list.v1+cose"
"""Content type of a signed trust list."""
MAX_TRUST_LIST: Final = 1024 * 1024
MAX_LEDGERS: Final = 256
MAX_KEYS: Final = 256
"""Keys of one ledger."""
MAX_KEY_ID: Final = 256

KeySet: TypeAlias = Mapping[bytes, ec.EllipticCurvePublicKey]
"""Keys by their key id."""

_KTY, _KID, _CRV, _X, _Y = 1, 2, -1, -2, -3
_EC2: Final = 2
_KEYS_OF_LEDGER: Final = 1
_CURVES: Final[dict[int, ec.EllipticCurve]] = {1: ec.SECP256R1(), 2: ec.SECP384R1(), 3: ec.SECP521R1()}


def read_trust_list(payload: bytes) -> dict[str, KeySet]:
    """Keys by ledger, from the payload of a trust list whose envelope was verified.

    A map from a ledger's name to a map with the key set under 1, or to the key set itself. Raises CoseError ``format``.
    """
    document = cbor.decode(payload, limit=MAX_TRUST_LIST)
    if not isinstance(document, dict) or not 0 < len(document) <= MAX_LEDGERS:
        raise CoseError("format", "not a transparency trust list", expected=f"a map of 1 to {MAX_LEDGERS} ledgers")
    found: dict[str, KeySet] = {}
    for ledger, value in document.items():
        if not isinstance(ledger, str) or not ledger:
            raise CoseError("format", "a ledger of the trust list has no name")
        if isinstance(value, dict) and value.keys() == {_KEYS_OF_LEDGER}:
            value = value[_KEYS_OF_LEDGER]
        found[ledger] = _key_set(value)
    return found


def same_key(one: ec.EllipticCurvePublicKey, other: ec.EllipticCurvePublicKey) -> bool:
    """Whether two keys are the same point of the same curve."""
    return to_der(one) == to_der(other)


def to_der(key: ec.EllipticCurvePublicKey) -> bytes:
    """A key as SubjectPublicKeyInfo."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _key_set(value: Value) -> KeySet:
    """Keys of kinds that are not known are left out, as section 7 demands: then nothing they sign can be verified."""
    if not isinstance(value, list) or not 0 < len(value) <= MAX_KEYS:
        raise CoseError("format", "not a COSE key set", expected=f"a list of 1 to {MAX_KEYS} keys")
    found: dict[bytes, ec.EllipticCurvePublicKey] = {}
    for item in value:
        if not isinstance(item, dict):
            raise CoseError("format", "a COSE key is no map")
        curve = item.get(_CRV)
        if item.get(_KTY) != _EC2 or not isinstance(curve, int) or curve not in _CURVES:
            continue
        key_id = item.get(_KID)
        if not isinstance(key_id, bytes) or not 0 < len(key_id) <= MAX_KEY_ID or key_id in found:
            raise CoseError("format", "a COSE key's id is missing, too long, or there twice")
        found[key_id] = _point(_CURVES[curve], item.get(_X), item.get(_Y))
    return found


def _point(curve: ec.EllipticCurve, x: Value, y: Value) -> ec.EllipticCurvePublicKey:
    size = (curve.key_size + 7) // 8
    if not isinstance(x, bytes) or not isinstance(y, bytes) or len(x) != size or len(y) != size:
        raise CoseError("format", "a COSE key's coordinates have the wrong type or size")
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(curve, b"\x04" + x + y)
    except ValueError:
        raise CoseError("format", "a COSE key is no point of its curve") from None
