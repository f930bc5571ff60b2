# SPDX-License-Identifier: Apache-2.0
"""A container that only a signed fragment allows, in a real VM."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from parma_policy.signed.authoring import FragmentTerms, fragment_rule, sign_fragment
from parma_wire import guest_pb2 as pb
from parma_wire.errors import Denied, FailedPrecondition
from tests.cose.chains import EKU, NOW, Authority, authority, shared_authority
from tests.guest import vm_harness as vm

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(bool(vm.missing()), reason=vm.missing()),
    pytest.mark.timeout(300),
]

FEED = "registry.example/app"
COMMAND = ["/bin/sh", "-c", "echo from a fragment; exit 3"]


def fragment(container: object, svn: int, by: Authority, feed: str = FEED) -> bytes:
    lines = ["package app", f"svn := {svn}", 'framework_version := "0.5.0"', f"containers := {json.dumps([container])}"]
    terms = FragmentTerms(feed, predicate=f"eku:{EKU}", svn=svn, signing_time=NOW)
    return sign_fragment("\n".join([*lines, ""]).encode(), by.signer, terms)


def test_a_container_runs_only_with_the_fragment_that_the_policy_names(tmp_path: Path) -> None:
    layer = vm.write_layer(tmp_path / "base", vm.layer_tar({}, busybox=True))
    container = vm.container_object([layer], COMMAND)
    good = fragment(container, 2, shared_authority())
    policy = vm.policy_text(fragments=[fragment_rule(good)])
    with vm.running(tmp_path / "vm", [tmp_path / "base"]) as guest:
        guest.set_policy(policy)
        with pytest.raises(Denied, match="mount_device denied"):
            guest.mount_layer(0, layer)
        with pytest.raises(Denied, match="svn is below the specified minimum"):
            guest.load_fragment(fragment(container, 1, shared_authority()))
        with pytest.raises(Denied, match="no fragment of issuer"):
            guest.load_fragment(fragment(container, 2, authority()))
        with pytest.raises(Denied, match="no fragment of feed"):
            guest.load_fragment(fragment(container, 2, shared_authority(), "registry.example/other"))
        with pytest.raises(FailedPrecondition, match="signature is wrong"):
            guest.load_fragment(good[:-1] + bytes([good[-1] ^ 1]))
        with pytest.raises(Denied, match="mount_device denied"):
            guest.mount_layer(0, layer)

        guest.load_fragment(good)
        guest.prepare([(0, layer)])
        guest.create(COMMAND)
        guest.start()
        assert guest.read_all(vm.CONTAINER, pb.STDOUT) == b"from a fragment\n"
        assert guest.wait() == 3
