# SPDX-License-Identifier: Apache-2.0
"""Name constraints (RFC 5280, section 4.2.1.10): what an authority may issue certificates for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from parma_cose.certificates import extension, is_self_issued
from parma_cose.errors import CoseError

_AUTHORITY: Final = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?([A-Za-z0-9.-]+)(?::[0-9]*)?(?:[/?#]|$)", re.ASCII
)
"""Scheme, user and host of a URI whose host is a name (RFC 3986, section 3.2)."""


def check_names(chain: Sequence[x509.Certificate]) -> None:
    """Every certificate keeps to the constraints of every authority above it. ``chain`` has the leaf first.

    Raises CoseError ``chain``. Names of kinds that cannot be compared count as outside.
    """
    for index, authority in enumerate(chain):
        constraints = extension(authority, x509.NameConstraints)
        if constraints is None:
            continue
        for below, certificate in enumerate(chain[:index]):
            if below > 0 and is_self_issued(certificate):
                continue
            for name in _names(certificate):
                _check(name, constraints)


def _names(certificate: x509.Certificate) -> Iterator[x509.GeneralName]:
    alternative = extension(certificate, x509.SubjectAlternativeName)
    if len(certificate.subject.rdns):
        yield x509.DirectoryName(certificate.subject)
    yield from alternative or ()
    if alternative is None:
        for attribute in certificate.subject.get_attributes_for_oid(NameOID.EMAIL_ADDRESS):
            yield _email(attribute.value)


def _email(value: str | bytes) -> x509.GeneralName:
    try:
        return x509.RFC822Name(value if isinstance(value, str) else "")
    except ValueError:
        raise CoseError("chain", "an e-mail address in a certificate's subject is malformed") from None


def _check(name: x509.GeneralName, constraints: x509.NameConstraints) -> None:
    kind = type(name)
    excluded = [tree for tree in constraints.excluded_subtrees or () if type(tree) is kind]
    permitted = [tree for tree in constraints.permitted_subtrees or () if type(tree) is kind]
    if not excluded and not permitted:
        return
    within = _WITHIN.get(kind)
    if within is None:
        raise CoseError("chain", "a certificate has a constrained name of a kind that cannot be compared")
    if any(within(name.value, tree.value) for tree in excluded):
        raise CoseError("chain", "a certificate has a name that an authority above it must not issue")
    if permitted and not any(within(name.value, tree.value) for tree in permitted):
        raise CoseError("chain", "a certificate has a name that an authority above it may not issue")


def _dns(name: str, base: str) -> bool:
    return _domain(name.rstrip("."), base)


def _mail(name: str, base: str) -> bool:
    local, _, host = name.rpartition("@")
    base_local, at, base_host = base.rpartition("@")
    if at:
        return local == base_local and host.lower() == base_host.lower()
    return _domain(host, base) if base.startswith(".") else host.lower() == base.lower()


def _uri(name: str, base: str) -> bool:
    found = _AUTHORITY.match(name)
    if found is None:
        raise CoseError("chain", "a certificate has a constrained URI without a host")
    return _domain(found[1], base) if base.startswith(".") else found[1].lower() == base.lower()


def _domain(name: str, base: str) -> bool:
    """Whether a host is in a domain; a base that begins with a dot stands for what is below it."""
    name, base = name.lower(), base.lower()
    if base.startswith("."):
        return name.endswith(base)
    return not base or name == base or name.endswith(f".{base}")


def _address(name: object, base: object) -> bool:
    # A name is an address, a constraint is a network; `in` is False for the other family.
    return name in base  # type: ignore[operator]


def _directory(name: x509.Name, base: x509.Name) -> bool:
    mine, theirs = [_relative(part) for part in name.rdns], [_relative(part) for part in base.rdns]
    return mine[: len(theirs)] == theirs


def _relative(part: x509.RelativeDistinguishedName) -> frozenset[tuple[str, str | bytes]]:
    return frozenset((attribute.oid.dotted_string, _folded(attribute.value)) for attribute in part)


def _folded(value: str | bytes) -> str | bytes:
    return " ".join(value.split()).casefold() if isinstance(value, str) else value


_WITHIN: Final[dict[type, Callable[..., bool]]] = {
    x509.DNSName: _dns,
    x509.RFC822Name: _mail,
    x509.UniformResourceIdentifier: _uri,
    x509.IPAddress: _address,
    x509.DirectoryName: _directory,
}
