# SPDX-License-Identifier: Apache-2.0
"""ID block and ID authentication information: whose image this is, checked by the firmware at launch.

Source: AMD publication 56860, tables "ID Block" and "ID Authentication Information". Whoever launches chooses the
block: what it says means nothing to a relying party that does not pin the ID key's digest.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from parma_snp.errors import SnpError
from parma_snp.launch import DEFAULT_POLICY, ID_AUTH_SIZE, ID_BLOCK_SIZE, IdBlock
from parma_snp.report import COMPONENT_SIZE, MEASUREMENT_SIZE

_BLOCK: Final = struct.Struct("<48s16s16sIIQ")
_VERSION: Final = 1
_ECDSA_P384_SHA384: Final = 1
_CURVE_P384: Final = 2
_KEY_SIZE: Final = 1028
_SIGNATURE_SIZE: Final = 512
# Offsets in the ID authentication information.
_BLOCK_SIGNATURE: Final = 0x40
_ID_KEY: Final = 0x240
_KEY_SIGNATURE: Final = 0x680
_AUTHOR_KEY: Final = 0x880
_CODE: Final = "idblock.format"


@dataclass(frozen=True)
class Identity:
    """The content of an ID block: expected measurement (48 bytes), names (16 bytes each), version of the guest."""

    measurement: bytes
    family_id: bytes = bytes(16)
    image_id: bytes = bytes(16)
    guest_svn: int = 0
    policy: int = DEFAULT_POLICY


@dataclass(frozen=True)
class Checked:
    """What a good ID block says, and the key digests (48 bytes) as they will stand in the report."""

    identity: Identity
    id_key_digest: bytes
    author_key_digest: bytes


def _encode_key(key: ec.EllipticCurvePublicKey) -> bytes:
    numbers = key.public_numbers()
    x, y = numbers.x.to_bytes(COMPONENT_SIZE, "little"), numbers.y.to_bytes(COMPONENT_SIZE, "little")
    return (struct.pack("<I", _CURVE_P384) + x + y).ljust(_KEY_SIZE, b"\0")


def _decode_key(data: bytes, what: str) -> ec.EllipticCurvePublicKey:
    curve: int = struct.unpack_from("<I", data)[0]
    x = int.from_bytes(data[4 : 4 + COMPONENT_SIZE], "little")
    y = int.from_bytes(data[4 + COMPONENT_SIZE : 4 + 2 * COMPONENT_SIZE], "little")
    if curve != _CURVE_P384 or any(data[4 + 2 * COMPONENT_SIZE :]):
        raise SnpError(_CODE, f"the {what} is not a P-384 key", found=f"curve {curve}")
    try:
        return ec.EllipticCurvePublicNumbers(x, y, ec.SECP384R1()).public_key()
    except ValueError as error:
        raise SnpError(_CODE, f"the {what} is not a P-384 key: {error}") from None


def require_p384(key: object) -> ec.EllipticCurvePrivateKey:
    """The key, if it is one that can sign ID blocks. Raises SnpError ``idblock.key``."""
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        hint = "openssl ecparam -genkey -noout -name secp384r1"
        raise SnpError("idblock.key", "not a P-384 private key", hint=hint)
    return key


def key_digest(key: ec.EllipticCurvePublicKey) -> bytes:
    """ID_KEY_DIGEST or AUTHOR_KEY_DIGEST of a report: SHA-384 of the key structure."""
    return hashlib.sha384(_encode_key(key)).digest()


def _sign(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA384())))
    pair = r.to_bytes(COMPONENT_SIZE, "little") + s.to_bytes(COMPONENT_SIZE, "little")
    return pair.ljust(_SIGNATURE_SIZE, b"\0")


def _check(key: ec.EllipticCurvePublicKey, signature: bytes, data: bytes, what: str) -> None:
    if any(signature[2 * COMPONENT_SIZE :]):
        raise SnpError(_CODE, f"reserved bytes after the signature of the {what} are set", expected="0")
    r = int.from_bytes(signature[:COMPONENT_SIZE], "little")
    s = int.from_bytes(signature[COMPONENT_SIZE : 2 * COMPONENT_SIZE], "little")
    try:
        key.verify(encode_dss_signature(r, s), data, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        hint = "the firmware would answer BAD_SIGNATURE"
        raise SnpError("idblock.signature", f"the signature of the {what} is wrong", hint=hint) from None


def make(
    identity: Identity, id_key: ec.EllipticCurvePrivateKey, author_key: ec.EllipticCurvePrivateKey | None = None
) -> IdBlock:
    """Sign an identity with a P-384 ID key, which an author key may certify.

    Raises SnpError ``idblock.format`` or ``idblock.key``.
    """
    for key in (id_key, author_key):
        if key is not None:
            require_p384(key)
    if not 0 <= identity.guest_svn < 1 << 32 or not 0 <= identity.policy < 1 << 64:
        raise SnpError(_CODE, "guest SVN or guest policy out of range", expected="32 and 64 bits")
    if len(identity.measurement) != MEASUREMENT_SIZE or len(identity.family_id) != 16 or len(identity.image_id) != 16:
        raise SnpError(_CODE, "a field has another size", expected="measurement 48, family and image id 16 bytes")
    block = _BLOCK.pack(
        identity.measurement, identity.family_id, identity.image_id, _VERSION, identity.guest_svn, identity.policy
    )
    auth = bytearray(ID_AUTH_SIZE)
    struct.pack_into("<II", auth, 0, _ECDSA_P384_SHA384, _ECDSA_P384_SHA384)
    auth[_BLOCK_SIGNATURE : _BLOCK_SIGNATURE + _SIGNATURE_SIZE] = _sign(id_key, block)
    public = _encode_key(id_key.public_key())
    auth[_ID_KEY : _ID_KEY + _KEY_SIZE] = public
    if author_key is not None:
        auth[_KEY_SIGNATURE : _KEY_SIGNATURE + _SIGNATURE_SIZE] = _sign(author_key, public)
        auth[_AUTHOR_KEY : _AUTHOR_KEY + _KEY_SIZE] = _encode_key(author_key.public_key())
    return IdBlock(block, bytes(auth), author_key is not None)


def check(signed: IdBlock) -> Checked:
    """Do what the firmware does with an ID block. Raises SnpError ``idblock.format`` or ``idblock.signature``."""
    if len(signed.block) != ID_BLOCK_SIZE or len(signed.auth) != ID_AUTH_SIZE:
        raise SnpError(_CODE, "wrong size")
    measurement, family_id, image_id, version, guest_svn, policy = _BLOCK.unpack(signed.block)
    # The author key's algorithm matters only where there is an author key.
    algorithms = set(struct.unpack_from("<II", signed.auth, 0)[: 2 if signed.author_key else 1])
    if version != _VERSION or algorithms != {_ECDSA_P384_SHA384}:
        found = f"{version} and {', '.join(map(str, sorted(algorithms)))}"
        raise SnpError(_CODE, "unknown version or algorithm", expected="1 and 1", found=found)
    raw_key = signed.auth[_ID_KEY : _ID_KEY + _KEY_SIZE]
    id_key = _decode_key(raw_key, "ID key")
    _check(id_key, signed.auth[_BLOCK_SIGNATURE : _BLOCK_SIGNATURE + _SIGNATURE_SIZE], signed.block, "ID block")
    author_digest = bytes(48)
    if signed.author_key:
        raw_author = signed.auth[_AUTHOR_KEY : _AUTHOR_KEY + _KEY_SIZE]
        author = _decode_key(raw_author, "author key")
        _check(author, signed.auth[_KEY_SIGNATURE : _KEY_SIGNATURE + _SIGNATURE_SIZE], raw_key, "ID key")
        author_digest = hashlib.sha384(raw_author).digest()
    identity = Identity(measurement, family_id, image_id, guest_svn, policy)
    return Checked(identity, hashlib.sha384(raw_key).digest(), author_digest)
