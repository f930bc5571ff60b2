# SPDX-License-Identifier: Apache-2.0
"""Trust anchors: AMD's roots by fingerprint, and, only when named explicitly, others.

There are two kinds that never mix. Real anchors accept certificates without the emulation marker, emulated anchors only
certificates with it. Names in certificates prove nothing; anyone can write "ARK-Milan".
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType
from typing import Final, Literal

from parma_snp.report import GENOA, MILAN, TURIN, Product

_AMD_ROOTS: Final[Mapping[str, Product]] = MappingProxyType(
    {
        "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd": MILAN,
        "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1": GENOA,
        "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a": TURIN,
    }
)


def fingerprint(der: bytes) -> str:
    """SHA-256 of a certificate's DER, lower-case hex."""
    return hashlib.sha256(der).hexdigest()


@dataclass(frozen=True)
class TrustAnchors:
    """Fingerprints (SHA-256 of DER) of accepted root certificates and the product each stands for."""

    roots: Mapping[str, Product]
    emulated: bool = False

    def product(self, root: bytes) -> Product | None:
        """The product a root certificate (DER) is the anchor of; None if it is not trusted."""
        return self.roots.get(fingerprint(root))


AMD: Final = TrustAnchors(_AMD_ROOTS)


def other_roots(roots: Mapping[Product, bytes]) -> TrustAnchors:
    """Anchors of a relying party's own choice (DER), to replay test vectors; the certificates must be unmarked."""
    return TrustAnchors(MappingProxyType({fingerprint(der): product for product, der in roots.items()}))


def emulated_root(root: bytes) -> TrustAnchors:
    """The root (DER) of one emulated secure processor. Verification will demand the emulation marker everywhere."""
    return TrustAnchors(MappingProxyType({fingerprint(root): MILAN}), emulated=True)


BundledKind = Literal["ark", "ask", "asvk"]


def bundled(kind: BundledKind, product: Product) -> bytes:
    """AMD's certificate (DER) as shipped with this package."""
    return resources.files("parma_snp").joinpath("data", f"{kind}_{product.lower()}.der").read_bytes()
