# SPDX-License-Identifier: Apache-2.0
"""Making signed fragments, and the rules with which a policy accepts them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from parma_cose import algorithms, did
from parma_cose.signing import Document, Signer, sign
from parma_policy.model import SvnValue
from parma_policy.reader.fragment import FragmentText, fragment_package
from parma_policy.reader.lists import LISTS
from parma_policy.signed.envelopes import fragment_request, parma_errors, verify_document
from parma_policy.versions import Version
from parma_wire.errors import Malformed
from parma_wire.limits import MAX_POLICY_BYTES

CONTENT_TYPE: Final = "application/unknown+rego"
"""What existing tools write; readers do not look at it but to tell fragments from trust lists."""
DEFAULT_PREDICATE: Final = "subject:CN"


@dataclass(frozen=True)
class FragmentTerms:
    """What an envelope says of the fragment in it."""

    feed: str
    issuer: str | None = None
    """A did:x509; None: derived from the chain by ``predicate``."""
    predicate: str = DEFAULT_PREDICATE
    svn: int | None = None
    """For the envelope's header; None: only the fragment's text says it."""
    signing_time: datetime | None = None
    algorithm: str | None = None
    """A name like ES384; None: the usual one for the key."""


def load_signer(key: bytes, chain: bytes, password: bytes | None = None) -> Signer:
    """A private key and its certificates, both PEM, the signer's certificate first. Raises Malformed or Unverified."""
    with parma_errors("key and certificates"):
        return Signer.from_pem(key, chain, password)


def sign_fragment(rego: bytes, signer: Signer, terms: FragmentTerms) -> bytes:
    """The envelope of a fragment. It is read as a guest would read it before it is given out.

    Raises Malformed or Unverified where a guest would refuse it: for its text, its terms, or its certificates.
    """
    text = check_fragment(rego)
    if terms.svn is None and not text.has_svn:
        raise Malformed("neither the fragment nor the envelope has a security version number", hint="give --svn")
    if terms.svn is not None and text.has_svn and text.svn != terms.svn:
        raise Malformed(f"the fragment says svn {text.svn}, the envelope would say {terms.svn}", expected="equal ones")
    if terms.algorithm is not None and terms.algorithm not in algorithms.BY_NAME:
        raise Malformed("unknown algorithm", expected=", ".join(algorithms.BY_NAME))
    with parma_errors("signing"):
        issuer = terms.issuer or did.derive(signer.chain, terms.predicate)
        document = Document(rego, issuer, terms.feed, CONTENT_TYPE, terms.svn, terms.signing_time)
        data = sign(document, signer, algorithms.BY_NAME[terms.algorithm] if terms.algorithm else None)
    verify_document(data)
    return data


def check_fragment(rego: bytes) -> FragmentText:
    """Reads a fragment's text as strictly as a guest does. Raises Malformed."""
    if len(rego) > MAX_POLICY_BYTES:
        raise Malformed("the fragment is too large", expected=f"at most {MAX_POLICY_BYTES} bytes")
    try:
        text = rego.decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("the fragment is not UTF-8 text") from None
    fragment_package(text)
    parsed = FragmentText.parse(text, parity=False)
    if parsed.framework.problem:
        raise Malformed(f"the fragment's {parsed.framework.problem}")
    if parsed.has_svn and parsed.svn is None:
        raise Malformed("the fragment's svn is neither a whole number nor a semantic version")
    return parsed


def fragment_rule(
    data: bytes, *, includes: tuple[str, ...] | None = None, minimum_svn: SvnValue | None = None
) -> dict[str, Any]:
    """The object for a policy's ``fragments`` that accepts this envelope, and newer ones of its issuer and feed.

    Unless given, ``includes`` are the lists that the fragment has, and ``minimum_svn`` is its version. Raises Malformed
    or Unverified.
    """
    request = fragment_request(verify_document(data))
    text = check_fragment(request.rego.encode())
    svn = minimum_svn if minimum_svn is not None else text.svn if text.has_svn else request.header_svn
    if svn is None:
        raise Malformed("the fragment has no security version number")
    found = tuple(name for name in LISTS if name in text.document.statements)
    return {
        "feed": request.feed,
        "includes": list(found if includes is None else includes),
        "issuer": request.issuer,
        "minimum_svn": str(svn) if isinstance(svn, Version) else svn,
    }
