# SPDX-License-Identifier: Apache-2.0
"""The policy engine's modules, which are imported beside the server."""

from __future__ import annotations

import threading

import pytest

from parma_guest import decisions
from parma_guest.decisions import FrameworkEngine
from parma_wire.errors import ParmaError
from tests.policy.builders import ID, LAYERS, Json, container, creation, disk, rootfs, text


def test_no_policy_is_read_while_its_modules_are_being_imported() -> None:
    read = threading.Event()

    def load() -> None:
        with pytest.raises(ParmaError):
            decisions.FrameworkEngine(b"not a policy")
        read.set()

    with decisions._importing:  # as `preload` holds it
        loader = threading.Thread(target=load, daemon=True)
        loader.start()
        assert not read.wait(0.1)
    loader.join(30)
    assert read.is_set()


def test_preloading_leaves_nothing_to_import() -> None:
    decisions.preload()
    decisions.preload()
    with pytest.raises(ParmaError):
        decisions.FrameworkEngine(b"not a policy")


def test_a_created_container_reaches_what_the_policy_says() -> None:
    engine = FrameworkEngine(text(container(attestation=["/key/derive"])).encode())
    state = engine.initial_state()
    for number, layer in enumerate(LAYERS):
        verdict, state = engine.decide(state, "mount_device", {"target": disk(number), "deviceHash": layer})
    targets = [disk(number) for number in range(len(LAYERS))][::-1]
    overlay = {"containerID": ID, "layerPaths": targets, "target": rootfs()}
    verdict, state = engine.decide(state, "mount_overlay", overlay)
    assert not verdict.attestation
    verdict, state = engine.decide(state, "create_container", creation())
    assert verdict.attestation == {"/key/derive"}
    assert len(verdict.identity) == 32


@pytest.mark.parametrize(
    ("containers", "more", "wanted"),
    [
        ([container(attestation=[])], {}, False),
        ([container(attestation=["/key/derive", "/aa/token", "/attest/raw"])], {}, False),
        ([container(attestation=[]), container(attestation=["/attest/combined"])], {}, True),
        ([container()], {}, True),
        (
            [container(attestation=[])],
            {"fragments": [{"issuer": "i", "feed": "f", "minimum_svn": "1", "includes": ["containers"]}]},
            True,
        ),
    ],
)
def test_endorsements_are_wanted_where_a_container_could_pass_them_on(
    containers: list[Json], more: Json, wanted: bool
) -> None:
    assert FrameworkEngine(text(*containers, **more).encode()).wants_endorsements() is wanted
