# SPDX-License-Identifier: Apache-2.0
"""Evidence of a live container: what a relying party accepts, and each single thing that makes it refuse."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from devtool import paths
from devtool.containerd import PrivateContainerd
from parma_image.sign import sign_image
from parma_snp import measure
from parma_snp.endorsement import FEED
from tests.e2e.conftest import VERSIONS
from tests.e2e.host import Host, wait_until
from tests.snp.pki import SIGNED_AT, Issuer, make_issuer

pytestmark = pytest.mark.e2e

SLEEP = ("/bin/sleep", "600")
NONCE = os.urandom(64).hex()
SVN = 3
MANIFEST = paths.IMAGE / "manifest.json"


@dataclass(frozen=True)
class Party:
    """A relying party with evidence of one container. It knows the image's files and the policy from elsewhere."""

    host: Host
    evidence: Path
    policy: Path

    @property
    def root(self) -> Path:
        return self.host.daemon.data / "emulated/root.pem"

    def measurement(self, **changes: Any) -> str:
        """Predicted from the image's files, not read from anywhere."""
        files = {name: paths.IMAGE / json.loads(MANIFEST.read_text())[name]["file"] for name in FILES}
        shape = {"cmdline": json.loads(MANIFEST.read_text())["cmdline"]["emulated"], "vcpus": 1, **files, **changes}
        (row,) = measure.measurement_table(
            shape["firmware"],
            shape["kernel"],
            shape["initrd"],
            shape["cmdline"],
            vcpu_types=(measure.DEFAULT_VCPU_TYPE,),
            vcpu_counts=(shape["vcpus"],),
        )
        return row.digest.hex()

    def verify(
        self,
        *demands: str,
        policy: Path | None = None,
        nonce: str = NONCE,
        measurement: str = "",
        emulated: bool = True,
    ) -> Any:
        """The verdict of ``parma verify``; its exit code says the same."""
        demands = ("--measurement", measurement) if measurement else demands
        flags = ("--allow-emulated", "--emulated-root", self.root) if emulated else ()
        done = subprocess.run(
            [
                *(paths.VENV / "bin/parma", "verify", self.evidence, "--policy", policy or self.policy),
                *("--nonce", nonce, *demands, "--json", *flags),
            ],
            capture_output=True,
            text=True,
            timeout=120,
        )
        verdict = json.loads(done.stdout)
        assert done.returncode == (0 if verdict["accepted"] else 1)
        return verdict


FILES = ("firmware", "kernel", "initrd")


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    """Of the image's endorsements; its certificates are of last year."""
    return make_issuer()


@pytest.fixture(scope="module")
def party(archives: dict[str, Path], issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Party]:
    """Evidence of a running container in an endorsed image, fetched for a nonce of ours."""
    image = tmp_path_factory.mktemp("image")
    for path in paths.IMAGE.iterdir():
        (image / path.name).symlink_to(path)
    sign_image(image, issuer.signer, predicate="subject:CN", svn=SVN, feed=FEED, signed_at=SIGNED_AT)
    evidence = tmp_path_factory.mktemp("party") / "evidence.json"
    with host_with(archives, image_dir=str(image)) as host:
        policy = host.policy(SLEEP)
        done = host.run("attested", SLEEP, "--detach", policy=policy)
        assert done.returncode == 0, done.stderr
        host.parma("evidence", "attested", "--wait", "60", "--nonce", NONCE, "--out", evidence)
        yield Party(host, evidence, policy)
        host.remove("attested")


def codes(verdict: Any) -> list[str]:
    return [failure["code"] for failure in verdict["failures"]]


def test_it_is_accepted_as_emulated_with_both_flags(party: Party) -> None:
    verdict = party.verify(measurement=party.measurement())
    assert (verdict["accepted"], verdict["emulated"], verdict["unchecked"]) == (True, True, [])


def test_without_the_flags_it_is_refused(party: Party) -> None:
    assert codes(party.verify(measurement=party.measurement(), emulated=False)) == ["emulated.not_allowed"]


@pytest.mark.parametrize("flag", ["--allow-emulated", "--emulated-root"])
def test_one_flag_is_not_enough(party: Party, flag: str) -> None:
    flags = [flag, str(party.root)] if flag == "--emulated-root" else [flag]
    command: list[str | Path] = [paths.VENV / "bin/parma", "verify", party.evidence, "--policy", party.policy]
    command += ["--nonce", NONCE, "--measurement", party.measurement(), *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "go together" in done.stderr


def test_another_nonce_is_refused(party: Party) -> None:
    verdict = party.verify(measurement=party.measurement(), nonce=os.urandom(64).hex())
    assert codes(verdict) == ["appraise.report_data"]


def test_another_policy_is_refused(party: Party) -> None:
    other = party.host.policy(("/bin/sleep", "601"))
    assert codes(party.verify(measurement=party.measurement(), policy=other)) == ["appraise.host_data"]


@pytest.mark.parametrize("what", [*FILES, "cmdline", "vcpus"])
def test_another_image_command_line_or_shape_is_refused(party: Party, what: str, tmp_path: Path) -> None:
    changed: Any = {"cmdline": "console=ttyS0", "vcpus": 2}.get(what)
    if what in FILES:
        name = json.loads(MANIFEST.read_text())[what]["file"]
        data = bytearray((paths.IMAGE / name).read_bytes())
        data[len(data) // 2] ^= 1
        changed = tmp_path / name
        changed.write_bytes(data)
    verdict = party.verify(measurement=party.measurement(**{what: changed}))
    assert codes(verdict) == ["appraise.measurement"]


@pytest.mark.parametrize(("least", "failures"), [(SVN, []), (SVN + 1, ["uvm.svn"])], ids=["enough", "too old"])
def test_the_images_issuer_and_version_do_instead_of_a_digest(
    party: Party, issuer: Issuer, least: int, failures: list[str]
) -> None:
    verdict = party.verify("--endorser", issuer.did, "--min-svn", str(least))
    assert (codes(verdict), verdict["accepted"]) == (failures, not failures)


def test_evidence_fetched_again_is_new(party: Party, tmp_path: Path) -> None:
    nonce = os.urandom(64).hex()
    again = tmp_path / "again.json"
    party.host.parma("evidence", "attested", "--nonce", nonce, "--out", again)
    fresh = Party(party.host, again, party.policy)
    assert fresh.verify(measurement=fresh.measurement(), nonce=nonce)["accepted"]
    assert codes(fresh.verify(measurement=fresh.measurement())) == ["appraise.report_data"]


# The emulated processor has no firmware level at all, so that any demanded one is too much.
TOO_MUCH = {"minimum_tcb": "snp=1"}


def test_a_vm_whose_evidence_does_not_verify_is_shown_as_failed_and_starts_no_container(
    archives: dict[str, Path], name: str, tmp_path: Path
) -> None:
    with host_with(archives, **TOO_MUCH) as host:
        log = tmp_path / "events"
        with log.open("wb") as output, host.daemon.popen("events", stdout=output) as events:
            done = host.run(name, SLEEP, "--detach")
            assert done.returncode != 0
            assert "appraise.min_tcb" in done.stderr
            wait_until(lambda: "/parma/denied" in log.read_text(), "the event")
            events.kill()
        wait_until(lambda: label(host, name) == "failed", "the label of a container that never ran")
        host.remove(name)


def test_where_that_is_only_reported_it_is_shown_as_failed(
    archives: dict[str, Path], name: str, tmp_path: Path
) -> None:
    log = tmp_path / "events"
    with host_with(archives, **TOO_MUCH, attestation="reported") as host:
        with log.open("wb") as output, host.daemon.popen("events", stdout=output) as events:
            done = host.run(name, SLEEP, "--detach")
            assert done.returncode == 0, done.stderr
            wait_until(lambda: "/parma/denied" in log.read_text(), "the event")
            events.kill()
        wait_until(lambda: label(host, name) == "failed", "the label")
        status = ("status", "--json", "--config", str(host.daemon.parma_config), name)
        shown = subprocess.run([paths.VENV / "bin/parma", *status], capture_output=True, text=True, timeout=60)
        assert shown.returncode == 1
        assert json.loads(shown.stdout)["failures"][0]["code"] == "appraise.min_tcb"
        host.remove(name)


def label(host: Host, name: str) -> str | None:
    """What containerd says of a container's attestation."""
    labels = json.loads(host.daemon.ctr("container", "info", name).stdout)["Labels"]
    found: str | None = labels.get("io.parma.attestation")
    return found


@contextmanager
def host_with(archives: dict[str, Path], **settings: str) -> Iterator[Host]:
    """A containerd whose shim has these settings."""
    with PrivateContainerd(paths.PREFIX / VERSIONS[0], parma_config=settings) as daemon:
        for archive in archives.values():
            assert daemon.ctr("image", "import", archive).returncode == 0
        yield Host(daemon, archives)
