# SPDX-License-Identifier: Apache-2.0
"""The endpoints as functions: shapes, what the policy allows, and what a request may not be."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from parma_guest.attest import certs, endorsements, keys, security_context
from parma_guest.attest.endorsements import MAX_ENDORSEMENT, Endorsements
from parma_guest.attest.endpoints import API_SERVER_PORT, SIDECAR_PORT, ports, respond
from parma_guest.attest.http import Request, Response
from parma_guest.attest.service import merged
from parma_policy.attestation import NAMES
from parma_snp import certtable, hostcert
from parma_snp import report as snp_report
from parma_snp.certificates import CertificateChain
from parma_snp.emulated import EmulatedAuthority, ensure_authority
from parma_wire.errors import Malformed, Unavailable

EVERYTHING = frozenset(NAMES)
COSE = b"\xd2\x84endorsement"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> EmulatedAuthority:
    return ensure_authority(tmp_path_factory.mktemp("authority"))


class Enforcer:
    """Signs what is asked for, or fails."""

    def __init__(self, authority: EmulatedAuthority) -> None:
        self._authority = authority
        self.fails = False
        self.asked: list[tuple[bytes, int]] = []

    def report(self, report_data: bytes, vmpl: int) -> bytes:
        if self.fails:
            raise Unavailable("this VM has no secure processor")
        self.asked.append((report_data, vmpl))
        return self._authority.sign_report(
            report_data=report_data, host_data=bytes(32), measurement=bytes(48), report_id=bytes(32), vmpl=vmpl
        )

    def key(self, context: bytes) -> bytes:
        return hashlib.sha256(context).digest()


@pytest.fixture
def enforcer(authority: EmulatedAuthority) -> Enforcer:
    return Enforcer(authority)


@pytest.fixture(scope="module")
def given(authority: EmulatedAuthority) -> Endorsements:
    return endorsements.parse(host_amd_cert(authority), COSE)


def host_amd_cert(authority: EmulatedAuthority) -> bytes:
    chain = CertificateChain.from_pem(authority.certificate_chain.encode())
    report = snp_report.parse(Enforcer(authority).report(bytes(64), 0))
    return base64.b64decode(hostcert.encode(chain, report))


def ask(
    enforcer: Enforcer,
    path: str,
    document: Any = None,
    *,
    method: str = "",
    port: int = SIDECAR_PORT,
    query: str = "",
    allowed: frozenset[str] = EVERYTHING,
    given: Endorsements = Endorsements(),  # noqa: B008  # immutable
) -> Response:
    body = b"" if document is None else document if isinstance(document, bytes) else json.dumps(document).encode()
    request = Request(method or ("POST" if body else "GET"), path, query, body)
    return respond(port, request, allowed, enforcer, given)


def content(response: Response) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(response.body)
    return found


DATA = {"runtime_data": base64.b64encode(b"hello").decode()}
DIGEST = hashlib.sha256(b"hello").digest() + bytes(32)
RELEASE = {"maa_endpoint": "m", "akv_endpoint": "a", "kid": "k"}


def test_a_raw_report_is_over_the_hash_of_the_runtime_data(enforcer: Enforcer) -> None:
    response = ask(enforcer, "/attest/raw", DATA)
    assert response.status == 200
    assert bytes.fromhex(content(response)["report"])[0x50:0x90] == DIGEST
    assert enforcer.asked == [(DIGEST, 0)]


def test_a_combined_report_has_all_that_verifying_takes(
    enforcer: Enforcer, given: Endorsements, authority: EmulatedAuthority
) -> None:
    found = content(ask(enforcer, "/attest/combined", DATA, given=given))
    assert base64.b64decode(found["evidence"])[0x50:0x90] == DIGEST
    assert base64.b64decode(found["endorsements"]).decode().strip() == authority.certificate_chain.strip()
    assert base64.b64decode(found["uvm_endorsements"]) == COSE
    assert found["endorsed_tcb"] == "0" * 16
    combined = json.loads(found.pop("combined_report"))
    assert combined == found


def test_a_host_without_endorsements_leaves_them_empty(enforcer: Enforcer) -> None:
    found = content(ask(enforcer, "/attest/combined", DATA))
    assert (found["endorsements"], found["uvm_endorsements"], found["endorsed_tcb"]) == ("", "", "")


def test_the_status_is_there_wherever_something_is(enforcer: Enforcer) -> None:
    assert content(ask(enforcer, "/status", allowed=frozenset())) == {"message": "Status OK"}


@pytest.mark.parametrize(
    ("path", "document"), [("/attest/maa", {"maa_endpoint": "m", **DATA}), ("/key/release", RELEASE)]
)
def test_what_needs_a_cloud_is_not_configured(enforcer: Enforcer, path: str, document: Any) -> None:
    response = ask(enforcer, path, document)
    assert response.status == 501
    assert content(response)["error"].startswith("not configured")
    token = ask(enforcer, "/aa/token", port=API_SERVER_PORT, query="token_type=kbs")
    assert token.status == 501
    assert "verifier" in content(token)["error"]


@pytest.mark.parametrize(
    ("path", "document"),
    [
        ("/attest/raw", b"{"),
        ("/attest/raw", b"\xff"),
        ("/attest/raw", b"[" * 50_000),
        ("/attest/raw", []),
        ("/attest/raw", {}),
        ("/attest/raw", {"runtime_data": ""}),
        ("/attest/raw", {"runtime_data": 5}),
        ("/attest/raw", {"runtime_data": "not base64!"}),
        ("/attest/raw", b'{"runtime_data": "YQ==", "runtime_data": "Yg=="}'),
        ("/attest/combined", {}),
        ("/attest/maa", DATA),
        ("/key/release", {**RELEASE, "kid": ""}),
        ("/key/release", {**RELEASE, "access_token": 5}),
        ("/key/derive", {}),
        ("/key/derive", {"context": base64.b64encode(bytes(65)).decode()}),
    ],
)
def test_a_request_of_another_shape_is_a_bad_one(enforcer: Enforcer, path: str, document: Any) -> None:
    response = ask(enforcer, path, document)
    assert response.status == 400
    assert content(response)["error"]
    assert enforcer.asked == []


@pytest.mark.parametrize("path", [name for name in NAMES if name.startswith(("/attest", "/key", "/aa"))])
def test_the_policy_allows_each_endpoint_by_itself(enforcer: Enforcer, path: str) -> None:
    port = API_SERVER_PORT if path.startswith("/aa") else SIDECAR_PORT
    response = ask(enforcer, path, port=port, allowed=EVERYTHING - {path})
    assert response.status == 403
    assert path in content(response)["error"]
    assert ask(enforcer, path, port=port, allowed=frozenset({path})).status != 403
    assert ports(frozenset({path})) == (port,)
    # Each port has its own.
    assert ask(enforcer, path, port=SIDECAR_PORT + API_SERVER_PORT - port).status == 404


def test_nothing_listens_for_what_is_no_endpoint() -> None:
    assert ports(frozenset({"/dev/sev-guest", "UVM_SECURITY_CONTEXT_DIR"})) == ()
    assert ports(EVERYTHING) == (API_SERVER_PORT, SIDECAR_PORT)


def test_other_paths_and_methods_do_not_exist(enforcer: Enforcer) -> None:
    assert ask(enforcer, "/").status == 404
    assert ask(enforcer, "/attest/raw/").status == 404
    assert ask(enforcer, "/attest/raw", DATA, method="GET").status == 405
    assert ask(enforcer, "/aa/evidence", port=API_SERVER_PORT, method="POST").status == 405


def test_a_processor_that_does_not_answer_is_unavailable(enforcer: Enforcer) -> None:
    enforcer.fails = True
    response = ask(enforcer, "/attest/raw", DATA)
    assert response.status == 503
    assert content(response)["error"] == "this VM has no secure processor"


def test_a_key_is_for_its_context(enforcer: Enforcer) -> None:
    found = content(ask(enforcer, "/key/derive", {"context": base64.b64encode(b"disk").decode()}))
    assert base64.b64decode(found["key"]) == hashlib.sha256(b"disk").digest()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("runtime_data=abc", b"abc"),
        ("runtime_data=", b""),
        ("runtime_data=a%20b%00+c", b"a b\0 c"),
        ("runtime_data=%e2%82%AC&other=1", "€".encode()),
        ("runtime_data=-_8&encoding=base64", b"\xfb\xff"),
        (f"runtime_data={'x' * 64}", b"x" * 64),
    ],
)
def test_evidence_is_over_the_runtime_data_itself(enforcer: Enforcer, query: str, expected: bytes) -> None:
    response = ask(enforcer, "/aa/evidence", port=API_SERVER_PORT, query=query)
    assert response.status == 200
    assert response.content_type == "application/octet-stream"
    assert bytes(content(response)["attestation_report"]["report_data"]) == expected.ljust(64, b"\0")


@pytest.mark.parametrize(
    "query",
    [
        "",
        "runtime=x",
        f"runtime_data={'x' * 65}",
        "runtime_data=a&runtime_data=b",
        "runtime_data=a&encoding=hex",
        "runtime_data=+/8&encoding=base64",
        "runtime_data=a&encoding=base64",
    ],
)
def test_evidence_over_anything_else_is_refused(enforcer: Enforcer, query: str) -> None:
    assert ask(enforcer, "/aa/evidence", port=API_SERVER_PORT, query=query).status == 400
    assert enforcer.asked == []


def test_evidence_has_the_report_field_by_field(enforcer: Enforcer, given: Endorsements) -> None:
    found = content(ask(enforcer, "/aa/evidence", port=API_SERVER_PORT, query="runtime_data=a", given=given))
    report = found["attestation_report"]
    assert report["version"] == 3
    assert report["policy"] == 0x30000
    assert report["cpuid_fam_id"] == 0x19
    assert report["reported_tcb"] == {"fmc": None, "bootloader": 0, "tee": 0, "snp": 0, "microcode": 0}
    assert report["current"] == {"major": 0, "minor": 0, "build": 0}
    assert report["launch_mit_vector"] is None
    assert [len(report[name]) for name in ("chip_id", "measurement", "host_data", "report_id")] == [64, 48, 32, 32]
    assert [len(report["signature"][name]) for name in "rs"] == [72, 72]
    (vcek,) = found["cert_chain"]
    assert vcek["cert_type"] == "VCEK"
    assert bytes(vcek["data"]) == certs.certificates(endorsements.host_amd_cert(given)["vcekCert"])[0]


# Endorsements


def test_the_certificate_table_is_one_that_verifiers_read(given: Endorsements, authority: EmulatedAuthority) -> None:
    table = certs.table(endorsements.host_amd_cert(given))
    entries = certtable.parse(table)
    assert [entry.name for entry in entries] == ["VCEK", "ASK", "ARK"]
    assert certtable.chain_of(entries).to_pem() == authority.certificate_chain
    assert certs.table({}) == b""


def test_absent_endorsements_are_empty() -> None:
    assert endorsements.parse(b"", b"") == ("", "")
    assert endorsements.host_amd_cert(Endorsements()) == {}


def test_endorsements_that_are_not_even_well_formed_are_refused(authority: EmulatedAuthority) -> None:
    good = json.loads(host_amd_cert(authority))
    bad: list[bytes] = [
        b"{",
        b"[]",
        b"\xff",
        b" " * (MAX_ENDORSEMENT + 1),
        *(json.dumps({key: value for key, value in good.items() if key != left}).encode() for left in good),
        *(json.dumps({**good, key: 5}).encode() for key in good),
        json.dumps({**good, "more": ""}).encode(),
        json.dumps({**good, "tcbm": "xyz"}).encode(),
        json.dumps({**good, "vcekCert": ""}).encode(),
        json.dumps({**good, "vcekCert": "<script>"}).encode(),
        json.dumps({**good, "vcekCert": good["vcekCert"].replace("MII", "M=I", 1)}).encode(),
    ]
    for data in bad:
        with pytest.raises(Malformed):
            endorsements.parse(data, b"")
    for data in (b"\xd2", b"text", COSE + bytes(MAX_ENDORSEMENT)):
        with pytest.raises(Malformed):
            endorsements.parse(b"", data)


# Keys


def test_hkdf_is_that_of_rfc_5869() -> None:
    # Appendix A.1 and A.3, first 32 bytes of the output.
    first = keys.hkdf(b"\x0b" * 22, bytes(range(0xF0, 0xFA)), bytes(range(13)))
    assert first.hex() == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"
    third = keys.hkdf(b"\x0b" * 22, b"")
    assert third.hex() == "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"


def test_every_value_that_a_key_is_bound_to_changes_it() -> None:
    good = (b"s" * 32, b"h" * 32, b"i" * 32, b"context")
    made = {keys.container_key(*good)}
    for place in range(4):
        other = list(good)
        other[place] = other[place][:-1] + b"x"
        made.add(keys.container_key(*other))
    made.add(keys.container_key(*good[:3], b""))
    assert len(made) == 6
    assert keys.container_key(*good) in made
    for place in range(3):
        short = list(good)
        short[place] = short[place][:-1]
        with pytest.raises(ValueError, match="bad size"):
            keys.container_key(*short)


# The security context directory


def files_of(root: Path, environment: tuple[str, ...]) -> dict[str, bytes]:
    name, _, directory = environment[0].partition("=")
    assert name == "UVM_SECURITY_CONTEXT_DIR"
    return {path.name: path.read_bytes() for path in (root / directory.strip("/")).iterdir()}


def test_the_directory_has_three_files_whatever_the_host_gave(tmp_path: Path, given: Endorsements) -> None:
    environment = security_context.write(str(tmp_path), b"package policy", given, tee="snp")
    assert len(environment) == 1
    files = files_of(tmp_path, environment)
    assert files == {
        "security-policy-base64": base64.b64encode(b"package policy"),
        "reference-info-base64": base64.b64encode(COSE),
        "host-amd-cert-base64": given.host_amd_cert.encode(),
    }
    empty = files_of(tmp_path, security_context.write(str(tmp_path), b"p", Endorsements(), tee="none"))
    assert empty["reference-info-base64"] == empty["host-amd-cert-base64"] == b""


def test_emulation_is_said_in_the_directory_and_in_the_environment(tmp_path: Path) -> None:
    environment = security_context.write(str(tmp_path), b"p", Endorsements(), tee="emulated")
    assert environment[1:] == ("PARMA_EMULATED=1",)
    assert b"prove nothing" in files_of(tmp_path, environment)["emulated"]


def test_a_root_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(Unavailable):
        security_context.write(str(tmp_path / "link"), b"p", Endorsements(), tee="snp")
    assert list((tmp_path / "real").iterdir()) == []


def test_our_variables_replace_the_hosts() -> None:
    requested = ("A=1", "UVM_SECURITY_CONTEXT_DIR=/evil", "UVM_SECURITY_CONTEXT_DIRECTORY=x")
    ours = ("UVM_SECURITY_CONTEXT_DIR=/security-context-1",)
    assert merged(requested, ours) == (
        "A=1",
        "UVM_SECURITY_CONTEXT_DIRECTORY=x",
        "UVM_SECURITY_CONTEXT_DIR=/security-context-1",
    )
    assert merged(requested, ()) == requested
