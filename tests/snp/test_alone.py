# SPDX-License-Identifier: Apache-2.0
"""A relying party installs ``parma[snp]`` only: nothing of the host's or the tools' dependencies is there."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from parma_snp.evidence import Evidence
from tests.snp.conftest import MEASUREMENT, REPORT_DATA, Emulated

ROOT = Path(__file__).resolve().parents[2]
POLICY = b"package policy\n"
ROOMS = ("cose", "guest", "guest/image", "policy", "shim", "snp", "ttrpc", "wire")
"""One distribution carries all of our code; its extras say what else is installed."""
LIBRARY = ("cose", "snp")
"""What the verifier itself consists of."""


def closure(extra: str) -> set[str]:
    """The distributions that ``parma[extra]`` brings along."""
    wanted = {name for name, marker in _requirements("parma") if f'extra == "{extra}"' in marker.replace("'", '"')}
    found: set[str] = set()
    while wanted - found:
        name = min(wanted - found)
        found.add(name)
        wanted |= {needed for needed, marker in _requirements(name) if "extra" not in marker}
    return found


def _requirements(name: str) -> list[tuple[str, str]]:
    try:
        lines = metadata.requires(name) or []
    except metadata.PackageNotFoundError:  # for another platform or Python
        return []
    return [(re.split(r"[^A-Za-z0-9._-]", line)[0], line.partition(";")[2]) for line in lines]


@pytest.fixture(scope="module")
def third_party(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with exactly these distributions."""
    folder = tmp_path_factory.mktemp("site")
    for name in closure("snp"):
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        for entry in {file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "/")}:
            (folder / entry).symlink_to(Path(str(distribution.locate_file(entry))))
    return folder


@pytest.fixture
def files(emulated: Emulated, tmp_path: Path) -> Path:
    report = emulated.authority.sign_report(
        report_data=REPORT_DATA,
        host_data=Evidence("none", POLICY).policy_sha256,
        measurement=MEASUREMENT,
        report_id=bytes(32),
    )
    evidence = Evidence("emulated", POLICY, report, emulated.authority.certificate_chain, REPORT_DATA)
    (tmp_path / "evidence.json").write_text(evidence.dumps())
    (tmp_path / "policy.rego").write_bytes(POLICY)
    (tmp_path / "root.pem").write_bytes(emulated.authority.root_file.read_bytes())
    return tmp_path


def run(third_party: Path, rooms: tuple[str, ...], code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A bare interpreter that finds these rooms and these distributions, and nothing else."""
    path = [*(str(ROOT / room) for room in rooms), str(third_party)]
    program = f"import sys; sys.path[:0] = {path!r}; {code}"
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, *arguments], capture_output=True, text=True, timeout=60
    )


def verify_arguments(files: Path) -> list[str]:
    return [
        *("verify", str(files / "evidence.json"), "--policy", str(files / "policy.rego")),
        *("--measurement", MEASUREMENT.hex(), "--report-data", REPORT_DATA.hex(), "--at", "2026-01-01"),
        *("--allow-emulated", "--emulated-root", str(files / "root.pem"), "--explain"),
    ]


def test_the_extra_brings_what_its_documentation_says() -> None:
    names = closure("snp")
    assert {"cryptography", "sev-snp-measure"} <= names
    assert names & {"cbor2", "protobuf", "grpcio", "google-re2", "PyYAML"} == set()


def test_the_command_works_with_it_alone(third_party: Path, files: Path) -> None:
    code = "from parma_shim.cli import main; sys.exit(main(sys.argv[1:]))"
    done = run(third_party, ROOMS, code, *verify_arguments(files))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ACCEPTED (EMULATED")
    helped = run(third_party, ROOMS, code, "--help")
    assert helped.returncode == 0
    assert "verify" in helped.stdout


def test_the_library_needs_no_other_room(third_party: Path, files: Path) -> None:
    code = (
        "import argparse; from parma_snp.cli import add_snp_commands; import parma_snp.endorsement, parma_snp.measure; "
        "parser = argparse.ArgumentParser(); add_snp_commands(parser.add_subparsers()); "
        "options = parser.parse_args(sys.argv[1:]); sys.exit(options.run(options))"
    )
    done = run(third_party, LIBRARY, code, *verify_arguments(files))
    assert (done.returncode, done.stderr) == (0, "")
