# SPDX-License-Identifier: Apache-2.0
"""What containers reach of attestation, in a real VM: unmodified clients inside, the host's processor emulated."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from parma_policy.attestation import NAMES
from parma_snp import certtable, hostcert
from parma_snp import report as snp_report
from parma_snp.anchors import AMD, emulated_root
from parma_snp.certificates import CertificateChain, load_root
from parma_snp.errors import SnpError
from parma_snp.evidence import Evidence, verify_evidence
from parma_snp.expected import Expected
from parma_wire import guest_pb2 as pb
from tests.guest import vm_harness as vm

CLIENT = Path(__file__).with_name("sev_guest_client.c")
COMPILER = shutil.which("cc")

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(bool(vm.missing()), reason=vm.missing()),
    pytest.mark.skipif(COMPILER is None, reason="no C compiler to build the client that runs in the container"),
    pytest.mark.timeout(300),
]

ALL, NOTHING, CLOUD, RAW = ("a1" * 32, "b2" * 32, "c3" * 32, "d4" * 32)
REPORT_DATA = bytes((index * 3 + 1) % 256 for index in range(64))
"""What the client asks for."""
REFERENCE_INFO = b"\xd2\x84endorsement"
RUNTIME_DATA = base64.b64encode(b"runtime data").decode()

LOCAL = "http://127.0.0.1"


def post(path: str, body: str) -> str:
    """busybox wget, as a script would do it."""
    return f"wget -q -O- --post-data '{body}' {LOCAL}:8080{path} 2>&1; echo"


def raw(request: str, port: int) -> str:
    return f"printf '{request}' | nc 127.0.0.1 {port}"


SCRIPTS = {
    "look": "env | sort; ls -l /dev/sev-guest /dev/sev /security-context-* 2>/dev/null; netstat -ltn | grep tcp;"
    " ls /sys/class/cuse /sys/devices/virtual/cuse",
    "files": "cd $UVM_SECURITY_CONTEXT_DIR; for f in *; do echo $f $(cat $f); done",
    "client": "/client report; /client vmpl1; /client ext; /client ext-empty",
    "hostile": "for c in vmpl4 key odd version bad-argument bad-request bad-response kernel-response read write report;"
    " do echo $c $(/client $c); done",
    "flood": "for i in $(seq 40); do /client report > /dev/null & done; wait; /client report",
    "raw": post("/attest/raw", json.dumps({"runtime_data": RUNTIME_DATA})),
    "combined": post("/attest/combined", json.dumps({"runtime_data": RUNTIME_DATA})),
    "derive": "".join(
        post("/key/derive", json.dumps({"context": text})) + "; " for text in ("", "YQ==", "Yg==", "YQ==")
    )
    + "true",
    "evidence": f"wget -q -O- '{LOCAL}:8006/aa/evidence?runtime_data=abc%20+d' 2>&1",
    "unconfigured": raw("GET /aa/token?token_type=kbs HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n", 8006),
    "oversize": "(printf 'POST /attest/raw HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 99999999\\r\\n\\r\\n';"
    " head -c 200000 /dev/zero) | nc 127.0.0.1 8080; head -c 300000 /dev/zero | nc 127.0.0.1 8080",
    "slow": "for i in $(seq 20); do (printf 'POST /attest'; sleep 100) | nc 127.0.0.1 8080 > /dev/null 2>&1 & done;"
    f" sleep 2; wget -q -O- {LOCAL}:8080/status 2>&1; kill $(jobs -p)",
}


def command(name: str) -> list[str]:
    return ["/bin/sh", "-c", SCRIPTS[name]]


def build_client(directory: Path) -> bytes:
    target = directory / "client"
    options = ["-O1", "-static", "-nostdlib", "-ffreestanding", "-fno-builtin", "-fno-stack-protector"]
    subprocess.run([str(COMPILER), *options, "-o", str(target), str(CLIENT)], check=True)
    return target.read_bytes()


class Attested:
    """A VM with containers that may reach different things, each asleep."""

    def __init__(self, guest: vm.Guest, processor: vm.SecureProcessor, policy: bytes) -> None:
        self.guest = guest
        self.processor = processor
        self.policy = policy
        self._execs = 0

    def run(self, name: str, container: str = ALL) -> str:
        """What one of the scripts prints there."""
        self._execs += 1
        exec_id = f"e{self._execs}"
        request = pb.ExecProcessRequest(container_id=container, exec_id=exec_id, process=vm.process(command(name)))
        self.guest.call("ExecProcess", request)
        out = self.guest.read_all(container, exec_id=exec_id)
        self.guest.wait(container, exec_id)
        return out.decode()

    def verify(self, report: bytes, report_data: bytes, **options: Any) -> Any:
        """As a relying party does, with both flags for emulation."""
        evidence = Evidence(
            "emulated",
            policy=self.policy,
            report=report,
            certificates=self.processor.authority.certificate_chain,
            report_data=report_data,
        )
        root = emulated_root(load_root(self.processor.authority.root_file.read_bytes()))
        expected = Expected(
            host_data=hashlib.sha256(self.policy).digest(), measurement=bytes(48), report_data=report_data
        )
        options = {"roots": root, "allow_emulated": True, **options}
        return verify_evidence(evidence, now=datetime.now(UTC), expected=expected, **options)

    def refuses(self, report: bytes, report_data: bytes, **options: Any) -> bool:
        try:
            return not self.verify(report, report_data, **options).accepted
        except SnpError:
            return True


@pytest.fixture(scope="module")
def attested(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attested]:
    directory = tmp_path_factory.mktemp("attested")
    layer = vm.write_layer(directory / "layer", vm.layer_tar({"client": build_client(directory)}, busybox=True))
    wishes: dict[str, list[str] | None] = {ALL: list(NAMES), NOTHING: [], CLOUD: None, RAW: ["/attest/raw"]}
    execs = [{"command": command(name), "signals": []} for name in SCRIPTS]
    objects = []
    for container, wish in wishes.items():
        item = vm.container_object([layer], sleep(container), exec_processes=execs, attestation=wish)
        objects.append({key: value for key, value in item.items() if value is not None})
    policy = vm.policy_text(*objects)
    with vm.running(directory / "vm", [directory / "layer"], tee="emulated") as guest:
        processor = vm.SecureProcessor(directory / "keys", hashlib.sha256(policy).digest())
        processor.serve(guest)
        guest.set_policy(policy)
        guest.call("PutEndorsements", endorsements(processor))
        target = guest.mount_layer(0, layer)
        for container in wishes:
            guest.call("MountScratch", pb.MountScratchRequest(container_id=container, memory_bytes=16 << 20))
            guest.call("MountOverlay", pb.MountOverlayRequest(container_id=container, layer_targets=[target]))
            guest.create(sleep(container), container=container)
            guest.start(container)
        yield Attested(guest, processor, policy)


def sleep(container: str) -> list[str]:
    return ["/bin/sleep", "1000" + str(int(container[:2], 16))]


def endorsements(processor: vm.SecureProcessor) -> pb.PutEndorsementsRequest:
    chain = CertificateChain.from_pem(processor.authority.certificate_chain.encode())
    report = snp_report.parse(
        processor.authority.sign_report(
            report_data=bytes(64), host_data=bytes(32), measurement=bytes(48), report_id=bytes(32)
        )
    )
    cert = base64.b64decode(hostcert.encode(chain, report))
    return pb.PutEndorsementsRequest(host_amd_cert=cert, reference_info=REFERENCE_INFO)


def client(line: str) -> tuple[int, int, bytes, int, bytes]:
    """What the client printed: result, exitinfo2, response, certs_len, the certificate buffer's beginning."""
    result, exit_info, response, length, certs = line.split(" ")
    return (
        int(result),
        int.from_bytes(bytes.fromhex(exit_info), "little"),
        bytes.fromhex(response),
        int(length),
        bytes.fromhex(certs),
    )


def report_of(response: bytes) -> bytes:
    assert response[:8] == (0).to_bytes(4, "little") + (1184).to_bytes(4, "little")
    assert not any(response[32 + 1184 :])
    return response[32 : 32 + 1184]


@pytest.mark.parametrize("container", [ALL, CLOUD])
def test_an_unmodified_client_gets_reports_that_verify(attested: Attested, container: str) -> None:
    plain, vmpl1, extended, sized = map(client, attested.run("client", container).splitlines())
    assert [entry[0] for entry in (plain, vmpl1, extended)] == [0, 0, 0]
    verdict = attested.verify(report_of(plain[2]), REPORT_DATA)
    assert verdict.accepted
    assert verdict.emulated
    # Without the two flags it is worth nothing.
    for flags in ({"allow_emulated": False}, {"roots": AMD}, {"allow_emulated": False, "roots": AMD}):
        assert attested.refuses(report_of(plain[2]), REPORT_DATA, **flags)
    assert snp_report.parse(report_of(vmpl1[2])).vmpl == 1
    assert [entry.name for entry in certtable.parse(extended[4])] == ["VCEK", "ASK", "ARK"]
    assert attested.verify(report_of(extended[2]), REPORT_DATA).accepted
    assert (sized[0], sized[1], sized[3]) == (-errno.EIO, 1 << 32, 8192)  # INVALID_LEN, and how much it takes


def test_the_device_takes_whatever_a_container_throws_at_it(attested: Attested) -> None:
    answers = dict(line.split(" ", 1) for line in attested.run("hostile").splitlines())
    results = {name: client(rest)[0] for name, rest in answers.items()}
    assert results == {
        "vmpl4": -errno.EIO,
        "key": -errno.ENOTTY,
        "odd": -errno.ENOTTY,
        "version": -errno.EINVAL,
        "bad-argument": -errno.EFAULT,
        "bad-request": -errno.EFAULT,
        "bad-response": -errno.EFAULT,
        "kernel-response": -errno.EFAULT,
        "read": -errno.EINVAL,
        "write": -errno.EINVAL,
        "report": 0,
    }
    assert not any(client(answers["key"])[2])
    flooded = client(attested.run("flood").strip())
    assert report_of(flooded[2])[0x50:0x90] == REPORT_DATA


def test_the_security_context_directory_has_what_sidecars_read(attested: Attested) -> None:
    for container in (ALL, CLOUD):
        files = dict(line.split(" ", 1) for line in attested.run("files", container).splitlines())
        assert base64.b64decode(files["security-policy-base64"]) == attested.policy
        assert base64.b64decode(files["reference-info-base64"]) == REFERENCE_INFO
        assert "emulated" in files["emulated"]
        certificates = hostcert.parse(files["host-amd-cert-base64"].encode())
        assert certificates.tcbm == bytes(8)
        assert certificates.chain.to_pem().strip() == attested.processor.authority.certificate_chain.strip()
        assert set(files) == {"security-policy-base64", "reference-info-base64", "host-amd-cert-base64", "emulated"}


def test_only_containers_that_the_policy_lets_see_any_of_it(attested: Attested) -> None:
    everything = attested.run("look")
    assert "UVM_SECURITY_CONTEXT_DIR=/security-context-" in everything
    assert "PARMA_EMULATED=1" in everything
    assert re.search(r"^crw-rw-rw- .* /dev/sev-guest$", everything, re.MULTILINE)
    assert set(re.findall(r"127\.0\.0\.1:(\d+)", everything)) == {"8006", "8080"}

    cloud = attested.run("look", CLOUD)
    assert "UVM_SECURITY_CONTEXT_DIR=/security-context-" in cloud
    assert "/dev/sev-guest" in cloud
    assert "tcp" not in cloud

    raw_only = attested.run("look", RAW)
    assert re.findall(r"127\.0\.0\.1:(\d+)", raw_only) == ["8080"]
    for seen in (raw_only, attested.run("look", NOTHING)):
        assert not re.search("sev|security-context|UVM|EMULATED|parma", seen, re.IGNORECASE)
    assert "tcp" not in attested.run("look", NOTHING)
    assert attested.run("client", NOTHING).split() == ["-2"] * 4  # ENOENT
    assert "Connection refused" in attested.run("raw", NOTHING)
    assert "403 Forbidden" in attested.run("derive", RAW)


def test_the_sidecars_endpoints_answer_in_their_shape(attested: Attested) -> None:
    digest = hashlib.sha256(b"runtime data").digest()
    for container in (ALL, RAW):
        document = json.loads(attested.run("raw", container))
        assert attested.verify(bytes.fromhex(document["report"]), digest + bytes(32)).accepted
    combined = json.loads(attested.run("combined"))
    assert attested.verify(base64.b64decode(combined["evidence"]), digest + bytes(32)).accepted
    assert combined["endorsed_tcb"] == "0000000000000000"
    chain = base64.b64decode(combined["endorsements"]).decode()
    assert chain.strip() == attested.processor.authority.certificate_chain.strip()
    assert base64.b64decode(combined["uvm_endorsements"]) == REFERENCE_INFO
    again = json.loads(combined["combined_report"])
    assert sorted(again) == ["endorsed_tcb", "endorsements", "evidence", "uvm_endorsements"]


def test_the_api_servers_endpoints_answer_or_say_what_is_missing(attested: Attested) -> None:
    document = json.loads(attested.run("evidence"))
    assert bytes(document["attestation_report"]["report_data"]) == b"abc  d".ljust(64, b"\0")
    assert document["cert_chain"][0]["cert_type"] == "VCEK"
    unconfigured = attested.run("unconfigured")
    assert unconfigured.startswith("HTTP/1.1 501 ")
    assert "not configured" in unconfigured


def test_derived_keys_are_the_containers_own(attested: Attested) -> None:
    none, one, other, again = (json.loads(line)["key"] for line in attested.run("derive").splitlines())
    assert len({none, one, other}) == 3
    assert one == again
    key = attested.processor.authority.derive_key(fields=9, measurement=bytes(48))
    # What the enforcer's root key is must not be among them.
    assert base64.b64encode(key).decode() not in (none, one, other)
    assert len(base64.b64decode(one)) == 32


def test_large_and_slow_requests_are_cut_off_and_others_still_served(attested: Attested) -> None:
    answers = attested.run("oversize")
    assert "HTTP/1.1 413" in answers
    assert "HTTP/1.1 431" in answers
    assert json.loads(attested.run("slow")) == {"message": "Status OK"}
    attested.guest.call("Evidence", pb.EvidenceRequest(nonce=bytes(64)))  # and the enforcer never noticed
