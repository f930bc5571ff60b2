# SPDX-License-Identifier: Apache-2.0
"""Files that the host provides, a network, and ports: what only Parma's guest asks."""

from __future__ import annotations

from typing import Any

import pytest

from parma_policy.reader import load
from parma_wire.errors import Malformed
from tests.policy.builders import ID, SANDBOX, Talk, container, creation, policy, text

DIGEST, OTHER = "d" * 64, "e" * 64
SOURCE = f"{SANDBOX}/volumes/configmap/settings"


def mount(**changes: Any) -> dict[str, Any]:
    return {
        "destination": "/settings",
        "source": "sandbox:///volumes/configmap/settings",
        "type": "bind",
        "options": ["rbind", "ro"],
        **changes,
    }


def talk(*mounts: dict[str, Any], **flags: Any) -> Talk:
    """With one container for each mount."""
    made = [container(mounts=[item], command=["/bin/app", str(n)]) for n, item in enumerate(mounts)]
    return Talk(policy(*made, **flags)).prepared()


def provide(talk: Talk, digest: str = DIGEST, *, update: bool = False, source: str = SOURCE) -> Any:
    files = [{"path": "a", "sha256": digest}]
    return talk.ask("provide_files", containerID=ID, sandboxDir=SANDBOX, source=source, files=files, update=update)


def asked(command: str = "0") -> dict[str, Any]:
    given = {name: value for name, value in mount(source=SOURCE).items() if name in ("destination", "type", "options")}
    return creation(argList=["/bin/app", command], mounts=[{**given, "source": SOURCE}])


def test_a_source_that_some_container_mounts_may_be_filled_once() -> None:
    talking = talk(mount())
    assert provide(talking).allowed
    assert talking.ask("create_container", asked()).allowed
    assert not provide(talking, OTHER).allowed
    assert provide(talking).allowed  # the same again changes nothing


def test_no_other_source_may() -> None:
    decision = provide(talk(mount()), source=f"{SANDBOX}/volumes/configmap/other")
    assert not decision.allowed
    assert decision.message() == (
        f'provide_files denied: no container mounts "{SANDBOX}/volumes/configmap/other"; to allow it, mounts of a '
        "container would have to list it [provided_source]"
    )
    assert decision.topics() == ("",)  # the reference knows no such point
    assert not provide(talk(mount(type="tmpfs"))).allowed
    assert not provide(talk(mount(source="sandbox:///.+")), source=f"{SANDBOX}/a/../b").allowed


def test_pinned_content_is_provided_as_it_is_or_not_at_all() -> None:
    talking = talk(mount(sha256={"a": DIGEST}))
    assert not talking.ask("create_container", asked()).allowed  # nothing is there
    decision = provide(talking, OTHER)
    place = "containers[0].mounts[0]"
    assert decision.message() == (
        f'provide_files denied: the files for "{SOURCE}" are not those that the policy knows; to allow it, '
        f"{place}.sha256 would have to be another [provided_content at {place}]"
    )
    assert decision.topics() == ("",)
    assert provide(talking).allowed
    assert talking.ask("create_container", asked()).allowed
    assert not provide(talking, OTHER, update=True).allowed


def test_one_containers_promise_holds_for_all() -> None:
    talking = talk(mount(updates=True), mount(sha256={"a": DIGEST}))
    assert not provide(talking, OTHER).allowed
    assert provide(talking).allowed
    assert talking.ask("create_container", asked()).allowed
    assert not provide(talking, OTHER, update=True).allowed


def test_updates_are_for_the_policy_to_allow() -> None:
    talking = talk(mount(updates=True))
    assert provide(talking).allowed
    assert provide(talking, OTHER, update=True).allowed
    both = talk(mount(updates=True), mount(destination="/other"))
    assert provide(both).allowed
    decision = provide(both, OTHER, update=True)
    place = "containers[1].mounts[0]"
    assert decision.message() == (
        f'provide_files denied: the files for "{SOURCE}" cannot be changed; to allow it, {place}.updates would have '
        f"to be true [provided_update at {place}]"
    )
    assert decision.topics() == ("",)


def test_pinned_content_may_come_as_an_update() -> None:
    assert provide(talk(mount(sha256={"a": DIGEST})), update=True).allowed


def test_mounts_of_platform_rules_are_named_as_such() -> None:
    rules = [{"mounts": [mount(sha256={"a": DIGEST})]}]
    decision = provide(Talk(policy(platform_rules=rules)), OTHER)
    assert decision.message().endswith("[provided_content at platform_rules]")


@pytest.mark.parametrize(
    "changes",
    [
        {"sha256": "D" * 64},
        {"sha256": "d" * 63},
        {"sha256": {}},
        {"sha256": {"../a": DIGEST}},
        {"sha256": {"/a": DIGEST}},
        {"sha256": {"a": 5}},
        {"sha256": DIGEST, "updates": True},
        {"updates": "yes"},
        {"sha512": DIGEST},
    ],
)
def test_what_makes_no_sense_is_refused_by_the_reader(changes: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        load(text(container(mounts=[mount(**changes)])).encode())


def test_a_network_is_allowed_unless_the_policy_says_otherwise() -> None:
    assert Talk(policy()).ask("configure_network", {}).allowed
    decision = Talk(policy(allow_network=False)).ask("configure_network", {})
    assert not decision.allowed
    assert "allow_network would have to be true" in decision.message()


def test_a_port_is_denied_unless_the_policy_lists_it() -> None:
    listed = Talk(policy(forward_ports=[8080, 9]))
    assert listed.ask("forward_port", port=8080).allowed
    for talk, port in ((listed, 8081), (listed, 0), (Talk(policy()), 8080)):
        decision = talk.ask("forward_port", port=port)
        assert not decision.allowed
        assert f"may not connect to this port of the containers' loopback: got {port}" in decision.message()
        assert "forward_ports would have to list it" in decision.message()
        assert decision.topics() == ("",)


def test_a_policy_for_the_cloud_forwards_nothing() -> None:
    assert not load(text(container(), forward_ports=[80]).encode(), parity=True).forward_ports


@pytest.mark.parametrize("ports", [80, ["80"], [0], [65536], [-1], [80.5], [True], [*range(1, 1002)]])
def test_ports_that_are_none_are_refused_by_the_reader(ports: object) -> None:
    with pytest.raises(Malformed):
        load(text(container(), forward_ports=ports).encode())
