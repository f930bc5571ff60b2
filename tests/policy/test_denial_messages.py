# SPDX-License-Identifier: Apache-2.0
"""What a denial tells the user whose request it was, word by word: what failed, what was expected and what came, what
would have to change, the code and the place in the policy."""

from __future__ import annotations

from typing import Any

import pytest

from parma_policy.framework import Kind
from parma_policy.framework.decision import MAX_MESSAGE, MAX_SHOWN, Reason, denied, shown
from tests.policy.builders import (
    SANDBOX,
    Json,
    Talk,
    capabilities,
    container,
    creation,
    execution,
    policy,
)

SOURCE = f"{SANDBOX}/tmp/empty/v"
MOUNT: Json = {"destination": "/data", "source": SOURCE, "type": "bind", "options": ["rw"]}
SHOWING: Json = {"denials_show_arguments": True, "denials_show_environment": True}


def create(request: Json, *containers: Json, **definitions: Any) -> str:
    """The message without its beginning."""
    decision = Talk(policy(*containers, **definitions)).prepared().ask("create_container", request)
    assert not decision.allowed
    return decision.message().removeprefix("create_container denied: ")


def variables(count: int) -> list[str]:
    return ["PATH=/usr/bin:/bin", *(f"V{number}=1" for number in range(count))]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"argList": ["/bin/sh"]},
            (
                'command is not the one in the policy, the program differs: expected "/bin/app" with 1 argument, '
                'got ["/bin/sh"]; to allow it, containers[0].command would have to be ["/bin/sh"], with the program as '
                "it was asked for [command at containers[0].command[0]]"
            ),
        ),
        (
            {"argList": ["/bin/app", "-x"]},
            (
                'command is not the one in the policy, argument 1 differs: expected "/bin/app" with 1 argument, '
                'got "/bin/app" with 1 argument; to allow it, containers[0].command would have to be "/bin/app" with 1 '
                "argument, with argument 1 as it was asked for [command at containers[0].command[1]]"
            ),
        ),
        (
            {"argList": ["/bin/app", "--serve", "-x"]},
            (
                'command is not the one in the policy, argument 2 differs: expected "/bin/app" with 1 argument, '
                'got "/bin/app" with 2 arguments; to allow it, containers[0].command would have to be "/bin/app" with '
                "2 arguments, with argument 2 as it was asked for [command at containers[0].command]"
            ),
        ),
        (
            {"workingDir": "/"},
            (
                'working directory is not the one in the policy: expected "/srv", got "/"; to allow it, '
                'containers[0].working_dir would have to be "/" [working_dir at containers[0].working_dir]'
            ),
        ),
        (
            {"noNewPrivileges": False},
            (
                "no_new_privileges is not set: expected true, got false; to allow it, containers[0].no_new_privileges "
                "would have to be false [no_new_privileges at containers[0].no_new_privileges]"
            ),
        ),
        (
            {"privileged": True},
            (
                "privileged is not allowed for this container: expected false, got true; to allow it, "
                "containers[0].allow_elevated would have to be true [privileged at containers[0].allow_elevated]"
            ),
        ),
        ({"devices": ["/dev/kvm"]}, 'host devices are not supported: expected none, got ["/dev/kvm"] [devices]'),
        (
            {"seccompProfileSHA256": "ab"},
            (
                "seccomp profile is not the one in the policy: expected no profile, got SHA-256 ab; to allow it, "
                'containers[0].seccomp_profile_sha256 would have to be "ab" '
                "[seccomp at containers[0].seccomp_profile_sha256]"
            ),
        ),
        (
            {"user": {"id": "0", "name": "root"}},
            (
                'user is not the one in the policy: expected id "1000", got 0 "root"; to allow it, '
                'containers[0].user.user_idname would have to accept 0 "root" [user at containers[0].user.user_idname]'
            ),
        ),
        (
            {"user": {"id": "0", "name": ""}},
            (
                'user is not the one in the policy: expected id "1000", got 0; to allow it, '
                "containers[0].user.user_idname would have to accept 0 [user at containers[0].user.user_idname]"
            ),
        ),
        (
            {"groups": [{"id": "0", "name": ""}]},
            (
                'group is not one of those in the policy: expected id "1000", got 0; to allow it, '
                "containers[0].user.group_idnames would have to accept 0 [group at containers[0].user.group_idnames]"
            ),
        ),
        (
            {"umask": "0077"},
            (
                'umask is not the one in the policy: expected 0022, got "0077"; to allow it, '
                'containers[0].user.umask would have to be "0077" [umask at containers[0].user.umask]'
            ),
        ),
        (
            {"mounts": [MOUNT]},
            (
                'mount at "/data" is not one in the policy: expected bind of "sandbox:///tmp/empty/.+" with options '
                f'["rbind", "rshared", "rw"], got bind of "{SOURCE}" with options ["rw"]; to allow it, '
                "containers[0].mounts would have to list it [mounts at containers[0].mounts[0]]"
            ),
        ),
        (
            {"mounts": [{**MOUNT, "destination": "/new"}, {**MOUNT, "destination": "/newer"}]},
            (
                f'mount at "/new" is not one in the policy: expected no mount there, got bind of "{SOURCE}" with '
                'options ["rw"]; to allow it, containers[0].mounts would have to list it '
                "[mounts at containers[0].mounts]"
            ),
        ),
        (
            {"envList": variables(2)},
            (
                'environment variable is not allowed by the policy (or has another value): got "V0", "V1"; to allow '
                "it, containers[0].env_rules would have to accept this value of it [env at containers[0].env_rules]"
            ),
        ),
        (
            {"envList": []},
            (
                'environment variable that the policy requires is missing (or has another value): expected "PATH"; to '
                "allow it, containers[0].env_rules[0].required would have to be false "
                "[env_required at containers[0].env_rules[0]]"
            ),
        ),
        (
            {"envList": [*variables(0), "HOSTNAME=a", "HOSTNAME=b"]},
            'environment variable is given twice with different values: got "HOSTNAME" [env_ambiguous]',
        ),
        (
            {"capabilities": {**capabilities(), "ambient": ["CAP_KILL"]}},
            (
                "ambient capabilities are not those in the policy: expected [], got extra CAP_KILL; to allow it, "
                'containers[0].capabilities.ambient would have to be ["CAP_KILL"] '
                "[capabilities at containers[0].capabilities.ambient]"
            ),
        ),
    ],
)
def test_a_container_that_is_denied(change: Json, expected: str) -> None:
    assert create(creation(**change)) == expected


def test_a_policy_that_demands_a_seccomp_profile() -> None:
    assert create(creation(), container(seccomp_profile_sha256="cd" * 32)).startswith(
        f"seccomp profile is not the one in the policy: expected SHA-256 {'cd' * 32}, got no profile; to allow it, "
        'containers[0].seccomp_profile_sha256 would have to be "" '
    )


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([], "expected none, got 0;"),
        ([("name", "staff"), ("re2", "a|b")], 'expected name "staff" or re2 "a|b", got 0;'),
    ],
)
def test_groups_that_the_policy_has(groups: list[tuple[str, str]], expected: str) -> None:
    user = {
        "user_idname": {"pattern": "", "strategy": "any"},
        "group_idnames": [{"pattern": pattern, "strategy": strategy} for strategy, pattern in groups],
        "umask": "0022",
    }
    assert expected in create(creation(groups=[{"id": "0", "name": ""}]), container(user=user))


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        (
            ["CAP_CHOWN", "CAP_FOWNER", "CAP_MKNOD"],
            (
                'expected ["CAP_CHOWN", "CAP_FOWNER", "CAP_MKNOD"], got extra CAP_KILL; missing CAP_CHOWN, CAP_FOWNER, '
                'CAP_MKNOD; to allow it, containers[0].capabilities.bounding would have to be ["CAP_KILL"]'
            ),
        ),
        (["CAP_CHOWN", "CAP_FOWNER", "CAP_MKNOD", "CAP_SETGID"], "expected a list of 4, got extra CAP_KILL; missing"),
    ],
)
def test_capabilities_are_listed_as_long_as_they_are_few(expected: list[str], said: str) -> None:
    asked = creation(capabilities=capabilities(["CAP_KILL"]))
    assert said in create(asked, container(capabilities=capabilities(expected)))


def test_of_capabilities_that_differ_a_lot_only_the_first_are_named() -> None:
    names = [f"CAP_{number:04}" for number in range(100)]
    message = create(creation(capabilities=capabilities(names)), container(capabilities=capabilities([])))
    given = message.partition(", got ")[2].partition("; to allow it")[0]
    assert given == ("extra " + ", ".join(names))[:300]


def test_the_reference_accepts_a_policy_with_capabilities_listed_twice_and_dropping_then_fails() -> None:
    policys, asked = ["CAP_KILL", "CAP_CHOWN", "CAP_CHOWN"], ["CAP_KILL", "CAP_KILL", "CAP_CHOWN"]
    loaded = policy(container(capabilities=capabilities(policys)), parity=True, allow_capability_dropping=True)
    decision = Talk(loaded).prepared().ask("create_container", creation(capabilities=capabilities(asked)))
    assert decision.message() == "create_container denied: capabilities are not those in the policy [capabilities]"
    assert decision.topics() == ("capabilities don't match",)


@pytest.mark.parametrize(
    ("change", "topic"),
    [
        ({"envList": variables(2)}, "invalid env list: V0,V1"),
        ({"envList": [*variables(0), *("HOSTNAME=a", "HOSTNAME=b")]}, "invalid env list: HOSTNAME"),
        ({"mounts": [{**MOUNT, "destination": "/a"}, {**MOUNT, "destination": "/b"}]}, "invalid mount list: /a,/b"),
    ],
)
def test_topics_list_all_that_is_refused(change: Json, topic: str) -> None:
    decision = Talk(policy()).prepared().ask("create_container", creation(**change))
    assert decision.topics() == (topic,)


def test_names_given_twice_are_all_in_the_topic() -> None:
    rules = [{"pattern": ".*", "strategy": "re2", "required": False}]
    talk = Talk(policy(container(env_rules=rules))).prepared()
    decision = talk.ask("create_container", creation(envList=["A=1", "A=2", "B=1", "B=2"]))
    assert decision.topics() == ("invalid env list: A,B",)
    assert 'got "A", "B" [' in decision.message()


def test_a_policy_may_have_everything_shown() -> None:
    rule = {"name": "R", "name_strategy": "string", "value": "v", "value_strategy": "string", "required": True}
    accepted = {"pattern": "PATH=.*", "strategy": "re2", "required": False}
    message = create(creation(argList=["/bin/app", "-x"]), **SHOWING)
    assert 'would have to be ["/bin/app", "-x"] [command at containers[0].command[1]]' in message
    assert 'expected "R=v";' in create(creation(), container(env_rules=[rule, accepted]), **SHOWING)
    assert 'got "A=1" ' not in create(creation(envList=[*variables(0), "A=1"]))
    assert 'got "A=1";' in create(creation(envList=[*variables(0), "A=1"]), **SHOWING)


# -- lists that are cut ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "rest"), [(9, ""), (10, ""), (11, " and more")])
def test_ten_variables_are_named(count: int, rest: str) -> None:
    named = ", ".join(f'"V{number}"' for number in range(min(count, 10)))
    assert f"got {named}{rest}; to allow it" in create(creation(envList=variables(count)))


@pytest.mark.parametrize(("count", "rest"), [(1, ""), (10, ""), (11, " and more")])
def test_ten_commands_are_named(count: int, rest: str) -> None:
    listed = [{"command": [f"/{number}"], "signals": []} for number in range(count)]
    talk = Talk(policy(container(exec_processes=listed))).created()
    named = "; ".join(f'["/{number}"]' for number in range(min(count, 10)))
    assert talk.ask("exec_in_container", execution(argList=["x"])).message() == (
        "exec_in_container denied: command is not one that the policy lets run in this container: "
        f'expected one of {named}{rest}, got ["x"]; to allow it, containers[0].exec_processes would have to list '
        '["x"] [command at containers[0].exec_processes]'
    )


def test_a_value_is_whole_up_to_its_limit() -> None:
    assert MAX_SHOWN == 300
    longest = "x" * (MAX_SHOWN - 2)
    assert shown(longest) == f'"{longest}"'
    assert shown(f"{longest}x") == f'"{longest}x...'


def test_a_message_is_whole_up_to_its_limit() -> None:
    frame = denied("p", Reason("code", "", "", where="w")).message()
    longest = "x" * (MAX_MESSAGE - len(frame))
    assert denied("p", Reason("code", longest, "", where="w")).message() == f"p denied: {longest} [code at w]"
    cut = denied("p", Reason("code", f"{longest}y", "", where="w")).message()
    assert cut == f"p denied: {longest[:-3]}... [code at w]"
    assert len(cut) == MAX_MESSAGE == 1600


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        (Reason("c", "wrong", ""), "wrong"),
        (Reason("c", "wrong", "", expected="a"), "wrong: expected a"),
        (Reason("c", "wrong", "", actual="b"), "wrong: got b"),
        (Reason("c", "wrong", "", expected="a", actual="b"), "wrong: expected a, got b"),
    ],
)
def test_a_reason_says_as_much_as_it_knows(reason: Reason, text: str) -> None:
    assert str(reason) == text
    assert denied("p", reason).message() == f"p denied: {text} [c]"


def test_a_denial_without_a_reason_is_still_one_line() -> None:
    assert denied("p").message() == "p denied: the policy does not allow it"


def test_kinds_have_the_names_that_recordings_and_simulations_use() -> None:
    assert [kind.value for kind in Kind] == ["allowed", "denied", "policy_error", "error"]
