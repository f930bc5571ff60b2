# SPDX-License-Identifier: Apache-2.0
"""A permissive policy shows wherever the attested-policy status does, and never as attested."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from parma_policy.points import closed_door
from parma_policy.reader import load
from parma_snp import status as statuses
from parma_snp.evidence import Evidence
from parma_snp.permissive import is_permissive
from parma_snp.verify import Verdict
from parma_wire.errors import Malformed

NOW = datetime(2026, 1, 2, tzinfo=UTC)
LINE = "permissive := true"


@pytest.mark.parametrize(
    "written",
    [LINE, f"{LINE}\r", "permissive := false", f"# {LINE}", "permissive = true", f" {LINE}", "permissive := true ", ""],
)
def test_whatever_the_reader_takes_for_permissive_is_found_in_the_text(written: str) -> None:
    for text in (f"{closed_door()}{written}\n", f"{closed_door()}{written}"):
        try:
            permissive = load(text.encode()).extensions.permissive
        except Malformed:
            continue
        assert is_permissive(text.encode()) == permissive


def status(policy: bytes, *, accepted: bool) -> statuses.Status:
    evidence = Evidence(tee="snp", policy=policy, report=bytes(1184))
    verdict = Verdict(checks=(), emulated=False, unchecked=(), authentic=accepted)
    return statuses.from_verdict(verdict, evidence, now=NOW)


def test_the_status_of_a_permissive_policy_says_so_and_never_attested() -> None:
    shown = status(f"package policy\n{LINE}\n".encode(), accepted=True)
    assert shown.verdict == "permissive"
    assert shown.to_json()["permissive"] is True
    assert "Permissive:     YES" in statuses.render(shown)
    assert statuses.parse(shown.dumps().encode()) == shown
    strict = status(b"package policy\n", accepted=True)
    assert (strict.verdict, strict.permissive) == ("attested", False)
    assert "Permissive" not in statuses.render(strict)


def test_what_does_not_verify_is_denied_and_says_it_all_the_same() -> None:
    shown = status(f"{LINE}\n".encode(), accepted=False)
    assert (shown.verdict, shown.permissive) == ("failed", True)
    assert statuses.unattested(bytes(32), now=NOW, permissive=True).permissive
