# SPDX-License-Identifier: Apache-2.0
"""``parma fragment``: signing with keys and chains from PEM files, showing, and checking as a guest would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from parma_cose import did
from parma_cose.keys import TRUST_LIST_TYPE
from parma_cose.signing import Document, sign
from parma_shim import cli
from tests.cose.chains import EKU, NOW, Ledger, authority, rsa_key, shared_authority, trust_list, with_receipts

FEED = "registry.example/app"
TEXT = 'package app\nsvn := 3\nframework_version := "0.5.0"\ncontainers := []\nexternal_processes := []\n'


class Desk:
    """A folder with a fragment, a key and a chain, and the command."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys
        self.authority = shared_authority()
        self.write("app.rego", TEXT.encode())
        self.write("key.pem", self.authority.leaf.key_pem)
        self.write("chain.pem", self.authority.chain_pem)

    def write(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    def run(self, command: str, *arguments: object) -> tuple[int, str, str]:
        status = cli.main(["fragment", command, *map(str, arguments)])
        output = self._capsys.readouterr()
        return status, output.out, output.err

    def sign(self, *arguments: object) -> tuple[int, str, str]:
        files = ("--key", self.folder / "key.pem", "--chain", self.folder / "chain.pem")
        return self.run("sign", self.folder / "app.rego", *files, "--feed", FEED, *arguments)

    def policy(self, *receipts: str, **changes: object) -> Path:
        rule = {**json.loads(self.run("rule", self.envelope)[1]), "required_receipts": list(receipts), **changes}
        issuer = did.derive(self.authority.signer.chain, f"eku:{EKU}")
        lists = {"issuer": issuer, "subject": "lists", "minimum_svn": 1, "allowed_ledgers": ["ledger.example"]}
        lines = (
            "package policy",
            'api_version := "0.12.0"',
            'framework_version := "0.5.0"',
            f"fragments := [{json.dumps(rule)}]",
            f"transparency_trust_lists := [{json.dumps(lists)}]",
            "load_fragment := data.framework.load_fragment",
            "load_transparency_trust_list := data.framework.load_transparency_trust_list",
        )
        return self.write("policy.rego", "\n".join((*lines, "")).encode())

    def trust_list(self, *ledgers: Ledger) -> Path:
        issuer = did.derive(self.authority.signer.chain, f"eku:{EKU}")
        document = Document(trust_list(*ledgers), issuer, "lists", TRUST_LIST_TYPE, 1, NOW)
        return self.write("lists.cose", sign(document, self.authority.signer))

    @property
    def envelope(self) -> Path:
        return self.folder / "app.rego.cose"


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, capsys)


def shown(desk: Desk, *arguments: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(desk.run("show", desk.envelope, "--json", *arguments)[1])
    return found


def test_what_is_signed_is_shown_and_accepted(desk: Desk) -> None:
    status, text, _ = desk.sign("--svn", 3)
    assert status == 0
    rule = json.loads(text[text.index("{") :])
    assert rule["issuer"].startswith("did:x509:0:sha256:")
    assert rule["issuer"].endswith("::subject:CN:Signer")
    assert (rule["feed"], rule["minimum_svn"]) == (FEED, 3)
    assert rule["includes"] == ["containers", "external_processes"]
    found = shown(desk)
    assert (found["kind"], found["verified"], found["problem"]) == ("fragment", True, "")
    assert (found["package"], found["lists"]) == ("app", {"containers": 0, "external_processes": 0})
    assert [item["subject"] for item in found["certificates"]] == ["CN=Signer", "CN=Intermediate", "CN=Root"]
    assert desk.run("verify", desk.envelope) == (0, "accepted\n", "")
    assert desk.run("verify", desk.envelope, "--policy", desk.policy())[0] == 0
    assert "genuine" in desk.run("show", desk.envelope)[1]


@pytest.mark.parametrize("algorithm", ["PS256", "PS384", "PS512"])
def test_rsa_keys_sign(desk: Desk, algorithm: str) -> None:
    by = authority(rsa_key())
    desk.write("key.pem", by.leaf.key_pem)
    desk.write("chain.pem", by.chain_pem)
    assert desk.sign("--algorithm", algorithm)[0] == 0
    assert shown(desk)["algorithm"] == algorithm


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--issuer", "did:x509:0:sha256:AAAA::eku:1.2"), "no fragment of issuer"),
        (("--feed", "other"), "no fragment of feed"),
        (("--minimum-svn", "4"), "below the specified minimum"),
        (("--minimum-svn", "1.0.0"), "different types"),
        (("--at", "2040-01-01"), "was not valid"),
    ],
)
def test_terms_that_do_not_hold_are_named(desk: Desk, arguments: tuple[str, str], reason: str) -> None:
    desk.sign()
    status, out, error = desk.run("verify", desk.envelope, *arguments)
    assert status == 1
    assert reason in out + error
    status, out, error = desk.run("verify", desk.envelope, *arguments, "--json")
    assert (status, error) == (1, "")
    assert json.loads(out)["accepted"] is False
    assert reason in json.loads(out)["reason"]


def test_terms_that_hold_are_accepted(desk: Desk) -> None:
    desk.sign("--predicate", f"eku:{EKU}")
    issuer = shown(desk)["issuer"]
    terms = ("--issuer", issuer, "--feed", FEED, "--minimum-svn", "2", "--at", "now", "--json")
    assert json.loads(desk.run("verify", desk.envelope, *terms)[1]) == {"accepted": True, "reason": ""}


def test_a_changed_envelope_is_shown_as_not_verified(desk: Desk) -> None:
    desk.sign()
    data = bytearray(desk.envelope.read_bytes())
    data[-1] ^= 1
    desk.envelope.write_bytes(data)
    status, text, _ = desk.run("show", desk.envelope)
    assert status == 1
    assert "NOT VERIFIED" in text
    assert "package" not in shown(desk)  # nothing is read of what nobody has signed
    assert desk.run("verify", desk.envelope)[0] == 1


def test_the_policy_decides_over_receipts_and_trust_lists(desk: Desk) -> None:
    desk.sign()
    ledger, policy = Ledger.make(), desk.policy("ledger.example")
    lists = desk.trust_list(ledger)
    status, out, _ = desk.run("verify", desk.envelope, "--policy", policy, "--trust-list", lists)
    assert status == 1
    assert "receipt" in out
    data = desk.envelope.read_bytes()
    desk.envelope.write_bytes(with_receipts(data, ledger.receipt(data)))
    assert desk.run("verify", desk.envelope, "--policy", policy)[0] == 1
    assert desk.run("verify", desk.envelope, "--policy", policy, "--trust-list", lists) == (0, "accepted\n", "")
    assert shown(desk)["receipts"] == ["ledger.example"]
    assert desk.run("show", lists)[0] == 0


@pytest.mark.parametrize(
    ("text", "arguments", "reason"),
    [
        ("x := 1\n", (), "package"),
        ("package policy\n", (), "cannot be package policy"),
        ("package app\nsvn := 1\n", (), "framework_version is missing"),
        ('package app\nframework_version := "0.5.0"\n', (), "no security version|has a security version"),
        ('package app\nsvn := "x"\nframework_version := "0.5.0"\n', (), "svn is neither"),
        ('package app\nsvn := 1\nframework_version := "0.5.0"\nallow := true\n', (), "cannot define"),
        (TEXT, ("--svn", 4), "equal ones"),
        (TEXT, ("--algorithm", "none"), "unknown algorithm"),
        (TEXT, ("--algorithm", "PS256"), "does not fit"),
        (TEXT, ("--predicate", "eku:1.2.3"), "does not have the eku"),
        (TEXT, ("--predicate", "subject:O"), "no 'O' in its subject"),
        (TEXT, ("--issuer", "did:x509:0:sha256:AAAA::eku:1.2"), "no authority of the chain"),
        (TEXT, ("--signing-time", "2001-01-01"), "was not valid"),
    ],
)
def test_what_a_guest_would_refuse_is_not_signed(
    desk: Desk, text: str, arguments: tuple[object, ...], reason: str
) -> None:
    desk.write("app.rego", text.encode())
    status, _, error = desk.sign(*arguments)
    assert status == 1
    assert any(part in error for part in reason.split("|")), error
    assert not desk.envelope.exists()


def test_a_key_that_is_not_the_chains_is_refused(desk: Desk) -> None:
    desk.write("key.pem", authority().leaf.key_pem)
    assert "does not belong" in desk.sign()[2]
    desk.write("key.pem", b"nonsense")
    assert "not a private key" in desk.sign()[2]


def test_a_chain_in_the_wrong_order_is_refused(desk: Desk) -> None:
    parts = desk.authority
    desk.write("chain.pem", parts.root.pem + parts.intermediate.pem + parts.leaf.pem)
    assert "not issued by the next" in desk.sign()[2]


def test_rules_can_be_narrowed(desk: Desk) -> None:
    desk.sign()
    rule = json.loads(desk.run("rule", desk.envelope, "--include", "containers", "--minimum-svn", "2")[1])
    assert (rule["includes"], rule["minimum_svn"]) == (["containers"], 2)
    assert "cannot contribute" in desk.run("rule", desk.envelope, "--include", "everything")[2]


def test_a_policy_and_terms_contradict_each_other(desk: Desk) -> None:
    desk.sign()
    policy = desk.policy()
    assert "one of them" in desk.run("verify", desk.envelope, "--policy", policy, "--feed", "x")[2]
    assert "--policy" in desk.run("verify", desk.envelope, "--trust-list", desk.trust_list(Ledger.make()))[2]
