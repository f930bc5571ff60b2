# SPDX-License-Identifier: Apache-2.0
"""What of attestation a policy lets a container reach, and what keys derived for it are bound to."""

from __future__ import annotations

import pytest

from parma_policy.attestation import CLOUD_DEFAULT, DEVICE, KEY_DERIVE, NAMES
from parma_policy.framework import Decision
from parma_policy.generate import Image, Wish, container_for, generate
from parma_policy.reader import load
from parma_wire.errors import Malformed
from tests.policy.builders import LAYERS, Json, Talk, code, container, creation, policy, text


def create(*containers: Json, **changes: object) -> Decision:
    return Talk(policy(*containers)).prepared().ask("create_container", creation(**changes))


def identity(*containers: Json) -> bytes:
    return create(*containers).identity


def test_a_container_reaches_what_the_policy_lists() -> None:
    decision = create(container(attestation=["/attest/raw", DEVICE]))
    assert decision.attestation == {"/attest/raw", DEVICE}
    assert decision.identity == b""


def test_an_empty_list_is_nothing() -> None:
    assert create(container(attestation=[])).attestation == frozenset()


def test_a_policy_that_says_nothing_is_one_for_the_cloud() -> None:
    assert create(container()).attestation == CLOUD_DEFAULT


def test_the_cloud_gives_nothing_to_a_sandbox_container() -> None:
    assert create(container(), isSandboxContainer=True).attestation == frozenset()
    listed = container(attestation=[DEVICE])
    assert create(listed, isSandboxContainer=True).attestation == {DEVICE}


@pytest.mark.parametrize("value", ["/attest/raw", ["/attest/RAW"], ["/attest"], [5], [DEVICE, DEVICE], None, {}])
def test_other_values_are_refused(value: object) -> None:
    with pytest.raises(Malformed, match="attestation"):
        load(text(container(attestation=value)).encode())


def test_containers_that_differ_in_what_they_reach_leave_no_answer() -> None:
    decision = create(container(attestation=[DEVICE]), container(attestation=[]))
    assert code(decision) == "attestation_undecidable"


def test_a_cloud_container_beside_one_that_lists_the_same_is_decided() -> None:
    assert create(container(), container(attestation=sorted(CLOUD_DEFAULT))).allowed


def test_a_denied_container_reaches_nothing() -> None:
    decision = create(container(attestation=list(NAMES)), workingDir="/elsewhere")
    assert not decision.allowed
    assert not decision.attestation
    assert not decision.identity


KEYS = container(attestation=[KEY_DERIVE])


def test_an_identity_is_of_the_definition_and_not_of_its_labels_or_place() -> None:
    first = identity(KEYS)
    assert len(first) == 32
    assert identity({**KEYS, "name": "x", "id": "y"}) == first
    assert identity(container(attestation=[], command=["/other"]), KEYS) == first
    assert identity(KEYS, KEYS) == first


@pytest.mark.parametrize(
    "change",
    [{"signals": [9]}, {"exec_processes": []}, {"allow_elevated": True}, {"env_rules": KEYS["env_rules"][:1]}],
)
def test_any_other_difference_is_another_identity(change: Json) -> None:
    assert identity({**KEYS, **change}) != identity(KEYS)


def test_containers_with_different_keys_leave_no_answer() -> None:
    assert code(create(KEYS, {**KEYS, "signals": [9]})) == "attestation_undecidable"


def test_identity_does_not_depend_on_platform_rules() -> None:
    plain = identity(KEYS)
    rules = [{"env_rules": [{"pattern": "A=.*", "strategy": "re2", "required": False}]}]
    talk = Talk(policy(KEYS, platform_rules=rules)).prepared()
    assert talk.ask("create_container", creation()).identity == plain


def test_generated_policies_allow_only_what_was_asked_for() -> None:
    image = Image({"Cmd": ["/bin/app"]}, LAYERS)
    for wish, expected in ((Wish(), []), (Wish(attestation=(KEY_DERIVE, DEVICE)), [DEVICE, KEY_DERIVE])):
        loaded = load(generate([container_for(image, wish)]).encode())
        assert loaded.containers.containers[0].attestation == frozenset(expected)
    with pytest.raises(Malformed, match="nothing to reach"):
        generate([{**container_for(image, Wish()), "attestation": ["/etc"]}])
