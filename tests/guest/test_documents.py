# SPDX-License-Identifier: Apache-2.0
"""Fragments and trust lists in the guest: pieces, verification, the policy's answer, and refusals without a trace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from parma_cose import did
from parma_cose.keys import TRUST_LIST_TYPE
from parma_cose.signing import Document, sign
from parma_guest.decisions import FrameworkEngine
from parma_guest.documents import Documents
from parma_guest.enforcer import Enforcer
from parma_guest.tee import NoTee
from parma_policy.framework import State
from parma_policy.signed.authoring import FragmentTerms, sign_fragment
from parma_wire.errors import Denied, FailedPrecondition, Malformed, Unverified
from parma_wire.limits import DOCUMENT_CHUNK, MAX_DOCUMENT_BYTES, MAX_DOCUMENTS
from tests.cose.chains import EKU, NOW, Authority, Ledger, authority, shared_authority, trust_list, with_receipts
from tests.guest.fakes import Rig

FEED = "registry.example/fragment"
SUBJECT = "registry.example/ledgers"
LAYER = "ab" * 32


def issuer(of: Authority) -> str:
    return did.derive(of.signer.chain, f"eku:{EKU}")


def text(svn: int = 2, layer: str = LAYER) -> bytes:
    container = {
        "command": ["/bin/true"],
        "env_rules": [],
        "layers": [layer],
        "mounts": [],
        "exec_processes": [],
        "signals": [],
        "user": {"user_idname": {"pattern": "", "strategy": "any"}, "group_idnames": [], "umask": "0022"},
        "capabilities": None,
        "seccomp_profile_sha256": "",
        "allow_elevated": False,
        "working_dir": "/",
        "allow_stdio_access": True,
        "no_new_privileges": False,
    }
    version = 'framework_version := "0.5.0"'
    lines = ["package fragment", f"svn := {svn}", version, f"containers := [{json.dumps(container)}]", ""]
    return "\n".join(lines).encode()


def fragment(svn: int = 2, *, signed_by: Authority | None = None, feed: str = FEED, layer: str = LAYER) -> bytes:
    terms = FragmentTerms(feed, predicate=f"eku:{EKU}", svn=svn, signing_time=NOW)
    return sign_fragment(text(svn, layer), (signed_by or shared_authority()).signer, terms)


def ledgers(*named: Ledger, svn: int = 1, signed_by: Authority | None = None) -> bytes:
    by = signed_by or shared_authority()
    document = Document(trust_list(*named), issuer(by), SUBJECT, TRUST_LIST_TYPE, svn, NOW)
    return sign(document, by.signer)


def policy(*receipts: str) -> bytes:
    rule = {
        "issuer": issuer(shared_authority()),
        "feed": FEED,
        "minimum_svn": 2,
        "includes": ["containers"],
        "required_receipts": list(receipts),
    }
    lists = {
        "issuer": issuer(shared_authority()),
        "subject": SUBJECT,
        "minimum_svn": 1,
        "allowed_ledgers": ["ledger.example"],
    }
    return "\n".join(
        [
            "package policy",
            'api_version := "0.12.0"',
            'framework_version := "0.5.0"',
            f"fragments := [{json.dumps(rule)}]",
            f"transparency_trust_lists := [{json.dumps(lists)}]",
            "containers := []",
            "mount_device := data.framework.mount_device",
            "load_fragment := data.framework.load_fragment",
            "load_transparency_trust_list := data.framework.load_transparency_trust_list",
            "",
        ]
    ).encode()


class Guest:
    """The enforcer with a real policy, and its documents."""

    def __init__(self, *receipts: str) -> None:
        self.enforcer = Enforcer(NoTee(), FrameworkEngine)
        self.documents = Documents(self.enforcer)
        data = policy(*receipts)
        self.enforcer.put_policy(0, data)
        self.enforcer.set_policy(len(data))

    def put(self, data: bytes) -> int:
        for offset in range(0, len(data), DOCUMENT_CHUNK):
            self.documents.put(offset, data[offset : offset + DOCUMENT_CHUNK])
        return len(data)

    def fragment(self, data: bytes) -> None:
        self.documents.load_fragment(self.put(data))

    def trust_list(self, data: bytes) -> None:
        self.documents.load_trust_list(self.put(data))

    @property
    def state(self) -> State:
        with self.enforcer.read("WaitProcess") as asker:
            found: State = asker.state
            return found

    def allows_layer(self, layer: str = LAYER) -> bool:
        request = {"target": "/run/mounts/scsi/m1", "deviceHash": layer, "mountPathRegex": "/run/mounts/scsi/m[0-9]+"}
        try:
            with self.enforcer.change("MountDevice") as asker:
                asker.ask("mount_device", request)
        except Denied:
            return False
        return True


def test_a_fragment_adds_what_the_policy_lets_it_include() -> None:
    guest = Guest()
    assert not guest.allows_layer()
    guest.fragment(fragment())
    assert guest.allows_layer()


def test_a_fragment_of_many_pieces_is_put_together() -> None:
    guest = Guest()
    data = sign_fragment(
        text() + b"# " + b"x" * 5 * DOCUMENT_CHUNK + b"\n",
        shared_authority().signer,
        FragmentTerms(FEED, predicate=f"eku:{EKU}", signing_time=NOW),
    )
    guest.fragment(data)
    assert guest.allows_layer()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (lambda: fragment(1), "svn"),
        (lambda: fragment(feed="another"), "no fragment of feed"),
        (lambda: fragment(signed_by=authority()), "no fragment of issuer"),
    ],
    ids=["older", "another feed", "another issuer"],
)
def test_what_the_policy_does_not_want_is_denied_and_leaves_nothing(data: object, reason: str) -> None:
    assert callable(data)
    guest = Guest()
    before = guest.state
    with pytest.raises(Denied, match=reason):
        guest.fragment(data())
    assert guest.state == before
    guest.fragment(fragment())  # and another attempt may be made


def test_a_changed_envelope_is_not_asked_about() -> None:
    guest = Guest()
    data = bytearray(fragment())
    data[-1] ^= 1
    with pytest.raises(Unverified, match="signature"):
        guest.fragment(bytes(data))
    assert guest.state == State.initial()


def test_nonsense_is_malformed_and_does_not_poison_the_group() -> None:
    guest = Guest()
    for data in (b"x", b"\xd2", bytes(1000)):
        with pytest.raises(Malformed):
            guest.fragment(data)
        with pytest.raises(Malformed):
            guest.trust_list(data)
    assert guest.enforcer.poisoned == ""
    guest.fragment(fragment())


def test_a_required_receipt_counts_once_its_ledger_is_trusted() -> None:
    guest, ledger = Guest("ledger.example", f"TTL:{SUBJECT}"), Ledger.make()
    data = fragment()
    transparent = with_receipts(data, ledger.receipt(data))
    with pytest.raises(Denied, match="receipt"):
        guest.fragment(data)
    with pytest.raises(Denied, match="receipt"):  # no list says whose key that is
        guest.fragment(transparent)
    guest.trust_list(ledgers(ledger))
    with pytest.raises(Denied, match="receipt"):
        guest.fragment(data)
    guest.fragment(transparent)
    assert guest.allows_layer()


def test_a_wrong_receipt_of_a_trusted_ledger_is_refused() -> None:
    guest, ledger = Guest(), Ledger.make()
    guest.trust_list(ledgers(ledger))
    data, other = fragment(), fragment(3)
    with pytest.raises(Unverified, match="another envelope"):
        guest.fragment(with_receipts(data, ledger.receipt(other)))
    with pytest.raises(Unverified, match="key that is not known"):
        guest.fragment(with_receipts(data, Ledger.make().receipt(data)))
    assert not guest.allows_layer()


def test_a_trust_list_counts_only_for_the_ledgers_that_the_policy_names() -> None:
    guest, other = Guest("*"), Ledger.make("other.example")
    guest.trust_list(ledgers(Ledger.make(), other))
    data = fragment()
    with pytest.raises(Denied, match="receipt"):
        guest.fragment(with_receipts(data, other.receipt(data)))


@pytest.mark.parametrize(
    "data",
    [
        lambda ledger: ledgers(ledger, svn=0),
        lambda ledger: ledgers(ledger, signed_by=authority()),
        lambda _: ledgers(Ledger.make("other.example")),
    ],
    ids=["older", "another issuer", "another ledger"],
)
def test_a_trust_list_that_is_denied_is_not_trusted(data: object) -> None:
    assert callable(data)
    guest, ledger = Guest("*"), Ledger.make()
    with pytest.raises(Denied):
        guest.trust_list(data(ledger))
    envelope = fragment()
    with pytest.raises(Denied, match="receipt"):
        guest.fragment(with_receipts(envelope, ledger.receipt(envelope)))


def test_lists_that_differ_in_a_key_are_refused_and_the_first_stays() -> None:
    first = Ledger.make()

    class Impostor(Ledger):
        @property
        def key_id(self) -> bytes:
            return first.key_id

    guest = Guest("ledger.example")
    guest.trust_list(ledgers(first))
    with pytest.raises(Unverified, match="differ"):
        guest.trust_list(ledgers(Impostor.make()))
    data = fragment()
    guest.fragment(with_receipts(data, first.receipt(data)))


def test_neither_is_taken_for_the_other() -> None:
    guest = Guest()
    with pytest.raises(Malformed, match="trust list was given"):
        guest.fragment(ledgers(Ledger.make()))
    with pytest.raises(Malformed, match="not a transparency trust list"):
        guest.trust_list(fragment())


def test_pieces_arrive_in_order_and_within_the_limit() -> None:
    guest = Guest()
    with pytest.raises(Malformed, match="out of order"):
        guest.documents.put(5, b"x")
    guest.documents.put(0, b"xx")
    with pytest.raises(Malformed, match="out of order"):
        guest.documents.put(3, b"x")
    with pytest.raises(Malformed, match="incomplete"):
        guest.documents.load_fragment(3)
    with pytest.raises(Malformed, match="incomplete"):  # a failed attempt forgets the pieces
        guest.documents.load_fragment(2)
    guest.documents.put(0, bytes(MAX_DOCUMENT_BYTES))
    with pytest.raises(Malformed, match="too large"):
        guest.documents.put(MAX_DOCUMENT_BYTES, b"x")


def test_a_new_document_replaces_a_half_received_one() -> None:
    guest = Guest()
    guest.documents.put(0, b"half of something")
    guest.fragment(fragment())
    assert guest.allows_layer()


def test_documents_are_limited_in_number() -> None:
    guest = Guest()
    data = fragment()
    for _ in range(MAX_DOCUMENTS):
        guest.fragment(data)
    with pytest.raises(FailedPrecondition, match="too many"):
        guest.fragment(data)


def test_nothing_is_taken_before_a_policy(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    documents = Documents(rig.enforcer)
    with pytest.raises(FailedPrecondition):
        documents.put(0, b"x")
    assert rig.engine.requests == []
