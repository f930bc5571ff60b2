# SPDX-License-Identifier: Apache-2.0
"""The one error of this package.

``code`` is stable and meant for programs:

* ``format``     not a well-formed envelope, certificate, key or receipt: CBOR, header types, sizes
* ``tag``        another CBOR tag than the one of COSE_Sign1
* ``crit``       a header is marked critical that is not understood
* ``alg``        an algorithm that is not accepted, or that does not fit the key
* ``x5t``        the certificate's thumbprint is another one
* ``chain``      the certificates do not lead from the signer to the last of them
* ``validity``   a certificate was not valid at the time of judgement
* ``signature``  the signature is wrong
* ``issuer``     the issuer's did:x509 is malformed or does not fit the chain
* ``receipt``    a transparency receipt is malformed or wrong
* ``usage``      the caller asked for something that makes no sense: a key that does not belong to the chain
"""

from __future__ import annotations

from typing import Final, Literal

Code = Literal["format", "tag", "crit", "alg", "x5t", "chain", "validity", "signature", "issuer", "receipt", "usage"]


class CoseError(Exception):
    """Something about a signed document is wrong. ``str()`` is one line fit for a user."""

    def __init__(self, code: Code, message: str, *, expected: str = "", found: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.code: Final[Code] = code
        self.message: Final = message
        self.expected: Final = expected
        self.found: Final = found
        self.hint: Final = hint

    def __str__(self) -> str:
        text = self.message
        if self.expected:
            text += f"; expected {self.expected}"
        if self.found:
            text += f", found {self.found}" if self.expected else f"; found {self.found}"
        if self.hint:
            text += f" (hint: {self.hint})"
        return text
